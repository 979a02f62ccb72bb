import json
import math
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import rgb2ycbcr

from liif_core.errors import UserError
from liif_core.evaluation.metrics import PROTOCOLS, check_size, psnr, ssim
from liif_core.experiment import schema as experiment
from liif_core.sizes import Scale


def pair(*shape, seed=0):
    random = torch.Generator().manual_seed(seed)
    target = torch.rand(shape, generator=random)
    return (target + 0.1 * torch.randn(shape, generator=random)).clamp(0, 1), target


def y_of(image):
    """(H, W): Y in units of the full range, of (1, 3, H, W), as scikit-image has it."""
    return rgb2ycbcr(image[0].permute(1, 2, 0).double().numpy())[..., 0] / 255


def test_the_reference_values(shared):
    golden = np.load(shared / "golden" / "psnr.npz")
    prediction, target = torch.from_numpy(golden["sr"]), torch.from_numpy(golden["hr"])
    expected = json.loads(str(golden["psnr"]))
    found = {
        f"{protocol}-{s}": psnr(prediction, target, protocol, Scale.of(s))
        for protocol in ("benchmark", "div2k")
        for s in (2, 3, 4, 8)
    }
    found["plain"] = psnr(prediction, target, "rgb", Scale.of(4))
    found["benchmark-gray-4"] = psnr(prediction[:, :1], target[:, :1], "benchmark", Scale.of(4))
    assert found == pytest.approx(expected, abs=1e-4)


def test_an_experiment_may_name_exactly_these_protocols():
    assert set(PROTOCOLS) == set(experiment.PROTOCOLS)


@pytest.mark.parametrize(
    "protocol, scale, rows, columns",
    [
        ("benchmark", (3, 3), 3, 3),
        ("benchmark", (2.5, 4), 3, 4),  # fractions are rounded up, each axis has its own
        ("benchmark", (0.5, 1.01), 1, 2),
        ("div2k", (3, 3), 9, 9),
        ("div2k", (1.2, 3.7), 8, 10),
        ("rgb", (2.5, 4), 0, 0),
    ],
)
def test_what_is_outside_the_border_counts_and_the_border_does_not(protocol, scale, rows, columns):
    scale = Scale.of(scale)
    assert PROTOCOLS[protocol].border(scale) == (rows, columns)
    target = torch.zeros(1, 1, 40, 44)
    prediction = torch.ones_like(target)
    prediction[:, :, rows : 40 - rows, columns : 44 - columns] = 0
    assert psnr(prediction, target, protocol, scale) == math.inf
    for corner in [(rows, columns), (39 - rows, 43 - columns)]:
        spoilt = prediction.clone()
        spoilt[:, :, corner[0], corner[1]] = 1
        pixels = (40 - 2 * rows) * (44 - 2 * columns)
        assert psnr(spoilt, target, protocol, scale) == pytest.approx(10 * math.log10(pixels))


@settings(max_examples=30, deadline=None)
@given(st.integers(5, 40), st.integers(5, 40), st.integers(1, 4), st.integers(0, 99))
def test_rgb_is_the_plain_formula(height, width, channels, seed):
    prediction, target = pair(1, channels, height, width, seed=seed)
    error = np.mean((prediction.double().numpy() - target.double().numpy()) ** 2)
    assert psnr(prediction, target, "rgb", Scale.of(7)) == pytest.approx(10 * np.log10(1 / error), abs=1e-9)
    assert psnr(target, prediction, "rgb", Scale.of(7)) == psnr(prediction, target, "rgb", Scale.of(7))


def test_benchmark_compares_luma_as_another_library_has_it():
    prediction, target = pair(1, 3, 30, 30)
    luma = [y_of(image)[2:-2, 2:-2] for image in (prediction, target)]
    expected = -10 * np.log10(np.mean((luma[0] - luma[1]) ** 2))
    assert psnr(prediction, target, "benchmark", Scale.of(2)) == pytest.approx(expected, abs=1e-3)


def test_other_precisions_and_gradients_are_taken_as_they_are():
    prediction, target = pair(1, 3, 20, 20)
    assert psnr(prediction.requires_grad_(), target.double(), "rgb", Scale.of(1)) == psnr(
        prediction.detach().double(), target, "rgb", Scale.of(1)
    )


@pytest.mark.parametrize("protocol, smallest", [("benchmark", 9), ("div2k", 21), ("rgb", 1)])
def test_images_that_the_border_leaves_nothing_of(protocol, smallest):
    scale = Scale.of(3.5)
    assert psnr(*pair(1, 3, smallest, smallest), protocol, scale) > 0
    check_size((smallest, smallest), protocol, scale)
    for size in [(smallest - 1, 50), (50, smallest - 1)]:
        with pytest.raises(ValueError, match=rf"{size[0]} x {size[1]} pixels .* needs {smallest} x {smallest}"):
            psnr(torch.zeros(1, 3, *size), torch.zeros(1, 3, *size), protocol, scale)


def test_arguments_that_cannot_be_compared():
    image = torch.zeros(1, 3, 32, 32)
    with pytest.raises(ValueError, match="did you mean 'benchmark'"):
        psnr(image, image, "benchmrak", Scale.of(2))
    with pytest.raises(ValueError, match="1 or 3 channels, these have 4"):
        psnr(torch.zeros(1, 4, 32, 32), torch.zeros(1, 4, 32, 32), "benchmark", Scale.of(2))
    for other in (torch.zeros(1, 3, 32, 31), torch.zeros(3, 32, 32), torch.zeros(2, 3, 32, 32)):
        with pytest.raises(ValueError, match="one shape"):
            psnr(image, other, "rgb", Scale.of(2))
    with pytest.raises(ValueError, match="one shape"):
        psnr(torch.zeros(2, 3, 32, 32), torch.zeros(2, 3, 32, 32), "rgb", Scale.of(2))


def plain_ssim(a, b):
    """Wang et al. (2004), equation 13, for (1, 1, H, W) in [0, 1]: only windows that lie inside."""
    places = torch.arange(-5, 6, dtype=torch.float64)
    bell = torch.exp(-(places**2) / (2 * 1.5**2))
    window = (bell[:, None] * bell / bell.sum() ** 2)[None, None]
    mean_a, mean_b, aa, bb, ab = (F.conv2d(x, window) for x in (a, b, a * a, b * b, a * b))
    first, second = 0.01**2, 0.03**2
    over = (2 * mean_a * mean_b + first) * (2 * (ab - mean_a * mean_b) + second)
    under = (mean_a**2 + mean_b**2 + first) * (aa - mean_a**2 + bb - mean_b**2 + second)
    return (over / under).mean().item()


def test_ssim_is_the_published_formula():
    prediction, target = (image.double() for image in pair(1, 3, 40, 33))
    each = [plain_ssim(prediction[:, c : c + 1], target[:, c : c + 1]) for c in range(3)]
    assert ssim(prediction, target, "rgb", Scale.of(4)) == pytest.approx(np.mean(each), abs=1e-9)
    luma = [torch.from_numpy(y_of(image)[None, None, 4:-4, 4:-4]) for image in (prediction, target)]
    assert ssim(prediction, target, "benchmark", Scale.of(4)) == pytest.approx(plain_ssim(*luma), abs=1e-4)
    gray = prediction[:, :1], target[:, :1]
    inside = [image[:, :, 4:-4, 4:-4] for image in gray]
    assert ssim(*gray, "benchmark", Scale.of(4)) == pytest.approx(plain_ssim(*inside), abs=1e-9)
    assert ssim(target, target, "div2k", Scale.of(4)) == 1


def test_ssim_needs_room_for_its_window():
    image = torch.zeros(1, 3, 18, 40)
    with pytest.raises(ValueError, match="SSIM then needs 19 x 19"):
        ssim(image, image, "benchmark", Scale.of(4))


def test_ssim_without_scikit_image_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.metrics", None)
    with pytest.raises(UserError, match=r"liif-core\[ssim\]") as refused:
        ssim(*pair(1, 3, 40, 40), "rgb", Scale.of(2))
    assert len(refused.value.problems) == 1
