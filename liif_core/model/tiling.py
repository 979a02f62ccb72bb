"""Rendering an image at any size in bounded memory.

The image is encoded in tiles. Each tile is encoded with the halo that makes its codes exact, and renders the output
pixels whose centers lie inside it. Finished output rows are returned in bands. The result does not depend on the tiles,
provided that the model declares correctly how far it sees. Where it sees the whole image (``halo`` is None), tiles
overlap and are blended, which is approximate.

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
from liif_core.model.device import autocast, device_of, moved
from liif_core.model.geometry import grid_over_image, region_axes
from liif_core.model.streaming import on_host
from liif_core.model.tile_plan import TilePlan
from liif_core.shapes import Float
from liif_core.sizes import Region, Size

Reader = Callable[[slice, slice], Tensor]  # rows and columns of the image -> (B, channels, h, w) in [0, 1]

_CHUNK_VALUES = 1 << 21  # output values of a tile that are rendered in one call
_DEVICE_BAND_VALUES = 1 << 23  # output values of a band on a GPU, for one image
_SMALLEST_CHUNK = 1 << 10  # queries; where a GPU has no memory for these, rendering fails


@frozen
class _Extent:
    """A tile along one axis: its pixels in the image, and the output pixels that it renders."""

    start: int  # pixels of the image
    stop: int
    first: int  # pixels of the output
    last: int
    weight: Tensor | None  # of each output pixel, where tiles overlap
    own: slice  # pixels of the output whose centers lie between ``start`` and ``stop``


def render_bands(
    model: ContinuousModel,
    read: Reader,
    image_size: Size,
    size: Size,
    plan: TilePlan,
    *,
    region: Region | None = None,
    device: torch.device | str | None = None,
    precision: str = "float32",
    on_progress: Callable[[int], object] = lambda pixels: None,
    to_host: bool = True,
) -> Iterator[Float[Tensor, "B channels rows W"]]:
    """Render an image band by band, from top to bottom, in bounded memory.

    Args:
        model: the model, in eval mode.
        read: a function that returns a part of the image, (B, channels, h, w) float32 in [0, 1], for two slices: the
            part's rows and columns. It may read them from a file. Parts overlap, and one may be read more than once.
        image_size: (height, width) of the image in pixels.
        size: (height, width) of the output; with ``region``, of the region's output.
        plan: how to divide the image, from ``plan_tiles`` with the same sizes and region. See there for an example.
        region: (top, left, bottom, right), in pixels of the image, fractions allowed: the part to render.
        device: where to compute, and where the model is. Default: where the model is.
        precision: "float32"; "bf16", on a GPU or a CPU that has it; or "fp16", on a GPU.
        on_progress: a function that is called with the number of output pixels processed since its last call. They sum
            to more than the output has where statistics of all queries are computed first. A GPU counts what was
            started, and may be up to two bands behind.
        to_host: return bands on the CPU; else where they were computed.

    Yields:
        Bands (B, channels, rows, W), at most ``plan.rows`` high where tiles do not overlap, float32, in [0, 1] space,
        not clamped. Together they have the rows of the output. A CUDA GPU computes the next band while one is used.

    Raises UserError if a GPU runs out of memory, or the device cannot compute in ``precision``.
    """
    bands = _bands(model, read, image_size, size, plan, region, device, precision, on_progress)
    try:
        yield from on_host(bands) if to_host else bands
    except torch.cuda.OutOfMemoryError:
        raise UserError("the GPU does not have enough memory for this image; use a smaller memory limit") from None


def _bands(
    model: ContinuousModel,
    read: Reader,
    image_size: Size,
    size: Size,
    plan: TilePlan,
    region: Region | None,
    device: torch.device | str | None,
    precision: str,
    on_progress: Callable[[int], object],
) -> Iterator[Float[Tensor, "B channels rows W"]]:
    """``render_bands``, on the device that computes the bands."""
    device = device_of(model) if device is None else torch.device(device)
    rows, columns, cell = region_axes(size, image_size, region)
    tiles = _Tiles(model, read, image_size, plan, device, precision)
    if model.num_statistics and region is None:
        tiles.statistics = tiles.gather_statistics(rows, columns, cell, on_progress)
    elif model.num_statistics and region is not None:
        whole = _Tiles(model, read, image_size, plan.whole or plan, device, precision)
        whole_rows, whole_columns, _ = region_axes(grid_over_image(size, image_size, region), image_size, None)
        tiles.statistics = whole.gather_statistics(whole_rows, whole_columns, cell, on_progress)
    down = list(_extents(rows, image_size[0], plan.tile[0], plan.overlap))
    across = list(_extents(columns, image_size[1], plan.tile[1], plan.overlap))
    most = plan.rows
    if device.type == "cuda" and model.num_statistics is not None:  # several bands, so that copies overlap with work
        most = min(most, max(1, _DEVICE_BAND_VALUES // (size[1] * model.channels)))
    band: Tensor | None = None  # the rows that are being rendered
    returned = 0  # how many rows were returned before them
    for extent, after in zip(down, [*down[1:], None]):
        stops = [extent.last]
        if len(across) == 1 and not plan.overlap:  # one encoding serves several bands
            stops = [*range(extent.first + most, extent.last, most), extent.last]
        for first, last in pairwise([extent.first, *stops]):
            for column in across:
                for top, bottom, chunk in tiles.chunks(extent, column, rows[first:last], columns, cell):
                    band = _with_rows(band, chunk, last - returned, size[1])
                    place = slice(first + top - returned, first + bottom - returned), slice(column.first, column.last)
                    if plan.overlap:
                        chunk = chunk * moved(_weights(extent, column, top, bottom), chunk.device)
                    band[:, :, *place] += chunk
                    on_progress(len(_in_both(extent.own, place[0], returned)) * len(_in_both(column.own, place[1])))
            assert band is not None
            final = after.first if plan.overlap and after is not None else last
            yield band[:, :, : final - returned]
            band, returned = band[:, :, final - returned :].clone(), final


def _with_rows(band: Tensor | None, chunk: Tensor, rows: int, width: int) -> Tensor:
    """``band`` with rows of zeros appended, so that it has at least ``rows``; its type is that of ``chunk``."""
    if band is None or not band.shape[2]:
        return chunk.new_zeros(*chunk.shape[:2], rows, width)
    missing = rows - band.shape[2]
    return torch.cat([band, chunk.new_zeros(*chunk.shape[:2], missing, width)], dim=2) if missing > 0 else band


def _weights(row: _Extent, column: _Extent, top: int, bottom: int) -> Tensor:
    """The weights (h, w) of some output rows of a tile."""
    assert row.weight is not None and column.weight is not None
    return row.weight[top:bottom, None] * column.weight


def _in_both(own: slice, place: slice, start: int = 0) -> range:
    """The output pixels in ``own`` that are also in ``place``, which is counted from ``start``."""
    return range(max(own.start, place.start + start), min(own.stop, place.stop + start))


class _Tiles:
    """Encodes tiles of an image, keeps the last one, and queries it."""

    def __init__(
        self,
        model: ContinuousModel,
        read: Reader,
        image_size: Size,
        plan: TilePlan,
        device: torch.device,
        precision: str,
    ):
        self.model, self.read, self.image_size, self.plan = model, read, image_size, plan
        self.device, self.precision = device, precision
        self.chunk_size: int | None = None
        self.statistics: Statistics = ()
        self._kept: tuple[tuple[int, ...], ContinuousImage] | None = None

    def encoded(self, row: _Extent, column: _Extent) -> ContinuousImage:
        """The continuous image of a tile and its halo."""
        key = row.start, row.stop, column.start, column.stop
        if self._kept is None or self._kept[0] != key:
            self._kept = None  # free the old codes first
            around = self.plan.halo + 2 * self.plan.overlap  # one overlap to render, and one for codes to see beyond it
            (top, bottom), (left, right) = (
                self._with_halo(extent, side, around) for extent, side in zip((row, column), self.image_size)
            )
            with torch.inference_mode(), autocast(self.device, self.precision):
                image = moved(self.read(slice(top, bottom), slice(left, right)), self.device)
                self._kept = key, self.model.encode(image, TilePlacement(self.image_size, top, left))
        return self._kept[1]

    def _with_halo(self, extent: _Extent, side: int, around: int) -> tuple[int, int]:
        start = max(0, extent.start - around) // self.model.multiple_of * self.model.multiple_of
        return start, min(side, extent.stop + around)

    def chunks(
        self, row: _Extent, column: _Extent, rows: Tensor, columns: Tensor, cell: Tensor
    ) -> Iterator[tuple[int, int, Tensor]]:
        """Renders a tile's columns of these output rows, some rows at a time: (first row, end row, colors)."""
        picture = self.encoded(row, column)
        columns = columns[column.first : column.last]
        step = max(1, _CHUNK_VALUES // (len(columns) * self.model.channels))
        if picture.num_statistics is None:
            step = len(rows)
        for top in range(0, len(rows), step):
            part = rows[top : top + step]
            yield top, top + len(part), self._rendered(picture, part, columns, cell)

    def _rendered(self, picture: ContinuousImage, rows: Tensor, columns: Tensor, cell: Tensor) -> Tensor:
        return self._in_memory(
            lambda: picture.render_grid(rows, columns, cell, self.chunk_size, self.statistics).float(),
            len(rows) * len(columns),
        )

    def gather_statistics(
        self, rows: Tensor, columns: Tensor, cell: Tensor, on_progress: Callable[[int], object]
    ) -> Statistics:
        """The statistics of a grid over the whole image, each output pixel counted in one tile."""
        statistics: Statistics = ()
        for _ in range(self.model.num_statistics or 0):
            mean = RunningMean()
            for row in _extents(rows, self.image_size[0], self.plan.tile[0], self.plan.overlap):
                for column in _extents(columns, self.image_size[1], self.plan.tile[1], self.plan.overlap):
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
        """In a function of its own, so that no variable keeps a tile while the next one is encoded."""
        picture = self.encoded(row, column)
        return self._in_memory(
            lambda: picture.grid_statistic(*own, cell, statistics, self.chunk_size), len(own[0]) * len(own[1])
        )

    def _in_memory(self, call: Callable[[], Tensor], queries: int) -> Tensor:
        """The result of ``call``, which makes ``queries`` queries: in smaller chunks where a GPU runs out of memory."""
        while True:
            try:
                with torch.inference_mode(), autocast(self.device, self.precision):
                    return call()
            except torch.cuda.OutOfMemoryError:
                self.chunk_size = min(self.chunk_size or DEVICE_QUERY_CHUNK, queries) // 2
                torch.cuda.empty_cache()
                if self.chunk_size < _SMALLEST_CHUNK:
                    raise


def _extents(axis: Tensor, side: int, tile: int, overlap: int) -> Iterator[_Extent]:
    """The tiles along one axis of an image with ``side`` pixels; ``axis`` has the coordinates of the output pixels."""
    place = (axis.double() + 1) * (side / 2)
    begin, end = (int(place[i].floor().clamp(0, side - 1)) for i in (0, -1))
    count = max(1, -(-(end + 1 - begin) // tile))
    edges = [begin + round(i * (end + 1 - begin) / count) for i in range(count + 1)]
    for number, (start, stop) in enumerate(pairwise(edges)):
        is_first, is_last = number == 0, number == count - 1  # these also render output pixels beyond the image
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
