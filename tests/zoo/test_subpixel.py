"""Sub-pixel convolution against EDSR's layers written out."""

import pytest
import torch
import torch.nn.functional as F
from formulas import random

import liif_core
from liif_core.model.tile_plan import TilePlan
from liif_core.model.tiling import render_bands
from liif_core.testing import DecoderContract


class TestContract(DecoderContract):
    component = "liif-core:subpixel"
    in_channels = 6
    neighbours = 1
    conditions = {"coordinate": 2}


class TestFourTimesGray(DecoderContract):
    component = "liif-core:subpixel"
    options = {"scale": 4}
    in_channels = 4
    out_channels = 1
    neighbours = 1
    conditions = {"coordinate": 2}


def model_of(scale, **changes):
    torch.manual_seed(scale)
    return liif_core.compose(
        encoder={"use": "edsr", "blocks": 1, "channels": 8}, features="identity", sampling="nearest",
        conditioning=["coordinate"], decoder={"use": "subpixel", "scale": scale}, **changes,
    ).eval().requires_grad_(False)  # fmt: skip


def edsr(model, image, scale):
    """The layers of EDSR's end: one for x3, else one for each doubling, and a last convolution."""
    x = model.encoder((image - 0.5) / 0.5)
    state = model.decoder.state_dict()
    for step in range({2: 1, 3: 1, 4: 2, 8: 3}[scale]):
        x = F.conv2d(x, state[f"layers.{2 * step}.weight"], state[f"layers.{2 * step}.bias"], padding=1)
        x = F.pixel_shuffle(x, 3 if scale == 3 else 2)
    last = max(int(name.split(".")[1]) for name in state)
    return F.conv2d(x, state[f"layers.{last}.weight"], state[f"layers.{last}.bias"], padding=1) * 0.5 + 0.5


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_at_its_scale_it_is_edsr(scale):
    model, image = model_of(scale), random(2, 3, 5, 7)
    picture, expected = model.encode(image), edsr(model, image, scale)
    size = 5 * scale, 7 * scale
    torch.testing.assert_close(picture.render(size), expected, rtol=0, atol=1e-5)
    coord = liif_core.make_coord(size)
    colors = picture.query(coord.expand(2, -1, -1), torch.tensor([2 / size[0], 2 / size[1]]))
    torch.testing.assert_close(colors, expected.flatten(2).mT, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale, size", [(3, (75, 105)), (2, (15, 21)), (4, (30, 42)), (2, (7, 11))])
def test_at_other_scales_it_is_the_nearest_pixel(scale, size):
    """Of two that are equally near, the later one."""
    model, image = model_of(scale), random(1, 3, 5, 7)
    expected = F.interpolate(edsr(model, image, scale), size=size, mode="nearest-exact")
    picture = model.encode(image)
    torch.testing.assert_close(picture.render(size), expected, rtol=0, atol=1e-5)
    colors = picture.query(liif_core.make_coord(size)[None], torch.tensor([2 / size[0], 2 / size[1]]))
    torch.testing.assert_close(colors, expected.flatten(2).mT, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_tiles_are_the_same_as_the_whole(scale):
    model, image = model_of(scale), random(1, 3, 30, 40)
    target, plan = (30 * scale, 40 * scale), TilePlan((10, 20), 20, model.halo, 0)
    bands = list(render_bands(model, lambda rows, columns: image[:, :, rows, columns], (30, 40), target, plan))
    torch.testing.assert_close(torch.cat(bands, dim=2), model.encode(image).render(target), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"sampling": "local-ensemble"},
            "expected sampling of the nearest code, such as 'nearest', got one of 4 codes",
        ),
        ({"decoder": {"use": "subpixel", "scale": 5}}, "scale: "),
        ({"conditioning": ["coordinate", "cell"]}, "'cell' would have no effect"),
    ],
)
def test_what_it_refuses(changes, message):
    parts = {"encoder": {"use": "edsr", "blocks": 1, "channels": 8}, "features": "identity", "sampling": "nearest",
             "conditioning": ["coordinate"], "decoder": "subpixel"}  # fmt: skip
    with pytest.raises(liif_core.UserError, match=message):
        liif_core.compose(**{**parts, **changes})
