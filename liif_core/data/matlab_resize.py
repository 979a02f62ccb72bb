"""Bicubic resizing as MATLAB's ``imresize`` does it, with which most benchmark LR images were made.

Keys, Cubic convolution interpolation for digital image processing, 1981, with a = -0.5. Where an image shrinks, the
kernel is widened by the scale. Beyond the edges, the image is continued by reflection, with the edge pixel repeated.
Pillow and torch differ from it at the edges, where they cut the kernel off.
"""

import math
from fractions import Fraction

import numpy as np

from liif_core.sizes import Size


def matlab_bicubic(image: np.ndarray, size: Size) -> np.ndarray:
    """An image (h, w, c) uint8, resized to (H, W, c) uint8: rows first, then columns, rounded to 8 bits after each.

    MATLAB itself begins with the axis that shrinks most.
    """
    down = _rounded(np.tensordot(_weights(image.shape[0], size[0]), image.astype(np.float64), axes=(1, 0)))
    across = np.tensordot(_weights(image.shape[1], size[1]), down.astype(np.float64), axes=(1, 1))
    return _rounded(across.transpose(1, 0, 2))


def _rounded(values: np.ndarray) -> np.ndarray:
    """To 8 bits; halves away from zero."""
    return np.floor(values.clip(0, 255) + 0.5).astype(np.uint8)


def _weights(side: int, target: int) -> np.ndarray:
    """(target, side): the weight of each pixel of a side in each pixel of the resized one. Rows sum to 1."""
    scale = min(1.0, target / side)  # of the kernel
    reach = 2 / scale
    weights = np.zeros((target, side))
    for place in range(target):
        center = float(Fraction(2 * place + 1, 2 * target) * side) - 0.5  # in pixels of the side
        pixels = np.arange(math.floor(center - reach), math.ceil(center + reach) + 1)
        values = _cubic((pixels - center) * scale)
        period = pixels % (2 * side)
        np.add.at(weights[place], np.where(period < side, period, 2 * side - 1 - period), values / values.sum())
    return weights


def _cubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
