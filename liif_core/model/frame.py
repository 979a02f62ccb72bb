"""Where the codes of a tile lie in the grid of codes of the whole image."""

from fractions import Fraction

from attrs import evolve, frozen

from liif_core.model.continuous import TilePlacement
from liif_core.sizes import Size


@frozen
class Frame:
    """How the grid of codes of a field lies in that of the whole image.

    ``size`` is the part of the plane that the whole grid covers, in pixels: that of the image, or more where it was
    padded for an encoder that changes resolution.
    """

    size: Size
    grid: Size  # codes of the whole image
    top: int  # of the field's own codes in that grid
    left: int


def padded(side: int, multiple: int) -> int:
    """The next multiple of ``multiple`` from ``side``."""
    return -(-side // multiple) * multiple


def scaled_slice(pixels: slice, per_pixel: Fraction) -> slice:
    """A slice of pixels as a slice of codes; open at the end, where padding may follow."""
    stop = None if pixels.stop is None else int(pixels.stop * per_pixel)
    return slice(int(pixels.start * per_pixel), stop)


def without_cuts(tile: TilePlacement, own: Size, margin: int, unit: int) -> tuple[TilePlacement, slice, slice]:
    """A tile without ``margin`` pixels at its cuts, where its codes differ from those of the whole image.

    Its sides at cuts become multiples of ``unit``, so that whole codes are left.
    """
    starts = [margin if start > 0 else 0 for start in (tile.top, tile.left)]
    stops = [
        (side - margin) // unit * unit if start + side < whole else None
        for start, side, whole in zip((tile.top, tile.left), own, tile.size)
    ]
    moved = evolve(tile, top=tile.top + starts[0], left=tile.left + starts[1])
    return moved, slice(starts[0], stops[0]), slice(starts[1], stops[1])


def frame_of(tile: TilePlacement, own: Size, codes: Size, unit: int) -> Frame:
    """The frame of a field of ``codes`` made from a tile of ``own`` pixels, which was padded to multiples of ``unit``.

    Raises ValueError where the codes of a tile do not lie on the grid of the whole image.
    """
    if codes == own:
        return Frame(tile.size, tile.size, tile.top, tile.left)
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
