"""Arrays to pictures and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from liif_core.images import Picture, picture_from_array, picture_to_array, read_image

SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4))
ARRAYS = st.one_of(
    arrays.arrays("uint8", SHAPES),
    arrays.arrays("uint16", SHAPES),
    arrays.arrays("float32", SHAPES, elements=st.floats(0, 1, width=32)),
)


@given(ARRAYS)
@settings(max_examples=100, deadline=None)
def test_any_array_there_and_back_is_itself(array):
    picture = picture_from_array(array)
    channels = array.shape[2]
    assert picture.size == array.shape[:2]
    assert picture.color.shape[2] == (1 if channels < 3 else 3) and (picture.alpha is None) == (channels in (1, 3))
    assert picture.span == (0, {"uint8": 255, "uint16": 65535, "float32": 1}[array.dtype.name])
    again = picture_to_array(picture)
    assert again.dtype == array.dtype
    np.testing.assert_array_equal(again, array)


def test_two_dimensions_are_gray():
    picture = picture_from_array(np.full((3, 4), 7, np.uint16))
    assert picture.color.shape == (3, 4, 1) and picture.alpha is None and picture.mode == "L"


def test_another_byte_order_is_the_same_picture():
    values = np.arange(12, dtype=">u2").reshape(3, 4)
    picture = picture_from_array(values)
    assert picture.depth == "uint16" and picture.color.dtype.isnative
    np.testing.assert_array_equal(picture.color[..., 0], np.arange(12).reshape(3, 4))


def test_floats_are_clipped_to_the_span():
    color = np.array([[[-0.2], [0.5], [1.3]]], np.float32)
    alpha = np.array([[1.2, 0.5, -0.1]], np.float32)
    pixels = picture_to_array(Picture(color, alpha, "LA", (0.0, 1.0)))
    np.testing.assert_array_equal(pixels[0], np.array([[0, 1], [0.5, 0.5], [1, 0]], np.float32))
    wide = picture_to_array(Picture(color, None, "F", (-3.0, 7.0)))
    np.testing.assert_array_equal(wide, color)
    assert color.max() == np.float32(1.3)  # the picture is as it was


@pytest.mark.parametrize(
    "image, error, message",
    [
        ([[1, 2]], TypeError, "image: expected a numpy array, got list"),
        (np.zeros((2, 2)), TypeError, "image: expected an array of uint8, uint16 or float32, got float64"),
        (np.zeros((2, 2), bool), TypeError, "got bool"),
        (np.zeros((2, 2), "i2"), TypeError, "got int16"),
        (np.zeros(4, "u1"), ValueError, r"image: expected an array \(h, w\) or \(h, w, 1 to 4\), got shape \(4,\)"),
        (np.zeros((3, 8, 9), "u1"), ValueError, r"got shape \(3, 8, 9\)"),
        (np.zeros((1, 2, 2, 3), "u1"), ValueError, r"got shape \(1, 2, 2, 3\)"),
        (np.zeros((0, 2, 3), "u1"), ValueError, "image: expected at least one pixel"),
        (np.full((2, 2), np.nan, "f4"), ValueError, "image: expected finite values"),
        (np.array([[0, np.inf]], "f4"), ValueError, "image: expected finite values"),
        (
            np.array([[0, 255]], "f4"),
            ValueError,
            r"expected float32 values in \[0, 1\], got values from 0 to 255",
        ),
        (np.array([[-0.5, 1]], "f4"), ValueError, "got values from -0.5 to 1"),
    ],
)
def test_what_is_no_picture_is_refused_by_what_was_expected_and_what_came(image, error, message):
    with pytest.raises(error, match=message):
        picture_from_array(image)


def test_the_array_of_a_file(tmp_path):
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(picture_to_array(read_image(tmp_path / "a.png")), pixels)
