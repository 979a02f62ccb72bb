"""LPIPS against its formula, and what a protocol measures besides PSNR where it can."""

import csv
import io
import json
import re
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from evaluating import QUIET, Fake, noise
from reference import small_model

import liif_core
from liif_core.evaluation import metrics, perceptual
from liif_core.evaluation.circumstances import Circumstances
from liif_core.evaluation.evaluate import evaluate_set
from liif_core.evaluation.report import scores_table
from liif_core.evaluation.result_files import append_results, read_results
from liif_core.evaluation.results import Subject, result_of
from liif_core.evaluation.scores import results, results_csv
from liif_core.evaluation.similarity import NotMeasured, besides
from liif_core.sizes import Scale

pytestmark = pytest.mark.skipif(find_spec("lpips") is None, reason="needs lpips")
_SHIFT, _DIVISOR = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


def random(*shape, seed=2):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def formula(first, second, alexnet):
    """The distance of the paper: of all layers, the weighted squares of the differences of unit vectors, averaged."""
    weights = torch.load(alexnet)
    last = torch.load(Path(find_spec("lpips").origin).parent / "weights" / "v0.1" / "alex.pth", map_location="cpu")
    layers = [(0, 4, 2, False), (3, 1, 2, True), (6, 1, 1, True), (8, 1, 1, False), (10, 1, 1, False)]
    pictures = [
        (2 * image - 1 - torch.tensor(_SHIFT).view(3, 1, 1)) / torch.tensor(_DIVISOR).view(3, 1, 1)
        for image in (first, second)
    ]
    total = 0
    for number, (layer, stride, padding, pooled) in enumerate(layers):
        units = []
        for i, picture in enumerate(pictures):
            picture = F.max_pool2d(picture, 3, 2) if pooled else picture
            kernel, bias = weights[f"features.{layer}.weight"], weights[f"features.{layer}.bias"]
            pictures[i] = F.relu(F.conv2d(picture, kernel, bias, stride, padding))
            units.append(pictures[i] / (pictures[i].square().sum(1, keepdim=True).sqrt() + 1e-10))
        total += F.conv2d((units[0] - units[1]).square(), last[f"lin{number}.model.1.weight"]).mean()
    return total.item()


@pytest.fixture
def model(registry):
    return small_model(registry, residual="bilinear").eval().requires_grad_(False)


@pytest.mark.parametrize("size", [(31, 31), (64, 80)])
def test_lpips_is_its_formula(alexnet, size):
    first, second = random(1, 3, *size), random(1, 3, *size, seed=3)
    found = perceptual.distance(first, second)
    assert found == pytest.approx(formula(first, second, alexnet), rel=1e-4) and found > 0.01
    assert perceptual.distance(first, first) == 0


def test_lpips_leaves_out_the_border_and_takes_gray(alexnet):
    first, second = random(1, 3, 60, 50), random(1, 3, 60, 50, seed=3)
    inside = ..., slice(4, -4), slice(3, -3)
    expected = formula(first[inside], second[inside], alexnet)
    assert metrics.lpips(first, second, "fair", (4, 3)) == pytest.approx(expected, rel=1e-4)
    gray, other = first[:, :1], second[:, :1]
    expected = formula(gray.expand(-1, 3, -1, -1), other.expand(-1, 3, -1, -1), alexnet)
    assert metrics.lpips(gray, other, "rgb") == pytest.approx(expected, rel=1e-4)


def test_what_lpips_refuses(monkeypatch):
    with pytest.raises(ValueError, match="LPIPS: it needs 31 pixels a side inside the border, and an image has 30"):
        metrics.lpips(random(3, 30, 60), random(3, 30, 60))
    with pytest.raises(ValueError, match="LPIPS: it compares images of 1 or 3 channels, these have 2"):
        metrics.lpips(random(2, 60, 60), random(2, 60, 60))
    monkeypatch.setattr(perceptual, "installed", lambda: False)
    with pytest.raises(liif_core.UserError, match="pip install 'liif-core.lpips.'"):
        metrics.lpips(random(3, 60, 60), random(3, 60, 60))


def test_what_one_process_cannot_measure_none_does(model):
    """Of two processes, one without LPIPS: it is left out for all, and the first says why."""

    class Two:
        first, size = True, 2

        def share(self, count):
            return range(count)

        def together(self, work):
            own = work()
            if isinstance(own[0], tuple):  # what can be measured, and why not the rest
                return [own, [(names - {"lpips"}, ["noise at x2: LPIPS is left out: offline"]) for names, _ in own]]
            return [own]

    images = Fake((noise(80, 84, 3),))
    with pytest.warns(NotMeasured, match="^noise at x2: LPIPS is left out: offline$"):
        (score,) = evaluate_set(model, images, "noise", [Scale.of(2)], "fair", processes=Two(), **QUIET)
    assert score.lpips is None and score.ssim is not None


def test_fair_measures_what_is_installed(model):
    images = Fake((noise(80, 84, 3), noise(80, 88, 3, seed=1)))
    fair, luma, plain = evaluate_set(model, images, "noise", [Scale.of(2)], ["fair", "fair-y", "benchmark"], **QUIET)
    assert fair.ssim is not None and luma.ssim is not None and plain.ssim is None
    assert fair.lpips == pytest.approx(np.mean(list(fair.lpips_images.values()))) and fair.lpips > 0
    assert fair.bicubic_lpips == pytest.approx(np.mean(list(fair.bicubic_lpips_images.values())))
    assert luma.lpips is None and plain.lpips is None and not luma.lpips_images


def test_lpips_in_tables_and_files(model, tmp_path):
    (score,) = evaluate_set(model, Fake((noise(80, 84, 3),)), "noise", [Scale.of(2)], "fair", **QUIET)
    table = scores_table([score], "model")
    assert "PSNR (dB) / SSIM / LPIPS" in table
    assert f"{score.psnr:.2f} / {score.ssim:.4f} / {score.lpips:.4f}" in table
    assert f"{score.bicubic_psnr:.2f} / {score.bicubic_ssim:.4f} / {score.bicubic_lpips:.4f}" in table
    (row,) = csv.DictReader(io.StringIO(results_csv([score])))
    assert float(row["lpips"]) == score.lpips and float(row["bicubic_lpips"]) == score.bicubic_lpips
    (plain,) = results([score])
    assert plain["lpips"] == score.lpips and plain["bicubic"]["lpips"] == score.bicubic_lpips
    place = Circumstances("0" * 64, {"cpu": "x", "cores": 1, "torch": "2", "device": "cpu"}, "float32", "")
    append_results(tmp_path / "r.jsonl", [result_of(score, Subject("model", "parts"), place)])
    (read,) = read_results(tmp_path / "r.jsonl")
    assert (read.lpips, read.bicubic_lpips, read.ssim) == (score.lpips, score.bicubic_lpips, score.ssim)
    assert json.loads((tmp_path / "r.jsonl").read_text())["mean"]["lpips"] == score.lpips


@pytest.mark.parametrize("missing", ["ssim", "lpips"])
def test_what_is_not_installed_is_not_measured(monkeypatch, missing):
    module, name = (metrics, "ssim_installed") if missing == "ssim" else (perceptual, "installed")
    monkeypatch.setattr(module, name, lambda: False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = besides("fair", Scale.of(2), [(80, 80)], 3, False, "here")
    assert found == ({"ssim", "lpips"} - {missing}, [])


@pytest.mark.parametrize(
    "size, channels, found, said",
    [
        (
            (20, 90),
            3,
            {"ssim"},
            "here at x2: LPIPS is left out: it needs 31 pixels a side .* has 16",
        ),
        ((12, 90), 3, set(), "here at x2: SSIM is left out: it needs 11 pixels a side inside the border, .* has 8"),
        ((90, 90), 4, {"ssim"}, "LPIPS is left out: it compares images of 1 or 3 channels, these have 4"),
    ],
)
def test_what_does_not_fit_is_left_out_and_said(size, channels, found, said):
    measured, reasons = besides("fair", Scale.of(2), [(90, 90), size], channels, False, "here")
    assert measured == found and any(re.search(said, reason) for reason in reasons)
    assert len(reasons) == 2 - len(found)


def test_a_network_that_cannot_be_loaded_is_said(monkeypatch, model):
    perceptual.unusable.cache_clear()

    def offline():
        raise OSError("no route to\nhost")

    monkeypatch.setattr(perceptual, "_network", offline)
    with pytest.warns(NotMeasured, match=r"LPIPS is left out: .* loaded \(OSError: no route to host\)"):
        (score,) = liif_core.evaluate(model, [random(3, 60, 60)], 2, "fair")
    assert score.lpips is None and score.ssim is not None
    perceptual.unusable.cache_clear()
