"""Whole images at any size, in bounded memory.

The image is encoded in tiles. Each tile includes the halo that makes its codes exact, and renders the output pixels
whose centers lie inside it. Finished output rows are returned in bands. The result does not depend on how the image is
cut, provided that the model declares how far it sees. Where it sees the whole image (``halo`` is None), tiles overlap
and are blended, which is approximate.

Where colors depend on all queries (``num_statistics`` above 0), all tiles are processed once for each statistic first:
the result is that of the whole image queried at once.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from attrs import frozen
from torch import Tensor

from liif_core.errors import UserError
from liif_core.model.continuous import (
    DEVICE_QUERY_CHUNK,
    ContinuousImage,
    ContinuousModel,
    RunningMean,
    Statistics,
    TilePlacement,
)
from liif_core.model.device import autocast
from liif_core.model.geometry import grid_over_image, region_axes
from liif_core.model.tile_plan import TilePlan
from liif_core.sizes import Region, Size

Reader = Callable[[slice, slice], Tensor]  # rows and columns of the image -> (B, channels, h, w) in [0, 1]

_LIVE_OUTPUTS_OUTPUTS = 6  # outputs of its widest layer that an encoder is assumed to hold at once
_CHUNK_VALUES = 1 << 21  # output values of a tile rendered at once
_SMALLEST_CHUNK = 1 << 10


@frozen
class _Extent:
    """Along one axis: the pixels of one tile, and the output pixels it renders, with weights where tiles overlap."""

    start: int
    stop: int
    first: int
    last: int
    weight: Tensor | None
    own: slice  # of ``first`` to ``last``: those that lie in no other tile


def render_bands(
    model: ContinuousModel,
    read: Reader,
    within: Size,
    size: Size,
    cut: TilePlan,
    *,
    region: Region | None = None,
    device: torch.device | str = "cpu",
    precision: str = "float32",
    on_progress: Callable[[int], object] = lambda pixels: None,
) -> Iterator[Tensor]:
    """The image (B, channels, rows, W) from top to bottom in bands of rows, float32 on the CPU, not clamped.

    ``read`` gives parts of the image, whose size is ``within``; ``size`` is (H, W) of the output, or of ``region``.
    ``on_progress`` is called with the number of output pixels that were processed: see ``total_pixels``.
    """
    rows, columns, cell = region_axes(size, within, region)
    tiles = _Tiles(model, read, within, cut, torch.device(device), precision)
    if model.num_statistics and region is None:
        tiles.statistics = tiles.gather_statistics(rows, columns, cell, on_progress)
    elif model.num_statistics:
        whole = _Tiles(model, read, within, cut.whole or cut, torch.device(device), precision)
        tiles.statistics = whole.gather_statistics(
            *region_axes(grid_over_image(size, within, region), within, None)[:2], cell, on_progress
        )
    down = list(_extents(rows, within[0], cut.tile[0], cut.overlap))
    across = list(_extents(columns, within[1], cut.tile[1], cut.overlap))
    band, begun = None, 0  # rows being rendered, and how many were returned before them
    for extent, after in zip(down, [*down[1:], None]):
        stops = [extent.last]
        if len(across) == 1 and not cut.overlap:  # one encoding serves several bands
            stops = [*range(extent.first + cut.rows, extent.last, cut.rows), extent.last]
        for first, last in pairwise([extent.first, *stops]):
            for column in across:
                for top, bottom, chunk in tiles.chunks(extent, column, rows[first:last], columns, cell):
                    band = _grown(band, chunk, last - begun, size[1])
                    place = slice(first + top - begun, first + bottom - begun), slice(column.first, column.last)
                    band[:, :, *place] += chunk if not cut.overlap else chunk * _weights(extent, column, top, bottom)
                    on_progress(len(_shared(extent.own, place[0], begun)) * len(_shared(column.own, place[1])))
            final = after.first if cut.overlap and after is not None else last
            yield band[:, :, : final - begun]
            band, begun = band[:, :, final - begun :].clone(), final


def _grown(band: Tensor | None, chunk: Tensor, rows: int, width: int) -> Tensor:
    """``band`` with rows of zeros added, to have ``rows``."""
    have = 0 if band is None else band.shape[2]
    if have >= rows:
        return band
    more = chunk.new_zeros(*chunk.shape[:2], rows - have, width)
    return torch.cat([band, more], dim=2) if have else more


def _weights(row: _Extent, column: _Extent, top: int, bottom: int) -> Tensor:
    return row.weight[top:bottom, None] * column.weight


def _shared(own: slice, place: slice, begun: int = 0) -> range:
    """Of the output pixels in ``place``, counted from ``begun``, those that lie in no other tile."""
    return range(max(own.start, place.start + begun), min(own.stop, place.stop + begun))


class _Tiles:
    """Encodes tiles of an image, keeps the last one, and queries it."""

    def __init__(
        self, model: ContinuousModel, read: Reader, within: Size, cut: TilePlan, device: torch.device, precision: str
    ):
        self.model, self.read, self.within, self.cut = model, read, within, cut
        self.device, self.precision = device, precision
        self.chunk_size: int | None = None
        self.statistics: Statistics = ()
        self._kept: tuple[tuple[int, ...], ContinuousImage] | None = None

    def encoded(self, row: _Extent, column: _Extent) -> ContinuousImage:
        key = row.start, row.stop, column.start, column.stop
        if self._kept is None or self._kept[0] != key:
            self._kept = None  # free the old codes first
            spread = self.cut.halo + 2 * self.cut.overlap  # what is blended has seen beyond itself
            (top, bottom), (left, right) = (
                self._around(extent, side, spread) for extent, side in zip((row, column), self.within)
            )
            with torch.inference_mode(), autocast(self.device, self.precision):
                image = self.read(slice(top, bottom), slice(left, right)).to(self.device)
                self._kept = key, self.model.encode(image, TilePlacement(self.within, top, left))
        return self._kept[1]

    def _around(self, extent: _Extent, side: int, spread: int) -> tuple[int, int]:
        start = max(0, extent.start - spread) // self.model.multiple_of * self.model.multiple_of
        return start, min(side, extent.stop + spread)

    def chunks(
        self, row: _Extent, column: _Extent, rows: Tensor, columns: Tensor, cell: Tensor
    ) -> Iterator[tuple[int, int, Tensor]]:
        """What a tile answers for, of these output rows: (first row, last row, colors), a bounded chunk at a time."""
        picture = self.encoded(row, column)
        mine = columns[column.first : column.last]
        step = (
            len(rows) if picture.num_statistics is None else max(1, _CHUNK_VALUES // (len(mine) * self.model.channels))
        )
        for top in range(0, len(rows), step):
            bottom = min(len(rows), top + step)
            part = rows[top:bottom]
            yield (
                top,
                bottom,
                self._in_memory(
                    lambda: picture.render_grid(part, mine, cell, self.chunk_size, self.statistics).float().cpu(),
                    len(part) * len(mine),
                ),
            )

    def gather_statistics(
        self, rows: Tensor, columns: Tensor, cell: Tensor, on_progress: Callable[[int], object]
    ) -> Statistics:
        """The statistics of a grid over the whole image, from each tile's own output pixels."""
        statistics: Statistics = ()
        for _ in range(self.model.num_statistics or 0):
            mean = RunningMean()
            for row in _extents(rows, self.within[0], self.cut.tile[0], self.cut.overlap):
                for column in _extents(columns, self.within[1], self.cut.tile[1], self.cut.overlap):
                    own = rows[row.own], columns[column.own]
                    count = len(own[0]) * len(own[1])
                    if count:
                        mean_of_tile = self._partial_statistic(row, column, own, cell, statistics)
                        mean.add(mean_of_tile, count)
                        on_progress(count)
            statistics += (mean.value(),)
        return statistics

    def _partial_statistic(
        self, row: _Extent, column: _Extent, own: tuple[Tensor, Tensor], cell: Tensor, statistics: Statistics
    ) -> Tensor:
        """A separate function, so that a tile is freed before the next one is encoded."""
        picture = self.encoded(row, column)
        return self._in_memory(
            lambda: picture.grid_statistic(*own, cell, statistics, self.chunk_size), len(own[0]) * len(own[1])
        )

    def _in_memory(self, call: Callable[[], Tensor], queries: int) -> Tensor:
        """Halve the query chunk and try again where a GPU runs out of memory."""
        while True:
            try:
                with torch.inference_mode(), autocast(self.device, self.precision):
                    return call()
            except torch.cuda.OutOfMemoryError:
                self.chunk_size = min(self.chunk_size or DEVICE_QUERY_CHUNK, queries) // 2
                torch.cuda.empty_cache()
                if self.chunk_size < _SMALLEST_CHUNK:
                    raise UserError(
                        "the GPU does not have enough memory for this image; use a smaller memory limit"
                    ) from None


def _extents(axis: Tensor, side: int, tile: int, overlap: int) -> Iterator[_Extent]:
    """Cut one axis in tiles; output pixels lie where ``axis`` says, in coordinates of the image."""
    place = (axis.double() + 1) * (side / 2)
    begin, end = (int(place[i].floor().clamp(0, side - 1)) for i in (0, -1))
    count = max(1, -(-(end + 1 - begin) // tile))
    edges = [begin + round(i * (end + 1 - begin) / count) for i in range(count + 1)]
    for number, (start, stop) in enumerate(pairwise(edges)):
        is_first, is_last = number == 0, number == count - 1
        first = 0 if is_first else int(torch.searchsorted(place, float(start - overlap)))
        last = len(axis) if is_last else int(torch.searchsorted(place, float(stop + overlap)))
        if first == last:
            continue
        inside = (0, len(axis))
        own = [
            edge if ends else int(torch.searchsorted(place, float(at)))
            for edge, ends, at in zip(inside, (is_first, is_last), (start, stop))
        ]
        weight = None
        if overlap:
            weight = torch.ones(last - first, dtype=torch.float64)
            if not is_first:
                weight = torch.minimum(weight, (place[first:last] - (start - overlap)) / (2 * overlap))
            if not is_last:
                weight = torch.minimum(weight, ((stop + overlap) - place[first:last]) / (2 * overlap))
            weight = weight.float()
        yield _Extent(start, stop, first, last, weight, slice(*own))
