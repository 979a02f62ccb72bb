"""The checks for plugin authors: options, half precision, and the ways to run them."""

import attrs
import pytest
import torch
from parts import GOOD, Conditioning, Decoder, Degradation, Encoder, Features, Model, Sampling, failing
from torch import nn
from torch.nn import functional as F

from liif_core import Component, NoOptions, as_rows, blend, gather, option
from liif_core.testing import (
    CHECKS,
    ConditioningContract,
    DecoderContract,
    DegradationContract,
    EncoderContract,
    FeaturesContract,
    ModelContract,
    SamplingContract,
    check_conditioning,
    check_decoder,
    check_degradation,
    check_encoder,
    check_features,
    check_model,
    check_options,
    check_sampling,
    common,
)


class AlwaysDrops(Encoder):
    def forward(self, image):
        return F.dropout(super().forward(image), 0.5, training=True)


class Contrast(Encoder):
    """Finite only where the image is not flat."""

    receptive_radius = None

    def forward(self, image):
        return super().forward(image) / image.std((1, 2, 3), keepdim=True, unbiased=False)


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
    """TOML has no None: reading gives the default, which is another value."""

    size: int | None = option("Side.", 3)


@attrs.frozen
class Endless:
    """TOML has infinity, but experiments refuse it."""

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
    with pytest.raises(AssertionError, match=rf"'{cls.__name__}' breaks its contract:\n  {check}: ") as caught:
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
    check_options(Required, {"size": 3}, expected_failures={"options_defaults": "no size is usual"})


# With a GPU


class StaysOnTheCPU(Encoder):
    def forward(self, image):
        return super().forward(image) + torch.ones(4, 1, 1)


class OneType(Encoder):
    """Writes into a tensor of a fixed type."""

    def forward(self, image):
        features = super().forward(image)
        place = torch.zeros(features.shape, dtype=torch.int64, device=image.device)
        return features + torch.zeros(features.shape, device=image.device).scatter(0, place, features).mean() * 0


@pytest.mark.gpu
def test_on_a_gpu(gpu):
    assert failing("encoder", StaysOnTheCPU).keys() == {"cuda", "bf16"}
    assert failing("encoder", OneType).keys() == {"bf16"}


def test_half_precision(monkeypatch):
    """The same check on the CPU."""
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
    check_model(component(Model), channels=2)
    check_degradation(component(Degradation))
    check_encoder("edsr", {"blocks": 1, "channels": 4}, in_channels=1)
    check_encoder("liif-core:edsr", {"blocks": 1, "channels": 4})


def test_a_failure_names_component_check_and_reason():
    with pytest.raises(AssertionError) as caught:
        check_encoder(component(AlwaysDrops, "leaky"))
    first, *lines = str(caught.value).splitlines()
    assert first == "encoder 'leaky' breaks its contract:"
    assert {line.split(":")[0].strip() for line in lines} == {
        "deterministic",
        "batch",
        "inference_mode",
        "state_dict",
        "receptive_radius",
    }
    assert "deterministic: the same input again: features differs by up to " in str(caught.value)


def test_errors_of_the_plugin_are_failures():
    class Fails(Encoder):
        def forward(self, image):
            raise RuntimeError("out of luck")

    with pytest.raises(AssertionError, match="\n  batch: RuntimeError: out of luck") as caught:
        check_encoder(component(Fails))
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_expected_failures():
    class NoRadius(Encoder):
        receptive_radius = "all"

    check_encoder(component(Contrast), expected_failures={"finite": "flat images are unsupported"})
    check_encoder(component(NoRadius), expected_failures={"contract": "why", "finite": "not reached"})
    with pytest.raises(AssertionError, match=r"finite: expected to fail \(why\), but passes"):
        check_encoder(component(Encoder), expected_failures={"finite": "why"})
    with pytest.raises(ValueError, match=r"no check is named 'finit' \(did you mean 'finite'\?\)"):
        check_encoder(component(Encoder), expected_failures={"finit": "why"})


def test_wrong_use_is_refused():
    with pytest.raises(ValueError, match="no encoder is named 'edrs'"):
        check_encoder("edrs")
    with pytest.raises(AssertionError, match="contract: UserError: encoder options: chanels: unknown key"):
        check_encoder("edsr", {"chanels": 4}, expected_failures={"options_toml": "these options cannot be read either"})


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


class Interpolates(nn.Module):
    """Blends codes, which are colors: it has no parameters, and as many input as output channels."""

    needs = frozenset()
    num_statistics, scale_dependent, radius = 0, False, 0

    def __init__(self, options, in_channels, out_channels, neighbours, conditions):
        super().__init__()
        if in_channels != out_channels:
            raise ValueError(f"in_channels: expected {out_channels}, got {in_channels}")

    def prepare(self, field, image_conditions):
        return {"code": as_rows(field.dense())}

    def decode(self, maps, sites, conditions):
        return blend(gather(maps["code"], sites.index), sites.weight)


class TestDecoderWithoutParameters(DecoderContract):
    component = component(Interpolates)
    in_channels = 3
    has_parameters = False


def test_sizes_that_build_refuses():
    """Other channels may be refused; the sizes of the test itself may not."""
    check_decoder(component(Interpolates), in_channels=3, has_parameters=False)
    check_decoder(component(Interpolates), in_channels=5, out_channels=5, has_parameters=False)
    with pytest.raises(AssertionError, match="contract: ValueError: in_channels: expected 3, got 6"):
        check_decoder(component(Interpolates), has_parameters=False, expected_failures={"options_defaults": "the same"})


def test_parameters_are_declared():
    with pytest.raises(AssertionError, match="parameters: the module has no parameters: register its layers, or decl"):
        check_decoder(component(Interpolates), in_channels=3)
    with pytest.raises(AssertionError, match="parameters: has_parameters = False is declared, and the module has 26"):
        check_encoder(component(Encoder), has_parameters=False)


class RefusesGray(Model):
    def __init__(self, options, channels):
        if channels != 3:
            raise ValueError("channels: expected 3")
        super().__init__(options, channels)


class TestModel(ModelContract):
    component = component(Model)
    channels = 4


class TestModelForColorOnly(ModelContract):
    component = component(RefusesGray)


class TestDegradation(DegradationContract):
    component = component(Degradation)


class TestExpected(EncoderContract):
    component = component(Contrast)
    expected_failures = {"finite": "flat images are unsupported"}


def test_classes():
    class Wrong(EncoderContract):
        component = component(Contrast)

    class Passes(EncoderContract):
        component = component(Encoder)
        expected_failures = {"size": "why"}

    with pytest.raises(
        AssertionError, match="finite: features is not finite for .*\nrequired: Finite inputs give finite"
    ):
        Wrong().test_finite()
    Wrong().test_size()
    with pytest.raises(pytest.xfail.Exception, match="flat images are unsupported"):
        TestExpected().test_finite()
    with pytest.raises(AssertionError, match=r"size: expected to fail \(why\), but passes"):
        Passes().test_size()
    if not torch.cuda.is_available():
        with pytest.raises(pytest.skip.Exception, match="no CUDA device"):
            Wrong().test_cuda()
    with pytest.raises(ValueError, match="no check is named 'sise'"):

        class Misspelt(EncoderContract):
            expected_failures = {"sise": "why"}


def test_every_check_states_its_requirement():
    for checks in CHECKS.values():
        names = [check.__name__ for check in checks]
        assert len(set(names)) == len(names)
        assert all(check.__doc__ for check in checks)
