"""Working modules of the parts of a composition, for ``liif new-plugin``; see ``liif_core.cli.templates``."""

ENCODER = '''\
"""The encoder '$name'. Describe here what it computes, and where it was published."""

from attrs import frozen
from attrs.validators import ge
from torch import Tensor, nn

from liif_core import Component, hookimpl, option


@frozen
class ${title}Options:
    channels: int = option("Channels of every layer, and of the output.", 32, check=ge(1))
    layers: int = option("Convolutions after the first.", 3, check=ge(0))


class $title(nn.Module):
    """Image (B, in_channels, h, w) in [-1, 1] -> features (B, channels, h, w): one latent code per pixel."""

    multiple_of = 1  # any image size; with 8, the framework pads images to multiples of 8 and crops the features

    def __init__(self, options: ${title}Options, in_channels: int):
        super().__init__()
        width = self.out_channels = options.channels
        self.receptive_radius = 1 + options.layers  # pixels, in each direction, that a code depends on; None: all
        self.first = nn.Conv2d(in_channels, width, 3, padding=1)
        self.rest = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(options.layers))

    def forward(self, image: Tensor) -> Tensor:
        features = self.first(image)
        for layer in self.rest:
            features = features + layer(features.relu())
        return features


def described(options: ${title}Options) -> str:
    """The component in a report."""
    return f"$name {options.layers}x{options.channels}"


@hookimpl
def liif_encoders():
    return Component("$name", $title, ${title}Options, described)
'''

FEATURES = '''\
"""The features '$name'. Describe here what they compute, and where they were published.

This starting point concatenates each code with the average of the codes around it.
"""

import torch
import torch.nn.functional as F
from attrs import frozen
from attrs.validators import in_
from torch import Tensor, nn

from liif_core import Component, LatentField, hookimpl, option


@frozen
class ${title}Options:
    size: int = option("Side of the square of codes that is averaged, an odd number.", 3, check=in_((1, 3, 5, 7)))


class ${title}Field(LatentField):
    """Codes of 2 C channels: the feature, then the average around it."""

    def __init__(self, features: Tensor, size: int):
        self.features = features
        self.size = size
        self.channels = 2 * features.shape[1]

    def dense(self) -> Tensor:
        average = F.avg_pool2d(self.features, self.size, stride=1, padding=self.size // 2, count_include_pad=False)
        return torch.cat([self.features, average], dim=1)


class $title(nn.Module):
    """Features (B, C, h, w) -> a latent field of 2 C channels."""

    def __init__(self, options: ${title}Options, in_channels: int):
        super().__init__()
        self.size = options.size
        self.channels = 2 * in_channels
        self.radius = options.size // 2  # codes, in each direction, that one code of the field is made from

    def forward(self, features: Tensor) -> ${title}Field:
        return ${title}Field(features, self.size)


@hookimpl
def liif_features():
    return Component("$name", $title, ${title}Options)
'''

SAMPLING = '''\
"""The sampling '$name'. Describe here what it computes, and where it was published.

This starting point reads the nearest code and its four neighbors, weighted by their distance.
"""

import torch
from attrs import frozen
from attrs.validators import gt
from torch import nn

from liif_core import Component, Query, Sites, hookimpl, option


@frozen
class ${title}Options:
    sharpness: float = option("How fast the weight of a code decreases with its distance.", 1.0, check=gt(0))


class $title(nn.Module):
    """A query -> its K = 5 codes: their indices, offsets and weights."""

    neighbours = 5
    reach = 1  # codes, in each direction from the nearest one, that a query may read
    steps = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))  # (row, column)

    def __init__(self, options: ${title}Options):
        super().__init__()
        self.sharpness = options.sharpness

    def forward(self, query: Query, grid: tuple[int, int]) -> Sites:
        coord = query.coord  # (B, *Q, 2)
        size = torch.tensor(grid, device=coord.device)
        position = ((coord + 1) * size - 1) / 2  # in codes: 0 is the center of the first one
        steps = torch.tensor(self.steps, device=coord.device).view(5, *[1] * (coord.ndim - 1), 2)
        code = torch.minimum((position.round() + steps).clamp(min=0), size - 1)  # (K, B, *Q, 2)
        offset = 2 * (position - code)  # feature-cell units: one cell is 2 wide
        weight = torch.softmax(-self.sharpness * offset.square().sum(-1), dim=0)
        row, column = code.long().unbind(-1)
        return Sites(row * grid[1] + column, offset, weight)


@hookimpl
def liif_samplings():
    return Component("$name", $title, ${title}Options)
'''

CONDITIONING = '''\
"""The conditioning '$name'. Describe here what it computes, and where it was published.

This starting point computes sines and cosines of the offset from query to code, at doubling frequencies.
"""

import math

import torch
from attrs import frozen
from attrs.validators import ge
from torch import Tensor, nn

from liif_core import Component, Query, Sites, hookimpl, option


@frozen
class ${title}Options:
    frequencies: int = option("Number of frequencies; each is twice the one before.", 3, check=ge(1))


class $title(nn.Module):
    """A query and its codes -> (K, B, *Q, channels), float32: an input of the decoder."""

    scope = "query"  # it depends on the query; "image": on the queried pixel's size alone

    def __init__(self, options: ${title}Options):
        super().__init__()
        self.frequencies = options.frequencies
        self.channels = 4 * options.frequencies

    def forward(self, query: Query, sites: Sites, grid: tuple[int, int]) -> Tensor:
        scale = math.pi * 2.0 ** torch.arange(self.frequencies, device=sites.offset.device)
        angle = (sites.offset.unsqueeze(-1) * scale).flatten(-2)  # (K, B, *Q, 2 * frequencies)
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


@hookimpl
def liif_conditionings():
    return Component("$name", $title, ${title}Options)
'''

DECODER = '''\
"""The decoder '$name'. Describe here what it computes, and where it was published.

In this starting point the conditions scale and shift each latent code, and two linear layers turn it into a color.
"""

from collections.abc import Mapping

import torch
from attrs import frozen
from attrs.validators import ge
from torch import Tensor, nn

from liif_core import Component, LatentField, Maps, Sites, as_rows, blend, gather, hookimpl, option


@frozen
class ${title}Options:
    hidden: int = option("Width of the hidden layers.", 64, check=ge(1))


class $title(nn.Module):
    """Latent codes and conditions -> colors, in [-1, 1] space."""

    needs = frozenset({"coordinate"})  # required conditions; others that the experiment lists are passed too
    num_statistics = 0  # a color does not depend on other queries
    scale_dependent = False  # prepare does not use image_conditions
    radius = 0  # codes, in each direction, that prepare reads around each code

    def __init__(
        self,
        options: ${title}Options,
        in_channels: int,  # channels of a latent code
        out_channels: int,
        conditions: Mapping[str, int],  # condition name -> channels
        neighbours: int,  # K, the number of codes that a query reads
    ):
        super().__init__()
        self.condition_names = tuple(conditions)
        self.code = nn.Linear(in_channels, options.hidden)
        self.condition = nn.Linear(sum(conditions.values()), 2 * options.hidden)
        self.middle = nn.Linear(options.hidden, options.hidden)
        self.last = nn.Linear(options.hidden, out_channels)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)  # so that training starts from the residual image

    def prepare(self, field: LatentField, image_conditions: Mapping[str, Tensor]) -> Maps:
        """Computed once per image: here, the layer that depends on the codes alone."""
        return {"code": as_rows(field.linear(self.code.weight, self.code.bias))}

    def decode(self, maps: Maps, sites: Sites, conditions: Mapping[str, Tensor]) -> Tensor:
        """Computed for every query; returns (B, *Q, out_channels)."""
        code = gather(maps["code"], sites.index)  # (K, B, *Q, hidden)
        given = [conditions[name].expand(*code.shape[:-1], -1) for name in self.condition_names]
        scale, shift = self.condition(torch.cat(given, dim=-1)).chunk(2, dim=-1)
        hidden = self.middle((code * (1 + scale) + shift).relu()).relu()
        return blend(self.last(hidden), sites.weight)


def described(options: ${title}Options) -> str:
    """The component in a report."""
    return f"$name {options.hidden}"


@hookimpl
def liif_decoders():
    return Component("$name", $title, ${title}Options, described)
'''

PARTS: dict[str, str] = {
    "encoder": ENCODER,
    "features": FEATURES,
    "sampling": SAMPLING,
    "conditioning": CONDITIONING,
    "decoder": DECODER,
}
