"""The checks for plugin authors: for each, a plugin that is broken in just that, and good ones that pass them all."""

import pytest
import torch
import torch.nn.functional as F
from parts import (
    GOOD,
    Attention,
    CellDecoder,
    Conditioning,
    Decoder,
    Encoder,
    Features,
    Field,
    GlobalDecoder,
    PassesDecoder,
    Patches,
    Sampling,
    failing,
)
from torch import nn

from liif_core import Sites, as_rows
from liif_core.testing import CHECKS, common
from liif_core.testing.reference import reference_sites


@pytest.mark.parametrize("build", GOOD, ids=lambda build: build.__name__)
def test_good_ones_pass(build):
    assert failing(GOOD[build], build) == {}


# Broken ones: caught by the check that the decorator names, and by no other unless it says so

BROKEN = []


def broken(kind, check, *also):
    def note(build):
        BROKEN.append(pytest.param(kind, check, also, build, id=f"{kind}-{check}-{build.__name__}"))
        return build

    return note


@broken("encoder", "contract")
class NoRadius(Encoder):
    receptive_radius = "all"


@broken("encoder", "contract")
class NotAModule:
    def __init__(self, options, in_channels):
        pass


@broken("encoder", "size")
class TwoRows(Encoder):
    """A single row comes out as two."""

    def forward(self, image):
        return super().forward(image).repeat_interleave(2 if image.shape[2] == 1 else 1, dim=2)


@broken("encoder", "size", "finite")
class Mirrors(Encoder):
    """torch mirrors nothing that is a single pixel wide."""

    def forward(self, image):
        return F.conv2d(F.pad(super().forward(image), (1, 1, 1, 1), mode="reflect"), torch.ones(4, 1, 3, 3), groups=4)

    receptive_radius = 3


@broken("encoder", "channels")
class Miscounts(Encoder):
    out_channels = 5


@broken("encoder", "channels")
class OnlyColor(Encoder):
    def __init__(self, options, in_channels):
        super().__init__(options, 3)


@broken("encoder", "receptive_radius")
class SeesFurther(Encoder):
    receptive_radius = 1


@broken("encoder", "receptive_radius")
class SeesEverything(Attention):
    receptive_radius = 2


@broken("encoder", "receptive_radius")
class Deep(nn.Module):
    """Off by one, where that pixel's part in the result is far below rounding."""

    multiple_of, receptive_radius, out_channels = 1, 29, 8

    def __init__(self, options, in_channels):
        super().__init__()
        widths = [in_channels, *[8] * 30]
        self.layers = nn.Sequential(*(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(widths, widths[1:])))

    def forward(self, image):
        return self.layers(image)


@broken("encoder", "receptive_radius")
class DeepAndNarrow(Deep):
    """Off by one, on a path that a ReLU closes."""

    receptive_radius, out_channels = 80, 2

    def __init__(self, options, in_channels):
        nn.Module.__init__(self)
        self.head = nn.Conv2d(in_channels, 2, 3, padding=1)
        self.layers = nn.ModuleList(nn.Conv2d(2, 2, 3, padding=1) for _ in range(80))

    def forward(self, image):
        features = self.head(image)
        for layer in self.layers:
            features = features + layer(features.relu())
        return features


@broken("encoder", "receptive_radius")
class WiderPatches(Patches):
    receptive_radius = 2


@broken("encoder", "deterministic", "batch", "inference_mode", "state_dict", "receptive_radius")
class AlwaysDrops(Encoder):
    def forward(self, image):
        return F.dropout(super().forward(image), 0.5, training=True)


@broken("encoder", "deterministic", "batch")
class Remembers(Encoder):
    """Keeps what it made of the first batch of each size."""

    def __init__(self, options, in_channels):
        super().__init__(options, in_channels)
        self.mean = {}

    def forward(self, image):
        features = super().forward(image)
        if len(image) == 1 and image.shape[2:] == (7, 10):
            self.mean["last"] = image.mean().item()
        return features + self.mean.get("last", 0.0)


@broken("encoder", "leaves_input")
class InPlace(Encoder):
    def forward(self, image):
        return super().forward(image.clamp_(-0.5, 0.5))


@broken("encoder", "batch")
class Mixes(Encoder):
    def forward(self, image):
        features = super().forward(image)
        return features + 0.5 * features.mean(0, keepdim=True)


@broken("encoder", "float32")
class Doubles(Encoder):
    def forward(self, image):
        return super().forward(image).double()


@broken("encoder", "finite")
class Contrast(Encoder):
    receptive_radius = None

    def forward(self, image):
        features = super().forward(image)
        return features / image.std((1, 2, 3), keepdim=True, unbiased=False)


@broken("encoder", "finite")
class OnePixel(Encoder):
    """The usual spread of a single value is no number."""

    receptive_radius = None

    def forward(self, image):
        return super().forward(image) / (image.mean(1, keepdim=True).std((2, 3), keepdim=True) + 1e-3)


@broken("encoder", "gradients")
class Unused(Encoder):
    def __init__(self, options, in_channels):
        super().__init__(options, in_channels)
        self.spare = nn.Linear(3, 3)


@broken("encoder", "gradients")
class Detached(Encoder):
    def forward(self, image):
        return self.second(self.first(image).relu().detach())


@broken("encoder", "inference_mode")
class Caches(Encoder):
    """What is made under inference_mode cannot take part in training."""

    def __init__(self, options, in_channels):
        super().__init__(options, in_channels)
        self.ones = None

    def forward(self, image):
        if self.ones is None:
            self.ones = torch.ones(1, device=image.device)
        return super().forward(image) * self.ones


@broken("encoder", "inference_mode")
class QuickAndWrong(Encoder):
    def forward(self, image):
        return super().forward(image) * (0.9 if torch.is_inference_mode_enabled() else 1)


@broken("encoder", "state_dict")
class Unregistered(Encoder):
    def __init__(self, options, in_channels):
        super().__init__(options, in_channels)
        self.scale = 1 + torch.rand(()).item()

    def forward(self, image):
        return super().forward(image) * self.scale


@broken("features", "size")
class TwoCodes(Features):
    def forward(self, features):
        codes = self.mix(features)
        return Field(features, codes.repeat_interleave(2 if features.shape[3] == 1 else 1, dim=3))


@broken("features", "field")
class OtherFeatures(Features):
    def forward(self, features):
        return Field(features * 2, self.mix(features))


@broken("features", "linear")
class ForgetsBias(Features):
    def forward(self, features):
        field = super().forward(features)
        field.linear = lambda weight, bias=None: F.conv2d(field.codes, weight[:, :, None, None])
        return field


@broken("features", "radius")
class Narrow(Features):
    radius = 0


@broken("features", "gradients")
class DetachedFeatures(Features):
    def forward(self, features):
        return Field(features, self.mix(features.detach()))


class Altered(Sampling):
    """Good sites, altered."""

    def forward(self, query, grid):
        return Sites(*self.alter(query, grid, super().forward(query, grid)))


@broken("sampling", "shape")
class SmallIndex(Altered):
    def alter(self, query, grid, sites):
        return sites.index.int(), sites.offset, sites.weight


@broken("sampling", "shape")
class OneTooMany(Sampling):
    def forward(self, query, grid):
        return reference_sites(query, grid, 5)


@broken("sampling", "index_range", "offsets", "reach")
class Unclamped(Altered):
    def alter(self, query, grid, sites):
        return torch.where(query.coord[..., 0].abs() > 1, -1, sites.index), sites.offset, sites.weight


@broken("sampling", "reach")
class ShortReach(Sampling):
    reach = 0


@broken("sampling", "weight_sum")
class Loses(Altered):
    def alter(self, query, grid, sites):
        return sites.index, sites.offset, sites.weight * 0.9


@broken("sampling", "weight_sign")
class Sharpens(Altered):
    def alter(self, query, grid, sites):
        return sites.index, sites.offset, 2 * sites.weight - 0.25


@broken("sampling", "offsets")
class CodesAtCorners(Altered):
    def alter(self, query, grid, sites):
        return sites.index, sites.offset + 1, sites.weight


@broken("sampling", "offsets", "differentiable")
class OtherUnits(Altered):
    def alter(self, query, grid, sites):
        return sites.index, sites.offset / torch.tensor(grid), sites.weight


@broken("sampling", "window")
class OtherWindows(Altered):
    def alter(self, query, grid, sites):
        flat = torch.full_like(sites.weight, 0.25)
        return sites.index, sites.offset, sites.weight if query.axes is None else flat


@broken("sampling", "autocast")
class HalfWeights(Altered):
    def alter(self, query, grid, sites):
        distance = sites.offset.detach().square() @ torch.ones(2, 1)
        return sites.index, sites.offset, (-distance.squeeze(-1)).softmax(0)


@broken("sampling", "differentiable")
class DetachedOffsets(Altered):
    def alter(self, query, grid, sites):
        return sites.index, sites.offset.detach(), sites.weight


@broken("conditioning", "width")
class WrongWidth(Conditioning):
    channels = 4


@broken("conditioning", "window")
class OtherWindow(Conditioning):
    def forward(self, query, sites, grid):
        return super().forward(query, sites, grid) + len(query.shape)


@broken("conditioning", "autocast")
class Half(Conditioning):
    def forward(self, query, sites, grid):
        return self.layer(sites.offset.repeat(*[1] * (sites.offset.ndim - 1), 2))


@broken("conditioning", "differentiable")
class DetachedCoordinates(Conditioning):
    def forward(self, query, sites, grid):
        return super().forward(query, Sites(sites.index, sites.offset.detach(), sites.weight), grid)


@broken("conditioning", "finite")
class Root(Conditioning):
    def forward(self, query, sites, grid):
        return super().forward(query, sites, grid) * (1.5 - query.cell.unsqueeze(0)[..., :1]).sqrt()


@broken("decoder", "contract")
class NeedsDepth(Decoder):
    needs = frozenset({"coordinate", "depth"})


@broken("decoder", "contract")
class NoFlag(Decoder):
    pointwise = None


@broken("decoder", "contract")
class PassesOverNothing(PassesDecoder):
    num_statistics = 0


@broken("decoder", "contract")
class NoPasses(PassesDecoder):
    num_statistics = 0


@broken("decoder", "passes")
class Sums(PassesDecoder):
    """Not a mean: windows of two sizes tell."""

    def moment(self, maps, sites, conditions):
        return super().moment(maps, sites, conditions) * sites.index[0, 0].numel()

    def decode(self, maps, sites, conditions):
        count = sites.index[0, 0].numel()
        return super().decode(
            {n: v / count if n in ("mean", "spread") else v for n, v in maps.items()}, sites, conditions
        )


@broken("decoder", "passes")
class OwnSpread(PassesDecoder):
    """Does not use a mean that it is given."""

    def decode(self, maps, sites, conditions):
        return super().decode({name: value for name, value in maps.items() if name != "spread"}, sites, conditions)


@broken("decoder", "contract")
class RadiusMissing(Decoder):
    radius = None


@broken("decoder", "shape")
class AlwaysColor(Decoder):
    def __init__(self, options, in_channels, out_channels, neighbours, conditions):
        super().__init__(options, in_channels, 3, neighbours, conditions)


@broken("decoder", "window")
class KnowsGrids(Decoder):
    def decode(self, maps, sites, conditions):
        return super().decode(maps, sites, conditions) + 0.1 * sites.index.ndim


@broken("decoder", "pointwise")
class Counts(Decoder):
    """A softmax over all queries has this look."""

    def decode(self, maps, sites, conditions):
        return super().decode(maps, sites, conditions) + 0.1 / sites.index[0, 0].numel()


@broken("decoder", "pointwise", "radius")
class SaysPointwise(GlobalDecoder):
    num_statistics = 0


@broken("decoder", "prepare")
class LooksAtCell(CellDecoder):
    scale_dependent = False


@broken("decoder", "prepare")
class MoreThanTensors(Decoder):
    def prepare(self, field, image_conditions):
        return {**super().prepare(field, told), "size": field.dense().shape[-2:]}


@broken("decoder", "stateless")
class KeepsMaps(Decoder):
    def prepare(self, field, image_conditions):
        self.maps = super().prepare(field, told)
        return self.maps

    def decode(self, maps, sites, conditions):
        return super().decode(self.maps, sites, conditions)


@broken("decoder", "radius")
class LooksAround(Decoder):
    def __init__(self, options, in_channels, out_channels, neighbours, conditions):
        super().__init__(options, in_channels, out_channels, neighbours, conditions)
        self.code = nn.Conv2d(in_channels, 16, 3, padding=1)


@broken("decoder", "gradients")
class Unlearning(Decoder):
    def prepare(self, field, image_conditions):
        return {"code": as_rows(self.code(field.dense().detach()))}


@broken("decoder", "finite")
class Directions(Decoder):
    """At a code itself there is no direction."""

    def decode(self, maps, sites, conditions):
        offset = conditions["coordinate"]
        return super().decode(maps, sites, {**conditions, "coordinate": offset / offset.norm(dim=-1, keepdim=True)})


@broken("decoder", "batch")
class FirstOnly(Decoder):
    def decode(self, maps, sites, conditions):
        return super().decode({"code": maps["code"][:1].expand_as(maps["code"])}, sites, conditions)


@pytest.mark.filterwarnings("ignore:std")
@pytest.mark.parametrize("kind, check, also, build", BROKEN)
def test_broken_ones_are_caught(kind, check, also, build):
    found = failing(kind, build)
    assert found.keys() == {check, *also}


def test_every_check_has_a_broken_plugin():
    tried = {next(c for c in CHECKS[kind] if c.__name__ == check) for kind, check, *_ in (p.values for p in BROKEN)}
    tried |= {*common.OPTIONS, common.cuda, common.bf16}  # in test_testing.py
    assert not {f"{kind} {check.__name__}" for kind, checks in CHECKS.items() for check in checks if check not in tried}
