"""``liif_core.evaluate`` gives the numbers of ``liif evaluate``, for images of every kind."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from reference import small_model

import liif_core
from liif_core.data.sources import open_images
from liif_core.evaluation.evaluate import evaluate_set
from liif_core.experiment.schema import FolderSource
from liif_core.sizes import Scale


@pytest.fixture
def model(registry):
    return small_model(registry)


@pytest.fixture
def folder(tmp_path):
    for i, size in enumerate([(24, 31), (33, 27)]):
        pixels = np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    return tmp_path


def paths(folder):
    return sorted(folder.glob("*.png"))


def arrays(folder):
    return [np.array(Image.open(path)) for path in paths(folder)]


def psnrs(scores):
    return [(str(score.scale), list(score.images.values()), list(score.bicubic_images.values())) for score in scores]


def test_every_kind_of_image_gives_the_same_numbers(model, folder):
    scales = [2, 2.5, (2, 3.0)]
    reference = evaluate_set(
        model,
        open_images(FolderSource(folder)),
        "x",
        [Scale.of(s) for s in scales],
        "rgb",
        device="cpu",
        progress=False,
    )
    kinds = [
        folder, str(folder), paths(folder), [str(path) for path in paths(folder)],
        [Image.open(path) for path in paths(folder)], arrays(folder), (array for array in arrays(folder)),
        [torch.from_numpy(array).permute(2, 0, 1) for array in arrays(folder)],
        [torch.from_numpy(array).permute(2, 0, 1) / 255 for array in arrays(folder)],
    ]  # fmt: skip
    for images in kinds:
        assert psnrs(liif_core.evaluate(model, images, scales, protocol="rgb")) == psnrs(reference)


def test_one_scale_and_the_defaults(model, folder):
    (score,) = liif_core.evaluate(model, folder, 2)
    assert (score.dataset, score.protocol, score.scale, score.ssim) == (folder.name, "benchmark", Scale(2, 2), None)
    assert not model.training and math.isfinite(score.psnr) and isinstance(score, liif_core.Score)
    assert list(score.images) == ["0.png", "1.png"]
    (score,) = liif_core.evaluate(model, arrays(folder), (2, 3), "rgb", ssim=True)
    assert list(score.images) == ["images[0]", "images[1]"] and -1 <= score.ssim <= 1
    with torch.no_grad():
        image = (
            torch.from_numpy(np.array(Image.open(folder / "0.png").crop((0, 0, 30, 24)))).permute(2, 0, 1)[None] / 255
        )
        low = torch.from_numpy(np.array(Image.open(folder / "0.png").crop((0, 0, 30, 24)).resize((10, 12), 3)))
        render = model.encode(low.permute(2, 0, 1)[None] / 255).render((24, 30), clamp=True)
    assert score.images["images[0]"] == pytest.approx(liif_core.psnr(render, image), abs=1e-6)


def test_given_lr_images(model, folder):
    low = [np.asarray(Image.fromarray(array[:22, :26]).resize((13, 11))) for array in arrays(folder)]
    high = [array[:22, :26] for array in arrays(folder)]
    (given,) = liif_core.evaluate(model, high, 2, "rgb", lr=low)
    (made,) = liif_core.evaluate(model, high, 2, "rgb")
    assert given.given_low == 2 and made.given_low == 0
    assert list(given.images.values()) == list(made.images.values())  # Pillow's default is bicubic, too
    (other,) = liif_core.evaluate(model, high, 2, "rgb", lr=[255 - array for array in low])
    assert other.psnr != given.psnr and other.bicubic_psnr < given.bicubic_psnr
    with pytest.raises(ValueError, match=r"images\[0\] at x3: its LR image is of another scale"):
        liif_core.evaluate(model, high, 3, "rgb", lr=low)
    with pytest.raises(ValueError, match="lr: expected as many as images, 2, got 1"):
        liif_core.evaluate(model, high, 2, "rgb", lr=low[:1])
    with pytest.raises(ValueError, match="lr: expected a single scale with it, got 2"):
        liif_core.evaluate(model, high, [2, 3], "rgb", lr=low)
    with pytest.raises(TypeError, match="lr: expected a list, as images is one, got a path"):
        liif_core.evaluate(model, high, 2, lr=folder)
    with pytest.raises(TypeError, match="lr: expected a folder, as images is one, got list"):
        liif_core.evaluate(model, folder, 2, lr=low)


IMAGE = np.zeros((30, 30, 3), np.uint8)


@pytest.mark.parametrize(
    "images, error, message",
    [
        (IMAGE, TypeError, "images: expected a folder or a list of images, got ndarray"),
        (torch.zeros(3, 9, 9), TypeError, "images: expected a folder or a list of images, got Tensor"),
        (3, TypeError, "images: expected a folder or a list of images, got int"),
        ([], ValueError, "images: expected at least one image, got none"),
        ([IMAGE, 3], TypeError, r"images\[1\]: expected a path, a PIL image, .*, got int"),
        ([IMAGE / 255], TypeError, r"images\[0\]: expected .*, got an array of float64"),
        ([IMAGE[..., :1]], ValueError, r"images\[0\]: expected 3 channels, as the model has, got 1"),
        ([IMAGE[0, 0]], ValueError, r"images\[0\]: expected an array \(H, W\) or \(H, W, c\), got \(3,\)"),
        ([torch.zeros(1, 3, 9, 9)], ValueError, r"images\[0\]: expected a tensor \(c, H, W\), got \(1, 3, 9, 9\)"),
        ([torch.full((3, 9, 9), 255.0)], ValueError, r"images\[0\]: expected values in \[0, 1\], got 255 to 255"),
        ([torch.full((3, 9, 9), math.nan)], ValueError, r"images\[0\]: expected values in \[0, 1\], got nan"),
        ([torch.zeros(3, 9, 9, dtype=torch.int32)], TypeError, r"images\[0\]: expected .*, got torch.int32"),
        ([Image.new("RGBA", (9, 9))], ValueError, r"images\[0\]: expected a PIL image of mode RGB, .* got RGBA"),
        ("nowhere", ValueError, "nowhere"),
        (["nowhere.png"], ValueError, "nowhere.png"),
        ([IMAGE[:3, :3]], ValueError, r"images: images\[0\] at x2: 2 x 2 pixels .* are too few"),
    ],
    ids=lambda value: str(value)[:20] if isinstance(value, str) else None,
)
def test_images_of_another_kind(model, images, error, message):
    with pytest.raises(error, match=message):
        liif_core.evaluate(model, images, 2)


@pytest.mark.parametrize(
    "scales, error, message",
    [
        ([], ValueError, r"scales: expected at least one, got \[\]"),
        (0, ValueError, "scales: expected a positive number or a pair of them, got 0"),
        ("2", TypeError, "scales: expected a positive number or a pair of them, got '2'"),
        ([2, None], TypeError, "scales: expected a positive number"),
        (True, TypeError, "scales: expected a positive number"),
        ((2, 3, 4), ValueError, "scales: expected a positive number"),
    ],
)
def test_scales_of_another_kind(model, scales, error, message):
    with pytest.raises(error, match=message):
        liif_core.evaluate(model, [IMAGE], scales)


def test_other_wrong_arguments(model):
    with pytest.raises(TypeError, match=r"model: expected a liif_core.ContinuousModel, got str"):
        liif_core.evaluate("best.safetensors", [IMAGE], 2)
    with pytest.raises(ValueError, match=r"no protocol is named 'bench' \(did you mean 'benchmark'"):
        liif_core.evaluate(model, [IMAGE], 2, "bench")
    with pytest.raises(ValueError, match="precision: 'fp16' needs a GPU"):
        liif_core.evaluate(model, [IMAGE], 2, precision="fp16")


# psnr and ssim on tensors


def test_psnr_of_tensors():
    image = torch.rand(3, 20, 24)
    assert liif_core.psnr(image + 0.1, image) == pytest.approx(20, abs=1e-4)
    assert liif_core.psnr(image[None] + 0.1, image[None]) == pytest.approx(20, abs=1e-4)
    assert liif_core.psnr(image, image) == math.inf and liif_core.ssim(image, image) == pytest.approx(1)
    edge = image.clone()
    edge[:, :3] = edge[:, :, :4] = 0
    assert liif_core.psnr(edge, image, "benchmark", (3, 4)) == math.inf > liif_core.psnr(edge, image, "benchmark", 3)


@pytest.mark.parametrize("function", [liif_core.psnr, liif_core.ssim])
def test_wrong_tensors(function):
    image = torch.rand(3, 30, 30)
    with pytest.raises(TypeError, match=r"prediction: expected a tensor \(c, H, W\) or \(1, c, H, W\), got ndarray"):
        function(image.numpy(), image)
    with pytest.raises(TypeError, match=r"target: expected floating-point values in \[0, 1\], got torch.uint8"):
        function(image, (image * 255).byte())
    with pytest.raises(ValueError, match=r"prediction, target: expected one shape, .* got \(3, 30, 30\) and \(3, 30\)"):
        function(image, image[:, 0])
    with pytest.raises(ValueError, match="scale: expected a number: protocol 'benchmark' leaves out a border"):
        function(image, image, "benchmark")
    with pytest.raises(ValueError, match="scale: expected a positive number or a pair of them, got '2'"):
        function(image, image, "benchmark", "2")
