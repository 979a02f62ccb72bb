"""LPIPS: how different two images look to a network that was trained to classify photographs.

Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018, by its authors' package
``lpips``, version 0.1 with AlexNet, whose weights torchvision downloads once.
"""

import warnings
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from liif_core.data.resize import torchvision
from liif_core.errors import UserError

LEAST = 31  # pixels of a side, below which AlexNet's layers leave nothing


def installed() -> bool:
    """Whether the package is there."""
    return find_spec("lpips") is not None


@cache
def unusable() -> str:
    """Why the installed package cannot be used; empty if it can. The first call loads the network."""
    try:
        _network()
    except Exception as error:  # a download, a file or a broken installation raises anything
        what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return f"its network could not be loaded ({what}); it needs the weights of torchvision's AlexNet, a download"
    return ""


def unfit(side: int, channels: int) -> str:
    """Why images whose shorter side has ``side`` pixels cannot be compared; empty if they can."""
    if channels not in (1, 3):
        return f"it compares images of 1 or 3 channels, these have {channels}"
    if side < LEAST:
        return f"it needs {LEAST} pixels a side inside the border, and an image has {side}"
    return ""


def distance(prediction: Tensor, target: Tensor) -> float:
    """LPIPS of two images (1, c, H, W) in [0, 1] of one channel or three, at least ``LEAST`` pixels a side; 0: alike.

    Raises ValueError for others, and UserError where ``lpips`` is not installed or does not work.
    """
    if problem := unfit(min(target.shape[-2:]), target.shape[1]):
        raise ValueError(f"LPIPS: {problem}")
    if not installed():
        raise UserError("lpips: needs the package lpips, which is not installed: pip install 'liif-core[lpips]'")
    if problem := unusable():
        raise UserError(f"lpips: {problem}")
    first, second = (image.float().expand(-1, 3, -1, -1) for image in (prediction, target))
    with torch.inference_mode():
        return float(_network()(first, second, normalize=True))


@cache
def _network() -> nn.Module:
    torchvision()  # makes the import of it in lpips work beside a CPU-only torch
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips asks torchvision for weights in its older way
        from lpips import LPIPS

        network: nn.Module = LPIPS(net="alex", verbose=False)
    return network.eval().requires_grad_(False)
