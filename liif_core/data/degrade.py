"""Degradations: how high-resolution crops become low-resolution training patches."""

from typing import Any, Protocol, runtime_checkable

import numpy as np

from liif_core.data.resize import bicubic
from liif_core.errors import UserError
from liif_core.registry.components import Choice
from liif_core.sizes import Size


@runtime_checkable
class Degradation(Protocol):
    """A function: HR crop (H, W, c) uint8, size (h, w), random generator -> LR patch (h, w, c) uint8.

    Values are in 0..255; c is 1 (gray) or 3 (RGB). h <= H and w <= W in training, and the two scales H / h and W / w
    agree up to rounding. Pixel edges must stay aligned: the patch covers the same area as the crop, so that a shift by
    a fraction of a pixel is an error that the model would learn.

    Every random draw must come from ``rng``: two calls with generators of the same state return the same patch. The
    crop must not be written to. The function must be picklable: worker processes of the data loader receive a copy.
    """

    def __call__(self, image: np.ndarray, size: Size, rng: np.random.Generator) -> np.ndarray: ...


def build_degradation(choice: Choice | None) -> Degradation:
    """The degradation of ``data.degradation``; without one, Pillow's bicubic filter, as published evaluations use it.

    What it returns is checked at every call. Raises UserError where it cannot be built or does not work on a small
    image.
    """
    if choice is None:
        return _bicubic
    where = f"data.degradation: {choice.use!r} of {choice.origin}"
    try:
        function = choice.build()
    except Exception as error:  # of a plugin
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise UserError(f"{where} could not be built: {reason}") from error
    if not callable(function):
        raise UserError(f"{where}: expected a function of image, size and rng, got {type(function).__name__}")
    checked = _Checked(function, where)
    checked(np.full((20, 20, 3), 128, np.uint8), (8, 8), np.random.default_rng(0))
    return checked


def _bicubic(image: np.ndarray, size: Size, rng: np.random.Generator) -> np.ndarray:
    return bicubic(image, size)


class _Checked:
    """A plugin's degradation whose result is checked."""

    def __init__(self, function: Any, where: str):
        self.function, self.where = function, where

    def __call__(self, image: np.ndarray, size: Size, rng: np.random.Generator) -> np.ndarray:
        expected = (*size, image.shape[2])
        try:
            result = self.function(image, size, rng)
        except Exception as error:  # of a plugin; raised in a worker process, too
            raise UserError(
                f"{self.where} failed on an image {image.shape}: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(result, np.ndarray):
            raise UserError(f"{self.where}: expected a numpy array, got {type(result).__name__}")
        if result.dtype != np.uint8 or result.shape != expected:
            raise UserError(f"{self.where}: expected uint8 {expected}, got {result.dtype} {result.shape}")
        return result
