"""Decoding a pixel grid code by code: each code is decoded at all positions that read it, as a product of rows and columns.

A pixel of a grid reads the codes of its row and of its column. The usual path gathers the numbers of all K codes of each
pixel anew. Here the numbers of a code are used where they lie, for the block of R x C pixels that read it, and what
depends on the row or on the column alone is computed R + C times instead of R * C. The blocks of neighboring codes
overlap; their colors are added with the weights of the sampling.

On a CPU, threads take whole bands of output rows, with one thread inside each operation: threads that share each small
operation wait for each other at every one of them, which costs much where other processes use the machine.
"""

from collections.abc import Mapping
from itertools import pairwise

import torch
from attrs import frozen
from torch import Tensor

from liif_core.model.protocols import AxisSites, BlockDecoder, GridSampling, Maps
from liif_core.model.threads import on_threads
from liif_core.shapes import Float
from liif_core.sizes import Size

_CACHE = 1 << 23  # bytes that a decoder works on at once on a CPU: what the cache of a core holds (see benchmarks/)
_DEVICE_BYTES = 1 << 28  # the same elsewhere
_MOST_WASTE = 1.7  # evaluations beside those of the usual path; more at scales below 1, where codes are skipped


@frozen(eq=False)
class _Axis:
    """Along one axis: for each code the consecutive pixels that read it, and for each pixel its place in that range."""

    first: int  # code that ``begin`` and ``offset`` begin with
    begin: Tensor  # (n,) int64: first pixel that reads each code
    offset: Tensor  # (n, R) float32: from each code to the pixels that read it
    place: Tensor  # (S, N) int64: which of the R positions of its code each pixel is
    ends: tuple[tuple[tuple[int, int], ...], ...]  # for each side, by code: the pixels that read it

    @property
    def codes(self) -> int:
        return len(self.begin)

    def pixels(self, side: int, first: int, last: int) -> tuple[int, int]:
        """The pixels whose code to this side is one of ``first`` to ``last``."""
        return self.ends[side][first][0], self.ends[side][last - 1][1]


@frozen
class GridPlan:
    """How a pixel grid is decoded code by code."""

    sites: tuple[AxisSites, AxisSites]
    rows: _Axis
    columns: _Axis

    @property
    def evaluations(self) -> int:
        """How often the decoder is evaluated."""
        return self.rows.offset.numel() * self.columns.offset.numel()


def plan_grid(sites: tuple[AxisSites, AxisSites]) -> GridPlan | None:
    """The plan for a pixel grid, or None where the usual path is better: where pixels are sparser than codes."""
    rows, columns = (_axis_plan(axis) for axis in sites)
    plan = GridPlan(sites, rows, columns)
    usual = sites[0].index.numel() * sites[1].index.numel()
    return plan if plan.evaluations <= _MOST_WASTE * usual else None


def _axis_plan(sites: AxisSites) -> _Axis:
    sides, pixels = sites.index.shape
    first = int(sites.index.min())
    index = sites.index.cpu() - first
    codes = int(index.max()) + 1
    numbers = torch.arange(pixels).expand(sides, pixels).reshape(-1)
    begin = torch.full((codes,), pixels).scatter_reduce(0, index.reshape(-1), numbers, "amin")
    end = torch.zeros(codes, dtype=torch.int64).scatter_reduce(0, index.reshape(-1), numbers + 1, "amax")
    begin = torch.minimum(begin, end)  # of codes that no pixel reads
    longest = max(1, int((end - begin).max()))
    # The offset to a code is that of the side from which a pixel reads it; from both sides, at the border, it is the same.
    # Positions of a range that no pixel reads keep the offset 0, and their colors are not used.
    place = torch.stack([torch.arange(pixels) - begin[side] for side in index])
    offset = torch.zeros(codes, longest)
    for side in range(sides):
        offset[index[side], place[side]] = sites.offset[side].cpu()
    ends = tuple(
        tuple(
            zip(
                torch.searchsorted(index[side].contiguous(), torch.arange(codes)).tolist(),
                torch.searchsorted(index[side].contiguous(), torch.arange(codes), right=True).tolist(),
            )
        )
        for side in range(sides)
    )
    device = sites.offset.device
    return _Axis(first, begin, offset.to(device), place.to(device), ends)


def decode_grid(
    plan: GridPlan,
    decoder: BlockDecoder,
    sampling: GridSampling,
    maps: Maps,
    grid: Size,
    corner: tuple[int, int],
    conditions: Mapping[str, Tensor],
    channels: int,
) -> Float[Tensor, "B H W channels"]:
    """The blended colors of a pixel grid.

    ``maps`` are those of a field of ``grid`` codes, whose first one is code ``corner`` of the whole grid; ``conditions``
    are those of scope "image", (B or 1, channels) each.
    """
    work = _Work(plan, decoder, sampling, maps, grid, corner, conditions, channels)
    height = plan.sites[0].index.shape[1]
    if work.device.type != "cpu" or torch.is_grad_enabled():
        return work.band(0, height)
    # Two bands for each thread, so that a thread that was held up leaves its second one to the others. A band evaluates
    # the codes at its edges for its own pixels only, and few bands keep what is padded small.
    count = max(1, min(2 * torch.get_num_threads(), plan.rows.codes // 4))
    edges = [round(height * i / count) for i in range(count + 1)]
    return torch.cat(on_threads(lambda i: work.band(edges[i], edges[i + 1]), range(count)), dim=1)


@frozen(eq=False)
class _Work:
    """The arguments of ``decode_grid``."""

    plan: GridPlan
    decoder: BlockDecoder
    sampling: GridSampling
    maps: Maps
    grid: Size
    corner: tuple[int, int]
    conditions: Mapping[str, Tensor]
    channels: int

    @property
    def device(self) -> torch.device:
        return self.plan.sites[0].offset.device

    def band(self, top: int, bottom: int) -> Float[Tensor, "B H W channels"]:
        """Output rows ``top`` to ``bottom``."""
        plan, rows = self.plan, self.plan.rows
        batch = len(next(iter(self.maps.values())))
        width = plan.sites[1].index.shape[1]
        output = plan.sites[0].offset.new_zeros(batch, bottom - top, width, self.channels)
        weight = self._weight(top, bottom)
        high, strips = self._strips(batch)
        for first in range(0, rows.codes, high):
            last = min(rows.codes, first + high)
            spans = [_clipped(rows.pixels(side, first, last), top, bottom) for side in range(len(rows.place))]
            if all(begin >= end for begin, end in spans):
                continue
            for strip in strips:
                block = self._decoded(first, last, strip)
                self._add(block, first, strip, spans, weight, output, top)
        return output

    def _weight(self, top: int, bottom: int) -> Float[Tensor, "K H W"]:
        rows, columns = self.plan.sites
        own = AxisSites(rows.index[:, top:bottom], rows.offset[:, top:bottom])
        return self.sampling.weights(own, columns)

    def _strips(self, batch: int) -> tuple[int, list["_Strip"]]:
        """How many rows of codes to decode at once, and the strips of columns of codes."""
        rows, columns = self.plan.rows, self.plan.columns
        limit = _CACHE if self.device.type == "cpu" else _DEVICE_BYTES
        down, across = rows.offset.shape[1], columns.offset.shape[1]
        codes = max(1, limit // (4 * batch * self.decoder.block_values * down * across))
        count = -(-columns.codes // codes)
        edges = [round(columns.codes * i / count) for i in range(count + 1)]
        strips = []
        for left, right in pairwise(edges):
            pixels = []
            for side, place in enumerate(columns.place):
                start, stop = columns.pixels(side, left, right)
                code = self.plan.sites[1].index[side, start:stop] - (columns.first + left)
                pixels.append((start, stop, code * (down * across) + place[start:stop]))
            strips.append(_Strip(left, right, tuple(pixels)))
        return max(1, codes // -(-columns.codes // count)), strips

    def _decoded(self, first: int, last: int, strip: "_Strip") -> Float[Tensor, "B h w R C channels"]:
        rows, columns = self.plan.rows, self.plan.columns
        down = slice(rows.first - self.corner[0] + first, rows.first - self.corner[0] + last)
        across = slice(columns.first - self.corner[1] + strip.left, columns.first - self.corner[1] + strip.right)
        maps = {name: values.unflatten(1, self.grid)[:, down, across] for name, values in self.maps.items()}
        offsets = rows.offset[first:last], columns.offset[strip.left : strip.right]
        return self.decoder.decode_block(maps, *offsets, self.conditions)

    def _add(
        self,
        block: Tensor,
        first: int,
        strip: "_Strip",
        spans: list[tuple[int, int]],
        weight: Tensor,
        output: Tensor,
        top: int,
    ) -> None:
        """Add the colors of a block of codes to the pixels that read them, weighted."""
        _, _, wide, down, across, _ = block.shape
        values = block.float().flatten(1, 4)
        sides = len(strip.pixels)
        for side, (begin, end) in enumerate(spans):
            if begin >= end:
                continue
            code = self.plan.sites[0].index[side, begin:end] - (self.plan.rows.first + first)
            row = (code * (wide * down) + self.plan.rows.place[side, begin:end]).unsqueeze(1) * across
            for other, (start, stop, column) in enumerate(strip.pixels):
                if start < stop:
                    colors = values.index_select(1, (row + column).view(-1)).unflatten(1, (end - begin, stop - start))
                    own = weight[side * sides + other, begin - top : end - top, start:stop].unsqueeze(-1)
                    output[:, begin - top : end - top, start:stop].addcmul_(colors, own)


@frozen(eq=False)
class _Strip:
    """Columns of codes that are decoded together."""

    left: int
    right: int
    pixels: tuple[tuple[int, int, Tensor], ...]  # for each side: the pixels that read them, and where in a block


def _clipped(span: tuple[int, int], top: int, bottom: int) -> tuple[int, int]:
    return max(span[0], top), min(span[1], bottom)
