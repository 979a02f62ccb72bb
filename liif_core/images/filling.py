"""Colors for fully transparent pixels of a picture that is too large for memory, by way of a temporary file.

The result is that of ``fill_transparent``. There, a pixel that is k steps away from the nearest visible pixel gets the
color of a neighbor that is k - 1 steps away: the left one if it is that near, else the right, the upper or the lower
one. The chain of neighbors from a pixel to the visible pixel whose color it gets is a shortest path, so it never turns
from up to down. So two passes over the rows find the steps, and while the second goes up, it fills all pixels whose
color comes from below or from their own row; a third pass goes down and fills those whose color comes from above.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from liif_core.errors import UserError
from liif_core.images.picture import Depth
from liif_core.images.source import Block, Pixels, ReadPart
from liif_core.sizes import Size

_VISIBLE, _BELOW, _ABOVE, _RIGHT, _LEFT = range(5)  # where a pixel's color comes from


def filled_in_file(path: Path, blocks: Iterator[Block], size: Size, channels: int, depth: Depth) -> ReadPart:
    """A reader of a picture with alpha, given as its blocks, with the colors of fully transparent pixels filled.

    It reads from a temporary file that the system deletes when the reader is no longer used. ``path`` is for messages.
    Raises UserError where the disk has no room for it.
    """
    height, width = size
    steps_type = np.dtype(np.uint16 if height + width < 2**16 else np.uint32)
    dtype = np.dtype(depth)
    row = width * ((channels + 1) * dtype.itemsize + steps_type.itemsize)
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if height * row > free:
        raise UserError(
            f"{path}: its fully transparent pixels get their colors by way of a temporary file of "
            f"{height * row / 1e9:.1f} GB, and {tempfile.gettempdir()} has {free / 1e9:.1f} GB free; make room there, "
            "name another folder in the variable TMPDIR, or allow more memory"
        )
    file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the reader
    color = _Rows(file, 0, (width, channels), dtype)
    alpha = _Rows(file, height * color.length, (width,), dtype)
    steps = _Rows(file, height * (color.length + alpha.length), (width,), steps_type)
    far = height + width  # more steps than there can be
    above = np.full(width, far, np.int32)
    for first, (some_color, some_alpha) in blocks:
        assert some_alpha is not None
        color.write(first, np.broadcast_to(some_color, (*some_color.shape[:2], channels)))
        alpha.write(first, some_alpha)
        found = np.empty(some_alpha.shape, steps_type)
        for place, row_alpha in enumerate(some_alpha):
            above = _along(np.where(row_alpha > 0, 0, above + 1), far)
            found[place] = above
        steps.write(first, found)
    _fill_from_below(color, steps, height, far)
    _fill_from_above(color, steps, height, far)

    def read(rows: slice, columns: slice) -> Pixels:
        return color.read(rows, columns), alpha.read(rows, columns)

    return read


class _Rows:
    """Rows of an array (rows, *shape) that is kept in a file, from ``start`` on."""

    def __init__(self, file: BinaryIO, start: int, shape: tuple[int, ...], dtype: np.dtype):
        self.file, self.start, self.shape, self.dtype = file, start, shape, dtype
        self.pixel = dtype.itemsize * int(np.prod(shape[1:]))
        self.length = shape[0] * self.pixel

    def write(self, first: int, rows: np.ndarray) -> None:
        self.file.seek(self.start + first * self.length)
        self.file.write(np.ascontiguousarray(rows, self.dtype).data)

    def row(self, row: int) -> np.ndarray:
        found: np.ndarray = self.read(slice(row, row + 1), slice(0, self.shape[0]))[0]
        return found

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        part = np.empty((rows.stop - rows.start, columns.stop - columns.start, *self.shape[1:]), self.dtype)
        for place, row in enumerate(range(rows.start, rows.stop)):
            self.file.seek(self.start + row * self.length + columns.start * self.pixel)
            self.file.readinto(part[place].reshape(-1).view(np.uint8))  # type: ignore[attr-defined]
        return part


def _along(steps: np.ndarray, far: int) -> np.ndarray:
    """The steps of a row's pixels where steps along the row are allowed too."""
    place = np.arange(len(steps), dtype=np.int32)
    leftward = np.minimum.accumulate(steps - place) + place
    rightward = (np.minimum.accumulate((steps + place)[::-1]))[::-1] - place
    return np.minimum(np.minimum(leftward, rightward), far).astype(np.int32)


def _fill_from_below(color: _Rows, steps: _Rows, height: int, far: int) -> None:
    """Make the steps those to the nearest visible pixel of all, and fill what gets its color from there or its row."""
    outside = np.full(color.shape[0], far, np.int32)
    below, below_color = outside, None
    here = steps.row(height - 1).astype(np.int32)
    for row in range(height - 1, -1, -1):
        above = np.minimum(steps.row(row - 1), here + 1).astype(np.int32) if row else outside
        if row:
            steps.write(row - 1, above[None])
        row_color = color.row(row)
        if here.any():
            source, kind = _sources(above, here, below)
            filled = row_color[source]
            if below_color is not None:
                filled = np.where((kind == _BELOW)[:, None], below_color[source], filled)
            row_color = filled
            color.write(row, row_color[None])
        below, here, below_color = here, above, row_color


def _fill_from_above(color: _Rows, steps: _Rows, height: int, far: int) -> None:
    """Fill what gets its color from a row above."""
    outside = np.full(color.shape[0], far, np.int32)
    above, above_color = outside, None
    here = steps.row(0).astype(np.int32)
    for row in range(height):
        below = steps.row(row + 1).astype(np.int32) if row + 1 < height else outside
        row_color = color.row(row)
        if here.any() and above_color is not None:
            source, kind = _sources(above, here, below)
            row_color = np.where((kind == _ABOVE)[:, None], above_color[source], row_color)
            color.write(row, row_color[None])
        above, here, above_color = here, below, row_color


def _sources(above: np.ndarray, here: np.ndarray, below: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel of a row, the column of the pixel at which its chain leaves the row, and where to.

    Arguments are the steps of three rows.
    """
    near = here - 1
    kind = np.full(len(here), _VISIBLE, np.int8)
    kind[below == near] = _BELOW
    kind[above == near] = _ABOVE
    kind[:-1][here[1:] == near[:-1]] = _RIGHT
    kind[1:][here[:-1] == near[1:]] = _LEFT
    kind[here == 0] = _VISIBLE
    place = np.arange(len(here))
    from_left = np.maximum.accumulate(np.where(kind == _LEFT, 0, place))
    from_right = np.minimum.accumulate(np.where(kind == _RIGHT, len(here), place)[::-1])[::-1]
    source = np.where(kind == _LEFT, from_left, np.where(kind == _RIGHT, from_right, place))
    return source, kind[source]
