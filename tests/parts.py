"""Small components of every kind that keep their contracts, and the failures of the checks of ``liif_core.testing``."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from liif_core import (
    AxisSites,
    Component,
    ContinuousImage,
    ContinuousModel,
    LatentField,
    NoOptions,
    Query,
    Sites,
    TilePlacement,
    as_rows,
    bicubic,
    blend,
    gather,
)
from liif_core.testing import CHECKS
from liif_core.testing.conditioning import ConditioningCase
from liif_core.testing.decoder_case import DecoderCase
from liif_core.testing.degradation import DegradationCase
from liif_core.testing.encoder import EncoderCase
from liif_core.testing.features import FeaturesCase
from liif_core.testing.reference import reference_sites
from liif_core.testing.running import failures
from liif_core.testing.sampling import SamplingCase
from liif_core.testing.whole_model import ModelCase

CASES = {
    "encoder": EncoderCase,
    "features": FeaturesCase,
    "sampling": SamplingCase,
    "conditioning": ConditioningCase,
    "decoder": DecoderCase,
    "model": ModelCase,
    "degradation": DegradationCase,
}


class Encoder(nn.Module):
    multiple_of, receptive_radius, out_channels = 1, 2, 4

    def __init__(self, options, in_channels):
        super().__init__()
        self.first = nn.Conv2d(in_channels, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, image):
        return self.second(self.first(image).relu())


class Patches(nn.Module):
    """Works on squares of 4 x 4 pixels: a code sees its own square, up to three pixels away."""

    multiple_of, receptive_radius, out_channels = 4, 3, 6

    def __init__(self, options, in_channels):
        super().__init__()
        self.inner = nn.Conv2d(in_channels * 16, 6 * 16, 1)

    def forward(self, image):
        return F.pixel_shuffle(self.inner(F.pixel_unshuffle(image, 4)), 4)


class Attention(Encoder):
    """Sees the whole image."""

    receptive_radius = None

    def forward(self, image):
        features = super().forward(image)
        return features * features.mean((2, 3), keepdim=True).sigmoid()


class Halves(nn.Module):
    """A code for every 2 x 2 pixels, made of those and one more row and column on every side."""

    multiple_of, receptive_radius, out_channels = 2, 1, 5

    def __init__(self, options, in_channels):
        super().__init__()
        self.layer = nn.Conv2d(in_channels, 5, 4, stride=2, padding=1)

    def forward(self, image):
        return self.layer(image)


class Doubled(Encoder):
    """Four codes for every pixel."""

    def forward(self, image):
        return super().forward(image).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


class Field(LatentField):
    def __init__(self, features, codes):
        self.features, self.codes, self.channels = features, codes, codes.shape[1]

    def dense(self):
        return self.codes


class Features(nn.Module):
    radius, channels = 1, 3

    def __init__(self, options, in_channels):
        super().__init__()
        self.mix = nn.Conv2d(in_channels, 3, 3, padding=1)

    def forward(self, features):
        return Field(features, self.mix(features))


class FineFeatures(Features):
    """Four codes for every code of the encoder, on a grid of their own."""

    class Fine(Field):
        @property
        def grid(self):
            return self.codes.shape[-2], self.codes.shape[-1]

    def forward(self, features):
        return self.Fine(features, F.interpolate(self.mix(features), scale_factor=2))


class Sampling(nn.Module):
    neighbours, reach = 4, 1

    def __init__(self, options):
        super().__init__()

    def forward(self, query, grid):
        return reference_sites(query, grid, self.neighbours)


class GridSampling(Sampling):
    """The nearest code, also for the rows and the columns of a grid."""

    neighbours, reach = 1, 0

    def forward(self, query, grid):
        row, column = (self._index(place, codes) for place, codes in zip(query.places, grid))
        row, column = torch.broadcast_tensors(row, column)
        size = torch.tensor(grid)
        offset = (query.coord - ((2 * torch.stack([row, column], dim=-1) + 1) / size - 1)) * size
        index = (row * grid[1] + column).unsqueeze(0)
        return Sites(index, offset.unsqueeze(0), torch.ones_like(index, dtype=torch.float32))

    def _index(self, place, codes):
        return ((place.detach() + 1) / 2 * codes).floor().long().clamp(0, codes - 1)

    def axes(self, query, grid):
        return tuple(self._axis(axis, codes) for axis, codes in zip(query.axes, grid))

    def _axis(self, axis, codes):
        index = self._index(axis, codes)
        return AxisSites(index.unsqueeze(0), ((axis - ((2 * index + 1) / codes - 1)) * codes).unsqueeze(0))

    def weights(self, rows, columns):
        return torch.ones(1, rows.index.shape[1], columns.index.shape[1])


class Offset(nn.Module):
    channels, scope = 2, "offset"

    def __init__(self, options):
        super().__init__()

    def forward(self, query, sites, grid):
        return sites.offset


class Conditioning(nn.Module):
    channels, scope = 3, "query"

    def __init__(self, options):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, query, sites, grid):
        cell = (query.cell * torch.tensor(grid, device=query.cell.device)).unsqueeze(0).expand_as(sites.offset)
        with torch.autocast(cell.device.type, enabled=False):
            return torch.sin(self.layer(torch.cat([sites.offset, cell], dim=-1)))


class CellCondition(nn.Module):
    channels, scope = 2, "image"

    def __init__(self, options):
        super().__init__()

    def forward(self, query, sites, grid):
        return (query.cell * query.cell.new_tensor(grid)).unsqueeze(0)


class Decoder(nn.Module):
    needs = frozenset({"coordinate", "cell"})
    num_statistics, scale_dependent, radius = 0, False, 0

    def __init__(self, options, in_channels, out_channels, neighbours, conditions):
        super().__init__()
        self.code = nn.Conv2d(in_channels, 16, 1)
        self.conditions = nn.Linear(4, 16)
        self.last = nn.Linear(16, out_channels)

    def prepare(self, field, image_conditions):
        return {"code": as_rows(self.code(field.dense()))}

    def decode(self, maps, sites, conditions):
        hidden = gather(maps["code"], sites.index)
        given = [conditions[name].expand(*hidden.shape[:-1], 2) for name in ("coordinate", "cell")]
        hidden = hidden + self.conditions(torch.cat(given, dim=-1))
        return blend(self.last(hidden.relu()), sites.weight)


class BlockDecoder(Decoder):
    """Also decodes codes at blocks of positions."""

    block_positions = 100

    def decode_block(self, maps, rows, columns, conditions):
        y, x = rows[None, :, None, :, None], columns[None, None, :, None, :]
        offset = torch.stack(torch.broadcast_tensors(y, x), dim=-1)
        cell = conditions["cell"].view(-1, 1, 1, 1, 1, 2)
        given = torch.cat(torch.broadcast_tensors(offset, cell), dim=-1)
        return self.last((maps["code"][:, :, :, None, None] + self.conditions(given)).relu())


class WholeSetDecoder(Decoder):
    """A color depends on all queries in a way that cannot be computed in chunks."""

    num_statistics = None

    def decode(self, maps, sites, conditions):
        colors = super().decode(maps, sites, conditions)
        return colors - colors.mean(tuple(range(1, colors.ndim - 1)), keepdim=True)


class StatisticsDecoder(Decoder):
    """A color depends on two means over all queries: the mean color, then the mean squared distance from it."""

    num_statistics = 2

    def partial_statistic(self, maps, sites, conditions, known):
        colors = super().decode(maps, sites, conditions).flatten(1, -2)
        return (colors - known[0].unsqueeze(1)).square().mean(1) if known else colors.mean(1)

    def with_statistic(self, known, statistic):
        return (*known, statistic)

    def decode(self, maps, sites, conditions, known=()):
        while len(known) < 2:
            known = self.with_statistic(known, self.partial_statistic(maps, sites, conditions, known))
        colors = super().decode(maps, sites, conditions)
        mean, spread = (value.reshape(len(colors), *[1] * (colors.ndim - 2), -1) for value in known)
        return (colors - mean) / (spread + 0.1)


class ImageDecoder(Decoder):
    """Samples the image, with everything around each pixel."""

    radius = None

    def __init__(self, options, in_channels, out_channels, neighbours, conditions):
        super().__init__(options, in_channels, out_channels, neighbours, conditions)
        self.pixels = nn.Conv2d(out_channels, 16, 1)

    def prepare(self, field, image_conditions):
        image = F.interpolate(field.image - field.image.mean((2, 3), keepdim=True), field.grid)
        return {"code": as_rows(self.code(field.dense()) + self.pixels(image))}


class CellDecoder(Decoder):
    """Prepares for one cell."""

    scale_dependent = True

    def prepare(self, field, image_conditions):
        return {"code": as_rows(self.code(field.dense()) * (1 + image_conditions["cell"][:, :1, None, None]))}


class ModelImage(ContinuousImage):
    def __init__(self, codes, tile, num_statistics):
        self.codes, self.tile, self.size, self.num_statistics = codes, tile, tile.size, num_statistics
        self.channels, self.device = codes.shape[1], codes.device

    def query(self, where, cell=None, statistics=()):
        if not isinstance(where, Query):
            if cell is None:
                raise ValueError("cell: needed with coordinates")
            where = Query.points(where, cell)
        return self.colors(where)

    def colors(self, query):
        y, x = query.places
        (rows, columns), own = self.size, self.codes.shape[-2:]
        row = ((y.float() + 1) / 2 * rows).floor().long().clamp(0, rows - 1) - self.tile.top
        column = ((x.float() + 1) / 2 * columns).floor().long().clamp(0, columns - 1) - self.tile.left
        index = row.clamp(0, own[0] - 1) * own[1] + column.clamp(0, own[1] - 1)
        area = query.cell.prod(-1, keepdim=True)
        return gather(as_rows(self.codes), index.unsqueeze(0))[0] * (1 + 0.1 * area)


class Model(ContinuousModel):
    """A convolution, and the nearest of its codes."""

    multiple_of, halo, num_statistics, image_class = 1, 2, 0, ModelImage

    def __init__(self, options, channels):
        super().__init__()
        self.channels = channels
        self.layer = nn.Conv2d(channels, channels, 3, padding=1)

    def encode(self, image, placement=None):
        if image.ndim != 4 or image.shape[1] != self.channels or 0 in image.shape:
            raise ValueError(f"image: expected (B, {self.channels}, h, w), got {tuple(image.shape)}")
        tile = placement or TilePlacement((image.shape[-2], image.shape[-1]), 0, 0)
        return self.image_class(self.codes(image), tile, self.num_statistics)

    def codes(self, image):
        return self.layer(image).float()


class StatisticsImage(ModelImage):
    """Colors minus their mean over all queries."""

    def partial_statistic(self, query, statistics):
        return self.colors(query).flatten(1, -2).mean(1)

    def query(self, where, cell=None, statistics=()):
        colors = super().query(where, cell)
        mean = statistics[0] if statistics else colors.flatten(1, -2).mean(1)
        return colors - mean.view(len(mean), *[1] * (colors.ndim - 2), -1)


class StatisticsModel(Model):
    num_statistics, image_class = 1, StatisticsImage


class WholeImageModel(Model):
    """Sees the whole image."""

    halo = None

    def codes(self, image):
        codes = super().codes(image)
        return codes - codes.mean((2, 3), keepdim=True)


class WholeSetImage(ModelImage):
    def query(self, where, cell=None, statistics=()):
        colors = super().query(where, cell)
        return colors - colors.amax(tuple(range(1, colors.ndim - 1)), keepdim=True)


class WholeSetModel(Model):
    num_statistics, image_class = None, WholeSetImage


class Degradation:
    """Bicubic downscaling, a random change of brightness, and noise."""

    def __init__(self, options):
        pass

    def __call__(self, image, size, rng):
        small = bicubic(image, size).astype(float) + rng.uniform(-10, 10)
        return (small + rng.normal(0, 3, small.shape)).round().clip(0, 255).astype(np.uint8)


GOOD = {
    Encoder: "encoder",
    Patches: "encoder",
    Attention: "encoder",
    Halves: "encoder",
    Doubled: "encoder",
    Features: "features",
    FineFeatures: "features",
    Sampling: "sampling",
    GridSampling: "sampling",
    Offset: "conditioning",
    Conditioning: "conditioning",
    CellCondition: "conditioning",
    Decoder: "decoder",
    BlockDecoder: "decoder",
    WholeSetDecoder: "decoder",
    StatisticsDecoder: "decoder",
    CellDecoder: "decoder",
    ImageDecoder: "decoder",
    Model: "model",
    StatisticsModel: "model",
    WholeImageModel: "model",
    WholeSetModel: "model",
    Degradation: "degradation",
}


def failing(kind, build, options=NoOptions, given=None):
    """The error of each check that fails, by its name."""
    return failures(CASES[kind](Component("tried", build, options), given), CHECKS[kind])
