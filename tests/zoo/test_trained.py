"""The models that ship with liif-core: their size, what they are made from, and what they do to pictures."""

import io
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import liif_core
import liif_zoo.trained
from liif_core.cli import liif
from liif_core.experiment.schema import Experiment
from liif_core.experiment.toml_file import to_builtin
from liif_core.experiment.validation import structure

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
PACKS = {model.name: model for model in liif_zoo.trained.liif_model_packs()}
NAMES = ["clean", "photo"]


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def models():
    return {name: liif_core.load(name) for name in NAMES}


def test_they_fit_into_4_megabytes():
    assert set(PACKS) == set(NAMES)
    assert sum(model.size for model in PACKS.values()) <= 4_000_000


def test_a_file_is_what_its_experiment_makes(name, registry):
    written = liif_core.load_checkpoint(PACKS[name].file).experiment
    found = to_builtin(structure(Experiment, written, registry, ""))  # with options that came later at their defaults
    expected = to_builtin(liif_core.load_experiment(EXPERIMENTS / f"{name}.toml", registry))
    assert written["data"]["images"] == {"source": "folder", "path": "../data/photographs"}
    del found["data"]["images"], expected["data"]["images"]  # with the path of this machine
    for experiment in (found, expected):
        given = experiment["train"].get("start_from", {})
        if "checkpoint" in given:
            given["checkpoint"] = Path(given["checkpoint"]).parts[-4:]
    for table in ("model", "data", "train"):
        assert found[table] == expected[table], table


def test_a_file_names_no_folder_of_the_machine_that_made_it(name):
    data = PACKS[name].file.read_bytes()
    for folder in ("/root", "/home", "/tmp", str(Path.home()), str(EXPERIMENTS.parents[1])):
        assert folder.encode() not in data
    header = data[8 : 8 + int.from_bytes(data[:8], "little")]  # of a safetensors file; weights may look like anything
    assert not re.search(rb'"/\w|"[A-Za-z]:[/\\]', header)  # no absolute path of another machine either


def test_scores_are_those_of_set5(name, shared):
    folder, model = shared / "data" / "set5", liif_core.load(name)
    for scale in (2, 3, 4):
        (score,) = liif_core.evaluate(model, folder / f"x{scale}" / "HR", scale, lr=folder / f"x{scale}" / "LR")
        assert score.psnr == pytest.approx(PACKS[name].scores[f"Set5 x{scale}"], abs=0.02)


def photographs():
    skimage = pytest.importorskip("skimage.data")
    return [Image.fromarray(getattr(skimage, name)()).convert("RGB") for name in ("astronaut", "chelsea", "coffee")]


def shrunk(image, scale):
    whole = image.crop((0, 0, image.width // scale * scale, image.height // scale * scale))
    return whole, whole.resize((whole.width // scale, whole.height // scale), Image.Resampling.BICUBIC)


def compressed(image, quality):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def psnr(large, true, scale):
    a, b = (torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255 for image in (large, true))
    return liif_core.psnr(a, b, protocol="rgb", scale=scale)


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("quality", [None, 40, 75])
def test_a_photograph_is_clearly_better_than_by_bicubic_interpolation(models, scale, quality):
    """'clean' on shrunk photographs, 'photo' on compressed ones, of which 'clean' enlarges the errors, too."""
    gains = {name: [] for name in NAMES}
    for image in photographs():
        true, low = shrunk(image, scale)
        low = low if quality is None else compressed(low, quality)
        reference = psnr(low.resize(true.size, Image.Resampling.BICUBIC), true, scale)
        for name, model in models.items():
            gains[name].append(psnr(model.upscale(low, width=true.width, height=true.height), true, scale) - reference)
    clean, photo = (np.mean(gains[name]) for name in NAMES)
    if quality is None:
        assert clean > 1.0 and photo > clean - 0.25
    else:
        assert photo > 0.25 and photo > clean + 0.3, (photo, clean)


def test_scale_1_keeps_an_image(models):
    image = photographs()[1]
    assert psnr(models["clean"].upscale(image, scale=1), image, 1) > 40


def test_the_command_without_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    true, low = shrunk(photographs()[0].crop((150, 50, 310, 210)), 4)
    low.save("low.png"), low.save("low.jpg")
    for source, used in (("low.png", "clean"), ("low.jpg", "photo")):
        result = CliRunner().invoke(liif, ["upscale", source, "-o", f"{used}.png", "--scale", "4"])
        assert result.exit_code == 0 and result.output.startswith(f"model '{used}': {source} "), result.output
        large = Image.open(f"{used}.png")
        assert large.size == true.size
        simple = Image.open(source).convert("RGB").resize(true.size, Image.Resampling.BICUBIC)
        assert psnr(large, true, 4) > psnr(simple, true, 4)


def test_experiment_files_are_complete():
    for name in NAMES:
        table = tomllib.loads((EXPERIMENTS / f"{name}.toml").read_text())
        assert table["name"] == name
