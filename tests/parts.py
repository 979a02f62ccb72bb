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
    channels = 3

    def __init__(self, options):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, query, sites, grid):
        cell = (query.cell * torch.tensor(grid, device=query.cell.device)).unsqueeze(0).expand_as(sites.offset)
        with torch.autocast(cell.device.type, enabled=False):
            return torch.sin(self.layer(torch.cat([sites.offset, cell], dim=-1)))


class Decoder(nn.Module):
    needs = frozenset({"coordinate", "cell"})
    pointwise, scale_dependent, radius = True, False, 0

    def __init__(self, options, in_channels, out_channels, neighbours, conditions):
        super().__init__()
        self.code = nn.Conv2d(in_channels, 16, 1)
        self.told = nn.Linear(4, 16)
        self.last = nn.Linear(16, out_channels)

    def prepare(self, field, image_conditions):
        return {"code": as_rows(self.code(field.dense()))}

    def decode(self, maps, sites, conditions):
        hidden = gather(maps["code"], sites.index)
        told = [conditions[name].expand(*hidden.shape[:-1], 2) for name in ("coordinate", "cell")]
        hidden = hidden + self.condition_names(torch.cat(told, dim=-1))
        return blend(self.last(hidden.relu()), sites.weight)


class GlobalDecoder(Decoder):
    """A query's color depends on the others, in a way that only it knows."""

    pointwise = False

    def decode(self, maps, sites, conditions):
        colors = super().decode(maps, sites, conditions)
        return colors - colors.mean(tuple(range(1, colors.ndim - 1)), keepdim=True)


class PassesDecoder(Decoder):
    """A query's color depends on two means over all: of the colors, and then of how far they are from that."""

    pointwise, num_statistics = False, 2

    def moment(self, maps, sites, conditions):
        colors = super().decode(maps, sites, conditions).flatten(1, -2)
        return (colors - maps["mean"].unsqueeze(1)).square().mean(1) if "mean" in maps else colors.mean(1)

    def knowing(self, maps, mean):
        return {**maps, "spread" if "mean" in maps else "mean": mean}

    def decode(self, maps, sites, conditions):
        while "spread" not in maps:
            maps = self.knowing(maps, self.moment(maps, sites, conditions))
        colors = super().decode(maps, sites, conditions)
        mean, spread = (maps[n].reshape(len(colors), *[1] * (colors.ndim - 2), -1) for n in ("mean", "spread"))
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
    GlobalDecoder: "decoder",
    PassesDecoder: "decoder",
    CellDecoder: "decoder",
}


def failing(kind, build, options=NoOptions, given=None):
    """What each check that fails says, by its name."""
    return failures(CASES[kind](Component("tried", build, options), given), CHECKS[kind])
