"""Models in words, and whether an experiment's name belongs to its model."""

import pytest
from small_experiment import SMALL

from liif_core import Component, load_experiment
from liif_core.experiment.description import format_duration, full_description, short_description
from liif_core.experiment.toml_file import read_experiment_file, resolve
from liif_core.registry.components import Choice, Origin


def test_parts_and_sizes(registry, small):
    model = load_experiment(small, registry, overrides=["model.decoder.hidden=[64,32]"]).model
    assert short_description(model) == "EDSR 2x8, MLP 64-32"
    assert full_description(model) == (
        "encoder EDSR 2x8; features unfold 3x3; sampling local-ensemble; conditioning coordinate, cell; "
        "decoder MLP 64-32; residual none"
    )
    bare = ["model.conditioning=[]", "model.decoder.hidden=[]", "model.sampling.use=nearest"]
    assert full_description(load_experiment(small, registry, overrides=bare).model) == (
        "encoder EDSR 2x8; features unfold 3x3; sampling nearest; conditioning none; decoder MLP linear; residual none"
    )


@pytest.mark.parametrize(
    "kind, table, expected",
    [
        ("encoder", '{ use = "rcan", groups = 2, blocks = 3, channels = 16 }', "RCAN 2x3x16"),
        ("encoder", '{ use = "rep", blocks = 2, channels = 16 }', "Rep 2x16"),
        ("encoder", '{ use = "swinir", groups = 1, blocks = 2, channels = 12 }', "SwinIR 1x2x12"),
        ("decoder", '{ use = "metasr", hidden = 16 }', "MetaSR 16"),
        ("decoder", '{ use = "lte", channels = 8, hidden = [4, 5] }', "LTE 8 4-5"),
        ("decoder", '{ use = "srno", width = 8, heads = 2, blocks = 3 }', "SRNO 3x8"),
        ("decoder", '{ use = "lm-liif", width = 8, depth = 3 }', "LM-LIIF 3x8"),
        ("decoder", '{ use = "lm-lte", width = 6, depth = 2 }', "LM-LTE 2x6"),
        ("decoder", '{ use = "basis", functions = 3 }', "Basis 3x3"),
        ("sampling", '{ use = "nearest" }', "nearest"),
    ],
)
def test_components_of_the_box(registry, small, kind, table, expected):
    assert (
        getattr(load_experiment(small, registry, overrides=[f"model.{kind}={table}"]).model, kind).describe()
        == expected
    )


@pytest.mark.parametrize(
    "describe, expected",
    [
        (None, "mine"), (lambda o: "Mine 3", "Mine 3"), (lambda o: "a\n  b", "a b"), (lambda o: "  ", "mine"),
        (lambda o: 3, "mine"), (lambda o: o.gone, "mine"), (lambda: "x", "mine"),
    ],
)  # fmt: skip
def test_descriptions_of_strangers(describe, expected):
    component = Component("mine", object, describe=describe)
    assert Choice("encoder", "their:mine", component, component.options(), Origin("a", "b", "c")).describe() == expected


def test_a_whole_model(extended, small):
    registry = extended(liif_models=[Component("whole", object, describe=lambda options: "Whole 7")])
    small.write_text(SMALL[: SMALL.index("[model]")] + '[model]\nuse = "whole"\n' + SMALL[SMALL.index("[data]") :])
    with pytest.raises(ValueError):  # its profile's [profiles.quick.model] has parts
        load_experiment(small, registry, "quick")
    model = load_experiment(small, registry).model
    assert short_description(model) == full_description(model) == "Whole 7"


@pytest.mark.parametrize(
    "profile, overrides, own",
    [
        (None, [], True),
        ("slower", [], True),  # changes the training only
        ("quick", [], False),  # hidden = [4]
        ("quick", ["model.decoder.hidden=[16]"], True),
        ("quick", ["name=mine"], True),
        (None, ["model.encoder.blocks=3"], False),
        (None, ["model.encoder.blocks=2"], True),
        (None, ["model.residual=none"], True),  # the default, said
        (None, ["model.residual=nearest"], False),
        (None, ["train.epochs=1"], True),
    ],
)
def test_whose_name_it_is(registry, small, profile, overrides, own):
    assert resolve(read_experiment_file(small), registry, profile, overrides).has_own_name is own


@pytest.mark.parametrize(
    "text, own",
    [
        ("", True), ("[model]\nresidual = 'nearest'\n", False), ("name = 'x'\n[model]\nresidual = 'nearest'\n", True),
        ("[train]\nepochs = 3\n", True),
    ],
)  # fmt: skip
def test_whose_name_an_extending_file_has(registry, small, text, own):
    child = small.with_name("child.toml")
    child.write_text(f'extends = "small.toml"\n{text}')
    assert resolve(read_experiment_file(child), registry).has_own_name is own
    nameless = small.with_name("nameless.toml")
    nameless.write_text(SMALL.replace('name = "small"', ""))
    assert resolve(read_experiment_file(nameless), registry).has_own_name


@pytest.mark.parametrize(
    "seconds, expected",
    [
        (0, "1 s"),
        (40, "40 s"),
        (89.4, "89 s"),
        (90, "2 min"),
        (125, "2 min"),
        (5399, "90 min"),
        (5400, "2 h"),
        (2e5, "56 h"),
    ],
)
def test_durations(seconds, expected):
    assert format_duration(seconds) == expected
