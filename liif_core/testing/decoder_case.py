"""A decoder to check, with its sizes and test inputs."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from liif_core.model.protocols import Known, Maps, Query, Sites
from liif_core.registry.components import Component
from liif_core.sizes import Size
from liif_core.testing.case import Case, Tensors, random
from liif_core.testing.reference import ReferenceField, reference_condition, reference_sites

GRID = (5, 7)


class DecoderCase(Case):
    """A decoder, with codes of ``in_channels``, a sampling of ``neighbours`` codes, and ``conditions``: name -> width.

    "coordinate" and "cell" of width 2 are those of the default components; any other condition is a smooth function of
    the offset. ``has_parameters = False`` declares that the decoder has no parameters.
    """

    kind = "decoder"
    attributes = {"radius": (0, True), "num_statistics": (0, True)}
    differentiable = ("features",)

    def __init__(
        self,
        component: Component | str,
        options: Any = None,
        in_channels: int = 6,
        out_channels: int = 3,
        neighbours: int = 4,
        conditions: Mapping[str, int] = {"coordinate": 2, "cell": 2},
        has_parameters: bool = True,
    ):
        super().__init__(component, options)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.neighbours = neighbours
        self.conditions = dict(conditions)
        self.has_parameters = has_parameters

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
            "image": random(batch, self.out_channels, *GRID, seed=seed + 30),
            "coord": random(batch, 23, 2, seed=seed + 10),
            "cell": random(batch, 23, 2, seed=seed + 20, low=0.05, high=0.5),
        }

    def outputs(self, module: Any, inputs: Tensors) -> Tensors:
        cell = inputs["cell"][:, :1] if module.scale_dependent else inputs["cell"]  # one for the whole image
        return {"colors": self.colors(module, inputs, Query.points(inputs["coord"], cell))}

    def extremes(self) -> list[tuple[str, Tensors]]:
        axis = torch.tensor([-1.5, -1, -0.5, 0, 0.9, 1])
        coord = torch.cartesian_prod(axis, axis)[None]
        found = []
        for height, width in ((1, 1), (1, 3), GRID):
            for size in (1e-6, 0.1, 2.0):
                for value in (-10.0, 0.0, 10.0):
                    words = f"{height} x {width} codes of {value:g} and a cell of {size:g}"
                    features = torch.full((1, self.in_channels, height, width), value)
                    image = torch.full((1, self.out_channels, height, width), value / 10)
                    cell = torch.full_like(coord, size)
                    found.append((words, {"features": features, "image": image, "coord": coord, "cell": cell}))
        return found

    def colors(self, module: Any, inputs: Tensors, query: Query) -> Tensor:
        grid = inputs["features"].shape[-2], inputs["features"].shape[-1]
        return self.decoded(module, self.maps(module, inputs, query.cell), query, grid)

    def maps(self, module: Any, inputs: Tensors, cell: Tensor) -> Any:
        """``cell``: (B or 1, ..., 2), one for all queries of an image. It is given to ``prepare`` if that needs it."""
        conditions = {}
        if module.scale_dependent and self.conditions.get("cell") == 2:
            size = torch.tensor(inputs["features"].shape[-2:], device=cell.device)
            conditions = {"cell": cell.reshape(len(cell), -1, 2)[:, 0] * size}
        return module.prepare(ReferenceField(inputs["features"], inputs["image"]), conditions)

    def decoded(self, module: Any, maps: Maps, query: Query, grid: Size, known: Known | None = None) -> Tensor:
        colors: Tensor = module.decode(maps, *self.arguments(query, grid), *([] if known is None else [known]))
        return colors

    def arguments(self, query: Query, grid: Size) -> tuple[Sites, dict[str, Tensor]]:
        sites = reference_sites(query, grid, self.neighbours)
        return sites, self.conditions_of(query, sites, grid)

    def conditions_of(self, query: Query, sites: Sites, grid: Size) -> dict[str, Tensor]:
        return {name: reference_condition(name, width, query, sites, grid) for name, width in self.conditions.items()}
