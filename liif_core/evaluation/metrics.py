"""PSNR, SSIM and LPIPS under the named evaluation protocols of ``liif_core.presets``."""

import math
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from liif_core.errors import UserError, did_you_mean
from liif_core.evaluation import perceptual
from liif_core.presets import PROTOCOLS
from liif_core.sizes import Scale, Size

AnyScale = float | Sequence[float] | Scale  # whatever ``Scale.of`` takes

# Luma of BT.601 for RGB in [0, 1], in units of the full range of 8 bits; its offset of 16 cancels in a difference.
_LUMA = (65.738 / 256, 129.057 / 256, 25.064 / 256)
_LUMA_OFFSET = 16 / 255
SSIM_WINDOW = 11  # pixels that a Gaussian of sigma 1.5 covers when it is cut off at 3.5 sigma


def psnr(prediction: Tensor, target: Tensor, protocol: str = "rgb", scale: AnyScale | None = None) -> float:
    """Peak signal-to-noise ratio of one image, in dB: ``-10 log10(mean squared error)``; math.inf for equal images.

    Args:
        prediction: (c, H, W) or (1, c, H, W), floating point, in [0, 1], on any device.
        target: of the same shape and range.
        protocol: a name in ``liif_core.presets.PROTOCOLS``: which channels are compared, and how wide a border is
            left out. "rgb" compares whole images.
        scale: the magnification that ``prediction`` was made with, a number or a (vertical, horizontal) pair; needed
            by protocols that leave out a border, whose width depends on it.

    Raises TypeError or ValueError for arguments of another kind or shape, an unknown protocol, channels that it does
    not compare, or an image of which its border leaves nothing.
    """
    prediction, target = _compared(prediction, target, protocol, scale)
    error = _luma(prediction - target, protocol).square().mean().item()
    return -10 * math.log10(error) if error else math.inf


def ssim(prediction: Tensor, target: Tensor, protocol: str = "rgb", scale: AnyScale | None = None) -> float:
    """Structural similarity of one image, at most 1, with the settings of Wang et al. (2004).

    A Gaussian window of sigma 1.5 (11 x 11 pixels), population covariance, range 1; the mean over channels, or of Y
    for protocols that compare it. Arguments and errors are those of ``psnr``; what the border leaves must be at least
    11 x 11. Raises UserError where scikit-image is not installed.
    """
    similarity = need_ssim()
    prediction, target = _compared(prediction, target, protocol, scale, for_ssim=True)
    prediction, target = (_luma(image, protocol, _LUMA_OFFSET) for image in (prediction, target))
    first, second = prediction[0].numpy(), target[0].numpy()
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    return float(similarity(first, second, channel_axis=0, **settings))


def lpips(prediction: Tensor, target: Tensor, protocol: str = "rgb", scale: AnyScale | None = None) -> float:
    """Perceptual distance of one image, 0 for equal ones, by ``liif_core.evaluation.perceptual``.

    Of RGB, or gray as RGB, whichever channel the protocol compares. Arguments and errors are those of ``psnr``; images
    have one channel or three, and what the border leaves must be at least 31 x 31. Raises UserError where the package
    lpips is not installed, or its weights cannot be downloaded.
    """
    return perceptual.distance(*_compared(prediction, target, protocol, scale))


def ssim_installed() -> bool:
    """Whether scikit-image is there."""
    return find_spec("skimage") is not None


def need_ssim() -> Callable[..., Any]:
    """scikit-image's structural_similarity. Raises UserError where it is not installed."""
    try:
        from skimage.metrics import structural_similarity
    except ModuleNotFoundError:
        raise UserError("ssim: needs scikit-image, which is not installed: pip install 'liif-core[ssim]'") from None
    except Exception as error:  # a broken installation raises anything
        what = f"{type(error).__name__}: {error}"
        raise UserError(f"ssim: scikit-image is installed and does not work ({what}); install it again") from None
    return structural_similarity


def check_protocol(protocol: str, channels: int) -> None:
    """Raises ValueError for a protocol that does not exist, or that does not compare images of so many channels."""
    if protocol not in PROTOCOLS:
        known = ", ".join(PROTOCOLS)
        raise ValueError(f"no protocol is named {protocol!r}{did_you_mean(protocol, PROTOCOLS)}; there are: {known}")
    if PROTOCOLS[protocol].luma and channels not in (1, 3):
        raise ValueError(f"protocol {protocol!r} compares images of 1 or 3 channels, these have {channels}; use 'rgb'")


def check_size(size: Size, protocol: str, scale: Scale, for_ssim: bool = False) -> None:
    """Raises ValueError where a protocol's border leaves too little of images of ``size``; says how much is needed."""
    rows, columns = PROTOCOLS[protocol].border(scale)
    inside = SSIM_WINDOW if for_ssim else 1
    least = 2 * rows + inside, 2 * columns + inside
    if size[0] < least[0] or size[1] < least[1]:
        raise ValueError(
            f"{size[0]} x {size[1]} pixels (height x width) are too few: protocol {protocol!r} leaves out a border of "
            f"{rows} rows and {columns} columns; {'SSIM' if for_ssim else 'PSNR'} then needs {least[0]} x {least[1]}"
        )


def _compared(
    prediction: Tensor, target: Tensor, protocol: str, scale: AnyScale | None, for_ssim: bool = False
) -> tuple[Tensor, Tensor]:
    """What is compared of both: (1, c, h, w) float64 on the CPU, without the border."""
    for name, image in (("prediction", prediction), ("target", target)):
        if not isinstance(image, Tensor):
            raise TypeError(f"{name}: expected a tensor (c, H, W) or (1, c, H, W), got {type(image).__name__}")
        if not image.is_floating_point():
            raise TypeError(f"{name}: expected floating-point values in [0, 1], got {image.dtype}")
    if prediction.shape != target.shape or target.ndim not in (3, 4) or (target.ndim == 4 and len(target) != 1):
        shapes = f"{tuple(prediction.shape)} and {tuple(target.shape)}"
        raise ValueError(f"prediction, target: expected one shape, (c, H, W) or (1, c, H, W), got {shapes}")
    height, width = target.shape[-2:]
    check_protocol(protocol, target.shape[-3])
    if scale is None and PROTOCOLS[protocol].shave:
        raise ValueError(f"scale: expected a number: protocol {protocol!r} leaves out a border as wide; got None")
    try:
        chosen = Scale(1.0, 1.0) if scale is None else Scale.of(scale)
    except ValueError as error:
        raise ValueError(f"scale: {error}") from None
    check_size((height, width), protocol, chosen, for_ssim)
    rows, columns = PROTOCOLS[protocol].border(chosen)
    inside = ..., slice(rows, height - rows), slice(columns, width - columns)
    first, second = (
        image.reshape(1, *image.shape[-3:])[inside].detach().cpu().to(torch.float64) for image in (prediction, target)
    )
    return first, second


def _luma(image: Tensor, protocol: str, offset: float = 0.0) -> Tensor:
    """(1, 1, H, W): R, G and B weighted, plus ``offset``, where the protocol compares Y of RGB; else the image."""
    if not PROTOCOLS[protocol].luma or image.shape[1] == 1:
        return image
    return (image * image.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True) + offset
