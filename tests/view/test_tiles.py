"""Tiles are what ``render`` and ``upscale`` make of the same region, whatever the picture, the model and the blocks."""

import io

import numpy as np
import pytest
import torch
from image_files import SRGB
from PIL import Image
from reference import small_model
from viewing import smooth, viewing

import liif_core
from liif_core.experiment.toml_file import model_from_table
from liif_core.view import blocks
from liif_core.view.gallery import NamedModel

PICTURES = {
    "RGB": smooth(60, 75),
    "gray": smooth(60, 75, 1)[..., 0],
    "RGBA": np.dstack([smooth(60, 75), smooth(60, 75, 1, seed=1)]),
    "16 bits": (smooth(60, 75, 1)[..., 0].astype(np.uint16) * 257),
}


def rendered(model, picture, region, size):
    """The region by the ordinary renderer, uint8."""
    with torch.inference_mode():
        found = model.upscale(Image.fromarray(picture), width=size[1], height=size[0], region=region)
    found = np.asarray(found)
    return np.floor(found / 257 + 0.5).astype(np.uint8) if found.dtype == np.uint16 else found


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("side", [256, 24])  # of the blocks
def test_tiles_are_what_the_renderer_makes(model, entry, kind, side, monkeypatch):
    monkeypatch.setattr(blocks, "_SMALLEST", side)
    monkeypatch.setattr(blocks, "_HALOS", 0)
    picture = PICTURES[kind]
    with viewing(entry(picture, "p.png")) as viewer:
        for factor, left, top in [(1, 512, 256), (4, 0, 0), (8, 0, 0), (16, 0, 0), (2, 1024, 512), (1, 1150, 930)]:
            width, height = min(256 * factor, 1200 - left), min(256 * factor, 960 - top)
            size = -(-height // factor), -(-width // factor)
            got = viewer.tile("p.png", "model", f"{left},{top},{width},{height}/{size[1]},{size[0]}/0/default.png")
            region = (top / 16, left / 16, (top + height) / 16, (left + width) / 16)
            expected = rendered(model, picture, region, size)
            assert got.shape == expected.shape
            assert np.abs(got.astype(int) - expected).max() <= 1
        info = viewer.get("api/images/p.png").json()
        assert (info["width"], info["height"], info["alpha"]) == (75, 60, kind == "RGBA")


def test_neighbouring_tiles_have_no_seam(model, entry, monkeypatch):
    monkeypatch.setattr(blocks, "_SMALLEST", 16)
    monkeypatch.setattr(blocks, "_HALOS", 0)
    with viewing(entry(PICTURES["RGB"], "p.png"), zoom=8) as viewer:
        for layer in ("model", "bicubic", "nearest"):
            whole = viewer.tile("p.png", layer, "full/max/0/default.png").astype(int)
            rows = []
            for top in range(0, 480, 256):
                height = min(256, 480 - top)
                row = [
                    viewer.tile("p.png", layer, f"{left},{top},{min(256, 600 - left)},{height}/max/0/default.png")
                    for left in range(0, 600, 256)
                ]
                rows.append(np.concatenate(row, axis=1))
            assert np.abs(np.concatenate(rows) - whole).max() <= 1


def test_interpolation_is_that_of_pillow(entry):
    picture = PICTURES["RGB"]
    with viewing(entry(picture, "p.png"), zoom=4) as viewer:
        for layer, method in (("bicubic", Image.Resampling.BICUBIC), ("nearest", Image.Resampling.NEAREST)):
            whole = np.asarray(Image.fromarray(picture).resize((300, 240), method)).astype(int)
            got = viewer.tile("p.png", layer, "100,40,128,64/max/0/default.png")
            assert np.abs(got - whole[40:104, 100:228]).max() <= 1


@pytest.mark.parametrize("layer", ["model", "bicubic", "nearest"])
def test_smaller_than_the_picture_is_antialiased(entry, layer):
    """Stripes of one pixel become gray, as of any good thumbnail, and not stripes of another width."""
    stripes = np.zeros((64, 96, 3), np.uint8)
    stripes[:, ::2] = 255
    with viewing(entry(stripes, "p.png"), zoom=2) as viewer:
        small = viewer.tile("p.png", layer, "full/20,/0/default.png").astype(int)
        assert np.abs(small[:, 1:-1] - 128).max() < 12


@pytest.mark.parametrize("kind", PICTURES)
def test_a_thumbnail_of_a_large_picture_is_made_of_bands(entry, kind, monkeypatch):
    """It is that of Pillow from the whole picture, nearly, and the bands cannot be told."""
    picture = np.tile(PICTURES[kind], (9, 11) + (1,) * (PICTURES[kind].ndim - 2))
    with viewing(entry(picture, "p.png"), zoom=1) as viewer:
        small = viewer.tile("p.png", "bicubic", "full/60,/0/default.png")
        viewer.server.gallery.cache.remove(lambda key: True)
        monkeypatch.setattr("liif_core.view.pixels._BAND_PIXELS", 20_000)
        assert np.array_equal(small, viewer.tile("p.png", "bicubic", "full/60,/0/default.png"))
    planes = np.atleast_3d(picture)
    eight = planes if planes.dtype == np.uint8 else (planes / 257).round().astype(np.uint8)
    for channel in range(eight.shape[2]):
        if kind == "RGBA" and channel < 3:
            continue  # the color of transparent pixels is replaced before
        expected = Image.fromarray(eight[..., channel]).resize(small.shape[1::-1], Image.Resampling.LANCZOS)
        difference = np.abs(np.atleast_3d(small)[..., channel].astype(int) - np.asarray(expected))
        assert difference[:-1, :-1].max() <= 6 and difference.max() <= 16  # at the edge, means are of fewer pixels


def test_turned_mirrored_and_in_gray(entry):
    picture = PICTURES["RGB"]
    with viewing(entry(picture, "p.png"), zoom=1) as viewer:
        plain = viewer.tile("p.png", "nearest", "full/max/0/default.png")
        assert np.array_equal(plain, picture)
        image = Image.fromarray(picture)
        turns = {90: Image.Transpose.ROTATE_270, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_90}
        for degrees, turn in turns.items():  # IIIF turns clockwise, Pillow counterclockwise
            assert np.array_equal(
                viewer.tile("p.png", "nearest", f"full/max/{degrees}/default.png"), image.transpose(turn)
            )
            flipped = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).transpose(turn)
            assert np.array_equal(viewer.tile("p.png", "nearest", f"full/max/!{degrees}/default.png"), flipped)
        gray = viewer.tile("p.png", "nearest", "full/max/0/gray.png")
        assert np.array_equal(gray, image.convert("L"))
        bitonal = viewer.tile("p.png", "nearest", "full/max/0/bitonal.png")
        assert set(np.unique(bitonal)) <= {0, 255} and np.array_equal(bitonal == 255, gray >= 128)


def test_formats(entry):
    with viewing(entry(PICTURES["RGBA"], "p.png"), zoom=1) as viewer:
        for format, media, mode in (
            ("jpg", "image/jpeg", "RGB"),
            ("png", "image/png", "RGBA"),
            ("webp", "image/webp", "RGBA"),
        ):
            answer = viewer.get(f"iiif/bicubic/p.png/full/max/0/default.{format}")
            assert answer.headers["content-type"] == media
            image = Image.open(io.BytesIO(answer.content))
            assert (image.mode, image.size) == (mode, (75, 60))
        white = np.asarray(Image.open(io.BytesIO(viewer.get("iiif/bicubic/p.png/full/max/0/default.jpg").content)))
        color, alpha = PICTURES["RGBA"][..., :3] / 255, PICTURES["RGBA"][..., 3:] / 255
        assert np.abs(white - (color * alpha + 1 - alpha) * 255).mean() < 2


def test_colors_keep_their_profile(entry):
    """A picture of a wide gamut looks as it should: its tiles say what their numbers mean."""
    with viewing(entry(PICTURES["RGB"], "p.png", icc_profile=SRGB), zoom=2) as viewer:
        for layer in ("model", "bicubic"):
            for format in ("png", "jpg", "webp"):
                answer = viewer.get(f"iiif/{layer}/p.png/0,0,64,64/max/0/default.{format}")
                assert Image.open(io.BytesIO(answer.content)).info["icc_profile"] == SRGB
            gray = viewer.get(f"iiif/{layer}/p.png/0,0,64,64/max/0/gray.png")
            assert "icc_profile" not in Image.open(io.BytesIO(gray.content)).info


def global_model(registry):
    """A model whose colors depend on means over all queries."""
    table = {
        "residual": "bilinear",
        "encoder": {"use": "edsr", "blocks": 1, "channels": 4},
        "features": {"use": "identity"},
        "sampling": {"use": "local-ensemble"},
        "conditioning": [{"use": "coordinate"}, {"use": "cell"}],
        "decoder": {"use": "srno", "width": 8, "heads": 2},
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return liif_core.build_model(model_from_table(table, registry, "global")).eval().requires_grad_(False)


def test_models_that_depend_on_all_queries(registry, entry, monkeypatch):
    monkeypatch.setattr(blocks, "_SMALLEST", 24)
    monkeypatch.setattr(blocks, "_HALOS", 0)
    model, picture = global_model(registry), PICTURES["RGB"]
    assert model.num_statistics
    with viewing(entry(picture, "p.png", [NamedModel("global", model)]), zoom=4) as viewer:
        for factor in (1, 2):
            got = viewer.tile("p.png", "model", f"64,32,128,64/{128 // factor},{64 // factor}/0/default.png")
            expected = rendered(model, picture, (8, 16, 24, 48), (64 // factor, 128 // factor))
            assert np.abs(got.astype(int) - expected).max() <= 1
        assert "estimated" not in viewer.get("api/images/p.png").json()["layers"]["model"]["note"]
        monkeypatch.setattr(blocks, "_STATISTIC_QUERIES", 20_000)  # of 72,000
        got = viewer.tile("p.png", "model", "65,32,128,64/128,64/0/default.png")
        viewer.server.gallery.picture("p.png").encoded["model"]._statistics.clear()
        got = viewer.tile("p.png", "model", "64,32,127,64/127,64/0/default.png")
        expected = rendered(model, picture, (8, 16, 24, 47.75), (64, 127))
        assert np.abs(got.astype(int) - expected).max() <= 2
        assert "estimated" in viewer.get("api/images/p.png").json()["layers"]["model"]["note"]


def test_blocks_that_do_not_fit_are_encoded_again(model, entry, monkeypatch):
    """In a cache for few blocks, tiles are the same, and no more bytes are held than allowed."""
    monkeypatch.setattr(blocks, "_SMALLEST", 16)
    monkeypatch.setattr(blocks, "_HALOS", 0)
    picture = smooth(120, 160)
    with viewing(entry(picture, "p.png"), zoom=2) as viewer:
        cache = viewer.server.gallery.cache
        cache.limit = 600_000
        viewer.get("api/images/p.png")
        for _ in range(2):
            for top in (0, 128):
                got = viewer.tile("p.png", "model", f"0,{top},256,{min(128, 240 - top)}/max/0/default.webp")
                expected = rendered(model, picture, (top / 2, 0, min(120, top / 2 + 64), 128), got.shape[:2])
                assert np.abs(got.astype(int) - expected).mean() < 2  # WebP
                assert cache.held <= 600_000
        assert viewer.get("api/images/p.png").json()["layers"]["model"]["state"] == "partly"


def test_a_tiny_picture(model, entry):
    with viewing(entry(smooth(1, 2), "p.png"), zoom=5) as viewer:
        got = viewer.tile("p.png", "model", "full/max/0/default.png")
        assert got.shape == (5, 10, 3)
        expected = rendered(model, smooth(1, 2), (0, 0, 1, 2), (5, 10))
        assert np.abs(got.astype(int) - expected).max() <= 1


def test_a_model_of_one_channel_shows_a_color_picture(registry, entry):
    model, picture = small_model(registry, channels=1), PICTURES["RGB"]
    with viewing(entry(picture, "p.png", [NamedModel("gray", model)]), zoom=2) as viewer:
        got = viewer.tile("p.png", "model", "0,0,64,64/max/0/default.png")
        expected = rendered(model, picture, (0, 0, 32, 32), (64, 64))
        assert np.abs(got.astype(int) - expected).max() <= 1
