"""Checkpoints remember the plugins they were saved with."""

import warnings

import attrs
import pytest
import torch
from torch import nn

from liif_core import (
    Component,
    Registry,
    UserError,
    build_model,
    load_checkpoint,
    save_checkpoint,
)
from liif_core.experiment.toml_file import model_from_table, plugins_of
from liif_core.registry.components import Origin
from liif_core.registry.discovery import add_plugin
from liif_core.training.checkpoint import Checkpoint, OtherVersion, model_of


class Encoder(nn.Conv2d):
    multiple_of, receptive_radius, out_channels = 1, 1, 4

    def __init__(self, options, in_channels):
        super().__init__(in_channels, self.out_channels, 3, padding=1)


class OtherEncoder(Encoder):
    """Of the same parameters, so that only the kind of module tells them apart."""


TABLE = {
    "encoder": {"use": "mine"},
    "features": {"use": "identity"},
    "sampling": {"use": "nearest"},
    "decoder": {"use": "mlp", "hidden": [8]},
}


@pytest.fixture
def having(registry, plugin_of):
    """The installed plugins, and encoders 'mine': ``having(distribution=("1.0", Encoder), ...)``."""

    def make(**distributions) -> Registry:
        made = registry
        for name, (version, build) in distributions.items():
            plugin = plugin_of(liif_encoders=Component("mine", build))
            made = add_plugin(made, plugin, Origin("main = test", name, version))
        return made

    return make


@pytest.fixture
def saved(having, tmp_path):
    """A file saved with encoder 'mine' of ``one 1.0``."""
    spec = model_from_table(TABLE, having(one=("1.0", Encoder)), "t")
    assert plugins_of(spec).keys() == {"one", "liif-core"} and plugins_of(spec)["one"] == "1.0"
    state = build_model(spec).state_dict()
    save_checkpoint(tmp_path / "m.safetensors", Checkpoint(state, {"model": TABLE}, plugins=plugins_of(spec)))
    return load_checkpoint(tmp_path / "m.safetensors")


def read(checkpoint, registry):
    """The model, and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = model_of(checkpoint, registry, "m")
    assert all(issubclass(w.category, OtherVersion) for w in caught)
    return model, [str(w.message) for w in caught]


def test_the_same_versions(saved, having):
    model, warned = read(saved, having(one=("1.0", Encoder)))
    assert not warned and torch.equal(model.encoder.weight, saved.state["encoder.weight"])


def test_another_version(saved, having):
    model, warned = read(saved, having(one=("2.0", Encoder)))
    assert warned == ["m: saved with one 1.0, and read with 2.0"]
    assert torch.equal(model.encoder.weight, saved.state["encoder.weight"])


def test_another_version_of_ours(saved, having):
    older = attrs.evolve(saved, plugins={**saved.plugins, "liif-core": "0.0.1"})
    (line,) = read(older, having(one=("1.0", Encoder)))[1]
    assert line.startswith("m: saved with liif-core 0.0.1, and read with ")


def test_the_name_is_another_distribution_s_now(saved, having):
    (line,) = read(saved, having(two=("1.0", Encoder)))[1]
    assert line.startswith("m: saved with one 1.0, and read with liif-core ") and line.endswith(", two 1.0")


def test_a_name_that_a_second_distribution_offers_too(saved, having):
    """An experiment must say which; a checkpoint knows."""
    crowded = having(aa=("1.0", OtherEncoder), one=("1.0", Encoder), zz=("1.0", OtherEncoder))
    with pytest.raises(UserError, match="choose one"):
        model_from_table(TABLE, crowded, "t")
    model, warned = read(saved, crowded)
    assert type(model.encoder) is Encoder and not warned


def test_none_has_the_name_now(saved, registry):
    with pytest.raises(UserError) as refused:
        model_of(saved, registry, "m")
    assert refused.value.problems[0].startswith("m: model.encoder.use: no encoder is named 'mine'")
    assert refused.value.problems[1:] == ("m: saved with one 1.0, which has no working plugin here: install it",)


def test_nothing_is_known_of_what_others_published(saved, having):
    unknown = attrs.evolve(saved, plugins={})
    assert not read(unknown, having(one=("9.0", Encoder)))[1]
