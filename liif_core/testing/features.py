"""What the framework relies on in features: encoder output -> latent field."""

from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from liif_core.model.protocols import LatentField
from liif_core.registry.components import Component
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
from liif_core.testing.radius import expect_radius


class FeaturesCase(Case):
    """Features of an encoder's output of ``in_channels``."""

    kind = "features"
    promised = {"channels": (1, False), "radius": (0, False)}
    differentiable = ("features",)

    def __init__(self, component: Component | str, options: Any = None, in_channels: int = 4):
        super().__init__(component, options)
        self.in_channels = in_channels

    @property
    def sizes(self) -> dict[str, Any]:
        return {"in_channels": self.in_channels}

    def inputs(self, batch: int = 2, seed: int = 0) -> Tensors:
        return {"features": random(batch, self.in_channels, 5, 7, seed=seed)}

    def outputs(self, module: nn.Module, inputs: Tensors) -> Tensors:
        return {"dense": module(inputs["features"]).dense()}

    def extremes(self) -> list[tuple[str, Tensors]]:
        shape = (1, self.in_channels, 5, 7)
        found = [(f"features of {value:g}", torch.full(shape, value)) for value in (-100.0, 0.0, 100.0)]
        found.append(("a single code", torch.ones(1, self.in_channels, 1, 1)))
        return [(words, {"features": features}) for words, features in found]


def size(case: FeaturesCase) -> None:
    """One code for each code of the encoder, of the declared ``channels``, for every size."""
    module = case.build()
    for height, width in product(range(1, 2 * module.radius + 3), repeat=2):
        features = random(2, case.in_channels, height, width)
        with torch.no_grad():
            expect_shape(f"codes of {height} x {width}", module(features).dense(), 2, module.channels, height, width)


def field(case: FeaturesCase) -> None:
    """The result is a LatentField that has the encoder's own features and knows its channels."""
    module, inputs = case.build(), case.inputs()
    with torch.no_grad():
        result = module(inputs["features"])
    if not isinstance(result, LatentField):
        fail(f"forward returned {type(result).__name__}; expected a LatentField")
    if result.channels != module.channels:
        fail(f"the field has channels {result.channels}, and the module {module.channels}")
    expect_same("field.features", {"features": result.features}, inputs)


def linear(case: FeaturesCase) -> None:
    """``linear`` is a linear layer applied to every code of ``dense``, with a bias and without."""
    module = case.build()
    weight, bias = random(6, module.channels, seed=1), random(6, seed=2)
    for given in (bias, None):
        with torch.no_grad():
            field = module(case.inputs()["features"])
            expected = F.conv2d(field.dense(), weight[:, :, None, None], given)
            words = "linear, with a bias" if given is not None else "linear, without a bias"
            expect_same(words, {"codes": field.linear(weight, given)}, {"codes": expected})


def radius(case: FeaturesCase) -> None:
    """What lies further from a code than ``radius`` changes nothing of it."""
    module = case.build()
    expect_radius(module, lambda features: module(features).dense(), case.in_channels, module.radius)


CHECKS: tuple[Check, ...] = (*OPTIONS, contract, size, field, linear, radius, *COMMON)
