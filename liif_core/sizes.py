"""Sizes and magnifications of images, in plain numbers."""

import math
import re
import sys
from collections.abc import Sequence
from fractions import Fraction
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
            raise ValueError(f"expected S or SY,SX (such as 2.5 or 2,3.7), got {text[:40]!r}{comma_advice(text)}")
        try:
            return cls.of(pair * 2 if len(pair) == 1 else pair)
        except ValueError as error:
            raise ValueError(f"{error}{comma_advice(text)}") from None

    @property
    def to_builtin(self) -> int | float | list[int | float]:
        """For JSON and TOML: one number if both axes agree, else [y, x]; whole numbers as integers."""
        y, x = (int(v) if v == int(v) else v for v in (self.y, self.x))
        return y if y == x else [y, x]

    def __str__(self) -> str:
        plain = self.to_builtin
        return f"x{plain[0]},{plain[1]}" if isinstance(plain, list) else f"x{plain}"


def comma_advice(text: str) -> str:
    """A clause about decimal points if ``text`` has a comma between two digits, else nothing."""
    if re.search(r"\d,\d", text):
        return "; a comma separates numbers here, and decimals are written with a point, such as 2.5"
    return ""


def scaled_size(size: tuple[float | Fraction, float | Fraction], scale: Scale) -> Size:
    """The size of an image of ``size`` after magnification: the nearest whole numbers, halves up, at least 1.

    Computed with the decimal numbers that people write: 25 pixels at 2.3 are 57.5, and become 58.
    """
    return _nearest(_exact(size[0]) * _exact(scale.y)), _nearest(_exact(size[1]) * _exact(scale.x))


def _exact(number: float | Fraction) -> Fraction:
    """The shortest decimal that is read as ``number``, in place of its binary value."""
    return number if isinstance(number, Fraction) else Fraction(repr(float(number)))


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
_SMALLEST_STEP = 2.0**-25  # of a side of the image: half the distance of float32 coordinates from -1 to 1
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
        if chosen is not None and max(chosen.y, chosen.x) > _LARGEST_SIDE:
            raise ValueError(f"scale: expected at most {_LARGEST_SIDE}, got {scale!r}")
        whole_width, whole_height = (None if side is None else int(side) for side in (width, height))
        return cls(chosen, whole_width, whole_height, None if region is None else _region(region))

    def for_image(self, size: Size) -> Size:
        """The output's (height, width) for an image of ``size``."""
        part = self._part(size)
        if self.scale is not None:
            return scaled_size(part, self.scale)
        if self.height is not None and self.width is not None:
            return self.height, self.width
        if self.width is not None:
            return _nearest(part[0] * self.width / part[1]), self.width
        assert self.height is not None
        return self.height, _nearest(part[1] * self.height / part[0])

    def scale_for(self, size: Size) -> Scale:
        """The magnification of an image of ``size``."""
        if self.scale is not None:
            return self.scale
        part = self._part(size)
        height, width = self.for_image(size)
        return Scale(float(height / part[0]), float(width / part[1]))

    def check(self, size: Size) -> None:
        """Raises ValueError if an image of ``size`` cannot be rendered in this size.

        That is, if the region reaches beyond the image, if its output pixels are closer to each other than coordinates
        of type float32 can tell apart, or if a side of the output has more than 2,147,483,647 pixels.
        """
        if self.region is not None and (self.region[2] > size[0] or self.region[3] > size[1]):
            raise ValueError(
                f"region: it ends at row {self.region[2]:g} and column {self.region[3]:g}, and the image has {size[0]} "
                f"rows and {size[1]} columns"
            )
        output, part = self.for_image(size), self._part(size)
        if max(output) > _LARGEST_SIDE:
            given = "size" if self.scale is None else "scale"
            raise ValueError(
                f"{given}: the output of this image of {format_size(size)} pixels would have more than "
                f"{_LARGEST_SIDE:,} pixels a side; choose a smaller {given}"
            )
        if self.region is not None:
            steps = [float(side / pixels / whole) for side, pixels, whole in zip(part, output, size)]
            if min(steps) < _SMALLEST_STEP:
                raise ValueError(
                    f"region: its output pixels are {min(steps) * max(size):.1g} pixels of the image apart, less than "
                    "coordinates of type float32 can tell apart; choose a larger region or a smaller size"
                )

    def _part(self, size: Size) -> tuple[Fraction, Fraction]:
        """Height and width of what is rendered, in pixels of the image."""
        top, left, bottom, right = (_exact(edge) for edge in self.region or (0, 0, *size))
        return bottom - top, right - left


def _nearest(number: Fraction) -> int:
    """The nearest whole number, halves up, at least 1."""
    return max(1, math.floor(number + Fraction(1, 2)))


def memory_bytes(memory: int | str) -> int:
    """A limit of memory in bytes, from a number of bytes or text such as "300MB" or "2GB".

    Raises TypeError or ValueError for anything else, and below 1 MB.
    """
    wrong = f"expected at least 1MB, such as 300MB or 2GB, got {memory!r}"
    if isinstance(memory, str):
        wrong += comma_advice(memory)
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
