"""``liif_core.evaluate``: a model measured on images from Python, without an experiment file."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import frozen
from PIL import Image
from torch import Tensor

from liif_core.data.crops import Images
from liif_core.data.decoding import decode
from liif_core.data.sources import open_images
from liif_core.evaluation.evaluate import evaluate_set
from liif_core.evaluation.metrics import AnyScale, check_protocol
from liif_core.evaluation.scores import Score
from liif_core.experiment.schema import FolderSource, PairedFoldersSource
from liif_core.model.continuous import ContinuousModel
from liif_core.model.device import device_of
from liif_core.presets import own_scales
from liif_core.sizes import Scale, Size, low_resolution_size

_MODES = {1: "L", 3: "RGB"}
AnyImage = str | Path | Image.Image | np.ndarray[Any, Any] | Tensor
AnyImages = str | Path | Iterable[AnyImage]
_EXPECTED = (
    "expected a path, a PIL image, a uint8 array (H, W) or (H, W, c), or a tensor (c, H, W): uint8, or floating point "
    "in [0, 1]"
)


def evaluate(
    model: ContinuousModel,
    images: AnyImages,
    scales: AnyScale | list[AnyScale] | None = None,
    protocol: str | list[str] = "benchmark",
    *,
    lr: AnyImages | None = None,
    ssim: bool = False,
    precision: str = "float32",
    progress: bool = False,
) -> list[Score]:
    """PSNR (and SSIM) of a model, and of bicubic interpolation beside it, on images.

    Args:
        model: put in evaluation mode; computes on the device that it is on.
        images: the high-resolution images: a folder, or a list of paths, PIL images, uint8 arrays (H, W) or
            (H, W, c), or tensors (c, H, W), uint8 or floating point in [0, 1], which are rounded to 8 bits.
        scales: a number, a (vertical, horizontal) tuple, or a list of these; by default those of the published tables
            of ``protocol``, where it has some.
        protocol: a name such as "benchmark", "div2k", "rgb" or "thera"; see ``liif_core.presets.PROTOCOLS``. Or a list
            of names, which share what is encoded and rendered alike.
        lr: the low-resolution images that belong to ``images``, in the same order, for a single scale; by default they
            are made by Pillow's bicubic filter on uint8.
        ssim: measure SSIM too; needs scikit-image.
        precision: "float32"; "bf16", on a GPU or a CPU that has it; or "fp16", on a GPU.
        progress: show a progress bar on stderr.

    Returns a ``Score`` for each scale, in their order; of several protocols, one after the other.

    Raises TypeError or ValueError that names the argument, with a line for every image that is too small or does not
    fit, before anything is computed; ValueError for a model whose output is not finite.

    Example:
        >>> for score in liif_core.evaluate(model, "data/Set5/HR", [2, 3.5]):
        ...     print(score.scale, score.psnr, score.bicubic_psnr)
    """
    if not isinstance(model, ContinuousModel):
        raise TypeError(f"model: expected a liif_core.ContinuousModel, got {type(model).__name__}")
    if not protocol:
        raise ValueError(f"protocol: expected a name or a list of names, got {protocol!r}")
    protocols = [protocol] if isinstance(protocol, str) else list(protocol)
    if lr is not None and scales is None:
        raise ValueError("scales: expected the scale of lr, got None")
    wanted = _scales(scales, protocols, model.channels)
    if lr is not None and len(wanted) > 1:
        raise ValueError(f"lr: expected a single scale with it, got {len(wanted)}; evaluate each scale on its own")
    given = _opened(images, lr, model.channels, wanted[0])
    device = device_of(model)
    name = Path(images).name if isinstance(images, (str, os.PathLike)) else "images"
    return evaluate_set(
        model, given, name, wanted, protocols, device=device, precision=precision, ssim=ssim, progress=progress
    )


def _scales(scales: AnyScale | list[AnyScale] | None, protocols: list[str], channels: int) -> list[Scale]:
    if scales is None:
        for protocol in protocols:
            check_protocol(protocol, channels)
        try:
            return list(own_scales(protocols))
        except ValueError as error:
            raise ValueError(f"scales: {error}") from None
    wanted = [_scale(scale) for scale in (scales if isinstance(scales, list) else [scales])]  # a tuple is one pair
    if not wanted:
        raise ValueError("scales: expected at least one, got []")
    return wanted


def _scale(value: Any) -> Scale:
    try:
        return Scale.of(value)
    except ValueError as error:
        kind = ValueError if isinstance(value, (int, float, tuple)) and not isinstance(value, bool) else TypeError
        raise kind(f"scales: {error}") from None


@frozen
class _InMemory:
    """Images in memory, as ``evaluate_set`` reads them: uint8 arrays (h, w, channels)."""

    names: tuple[str, ...]
    arrays: tuple[np.ndarray[Any, Any], ...]
    low: tuple[np.ndarray[Any, Any], ...]  # of the images, in their order; empty: none were given
    pair_scales: tuple[int | None, ...]

    @property
    def sizes(self) -> tuple[Size, ...]:
        return tuple((array.shape[0], array.shape[1]) for array in self.arrays)

    def image(self, i: int) -> np.ndarray[Any, Any]:
        return self.arrays[i]

    def low_resolution(self, i: int, scale: Scale) -> np.ndarray[Any, Any] | None:
        if not self.low:
            return None
        size = low_resolution_size(self.sizes[i], scale)
        found: Size = (self.low[i].shape[0], self.low[i].shape[1])
        return self.low[i] if found == size else None


def _opened(images: AnyImages, lr: AnyImages | None, channels: int, scale: Scale) -> Images:
    if isinstance(images, (str, os.PathLike)):
        hr = Path(os.path.abspath(images))
        if lr is None:
            return open_images(FolderSource(hr), channels=channels)
        if not isinstance(lr, (str, os.PathLike)):
            raise TypeError(f"lr: expected a folder, as images is one, got {type(lr).__name__}")
        return open_images(PairedFoldersSource(hr, Path(os.path.abspath(lr))), channels=channels)
    names, arrays = _arrays(images, "images", channels)
    if isinstance(lr, (str, os.PathLike)):
        raise TypeError("lr: expected a list, as images is one, got a path")
    low = () if lr is None else _arrays(lr, "lr", channels)[1]
    if lr is not None and len(low) != len(arrays):
        raise ValueError(f"lr: expected as many as images, {len(arrays)}, got {len(low)}")
    return _InMemory(names, arrays, low, (None,) * len(low))


def _arrays(
    images: Iterable[AnyImage], argument: str, channels: int
) -> tuple[tuple[str, ...], tuple[np.ndarray[Any, Any], ...]]:
    """Their names, which are unique, and their pixels."""
    if not isinstance(images, Iterable) or isinstance(images, (np.ndarray, Tensor, Image.Image, bytes)):
        raise TypeError(f"{argument}: expected a folder or a list of images, got {type(images).__name__}")
    names, arrays = [], []
    for i, image in enumerate(images):
        if isinstance(image, (str, os.PathLike)):
            names.append(str(image))
            arrays.append(decode(Path(image), channels))
        else:
            names.append(f"{argument}[{i}]")
            arrays.append(_array(image, names[-1], channels))
    if not arrays:
        raise ValueError(f"{argument}: expected at least one image, got none")
    return tuple(names), tuple(arrays)


def _array(image: Any, where: str, channels: int) -> np.ndarray[Any, Any]:
    if isinstance(image, Image.Image):
        if image.mode not in ("1", "L", "P", "RGB"):
            raise ValueError(
                f"{where}: expected a PIL image of mode RGB, L, P or 1, got {image.mode}; convert it first"
            )
        if channels not in _MODES:
            raise ValueError(f"{where}: expected a tensor or an array, as the model has {channels} channels")
        pixels = np.asarray(image.convert(_MODES[channels]))
    elif isinstance(image, Tensor):
        if image.ndim != 3:
            raise ValueError(f"{where}: expected a tensor (c, H, W), got {tuple(image.shape)}")
        values = image.detach().cpu()
        if values.is_floating_point():
            if not bool(((values >= 0) & (values <= 1)).all()):
                raise ValueError(f"{where}: expected values in [0, 1], got {values.min():g} to {values.max():g}")
            values = (values * 255).round().to(torch.uint8)
        if values.dtype != torch.uint8:
            raise TypeError(f"{where}: {_EXPECTED}, got {values.dtype}")
        pixels = values.permute(1, 2, 0).numpy()
    elif isinstance(image, np.ndarray):
        if image.dtype != np.uint8:
            raise TypeError(f"{where}: {_EXPECTED}, got an array of {image.dtype}")
        if image.ndim not in (2, 3):
            raise ValueError(f"{where}: expected an array (H, W) or (H, W, c), got {image.shape}")
        pixels = image
    else:
        raise TypeError(f"{where}: {_EXPECTED}, got {type(image).__name__}")
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    if pixels.shape[2] != channels or 0 in pixels.shape:
        raise ValueError(f"{where}: expected {channels} channels, as the model has, got {pixels.shape[2]}")
    return np.ascontiguousarray(pixels)
