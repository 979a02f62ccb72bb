"""The equal budget has every decoder for any scale, and every experiment of it can be run."""

import argparse
import importlib
import sys
from pathlib import Path

import pytest
import toml
import torch

import liif_core
from liif_core import load_experiment

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def budget():
    """The module, imported as when it is run: modules of the tests, which have the same names, are set aside."""
    own = {path.stem for path in BENCHMARKS.glob("*.py")}
    aside = {name: sys.modules.pop(name) for name in own & sys.modules.keys()}
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module("equal_budget")
    finally:
        sys.path.remove(str(BENCHMARKS))
        for name in own & sys.modules.keys():
            del sys.modules[name]
        sys.modules.update(aside)


@pytest.fixture
def options(tmp_path):
    (tmp_path / "a.png").touch()
    return argparse.Namespace(images=tmp_path, steps=3, batch=2, queries=16)


def test_no_decoder_is_left_out(budget, registry):
    own = {item.name for item, origin in registry.components["decoder"] if origin.distribution == "liif-core"}
    assert set(budget.DECODERS) == own - {"subpixel"}


def test_every_model_is_built_with_the_same_encoder(budget, options, registry, tmp_path):
    for name in budget.DECODERS:
        path = tmp_path / f"{name}.toml"
        path.write_text(toml.dumps(budget.experiment(name, 1, options)))
        experiment = load_experiment(path, registry)
        with torch.device("meta"):
            model = liif_core.build_model(experiment.model)
        encoder = experiment.model.encoder
        assert (encoder.component.name, encoder.options.blocks, experiment.train.seed) == ("edsr", 4, 1)
        assert encoder.options.channels == (147 if name == "opesr" else 32)
        assert model.residual == ("none" if name == "thera" else "bilinear"), name


def test_budgets_are_not_mixed(budget, tmp_path):
    budget.expect(tmp_path / "how.toml", "steps = 1\n")
    budget.expect(tmp_path / "how.toml", "steps = 1\n")
    with pytest.raises(SystemExit, match="how.toml: was made with other options"):
        budget.expect(tmp_path / "how.toml", "steps = 2\n")
