"""``--ensemble`` of ``liif upscale`` and ``liif evaluate``."""

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import liif_core
from liif_core.cli import liif


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def run(*arguments):
    return CliRunner().invoke(liif, [str(argument) for argument in arguments])


@pytest.mark.parametrize("count", [4, 8])
def test_upscale(photo, tmp_path, count):
    target = tmp_path / "large.png"
    done = run("upscale", photo, "-o", target, "--scale", "2.5", "--ensemble", count, "--quiet")
    assert done.exit_code == 0, done.output
    expected = liif_core.SelfEnsemble(liif_core.load("clean"), count).upscale(Image.open(photo), 2.5)
    assert np.abs(np.asarray(Image.open(target)).astype(int) - np.asarray(expected)).max() <= 1
    again = run("upscale", photo, "-o", target, "--scale", "2.5", "--quiet")
    assert again.exit_code == 2 and f"ensemble {count}" in again.output


def test_evaluate(photo, tmp_path):
    done = run("evaluate", "clean", "--hr", tmp_path, "--scale", 2, "--preset", "fair", "--ensemble", 4, "--quiet")
    assert done.exit_code == 0, done.output
    model = liif_core.SelfEnsemble(liif_core.load("clean"), 4)
    (score,) = liif_core.evaluate(model, tmp_path, 2, "fair")
    assert f"{score.psnr:.2f}" in done.output and "mean of 4 orientations" in done.output
    assert "bicubic like MATLAB's" in done.output


def test_another_number(photo, tmp_path):
    refused = run("upscale", photo, "-o", tmp_path / "x.png", "--scale", 2, "--ensemble", 3)
    assert refused.exit_code == 2 and "is not one of '4', '8'" in refused.output
