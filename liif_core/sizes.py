"""Sizes and magnifications of images, in plain numbers."""

import math
import sys
from collections.abc import Sequence

from attrs import frozen

Size = tuple[int, int]  # (height, width)
Region = tuple[float, float, float, float]  # (top, left, bottom, right) in pixels of the image, fractions allowed


@frozen
class Scale:
    """Magnification per axis; both positive, below 1 to shrink."""

    y: float
    x: float

    @classmethod
    def of(cls, value: "float | Sequence[float] | Scale") -> "Scale":
        """From one number for both axes, or a (vertical, horizontal) pair.

        Raises ValueError for anything that is not a positive finite number.
        """
        if isinstance(value, Scale):
            return value
        pair = list(value) if isinstance(value, (list, tuple)) else [value, value]
        numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in pair)
        if len(pair) != 2 or not numbers or not all(0 < v <= sys.float_info.max for v in pair):
            raise ValueError(f"expected a positive number or a pair of them, got {value!r}")
        return cls(float(pair[0]), float(pair[1]))

    @classmethod
    def parse(cls, text: str) -> "Scale":
        """From ``"2.5"`` or ``"2,3.7"`` (vertical, horizontal). Raises ValueError."""
        try:
            pair = [float(part) for part in text.split(",")]
        except ValueError:
            pair = []
        if len(pair) not in (1, 2):
            raise ValueError(f"expected S or SY,SX (such as 2.5 or 2,3.7), got {text!r}")
        return cls.of(pair * 2 if len(pair) == 1 else pair)

    @property
    def to_builtin(self) -> int | float | list[int | float]:
        """As JSON and TOML have it: one number where both axes agree, whole numbers as integers."""
        y, x = (int(v) if v == int(v) else v for v in (self.y, self.x))
        return y if y == x else [y, x]

    def __str__(self) -> str:
        plain = self.to_builtin
        return f"x{plain[0]},{plain[1]}" if isinstance(plain, list) else f"x{plain}"


def scaled_size(size: Size, scale: Scale) -> Size:
    """The size an image of ``size`` has after magnification: nearest whole number, halves up, at least 1."""
    return tuple(max(1, math.floor(n * s + 0.5)) for n, s in zip(size, (scale.y, scale.x)))


def low_resolution_size(size: Size, scale: Scale) -> Size:
    """The LR size for an HR image of ``size``: the largest whose magnification fits in it, at least 1.

    ``scaled_size(low_resolution_size(size, scale), scale)`` is then the HR size to crop to; for a whole-number
    scale that is the largest multiple of the scale, as published evaluations crop.
    """
    return tuple(max(1, math.floor(n / s + 1e-9)) for n, s in zip(size, (scale.y, scale.x)))


def format_size(size: Size) -> str:
    """A size as people write it, width first: ``640x480``."""
    return f"{size[1]}x{size[0]}"
