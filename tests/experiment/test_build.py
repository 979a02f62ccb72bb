"""Models and degradations from tables: what is built, what is refused, and whole runs with plugins of new kinds."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import attrs
import numpy as np
import pytest
import safetensors.torch
import tiny
import torch
from click.testing import CliRunner
from PIL import Image
from torch import nn

import liif_core
from liif_core import Component, ContinuousImage, ContinuousModel, Query, UserError, option
from liif_core.cli import liif, liif_run
from liif_core.data.degrade import build_degradation
from liif_core.experiment.build import build_model, try_model
from liif_core.experiment.toml_file import model_from_table
from liif_core.model.composed import ComposedModel
from liif_core.model.tile_plan import plan_tiles
from liif_core.registry.changes import CHANGES
from liif_core.registry.sources import extra_plugins

PARTS = {
    "encoder": {"use": "edsr", "blocks": 1, "channels": 4},
    "features": {"use": "identity"},
    "sampling": {"use": "nearest"},
    "conditioning": [{"use": "coordinate"}],
    "decoder": {"use": "mlp", "hidden": [8]},
}
HOOKS = {
    "encoder": "liif_encoders", "features": "liif_features", "sampling": "liif_samplings",
    "conditioning": "liif_conditionings", "decoder": "liif_decoders", "model": "liif_models",
}  # fmt: skip


def refused(build, *arguments):
    with pytest.raises(UserError) as error:
        build(*arguments)
    return error.value.problems


@pytest.fixture
def spec_with(extended):
    """A model with one component that ``build`` makes: ``odd`` of the distribution test-plugin."""

    def make(kind, build):
        registry = extended(**{HOOKS[kind]: [Component("odd", build)]})
        odd = {"use": "odd"}
        if kind == "conditioning":
            table = {**PARTS, "conditioning": [{"use": "coordinate"}, odd]}
        else:
            table = odd if kind == "model" else {**PARTS, kind: odd}
        return model_from_table(table, registry, "t")

    return make


# Compositions


def test_a_composition(registry):
    torch.manual_seed(0)
    model = build_model(model_from_table({**PARTS, "channels": 1, "residual": "bilinear"}, registry, "t"))
    assert isinstance(model, ComposedModel) and (model.channels, model.residual) == (1, "bilinear")
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    try_model(model)


@pytest.mark.parametrize("kind", HOOKS)
@pytest.mark.parametrize(
    "raised, messages",
    [
        (ValueError("heads: 7 do not divide 16"), ["heads: 7 do not divide 16"]),
        (ValueError(), ["ValueError: "]),
        (KeyError("x"), ["KeyError: 'x'"]),
        (UserError("one", "two"), ["one", "two"]),
    ],
    ids=["ValueError", "no message", "KeyError", "several"],
)
def test_a_build_that_raises(spec_with, kind, raised, messages):
    def build(options, **sizes):
        raise raised

    key = "model" if kind == "model" else f"model.{kind}"
    problems = refused(build_model, spec_with(kind, build))
    assert list(problems) == [f"{key}: 'odd' of test-plugin 1.2.3 could not be built: {each}" for each in messages]


@pytest.mark.parametrize("kind", sorted(set(HOOKS) - {"model"}))  # in one order, for pytest-xdist
def test_what_is_no_module(spec_with, kind):
    (problem,) = refused(build_model, spec_with(kind, lambda options, **sizes: "a module"))
    assert problem == (
        f"model.{kind}: 'odd' of test-plugin 1.2.3 breaks its contract: it is a str, not a torch.nn.Module"
    )


@pytest.mark.parametrize(
    "kind, missing",
    [
        ("encoder", "multiple_of, out_channels, receptive_radius"),
        ("features", "channels, radius"),
        ("sampling", "neighbours, reach"),
        ("decoder", "decode, needs, num_statistics, prepare, radius, scale_dependent"),
    ],
)
def test_a_module_without_the_attributes_of_its_contract(spec_with, kind, missing):
    (problem,) = refused(build_model, spec_with(kind, lambda options, **sizes: nn.Identity()))
    assert problem.endswith(f"'odd' of test-plugin 1.2.3 breaks its contract: it has no attribute {missing}")


def module(**attributes):
    made = nn.Identity()
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    "kind, attributes, missing",
    [
        ("conditioning", {"channels": 2}, "scope"),
        ("decoder", {"pointwise": True, "needs": frozenset(), "scale_dependent": False, "radius": 0}, None),
    ],
)
def test_a_module_made_for_version_2(spec_with, kind, attributes, missing):
    first, *changes = refused(build_model, spec_with(kind, lambda options, **sizes: module(**attributes)))
    assert (missing or "decode, num_statistics, prepare") in first
    assert changes == [f"since version 2 of the plugin API: {line}" for line in CHANGES[3]]


@pytest.mark.parametrize("scope", ["all", None, 1])
def test_a_scope_that_does_not_exist(spec_with, scope):
    (problem,) = refused(build_model, spec_with("conditioning", lambda options: module(channels=2, scope=scope)))
    assert problem.endswith(f"breaks its contract: scope is {scope!r}; expected 'query' or 'offset' or 'image'")


DECODER = {
    "needs": frozenset(), "num_statistics": 0, "scale_dependent": False, "radius": 0, "prepare": len, "decode": len,
}  # fmt: skip


@pytest.mark.parametrize("number", [-1, True, "two", 0.5])
def test_a_number_of_statistics_that_is_none(spec_with, number):
    spec = spec_with("decoder", lambda options, **sizes: module(**{**DECODER, "num_statistics": number}))
    (problem,) = refused(build_model, spec)
    assert problem.endswith(
        f"breaks its contract: num_statistics is {number!r}; expected a whole number from 0, or None"
    )


def test_statistics_without_their_methods(spec_with):
    spec = spec_with("decoder", lambda options, **sizes: module(**{**DECODER, "num_statistics": 2}))
    (problem,) = refused(build_model, spec)
    assert "num_statistics is 2; expected the methods partial_statistic and with_statistic" in problem


def test_conditions_that_a_decoder_needs(spec_with):
    needs = module(**{**DECODER, "needs": ["cell", "coordinate"]})  # a list, where a frozenset is expected
    (problem,) = refused(build_model, spec_with("decoder", lambda options, **sizes: needs))
    assert problem == (
        "model.conditioning: decoder 'odd' needs 'cell' (given: coordinate): add [[model.conditioning]] use = \"cell\""
    )


# Models that are no compositions


class Constant(ContinuousModel):
    """Every color is the mean of the image."""

    halo = None

    def __init__(self, options=None, channels=3):
        super().__init__()
        self.channels = channels
        self.norm = nn.BatchNorm2d(channels)

    def encode(self, image, placement=None):
        return ConstantImage(self.norm(image).mean((2, 3)), image.shape[-2:])


class ConstantImage(ContinuousImage):
    def __init__(self, color, size):
        self.color, self.size, self.channels, self.device = color, tuple(size), color.shape[1], color.device

    def query(self, where, cell=None, statistics=()):
        shape = where.shape if isinstance(where, Query) else where.shape[1:-1]
        return self.color.view(len(self.color), *[1] * len(shape), -1).expand(-1, *shape, -1)


def test_a_whole_model(extended):
    @attrs.frozen
    class Options:
        width: int = option("Width.", 3)

    received = []
    component = Component(
        "odd", lambda options, channels: received.append(options) or Constant(None, channels), Options
    )
    registry = extended(liif_models=[component])
    model = build_model(model_from_table({"use": "odd", "width": 5, "channels": 1}, registry, "t"))
    assert isinstance(model, Constant) and model.channels == 1 and received == [Options(5)]
    for table, part in [
        ({"use": "odd", "widht": 5}, "t: model.widht: unknown key (did you mean 'width'?)"),
        ({"use": "odd", "width": "x"}, "t: model.width: expected a whole number"),
        ({"use": "odd", "channels": 0}, "t: model.channels: "),
        ({"use": "odd", **PARTS}, "encoder, features, sampling, decoder, conditioning: not together with 'use'"),
        ({"use": "od"}, "t: model.use: no model is named 'od' (did you mean 'odd'?)"),
    ]:
        assert part in "\n".join(refused(model_from_table, table, registry, "t"))


def test_what_is_no_continuous_model(spec_with):
    (problem,) = refused(build_model, spec_with("model", lambda options, channels: nn.Identity()))
    assert problem == (
        "model: 'odd' of test-plugin 1.2.3 breaks its contract: expected a liif_core.ContinuousModel, got Identity"
    )


@pytest.mark.parametrize(
    "attribute, value, expected",
    [
        ("channels", 1, "3"),
        ("multiple_of", 0, "a whole number from 1"),
        ("multiple_of", True, "a whole number from 1"),
        ("halo", -1, "a whole number from 0, or None"),
        ("halo", 2.5, "a whole number from 0, or None"),
        ("num_statistics", "none", "a whole number from 0, or None"),
    ],
)
def test_a_whole_model_with_a_wrong_attribute(spec_with, attribute, value, expected):
    def build(options, channels):
        model = Constant(options, channels)
        setattr(model, attribute, value)
        return model

    (problem,) = refused(build_model, spec_with("model", build))
    assert problem.endswith(f"breaks its contract: {attribute} is {value!r}; expected {expected}")


def test_a_whole_model_without_channels(spec_with):
    def build(options, channels):
        model = Constant(options, channels)
        del model.channels
        return model

    (problem,) = refused(build_model, spec_with("model", build))
    assert problem.endswith("breaks its contract: channels is 'missing'; expected 3")


# Trying a model out


def test_trying_a_model_changes_nothing():
    for training in (True, False):
        model = Constant().train(training)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        try_model(model)
        assert model.training is training
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_that_fails_or_returns_another_shape():
    class Failing(Constant):
        def encode(self, image, placement=None):
            raise RuntimeError("no image")

    class Narrow(Constant):
        def encode(self, image, placement=None):
            return ConstantImage(image.mean((2, 3))[:, :2], image.shape[-2:])

    assert refused(try_model, Failing()) == ("model: it does not work: RuntimeError: no image",)
    (problem,) = refused(try_model, Narrow())
    assert problem == "model: it does not work: expected colors (1, 3, 8, 10), got (1, 2, 8, 10)"


def test_parts_that_do_not_work_together(spec_with):
    decoder = module(**{**DECODER, "prepare": lambda field, conditions: {}, "decode": lambda *_: torch.zeros(2, 2)})
    model = build_model(spec_with("decoder", lambda options, **sizes: decoder))
    (problem,) = refused(try_model, model)
    assert problem.startswith("model: its parts do not work together: ")


# Whole runs: a model that is no composition


def invoke(*arguments, command=liif_run):
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def weights(folder):
    return safetensors.torch.load_file(folder / "checkpoints" / "last.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


WHOLE = "\n".join(['name = "tiny"', "", "[model]", 'use = "splat"', "width = 6", "layers = 2", ""])
STOP = """
import os, signal
calls = 0

def stop_after(count):
    # as Ctrl-C in the middle of a run would
    global calls
    calls += 1
    if os.environ.get("STOP") == "yes" and calls == count:
        signal.raise_signal(signal.SIGTERM)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the tiny experiment, whose model is the one of plugins/liif-splat."""
    text = WHOLE + tiny.TOML[tiny.TOML.index("[data]") :]
    tiny.experiment_file(tmp_path, text)
    shutil.copy(Path(__file__).parents[2] / "plugins" / "liif-splat" / "liif_splat.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_whole_model_is_trained_saved_loaded_measured_and_rendered(place, registry):
    plugin = ["--plugin", "liif_splat.py"]
    assert "parameters: " in invoke("tiny.toml", "--check", *plugin).output
    for folder in ("one", "two"):
        ran = invoke("tiny.toml", "--out", folder, "--quiet", *plugin)
        assert ran.exit_code == 0, ran.output
    assert same(weights(place / "one"), weights(place / "two"))
    report = json.loads((place / "one" / "report.json").read_text())
    assert report["versions"]["liif_splat.py"].startswith("sha256-") and report["trained"]["steps"] == 6
    assert all(15 < result["psnr"] < 60 for result in report["results"])

    checkpoint = "one/checkpoints/best.safetensors"
    refusal = invoke("upscale", "images", "--out-dir", "x", "--scale", "2", "--checkpoint", checkpoint, command=liif)
    assert refusal.exit_code == 2 and "no model is named 'splat'" in refusal.output
    assert "saved with liif_splat.py sha256-" in refusal.output
    arguments = ["images/picture-0.png", "-o", "large.png", "--scale", "2.5", "--checkpoint", checkpoint, "--quiet"]
    done = invoke("upscale", *arguments, *plugin, command=liif)
    assert done.exit_code == 0 and Image.open("large.png").size == (140, 120), done.output
    with extra_plugins("liif_splat.py"):
        model = liif_core.load(checkpoint)
    image = np.random.default_rng(0).random((150, 160, 3), np.float32)
    whole, plan = model.upscale(image, scale=1.5), plan_tiles(model, (150, 160), (225, 240), None, 2_000_000)
    assert plan.tile[0] < 100 and plan.overlap == 0
    np.testing.assert_allclose(model.upscale(image, scale=1.5, memory=2_000_000), whole, rtol=0, atol=1e-5)
    measured = invoke("evaluate", checkpoint, "--hr", "images", "--scale", "2", "--quiet", *plugin, command=liif)
    assert measured.exit_code == 0 and "bicubic" in measured.output


def test_a_whole_model_that_was_interrupted_ends_with_the_same_weights(place, monkeypatch):
    module = place / "liif_splat.py"
    line = "        hidden = image.float() * 2 - 1\n"
    text = module.read_text()
    assert text.count(line) == 1
    module.write_text(STOP + text.replace(line, f"        if self.training:\n            stop_after(5)\n{line}"))
    arguments = ["tiny.toml", "--quiet", "--plugin", "liif_splat.py", "--out"]
    assert invoke(*arguments, "whole").exit_code == 0
    monkeypatch.setenv("STOP", "yes")
    cut = invoke(*arguments, "cut")
    assert cut.exit_code == 130 and "--resume" in cut.output
    monkeypatch.delenv("STOP")
    assert step_of(place / "cut") == 5
    assert invoke(*arguments, "cut", "--resume").exit_code == 0
    assert same(weights(place / "whole"), weights(place / "cut"))


def step_of(folder):
    return liif_core.load_checkpoint(folder / "checkpoints" / "last.safetensors").step


# Whole runs: degradations

NOISE = """
import numpy as np
from attrs import frozen
from attrs.validators import ge
from liif_core import Component, bicubic, hookimpl, option

@frozen
class Options:
    sigma: float = option("Standard deviation.", 20.0, check=ge(0))

class Noise:
    def __init__(self, options):
        self.sigma = options.sigma

    def __call__(self, image, size, rng):
        stop_after(15)
        noisy = bicubic(image, size) + rng.normal(0, self.sigma, (*size, image.shape[2]))
        return noisy.round().clip(0, 255).astype(np.uint8)

@hookimpl
def liif_degradations():
    return Component("noise", Noise, Options)
"""
NOISY = ["--plugin", "noise.py", "--set", 'data.degradation={use="noise"}', "--quiet", "--set", "evaluate=[]"]


@pytest.fixture
def noisy(tmp_path, monkeypatch):
    """A folder with the tiny experiment and a degradation."""
    tiny.experiment_file(tmp_path)
    (tmp_path / "noise.py").write_text(STOP + NOISE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_training_with_a_degradation_repeats_with_any_number_of_workers(noisy):
    for folder, more in (("one", []), ("two", []), ("workers", ["--set", "train.workers=2"])):
        ran = invoke("tiny.toml", "--out", folder, *NOISY, *more)
        assert ran.exit_code == 0, ran.output
    assert same(weights(noisy / "one"), weights(noisy / "two"))
    assert same(weights(noisy / "one"), weights(noisy / "workers"))
    head = (noisy / "one" / "experiment.toml").read_text().partition("\n\n")[0]
    assert "noise.py sha256-" in head and 'use = "noise"' in (noisy / "one" / "experiment.toml").read_text()


def test_a_degradation_changes_what_is_learned_and_nothing_else(noisy):
    """Without noise it is bicubic, and no degradation is bicubic, too."""
    quiet = ["--quiet", "--set", "evaluate=[]"]
    runs = {
        "none": quiet,
        "bicubic": [*quiet, "--set", 'data.degradation={use="bicubic"}'],
        "silent": [*NOISY, "--set", "data.degradation.sigma=0.0"],
        "noisy": NOISY,
    }
    for folder, arguments in runs.items():
        ran = invoke("tiny.toml", "--out", folder, *arguments)
        assert ran.exit_code == 0, ran.output
    assert same(weights(noisy / "none"), weights(noisy / "bicubic"))
    assert same(weights(noisy / "none"), weights(noisy / "silent"))
    assert not same(weights(noisy / "none"), weights(noisy / "noisy"))
    model = liif_core.load("noisy/checkpoints/best.safetensors")  # without the plugin
    assert model.channels == 3


def test_training_with_a_degradation_that_was_interrupted_ends_with_the_same_weights(noisy, monkeypatch):
    assert invoke("tiny.toml", "--out", "whole", *NOISY).exit_code == 0
    monkeypatch.setenv("STOP", "yes")
    cut = invoke("tiny.toml", "--out", "cut", *NOISY)
    assert cut.exit_code == 130 and "--resume" in cut.output
    monkeypatch.delenv("STOP")
    assert 0 < step_of(noisy / "cut") < 6
    assert invoke("tiny.toml", "--out", "cut", *NOISY, "--resume").exit_code == 0
    assert same(weights(noisy / "whole"), weights(noisy / "cut"))


def test_a_run_with_another_degradation_is_not_resumed(noisy):
    assert invoke("tiny.toml", "--out", "out", *NOISY, "--set", "train.epochs=1").exit_code == 0
    other = invoke(
        "tiny.toml", "--out", "out", "--resume", "--quiet", "--set", "evaluate=[]", "--set", "train.epochs=1"
    )
    assert other.exit_code == 2 and "data.degradation is not set here, and a table there" in other.output


def choice_of(build):
    component = Component("odd", build)
    return SimpleNamespace(use="odd", origin="test-plugin 1.2.3", build=lambda: component.build(component.options()))


def gray(image, size, rng):
    return np.zeros((*size, 1), np.uint8)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda options: 1 / 0, "could not be built: ZeroDivisionError: division by zero"),
        (lambda options: [].index(0), "could not be built: "),
        (lambda options: 3, "expected a function of image, size and rng, got int"),
        (lambda options: lambda image, size, rng: image[9], "expected uint8 (8, 8, 3), got uint8 (20, 3)"),
        (lambda options: gray, "expected uint8 (8, 8, 3), got uint8 (8, 8, 1)"),
        (
            lambda options: lambda image, size, rng: np.zeros((*size, 3)),
            "expected uint8 (8, 8, 3), got float64 (8, 8, 3)",
        ),
        (lambda options: lambda image, size, rng: None, "expected a numpy array, got NoneType"),
        (lambda options: lambda image, size: image, "failed on an image (20, 20, 3): TypeError: "),
    ],
)
def test_a_degradation_that_does_not_work_is_refused_before_any_training(build, message):
    (problem,) = refused(build_degradation, choice_of(build))
    assert problem.startswith("data.degradation: 'odd' of test-plugin 1.2.3") and message in problem


def test_a_degradation_does_not_go_with_paired_folders(noisy):
    pairs = 'data.images={source="paired-folders", hr="images", lr="images"}'
    result = invoke("tiny.toml", "--check", *NOISY, "--set", pairs)
    assert result.exit_code == 2
    assert "data.degradation: paired folders bring their own low-resolution images" in result.output
