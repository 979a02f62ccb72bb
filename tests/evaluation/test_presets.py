"""The protocols of later papers: against numbers of an independent implementation, and each rule written out."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from reference import small_model

import liif_core
from liif_core.data.matlab_resize import matlab_bicubic
from liif_core.evaluation.predicting import predict
from liif_core.evaluation.results import preset_facts
from liif_core.presets import PROTOCOLS, own_scales
from liif_core.sizes import Scale


def random(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def model(registry):
    return small_model(registry, residual="bilinear").eval().requires_grad_(False)


@pytest.mark.parametrize("protocol, scale, name", [("thera", 4, "img_002"), ("thera", 3, "img_004"), ("gsasr", 4, "*")])
def test_published_weights_on_set5(shared, protocol, scale, name):
    expected = json.loads((shared / "golden" / "presets-set5.json").read_text())[f"x{scale}"]
    paths = sorted((shared / "data" / "set5" / f"x{scale}" / "HR").glob(f"{name}.png"))
    model = liif_core.load(shared / "checkpoints" / "edsr-baseline-liif.pth")
    (score,) = liif_core.evaluate(model, paths, scale, protocol)
    assert len(score.images) == len(paths) > 0
    for path, found in zip(paths, score.images.values()):
        assert found == pytest.approx(expected[path.name][protocol], abs=0.005)


# name -> LR by, luma, border at x2 and at x6, largest scale of a cell, orientations, rounded
RULES = {
    "benchmark": ("pillow", True, 2, 6, None, 1, False),
    "div2k": ("pillow", False, 8, 12, None, 1, False),
    "liif-benchmark": ("pillow", True, 2, 6, None, 1, False),
    "liif-div2k": ("pillow", False, 8, 12, None, 1, False),
    "celeba-hq": ("pillow", False, 0, 0, None, 1, False),
    "rgb": ("pillow", False, 0, 0, None, 1, False),
    "lte": ("pillow", True, 2, 6, 4, 1, False),
    "lte-div2k": ("pillow", False, 8, 12, 4, 1, False),
    "srno": ("pillow", True, 2, 6, 4, 1, False),
    "srno-div2k": ("pillow", False, 8, 12, 4, 1, False),
    "linf": ("pillow", True, 2, 6, 30, 1, False),
    "linf-div2k": ("pillow", False, 8, 12, 30, 1, False),
    "thera": ("matlab", False, 2, 6, None, 4, False),
    "thera-div2k": ("matlab", False, 8, 12, None, 4, False),
    "gsasr": ("matlab", True, 2, 6, None, 1, True),
    "ciaosr": ("matlab", True, 2, 6, None, 1, True),  # of images up to 192 pixels a side
    "mmagic": ("pillow", False, 2, 6, None, 1, False),
    "inr-assr": ("pillow", False, 2, 6, 4, 1, False),
    "inr-assr-div2k": ("pillow", False, 8, 12, 4, 1, False),
    "fair": ("matlab", False, 2, 6, None, 1, True),
    "fair-y": ("matlab", True, 2, 6, None, 1, True),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("scale", [2, 6])
def test_every_rule_by_hand(model, protocol, scale):
    """PSNR from pixels, by the rules above, which are stated apart from the code's."""
    low_by, luma, border_2, border_6, largest, turns, rounded = RULES[protocol]
    image = (random(60, 66, 3).numpy() * 255).astype(np.uint8)
    size = 60 // scale, 66 // scale
    if low_by == "pillow":
        low = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))
    else:
        low = matlab_bicubic(image, size)
    total = 0
    for k in range(turns):
        turned = torch.from_numpy(np.rot90(low, k).copy()).permute(2, 0, 1)[None] / 255
        height, width = turned.shape[2] * scale, turned.shape[3] * scale
        cell = torch.tensor([2 / height, 2 / width]) * (max(scale / largest, 1) if largest else 1)
        colors = model.encode(turned).query(liif_core.make_coord((height, width))[None], cell)[0]
        total = total + np.rot90(colors.reshape(height, width, 3).double().numpy(), -k)
    prediction = np.clip(total / turns, 0, 1)
    if rounded:
        prediction = np.round(prediction * 255) / 255
    error = prediction - image / 255
    if luma:
        error = error @ (np.array([65.738, 129.057, 25.064]) / 256)
    border = border_2 if scale == 2 else border_6
    inside = error[border : 60 - border, border : 66 - border]
    given = [low] if protocol in ("celeba-hq", "benchmark") else None
    (score,) = liif_core.evaluate(model, [image], scale, protocol, lr=given)
    assert score.psnr == pytest.approx(-10 * np.log10(np.mean(inside**2)), abs=2e-3 if rounded else 1e-4)


def test_lr_images_that_come_with_the_data(model):
    image = (random(60, 66, 3).numpy() * 255).astype(np.uint8)
    low = 255 - image[::2, ::2]  # nothing like what would be made
    made, given = liif_core.evaluate(model, [image], 2, ["mmagic", "benchmark"], lr=[low])
    assert (made.given_low, given.given_low) == (0, 1)
    assert made.psnr == liif_core.evaluate(model, [image], 2, "mmagic")[0].psnr
    assert given.psnr != liif_core.evaluate(model, [image], 2, "benchmark")[0].psnr
    with pytest.raises(
        liif_core.UserError, match="images at x2: protocol 'celeba-hq' is for pairs: give the LR images"
    ):
        liif_core.evaluate(model, [image], 2, "celeba-hq")


def test_results_state_which_lr_images_are_used():
    found = {name: preset_facts(name)["lr"] for name in ("benchmark", "fair", "mmagic", "celeba-hq")}
    assert found == {
        "benchmark": "PIL bicubic, where the data has none", "fair": "bicubic like MATLAB's, where the data has none",
        "mmagic": "PIL bicubic", "celeba-hq": "those of the data",
    }  # fmt: skip


def test_the_scales_of_the_published_tables(model):
    assert own_scales(["benchmark"]) == tuple(map(Scale.of, (2, 3, 4, 6, 8))) == own_scales(["liif-benchmark", "lte"])
    assert own_scales(["div2k"]) == tuple(map(Scale.of, (2, 3, 4, 6, 12, 18, 24, 30)))
    with pytest.raises(ValueError, match="such as 4: there are no usual scales of fair, rgb$"):
        own_scales(["benchmark", "fair", "rgb"])
    with pytest.raises(ValueError, match="tables differ .benchmark x2, x3, x4, x6, x8; div2k x2, .*x30.$"):
        own_scales(["benchmark", "div2k"])
    found = liif_core.evaluate(model, [random(3, 60, 60)])
    assert [score.scale for score in found] == list(own_scales(["benchmark"]))
    with pytest.raises(ValueError, match="^scales: expected at least one, such as 4: .*fair$"):
        liif_core.evaluate(model, [random(3, 60, 60)], protocol="fair")
    with pytest.raises(ValueError, match="^scales: expected the scale of lr, got None$"):
        liif_core.evaluate(model, [random(3, 60, 60)], lr=[random(3, 30, 30)])
    with pytest.raises(ValueError, match="expected at least one"):
        own_scales([])
    with pytest.raises(ValueError, match="no protocol is named 'benchmrk'"):
        liif_core.evaluate(model, [random(3, 60, 60)], protocol="benchmrk")


@pytest.mark.parametrize("protocol, largest", [("lte", 4), ("lte-div2k", 4), ("linf", 30), ("linf-div2k", 30)])
def test_cells_have_a_smallest_size(model, protocol, largest):
    """Beyond the largest scale, cells are multiplied by scale / largest."""
    low = random(1, 3, 5, 6)
    for scale in (2, largest, largest + 2):
        size = 5 * scale, 6 * scale
        factor = max(scale / largest, 1)
        picture = model.encode(low)
        coord = liif_core.make_coord(size)[None]
        cell = torch.tensor([2 / size[0], 2 / size[1]]) * factor
        expected = picture.query(coord, cell)[0].clamp(0, 1).T.unflatten(1, size)
        found = predict(model, low, size, "float32", PROTOCOLS[protocol], "test")[0]
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("protocol", ["thera", "thera-div2k"])
def test_the_mean_over_rotations(model, protocol):
    low = random(1, 3, 6, 5)
    turned = [model.encode(low.rot90(k, (2, 3))).render((12, 10) if k % 2 == 0 else (10, 12)) for k in range(4)]
    expected = sum(image.rot90(-k, (2, 3)) for k, image in enumerate(turned)) / 4
    found = predict(model, low, (12, 10), "float32", PROTOCOLS[protocol], "test")
    torch.testing.assert_close(found, expected.clamp(0, 1), rtol=0, atol=2e-5)


@pytest.mark.parametrize("protocol", ["gsasr", "fair", "fair-y"])
def test_predictions_are_rounded(model, protocol):
    low = random(1, 3, 6, 5)
    found = predict(model, low, (12, 10), "float32", PROTOCOLS[protocol], "test")
    expected = (model.encode(low).render((12, 10), clamp=True) * 255).round() / 255
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_tiles_are_averaged(model):
    """192 pixels and 32 of overlap, up to x4: pixel by pixel the mean of the tiles that have it."""
    low = random(1, 3, 200, 10)
    first, second = low[:, :, :192], low[:, :, 8:]
    renders = [model.encode(tile).render((384, 20)) for tile in (first, second)]
    total, count = torch.zeros(1, 3, 400, 20), torch.zeros(400, 1)
    for start, image in zip((0, 16), renders):
        total[:, :, start : start + 384] += image
        count[start : start + 384] += 1
    expected = ((total / count).clamp(0, 1) * 255).round() / 255
    found = predict(model, low, (400, 20), "float32", PROTOCOLS["ciaosr"], "test")
    assert (found - expected).abs().max() <= 1.01 / 255 and (found - expected).abs().mean() < 1e-4
    for size in ((1000, 50), (500, 25)):  # beyond x4, and at a fraction: the whole image
        whole = (model.encode(low).render(size, clamp=True) * 255).round() / 255
        assert torch.equal(predict(model, low, size, "float32", PROTOCOLS["ciaosr"], "test"), whole)


def test_low_resolution_images_are_matlabs(model, monkeypatch):
    image = (random(24, 30, 3).numpy() * 255).astype(np.uint8)
    seen = []
    encode = type(model).encode
    monkeypatch.setattr(
        type(model), "encode", lambda self, given, *rest: seen.append(given) or encode(self, given, *rest)
    )
    liif_core.evaluate(model, [Image.fromarray(image)], 2, "fair")
    expected = torch.from_numpy(matlab_bicubic(image, (12, 15))).permute(2, 0, 1)[None] / 255
    torch.testing.assert_close(seen[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale, expected", [(2, 2), (3, 3), (4, 4), (6, 6), (8, 8), (12, 8), (30, 8), (2.5, 3)])
def test_the_border_of_gsasr(scale, expected):
    assert PROTOCOLS["gsasr"].border(Scale.of(scale)) == (expected, expected)


def test_a_protocol_of_luma_refuses_other_channels(registry):
    gray = liif_core.compose(
        encoder={"use": "edsr", "blocks": 1, "channels": 4}, features="unfold", sampling="local-ensemble",
        conditioning=["coordinate", "cell"], decoder={"use": "mlp", "hidden": [8]}, channels=2,
    )  # fmt: skip
    with pytest.raises(liif_core.UserError, match="1 or 3 channels"):
        liif_core.evaluate(gray, [random(2, 30, 30)], 2, "gsasr")
