"""Pixels to numbers and back; transparent pixels that do not bleed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays
from PIL import Image

from liif_core.images import Picture, fill_transparent, from_planes, to_planes

SPANS = {"uint8": (0.0, 255.0), "uint16": (0.0, 65535.0), "float32": (-3.0, 12.0)}


def picture(depth: str, channels: int, alpha: bool) -> Picture:
    rng = np.random.default_rng(1)
    low, high = SPANS[depth]
    color = (low + (high - low) * rng.random((7, 9, channels))).astype(depth)
    top = 1 if depth == "float32" else high
    return Picture(color, (top * rng.random((7, 9))).astype(depth) if alpha else None, "any", SPANS[depth])


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("depth", SPANS)
def test_planes_and_back_is_the_picture(depth, channels, alpha):
    source = picture(depth, channels, alpha)
    color, opacity = to_planes(source)
    assert color.dtype == np.float32 and color.shape == (channels, 7, 9)
    assert color.min() >= 0 and color.max() <= 1
    low, high = source.span
    np.testing.assert_allclose(color, (np.moveaxis(source.color, -1, 0) - low) / (high - low), atol=1e-6)
    rows = from_planes(color, opacity, depth, source.span)
    expected = source.color if not alpha else np.concatenate([source.color, source.alpha[..., None]], -1)
    assert rows.dtype == expected.dtype
    np.testing.assert_allclose(rows, expected, rtol=0, atol=3e-6 if depth == "float32" else 0)


def test_every_16_bit_value_survives():
    values = np.arange(65536, dtype="u2").reshape(256, 256, 1)
    color, _ = to_planes(Picture(values, None, "I;16", SPANS["uint16"]))
    np.testing.assert_array_equal(from_planes(color, None, "uint16"), values)


def test_a_window_is_cut_from_the_whole():
    source = picture("uint8", 3, True)
    whole, part = to_planes(source), to_planes(source, slice(2, 5), slice(1, 8))
    for a, b in zip(whole, part):
        np.testing.assert_array_equal(a[:, 2:5, 1:8], b)


@pytest.mark.parametrize(
    "value, depth, expected",
    [
        (0.5 / 255, "uint8", 1),
        (0.49 / 255, "uint8", 0),
        (254.5 / 255, "uint8", 255),
        (-0.2, "uint8", 0),
        (1.3, "uint8", 255),
        (0.5, "uint16", 32768),
        (1.3, "uint16", 65535),
        (1.3, "float32", 1.3),
        (-0.2, "float32", -0.2),
    ],
)
def test_integers_are_rounded_and_clipped_and_floats_are_not(value, depth, expected):
    rows = from_planes(np.full((1, 1, 1), value, np.float32), None, depth)
    assert rows[0, 0, 0] == pytest.approx(expected, rel=1e-6)


def test_float_alpha_is_clipped_and_has_no_span():
    rows = from_planes(np.ones((1, 1, 2), np.float32), np.array([[[0.5, 1.5]]], np.float32), "float32", (0, 100))
    np.testing.assert_array_equal(rows, [[[100, 0.5], [100, 1]]])


@given(arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12)))
@settings(max_examples=100, deadline=None)
def test_filled_pixels_have_the_color_of_a_nearest_visible_one(visible):
    height, width = visible.shape
    color = np.arange(1, height * width + 1, dtype="u2").reshape(height, width, 1)
    source = Picture(np.where(visible[..., None], color, 0).astype("u2"), visible.astype("u2"), "any", SPANS["uint16"])
    filled = fill_transparent(source).color[..., 0]
    np.testing.assert_array_equal(filled[visible], color[..., 0][visible])
    seen = np.argwhere(visible)
    for row, column in np.argwhere(~visible):
        steps = np.abs(seen - (row, column)).sum(1)
        nearest = [color[tuple(place)][0] for place in seen[steps == steps.min()]] if len(seen) else [0]
        assert filled[row, column] in nearest


def test_without_alpha_nothing_is_filled():
    source = picture("uint8", 3, False)
    assert fill_transparent(source) is source


def test_a_red_disc_on_transparent_black_has_no_fringe():
    y, x = np.mgrid[:40, :40] - 19.5
    alpha = (255 * np.clip(12.5 - np.hypot(y, x), 0, 1)).astype("u1")
    color = np.where(alpha[..., None] > 0, [255, 0, 0], 0).astype("u1")
    source = Picture(color, alpha, "RGBA", SPANS["uint8"])

    def enlarged(picture: Picture) -> tuple[np.ndarray, np.ndarray]:
        planes, opacity = to_planes(picture)
        resized = [
            np.asarray(Image.fromarray(plane).resize((137, 137), Image.Resampling.BICUBIC))[None]
            for plane in (*planes, *opacity)
        ]
        rows = from_planes(np.concatenate(resized[:3]), resized[3], "uint8")
        return rows[..., :3], rows[..., 3]

    color, alpha = enlarged(fill_transparent(source))
    assert alpha.max() == 255 and (alpha == 0).any()
    assert (color[alpha > 0] == [255, 0, 0]).all()
    fringed, alpha = enlarged(source)
    assert (fringed[alpha > 0][:, 0] < 200).any()  # what the filling is for


def test_a_large_hole_is_filled_quickly():
    alpha = np.zeros((1500, 2000), "u1")
    alpha[700, 900] = 255
    color = np.zeros((1500, 2000, 3), "u1")
    color[700, 900] = 7, 8, 9
    assert (fill_transparent(Picture(color, alpha, "RGBA", SPANS["uint8"])).color == [7, 8, 9]).all()
