"""What the framework relies on in a decoder: codes and conditions -> colors."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from liif_core.model.protocols import GlobalDecoder, Maps, Query, Sites
from liif_core.registry.components import Component
from liif_core.testing import common
from liif_core.testing.case import (
    Case,
    Check,
    Tensors,
    expect_same,
    expect_shape,
    fail,
    random,
)
from liif_core.testing.radius import expect_radius
from liif_core.testing.reference import ReferenceField, reference_condition, reference_sites

GRID = (5, 7)


class DecoderCase(Case):
    """A decoder, between plain features, a sampling of ``neighbours`` codes and ``conditions``: name -> width.

    "coordinate" and "cell", two wide, are told as the names say; any other, some function of the offset.
    """

    kind = "decoder"
    promised = {"radius": (0, False)}
    differentiable = ("features",)

    def __init__(
        self,
        component: Component | str,
        options: Any = None,
        in_channels: int = 6,
        out_channels: int = 3,
        neighbours: int = 4,
        conditions: Mapping[str, int] = {"coordinate": 2, "cell": 2},
    ):
        super().__init__(component, options)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.neighbours = neighbours
        self.conditions = dict(conditions)

    @property
    def sizes(self) -> dict[str, Any]:
        return {
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "neighbours": self.neighbours,
            "conditions": dict(self.conditions),
        }

    def inputs(self, batch: int = 2, seed: int = 0) -> Tensors:
        return {
            "features": random(batch, self.in_channels, *GRID, seed=seed),
            "coord": random(batch, 23, 2, seed=seed + 10),
            "cell": random(batch, 23, 2, seed=seed + 20, low=0.05, high=0.5),
        }

    def outputs(self, module: nn.Module, inputs: Tensors) -> Tensors:
        cell = inputs["cell"][:, :1] if module.scale_dependent else inputs["cell"]  # one for the whole image
        return {"colors": self.colors(module, inputs["features"], Query.points(inputs["coord"], cell))}

    def extremes(self) -> list[tuple[str, Tensors]]:
        axis = torch.tensor([-1.5, -1, -0.5, 0, 0.9, 1])
        coord = torch.cartesian_prod(axis, axis)[None]
        found = []
        for height, width in ((1, 1), (1, 3), GRID):
            for size in (1e-6, 0.1, 2.0):
                for value in (-10.0, 0.0, 10.0):
                    words = f"{height} x {width} codes of {value:g} and a cell of {size:g}"
                    features = torch.full((1, self.in_channels, height, width), value)
                    found.append((words, {"features": features, "coord": coord, "cell": torch.full_like(coord, size)}))
        return found

    def colors(self, module: nn.Module, features: Tensor, query: Query) -> Tensor:
        return self.decoded(module, self.maps(module, features, query.cell), query, tuple(features.shape[-2:]))

    def maps(self, module: nn.Module, features: Tensor, cell: Tensor) -> Maps:
        """``cell``: (B or 1, ..., 2), one for all queries of an image; what is known of the image is told of it."""
        size = torch.tensor(features.shape[-2:], device=cell.device)
        known = {"cell": cell.reshape(len(cell), -1, 2)[:, 0] * size} if self.conditions.get("cell") == 2 else {}
        return module.prepare(ReferenceField(features), known)

    def decoded(self, module: nn.Module, maps: Maps, query: Query, grid: tuple[int, int]) -> Tensor:
        return module.decode(maps, *self.asked(query, grid))

    def asked(self, query: Query, grid: tuple[int, int]) -> tuple[Sites, dict[str, Tensor]]:
        sites = reference_sites(query, grid, self.neighbours)
        return sites, self.conditions_of(query, sites, grid)

    def conditions_of(self, query: Query, sites: Sites, grid: tuple[int, int]) -> dict[str, Tensor]:
        return {name: reference_condition(name, width, query, sites, grid) for name, width in self.conditions.items()}


def contract(case: DecoderCase) -> None:
    """The module has what its contract declares, and needs no condition that is not given."""
    module = case.build()
    for name in ("pointwise", "scale_dependent"):
        if not isinstance(getattr(module, name, None), bool):
            fail(f"{name} is {getattr(module, name, 'missing')!r}; expected True or False")
    for name in ("prepare", "decode"):
        if not callable(getattr(module, name, None)):
            fail(f"no method {name!r}")
    needs = getattr(module, "needs", None)
    if not isinstance(needs, frozenset) or not all(isinstance(name, str) for name in needs):
        fail(f"needs is {needs!r}; expected a frozenset of names")
    missing = sorted(needs - case.conditions.keys())
    if missing:
        fail(f"needs {missing[0]!r}; check it with conditions = {{{missing[0]!r}: <width>, ...}}")
    if hasattr(module, "passes"):
        methods = all(callable(getattr(module, name, None)) for name in ("moment", "knowing"))
        if not isinstance(module.passes, int) or module.passes < 1 or not methods:
            fail(f"passes is {module.passes!r}; expected a whole number from 1, and methods 'moment' and 'knowing'")
        if module.pointwise:
            fail("has passes, and is pointwise: a color that needs no other query needs no pass over them")
    common.contract(case)


def _window() -> Query:
    return Query.grid(torch.linspace(-0.9, 0.95, 4), torch.linspace(-0.8, 1, 6), torch.tensor([0.2, 0.3]))


def shape(case: DecoderCase) -> None:
    """Colors are (B, *Q, out_channels), for scattered points and for a window of a pixel grid, gray or in color."""
    inputs = case.inputs()
    points = Query.points(inputs["coord"], inputs["cell"][:, :1])
    for channels in sorted({1, 3, case.out_channels}):
        other = DecoderCase(case.component, case.given, case.in_channels, channels, case.neighbours, case.conditions)
        module = other.build()
        for words, query in (("points", points), ("a window", _window())):
            with torch.no_grad():
                colors = other.colors(module, inputs["features"], query)
            expect_shape(f"colors of {words}", colors, len(inputs["features"]), *query.shape, channels)


def window(case: DecoderCase) -> None:
    """A window of a pixel grid has the colors of its pixels, asked for as scattered points in the same call."""
    module, features, query = case.build(), case.inputs()["features"], _window()
    points = Query.points(query.coord.flatten(1, 2), query.cell.flatten(1, 2))
    with torch.no_grad():
        together = case.colors(module, features, query).flatten(1, 2)
        expect_same("a window", {"colors": together}, {"colors": case.colors(module, features, points)})


def pointwise(case: DecoderCase) -> None:
    """Where ``pointwise`` is declared, a query's color does not depend on the others asked for at once."""
    module = case.build()
    if not module.pointwise:
        return
    features, query = case.inputs()["features"], _window()
    rows, columns = query.axes
    with torch.no_grad():
        maps = case.maps(module, features, query.cell)
        whole = case.decoded(module, maps, query, GRID)
        for down in (slice(0, 1), slice(1, 4)):
            for across in (slice(0, 1), slice(1, 4), slice(4, 6)):
                part = Query.grid(rows[down], columns[across], query.cell.flatten())
                colors = case.decoded(module, maps, part, GRID)
                words = f"a window of {len(rows[down])} x {len(columns[across])} of the queries"
                expect_same(words, {"colors": colors}, {"colors": whole[:, down, across]})


def passes(case: DecoderCase) -> None:
    """A set decoded in windows, by the means that were gathered in windows, has the colors of the whole set."""
    module = case.build()
    if not isinstance(module, GlobalDecoder):
        return
    features, query = case.inputs()["features"], _window()
    rows, columns = query.axes
    parts = [(down, across) for down in (slice(0, 1), slice(1, 4)) for across in (slice(0, 4), slice(4, 6))]
    queries = [Query.grid(rows[down], columns[across], query.cell.flatten()) for down, across in parts]
    with torch.no_grad():
        maps = case.maps(module, features, query.cell)
        whole = case.decoded(module, maps, query, GRID)
        for _ in range(module.passes):
            means = [module.moment(maps, *case.asked(part, GRID)) for part in queries]
            weights = [part.shape[0] * part.shape[1] / (len(rows) * len(columns)) for part in queries]
            maps = module.knowing(maps, sum(mean * weight for mean, weight in zip(means, weights)))
        expect_same("all of it, by its means", {"colors": case.decoded(module, maps, query, GRID)}, {"colors": whole})
        for (down, across), part in zip(parts, queries):
            colors = case.decoded(module, maps, part, GRID)
            words = f"a window of {part.shape[0]} x {part.shape[1]} of the queries"
            expect_same(words, {"colors": colors}, {"colors": whole[:, down, across]})


def prepare(case: DecoderCase) -> None:
    """Maps are named tensors, (B, ..., width); what is told changes them only if ``scale_dependent`` is declared."""
    module, features = case.build(), case.inputs()["features"]
    with torch.no_grad():
        one, other = (case.maps(module, features, torch.full((1, 1, 2), size)) for size in (0.1, 0.7))
    for maps in (one, other):
        if not isinstance(maps, Mapping):
            fail(f"prepare returned {type(maps).__name__}; expected a mapping of names to tensors")
        for name, values in maps.items():
            if not isinstance(values, Tensor) or values.ndim < 2:
                fail(f"map {name!r} is {type(values).__name__}; expected a tensor (B, ..., width)")
    if not module.scale_dependent:
        expect_same("maps prepared for another cell", other, one, tolerance=1e-6)


def stateless(case: DecoderCase) -> None:
    """All that ``decode`` knows of the image is in its maps: two images can be asked in turns."""
    module, query = case.build(), _window()
    first, second = (case.inputs(seed=seed)["features"] for seed in (0, 1))
    with torch.no_grad():
        maps = case.maps(module, first, query.cell)
        expected = case.decoded(module, maps, query, GRID)
        case.maps(module, second, query.cell)
        expect_same("after another image", {"colors": case.decoded(module, maps, query, GRID)}, {"colors": expected})


def radius(case: DecoderCase) -> None:
    """What lies further from a query's codes than ``radius`` changes nothing of its color (where it is pointwise)."""
    module = case.build()
    if not module.pointwise:
        return

    def color_of_each_code(features: Tensor) -> Tensor:
        grid = features.shape[-2:]
        index = torch.arange(grid[0] * grid[1]).view(1, 1, *grid).expand(case.neighbours, 1, *grid)
        offset = torch.full((*index.shape, 2), 0.3, dtype=features.dtype)
        sites = Sites(index, offset, torch.full(index.shape, 1 / case.neighbours, dtype=features.dtype))
        query = Query.points(torch.zeros(1, *grid, 2), torch.tensor([0.2, 0.3]))
        told = {name: value.to(features.dtype) for name, value in case.conditions_of(query, sites, GRID).items()}
        return module.decode(case.maps(module, features, query.cell), sites, told).permute(0, 3, 1, 2)

    expect_radius(module, color_of_each_code, case.in_channels, module.radius)


CHECKS: tuple[Check, ...] = (
    *common.OPTIONS, contract, shape, window, pointwise, passes, prepare, stateless, radius, *common.COMMON,
)  # fmt: skip
