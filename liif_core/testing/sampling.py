"""The checks of a sampling: query -> sites."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from liif_core.model.protocols import Query, SeparableSampling, Sites
from liif_core.sizes import Size
from liif_core.testing.blocks import SCALES, enlarged
from liif_core.testing.case import Case, Check, Tensors, dtype_name, expect_same, expect_shape, fail, random
from liif_core.testing.common import COMMON, OPTIONS, contract
from liif_core.testing.radius import over_declared

GRIDS = ((1, 1), (1, 4), (2, 2), (3, 5), (8, 7))


class SamplingCase(Case):
    """A sampling, with scattered queries on a grid of codes."""

    kind = "sampling"
    attributes = {"neighbours": (1, False), "reach": (0, False)}
    grid = (5, 7)

    def inputs(self, batch: int = 2, seed: int = 0) -> Tensors:
        return {"coord": random(batch, 23, 2, seed=seed), "cell": random(batch, 23, 2, seed=seed, low=0.05, high=0.5)}

    def outputs(self, module: Any, inputs: Tensors) -> Tensors:
        sites = module(Query.points(inputs["coord"], inputs["cell"]), self.grid)
        return _by_image(sites, len(inputs["coord"]))

    def extremes(self) -> list[tuple[str, Tensors]]:
        places = [("the border", border(self.grid)[None]), ("a point far away", torch.full((1, 1, 2), 100.0))]
        cells = [(f"a cell of {size:g}", size) for size in (1e-6, 2.0)]
        return [
            (f"{words} and {more}", {"coord": coord, "cell": torch.full_like(coord, size)})
            for words, coord in places
            for more, size in cells
        ]


def _by_image(sites: Sites, batch: int) -> Tensors:
    """Index, offset and weight, each (B, K, *Q, ...)."""
    parts = {"index": sites.index, "offset": sites.offset, "weight": sites.weight}
    return {n: value.expand(value.shape[0], batch, *value.shape[2:]).transpose(0, 1) for n, value in parts.items()}


def border(grid: Size) -> Tensor:
    """(N, 2): edges, codes, the positions halfway between codes and beside those, inside the image and outside."""
    axes = []
    for n in grid:
        steps = (-1 + torch.arange(-2, 2 * n + 3, dtype=torch.float64) / n).float()
        axes.append(torch.cat([steps, steps + 1e-6, steps - 1e-6, torch.tensor([-3.0, 2.5])]))
    return torch.cartesian_prod(*axes)


def _sampled(module: Any) -> Iterator[tuple[Size, Query, Sites]]:
    """Queries at every border and corner of several grids, as points and as a pixel grid, and their sites."""
    for grid in GRIDS:
        cell = torch.tensor([0.2, 0.3])
        queries = [Query.points(border(grid)[None], cell)]
        queries.append(Query.grid(torch.linspace(-1.2, 1.1, 13), torch.linspace(-1, 1, 9), cell))
        for query in queries:
            with torch.no_grad():
                yield grid, query, module(query, grid)


def shape(case: SamplingCase) -> None:
    """Sites have the shapes and types of their contract, with K = ``neighbours``."""
    module = case.build()
    batch = Query.points(case.inputs(batch=2)["coord"], torch.tensor([0.1, 0.2]))
    for _, query, sites in [(case.grid, batch, module(batch, case.grid)), *_sampled(module)]:
        images = (1, len(query.coord))
        expect_shape("index", sites.index, module.neighbours, images, *query.shape)
        expect_shape("offset", sites.offset, module.neighbours, images, *query.shape, 2)
        expect_shape("weight", sites.weight, module.neighbours, images, *query.shape)
        if sites.index.dtype != torch.int64:
            fail(f"index: expected int64, got {dtype_name(sites.index)}")


def index_range(case: SamplingCase) -> None:
    """Indices lie within the grid of codes, also for queries at the borders and outside the image."""
    for grid, _, sites in _sampled(case.build()):
        codes = grid[0] * grid[1]
        lowest, highest = int(sites.index.min()), int(sites.index.max())
        if lowest < 0 or highest >= codes:
            fail(f"expected indices from 0 to {codes - 1} for {grid[0]} x {grid[1]} codes, got {lowest} to {highest}")


def reach(case: SamplingCase) -> None:
    """Along each axis, every code read is at most ``reach`` codes away from the nearest code."""
    module, distances = case.build(), [0.0]
    for grid, query, sites in _sampled(module):
        size = torch.tensor(grid)
        position = torch.minimum(((query.coord + 1) / 2 * size - 0.5).clamp(min=0), size - 1.0)
        place = torch.stack([sites.index // grid[1], sites.index % grid[1]], dim=-1)
        distances.append((place - position).abs().max().item())
    furthest = max(distances)
    if furthest > module.reach + 0.5 + 1e-3:  # a query halfway between two codes is nearest to either
        fail(f"declared {module.reach}, but a code {furthest:.2f} codes away from the query is read")
    if message := over_declared("reach", module.reach, math.ceil(furthest - 0.5 - 1e-3)):
        case.report(message)


def weight_sum(case: SamplingCase) -> None:
    """The weights of a query sum to 1."""
    for _, _, sites in _sampled(case.build()):
        total = sites.weight.sum(0)
        if not (total - 1).abs().max() <= 1e-5:
            fail(f"weights sum to values from {total.min():.6g} to {total.max():.6g}")


def weight_sign(case: SamplingCase) -> None:
    """No weight is negative. A sharpening kernel declares this check as an expected failure."""
    lowest = min(sites.weight.min().item() for _, _, sites in _sampled(case.build()))
    if lowest < 0:
        fail(f"the lowest weight is {lowest:.3g}")


def offsets(case: SamplingCase) -> None:
    """Offsets are query minus code in feature-cell units: the side of a feature cell is 2.

    A code of weight 0 may stand for one outside the grid, whose offset it then has.
    """
    for grid, query, sites in _sampled(case.build()):
        size = torch.tensor(grid)
        place = torch.stack([sites.index // grid[1], sites.index % grid[1]], dim=-1)
        expected = (query.coord - ((2 * place + 1) / size - 1)) * size
        read = (sites.weight != 0).unsqueeze(-1).expand(sites.offset.shape)
        found, expected = (torch.where(read, values, 0) for values in (sites.offset, expected))
        expect_same(f"offsets on {grid[0]} x {grid[1]} codes", {"offset": found}, {"offset": expected})


def pixel_grid(case: SamplingCase) -> None:
    """A pixel grid has the same sites as its pixels queried as points."""
    module = case.build()
    for grid in GRIDS:
        rows, columns, cell = torch.linspace(-1.2, 1.1, 13), torch.linspace(-1, 1, 9), torch.tensor([0.2, 0.3])
        with torch.no_grad():
            together = _by_image(module(Query.grid(rows, columns, cell), grid), 1)
            apart = _by_image(module(Query.points(torch.cartesian_prod(rows, columns)[None], cell), grid), 1)
        together = {name: value.flatten(2, 3) for name, value in together.items()}
        expect_same(f"a pixel grid on {grid[0]} x {grid[1]} codes", together, apart)


def grid_axes(case: SamplingCase) -> None:
    """If the sampling has ``axes`` and ``weights``, they give the sites of a pixel grid, in ascending order.

    If it has ``axis_weights``, its products are those weights.
    """
    module: Any = case.build()
    has = [callable(getattr(module, name, None)) for name in ("axes", "weights")]
    if not any(has):
        return
    if not all(has):
        fail("expected both methods of liif_core.GridSampling, axes and weights")
    for grid in GRIDS:
        for scale in (0.4, *SCALES):
            query = enlarged(grid, scale)
            with torch.no_grad():
                sites, axes = module(query, grid), module.axes(query, grid)
                weights = module.weights(*axes)
            sides = [len(axis.index) for axis in axes]
            if sides[0] * sides[1] != module.neighbours:
                fail(f"{sides[0]} and {sides[1]} sides; expected a product of {module.neighbours}, the neighbours")
            for words, axis, pixels in zip(("rows", "columns"), axes, query.shape):
                expect_shape(f"index of {words}", axis.index, len(axis.index), pixels)
                expect_shape(f"offset of {words}", axis.offset, len(axis.index), pixels)
                if (axis.index.diff(dim=1) < 0).any():
                    fail(f"the index of {words} decreases along the grid")
            expect_shape("weights of a grid", weights, module.neighbours, *query.shape)
            rows, columns = axes
            if isinstance(module, SeparableSampling):
                down, across = (module.axis_weights(axis) for axis in axes)
                products = (down[:, None, :, None] * across[None, :, None, :]).flatten(0, 1)
                known = {"weight": torch.where(products.isnan(), weights, products)}
                expect_same(f"axis_weights on {grid[0]} x {grid[1]} codes", known, {"weight": weights})
            index = rows.index[:, None, :, None] * grid[1] + columns.index[None, :, None, :]
            down, across = torch.broadcast_tensors(rows.offset[:, None, :, None], columns.offset[None, :, None, :])
            found = {"index": index.flatten(0, 1), "weight": weights}
            found["offset"] = torch.stack([down, across], dim=-1).flatten(0, 1)
            expected = {"index": sites.index[:, 0], "weight": sites.weight[:, 0], "offset": sites.offset[:, 0]}
            expect_same(f"axes and weights on {grid[0]} x {grid[1]} codes", found, expected)


def autocast(case: SamplingCase) -> None:
    """Under autocast, sites are bit for bit the same: half precision would misplace queries."""
    module = case.build()
    query = Query.points(random(1, 50, 2), torch.tensor([0.01, 0.01]))
    with torch.no_grad():
        expected = _by_image(module(query, (1080, 1920)), 1)
        with torch.autocast("cpu", torch.bfloat16):
            found = _by_image(module(query, (1080, 1920)), 1)
    expect_same("under autocast", found, expected, tolerance=0)


def differentiable(case: SamplingCase) -> None:
    """Offsets are differentiable in the coordinates, with the right gradient."""
    coord = random(1, 23, 2).requires_grad_()
    sites = case.build()(Query.points(coord, torch.tensor([0.1, 0.1])), case.grid)
    if not sites.offset.requires_grad:
        fail("autograd finds no dependence of the offsets on the coordinates")
    sites.offset.sum().backward()
    assert coord.grad is not None
    expected = (len(sites.offset) * torch.tensor(case.grid)).expand(coord.shape).float()
    expect_same("the gradient of the offsets", {"coord": coord.grad}, {"coord": expected})


CHECKS: tuple[Check, ...] = (
    *OPTIONS, contract, shape, index_range, reach, weight_sum, weight_sign, offsets, pixel_grid, grid_axes, autocast,
    differentiable, *COMMON,
)  # fmt: skip
