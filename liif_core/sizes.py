"""Sizes and magnifications of images, in plain numbers."""

import math
import sys
from collections.abc import Sequence
from numbers import Integral, Real

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
        try:
            numbers = [float(v) for v in pair if isinstance(v, Real) and not isinstance(v, bool)]
        except OverflowError:  # of an integer
            numbers = []
        if len(pair) != 2 or len(numbers) != 2 or not all(0 < v <= sys.float_info.max for v in numbers):
            raise ValueError(f"expected a positive number or a pair of them, got {value!r}")
        return cls(numbers[0], numbers[1])

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
        """For JSON and TOML: one number if both axes agree, else [y, x]; whole numbers as integers."""
        y, x = (int(v) if v == int(v) else v for v in (self.y, self.x))
        return y if y == x else [y, x]

    def __str__(self) -> str:
        plain = self.to_builtin
        return f"x{plain[0]},{plain[1]}" if isinstance(plain, list) else f"x{plain}"


def scaled_size(size: tuple[float, float], scale: Scale) -> Size:
    """The size of an image of ``size`` after magnification: the nearest whole numbers, halves up, at least 1."""
    return max(1, math.floor(size[0] * scale.y + 0.5)), max(1, math.floor(size[1] * scale.x + 0.5))


def low_resolution_size(size: Size, scale: Scale) -> Size:
    """The LR size for an HR image of ``size``: the largest one whose magnification fits in it, at least 1.

    ``scaled_size(low_resolution_size(size, scale), scale)`` is then the HR size to crop to. For a whole-number scale
    this is the largest multiple of the scale, to which published evaluations crop.
    """
    return max(1, math.floor(size[0] / scale.y + 1e-9)), max(1, math.floor(size[1] / scale.x + 1e-9))


def format_size(size: Size) -> str:
    """A size as people write it, width first: ``640x480``."""
    return f"{size[1]}x{size[0]}"


_LARGEST_SIDE = 2**31 - 1
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@frozen
class OutputSize:
    """How large to render an image, and which part of it. Make one with ``of``."""

    scale: Scale | None  # None: width, height or both are given
    width: int | None
    height: int | None
    region: Region | None

    @classmethod
    def of(
        cls,
        scale: "float | Sequence[float] | Scale | None" = None,
        width: int | None = None,
        height: int | None = None,
        region: Sequence[float] | None = None,
    ) -> "OutputSize":
        """``scale`` (a number, or a (vertical, horizontal) pair), or ``width`` and ``height`` in pixels.

        Of width and height, one that is left out follows from the other. ``region`` (top, left, bottom, right), in
        pixels of the image, fractions allowed, selects a part; scale and size are then those of the part.
        Raises TypeError or ValueError that names the argument.
        """
        if (scale is None) == (width is None and height is None):
            raise ValueError(
                f"scale, width, height: expected a scale, or a width, a height or both; "
                f"got scale={scale!r}, width={width!r}, height={height!r}"
            )
        for name, side in (("width", width), ("height", height)):
            if side is not None and (not isinstance(side, Integral) or isinstance(side, bool)):
                raise TypeError(f"{name}: expected a whole number of pixels, got {side!r}")
            if side is not None and not 1 <= side <= _LARGEST_SIDE:
                raise ValueError(f"{name}: expected 1 to {_LARGEST_SIDE} pixels, got {side}")
        try:
            chosen = None if scale is None else Scale.of(scale)
        except ValueError as error:
            kind = ValueError if isinstance(scale, (Real, list, tuple)) and not isinstance(scale, bool) else TypeError
            raise kind(f"scale: {error}") from None
        whole_width, whole_height = (None if side is None else int(side) for side in (width, height))
        return cls(chosen, whole_width, whole_height, None if region is None else _region(region))

    def for_image(self, size: Size) -> Size:
        """The output's (height, width) for an image of ``size``."""
        top, left, bottom, right = self.region or (0, 0, *size)
        part = bottom - top, right - left
        if self.scale is not None:
            return scaled_size(part, self.scale)
        if self.height is not None and self.width is not None:
            return self.height, self.width
        if self.width is not None:
            return scaled_size(part, Scale.of(self.width / part[1]))[0], self.width
        assert self.height is not None
        return self.height, scaled_size(part, Scale.of(self.height / part[0]))[1]

    def scale_for(self, size: Size) -> Scale:
        """The magnification of an image of ``size``."""
        top, left, bottom, right = self.region or (0, 0, *size)
        height, width = self.for_image(size)
        return self.scale or Scale(height / (bottom - top), width / (right - left))

    def check_region(self, size: Size) -> None:
        """Raises ValueError if the region reaches beyond an image of ``size``."""
        if self.region is not None and (self.region[2] > size[0] or self.region[3] > size[1]):
            raise ValueError(
                f"region: it ends at row {self.region[2]:g} and column {self.region[3]:g}, and the image has {size[0]} "
                f"rows and {size[1]} columns"
            )


def memory_bytes(memory: int | str) -> int:
    """A limit of memory in bytes, from a number of bytes or text such as "300MB" or "2GB".

    Raises TypeError or ValueError for anything else, and below 1 MB.
    """
    wrong = f"expected at least 1MB, such as 300MB or 2GB, got {memory!r}"
    if not isinstance(memory, (Real, str)) or isinstance(memory, bool):
        raise TypeError(wrong)
    try:
        if isinstance(memory, str):
            compact = memory.replace(" ", "").upper()
            number = compact.rstrip("BKMGTI")
            value = float(number) * _UNITS[compact[len(number) :]]
        else:
            value = float(memory)
    except (ValueError, KeyError, OverflowError):
        raise ValueError(wrong) from None
    if not 1e6 <= value < math.inf:
        raise ValueError(wrong)
    return int(value)


def _region(region: Sequence[float]) -> Region:
    expected = (
        "region: expected (top, left, bottom, right) in pixels of the image, "
        f"0 <= top < bottom and 0 <= left < right, got {region!r}"
    )
    if not isinstance(region, Sequence) or isinstance(region, str) or not all(isinstance(n, Real) for n in region):
        raise TypeError(expected)
    if len(region) != 4 or not all(math.isfinite(n) for n in region):
        raise ValueError(expected)
    top, left, bottom, right = (float(n) for n in region)
    if not (0 <= top < bottom and 0 <= left < right):
        raise ValueError(expected)
    return top, left, bottom, right
