"""Whole images at any size, in bounded memory.

The image is encoded in tiles, each with the halo that makes its codes exact, and every tile answers for the output
pixels whose centres lie in it; bands of output rows are given out as they are finished. What is computed does not
depend on how it is cut, so long as the encoder declares how far it sees. Where it sees everything, tiles overlap and
are blended, which is approximate.

Where colours depend on all queries, through a few means over them (``passes``), the tiles are gone over for each of
those first: the result is that of the whole image asked for at once.

Decoding happens in ``ContinuousImage.render_grid``, window by window: a fused gather, decoder and blend belongs there.
"""

import os
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from attrs import frozen
from torch import Tensor

from liif_core.device import autocast
from liif_core.errors import UserError
from liif_core.continuous import (
    DEVICE_WINDOW,
    ContinuousImage,
    ContinuousModel,
    Moments,
    Part,
    Region,
    RunningMean,
)
from liif_core.geometry import Size, region_axes, whole_size

Reader = Callable[[slice, slice], Tensor]  # rows and columns of the image -> (B, channels, h, w) in [0, 1]

_LAP = 24  # pixels by which tiles overlap to each side, where no halo makes them exact
_LIVE = 6  # outputs of its widest layer that an encoder is taken to hold at once
_PIECE = 1 << 21  # output values of a tile rendered at once
_SMALLEST_WINDOW = 1 << 10


@frozen
class Plan:
    """How an image is cut. ``tile`` is in pixels of the image; ``rows`` is output rows given out at once."""

    tile: Size
    rows: int
    halo: int
    lap: int  # above 0: tiles are blended, and the result is approximate
    whole: "Plan | None" = None  # how all of the image is cut, where a region is rendered that depends on all of it


@frozen
class _Span:
    """Along one axis: the pixels of one tile, and the output pixels it answers for, with their weights if it laps."""

    start: int
    stop: int
    first: int
    last: int
    weight: Tensor | None
    own: slice  # of ``first`` to ``last``: those that lie in no other tile


def default_memory(device: torch.device) -> int:
    """Bytes: a quarter of what is free on the CPU, half of what is free on a GPU."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 2
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not a system that says
        free = 4 << 30
    return max(1 << 28, free // 4)


def plan(model: ContinuousModel, within: Size, size: Size, region: Region | None, memory: int, batch: int = 1) -> Plan:
    """Cut an image of size ``within``, rendered at ``size``, so that it takes about ``memory`` bytes.

    ``batch`` images are rendered at once. Raises UserError where even the smallest tile takes more.
    """
    top, left, bottom, right = region or (0, 0, *within)
    needed = min(within[0], int(bottom) + 1) - max(0, int(top)), min(within[1], int(right) + 1) - max(0, int(left))
    row = size[1] * batch * model.channels * 4  # bytes of one row of output
    rows = max(1, min(size[0], int(0.125 * memory) // row))  # a band, and as much again for its file's own numbers
    area = int(0.5 * memory) // (_bytes_per_pixel(model) * batch)
    halo, lap = (max(within), 0) if model.halo is None else (model.halo, 0)
    whole = None
    if model.passes and region is not None:
        whole = plan(model, within, whole_size(size, within, region), None, memory, batch)
    seen = [min(side, part + 2 * (halo + model.multiple_of)) for side, part in zip(within, needed)]
    if seen[0] * seen[1] <= area and (model.passes is not None or rows == size[0]):
        return Plan(needed, rows, halo, 0, whole)
    if model.passes is None:
        raise UserError(
            f"memory: {memory / 1e6:.0f} MB are too few: this decoder's colours depend on all that is asked for at once, "
            "so that the image cannot be cut; give more, or a smaller size or --region"
        )
    if model.halo is None:
        halo, lap = 0, _LAP
    around = 2 * (halo + 2 * lap + model.multiple_of)
    least = max(1, 4 * lap)  # so that no pixel lies where three tiles lap
    high = max(least, min(needed[0], int(area**0.5) - around, int(rows * (bottom - top) / size[0])))
    wide = min(needed[1], area // (high + around) - around)
    if wide < least:
        enough = 2 * _bytes_per_pixel(model) * batch * (least + around) ** 2
        raise UserError(f"memory: {memory / 1e6:.0f} MB are too few for this model; at least {enough / 1e6:.0f} MB")
    return Plan((high, wide), rows, halo, lap, whole)


def work(model: ContinuousModel, within: Size, size: Size, region: Region | None) -> int:
    """How many output pixels ``render_bands`` goes over, those of its passes included: what ``done`` adds up to."""
    height, width = size if region is None else whole_size(size, within, region)
    return size[0] * size[1] + (model.passes or 0) * height * width


def render_bands(
    model: ContinuousModel,
    read: Reader,
    within: Size,
    size: Size,
    cut: Plan,
    *,
    region: Region | None = None,
    device: torch.device | str = "cpu",
    precision: str = "float32",
    done: Callable[[int], object] = lambda pixels: None,
) -> Iterator[Tensor]:
    """The image (B, channels, rows, W) from top to bottom in bands of rows, float32 on the CPU, not clamped.

    ``read`` gives parts of the image, whose size is ``within``; ``size`` is (H, W) of the output, or of ``region``.
    ``done`` is told of output pixels as they are gone over: see ``work``.
    """
    rows, columns, cell = region_axes(size, within, region)
    tiles = _Tiles(model, read, within, cut, torch.device(device), precision)
    if model.passes and region is None:
        tiles.moments = tiles.gathered(rows, columns, cell, done)
    elif model.passes:
        whole = _Tiles(model, read, within, cut.whole or cut, torch.device(device), precision)
        tiles.moments = whole.gathered(*region_axes(whole_size(size, within, region), within, None)[:2], cell, done)
    down = list(_spans(rows, within[0], cut.tile[0], cut.lap))
    across = list(_spans(columns, within[1], cut.tile[1], cut.lap))
    strip, begun = None, 0  # rows in the making, and how many were given out before them
    for span, after in zip(down, [*down[1:], None]):
        stops = [span.last]
        if len(across) == 1 and not cut.lap:  # one encoding serves several bands
            stops = [*range(span.first + cut.rows, span.last, cut.rows), span.last]
        for first, last in pairwise([span.first, *stops]):
            for column in across:
                for top, bottom, piece in tiles.pieces(span, column, rows[first:last], columns, cell):
                    strip = _grown(strip, piece, last - begun, size[1])
                    place = slice(first + top - begun, first + bottom - begun), slice(column.first, column.last)
                    strip[:, :, *place] += piece if not cut.lap else piece * _weights(span, column, top, bottom)
                    done(len(_shared(span.own, place[0], begun)) * len(_shared(column.own, place[1])))
            final = after.first if cut.lap and after is not None else last
            yield strip[:, :, : final - begun]
            strip, begun = strip[:, :, final - begun :].clone(), final


def _grown(strip: Tensor | None, piece: Tensor, rows: int, width: int) -> Tensor:
    """``strip`` with rows of zeros added, to have ``rows``."""
    have = 0 if strip is None else strip.shape[2]
    if have >= rows:
        return strip
    more = piece.new_zeros(*piece.shape[:2], rows - have, width)
    return torch.cat([strip, more], dim=2) if have else more


def _weights(row: _Span, column: _Span, top: int, bottom: int) -> Tensor:
    return row.weight[top:bottom, None] * column.weight


def _shared(own: slice, place: slice, begun: int = 0) -> range:
    """Of the output pixels in ``place``, counted from ``begun``, those that lie in no other tile."""
    return range(max(own.start, place.start + begun), min(own.stop, place.stop + begun))


class _Tiles:
    """Encodes parts of an image, keeping the last, and asks them for colours."""

    def __init__(
        self, model: ContinuousModel, read: Reader, within: Size, cut: Plan, device: torch.device, precision: str
    ):
        self.model, self.read, self.within, self.cut = model, read, within, cut
        self.device, self.precision = device, precision
        self.window: int | None = None
        self.moments: Moments = ()
        self._kept: tuple[tuple[int, ...], ContinuousImage] | None = None

    def encoded(self, row: _Span, column: _Span) -> ContinuousImage:
        key = row.start, row.stop, column.start, column.stop
        if self._kept is None or self._kept[0] != key:
            self._kept = None  # let go of the old codes first
            spread = self.cut.halo + 2 * self.cut.lap  # what is blended has seen beyond itself
            (top, bottom), (left, right) = (
                self._around(span, side, spread) for span, side in zip((row, column), self.within)
            )
            with torch.inference_mode(), autocast(self.device, self.precision):
                image = self.read(slice(top, bottom), slice(left, right)).to(self.device)
                self._kept = key, self.model.encode(image, Part(self.within, top, left))
        return self._kept[1]

    def _around(self, span: _Span, side: int, spread: int) -> tuple[int, int]:
        start = max(0, span.start - spread) // self.model.multiple_of * self.model.multiple_of
        return start, min(side, span.stop + spread)

    def pieces(
        self, row: _Span, column: _Span, rows: Tensor, columns: Tensor, cell: Tensor
    ) -> Iterator[tuple[int, int, Tensor]]:
        """What a tile answers for, of these output rows: (first row, last row, colours), a bounded piece at a time."""
        picture = self.encoded(row, column)
        mine = columns[column.first : column.last]
        step = len(rows) if picture.passes is None else max(1, _PIECE // (len(mine) * self.model.channels))
        for top in range(0, len(rows), step):
            bottom = min(len(rows), top + step)
            part = rows[top:bottom]
            yield (
                top,
                bottom,
                self._in_memory(
                    lambda: picture.render_grid(part, mine, cell, self.window, self.moments).float().cpu(),
                    len(part) * len(mine),
                ),
            )

    def gathered(self, rows: Tensor, columns: Tensor, cell: Tensor, done: Callable[[int], object]) -> Moments:
        """The moments of a grid over the whole image, of each tile's own output pixels."""
        moments: Moments = ()
        for _ in range(self.model.passes or 0):
            mean = RunningMean()
            for row in _spans(rows, self.within[0], self.cut.tile[0], self.cut.lap):
                for column in _spans(columns, self.within[1], self.cut.tile[1], self.cut.lap):
                    own = rows[row.own], columns[column.own]
                    count = len(own[0]) * len(own[1])
                    if count:
                        part = self._moment(row, column, own, cell, moments)
                        mean.add(part, count)
                        done(count)
            moments += (mean.value(like=part),)
        return moments

    def _moment(self, row: _Span, column: _Span, own: tuple[Tensor, Tensor], cell: Tensor, moments: Moments) -> Tensor:
        """In a function of its own, so that a tile is let go of before the next is encoded."""
        picture = self.encoded(row, column)
        return self._in_memory(lambda: picture.grid_moment(*own, cell, moments, self.window), len(own[0]) * len(own[1]))

    def _in_memory(self, call: Callable[[], Tensor], queries: int) -> Tensor:
        """Halves the window, and tries again, where a GPU runs out of memory."""
        while True:
            try:
                with torch.inference_mode(), autocast(self.device, self.precision):
                    return call()
            except torch.cuda.OutOfMemoryError:
                self.window = min(self.window or DEVICE_WINDOW, queries) // 2
                torch.cuda.empty_cache()
                if self.window < _SMALLEST_WINDOW:
                    raise UserError("the GPU's memory is too small for this image; give a smaller --memory") from None


def _spans(axis: Tensor, side: int, tile: int, lap: int) -> Iterator[_Span]:
    """Cut one axis in tiles; output pixels lie where ``axis`` says, in coordinates of the image."""
    place = (axis.double() + 1) * (side / 2)
    begin, end = (int(place[i].floor().clamp(0, side - 1)) for i in (0, -1))
    count = max(1, -(-(end + 1 - begin) // tile))
    edges = [begin + round(i * (end + 1 - begin) / count) for i in range(count + 1)]
    for number, (start, stop) in enumerate(pairwise(edges)):
        is_first, is_last = number == 0, number == count - 1
        first = 0 if is_first else int(torch.searchsorted(place, float(start - lap)))
        last = len(axis) if is_last else int(torch.searchsorted(place, float(stop + lap)))
        if first == last:
            continue
        inside = (0, len(axis))
        own = [
            edge if ends else int(torch.searchsorted(place, float(at)))
            for edge, ends, at in zip(inside, (is_first, is_last), (start, stop))
        ]
        weight = None
        if lap:
            weight = torch.ones(last - first, dtype=torch.float64)
            if not is_first:
                weight = torch.minimum(weight, (place[first:last] - (start - lap)) / (2 * lap))
            if not is_last:
                weight = torch.minimum(weight, ((stop + lap) - place[first:last]) / (2 * lap))
            weight = weight.float()
        yield _Span(start, stop, first, last, weight, slice(*own))


def _bytes_per_pixel(model: ContinuousModel) -> int:
    """About how much encoding takes for each pixel of the image, measured on a small one.

    Six times the widest output of a layer, or what is left when it is done, codes prepared for decoding included.
    """
    widest = [0]

    def look(module: torch.nn.Module, given: object, output: object) -> None:
        if isinstance(output, Tensor):
            widest[0] = max(widest[0], output.nbytes)

    side = 16
    hooks = [module.register_forward_hook(look) for module in model.modules()]
    try:
        with torch.inference_mode():
            device = next(model.parameters(), torch.zeros(0)).device
            picture = model.encode(torch.zeros(1, model.channels, side, side, device=device))
            picture.query(torch.zeros(1, 1, 2), torch.full((1, 1, 2), 0.1))
    finally:
        for hook in hooks:
            hook.remove()
    return max(_LIVE * widest[0], picture.held_bytes() + widest[0]) // side**2 + 1
