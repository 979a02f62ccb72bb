"""Bicubic downscaling, the degradation of LIIF and of most published super-resolution models."""

import numpy as np

from liif_core import Component, bicubic, hookimpl


class Bicubic:
    """HR crop (H, W, c) uint8 -> LR patch (h, w, c) uint8, by Pillow's bicubic filter with antialiasing.

    This is also the default, without ``data.degradation``. ``rng`` is not used.
    """

    def __call__(self, image: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        return bicubic(image, size)


@hookimpl
def liif_degradations():
    return Component("bicubic", lambda options: Bicubic())
