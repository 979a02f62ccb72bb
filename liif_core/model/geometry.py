"""Pixels and coordinates: the convention is stated here only.

A coordinate is (y, x) in [-1, 1], where -1 and 1 are the outer edges of the image
(``align_corners=False``): the center of pixel i of n lies at -1 + (2 i + 1) / n.
A cell is a pixel's (height, width) in the same units: (2 / H, 2 / W).
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from liif_core.model.device import moved
from liif_core.sizes import Region, Size


def pixel_centers(count: int, start: float = -1.0, stop: float = 1.0) -> Tensor:
    """(count,) float32: the centers of ``count`` equal cells between two coordinates.

    The float32 operations are in the order of LIIF's published code: at odd scales the queries of the last row and
    column lie at the center of a code, where the areas of the local ensemble vanish and only rounding determines its
    weights.
    """
    half = (stop - start) / (2 * count)
    return (start + half) + (2 * half) * torch.arange(count, dtype=torch.float32)


def make_coord(
    shape: Sequence[int], ranges: Sequence[tuple[float, float]] | None = None, flatten: bool = True
) -> Tensor:
    """Pixel-center coordinates of a grid: (*shape, len(shape)), or (prod(shape), len(shape)) if ``flatten``.

    ``ranges`` are (start, stop) for each axis; default (-1, 1).
    """
    ranges = [(-1.0, 1.0)] * len(shape) if ranges is None else ranges
    axes = [pixel_centers(n, start, stop) for n, (start, stop) in zip(shape, ranges)]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    return grid.reshape(-1, len(shape)) if flatten else grid


def to_pixel_samples(image: Tensor) -> tuple[Tensor, Tensor]:
    """An image (c, h, w) as points: pixel-center coordinates (h * w, 2) and values (h * w, c), row by row."""
    coord = make_coord(image.shape[-2:])
    return coord.to(image.device), image.reshape(image.shape[0], -1).permute(1, 0)


def cell_of(size: Size) -> Tensor:
    """(2,) float32: height and width of one pixel of an image of ``size``, in coordinate units."""
    return torch.tensor([2 / size[0], 2 / size[1]], dtype=torch.float32)


def region_axes(size: Size, image_size: Size, region: Region | None) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (H,), columns (W,) and cell (2,) of a grid of ``size`` over a part of an image.

    ``region`` is (top, left, bottom, right) in pixels of the image; None is all of it. Where its edges lie between
    pixels of a larger grid over the whole image, the values equal those of that grid. Raises ValueError for an empty
    region.
    """
    top, left, bottom, right = region or (0, 0, *image_size)
    if not (-math.inf < top < bottom < math.inf and -math.inf < left < right < math.inf):
        raise ValueError(f"region {region}: expected finite numbers, top above bottom, and left before right")
    spans = ((top, bottom, image_size[0]), (left, right, image_size[1]))
    rows, columns = (_region_axis(n, *span) for n, span in zip(size, spans))
    cell = [2 * (b - a) / (n * side) for n, (a, b, side) in zip(size, spans)]
    return rows, columns, torch.tensor(cell, dtype=torch.float32)


def grid_over_image(size: Size, image_size: Size, region: Region) -> Size:
    """The size of the grid over a whole image that a region of ``size`` output pixels is a part of.

    Where the region's edges do not lie between pixels of such a grid, the nearest size.
    """
    height, width = region[2] - region[0], region[3] - region[1]
    return max(1, round(size[0] * image_size[0] / height)), max(1, round(size[1] * image_size[1] / width))


def _region_axis(count: int, start: float, stop: float, side: int) -> Tensor:
    whole = count * side / (stop - start)  # pixels of the grid over the whole side
    first = start * whole / side
    if max(abs(whole - round(whole)), abs(first - round(first))) < 1e-6 and 0 <= round(first) <= round(whole) - count:
        return pixel_centers(round(whole))[round(first) : round(first) + count]
    return pixel_centers(count, 2 * start / side - 1, 2 * stop / side - 1)


def chunks_of(size: Size, limit: int) -> Iterator[tuple[slice, slice]]:
    """Divide a grid into chunks of at most ``limit`` pixels: whole rows if one fits, else parts of a row."""
    height, width = size
    across = min(width, limit)
    down = max(1, limit // across)
    for top in range(0, height, down):
        for left in range(0, width, across):
            yield slice(top, min(top + down, height)), slice(left, min(left + across, width))


def mirrored(count: int, padded: int) -> Tensor:
    """(padded,) int64: the indices 0 .. count - 1, continued by mirroring without repeating the edge, to any length."""
    period = max(1, 2 * (count - 1))
    place = torch.arange(padded) % period
    return torch.minimum(place, period - place) if count > 1 else torch.zeros(padded, dtype=torch.int64)


def mirror_padded(image: Tensor, multiple: int) -> Tensor:
    """(B, C, h, w) -> (B, C, y, x): continued downwards and to the right by mirroring, to multiples of ``multiple``."""
    for dim in (2, 3):
        side = image.shape[dim]
        wanted = side + -side % multiple
        if side != wanted:
            image = image.index_select(dim, moved(mirrored(side, wanted), image.device))
    return image
