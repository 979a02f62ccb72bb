"""The position of a tile's codes in the grid of codes of the whole image."""

from fractions import Fraction

from attrs import evolve, frozen

from liif_core.model.continuous import TilePlacement
from liif_core.sizes import Size


@frozen
class Frame:
    """The grid of codes of the whole image, and where the codes of a field begin in it."""

    size: Size  # pixels that the whole grid covers: the image, padded where an encoder changes resolution
    grid: Size  # rows and columns of codes of the whole image
    top: int  # row of that grid that is the field's first row
    left: int


def padded(side: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is at least ``side``."""
    return -(-side // multiple) * multiple


def scaled_slice(pixels: slice, per_pixel: Fraction) -> slice:
    """A slice of pixels as a slice of codes. One that is open at the end stays open, since padding may follow."""
    stop = None if pixels.stop is None else int(pixels.stop * per_pixel)
    return slice(int(pixels.start * per_pixel), stop)


def without_cuts(tile: TilePlacement, own: Size, margin: int, unit: int) -> tuple[TilePlacement, slice, slice]:
    """A tile of ``own`` pixels without the ``margin`` pixels at its cuts, and its remaining rows and columns.

    A cut is a side of the tile that is no side of the image; codes near it differ from those of the whole image. Cuts
    move to multiples of ``unit`` pixels, so that whole codes remain.
    """
    starts = [margin if start > 0 else 0 for start in (tile.top, tile.left)]
    stops = [
        (side - margin) // unit * unit if start + side < whole else None
        for start, side, whole in zip((tile.top, tile.left), own, tile.size)
    ]
    moved = evolve(tile, top=tile.top + starts[0], left=tile.left + starts[1])
    return moved, slice(starts[0], stops[0]), slice(starts[1], stops[1])


def frame_of(tile: TilePlacement, own: Size, codes: Size, unit: int) -> Frame:
    """The frame of a field of ``codes`` for a tile of ``own`` pixels, padded to multiples of ``unit``.

    Raises ValueError where the codes of a tile do not lie on the grid of the whole image.
    """
    covered = [padded(side, unit) for side in own]
    whole = [padded(side, unit) for side in tile.size]
    grid = [Fraction(count * side, part) for count, side, part in zip(codes, whole, covered)]
    first = [Fraction(count * start, part) for count, start, part in zip(codes, (tile.top, tile.left), covered)]
    if any(value.denominator > 1 for value in (*grid, *first)):
        raise ValueError(
            f"features: {codes} codes for {tuple(covered)} pixels do not divide the image of {tile.size} evenly; "
            "raise the encoder's multiple_of"
        )
    return Frame((whole[0], whole[1]), (int(grid[0]), int(grid[1])), int(first[0]), int(first[1]))
