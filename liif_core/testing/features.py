"""The checks of features: encoder output -> latent field."""

from fractions import Fraction
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F

from liif_core.model.protocols import LatentField
from liif_core.registry.components import Component
from liif_core.testing.case import Case, Check, Tensors, expect_same, expect_shape, fail, random
from liif_core.testing.common import COMMON, OPTIONS, contract
from liif_core.testing.radius import Ratio, expect_radius, over_declared

SIDE = 8  # of the square on which codes per feature are measured


class FeaturesCase(Case):
    """Features for an encoder of ``in_channels``."""

    kind = "features"
    attributes = {"channels": (1, False), "radius": (0, True)}
    differentiable = ("features",)

    def __init__(self, component: Component | str, options: Any = None, in_channels: int = 4):
        super().__init__(component, options)
        self.in_channels = in_channels

    @property
    def sizes(self) -> dict[str, Any]:
        return {"in_channels": self.in_channels}

    def inputs(self, batch: int = 2, seed: int = 0) -> Tensors:
        return {"features": random(batch, self.in_channels, 5, 7, seed=seed)}

    def outputs(self, module: Any, inputs: Tensors) -> Tensors:
        return {"dense": module(inputs["features"]).dense()}

    def extremes(self) -> list[tuple[str, Tensors]]:
        shape = (1, self.in_channels, 5, 7)
        found = [(f"features of {value:g}", torch.full(shape, value)) for value in (-100.0, 0.0, 100.0)]
        found.append(("a single code", torch.ones(1, self.in_channels, 1, 1)))
        return [(words, {"features": features}) for words, features in found]


def _ratio(case: FeaturesCase, module: Any) -> Ratio:
    """Codes per feature, down and across: 1 unless the field has a grid of its own."""
    with torch.no_grad():
        grid = module(random(1, case.in_channels, SIDE, SIDE)).grid
    return Fraction(grid[0], SIDE), Fraction(grid[1], SIDE)


def size(case: FeaturesCase) -> None:
    """``dense`` is (B, channels, h, w) where (h, w) is the field's ``grid``, in proportion to the features' size."""
    module = case.build()
    ratio = _ratio(case, module)
    for height, width in product(range(1, 2 * (module.radius or 0) + 3), repeat=2):
        codes = height * ratio[0], width * ratio[1]
        if any(count.denominator > 1 for count in codes):
            continue
        with torch.no_grad():
            field = module(random(2, case.in_channels, height, width))
            if tuple(field.grid) != codes:
                fail(f"the grid is {tuple(field.grid)} for features of {height} x {width}; expected {codes}")
            expect_shape(f"codes of {height} x {width} features", field.dense(), 2, module.channels, *codes)


def field(case: FeaturesCase) -> None:
    """The result is a LatentField with the encoder's features and the module's channels; ``image`` can be set."""
    module, inputs = case.build(), case.inputs()
    with torch.no_grad():
        result = module(inputs["features"])
    if not isinstance(result, LatentField):
        fail(f"forward returned {type(result).__name__}; expected a LatentField")
    if result.channels != module.channels:
        fail(f"the field has {result.channels} channels, but the module declares {module.channels}")
    expect_same("field.features", {"features": result.features}, inputs)
    image = torch.zeros(2, 3, 5, 7)
    try:
        result.image = image  # as the framework does
    except AttributeError as error:
        fail(f"field.image cannot be set: {error}")
    if result.image is not image:
        fail("field.image is not the image that was set")


def linear(case: FeaturesCase) -> None:
    """``linear`` equals a linear layer applied to every code of ``dense``, with and without a bias."""
    module = case.build()
    weight, bias = random(6, module.channels, seed=1), random(6, seed=2)
    for given in (bias, None):
        with torch.no_grad():
            field = module(case.inputs()["features"])
            expected = F.conv2d(field.dense(), weight[:, :, None, None], given)
            words = "linear with a bias" if given is not None else "linear without a bias"
            expect_same(words, {"codes": field.linear(weight, given)}, {"codes": expected})


def radius(case: FeaturesCase) -> None:
    """Features further from a code than ``radius`` do not influence it; None: all may."""
    module = case.build()
    if module.radius is None:
        return
    ratio = _ratio(case, module)
    measured = expect_radius(
        module, lambda features: module(features).dense(), case.in_channels, module.radius, 1, ratio
    )
    if message := over_declared("radius", module.radius, measured):
        case.report(message)


CHECKS: tuple[Check, ...] = (*OPTIONS, contract, size, field, linear, radius, *COMMON)
