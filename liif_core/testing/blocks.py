"""The check of decoders that decode a pixel grid code by code."""

import math
from itertools import product
from typing import Any

import torch
from torch import Tensor

from liif_core.model.grid_decoding import GridDecoding
from liif_core.model.grid_plan import plan_axis
from liif_core.model.protocols import AxisSites, BlockDecoder, Query, Sites
from liif_core.sizes import Size
from liif_core.testing.case import expect_same, expect_shape, fail
from liif_core.testing.decoder_case import GRID, DecoderCase

SCALES = (1.0, 1.5, 2.0, 3.3)


class SquareSampling:
    """Reads the codes of a square around each query: ``side`` codes along each axis, weighted by closeness."""

    reach = 1

    def __init__(self, side: int):
        self.side = side
        self.neighbours = side * side

    def __call__(self, query: Query, grid: Size) -> Sites:
        rows, columns = self.axes(query, grid)
        row, column = rows.index[:, None, :, None], columns.index[None, :, None, :]
        down, across = torch.broadcast_tensors(rows.offset[:, None, :, None], columns.offset[None, :, None, :])
        offset = torch.stack([down, across], dim=-1).flatten(0, 1).unsqueeze(1)
        index = (row * grid[1] + column).flatten(0, 1).unsqueeze(1)
        return Sites(index, offset, self.weights(rows, columns).unsqueeze(1))

    def axes(self, query: Query, grid: Size) -> tuple[AxisSites, AxisSites]:
        assert query.axes is not None
        rows, columns = (self._axis(axis, codes) for axis, codes in zip(query.axes, grid))
        return rows, columns

    def _axis(self, position: Tensor, codes: int) -> AxisSites:
        first = ((position + 1) / 2 * codes - self.side / 2).floor()
        index = (first + torch.arange(self.side).unsqueeze(1)).clamp(0, codes - 1)
        return AxisSites(index.long(), (position - ((2 * index + 1) / codes - 1)) * codes)

    def weights(self, rows: AxisSites, columns: AxisSites) -> Tensor:
        distance = rows.offset.square()[:, None, :, None] + columns.offset.square()[None, :, None, :]
        return torch.softmax(-distance.flatten(0, 1), dim=0)


class SeparableSquareSampling(SquareSampling):
    """The same. Its weights are products: of a softmax over rows, and one over columns."""

    def axis_weights(self, sites: AxisSites) -> Tensor:
        return torch.softmax(-sites.offset.square(), dim=0)


def enlarged(grid: Size, scale: float) -> Query:
    """A part of a pixel grid over ``grid`` codes that does not begin at the border, and ends beyond it."""
    steps = [2 / (codes * scale) for codes in grid]
    rows, columns = (-1 + step * (0.8 + torch.arange(math.ceil(2 / step) + 1)) for step in steps)
    return Query.grid(rows, columns, torch.tensor(steps))


def decode_block(case: DecoderCase) -> None:
    """If the decoder has ``decode_block``, pixel grids decoded by it have the colors that ``decode`` gives them.

    The same holds for ``axis_functions``.
    """
    module = case.build()
    if not callable(getattr(module, "decode_block", None)):
        return
    positions = getattr(module, "block_positions", None)
    if not isinstance(positions, int) or isinstance(positions, bool) or positions < 1:
        fail(f"block_positions is {positions!r}; expected an integer from 1")
    if not isinstance(module, BlockDecoder) or module.num_statistics != 0:
        fail("decode_block needs num_statistics = 0")
    side = round(case.neighbours**0.5)
    if not case.conditions.keys() <= {"coordinate", "cell"} or side * side != case.neighbours:
        return  # the framework does not use it with such conditions or codes
    samplings = [SquareSampling(side)]
    if callable(getattr(module, "axis_functions", None)):
        samplings.append(SeparableSquareSampling(side))
    for scale, sampling in product(SCALES, samplings):
        _expect_blocks(case, module, sampling, scale)


def _expect_blocks(case: DecoderCase, module: Any, sampling: SquareSampling, scale: float) -> None:
    inputs, query = case.inputs(), enlarged(GRID, scale)
    with torch.no_grad():
        maps = case.maps(module, inputs, query.cell)
        for name, values in maps.items():
            codes = GRID[0] * GRID[1]
            expect_shape(f"map {name!r} of a decoder with decode_block", values, len(values), codes, values.shape[-1])
        sites = sampling(query, GRID)
        expected = module.decode(maps, sites, case.conditions_of(query, sites, GRID))
        rows, columns = map(plan_axis, sampling.axes(query, GRID))
        assert rows is not None and columns is not None
        cell = {"cell": query.cell.view(1, 2) * torch.tensor(GRID)} if "cell" in case.conditions else {}
        found = GridDecoding(rows, columns, module, sampling, maps, GRID, (0, 0), cell).colors(case.out_channels)
    found = found.permute(0, 2, 3, 1)
    way = "axes" if hasattr(sampling, "axis_weights") else "blocks"
    expect_same(f"{way} at scale {scale:g}", {"colors": found}, {"colors": expected}, tolerance=2e-5)
