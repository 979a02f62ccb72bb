"""``liif upscale`` without ``--checkpoint``: an included model for each file, or a clear error; ``--model``."""

import hashlib
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from reference import SMALL_TABLE, small_model

import liif_core
import liif_zoo.trained
from liif_core.cli import liif
from liif_core.models import choosing
from liif_core.training.checkpoint import Checkpoint, save_checkpoint

OTHERWISE = "; --model or --checkpoint chooses another"
CARD = {"license": "CC0-1.0", "training_data": "nothing"}


def include(folder, registry, name, seed):
    """Put a model into the folder of those that ship with liif-core."""
    torch.manual_seed(seed)
    model = small_model(registry, hidden=(8,), residual="bilinear")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * seed * torch.randn_like(parameter))
    file = folder / f"{name}.safetensors"
    save_checkpoint(file, Checkpoint(model.state_dict(), {"name": name, "model": SMALL_TABLE}))
    data = file.read_bytes()
    card = CARD | {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    file.with_suffix(".json").write_text(json.dumps(card))
    return file


@pytest.fixture
def box(tmp_path, monkeypatch):
    """The folder of the models that ship with liif-core, empty; images of several formats in the current folder."""
    folder, work = tmp_path / "box", tmp_path / "work"
    folder.mkdir(), work.mkdir()
    monkeypatch.setattr(liif_zoo.trained, "FOLDER", folder)
    monkeypatch.chdir(work)
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    noise = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((18, 14), Image.Resampling.BICUBIC)
    for name, options in (("a.jpg", {}), ("b.png", {}), ("c.webp", {}), ("d.webp", {"lossless": True})):
        picture.save(name, **options)
    return folder


@pytest.fixture
def both(box, registry):
    return {name: include(box, registry, name, seed) for seed, name in enumerate(("clean", "photo"), 1)}


def invoke(*arguments, code=0):
    result = CliRunner().invoke(liif, ["upscale", *map(str, arguments), "--scale", "2", "--quiet"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    return result.output.splitlines()


def rendered(checkpoint, image):
    return np.asarray(liif_core.load(checkpoint).upscale(Image.open(image), scale=2))


@pytest.mark.parametrize(
    "image, name, why",
    [
        ("a.jpg", "photo", "is compressed with losses (JPEG)"),
        ("c.webp", "photo", "is compressed with losses (lossy WebP)"),
        ("b.png", "clean", "is not compressed with losses"),
        ("d.webp", "clean", "is not compressed with losses"),
    ],
)
def test_the_model_fits_the_file_and_the_first_line_says_why(both, image, name, why):
    first, *_ = invoke(image, "-o", "out.png")
    assert first == f"model '{name}': {image} {why}{OTHERWISE}"
    found = np.asarray(Image.open("out.png"))
    assert np.array_equal(found, rendered(both[name], image))
    assert not np.array_equal(found, rendered(both["clean" if name == "photo" else "photo"], image))


def test_files_of_both_kinds_and_each_model_is_loaded_once(both, monkeypatch):
    loaded, load = [], choosing.load_file
    monkeypatch.setattr(choosing, "load_file", lambda path, *rest: loaded.append(path) or load(path, *rest))
    first, *_ = invoke("a.jpg", "b.png", "c.webp", "--out-dir", "out", "--json", "log.json")
    assert first == (
        "model 'photo' for 2 files compressed with losses (JPEG, lossy WebP), "
        f"model 'clean' for 1 file without such losses{OTHERWISE}"
    )
    assert sorted(loaded) == [both["clean"], both["photo"]]
    with open("log.json") as file:
        names = {result["input"]: result["model"] for result in json.load(file)["results"]}
    assert names == {"a.jpg": "photo", "b.png": "clean", "c.webp": "photo"}
    assert np.array_equal(np.asarray(Image.open("out/b.png")), rendered(both["clean"], "b.png"))


def test_only_what_is_needed_is_loaded(box, registry, both):
    both["photo"].write_bytes(b"damaged")
    assert invoke("b.png", "-o", "out.png")[0].startswith("model 'clean'")
    (line,) = invoke("a.jpg", "-o", "no.png", code=2)
    assert "model 'photo' of liif-core" in line and "is not the expected file" in line


@pytest.mark.parametrize("option", ["--model", "--checkpoint"])
def test_a_model_that_is_named_decides(both, option):
    lines = invoke("a.jpg", "-o", "out.png", option, "clean")
    assert not any("losses" in line for line in lines)
    assert np.array_equal(np.asarray(Image.open("out.png")), rendered(both["clean"], "a.jpg"))
    for given in ("clean", "liif-core:clean"):
        assert np.array_equal(rendered(given, "a.jpg"), np.asarray(Image.open("out.png")))


def test_model_is_a_name_and_never_a_file(both, tmp_path):
    (tmp_path / "work" / "photo").write_text("no checkpoint")
    invoke("b.png", "-o", "out.png", "--model", "photo")
    (line,) = invoke("b.png", "-o", "no.png", "--model", both["photo"], code=2)
    assert line.startswith("error: no model is named ") and line.count("photo.safetensors") == 1
    (line,) = invoke("b.png", "-o", "no.png", "--model", "phot", code=2)
    assert "no model is named 'phot' (did you mean 'photo'?)" in line


def test_model_and_checkpoint_together(both):
    (line,) = invoke("a.jpg", "-o", "no.png", "--model", "clean", "--checkpoint", both["photo"], code=2)
    assert line == "error: expected one of --checkpoint FILE and --model NAME, got both"


def test_a_model_that_is_not_included(box, registry, tmp_path):
    advice = "'liif models' lists the models that are installed or can be fetched"
    start = "error: expected --checkpoint FILE or --model NAME: this version of liif-core includes no model named"
    assert invoke("a.jpg", "b.png", "--out-dir", "out", code=2) == [
        f"{start} 'photo' (for a.jpg) or 'clean' (for b.png); {advice}"
    ]
    include(box, registry, "clean", 1)
    assert invoke("a.jpg", "b.png", "--out-dir", "out", code=2) == [f"{start} 'photo' (for a.jpg); {advice}"]
    assert not (tmp_path / "work" / "out").exists()
    invoke("b.png", "--out-dir", "out")


def test_processes_choose_for_their_own_files(both, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, name in ((0, "photo"), (1, "clean")):
        monkeypatch.setenv("RANK", str(rank))
        assert invoke("a.jpg", "b.png", "--out-dir", "out")[1].startswith(f"model '{name}': ")


def test_what_ships_is_described_truly():
    """Of the files that are in the repository, if any: each has a card, and size and hash are those of the file."""
    folder = liif_zoo.trained.FOLDER
    assert {file.stem for file in folder.glob("*.safetensors")} == {file.stem for file in folder.glob("*.json")}
    for model in liif_zoo.trained.liif_model_packs():
        data = model.file.read_bytes()
        assert (model.size, model.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert model.description and model.scores


def test_a_process_without_files_says_so(both, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    result = CliRunner().invoke(liif, ["upscale", "b.png", "-o", "out.png", "--scale", "2"])
    assert (
        result.exit_code == 0 and "RANK=1 and WORLD_SIZE=2 are set: this process renders 0 of 1 files" in result.stderr
    )
