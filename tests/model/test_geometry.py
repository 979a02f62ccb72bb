"""Pixels and coordinates, against the definition and its properties."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from liif_core.model.geometry import (
    cell_of,
    chunks_of,
    make_coord,
    mirrored,
    pixel_centers,
    region_axes,
    to_pixel_samples,
)
from liif_core.sizes import Scale, low_resolution_size, scaled_size

sides = st.integers(1, 3000)
scales = st.floats(0.05, 40, allow_nan=False)


# Pixel centers


@pytest.mark.parametrize("count", [1, 2, 3, 7, 48, 1920, 30000])
def test_centers_are_the_definition(count):
    exact = [float(Fraction(2 * i + 1, count) - 1) for i in range(count)]
    found = pixel_centers(count)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), exact, rtol=0, atol=3e-7)  # float32's rounding, a few times over


def test_grid_sample_at_the_centers_gives_the_pixels_back():
    """The convention is torch's ``align_corners=False``, up to the order of the axes."""
    image = torch.rand(1, 2, 5, 8)
    coord = make_coord((5, 8), flatten=False)[None].flip(-1)
    found = F.grid_sample(image, coord, mode="bilinear", padding_mode="border", align_corners=False)
    torch.testing.assert_close(found, image, rtol=0, atol=1e-5)


@given(n=st.integers(1, 60), data=st.data())
@settings(deadline=None)
def test_a_part_of_an_axis_has_the_values_of_the_whole(n, data):
    start = data.draw(st.integers(0, n - 1))
    stop = data.draw(st.integers(start + 1, n))
    part = pixel_centers(stop - start, 2 * start / n - 1, 2 * stop / n - 1)
    torch.testing.assert_close(part, pixel_centers(n)[start:stop], rtol=0, atol=3e-7)


@pytest.mark.parametrize("shape", [(4,), (3, 5), (2, 3, 4)])
def test_make_coord_by_hand(shape):
    found = make_coord(shape, flatten=False)
    assert found.shape == (*shape, len(shape)) and found.dtype == torch.float32
    for place in np.ndindex(*shape):
        expected = [-1 + (2 * i + 1) / n for i, n in zip(place, shape)]
        np.testing.assert_allclose(found[place].numpy(), expected, rtol=0, atol=1e-6)
    assert torch.equal(make_coord(shape), found.reshape(-1, len(shape)))


def test_make_coord_of_other_ranges():
    found = make_coord((2, 4), ranges=[(0, 1), (-2, 2)])
    assert found[:, 0].tolist() == [0.25] * 4 + [0.75] * 4
    assert found[:, 1].tolist() == [-1.5, -0.5, 0.5, 1.5] * 2


def test_to_pixel_samples():
    image = torch.rand(3, 4, 6)
    coord, values = to_pixel_samples(image)
    assert coord.shape == (24, 2) and values.shape == (24, 3)
    for point, value in zip(coord, values):
        row, column = round((point[0].item() + 1) * 2 - 0.5), round((point[1].item() + 1) * 3 - 0.5)
        assert torch.equal(value, image[:, row, column])


def test_cell_is_a_pixel():
    assert torch.equal(cell_of((4, 10)), torch.tensor([0.5, 0.2]))


# Regions


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    within=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    data=st.data(),
)
@settings(deadline=None)
def test_regions_by_hand(size, within, data):
    """Pixel i of n lies at (i + 1/2) / n of the way through the region, whose sides are given in image pixels."""
    corner = [data.draw(st.floats(-3, side + 3, width=32)) for side in within]
    extent = [data.draw(st.floats(0.125, 20, width=32)) for _ in within]
    region = (corner[0], corner[1], corner[0] + extent[0], corner[1] + extent[1])
    rows, columns, cell = region_axes(size, within, region)
    for axis, (found, n, side) in enumerate(zip((rows, columns), size, within)):
        pixels = [region[axis] + (region[axis + 2] - region[axis]) * (i + 0.5) / n for i in range(n)]
        np.testing.assert_allclose(found.numpy(), [2 * p / side - 1 for p in pixels], rtol=1e-6, atol=1e-6)
        assert cell[axis].item() == pytest.approx(2 * (region[axis + 2] - region[axis]) / side / n, rel=1e-5)


def test_no_region_is_the_whole():
    rows, columns, cell = region_axes((6, 9), (2, 3), None)
    assert torch.equal(rows, pixel_centers(6)) and torch.equal(columns, pixel_centers(9))
    assert torch.equal(cell, cell_of((6, 9)))


@pytest.mark.parametrize(
    "region",
    [
        (1, 0, 1, 3),
        (2, 0, 1, 3),
        (0, 3, 2, 3),
        (0, 2, 2, 1),
        (math.nan, 0, 1, 1),
        (0, 0, math.inf, 1),
        (0, -math.inf, 1, 1),
    ],
)
def test_an_empty_or_endless_region_is_refused(region):
    with pytest.raises(ValueError, match="region"):
        region_axes((4, 4), (2, 3), region)


# Windows


@given(size=st.tuples(st.integers(1, 90), st.integers(1, 90)), limit=st.integers(1, 400))
@settings(deadline=None)
def test_windows_cover_every_pixel_once_within_the_limit(size, limit):
    covered = np.zeros(size, dtype=int)
    for down, across in chunks_of(size, limit):
        assert 0 < (down.stop - down.start) * (across.stop - across.start) <= limit
        assert down.stop <= size[0] and across.stop <= size[1]
        covered[down, across] += 1
    assert (covered == 1).all()


# Scales and sizes


@pytest.mark.parametrize(
    "value, expected",
    [
        (2, (2, 2)),
        (2.5, (2.5, 2.5)),
        ([2, 3.7], (2, 3.7)),
        ((0.5, 1), (0.5, 1)),
        (Scale(2.0, 3.0), (2, 3)),
        (1e-3, (1e-3, 1e-3)),
    ],
)
def test_scale_of(value, expected):
    scale = Scale.of(value)
    assert (scale.y, scale.x) == expected and isinstance(scale.y, float)


@pytest.mark.parametrize(
    "value",
    [
        0,
        -1,
        0.0,
        math.nan,
        math.inf,
        -math.inf,
        True,
        [2],
        [2, 3, 4],
        [],
        [2, 0],
        [2, True],
        [2, "3"],
        "2",
        "23",
        None,
        {},
        [[2, 3]],
        object(),
        pytest.param(10**400, id="huge"),
    ],
)
def test_scale_of_anything_else_is_refused(value):
    with pytest.raises(ValueError, match="positive"):
        Scale.of(value)


@pytest.mark.parametrize(
    "text, expected", [("2", (2, 2)), ("2.5", (2.5, 2.5)), ("2,3.7", (2, 3.7)), (" 2 , 3 ", (2, 3))]
)
def test_scale_parse(text, expected):
    scale = Scale.parse(text)
    assert (scale.y, scale.x) == expected


@pytest.mark.parametrize("text", ["", "x2", "2,3,4", "2,", ",", "nan", "inf", "-2", "0", "1e999", "2;3", "2,-3"])
def test_scale_parse_refuses(text):
    with pytest.raises(ValueError, match="expected"):
        Scale.parse(text)


@pytest.mark.parametrize(
    "scale, plain, text",
    [
        (Scale(2, 2), 2, "x2"),
        (Scale(2.5, 2.5), 2.5, "x2.5"),
        (Scale(2, 3.7), [2, 3.7], "x2,3.7"),
        (Scale(3, 2), [3, 2], "x3,2"),
    ],
)
def test_scale_as_text(scale, plain, text):
    assert scale.to_builtin == plain and str(scale) == text
    assert Scale.of(scale.to_builtin) == scale == Scale.parse(text.removeprefix("x"))
    flat = scale.to_builtin if isinstance(scale.to_builtin, list) else [scale.to_builtin]
    assert [type(v) for v in flat] == [int if v == int(v) else float for v in flat]


@pytest.mark.parametrize(
    "size, scale, expected",
    [
        ((10, 7), 2, (20, 14)),
        ((5, 3), 2.5, (13, 8)),
        ((14, 11), 3.3, (46, 36)),
        ((1, 1), 0.1, (1, 1)),
        ((14, 11), [1.6, 5], (22, 55)),
    ],
)
def test_scaled_size(size, scale, expected):
    """Halves go up: 12.5 to 13 and 7.5 to 8, where Python's own rounding would give 12 and 8."""
    assert scaled_size(size, Scale.of(scale)) == expected


@given(size=st.tuples(sides, sides), y=scales, x=scales)
def test_low_resolution_size_is_the_largest_that_fits(size, y, x):
    scale = Scale(y, x)
    low = low_resolution_size(size, scale)
    for n, s, found in zip(size, (y, x), low):
        assert isinstance(found, int) and found >= 1
        assert (found + 1) * s > n * (1 - 1e-9)
        assert found == 1 or found * s <= n + s * 2e-9
    assert all(a <= n or few == 1 for a, n, few in zip(scaled_size(low, scale), size, low))


@given(size=st.tuples(sides, sides), scale=st.integers(1, 30))
def test_whole_number_scales_crop_as_published(size, scale):
    low = low_resolution_size(size, Scale.of(scale))
    assert low == tuple(max(1, n // scale) for n in size)
    assert scaled_size(low, Scale.of(scale)) == tuple(max(1, n // scale) * scale for n in size)


@given(n=st.integers(1, 300), tenths=st.integers(1, 100))
def test_a_size_made_by_a_scale_is_undone_by_it(n, tenths):
    """1.1 is not a binary fraction: 11 / 1.1 must still be 10."""
    if n * tenths % 10 == 0:
        scale = Scale.of(tenths / 10)
        assert low_resolution_size(scaled_size((n, n), scale), scale) == (n, n)


# Mirroring


@given(count=st.integers(1, 30), more=st.integers(0, 100))
def test_mirrored_is_numpy_s_reflection(count, more):
    found = mirrored(count, count + more)
    assert found.dtype == torch.int64
    assert found.tolist() == np.pad(np.arange(count), (0, more), mode="reflect").tolist()


@pytest.mark.parametrize("count, padded", [(5, 3), (5, 5), (1, 1), (1, 4)])
def test_mirrored_of_no_more(count, padded):
    assert mirrored(count, padded).tolist() == [i if count > 1 else 0 for i in range(padded)]
