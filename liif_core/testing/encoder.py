"""The checks of an encoder: image -> features."""

import math
from fractions import Fraction
from functools import cached_property
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from liif_core.model.composed import ComposedModel
from liif_core.registry.components import Component
from liif_core.testing.case import Case, Check, Tensors, builds_for, expect_shape, fail, random
from liif_core.testing.common import COMMON, OPTIONS, contract, parameters
from liif_core.testing.radius import Ratio, expect_radius, over_declared


class EncoderCase(Case):
    """An encoder of images of ``in_channels``. ``has_parameters = False`` declares that it has no parameters."""

    kind = "encoder"
    attributes = {"out_channels": (1, False), "multiple_of": (1, False), "receptive_radius": (0, True)}

    def __init__(
        self, component: Component | str, options: Any = None, in_channels: int = 3, has_parameters: bool = True
    ):
        super().__init__(component, options)
        self.in_channels = in_channels
        self.has_parameters = has_parameters

    @property
    def sizes(self) -> dict[str, Any]:
        return {"in_channels": self.in_channels}

    @cached_property
    def multiple(self) -> int:
        return int(self.build().multiple_of)

    def inputs(self, batch: int = 2, seed: int = 0) -> Tensors:
        sides = (-(-side // self.multiple) * self.multiple for side in (7, 10))
        image = random(batch, self.in_channels, *sides, seed=seed)
        return {"image": image.contiguous(memory_format=torch.channels_last)}  # the framework's layout: no copy is made

    def outputs(self, module: Any, inputs: Tensors) -> Tensors:
        return {"features": padded(module, inputs["image"])}

    def extremes(self) -> list[tuple[str, Tensors]]:
        shape = (1, self.in_channels, 7, 10)
        flat = [(f"an image of {value}", torch.full(shape, value)) for value in (-1.0, 0.0, 1.0)]
        board = (torch.arange(7)[:, None] + torch.arange(10)) % 2 * 2.0 - 1
        others = [("a chessboard", board.expand(shape)), ("a single pixel", torch.ones(1, self.in_channels, 1, 1))]
        return [(words, {"image": image.clone()}) for words, image in flat + others]


def padded(module: Any, image: Tensor) -> Tensor:
    """The features that the framework computes for an image of any size, which it pads to ``multiple_of``."""
    rest = nn.Identity()
    features: Tensor = ComposedModel(module, rest, rest, {}, rest, channels=image.shape[1]).encoded(image)
    return features


def _codes_per_pixel(case: EncoderCase, module: Any) -> Ratio:
    """Codes per pixel, down and across, measured as the framework measures it."""
    side = math.lcm(8, module.multiple_of)
    with torch.no_grad():
        features = module(random(1, case.in_channels, side, side))
    if not isinstance(features, Tensor) or features.ndim != 4:
        expect_shape("features", features, 1, "C", "h", "w")
    return Fraction(features.shape[2], side), Fraction(features.shape[3], side)


def size(case: EncoderCase) -> None:
    """The number of codes per pixel is the same for every image size that is a multiple of ``multiple_of``.

    Tested for every height and width from 1 to twice ``multiple_of`` plus 1, padded to a multiple.
    """
    module = case.build()
    multiple = module.multiple_of
    ratio = _codes_per_pixel(case, module)
    words = "" if ratio[0] == ratio[1] == 1 else f" ({ratio[0]} by {ratio[1]} codes per pixel)"
    if any((multiple * axis).denominator > 1 for axis in ratio):
        fail(f"multiple_of is {multiple}, and {multiple} pixels are not a whole number of codes{words}")
    sides = range(multiple, 2 * multiple + multiple + 1, multiple)
    for height, width in product(sides, repeat=2):
        image = random(1, case.in_channels, height, width)
        with torch.no_grad():
            features = module(image)
        codes = int(height * ratio[0]), int(width * ratio[1])
        expect_shape(f"features of a {height} x {width} image{words}", features, 1, features.shape[1], *codes)


def channels(case: EncoderCase) -> None:
    """Features have ``out_channels`` channels, for images of 1, 3 or 4 channels.

    An encoder that does not support some of these raises ValueError in ``build``.
    """
    for in_channels, module in builds_for(case, "in_channels", {1, 3, 4}):
        with torch.no_grad():
            found = case.outputs(module, case.inputs())["features"].shape[1]
        if found != module.out_channels:
            fail(f"out_channels is {module.out_channels}, but images of {in_channels} channels give {found} channels")


def receptive_radius(case: EncoderCase) -> None:
    """Pixels further from a code than ``receptive_radius`` do not influence it; None: the whole image may."""
    module = case.build()
    declared = module.receptive_radius
    if declared is not None:
        ratio = _codes_per_pixel(case, module)
        measured = expect_radius(module, module, case.in_channels, declared, module.multiple_of, ratio)
        if message := over_declared("receptive_radius", declared, measured):
            case.report(message)


CHECKS: tuple[Check, ...] = (*OPTIONS, contract, parameters, size, channels, receptive_radius, *COMMON)
