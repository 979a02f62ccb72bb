import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from evaluating import QUIET, Fake, noise
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import liif_core
from liif_core.data.sources import open_images
from liif_core.errors import UserError
from liif_core.evaluation import evaluate as evaluation
from liif_core.evaluation.evaluate import evaluate_set, evaluate_sets, open_sets
from liif_core.experiment.schema import EvaluationSet, FolderSource, PairedFoldersSource
from liif_core.model.continuous import ContinuousImage, ContinuousModel
from liif_core.sizes import Scale


class Nearest(ContinuousModel):
    """Repeats pixels, and remembers the sizes it was given and asked for."""

    def __init__(self, channels=3, gain=1.0):
        super().__init__()
        self.channels = channels
        self.gain = nn.Parameter(torch.tensor(gain))
        self.seen = []

    def encode(self, image):
        return NearestImage(self, image)


class NearestImage(ContinuousImage):
    def __init__(self, model, image):
        self.model, self.image, self.size = model, image, tuple(image.shape[-2:])
        self.channels, self.device = model.channels, image.device

    def query(self, where, cell=None):
        raise AssertionError("whole images are rendered")

    def render(self, size, region=None, clamp=False):
        assert not torch.is_grad_enabled() and not self.model.training
        self.model.seen.append((self.size, tuple(size)))
        return (F.interpolate(self.image, size, mode="nearest-exact") * self.model.gain).clamp(0, 1)


def rgb_psnr(a, b):
    error = np.mean((a.astype(np.float64) / 255 - b.astype(np.float64) / 255) ** 2)
    return -10 * np.log10(error)


def pil(image, size):
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))


def test_the_numbers_are_those_of_the_plain_recipe():
    image = noise(41, 50, 3)
    model = Nearest()
    images = Fake((image, noise(30, 30, 3)))
    two, three = evaluate_set(model, images, "noise", [Scale.of(2), Scale.of(3)], "rgb", **QUIET)
    assert (two.scale, three.scale) == (Scale.of(2), Scale.of(3))
    for score, s, size in [(two, 2, (20, 25)), (three, 3, (13, 16))]:
        target = image[: size[0] * s, : size[1] * s]
        low = pil(target, size)
        repeated = low.repeat(s, axis=0).repeat(s, axis=1)
        assert score.images["image-0"] == pytest.approx(rgb_psnr(repeated, target), abs=1e-4)
        assert score.bicubic_images["image-0"] == pytest.approx(rgb_psnr(pil(low, target.shape[:2]), target), abs=1e-4)
        assert score.psnr == pytest.approx(np.mean(list(score.images.values())))
        assert score.bicubic_psnr == pytest.approx(np.mean(list(score.bicubic_images.values())))
        assert (score.dataset, score.protocol, score.ssim, score.given_low) == ("noise", "rgb", None, 0)


@settings(max_examples=40, deadline=None)
@given(st.integers(24, 60), st.integers(24, 60), st.floats(1, 6), st.floats(1, 6))
def test_any_scale_has_sizes_that_match(height, width, y, x):
    model = Nearest()
    (score,) = evaluate_set(model, Fake((noise(height, width, 3),)), "noise", [Scale(y, x)], "benchmark", **QUIET)
    ((low, high),) = model.seen
    assert high[0] <= height and high[1] <= width
    assert high == tuple(math.floor(n * s + 0.5) for n, s in zip(low, (y, x)))
    assert high[0] > height - y - 1 and high[1] > width - x - 1
    assert score.bicubic_psnr > 5  # of noise against noise; infinite at x1


def test_given_lr_images_are_used_as_they_are():
    images = Fake((noise(21, 21, 3),), {(0, Scale.of(2)): noise(10, 10, 3, seed=1)})
    two, three = evaluate_set(Nearest(), images, "noise", [Scale.of(2), Scale.of(3)], "rgb", **QUIET)
    expected = noise(10, 10, 3, seed=1).repeat(2, axis=0).repeat(2, axis=1)
    assert two.psnr == pytest.approx(rgb_psnr(expected, noise(21, 21, 3)[:20, :20]), abs=1e-4)
    assert (two.given_low, three.given_low) == (1, 0)


def test_predictions_are_clamped_and_not_rounded():
    image = np.full((16, 16, 3), 100, dtype=np.uint8)
    (score,) = evaluate_set(Nearest(gain=1.001), Fake((image,)), "flat", [Scale.of(2)], "rgb", **QUIET)
    assert score.psnr == pytest.approx(-20 * math.log10(100 / 255 * 0.001), abs=0.01)
    (score,) = evaluate_set(Nearest(gain=3.0), Fake((image + 155,)), "white", [Scale.of(2)], "rgb", **QUIET)
    assert score.psnr == math.inf and score.bicubic_psnr == math.inf


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_images_of_any_number_of_channels(channels):
    model = Nearest(channels)
    (score,) = evaluate_set(model, Fake((noise(24, 24, channels),)), "noise", [Scale.of(2)], "div2k", **QUIET)
    assert math.isfinite(score.psnr)


def test_ssim_is_measured_where_asked_for():
    (score,) = evaluate_set(Nearest(), Fake((noise(40, 40, 3),)), "noise", [Scale.of(2)], "rgb", ssim=True, **QUIET)
    assert 0 < score.ssim < 1 and 0 < score.bicubic_ssim < 1


def test_the_picture_is_of_the_image_that_bicubic_finds_hardest(tmp_path, monkeypatch):
    asked = []

    def draw(*views, decibels):
        asked.append((views, decibels))
        return Image.new("RGB", (1, 1))

    monkeypatch.setattr(evaluation, "comparison_picture", draw)
    smooth = pil(noise(4, 4, 3), (32, 32))
    images = Fake((smooth, noise(32, 32, 3), smooth))
    scales = [Scale.of(2), Scale.of(3.8), Scale.of(8)]
    scores = evaluate_set(Nearest(), images, "noise", scales, "rgb", picture=tmp_path / "deep" / "noise.png", **QUIET)
    ((views, decibels),) = asked
    assert decibels == (scores[1].bicubic_images["image-1"], scores[1].images["image-1"])
    assert views[0].shape == (1, 3, 8, 8) and [v.shape for v in views[1:]] == [(1, 3, 30, 30)] * 3
    assert (tmp_path / "deep" / "noise.png").is_file()
    more = {"picture": tmp_path / "a.png", "picture_scale": scales[2]}
    evaluate_set(Nearest(), images, "noise", scales, "rgb", **more, **QUIET)
    assert asked[1][0][0].shape == (1, 3, 4, 4)


def test_everything_that_does_not_fit_is_named_before_anything_is_computed():
    model = Nearest()
    images = Fake((noise(40, 40, 3), noise(15, 40, 3), noise(40, 40, 3)), pair_scales=(2, 2, 2))
    images.low.update({(i, Scale.of(2)): noise(20 - 13 * (i == 1), 20, 3) for i in range(2)})
    with pytest.raises(UserError) as refused:
        evaluate_set(model, images, "set", [Scale.of(2)], "div2k", **QUIET)
    problems = refused.value.problems
    assert len(problems) == 2 and model.seen == []
    assert "set: image-1 at x2: 14 x 40 pixels" in problems[0] and "needs 17 x 17" in problems[0]
    assert "set: image-2 at x2: its LR image is of another scale" in problems[1] and "have 20 x 20" in problems[1]


def test_mistakes_of_the_caller():
    def refused(images, scale=2.0, protocol="rgb", **more):
        model = Nearest(images.arrays[0].shape[2])
        with pytest.raises(UserError) as raised:
            evaluate_set(model, images, "set", [Scale.of(scale)], protocol, **QUIET, **more)
        return raised.value.problems

    assert "too few for that scale" in refused(Fake((noise(5, 5, 3),)), 11.5)[0]
    assert "did you mean 'div2k'" in refused(Fake((noise(5, 5, 3),)), protocol="div2")[0]
    assert refused(Fake((noise(40, 40, 4),) * 9), protocol="benchmark") == (
        "set: protocol 'benchmark' compares images of 1 or 3 channels, these have 4; use 'rgb'",
    )
    assert "needs a GPU" in refused(Fake((noise(9, 9, 3),)), precision="fp16")[0]
    many = refused(Fake((noise(5, 5, 3),) * 30), 4, "benchmark")
    assert len(many) == 21 and "10 more" in many[-1]


def test_a_model_that_diverged_is_not_given_a_score():
    with pytest.raises(UserError, match="set: image-0 at x2: the model's output is not finite"):
        evaluate_set(Nearest(gain=math.nan), Fake((noise(9, 9, 3),)), "set", [Scale.of(2)], "rgb", **QUIET)


def test_progress_goes_to_stderr(capsys):
    evaluate_set(Nearest(), Fake((noise(9, 9, 3),)), "my set", [Scale.of(2)], "rgb", device="cpu")
    printed = capsys.readouterr()
    assert printed.out == "" and "my set" in printed.err
    evaluate_set(Nearest(), Fake((noise(9, 9, 3),)), "my set", [Scale.of(2)], "rgb", **QUIET)
    assert capsys.readouterr().err == ""


def saved(folder, count=2):
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(noise(40, 48, 3, seed=i)).save(folder / f"{i}.png")
    return FolderSource(folder)


def test_sets_that_are_not_here_are_skipped_and_named(tmp_path):
    here = EvaluationSet("My set: 1", saved(tmp_path / "here"), (Scale.of(2), Scale.of(4)), "rgb")
    absent = EvaluationSet("absent", FolderSource(tmp_path / "absent"), (Scale.of(2),), "rgb")
    opened, skipped = open_sets([absent, here], 3)
    scores = evaluate_sets(Nearest(), opened, out_dir=tmp_path / "out", **QUIET)
    assert [(score.dataset, score.scale, score.picture) for score in scores] == [
        ("My set: 1", Scale.of(2), ""),
        ("My set: 1", Scale.of(4), "pictures/My-set-1.png"),
    ]
    assert Image.open(tmp_path / "out" / scores[1].picture).width > 500
    ((name, reason),) = skipped
    assert name == "absent" and str(tmp_path / "absent") in reason
    scores = evaluate_sets(Nearest(), opened, **QUIET)
    assert [score.picture for score in scores] == ["", ""]


def test_what_is_wrong_with_all_sets_is_reported_together(tmp_path):
    images = saved(tmp_path / "here")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    sets = [
        EvaluationSet("set a", images, (Scale.of(2),), "rgb"),
        EvaluationSet("Set-A", images, (Scale.of(2),), "rgb"),
        EvaluationSet("broken", FolderSource(tmp_path / "broken"), (Scale.of(2),), "rgb"),
        EvaluationSet("large", images, (Scale.of(30),), "benchmark"),
    ]
    with pytest.raises(UserError) as refused:
        open_sets(sets, channels=3)
    text = str(refused.value)
    for part in ("'set a'", "'Set-A'", "a.png", "large: 0.png at x30", "large: 1.png at x30"):
        assert part in text


@pytest.fixture(scope="module")
def published(shared):
    return liif_core.load(shared / "checkpoints" / "edsr-baseline-liif.pth")


def reference(shared, scale):
    """PSNR of each image of Set5, by the number of the image."""
    listed = json.loads((shared / "golden" / "set5.json").read_text())[scale]["per_image"]
    return {name[:7]: value for name, value in listed.items()}


def assert_as_published(score, expected):
    assert score.images and len(score.images) == len(score.bicubic_images)
    for name, value in score.images.items():
        assert value == pytest.approx(expected[name[:7]], abs=0.005)
        assert score.bicubic_images[name] < value


def part(folder, to, *numbers):
    """Some images of Set5, those that are quick: a folder of links."""
    to.mkdir()
    for number in numbers:
        (to / f"img_00{number}.png").symlink_to(folder / f"img_00{number}.png")
    return to


def test_published_weights_on_given_lr_images(shared, published, tmp_path):
    set5 = shared / "data" / "set5" / "x2"
    hr, lr = (part(set5 / name, tmp_path / name, 3, 5) for name in ("HR", "LR"))
    images = open_images(PairedFoldersSource(hr, lr))
    (score,) = evaluate_set(published, images, "Set5", [Scale.of(2)], "benchmark", **QUIET)
    assert score.given_low == len(score.images) == 2
    assert_as_published(score, reference(shared, "x2"))


def test_published_weights_on_lr_images_made_here(shared, published, tmp_path):
    hr = part(shared / "data" / "set5" / "x2" / "HR", tmp_path / "HR", 3, 5)
    (score,) = evaluate_set(published, open_images(FolderSource(hr)), "Set5", [Scale.of(8)], "benchmark", **QUIET)
    assert score.given_low == 0 and len(score.images) == 2
    assert_as_published(score, reference(shared, "x8"))


@pytest.mark.gpu
def test_published_weights_on_a_gpu(shared, gpu):
    model = liif_core.load(shared / "checkpoints" / "edsr-baseline-liif.pth", gpu)
    images = open_images(FolderSource(shared / "data" / "set5" / "x2" / "HR"))
    scores = {
        precision: evaluate_set(
            model, images, "Set5", [Scale.of(8)], "benchmark", device=gpu, precision=precision, progress=False
        )[0]
        for precision in ("float32", "bf16")
    }
    assert_as_published(scores["float32"], reference(shared, "x8"))
    for name, value in scores["float32"].images.items():
        assert scores["bf16"].images[name] == pytest.approx(value, abs=0.02)
