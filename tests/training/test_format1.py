"""Files of checkpoint format 1, which came before keys and parameters were renamed, load and continue as they did.

``format1/run.zip`` holds what that version left of an SRNO run that was interrupted in its second epoch, with its
profile "samples": ``experiment.toml``, ``metrics.jsonl`` and ``checkpoints/`` of the run folder, and ``old.toml``, the
experiment file. ``render.npz`` has ``inp`` and ``out``, the 29 x 23 render of its weights by that version, and
``finished.safetensors`` are the weights that the same run ended with when it was not interrupted.
"""

import json
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from click.testing import CliRunner
from PIL import Image

from liif_core import UserError, load, load_checkpoint, load_experiment, save_checkpoint
from liif_core.cli import liif_run
from liif_core.experiment.schema import Experiment, MultiStep, SkimageSource
from liif_core.experiment.toml_file import to_builtin
from liif_core.experiment.translation import translate_experiment, translate_weights
from liif_core.experiment.validation import structure
from liif_core.training.checkpoint import tensors_sha256


@pytest.fixture
def old(tmp_path):
    """The old run, its experiment rewritten with the new keys as ``new.toml``, and its images."""
    with zipfile.ZipFile(Path(__file__).parent / "format1" / "run.zip") as archive:
        archive.extractall(tmp_path / "run")
    (tmp_path / "images").mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 18, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
    written = tmp_path / "run" / "experiment.toml"
    written.write_text(written.read_text().replace("/photographs/images", (tmp_path / "images").as_posix()))
    text = (tmp_path / "run" / "old.toml").read_text()
    for before, after in [
        ("samples = 32", "queries = 32"), ("batch = 2", "batch_size = 2"), ("rate = 1e-2", "lr = 1e-2"),
        ("factor = 0.5", "gamma = 0.5"), ('source = "samples"', 'source = "skimage"'),
        ('use = "plain"', 'use = "identity"'), ("[profiles.samples]", "[profiles.quick]"),
        ('name = "samples"', 'name = "photographs"'),
    ]:  # fmt: skip
        assert text.count(before) == 1
        text = text.replace(before, after)
    (tmp_path / "new.toml").write_text(text)
    return tmp_path / "run"


def rendered(path, render):
    with torch.inference_mode():
        return load(path).encode(torch.from_numpy(render["inp"])).render((29, 23))


@pytest.mark.parametrize("name", ["mlp", "srno"])
def test_checkpoints_render_as_before(shared, name):
    """Bit for bit on the processor that made the files; others round otherwise."""
    path = shared / "golden" / f"format1-{name}.safetensors"
    render = np.load(path.with_suffix(".npz"))
    torch.testing.assert_close(rendered(path, render), torch.from_numpy(render["out"]), rtol=0, atol=2e-6)


@pytest.mark.parametrize("resaved", [False, True])
def test_an_old_checkpoint(old, registry, resaved):
    """The tolerance is for processors that round otherwise than the one that made the file."""
    path = old / "checkpoints" / "last.safetensors"
    if resaved:
        checkpoint = load_checkpoint(path)
        path = old / "again.safetensors"
        save_checkpoint(path, checkpoint)
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata()["format_version"] == ("2" if resaved else "1")
        assert ("decoder.told.weight" in file.keys()) is not resaved  # noqa: SIM118 (it is no mapping)
    render = np.load(old / "render.npz")
    assert (rendered(path, render) - torch.from_numpy(render["out"])).abs().max() < 1e-6

    checkpoint = load_checkpoint(path)
    found = structure(Experiment, checkpoint.experiment, registry, "x")  # the translated experiment is one of today
    assert (found.data.queries, found.train.batch_size, found.train.optimizer.lr) == (32, 2, 0.01)
    assert found.train.schedule == MultiStep((1,), 0.5) and found.evaluate[0].images == SkimageSource(("page",))
    assert (checkpoint.scale, checkpoint.step, checkpoint.plugins) == ((1.0, 2.0), 4, {"liif-core": "0.1.0"})


def with_metadata(path, **changes):
    """Rewrite the metadata of a safetensors file."""
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    safetensors.torch.save_file(safetensors.torch.load_file(path), path, {**metadata, **changes})


def test_the_digest_is_that_of_the_file_before_translation(old):
    path = old / "checkpoints" / "last.safetensors"
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata()["sha256"] == tensors_sha256(safetensors.torch.load_file(path))
    with_metadata(path, sha256=tensors_sha256(load_checkpoint(path).state))
    with pytest.raises(UserError, match="damaged: the weights do not have the SHA-256"):
        load_checkpoint(path)


def test_a_file_that_says_format_2_is_not_translated(old):
    path = old / "checkpoints" / "last.safetensors"
    with_metadata(path, format_version="2")
    with pytest.raises(UserError, match="'plain' is now called 'identity'"):
        load(path)


@pytest.mark.parametrize("experiment", ["[model]\ndecoder = 3", "data = 3\n[model]", "[model.decoder]\nuse = 3"])
def test_nonsense_in_an_old_file_is_still_a_message(old, experiment):
    path = old / "checkpoints" / "last.safetensors"
    with_metadata(path, experiment=experiment)
    with pytest.raises(UserError, match="model.encoder: required, but missing"):
        load(path)


def test_an_old_run_goes_on(old):
    """The state of the optimizer, the averaged weights and the position in the epoch are all taken over."""
    arguments = [old.parent / "new.toml", "--profile", "quick", "--out", old, "--resume", "--quiet"]
    result = CliRunner().invoke(liif_run, [str(argument) for argument in [*arguments, "--set", "train.seed=7"]])
    assert result.exit_code == 2 and "train.seed is 7 here, and " in result.output
    result = CliRunner().invoke(liif_run, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    expected = translate_weights(
        safetensors.torch.load_file(old / "finished.safetensors"), {"decoder": {"use": "srno"}}
    )
    found = safetensors.torch.load_file(old / "checkpoints" / "last.safetensors")
    assert found.keys() == expected.keys()
    assert all((found[name] - expected[name]).abs().max() < 1e-4 for name in found)
    steps = [json.loads(line)["step"] for line in (old / "metrics.jsonl").open()]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert tomllib.loads((old / "experiment.toml").read_text())["train"]["optimizer"]["lr"] == 0.01


def test_an_old_run_s_own_experiment_is_refused_with_the_new_keys(old, registry):
    for path in (old / "old.toml", old / "experiment.toml"):
        with pytest.raises(UserError) as refused:
            load_experiment(path, registry)
        assert sorted(line.removeprefix(f"{path}: ") for line in refused.value.problems) == [
            "data.samples: this key is now called 'queries'",
            "evaluate[0].images.source: 'samples' is now called 'skimage'",
            "model.features.use: 'plain' is now called 'identity'",
            "train.batch: this key is now called 'batch_size'",
            "train.optimizer.rate: this key is now called 'lr'",
            "train.schedule.factor: this key is now called 'gamma'",
        ]


# The table

EVERYTHING = {
    "name": "samples",
    "note": "samples, rate, batch and factor are words, too",
    "profile": "samples",
    "model": {
        "use": "mine", "samples": 3, "rate": 0.5, "batch": 2, "factor": 2, "source": "samples", "channels": 3,
        "decoder": {"use": "their:srno", "samples": 4, "schedule": {"factor": 1}},
    },
    "data": {"images": {"source": "samples", "names": ["samples"]}, "samples": 9, "patch": 3, "batch": 1},
    "train": {
        "batch": 4, "accumulate": 2, "optimizer": {"use": "adamw", "rate": 1e-3}, "ema": 0.9,
        "schedule": {"use": "multi-step", "factor": 0.1, "milestones": [3], "rate": 1},
    },
    "validate": {"images": {"source": "samples", "names": ["a"]}, "scale": [2, 3]},
    "evaluate": [
        {"name": "samples", "images": {"source": "samples", "names": ["a"]}, "scales": [2, [2, 3]]},
        {"name": "b", "images": {"source": "paired-folders", "hr": "samples", "lr": "l", "limit": 1}, "scales": [2]},
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    "use, expected", [("plain", "identity"), ("liif-core:plain", "identity"), ("their:plain", "their:plain")]
)
def test_components_that_were_renamed(use, expected):
    model = {"features": {"use": use}, "encoder": {"use": "plain"}}
    assert translate_experiment({"model": model}) == {"model": {**model, "features": {"use": expected}}}


def test_only_what_was_renamed_is_translated():
    before = json.dumps(EVERYTHING)
    found = translate_experiment(EVERYTHING)
    expected = json.loads(before)
    expected["data"]["queries"] = expected["data"].pop("samples")
    expected["train"]["batch_size"] = expected["train"].pop("batch")
    expected["train"]["optimizer"]["lr"] = expected["train"]["optimizer"].pop("rate")
    expected["train"]["schedule"]["gamma"] = expected["train"]["schedule"].pop("factor")
    for table in (expected["data"], expected["validate"], expected["evaluate"][0]):
        table["images"]["source"] = "skimage"
    assert found == expected
    assert json.dumps(EVERYTHING) == before
    assert translate_experiment(found) == found


@pytest.mark.parametrize("data", [{}, {"train": 3}, {"data": []}, {"evaluate": [3, [4]]}, {"data": {"images": {}}}])
def test_what_is_no_experiment_stays_as_it_is(data):
    assert translate_experiment(data) == data


def test_an_experiment_of_today_stays_as_it_is(registry, small):
    for profile in (None, "quick", "slower"):
        data = to_builtin(load_experiment(small, registry, profile))
        assert translate_experiment(data) == data


@pytest.mark.parametrize(
    "use, renamed", [("srno", True), ("liif-core:srno", True), ("their:srno", False), ("mlp", False)]
)
def test_parameters_of_srno(use, renamed):
    state = {"decoder.told.weight": 1, "decoder.first.told.bias": 2, "encoder.decoder.told.x": 3}
    found = translate_weights(state, {"decoder": {"use": use}})
    first = "decoder.condition.weight" if renamed else "decoder.told.weight"
    assert list(found) == [first, "decoder.first.told.bias", "encoder.decoder.told.x"]
    assert list(found.values()) == [1, 2, 3]
    assert translate_weights(found, {"decoder": {"use": use}}) == found


@pytest.mark.parametrize("model", [{}, {"use": "splat"}, {"decoder": 3}, {"decoder": {}}, {"decoder": {"use": [1]}}])
def test_models_without_such_a_decoder(model):
    assert translate_weights({"decoder.told.weight": 1}, model) == {"decoder.told.weight": 1}
