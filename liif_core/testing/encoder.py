"""What the framework relies on in an encoder."""

from functools import cached_property
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from liif_core.model.composed import ComposedModel
from liif_core.registry.components import Component
from liif_core.testing.case import Case, Check, Tensors, expect_shape, fail, random
from liif_core.testing.common import COMMON, OPTIONS, contract
from liif_core.testing.radius import expect_radius


class EncoderCase(Case):
    """An encoder of images of ``in_channels``."""

    kind = "encoder"
    promised = {"out_channels": (1, False), "multiple_of": (1, False), "receptive_radius": (0, True)}

    def __init__(self, component: Component | str, options: Any = None, in_channels: int = 3):
        super().__init__(component, options)
        self.in_channels = in_channels

    @property
    def sizes(self) -> dict[str, Any]:
        return {"in_channels": self.in_channels}

    @cached_property
    def multiple(self) -> int:
        return self.build().multiple_of

    def inputs(self, batch: int = 2, seed: int = 0) -> Tensors:
        sides = (-(-side // self.multiple) * self.multiple for side in (7, 10))
        image = random(batch, self.in_channels, *sides, seed=seed)
        return {"image": image.contiguous(memory_format=torch.channels_last)}  # as the framework gives it: no copy

    def outputs(self, module: nn.Module, inputs: Tensors) -> Tensors:
        return {"features": padded(module, inputs["image"])}

    def extremes(self) -> list[tuple[str, Tensors]]:
        shape = (1, self.in_channels, 7, 10)
        flat = [(f"an image of {value}", torch.full(shape, value)) for value in (-1.0, 0.0, 1.0)]
        board = (torch.arange(7)[:, None] + torch.arange(10)) % 2 * 2.0 - 1
        others = [("a chessboard", board.expand(shape)), ("a single pixel", torch.ones(1, self.in_channels, 1, 1))]
        return [(words, {"image": image.clone()}) for words, image in flat + others]


def padded(module: nn.Module, image: Tensor) -> Tensor:
    """What the framework makes of an image of any size: padded to ``multiple_of``, encoded, cropped."""
    return ComposedModel(module, nn.Identity(), nn.Identity(), {}, nn.Identity()).encoded(image)


def size(case: EncoderCase) -> None:
    """One code for each pixel, for every height and width from 1 to twice ``multiple_of`` and one."""
    module, seen = case.build(), set()
    several = module.multiple_of
    for sides in product(range(1, 2 * several + 2), repeat=2):
        height, width = (-(-side // several) * several for side in sides)  # what the framework pads to
        if (height, width) not in seen:
            seen.add((height, width))
            image = random(1, case.in_channels, height, width)
            with torch.no_grad():
                features = module(image)
            expect_shape(f"features of a {height} x {width} image", features, 1, features.shape[1], height, width)


def channels(case: EncoderCase) -> None:
    """Features have the channels that ``out_channels`` declares, for gray, color and any other images."""
    for in_channels in sorted({1, 3, 4, case.in_channels}):
        other = EncoderCase(case.component, case.given, in_channels)
        module = other.build()
        with torch.no_grad():
            found = other.outputs(module, other.inputs())["features"].shape[1]
        if found != module.out_channels:
            fail(f"out_channels is {module.out_channels}, and features of {in_channels} channels' images have {found}")


def receptive_radius(case: EncoderCase) -> None:
    """What lies further from a code than ``receptive_radius`` changes nothing; None: the whole image is seen."""
    module = case.build()
    if module.receptive_radius is not None:
        expect_radius(module, module, case.in_channels, module.receptive_radius, module.multiple_of)


CHECKS: tuple[Check, ...] = (*OPTIONS, contract, size, channels, receptive_radius, *COMMON)
