"""Bicubic resizing with Pillow, as publications use it, and an import of torchvision for CPU-only installs."""

from functools import cache
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec
from types import ModuleType

import numpy as np
import torch
from PIL import Image

from liif_core.sizes import Size

# What torchvision's Python code registers fakes for without asking whether the operators exist.
_REQUIRED = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def bicubic(image: np.ndarray, size: Size) -> np.ndarray:
    """An image (h, w, c) resized to (H, W, c) by Pillow's bicubic filter; uint8 both.

    Antialiased where it shrinks. Channels are resized one by one, whatever they mean; of RGB that is the same.
    """
    return resized(image, size, Image.Resampling.BICUBIC)


def resized(image: np.ndarray, size: Size, kind: Image.Resampling) -> np.ndarray:
    """As ``bicubic``, by any filter of Pillow."""
    planes = (Image.fromarray(image[..., c]) for c in range(image.shape[2]))
    return np.stack([np.asarray(plane.resize(size[::-1], kind)) for plane in planes], axis=-1)


@cache
def torchvision() -> ModuleType:
    """The torchvision package, usable without its compiled operators. Call this before any import of torchvision.

    The wheel of the package registry is linked against CUDA. Beside a CPU-only torch its operators do not load, and
    then the import itself fails for want of two declarations, which are made here in that case only: where the real
    operators load, a second declaration would abort the process. Transforms, ``utils`` and models work either way;
    ``torchvision.io`` and ``torchvision.ops.nms`` need the operators. Raises ImportError without torchvision.
    """
    if not _operators_load():
        for name in _REQUIRED:
            if not hasattr(torch.ops.torchvision, name):
                torch.library.define(f"torchvision::{name}", _SCHEMA)
    return import_module("torchvision")


def _operators_load() -> bool:
    package = find_spec("torchvision")
    library = package and PathFinder.find_spec("_C", package.submodule_search_locations)
    if not library:
        return False
    try:
        torch.ops.load_library(library.origin)
    except OSError:
        return False
    return True
