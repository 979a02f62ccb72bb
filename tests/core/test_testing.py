"""The checks for plugin authors: for each, a plugin that is broken in just that, and good ones that pass them all."""

import attrs
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from liif_core import Component, LatentField, NoOptions, Sites, UserError, as_rows, blend, gather, option
from liif_core.testing import (
    CHECKS,
    ConditioningContract,
    DecoderContract,
    EncoderContract,
    FeaturesContract,
    SamplingContract,
    check_conditioning,
    check_decoder,
    check_encoder,
    check_features,
    check_options,
    check_sampling,
    common,
)
from liif_core.testing.conditioning import ConditioningCase
from liif_core.testing.decoder import DecoderCase
from liif_core.testing.encoder import EncoderCase
from liif_core.testing.features import FeaturesCase
from liif_core.testing.plain import plain_sites
from liif_core.testing.running import failures
from liif_core.testing.sampling import SamplingCase

CASES = {
    "encoder": EncoderCase,
    "features": FeaturesCase,
    "sampling": SamplingCase,
    "conditioning": ConditioningCase,
    "decoder": DecoderCase,
}

# Good ones


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
        return plain_sites(query, grid, self.neighbours)


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

    def prepare(self, field, cell):
        return {"code": as_rows(self.code(field.dense()))}

    def decode(self, maps, sites, conditions):
        hidden = gather(maps["code"], sites.index)
        told = [conditions[name].expand(*hidden.shape[:-1], 2) for name in ("coordinate", "cell")]
        hidden = hidden + self.told(torch.cat(told, dim=-1))
        return blend(self.last(hidden.relu()), sites.weight)


class SetDecoder(Decoder):
    """A query's colour depends on the others."""

    pointwise = False

    def decode(self, maps, sites, conditions):
        colours = super().decode(maps, sites, conditions)
        return colours - colours.mean(tuple(range(1, colours.ndim - 1)), keepdim=True)


class CellDecoder(Decoder):
    """Prepares for one cell."""

    scale_dependent = True

    def prepare(self, field, cell):
        cell = cell.reshape(len(cell), -1)
        return {"code": as_rows(self.code(field.dense()) * (1 + cell[:, :1, None, None]))}


GOOD = {
    Encoder: "encoder",
    Patches: "encoder",
    Attention: "encoder",
    Features: "features",
    Sampling: "sampling",
    Conditioning: "conditioning",
    Decoder: "decoder",
    SetDecoder: "decoder",
    CellDecoder: "decoder",
}


def failing(kind, build, options=NoOptions, given=None):
    return failures(CASES[kind](Component("tried", build, options), given), CHECKS[kind])


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
class OnlyColour(Encoder):
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
        return plain_sites(query, grid, 5)


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
class RadiusMissing(Decoder):
    radius = None


@broken("decoder", "shape")
class AlwaysColour(Decoder):
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
class SaysPointwise(SetDecoder):
    pointwise = True


@broken("decoder", "prepare")
class LooksAtCell(CellDecoder):
    scale_dependent = False


@broken("decoder", "stateless")
class KeepsMaps(Decoder):
    def prepare(self, field, cell):
        self.maps = super().prepare(field, cell)
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
    def prepare(self, field, cell):
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


@attrs.define
class Changing:
    size: int = option("Side.", 3)


@attrs.frozen
class Silent:
    size: int = attrs.field(default=3)


@attrs.frozen
class Required:
    size: int = option("Side.")


@attrs.frozen
class Cleared:
    """None cannot be said in TOML, so a default that is not None comes back in its place."""

    size: int | None = option("Side.", 3)


@attrs.frozen
class Endless:
    """Infinity is TOML, and no number that an experiment may have."""

    scale: float = option("Scale.", float("inf"))


@attrs.frozen
class Good:
    size: int | None = option("Side.", None)
    label: str = option("Any text.", 'a "b" \\ \n é')
    rates: tuple[float, ...] = option("Rates.", (1.0, 1e-20))


class NotAttrs:
    pass


@pytest.mark.parametrize(
    "cls, given, check",
    [
        (Changing, None, "options_frozen"),
        (NotAttrs, NotAttrs(), "options_frozen"),
        (Silent, None, "options_help"),
        (Required, {"size": 3}, "options_defaults"),
        (Cleared, Cleared(None), "options_toml"),
        (Endless, None, "options_toml"),
    ],
)
def test_broken_options_are_caught(cls, given, check):
    assert failing("sampling", Sampling, cls, given).keys() == {check}
    with pytest.raises(AssertionError, match=rf"'{cls.__name__}' does not keep its contract:\n  {check}: ") as caught:
        check_options(cls, given)
    assert str(caught.value).count("\n") == 1


def test_defaults_that_cannot_be_built():
    def build(options):
        if options.size is None:
            raise ValueError("size: needed")
        return Sampling(options)

    assert failing("sampling", build, Good, {"size": 1}).keys() == {"options_defaults"}


def test_good_options_pass():
    check_options(Good)
    check_options(NoOptions)
    check_options(Required, {"size": 3}, expected_failures={"options_defaults": "there is no usual size"})


def test_every_check_has_a_broken_plugin():
    tried = {next(c for c in CHECKS[kind] if c.__name__ == check) for kind, check, *_ in (p.values for p in BROKEN)}
    tried |= {*common.OPTIONS, common.cuda, common.bf16}  # above and below
    assert not {f"{kind} {check.__name__}" for kind, checks in CHECKS.items() for check in checks if check not in tried}


# With a GPU


class StaysOnTheCPU(Encoder):
    def forward(self, image):
        return super().forward(image) + torch.ones(4, 1, 1)


class OneType(Encoder):
    """Writes into a tensor of the type it expected."""

    def forward(self, image):
        features = super().forward(image)
        place = torch.zeros(features.shape, dtype=torch.int64, device=image.device)
        return features + torch.zeros(features.shape, device=image.device).scatter(0, place, features).mean() * 0


@pytest.mark.gpu
def test_on_a_gpu(gpu):
    assert failing("encoder", StaysOnTheCPU).keys() == {"cuda", "bf16"}
    assert failing("encoder", OneType).keys() == {"bf16"}


def test_half_precision(monkeypatch):
    """The same check, with the CPU in the GPU's place."""
    monkeypatch.setattr(common, "_gpu", lambda: torch.device("cpu"))
    assert failing("encoder", OneType).keys() == {"bf16"}
    for build, kind in GOOD.items():
        assert failing(kind, build) == {}


# Running them


def component(build, name="tried"):
    return Component(name, build)


def test_one_call():
    check_encoder(component(Encoder))
    check_features(component(Features), in_channels=2)
    check_sampling(component(Sampling))
    check_conditioning(component(Conditioning))
    check_decoder(component(Decoder), out_channels=4, neighbours=2, in_channels=3)
    check_encoder("edsr", {"blocks": 1, "channels": 4}, in_channels=1)
    check_encoder("liif-core:edsr", {"blocks": 1, "channels": 4})


def test_a_failure_names_component_check_and_reason():
    with pytest.raises(AssertionError) as caught:
        check_encoder(component(AlwaysDrops, "leaky"))
    first, *lines = str(caught.value).splitlines()
    assert first == "encoder 'leaky' does not keep its contract:"
    assert {line.split(":")[0].strip() for line in lines} == {
        "deterministic",
        "batch",
        "inference_mode",
        "state_dict",
        "receptive_radius",
    }
    assert "deterministic: the same input again: features differs by up to " in str(caught.value)


def test_errors_of_the_plugin_are_reasons_too():
    with pytest.raises(AssertionError, match="finite: RuntimeError: .*pad.*\n*.*") as caught:
        check_encoder(component(Mirrors))
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_expected_failures():
    check_encoder(component(Contrast), expected_failures={"finite": "flat images are not for it"})
    check_encoder(component(NoRadius), expected_failures={"contract": "why", "finite": "not tried, after that"})
    with pytest.raises(AssertionError, match=r"finite: expected to fail \(why\), and passes"):
        check_encoder(component(Encoder), expected_failures={"finite": "why"})
    with pytest.raises(ValueError, match=r"no check is named 'finit' \(did you mean 'finite'\?\)"):
        check_encoder(component(Encoder), expected_failures={"finit": "why"})


def test_bad_use_is_said():
    with pytest.raises(ValueError, match="no encoder is named 'edrs'"):
        check_encoder("edrs")
    with pytest.raises(AssertionError, match="contract: UserError: encoder options: chanels: unknown key"):
        check_encoder("edsr", {"chanels": 4}, expected_failures={"options_toml": "so it cannot be read either"})


class TestEncoder(EncoderContract):
    component = component(Encoder)
    in_channels = 2


class TestFeatures(FeaturesContract):
    component = component(Features)


class TestSampling(SamplingContract):
    component = component(Sampling)


class TestConditioning(ConditioningContract):
    component = component(Conditioning)


class TestDecoder(DecoderContract):
    component = component(Decoder)
    neighbours = 9
    conditions = {"cell": 2, "depth": 5, "coordinate": 2}


class TestExpected(EncoderContract):
    component = component(Contrast)
    expected_failures = {"finite": "flat images are not for it"}


def test_what_the_classes_do():
    class Wrong(EncoderContract):
        component = component(Contrast)

    class Passes(EncoderContract):
        component = component(Encoder)
        expected_failures = {"size": "why"}

    with pytest.raises(AssertionError, match="finite: features is not finite for .*\npromised: Finite in, finite out"):
        Wrong().test_finite()
    Wrong().test_size()
    with pytest.raises(pytest.xfail.Exception, match="flat images are not for it"):
        TestExpected().test_finite()
    with pytest.raises(AssertionError, match=r"size: expected to fail \(why\), and passes"):
        Passes().test_size()
    if not torch.cuda.is_available():
        with pytest.raises(pytest.skip.Exception, match="no CUDA device"):
            Wrong().test_cuda()
    with pytest.raises(ValueError, match="no check is named 'sise'"):

        class Misspelt(EncoderContract):
            expected_failures = {"sise": "why"}


def test_every_check_says_what_is_promised():
    for checks in CHECKS.values():
        names = [check.__name__ for check in checks]
        assert len(set(names)) == len(names)
        assert all(check.__doc__ for check in checks)
