"""Decoding a pixel grid code by code, in place of query by query.

Query by query, the values of the codes that a pixel reads are gathered anew for each pixel. Code by code, a code's
values are used where they are, for the block of pixels that read it, and what depends on the row or on the column alone
is computed once per row or column. The colors of the overlapping blocks are added with the weights of the sampling.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise, product

import torch
from attrs import evolve, frozen
from torch import Tensor

from liif_core.model.grid_plan import AxisPlan, plan_axis
from liif_core.model.protocols import (
    AxisSites,
    BlockDecoder,
    GridSampling,
    Maps,
    SeparableDecoder,
    SeparableSampling,
)
from liif_core.model.separable_decoding import axis_filter, separable_colors
from liif_core.model.threads import on_threads
from liif_core.shapes import Float
from liif_core.sizes import Size

_BAND = 1 << 17  # output pixels of a band at most, but for bands of one row of codes
_DEVICE_BAND = 1 << 21  # the same on a GPU
_DEVICE_POSITIONS = 1 << 20  # positions of one call of the decoder on a GPU
_REGULAR = 9  # parts of a block, each with equal places of all codes, up to which views are faster than gathering
_MOST_EVALUATIONS = 1.8  # of the decoder, relative to query by query


@frozen(eq=False)
class GridDecoding:
    """A decoder and all that it needs to decode a pixel grid.

    ``maps`` are those of a field of ``grid`` codes, the first of which is the code ``corner`` (row, column) of the grid
    that ``rows`` and ``columns`` refer to. ``conditions`` are those of scope "image", by name, each (B or 1, channels).
    """

    rows: AxisPlan
    columns: AxisPlan
    decoder: BlockDecoder
    sampling: GridSampling
    maps: Maps
    grid: Size
    corner: tuple[int, int]
    conditions: Mapping[str, Tensor]

    def pays(self) -> bool:
        """Whether this is better than query by query. It is not where pixels are sparse, as when an image is shrunk."""
        blocks = self.rows.offset.numel() * self.columns.offset.numel()
        return blocks <= _MOST_EVALUATIONS * self.rows.sites.index.numel() * self.columns.sites.index.numel()

    @property
    def _map(self) -> Tensor:
        """One of the maps: all have the same batch and device."""
        return next(iter(self.maps.values()))

    def colors(self, channels: int) -> Float[Tensor, "B channels H W"]:
        """The blended colors, float32, in [-1, 1] space."""
        colors = self._separable(channels)
        return self._blended(channels) if colors is None else colors

    def _separable(self, channels: int) -> Tensor | None:
        """``colors`` by one axis after the other; None where that is not possible."""
        decoder, sampling = self.decoder, self.sampling
        if not isinstance(decoder, SeparableDecoder) or not isinstance(sampling, SeparableSampling):
            return None
        if self._map.device.type != "cpu":
            return None
        filters, apart = [], []
        for axis, plan in enumerate((self.rows, self.columns)):
            weights = sampling.axis_weights(plan.sites)
            sites = AxisSites(plan.sites.index - self.corner[axis], plan.sites.offset)
            functions = decoder.axis_functions(axis, sites.offset, self.conditions)
            filters.append(axis_filter(sites, weights.nan_to_num(0.0), functions))
            apart.append(weights.isnan().any(0).nonzero().flatten())
        down, across = filters
        if down is None or across is None:
            return None
        colors = separable_colors(down, across, self.maps["coefficient"], self.grid, channels)
        for axis, lines in enumerate(apart):
            if len(lines):  # rows or columns whose weights are no products
                sites = (self.rows, self.columns)[axis].sites
                part = plan_axis(AxisSites(sites.index[:, lines], sites.offset[:, lines]))
                assert part is not None  # codes ascend, as in the whole
                work = evolve(self, rows=part) if axis == 0 else evolve(self, columns=part)
                colors.index_copy_(2 + axis, lines, work._blended(channels))
        return colors

    def _blended(self, channels: int) -> Float[Tensor, "B channels H W"]:
        """``colors`` by blocks of the codes, which are blended."""
        device = self._map.device
        work = evolve(self, rows=self.rows.to(device), columns=self.columns.to(device))
        output = self.rows.offset.new_zeros(
            len(self._map), self.rows.pixels, self.columns.pixels, channels, device=device
        )
        bands = self._bands(device)
        parts = on_threads(work._band, bands) if device.type == "cpu" else map(work._band, bands)
        for (start, stop), part in zip(bands, parts):  # always in this order, so that sums are the same in each run
            first, last = self.rows.around(start, stop)
            if part is not None:
                output[:, first:last] += part
        return output.permute(0, 3, 1, 2)

    def _bands(self, device: torch.device) -> list[tuple[int, int]]:
        """Rows of codes that are decoded together: on a CPU, several bands for each thread."""
        pixels = self.rows.pixels * self.columns.pixels
        count = -(-pixels // (_BAND if device.type == "cpu" else _DEVICE_BAND))
        if device.type == "cpu":
            count = max(count, 4 * torch.get_num_threads())
        return _divided(self.rows.codes, min(count, self.rows.codes))

    def _band(self, codes: tuple[int, int]) -> Tensor | None:
        """The part of the colors that these rows of codes give: (B, rows, W, channels), of ``rows.around(*codes)``."""
        top, bottom = self.rows.around(*codes)
        if top == bottom:
            return None
        output = None
        weights = self.sampling.weights(self.rows.part(top, bottom), self.columns.sites)
        for rows, columns in self._blocks(*codes):
            block = self._decoded(rows, columns)
            if output is None:
                output = block.new_zeros(
                    len(block), bottom - top, self.columns.pixels, block.shape[-1], dtype=torch.float32
                )
            self._add(block.float(), rows, columns, weights, output, top)
        return output

    def _blocks(self, start: int, stop: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        """Rectangles of codes that one call of the decoder decodes: ranges of rows, and ranges of columns."""
        down, across = self.rows.longest(start, stop), self.columns.longest(0, self.columns.codes)
        positions = self.decoder.block_positions if self._map.device.type == "cpu" else _DEVICE_POSITIONS
        codes = max(1, positions // max(1, down * across))
        strips = _divided(self.columns.codes, -(-self.columns.codes // codes))
        high = max(1, codes // max(right - left for left, right in strips))
        for rows in _divided(stop - start, -(-(stop - start) // high)):
            for columns in strips:
                yield (start + rows[0], start + rows[1]), columns

    def _decoded(self, rows: tuple[int, int], columns: tuple[int, int]) -> Float[Tensor, "B h w R C channels"]:
        first = self.rows.first - self.corner[0], self.columns.first - self.corner[1]
        down, across = (slice(at + codes[0], at + codes[1]) for at, codes in zip(first, (rows, columns)))
        maps = {name: values.unflatten(1, self.grid)[:, down, across] for name, values in self.maps.items()}
        row_offsets, column_offsets = (
            axis.offset[start:stop, : max(1, axis.longest(start, stop))]
            for axis, (start, stop) in ((self.rows, rows), (self.columns, columns))
        )
        return self.decoder.decode_block(maps, row_offsets, column_offsets, self.conditions)

    def _add(
        self,
        block: Float[Tensor, "B h w R C channels"],
        rows: tuple[int, int],
        columns: tuple[int, int],
        weights: Float[Tensor, "K band W"],
        output: Float[Tensor, "B band W channels"],
        top: int,
    ) -> None:
        """Add the weighted colors of a block of codes to the pixels that read them; row 0 of ``output`` is ``top``."""
        for side, other in product(range(self.rows.sides), range(self.columns.sides)):
            weight = weights[side * self.columns.sides + other].unsqueeze(-1)
            down, across = self.rows.runs(side, *rows), self.columns.runs(other, *columns)
            if len(down) * len(across) > _REGULAR:
                (begin, end), (left, right) = self.rows.span(side, *rows), self.columns.span(other, *columns)
                colors = self._gathered(block, (side, other), rows, columns)
                output[:, begin - top : end - top, left:right].addcmul_(
                    colors, weight[begin - top : end - top, left:right]
                )
                continue
            for these, those in product(down, across):  # codes whose colors are a view of the block
                (begin, end), (left, right) = self.rows.span(side, *these), self.columns.span(other, *those)
                (first, last), (start, stop) = self.rows.places(side, these[0]), self.columns.places(other, those[0])
                high, wide = (
                    slice(these[0] - rows[0], these[1] - rows[0]),
                    slice(those[0] - columns[0], those[1] - columns[0]),
                )
                colors = block[:, high, wide, first:last, start:stop].transpose(2, 3)
                target, its_weight = (
                    part.unflatten(-2, (-1, stop - start)).unflatten(-4, (-1, last - first))
                    for part in (
                        output[:, begin - top : end - top, left:right],
                        weight[begin - top : end - top, left:right],
                    )
                )
                if len(weights) == 1:  # it is 1
                    target += colors
                else:
                    target.addcmul_(colors, its_weight)

    def _gathered(
        self,
        block: Float[Tensor, "B h w R C channels"],
        sides: tuple[int, int],
        rows: tuple[int, int],
        columns: tuple[int, int],
    ) -> Float[Tensor, "B down across channels"]:
        """The colors of a block of codes at the pixels that read them on these sides."""
        _, _, wide, down, across, _ = block.shape
        (begin, end), (left, right) = self.rows.span(sides[0], *rows), self.columns.span(sides[1], *columns)
        code = self.rows.sites.index[sides[0], begin:end] - (self.rows.first + rows[0])
        row = (code * (wide * down) + self.rows.place[sides[0], begin:end]).unsqueeze(1) * across
        code = self.columns.sites.index[sides[1], left:right] - (self.columns.first + columns[0])
        column = code * (down * across) + self.columns.place[sides[1], left:right]
        chosen = block.flatten(1, 4).index_select(1, (row + column).flatten())
        result: Tensor = chosen.unflatten(1, (end - begin, right - left))
        return result


def _divided(count: int, parts: int) -> list[tuple[int, int]]:
    """0 .. count in ranges of about the same length."""
    return list(pairwise(round(count * i / parts) for i in range(parts + 1)))
