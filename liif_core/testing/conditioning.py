"""What the framework relies on in a conditioning: query -> what the decoder is told."""

import torch
from torch import Tensor, nn

from liif_core.model.protocols import Query
from liif_core.testing.case import (
    Case,
    Check,
    Tensors,
    expect_same,
    expect_shape,
    fail,
    random,
)
from liif_core.testing.common import COMMON, OPTIONS, contract
from liif_core.testing.reference import reference_sites


class ConditioningCase(Case):
    """A conditioning, beside a sampling of four codes."""

    kind = "conditioning"
    promised = {"channels": (1, False)}
    grid = (5, 7)
    neighbours = 4

    def inputs(self, batch: int = 2, seed: int = 0) -> Tensors:
        return {"coord": random(batch, 23, 2, seed=seed), "cell": random(batch, 23, 2, seed=seed, low=0.05, high=0.5)}

    def outputs(self, module: nn.Module, inputs: Tensors) -> Tensors:
        query = Query.points(inputs["coord"], inputs["cell"])
        value = self.condition(module, query)
        return {"condition": value.expand(-1, len(query.coord), *value.shape[2:]).transpose(0, 1)}

    def condition(self, module: nn.Module, query: Query) -> Tensor:
        return module(query, reference_sites(query, self.grid, self.neighbours), self.grid)

    def extremes(self) -> list[tuple[str, Tensors]]:
        corners = torch.cartesian_prod(torch.tensor([-1.5, -1.0, 0.0, 1.0, 1.5]), torch.tensor([-1.0, 0.0, 1.0]))[None]
        return [
            (f"corners and a cell of {size:g}", {"coord": corners, "cell": torch.full_like(corners, size)})
            for size in (1e-6, 2.0)
        ]


def _window(case: ConditioningCase) -> tuple[Query, Query]:
    """A window of a pixel grid, and its pixels as points."""
    rows, columns, cell = torch.linspace(-0.9, 0.95, 4), torch.linspace(-0.8, 1, 6), torch.tensor([0.2, 0.3])
    return Query.grid(rows, columns, cell), Query.points(torch.cartesian_prod(rows, columns)[None], cell)


def width(case: ConditioningCase) -> None:
    """The result is broadcastable to (K, B, *Q, channels), ``channels`` being what is declared."""
    module, inputs = case.build(), case.inputs()
    for query in (*_window(case), Query.points(inputs["coord"], inputs["cell"])):
        with torch.no_grad():
            value = case.condition(module, query)
        lengths = ((1, case.neighbours), (1, len(query.coord)), *((1, n) for n in query.shape))
        expect_shape("the condition", value, *lengths, module.channels)


def window(case: ConditioningCase) -> None:
    """A window of a pixel grid is told what its pixels are told, asked for one by one."""
    module = case.build()
    together, apart = _window(case)
    with torch.no_grad():
        values = [case.condition(module, query) for query in (together, apart)]
    shape = (case.neighbours, 1, *together.shape, values[0].shape[-1])
    grid = values[0].expand(shape).flatten(2, 3)
    expect_same("a window", {"condition": grid}, {"condition": values[1].expand(grid.shape)})


def autocast(case: ConditioningCase) -> None:
    """float32 under autocast too: half precision misplaces queries."""
    module, inputs = case.build(), case.inputs()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        value = case.outputs(module, inputs)["condition"]
    if value.dtype != torch.float32:
        fail(f"{str(value.dtype).removeprefix('torch.')} under autocast; expected float32")
    with torch.no_grad():
        expect_same("under autocast", {"condition": value}, case.outputs(module, inputs))


def differentiable(case: ConditioningCase) -> None:
    """Where the result changes with the coordinates or the cell, autograd knows by how much."""
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
            fail(f"moving the {name} changes the result by {measured[1]:.3g}, and autograd says {known:.3g}")


def _slope(
    case: ConditioningCase, module: nn.Module, inputs: Tensors, name: str, step: Tensor, weight: Tensor, by: float
) -> float:
    """The change along ``step`` by central difference, with the codes that are read kept."""
    query = Query.points(inputs["coord"], inputs["cell"])
    kept = reference_sites(query, case.grid, case.neighbours)
    home = query.coord - kept.offset / torch.tensor(case.grid)
    values = []
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


CHECKS: tuple[Check, ...] = (*OPTIONS, contract, width, window, autocast, differentiable, *COMMON)
