"""The checks of a conditioning: query -> condition of the decoder."""

from typing import Any

import torch
from torch import Tensor

from liif_core.model.protocols import Query
from liif_core.testing import common
from liif_core.testing.case import Case, Check, Tensors, dtype_name, expect_same, expect_shape, fail, random
from liif_core.testing.reference import reference_sites


class ConditioningCase(Case):
    """A conditioning, with a sampling of four codes."""

    kind = "conditioning"
    attributes = {"channels": (1, False)}
    grid = (5, 7)
    neighbours = 4

    def inputs(self, batch: int = 2, seed: int = 0) -> Tensors:
        return {"coord": random(batch, 23, 2, seed=seed), "cell": random(batch, 23, 2, seed=seed, low=0.05, high=0.5)}

    def outputs(self, module: Any, inputs: Tensors) -> Tensors:
        query = Query.points(inputs["coord"], inputs["cell"])
        value = self.condition(module, query)
        return {"condition": value.expand(-1, len(query.coord), *value.shape[2:]).transpose(0, 1)}

    def condition(self, module: Any, query: Query) -> Any:
        return module(query, reference_sites(query, self.grid, self.neighbours), self.grid)

    def extremes(self) -> list[tuple[str, Tensors]]:
        corners = torch.cartesian_prod(torch.tensor([-1.5, -1.0, 0.0, 1.0, 1.5]), torch.tensor([-1.0, 0.0, 1.0]))[None]
        return [
            (f"corners and a cell of {size:g}", {"coord": corners, "cell": torch.full_like(corners, size)})
            for size in (1e-6, 2.0)
        ]


def contract(case: ConditioningCase) -> None:
    """The module has the attributes of its contract: ``channels``, and ``scope``, "query", "offset" or "image"."""
    found = getattr(case.build(), "scope", "missing")
    if found not in ("query", "offset", "image"):
        fail(
            f"scope is {found!r}; expected 'image' if the result depends on the cell alone, 'offset' if it is "
            "sites.offset, else 'query'"
        )
    common.contract(case)


def _queries() -> tuple[Query, Query]:
    """A pixel grid, and its pixels as points."""
    rows, columns, cell = torch.linspace(-0.9, 0.95, 4), torch.linspace(-0.8, 1, 6), torch.tensor([0.2, 0.3])
    return Query.grid(rows, columns, cell), Query.points(torch.cartesian_prod(rows, columns)[None], cell)


def width(case: ConditioningCase) -> None:
    """The result is broadcastable to (K, B, *Q, channels), with the declared ``channels``."""
    module, inputs = case.build(), case.inputs()
    for query in (*_queries(), Query.points(inputs["coord"], inputs["cell"])):
        with torch.no_grad():
            value = case.condition(module, query)
        lengths = ((1, case.neighbours), (1, len(query.coord)), *((1, n) for n in query.shape))
        expect_shape("the condition", value, *lengths, module.channels)


def scope(case: ConditioningCase) -> None:
    """With scope "image", the result depends on the cell alone, with one value where the cell has one.

    With scope "offset", it is ``sites.offset``.
    """
    module, inputs = case.build(), case.inputs()
    if module.scope == "offset":
        return _is_offset(case, module)
    cell = inputs["cell"][:, :1]
    first = Query.points(inputs["coord"], cell)
    other = Query.points(case.inputs(seed=1)["coord"], cell)
    with torch.no_grad():
        values = [case.condition(module, query) for query in (first, other)]
    moved = reference_sites(other, case.grid, case.neighbours)
    with torch.no_grad():
        values.append(module(first, moved, case.grid))
    same = all(torch.equal(value, values[0]) for value in values)
    single = values[0].shape[0] == 1 and values[0].shape[2] == 1
    if module.scope == "query":
        if same and single:
            case.report("scope: declared 'query', but the result depends on the cell alone; 'image' would fit")
        return
    expect_shape("a condition of scope 'image', for one cell per image", values[0], 1, (1, 2), 1, module.channels)
    if not same:
        fail("declared 'image', but the result changes with the coordinates or the sites")


def _is_offset(case: ConditioningCase, module: Any) -> None:
    inputs = case.inputs()
    for query in (*_queries(), Query.points(inputs["coord"], inputs["cell"])):
        expected = reference_sites(query, case.grid, case.neighbours).offset
        with torch.no_grad():
            found = case.condition(module, query)
        if found.shape != expected.shape or not torch.equal(found, expected):
            fail("declared 'offset', but the result is not sites.offset")


def pixel_grid(case: ConditioningCase) -> None:
    """A pixel grid has the same conditions as its pixels queried as points."""
    module = case.build()
    together, apart = _queries()
    with torch.no_grad():
        values = [case.condition(module, query) for query in (together, apart)]
    shape = (case.neighbours, 1, *together.shape, values[0].shape[-1])
    grid = values[0].expand(shape).flatten(2, 3)
    expect_same("a pixel grid", {"condition": grid}, {"condition": values[1].expand(grid.shape)})


def autocast(case: ConditioningCase) -> None:
    """The result is float32 under autocast too: half precision would misplace queries."""
    module, inputs = case.build(), case.inputs()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        value = case.outputs(module, inputs)["condition"]
    if value.dtype != torch.float32:
        fail(f"under autocast: expected float32, got {dtype_name(value)}")
    with torch.no_grad():
        expect_same("under autocast", {"condition": value}, case.outputs(module, inputs))


def differentiable(case: ConditioningCase) -> None:
    """Gradients in the coordinates and in the cell agree with finite differences."""
    module, inputs = case.build(), case.inputs()
    for name in inputs:
        moved = {key: value.clone() for key, value in inputs.items()}
        moved[name].requires_grad_()
        value = case.outputs(module, moved)["condition"]
        weight, step = random(*value.shape, seed=1), random(*moved[name].shape, seed=2)
        known = 0.0
        if value.requires_grad:
            (gradient,) = torch.autograd.grad((value * weight).sum(), moved[name], allow_unused=True)
            known = 0.0 if gradient is None else (gradient.double() * step.double()).sum().item()
        measured = [_slope(case, module, inputs, name, step, weight, by) for by in (1e-2, 1e-3, 1e-4)]
        if not any(abs(found - known) <= 0.05 * max(1.0, abs(found)) for found in measured):
            fail(f"a step of the {name} changes the result by {measured[1]:.3g}, but its gradient gives {known:.3g}")


def _slope(
    case: ConditioningCase, module: Any, inputs: Tensors, name: str, step: Tensor, weight: Tensor, by: float
) -> float:
    """The central difference along ``step``, with the same codes read on both sides."""
    query = Query.points(inputs["coord"], inputs["cell"])
    kept = reference_sites(query, case.grid, case.neighbours)
    home = query.coord - kept.offset / torch.tensor(case.grid)
    values: list[float] = []
    for sign in (-1, 1):
        moved = {**inputs, name: inputs[name] + sign * by * step}
        query = Query.points(moved["coord"], moved["cell"])
        offset = (query.coord - home) * torch.tensor(case.grid)
        sites = type(kept)(kept.index, offset, kept.weight)
        with torch.no_grad():
            value = module(query, sites, case.grid)
        value = value.expand(-1, len(query.coord), *value.shape[2:]).transpose(0, 1)
        values.append((value.double() * weight.double()).sum().item())
    return (values[1] - values[0]) / (2 * by)


CHECKS: tuple[Check, ...] = (
    *common.OPTIONS, contract, width, scope, pixel_grid, autocast, differentiable, *common.COMMON,
)  # fmt: skip
