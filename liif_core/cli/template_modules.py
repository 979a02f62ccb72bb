"""The working module that ``liif new-plugin`` starts each kind with; see ``liif_core.cli.templates``."""

from liif_core.registry.components import Kind

ENCODER = '''\
"""The encoder '$name': say here what it is, and where it was published."""

from attrs import frozen
from attrs.validators import ge
from torch import Tensor, nn

from liif_core import Component, hookimpl, option


@frozen
class ${title}Options:
    channels: int = option("Channels of every layer, and of the output.", 32, check=ge(1))
    layers: int = option("Convolutions after the first.", 3, check=ge(0))


class $title(nn.Module):
    """Image (B, in_channels, h, w) in [-1, 1] -> features (B, channels, h, w): a code for each pixel."""

    multiple_of = 1  # any size will do; 8 would have the framework pad images to multiples of 8, and crop

    def __init__(self, options: ${title}Options, in_channels: int):
        super().__init__()
        width = self.out_channels = options.channels
        self.receptive_radius = 1 + options.layers  # how many pixels away a code can see; None: the whole image
        self.first = nn.Conv2d(in_channels, width, 3, padding=1)
        self.rest = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(options.layers))

    def forward(self, image: Tensor) -> Tensor:
        features = self.first(image)
        for layer in self.rest:
            features = features + layer(features.relu())
        return features


@hookimpl
def liif_encoders():
    return Component("$name", $title, ${title}Options)
'''

FEATURES = '''\
"""The features '$name': say here what they are, and where they were published.

To start from: each code is joined with the average of the codes around it.
"""

import torch
import torch.nn.functional as F
from attrs import frozen
from attrs.validators import in_
from torch import Tensor, nn

from liif_core import Component, LatentField, hookimpl, option


@frozen
class ${title}Options:
    size: int = option("Side of the square of codes that are averaged: odd.", 3, check=in_((1, 3, 5, 7)))


class ${title}Field(LatentField):
    """Codes of twice the channels: the feature, then the average."""

    def __init__(self, features: Tensor, size: int):
        self.features = features
        self.size = size
        self.channels = 2 * features.shape[1]

    def dense(self) -> Tensor:
        average = F.avg_pool2d(self.features, self.size, stride=1, padding=self.size // 2, count_include_pad=False)
        return torch.cat([self.features, average], dim=1)


class $title(nn.Module):
    """Features (B, C, h, w) -> a field of 2 C channels."""

    def __init__(self, options: ${title}Options, in_channels: int):
        super().__init__()
        self.size = options.size
        self.channels = 2 * in_channels
        self.radius = options.size // 2  # how many codes away one code of the field looks

    def forward(self, features: Tensor) -> ${title}Field:
        return ${title}Field(features, self.size)


@hookimpl
def liif_features():
    return Component("$name", $title, ${title}Options)
'''

SAMPLING = '''\
"""The sampling '$name': say here what it is, and where it was published.

To start from: the nearest code and the four beside it, each weighted by how near it is.
"""

import torch
from attrs import frozen
from attrs.validators import gt
from torch import nn

from liif_core import Component, Query, Sites, hookimpl, option


@frozen
class ${title}Options:
    sharpness: float = option("How fast the weight of a code falls with its distance.", 1.0, check=gt(0))


class $title(nn.Module):
    """A query -> the K = 5 codes it reads, how far it is from each, and with what weight."""

    neighbours = 5
    reach = 1  # how many codes away from the nearest it reads
    steps = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))  # (row, column)

    def __init__(self, options: ${title}Options):
        super().__init__()
        self.sharpness = options.sharpness

    def forward(self, query: Query, grid: tuple[int, int]) -> Sites:
        coord = query.coord  # (B, *Q, 2)
        size = torch.tensor(grid, device=coord.device)
        position = ((coord + 1) * size - 1) / 2  # counted in codes, with fractions between them
        steps = torch.tensor(self.steps, device=coord.device).view(5, *[1] * (coord.ndim - 1), 2)
        code = torch.minimum((position.round() + steps).clamp(min=0), size - 1)  # (K, B, *Q, 2)
        offset = 2 * (position - code)  # in feature-cell units one cell is 2
        weight = torch.softmax(-self.sharpness * offset.square().sum(-1), dim=0)
        row, column = code.long().unbind(-1)
        return Sites(row * grid[1] + column, offset, weight)


@hookimpl
def liif_samplings():
    return Component("$name", $title, ${title}Options)
'''

CONDITIONING = '''\
"""The conditioning '$name': say here what it is, and where it was published.

To start from: sines and cosines of the query's offset from the code, at doubling frequencies.
"""

import math

import torch
from attrs import frozen
from attrs.validators import ge
from torch import Tensor, nn

from liif_core import Component, Query, Sites, hookimpl, option


@frozen
class ${title}Options:
    frequencies: int = option("How many frequencies, each twice the one before.", 3, check=ge(1))


class $title(nn.Module):
    """A query -> (K, B, *Q, channels), float32: what the decoder is told of it, besides the code."""

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
"""The decoder '$name': say here what it is, and where it was published.

To start from: the conditions scale and shift each latent code, and one more layer makes colors of it.
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
    """Latent codes and conditions -> colors."""

    needs = frozenset({"coordinate"})  # conditions it cannot do without; it is given every one that is declared
    num_statistics = 0  # a query's color does not depend on the other queries
    scale_dependent = False  # prepare looks at the codes alone, and not at what is told of the whole image
    radius = 0  # nor, around each code, at others

    def __init__(
        self,
        options: ${title}Options,
        in_channels: int,  # of a code
        out_channels: int,
        conditions: Mapping[str, int],  # name -> width
        neighbours: int,  # K: how many codes a query reads
    ):
        super().__init__()
        self.condition_names = tuple(conditions)
        self.code = nn.Linear(in_channels, options.hidden)
        self.condition = nn.Linear(sum(conditions.values()), 2 * options.hidden)
        self.middle = nn.Linear(options.hidden, options.hidden)
        self.last = nn.Linear(options.hidden, out_channels)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)  # with a residual, training starts from it

    def prepare(self, field: LatentField, image_conditions: Mapping[str, Tensor]) -> Maps:
        """What is needed of every code, once per image: here the layer that sees nothing else."""
        return {"code": as_rows(field.linear(self.code.weight, self.code.bias))}

    def decode(self, maps: Maps, sites: Sites, conditions: Mapping[str, Tensor]) -> Tensor:
        """What is left to do for every query; (B, *Q, out_channels)."""
        code = gather(maps["code"], sites.index)  # (K, B, *Q, hidden)
        told = [conditions[name].expand(*code.shape[:-1], -1) for name in self.condition_names]
        scale, shift = self.condition(torch.cat(told, dim=-1)).chunk(2, dim=-1)
        hidden = self.middle((code * (1 + scale) + shift).relu()).relu()
        return blend(self.last(hidden), sites.weight)


@hookimpl
def liif_decoders():
    return Component("$name", $title, ${title}Options)
'''

MODULES: dict[Kind, str] = {
    "encoder": ENCODER,
    "features": FEATURES,
    "sampling": SAMPLING,
    "conditioning": CONDITIONING,
    "decoder": DECODER,
}
