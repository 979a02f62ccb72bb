"""Sizes of outputs: decimal arithmetic, halves up."""

from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liif_core.sizes import OutputSize, Scale, scaled_size


@given(st.integers(1, 5000), st.decimals("0.01", "40", places=2))
def test_scales_are_the_decimals_that_were_written(side, scale):
    expected = max(1, int((side * scale).quantize(Decimal(1), ROUND_HALF_UP)))
    assert scaled_size((side, side), Scale.parse(str(scale))) == (expected, expected)
    assert OutputSize.of(float(scale)).for_image((side, side)) == (expected, expected)


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 3000))
def test_a_side_that_follows_is_the_nearest(height, width, given_width):
    exact = Decimal(height * given_width) / Decimal(width)
    expected = max(1, int(exact.quantize(Decimal(1), ROUND_HALF_UP)))
    assert OutputSize.of(width=given_width).for_image((height, width)) == (expected, given_width)
    assert OutputSize.of(height=given_width).for_image((width, height)) == (given_width, expected)


def test_edges_of_a_region_are_decimals():
    assert OutputSize.of(5, region=(0.1, 0.2, 0.4, 0.9)).for_image((9, 9)) == (2, 4)  # 1.5 and 3.5


@pytest.mark.parametrize("text", ["0,5", "1,2,3", "2,5;3", "1,5x"])
def test_decimal_commas_are_explained(text):
    with pytest.raises(ValueError, match="decimals are written with a point"):
        Scale.parse(text)


@pytest.mark.parametrize("scale", [1e300, 2**31, 10**400])
def test_scales_beyond_any_image(scale):
    with pytest.raises(ValueError, match="^scale: expected"):
        OutputSize.of(scale)


def test_what_cannot_be_rendered_of_an_image():
    OutputSize.of(2.0**20).check((24, 16))
    with pytest.raises(ValueError, match="^scale: .* more than 2,147,483,647 pixels a side"):
        OutputSize.of(2.0**30).check((24, 16))
    with pytest.raises(ValueError, match="^size: .* more than 2,147,483,647 pixels a side"):
        OutputSize.of(width=2**31 - 1).check((24, 16))
    OutputSize.of(width=8, region=(0, 0, 1e-4, 1e-4)).check((24, 16))
    for region in ((0, 0, 1e-300, 1e-300), (1, 1, 2, 1.0000001)):
        with pytest.raises(ValueError, match="^region: .* float32"):
            OutputSize.of(width=8, height=8, region=region).check((24, 16))
