"""Pixels without data: they are kept apart from their neighbors, in every layout in which TIFF has them."""

import numpy as np
import pytest
import tifffile
from image_files import noise
from reference import small_model

from liif_core import OutputSize
from liif_core.errors import UserError
from liif_core.images import WRITABLE, Encoding, check_output, open_writer, opening, read_image, survey
from liif_core.images.nodata import TAG, write_marks
from liif_core.model.upscaler import PictureRenderer

H, W = 16, 24


@pytest.fixture
def path(tmp_path):
    return tmp_path / "heights.tif"


def write(path, pixels, text, **options):
    options.setdefault("photometric", "rgb" if pixels.ndim == 3 else "minisblack")
    tifffile.imwrite(path, pixels, metadata=None, extratags=[(TAG, 2, 0, text, True)], **options)


def heights(dtype="float32", value=-9999.0):
    pixels = np.full((H, W), 10, dtype)
    pixels[8:] = 30
    pixels[:, 11:13] = value
    pixels[0, 0] = value
    return pixels


MARKED = heights() == -9999


@pytest.mark.parametrize(
    "dtype, value, text",
    [
        ("float32", -9999, "-9999"),
        ("float32", -9999, " -9999.0 "),
        ("float32", np.nan, "nan"),
        ("float32", -3.4028234663852886e38, "-3.4028234663852886e+38"),
        ("float32", -np.inf, "-inf"),
        ("float64", -9999, "-9999"),
        ("float16", -9999, "-9999"),
        ("uint16", 65535, "65535"),
        ("uint8", 0, "0"),
        ("uint8", 255, "255"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"rowsperstrip": 5, "compression": "zlib"}])
@pytest.mark.parametrize("in_parts", [False, True])
def test_marked_pixels_take_no_part(dtype, value, text, options, in_parts, path, monkeypatch):
    if in_parts:
        monkeypatch.setattr(opening, "_SMALL", 0)
    write(path, heights(dtype, np.array(value).astype(dtype)), text, **options)
    source = survey(path, 1 << 30).open()
    part = source.read(slice(0, H), slice(0, W))
    np.testing.assert_array_equal(part.alpha == 0, MARKED)
    np.testing.assert_array_equal(part.color[:8], 10)
    np.testing.assert_array_equal(part.color[8:], 30)
    assert source.span == ({"uint8": (0, 255), "uint16": (0, 65535)}.get(dtype, (0, 30)))
    kept = source.metadata.nodata
    assert np.isnan(kept) if text == "nan" else kept == np.array(value).astype(dtype).astype(source.depth)


@pytest.mark.parametrize("region", [None, (3.5, 2, 14, 20)])
def test_the_nearest_pixel_of_the_source_says_where_there_is_no_data(region, path, tmp_path, registry):
    write(path, heights(), "-9999")
    source = survey(path, 1 << 30).open()
    output = OutputSize.of(2.5, region=region)
    renderer = PictureRenderer(small_model(registry), source, output)
    target = check_output(tmp_path / "out.tif", renderer.size, renderer.channels, source.depth, source.metadata)
    with open_writer(target) as writer:
        for rows in renderer.rows(renderer.plan(1 << 30), target.depth):
            writer.write_rows(rows)
    top, left, bottom, right = region or (0, 0, H, W)
    height, width = renderer.size
    down = np.floor(top + (np.arange(height) + 0.5) * (bottom - top) / height).astype(int)
    across = np.floor(left + (np.arange(width) + 0.5) * (right - left) / width).astype(int)
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        pixels, text = file.pages[0].asarray(), file.pages[0].tags[TAG].value
    assert float(text) == -9999
    np.testing.assert_array_equal(pixels == -9999, MARKED[np.ix_(down, across)])
    assert (abs(pixels[pixels != -9999]) < 500).all()


def test_other_formats_cannot_say_it(path, tmp_path):
    write(path, heights("uint8", 0), "0")
    source = survey(path, 1 << 30).open()
    for name, format in WRITABLE.items():
        if format.name != "TIFF":
            with pytest.raises(UserError, match="pixels without data, marked by the value 0"):
                check_output(tmp_path / f"a.{name}", (9, 9), 1, source.depth, source.metadata, encoding=Encoding())


def test_a_mark_that_no_pixel_has_is_mentioned(path):
    write(path, noise(H, W, high=200), "255")
    picture, source = read_image(path), survey(path, 1 << 30).open()
    assert picture.alpha is None and source.alpha_range is None and source.metadata.nodata is None
    assert source.notes == picture.notes == (
        "no pixel has the value 255, which marks pixels without data; the mark was left out",
    )  # fmt: skip


def test_values_that_samples_cannot_have_are_no_marks(path):
    for text in ("-9999", "256", "0.5", "none", ""):
        write(path, noise(H, W), text)
        assert read_image(path).alpha is None and not read_image(path).notes


def test_pixels_of_color_need_the_value_in_all_channels(path):
    pixels = np.zeros((H, W, 3), np.uint8)
    pixels[..., 1] = 7
    pixels[3, 3] = 0
    write(path, pixels, "0")
    assert np.argwhere(read_image(path).alpha == 0).tolist() == [[3, 3]]
    floats = pixels.astype("float32")
    floats[5, 5, 1] = -1
    write(path, floats, "-1")
    with pytest.raises(UserError, match="some pixels have the no-data value -1 in some of their channels only"):
        read_image(path)


def test_what_cannot_be_kept_apart_is_refused(path):
    write(path, noise(H, W), "3", photometric="palette", colormap=noise(3, 256, high=65536, dtype="uint16"))
    with pytest.raises(UserError, match="a TIFF of mode P whose pixels without data .* is not read"):
        read_image(path)
    pixels = np.zeros((H, W), np.float32)
    pixels[2, 2] = np.nan
    write(path, pixels, "-9999")
    with pytest.raises(UserError, match="not finite"):
        read_image(path)


def test_a_value_that_comes_by_chance_is_not_taken_for_a_mark():
    rows = np.zeros((2, 3, 1), np.uint8)
    without = np.zeros((2, 3), bool)
    without[0, 0] = True
    write_marks(rows, without, 0)
    assert rows[..., 0].tolist() == [[0, 1, 1], [1, 1, 1]]
    rows = np.full((1, 2, 1), 255, np.uint8)
    write_marks(rows, np.array([[False, True]]), 255)
    assert rows[..., 0].tolist() == [[254, 255]]
