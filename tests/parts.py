"""Small parts of every kind that keep their contracts, and what the checks of ``liif_core.testing`` say of a part."""

import torch
import torch.nn.functional as F
from torch import nn

from liif_core import Component, LatentField, NoOptions, as_rows, blend, gather
from liif_core.testing import CHECKS
from liif_core.testing.conditioning import ConditioningCase
from liif_core.testing.decoder import DecoderCase
from liif_core.testing.encoder import EncoderCase
from liif_core.testing.features import FeaturesCase
from liif_core.testing.reference import reference_sites
from liif_core.testing.running import failures
from liif_core.testing.sampling import SamplingCase

CASES = {
    "encoder": EncoderCase,
    "features": FeaturesCase,
    "sampling": SamplingCase,
    "conditioning": ConditioningCase,
    "decoder": DecoderCase,
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
    """Works on squares of four pixels, so a code sees what is in its own: up to three pixels away."""

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


class Sampling(nn.Module):
    neighbours, reach = 4, 1

    def __init__(self, options):
        super().__init__()

    def forward(self, query, grid):
        return reference_sites(query, grid, self.neighbours)


class Conditioning(nn.Module):
    channels, scope = 3, "query"

    def __init__(self, options):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, query, sites, grid):
        cell = (query.cell * torch.tensor(grid, device=query.cell.device)).unsqueeze(0).expand_as(sites.offset)
        with torch.autocast(cell.device.type, enabled=False):
            return torch.sin(self.layer(torch.cat([sites.offset, cell], dim=-1)))


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


class CellDecoder(Decoder):
    """Prepares for one cell."""

    scale_dependent = True

    def prepare(self, field, image_conditions):
        return {"code": as_rows(self.code(field.dense()) * (1 + image_conditions["cell"][:, :1, None, None]))}


GOOD = {
    Encoder: "encoder",
    Patches: "encoder",
    Attention: "encoder",
    Features: "features",
    Sampling: "sampling",
    Conditioning: "conditioning",
    Decoder: "decoder",
    WholeSetDecoder: "decoder",
    StatisticsDecoder: "decoder",
    CellDecoder: "decoder",
}


def failing(kind, build, options=NoOptions, given=None):
    """What each check that fails says, by its name."""
    return failures(CASES[kind](Component("tried", build, options), given), CHECKS[kind])
