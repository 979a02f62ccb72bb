"""``[model] use`` and ``[data.degradation]`` in files, profiles, overrides and extending files."""

import tomllib

import attrs
import pytest
from attrs.validators import ge
from small_experiment import SMALL

from liif_core import Component, UserError, load_experiment, option
from liif_core.experiment.schema import CompositionSpec, WholeModelSpec
from liif_core.experiment.toml_file import plugins_of, read_experiment_file, resolve, resolved_toml, to_builtin


@attrs.frozen
class Options:
    """What both components here can be set to."""

    size: int = option("A size.", 3, check=ge(1))
    names: tuple[str, ...] = option("Names.", ("a",))


@pytest.fixture
def more(extended):
    def build(options, **sizes):
        raise AssertionError("nothing is built")

    component = Component("mine", build, Options)
    return extended(liif_models=[component], liif_degradations=[component])


WHOLE = (
    SMALL[: SMALL.index("[model]")] + '[model]\nuse = "mine"\nsize = 4\n' + SMALL[SMALL.index("[data]") :]
).replace("[profiles.quick.model]\ndecoder = { hidden = [4] }", "[profiles.quick.model]\nsize = 9")


@pytest.fixture
def whole(small):
    small.write_text(WHOLE)
    return small


def refused(path, registry, **options):
    with pytest.raises(UserError) as error:
        load_experiment(path, registry, **options)
    return [line.removeprefix(f"{path}: ") for line in error.value.problems]


def reads_back(path, registry, tmp_path, **options):
    resolved = resolve(read_experiment_file(path), registry, **options)
    copy = tmp_path / "copy" / "copy.toml"
    copy.parent.mkdir(exist_ok=True)
    copy.write_text(resolved_toml(resolved))
    assert load_experiment(copy, registry) == resolved.experiment
    return resolved.experiment


def test_a_whole_model(whole, more, tmp_path):
    found = reads_back(whole, more, tmp_path)
    assert isinstance(found.model, WholeModelSpec) and found.model.model.options == Options(4, ("a",))
    assert (found.model.channels, plugins_of(found.model)) == (3, {"test-plugin": "1.2.3"})
    assert to_builtin(found.model) == {"use": "mine", "size": 4, "names": ["a"], "channels": 3}
    assert reads_back(whole, more, tmp_path, profile="quick").model.model.options.size == 9
    setting = ["model.size=7", "model.names=['b', 'c']", "model.channels=1"]
    found = reads_back(whole, more, tmp_path, profile="quick", overrides=setting)
    assert (found.model.model.options, found.model.channels) == (Options(7, ("b", "c")), 1)
    child = whole.with_name("child.toml")
    child.write_text('extends = "small.toml"\n[model]\nnames = ["d"]\n')
    assert reads_back(child, more, tmp_path).model.model.options == Options(4, ("d",))


@pytest.mark.parametrize(
    "override, message",
    [
        ("model.size=0", "model.size: must be >= 1"),
        ("model.size='x'", "model.size: expected a whole number, got 'x' (a string)"),
        ("model.sise=3", "model.sise: unknown key (did you mean 'size'?)"),
        ("model.names=['a', 3]", "model.names[1]: expected a string, got 3 (a whole number)"),
        ("model.channels=0", "model.channels: must be >= 1"),
        ("model.channels='x'", "model.channels: expected a whole number, got 'x' (a string)"),
        ("model.use='mien'", "model.use: no model is named 'mien' (did you mean 'mine'?)"),
        ("model.use=3", "model.use: expected a string, got 3 (a whole number)"),
        ("model.encoder={use='edsr'}", "model: encoder: not together with 'use'"),
    ],
)
def test_mistakes_in_a_whole_model(whole, more, override, message):
    (line,) = refused(whole, more, overrides=[override])
    assert line.startswith(message)


def test_two_mistakes_in_a_whole_model(whole, more):
    lines = refused(whole, more, overrides=["model.size=0", "model.channels=0"])
    assert sorted(line.split(":")[0] for line in lines) == ["model.channels", "model.size"]


def test_from_a_composition_to_a_whole_model_and_back(small, whole, more, tmp_path):
    """A table whose ``use`` changes is replaced: parts of a composition are no options of a whole model."""
    base = whole.with_name("parts.toml")
    base.write_text(SMALL + '\n[profiles.whole.model]\nuse = "mine"\nsize = 5\n')
    found = reads_back(base, more, tmp_path, profile="whole")
    assert found.model.model.options.size == 5
    assert isinstance(reads_back(base, more, tmp_path).model, CompositionSpec)
    assert reads_back(base, more, tmp_path, overrides=["model={use='mine'}"]).model.model.options.size == 3


def test_a_degradation(small, more, tmp_path):
    assert load_experiment(small, more).data.degradation is None
    assert "degradation" not in to_builtin(load_experiment(small, more))["data"]
    small.write_text(
        SMALL.replace("[train]", '[data.degradation]\nuse = "mine"\nsize = 4\n\n[train]', 1)
        + "\n[profiles.slower.data]\ndegradation = { names = ['z'] }\n"
    )
    found = reads_back(small, more, tmp_path)
    assert found.data.degradation.options == Options(4) and found.data.degradation.kind == "degradation"
    table = tomllib.loads((tmp_path / "copy" / "copy.toml").read_text())["data"]["degradation"]
    assert table == {"use": "mine", "size": 4, "names": ["a"]}
    assert reads_back(small, more, tmp_path, profile="slower").data.degradation.options == Options(4, ("z",))
    found = reads_back(small, more, tmp_path, overrides=["data.degradation.size=6"])
    assert found.data.degradation.options == Options(6)
    assert (
        reads_back(small, more, tmp_path, overrides=["data.degradation={use='bicubic'}"]).data.degradation.use
        == "bicubic"
    )
    child = small.with_name("child.toml")
    child.write_text('extends = "small.toml"\n[data]\ndegradation = { size = 8 }\n')
    assert reads_back(child, more, tmp_path).data.degradation.options == Options(8)


@pytest.mark.parametrize(
    "override, message",
    [
        ("data.degradation={use='mine', size=0}", "data.degradation.size: must be >= 1"),
        ("data.degradation={use='mine', sise=1}", "data.degradation.sise: unknown key (did you mean 'size'?)"),
        (
            "data.degradation={use='mien'}",
            "data.degradation.use: no degradation is named 'mien' (did you mean 'mine'?)",
        ),
        ("data.degradation={size=1}", "data.degradation.use: required, but missing"),
        ("data.degradation=mine", "data.degradation: expected a table with 'use', got 'mine' (a string)"),
    ],
)
def test_mistakes_in_a_degradation(small, more, override, message):
    (line,) = refused(small, more, overrides=[override])
    assert line.startswith(message)


def test_a_degradation_of_paired_folders(small, more):
    overrides = ["data.degradation={use='mine'}", "data.images={source='paired-folders', hr='a', lr='b'}"]
    (line,) = refused(small, more, overrides=overrides)
    assert line.startswith("data.degradation: paired folders bring their own low-resolution images")
