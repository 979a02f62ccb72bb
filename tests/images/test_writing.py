"""Writing: every depth and format read back by Pillow and tifffile; metadata; limits; memory that does not grow."""

import shutil
import tracemalloc

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from liif_core.errors import UserError
from liif_core.images import (
    Encoding,
    Metadata,
    check_output,
    ifd,
    needs_whole,
    open_writer,
    read_image,
    tiff,
)

H, W = 37, 53
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def pixels(height: int, width: int, channels: int, depth: str = "uint8") -> np.ndarray:
    """Half smooth, half noise."""
    rng = np.random.default_rng(5)
    smooth = np.linspace(0, 1, width)[None, :, None] * np.linspace(0, 1, height)[:, None, None]
    values = np.where(np.arange(height)[:, None, None] % 2, smooth, rng.random((height, width, channels)))
    if depth == "float32":
        return (values * 3 - 1).astype(depth)
    return np.floor(values * (np.iinfo(depth).max + 1)).astype(depth)


def write(path, image, bands=(11, 1, 25), **options):
    """Write in bands of the heights given, the last one taking what is left."""
    target = check_output(path, image.shape[:2], image.shape[2], image.dtype.name, **options)
    with open_writer(target) as writer:
        top = 0
        for height in (*bands, image.shape[0]):
            writer.write_rows(image[top : top + height])
            top = min(top + height, image.shape[0])
    return target


def kept(path):
    """Names in the folder: nothing but what was asked for."""
    return sorted(entry.name for entry in path.iterdir())


@pytest.mark.parametrize("channels", MODES)
@pytest.mark.parametrize("depth", ["uint8", "uint16"])
def test_png_is_read_back_by_pillow_and_libpng(depth, channels, tmp_path):
    image = pixels(H, W, channels, depth)
    write(tmp_path / "a.png", image)
    if depth == "uint8":
        with Image.open(tmp_path / "a.png") as again:
            assert again.mode == MODES[channels]
            np.testing.assert_array_equal(np.asarray(again).reshape(image.shape), image)
    else:
        again = pytest.importorskip("imagecodecs").png_decode((tmp_path / "a.png").read_bytes())
        np.testing.assert_array_equal(again.reshape(image.shape), image)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3, 4]), st.lists(st.integers(1, 9), max_size=5))
@settings(max_examples=40, deadline=None)
def test_png_of_any_size_in_any_bands(tmp_path_factory, height, width, channels, bands):
    path = tmp_path_factory.mktemp("any") / "a.png"
    image = pixels(height, width, channels)
    write(path, image, bands)
    np.testing.assert_array_equal(np.asarray(Image.open(path)).reshape(image.shape), image)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("channels", MODES)
@pytest.mark.parametrize("depth", ["uint8", "uint16", "float32"])
def test_tiff_is_read_back_by_tifffile_and_pillow(depth, channels, tiled, big, tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "TILE", 16)
    monkeypatch.setattr(tiff, "_STRIP_BYTES", 2000)
    if big:
        monkeypatch.setattr(tiff, "_LAST_OFFSET", 0)
    image = pixels(H, W, channels, depth)
    path = tmp_path / "a.tif"
    write(path, image, encoding=Encoding(tiled=tiled))
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        assert (len(file.pages), page.is_tiled, file.is_bigtiff) == (1, tiled, big)
        assert page.extrasamples == ((2,) if channels in (2, 4) else ())
        np.testing.assert_array_equal(page.asarray().reshape(image.shape), image)
    if depth == "uint8" or (channels == 1 and not (tiled and depth == "uint16" and big)):
        with Image.open(path) as again:
            np.testing.assert_array_equal(np.asarray(again).reshape(image.shape), image)
    picture = read_image(path)
    color = channels - (channels in (2, 4))
    np.testing.assert_array_equal(picture.color, image[..., :color])


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_near_and_of_full_color_resolution(channels, tmp_path):
    smooth = np.kron(pixels(5, 7, channels)[::2], np.ones((16, 16, 1), "u1"))
    write(tmp_path / "a.jpg", smooth, encoding=Encoding(quality=100))
    with Image.open(tmp_path / "a.jpg") as again:
        assert again.mode == MODES[channels]
        assert np.abs(np.asarray(again).reshape(smooth.shape).astype(int) - smooth).max() <= 3


@pytest.mark.parametrize("channels", MODES)
def test_webp_without_loss_is_exact(channels, tmp_path):
    image = pixels(H, W, channels)
    if channels in (2, 4):
        image[..., -1] |= 1  # WebP may forget the color of what is fully transparent
    write(tmp_path / "a.webp", image, encoding=Encoding(lossless=True))
    with Image.open(tmp_path / "a.webp") as again:
        rows = np.asarray(again)
    expected = image if channels > 2 else np.concatenate([image[..., :1]] * 3 + [image[..., 1:]], -1)
    np.testing.assert_array_equal(rows, expected)


def carried() -> Metadata:
    exif = {
        0x010E: ifd.Entry.of(ifd.ASCII, b"a view\0"),
        0x0112: ifd.Entry.of(ifd.SHORT, [1]),
        ifd.EXIF: {0x829A: ifd.Entry.of(ifd.RATIONAL, [1, 100]), 0xA002: ifd.Entry.of(ifd.LONG, [9])},
        ifd.GPS: {1: ifd.Entry.of(ifd.ASCII, b"N\0")},
    }
    text = {"Comment": "said", "Author": "Łucja"}
    return Metadata(icc=SRGB, exif=ifd.block(exif), xmp=b"<x/>", text=text, dpi=(300.0, 150.0))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_metadata_is_carried_over_into_every_format(suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    write(path, pixels(H, W, 3), metadata=carried())
    with Image.open(path) as image:
        image.load()
        assert image.info["icc_profile"] == SRGB
        exif = image.getexif()
        assert exif[0x010E] == "a view"
        assert exif.get_ifd(ifd.EXIF) == {0x829A: 0.01, 0xA002: W}  # the size is the new one
        assert exif.get_ifd(ifd.GPS) == {1: "N"}
        assert (float(exif[0x011A]), float(exif[0x011B]), exif[0x0128]) == (300, 150, 2)
        if suffix != "webp":
            assert image.info["dpi"] == pytest.approx((300, 150), abs=0.02)
    found = read_image(path).metadata
    assert found.xmp == b"<x/>"
    comment = {"Comment": "Comment: said\nAuthor: Łucja"}
    assert found.text == {"png": {"Comment": "said", "Author": "Łucja"}, "jpg": comment}.get(suffix, {})


def test_what_was_read_and_written_is_read_again(tmp_path):
    first, second = tmp_path / "a.png", tmp_path / "b.tif"
    write(first, pixels(H, W, 3, "uint16"), metadata=carried())
    picture = read_image(first)
    write(second, picture.color, metadata=picture.metadata)
    again = read_image(second)
    np.testing.assert_array_equal(again.color, picture.color)
    assert (again.metadata.icc, again.metadata.xmp) == (SRGB, b"<x/>")
    assert again.metadata.exif == picture.metadata.exif


def test_a_profile_for_rgb_does_not_go_into_a_gray_file(tmp_path):
    write(tmp_path / "a.png", pixels(H, W, 1), metadata=Metadata(icc=SRGB))
    assert "icc_profile" not in Image.open(tmp_path / "a.png").info


def test_metadata_too_long_for_jpeg_is_left_out_and_said(tmp_path):
    exif = ifd.block({0x010E: ifd.Entry.of(ifd.ASCII, b"x" * 66_000)})
    metadata = Metadata(exif=exif, xmp=b"y" * 66_000, text={"Comment": "z" * 66_000})
    target = write(tmp_path / "a.jpg", pixels(H, W, 3), metadata=metadata)
    names = "EXIF", "XMP", "comment"
    assert [str(change) for change in target.account.dropped] == [
        f"{name}: it is too long for a JPEG" for name in names
    ]


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_broken_off_image_leaves_nothing(suffix, failure, tmp_path):
    path = tmp_path / f"a.{suffix}"
    path.write_text("as it was")
    with pytest.raises(failure), open_writer(check_output(path, (H, W), 3, "uint8")) as writer:
        writer.write_rows(pixels(H, W, 3)[:9])
        raise failure
    assert kept(tmp_path) == [path.name] and path.read_text() == "as it was"


def test_rows_that_are_missing_too_many_or_of_another_kind_are_errors(tmp_path):
    image, target = pixels(H, W, 3), check_output(tmp_path / "a.png", (H, W), 3, "uint8")
    with pytest.raises(ValueError, match="36 rows of 37"), open_writer(target) as writer:
        writer.write_rows(image[:36])
    with pytest.raises(ValueError, match="38 rows for an image of 37"), open_writer(target) as writer:
        writer.write_rows(image)
        writer.write_rows(image[:1])
    for wrong in (image[:, 1:], image[..., :1], image.astype("u2"), image.astype(float)):
        with pytest.raises(ValueError, match="expected rows"), open_writer(target) as writer:
            writer.write_rows(wrong)
    assert kept(tmp_path) == []


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg"])
def test_a_disk_that_refuses_is_said_by_name_and_nothing_is_left(name, tmp_path):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, before[1]))
    try:
        with pytest.raises(UserError, match=f"{name}: cannot be written"):
            write(tmp_path / name, np.random.default_rng(1).integers(0, 256, (70, 60, 3)).astype("u1"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert kept(tmp_path) == []


def test_folders_are_made(tmp_path):
    write(tmp_path / "new" / "deep" / "a.png", pixels(H, W, 1))
    assert kept(tmp_path / "new" / "deep") == ["a.png"]


@pytest.mark.parametrize(
    "name, depth, kept_depth",
    [
        ("a.png", "float32", "uint16"),
        ("a.jpg", "uint16", "uint8"),
        ("a.webp", "float32", "uint8"),
        ("a.tif", "float32", "float32"),
        ("a.PNG", "uint16", "uint16"),
        ("a.jpeg", "uint8", "uint8"),
    ],
)
def test_depth_is_what_the_format_holds_and_said(name, depth, kept_depth, tmp_path):
    target = check_output(tmp_path / name, (H, W), 3, depth)
    assert target.depth == kept_depth
    assert bool(target.notes) == (depth != kept_depth)


@pytest.mark.parametrize(
    "name, size, channels, options, reason",
    [
        ("a.jpg", (65_501, 10), 3, {}, "beyond the 65,500 pixels a side that JPEG"),
        ("a.webp", (10, 16_384), 3, {}, "16384x10 is beyond the 16,383"),
        ("a.png", (10, 2**31), 1, {}, "beyond"),
        ("a.jpg", (10, 10), 4, {}, "JPEG has no transparency"),
        ("a.jpg", (10, 10), 2, {}, "--format png, webp or tif"),
        ("a.pmg", (10, 10), 3, {}, "did you mean '.png'"),
        ("a", (10, 10), 3, {}, "no format has the suffix ''"),
        ("a.png", (10, 10), 3, {"format": "tiff"}, "did you mean 'tif'"),
        ("", (10, 10), 3, {"format": "png"}, "is a folder"),
        ("file/a.png", (10, 10), 3, {}, "is not a folder"),
        ("a.tif", (10**7, 10**7), 3, {}, "may need 300000.0 GB"),
    ],
)
def test_what_cannot_be_written_is_found_before_computing(name, size, channels, options, reason, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=reason):
        check_output(tmp_path / name, size, channels, "uint8", **options)


def test_all_problems_of_an_output_come_together(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(UserError) as caught:
        check_output(tmp_path / "a.jpg", (70_000, 70_000), 4, "uint8")
    assert len(caught.value.problems) == 3


def test_longest_sides_can_be_written(tmp_path):
    for name, width in (("a.jpg", 65_500), ("a.webp", 16_383)):
        write(tmp_path / name, np.zeros((1, width, 1), "u1"))
        assert Image.open(tmp_path / name).width == width


def test_which_formats_need_the_whole_image():
    assert [needs_whole(name) for name in ("png", "tif", "jpg", "webp")] == [False, False, True, True]


def test_beyond_4_gb_a_tiff_is_a_tiled_bigtiff_of_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(0, 0, 10**15))
    square = check_output(tmp_path / "a.tif", (40_000, 40_000), 3, "uint8")
    assert square.encoding.tiled and square.memory < 100e6
    assert not check_output(tmp_path / "a.tif", (30_000, 30_000), 3, "uint8").encoding.tiled
    banner = check_output(tmp_path / "a.tif", (3_000, 1_000_000), 3, "uint8")
    assert not banner.encoding.tiled and banner.memory < 100e6
    assert check_output(tmp_path / "a.jpg", (20_000, 20_000), 3, "uint8").memory == 2.4e9


@pytest.mark.parametrize("name, tiled", [("a.png", None), ("a.tif", False), ("a.tif", True)])
def test_memory_does_not_grow_with_the_image(name, tiled, tmp_path):
    height, width, band = 5_000, 20_000, 250
    target = check_output(tmp_path / name, (height, width), 1, "uint8", encoding=Encoding(compression=1, tiled=tiled))
    rows = (np.arange(width) // 64 % 251 + np.arange(band)[:, None] // 32).astype("u1")
    tracemalloc.start()
    with open_writer(target) as writer:
        for _ in range(height // band):
            writer.write_rows(rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < target.memory < 25e6  # the image has 100e6 bytes
    if name == "a.tif":
        with tifffile.TiffFile(tmp_path / name) as file:
            part = next(file.pages[0].segments(maxworkers=1))[0]
            np.testing.assert_array_equal(part.reshape(part.shape[-3:-1])[:16, :256], rows[:16, :256])
