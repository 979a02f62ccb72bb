"""``liif_core.load`` and ``--checkpoint``: a path, or the name of a model of an installed pack."""

import hashlib
import json

import numpy as np
import pytest
import strangers
import tiny
import torch
from click.testing import CliRunner
from PIL import Image

import liif_core
from liif_core import UserError, load_experiment
from liif_core.cli import liif
from liif_core.experiment.build import build_model
from liif_core.experiment.toml_file import plugins_of, to_builtin
from liif_core.training.checkpoint import Checkpoint, save_checkpoint

PACK = """
from pathlib import Path
from liif_core import NamedModel, hookimpl

@hookimpl
def liif_model_packs():
    return NamedModel(
        name="small-one", sha256={sha256!r}, size={size}, license="MIT", training_data="nothing",
        file=Path({file!r}), description="A small one.", scores={{"Set5 x2": 30.125}}, source="https://example.org",
    )
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, registry):
    """A checkpoint with fresh weights."""
    folder = tmp_path_factory.mktemp("checkpoint")
    spec = load_experiment(tiny.experiment_file(folder), registry).model
    torch.manual_seed(0)
    state = build_model(spec).state_dict()
    saved = Checkpoint(state, {"model": to_builtin(spec)}, scale=(1.0, 4.0), plugins=plugins_of(spec))
    save_checkpoint(folder / "file.safetensors", saved)
    return folder / "file.safetensors"


@pytest.fixture
def pack(checkpoint, tmp_path, monkeypatch):
    """The distribution ``a-pack`` with the model ``small-one``, installed; in a folder with images."""
    monkeypatch.delenv("LIIF_PLUGINS", raising=False)
    monkeypatch.setenv("LIIF_HOME", str(tmp_path / "home"))
    site, work = tmp_path / "site", tmp_path / "work"
    site.mkdir()
    data = checkpoint.read_bytes()
    source = PACK.format(sha256=hashlib.sha256(data).hexdigest(), size=len(data), file=str(checkpoint))
    strangers.install(site, "a-pack", source)
    monkeypatch.syspath_prepend(str(site))
    tiny.photographs(work / "images", count=2)
    monkeypatch.chdir(work)
    yield site
    strangers.forget()


def invoke(*arguments):
    result = CliRunner().invoke(liif, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def rendered(model):
    return model.upscale(torch.full((3, 5, 6), 0.25), scale=2)


@pytest.mark.parametrize("name", ["small-one", "a-pack:small-one"])
def test_by_name(pack, checkpoint, name):
    model = liif_core.load(name)
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert model.trained_scale == (1.0, 4.0) and {p.device.type for p in model.parameters()} == {"cpu"}
    assert torch.equal(rendered(model), rendered(liif_core.load(checkpoint)))
    assert torch.equal(rendered(model), rendered(liif_core.load(str(checkpoint), device=torch.device("cpu"))))


def test_a_file_is_preferred_to_a_name_and_a_folder_is_not(pack, checkpoint):
    (pack.parent / "work" / "small-one").mkdir()
    assert liif_core.load("small-one").channels == 3
    (pack.parent / "work" / "small-one").rmdir()
    (pack.parent / "work" / "small-one").write_text("not a checkpoint")
    with pytest.raises(UserError, match="small-one: neither a safetensors checkpoint nor"):
        liif_core.load("small-one")
    assert liif_core.load("a-pack:small-one").channels == 3


@pytest.mark.parametrize(
    "name, message",
    [
        ("smal-one", "smal-one: no such file, and no model is named 'smal-one' (did you mean 'small-one'?)"),
        ("images", "images: is a folder, and no model is named 'images'; installed: "),
        (
            "b-pack:small-one",
            "no such file, and no model is named 'b-pack:small-one' (did you mean 'small-one'?); no plu",
        ),
        ("missing.safetensors", "missing.safetensors: cannot be read: No such file or directory"),
        ("folder/small-one", "folder/small-one: cannot be read: No such file or directory"),
    ],
)
def test_what_is_neither(pack, name, message):
    with pytest.raises(UserError) as refused:
        liif_core.load(name)
    (problem,) = refused.value.problems
    assert message in problem


@pytest.mark.parametrize("device", ["tpu", "cuda:99", ""])
def test_a_device_that_is_not_here(pack, device):
    with pytest.raises(UserError, match="device: "):
        liif_core.load("small-one", device=device)


def test_a_pack_whose_file_was_changed(pack, checkpoint, tmp_path):
    module = next(pack.glob("*.py"))
    module.write_text(module.read_text().replace("size=", "size=1"))
    with pytest.raises(UserError, match="model 'small-one' of a-pack 1.0: .* is not the expected file"):
        liif_core.load("small-one")
    result = invoke("upscale", "images/picture-0.png", "-o", "out.png", "--scale", "2", "--checkpoint", "small-one")
    assert result.exit_code == 2 and "is not the expected file" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("name", ["small-one", "a-pack:small-one"])
def test_upscale_with_a_name(pack, checkpoint, name):
    for given, file in ((name, "by-name.png"), (checkpoint, "by-path.png")):
        result = invoke(
            "upscale", "images/picture-0.png", "-o", file, "--scale", "1.5", "--checkpoint", given, "--quiet"
        )
        assert result.exit_code == 0, result.output
    by_name, by_path = (np.asarray(Image.open(file)) for file in ("by-name.png", "by-path.png"))
    assert by_name.shape == (72, 84, 3) and np.array_equal(by_name, by_path)


def test_evaluate_with_a_name(pack, checkpoint):
    results = []
    for given in ("small-one", checkpoint):
        result = invoke("evaluate", given, "--hr", "images", "--scale", "2", "--quiet", "--json", "out.json")
        assert result.exit_code == 0, result.output
        with open("out.json", "rb") as file:
            results.append(json.load(file)["results"])
    assert results[0] == results[1] and results[0][0]["psnr"] > 5


@pytest.mark.parametrize("command", ["upscale", "evaluate"])
def test_commands_with_an_unknown_name(pack, command):
    upscale = ["upscale", "images", "--out-dir", "out", "--scale", "2", "--checkpoint", "smal-one"]
    result = invoke(*(upscale if command == "upscale" else ["evaluate", "smal-one", "--hr", "images", "--scale", "2"]))
    assert result.exit_code == 2 and "Traceback" not in result.output
    assert "no model is named 'smal-one' (did you mean 'small-one'?)" in result.output


def test_plugins_shows_the_model_and_its_example_works(pack, checkpoint):
    listed = invoke("plugins").output.splitlines()
    place = listed.index("  small-one  (a-pack 1.0)")
    assert place > listed.index("trained models:")
    size = f"{checkpoint.stat().st_size / 1e6:.1f} MB"
    assert listed[place + 1] == f"      MIT, {size}, trained on nothing"
    text = invoke("plugins", "small-one").output
    for part in ("    A small one.", f"file: {checkpoint}", "published at: https://example.org", "Set5 x2: 30.12 dB"):
        assert part in text
    code, command = text.partition("example:\n\n")[2].splitlines()
    Image.open("images/picture-1.png").save("photo.jpg")
    scope = {"liif_core": liif_core}
    exec(code, scope)
    assert scope["model"].channels == 3
    program, *arguments = command.split()
    assert program == "liif" and invoke(*arguments).exit_code == 0
    assert Image.open("large.png").size == (112, 96)
    (data,) = json.loads(invoke("plugins", "small-one", "--json").output)
    assert data["kind"] == "trained model" and data["file"] == str(checkpoint) and data["scores"] == {"Set5 x2": 30.125}
