"""Plugins that are distributions of their own: built, installed beside liif-core, used, tested; and missed."""

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
import tiny
from PIL import Image

from liif_core import load_checkpoint

ROOT = Path(__file__).parents[1]
QUICK = ["--profile", "quick"]
TRAINED = {  # distribution -> the arguments of an experiment that uses it, and where it is named there
    "liif-rdn": (["experiments/rdn_liif.toml", *QUICK], "model.encoder.use: no encoder is named 'liif-rdn:rdn'"),
    "liif-lte": (
        ["experiments/edsr_lte.toml", *QUICK, "--set", "model.decoder.use=liif-lte:lte"],
        "model.decoder.use: no decoder is named 'liif-lte:lte'",
    ),
    "liif-splat": (
        ["splat.toml", "--set", "model.use=liif-splat:splat", "--set", "model.width=8"],
        "model.use: no model is named 'liif-splat:splat'",
    ),
    "liif-jpeg": (
        ["experiments/edsr_liif.toml", *QUICK, "--set", 'data.degradation={use="liif-jpeg:jpeg", quality=[30, 90]}'],
        "data.degradation.use: no degradation is named 'liif-jpeg:jpeg'",
    ),
}
PACKS = {"liif-tiny": "edsr-liif-tiny"}  # distribution -> a trained model that it offers
EXAMPLES = [*TRAINED, *PACKS]


def test_every_example_is_here():
    assert {path.parent.name for path in ROOT.glob("plugins/*/pyproject.toml")} == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_needs_liif_core_alone(name):
    """So that pip touches no torch that a machine has."""
    project = tomllib.loads((ROOT / "plugins" / name / "pyproject.toml").read_text())["project"]
    assert project["name"] == name and project["dependencies"] == ["liif-core"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Copies of the distributions' folders: builds leave files beside what they build."""
    folder = tmp_path_factory.mktemp("sources")
    clutter = shutil.ignore_patterns("__pycache__", "build", "*.egg-info", ".pytest_cache")
    core = folder / "liif-core"
    for name in ("liif_core", "plugins/liif_paper", "plugins/liif_zoo"):
        shutil.copytree(ROOT / name, core / name, ignore=clutter)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, core)
    for name in EXAMPLES:
        shutil.copytree(ROOT / "plugins" / name, folder / name, ignore=clutter)
    return folder


def pip(*arguments):
    done = subprocess.run([sys.executable, "-m", "pip", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheels(sources, tmp_path_factory):
    """distribution -> its wheel."""
    for name, least in {"pip": 23, "setuptools": 77}.items():
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"no {name} in this environment, and nothing is fetched for a test")
        if int(importlib.metadata.version(name).split(".")[0]) < least:
            pytest.skip(f"the {name} in this environment is older than {least}")
    folder = tmp_path_factory.mktemp("wheels")
    pip("wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder, *sources.iterdir())
    return {path.name.split("-")[0].replace("_", "-"): path for path in folder.glob("*.whl")}


def environment(folder, *chosen):
    """A fresh virtual environment with some wheels; it borrows torch and all else from this one. Its python."""
    venv.create(folder, with_pip=False)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip("--python", python, "install", "-q", "--no-deps", "--no-index", *chosen)
    (own,) = folder.rglob("site-packages")
    assert {"torch", "torchvision"}.isdisjoint(path.name for path in own.iterdir())
    borrowed = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (own / "borrowed.pth").write_text("\n".join(borrowed))
    return python


@pytest.fixture(scope="module")
def full(wheels, tmp_path_factory):
    return environment(tmp_path_factory.mktemp("full"), *wheels.values())


@pytest.fixture(scope="module")
def bare(wheels, tmp_path_factory):
    return environment(tmp_path_factory.mktemp("bare"), wheels["liif-core"])


@pytest.fixture
def place(tmp_path):
    """A folder with the experiments and some images, away from the clone."""
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    shutil.copy(ROOT / "plugins" / "liif-splat" / "splat.toml", tmp_path)
    tiny.photographs(tmp_path / "images")
    return tmp_path


def run(python, *arguments, folder, **variables):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LIIF_"))}
    return subprocess.run(
        [str(python), *map(str, arguments)],
        cwd=folder,
        env={**clean, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )


def version_of(name):
    return tomllib.loads((ROOT / "plugins" / name / "pyproject.toml").read_text())["project"]["version"]


@pytest.mark.parametrize("name", TRAINED)
def test_two_steps(name, full, place):
    images = 'images={source="folder", path="images"}'
    changes = [
        f"data.{images}",
        "data.patch=8",
        "data.repeat=1",
        "data.queries=16",
        "train.batch_size=2",
        "train.epochs=1",
    ]
    changes += [f"validate.{images}", "validate.every=1", f'evaluate=[{{name="few", scales=[2.5], {images}}}]']
    overrides = [part for change in changes for part in ("--set", change)]
    options = ["--out", "out", "--device", "cpu", "--quiet"]
    done = run(full, "-m", "liif_core", "run", *TRAINED[name][0], *options, *overrides, folder=place)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((place / "out" / "report.json").read_text())
    assert report["trained"]["steps"] == 2 and [r["scale"] for r in report["results"]] == [2.5]
    assert report["versions"][name] == version_of(name)
    checkpoint = place / "out" / "checkpoints" / "last.safetensors"
    if name != "liif-jpeg":  # the model needs no degradation
        assert load_checkpoint(checkpoint).plugins[name] == version_of(name)
    arguments = ["images/picture-0.png", "-o", "large.png", "--scale", "1.5", "--checkpoint", checkpoint]
    done = run(full, "-m", "liif_core", "upscale", *arguments, folder=place)
    assert done.returncode == 0 and Image.open(place / "large.png").size == (84, 72), done.stderr


@pytest.mark.parametrize("name, model", PACKS.items())
def test_a_model_of_a_pack(name, model, full, place):
    arguments = ["images/picture-0.png", "-o", "large.png", "--scale", "1.5", "--checkpoint", model]
    done = run(full, "-m", "liif_core", "upscale", *arguments, folder=place)
    assert done.returncode == 0 and Image.open(place / "large.png").size == (84, 72), done.stderr
    done = run(full, "-m", "liif_core", "plugins", model, "--json", folder=place)
    (shown,) = json.loads(done.stdout)
    assert (shown["distribution"], shown["version"]) == (name, version_of(name))
    assert Path(shown["file"]).is_relative_to(full.parents[1]) and Path(shown["file"]).stat().st_size == shown["size"]


@pytest.mark.parametrize("name", ["rdn_lte", "rdn_srno"])
def test_other_compositions_of_an_example(name, full, place):
    done = run(full, "-m", "liif_core", "run", f"experiments/{name}.toml", "--check", *QUICK, folder=place)
    assert done.returncode == 0 and "parameters: " in done.stdout, done.stderr


def missed_here(name):
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return
    pytest.skip(f"{name} is installed here, and the fresh environment would see a part of it")


@pytest.mark.parametrize("name", EXAMPLES)
def test_without_it_the_message_says_what_to_install(name, bare, place):
    missed_here(name)
    if name in TRAINED:
        arguments, named = ["run", *TRAINED[name][0], "--check"], TRAINED[name][1]
    else:
        use = f"{name}:{PACKS[name]}"
        arguments = ["upscale", "images/picture-0.png", "-o", "large.png", "--scale", "2", "--checkpoint", use]
        named = f"{use}: no such file, and no model is named '{use}'"
    done = run(bare, "-m", "liif_core", *arguments, folder=place)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    assert named in line
    assert f"the distribution '{name}' is " in line and f"pip install plugins/{name}" in line


@pytest.mark.parametrize("name", EXAMPLES)
def test_its_own_tests_pass(name, full, sources, tmp_path):
    shared = os.environ.get("LIIF_SHARED", str(ROOT.parent / "shared"))
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", sources / name]
    done = run(full, *arguments, folder=tmp_path, LIIF_SHARED=shared)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
