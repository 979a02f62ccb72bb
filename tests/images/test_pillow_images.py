"""Pictures from Pillow's images are those of files; images of Pillow save what they hold."""

import io
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from image_files import CASES, DEEP, FLOATS, GRAY, PILLOW_READS_YCBCR_TIFF, RGB, RGBA, SRGB, H, W, palette_image
from PIL import Image, ImageCms

from liif_core.images import Metadata, Picture, ifd, picture_from_pillow, picture_to_pillow, read_image

# What Pillow opens otherwise: color of 16 bits as 8 bits or not at all, and 16 bits with white as 0 not inverted.
NOT_AS_PILLOW = ("I;16 tiff white is zero", "RGB;16", "RGBA;16", "LA;16", "RGB;F", "F half", "F double", "bigtiff")


def exif_of(**texts: str) -> bytes:
    tags = {int(tag[1:], 16): ifd.Entry.of(ifd.ASCII, text.encode() + b"\0") for tag, text in texts.items()}
    return ifd.block(tags | {0x0112: ifd.Entry.of(ifd.SHORT, [1])})


def assert_same_picture(one: Picture, other: Picture) -> None:
    assert (one.color.dtype, one.span, one.notes) == (other.color.dtype, other.span, other.notes)
    np.testing.assert_array_equal(one.color, other.color)
    assert (one.alpha is None) == (other.alpha is None)
    if one.alpha is not None:
        np.testing.assert_array_equal(one.alpha, other.alpha)
    assert one.metadata == other.metadata


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith(NOT_AS_PILLOW)])
@pytest.mark.parametrize("loaded", [False, True])
def test_an_opened_file_gives_the_picture_that_the_reader_gives(case, loaded, tmp_path):
    if case == "L key of 2 bits" and loaded:
        pytest.skip("a loaded image no longer says how many bits its file has")
    path = tmp_path / "file"
    path.write_bytes(CASES[case][0])
    with Image.open(path) as image:
        if loaded:
            image.load()
        assert_same_picture(picture_from_pillow(image), read_image(path))


def lab_image() -> Image.Image:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(Image.fromarray(RGB), srgb, lab, outputMode="LAB")
    del image.info["icc_profile"]
    return image


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "F"])
def test_an_image_in_memory_gives_the_picture_of_its_tiff(mode, tmp_path):
    made = {
        "P": palette_image,
        "LAB": lab_image,
        "I;16": lambda: Image.fromarray(DEEP[..., 0]),
        "F": lambda: Image.fromarray(FLOATS[..., 0] * 3 - 1),
        "RGBA": lambda: Image.fromarray(RGBA),
        "LA": lambda: Image.fromarray(RGBA[..., :2]),
    }
    if mode == "YCbCr" and not PILLOW_READS_YCBCR_TIFF:
        pytest.skip("this version of Pillow does not read what it wrote")
    image = made.get(mode, lambda: Image.fromarray(RGB).convert(mode))()
    image.save(tmp_path / "a.tif")
    assert image.mode == mode
    assert_same_picture(picture_from_pillow(image), read_image(tmp_path / "a.tif"))


@pytest.mark.parametrize("mode", ["HSV", "RGBa", "La", "RGBX"])
def test_modes_that_no_file_has_are_converted_as_pillow_converts_them(mode):
    source = Image.fromarray(RGBA[..., :2] if mode == "La" else RGBA if mode == "RGBa" else RGB)
    image = source.convert(mode)
    picture = picture_from_pillow(image)
    plain = np.asarray(image.convert({"HSV": "RGB", "RGBa": "RGBA", "La": "LA", "RGBX": "RGB"}[mode]))
    colors = 1 if mode == "La" else 3
    np.testing.assert_array_equal(picture.color, plain[..., :colors])
    assert (picture.alpha is not None) == (mode in ("RGBa", "La"))
    if picture.alpha is not None:
        np.testing.assert_array_equal(picture.alpha, plain[..., -1])


def test_16_bit_gray_in_all_its_modes():
    values = DEEP[..., 0]
    for mode, type in (("I;16", "<u2"), ("I;16B", ">u2"), ("I", "<i4")):
        image = Image.frombytes(mode, (W, H), values.astype(type).tobytes())
        picture = picture_from_pillow(image)
        assert (picture.depth, picture.span, picture.mode) == ("uint16", (0, 65535), mode)
        np.testing.assert_array_equal(picture.color[..., 0], values)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("loaded", [False, True])
def test_orientation_is_applied_once(format, orientation, loaded, tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = orientation, "view"
    path = tmp_path / "file"
    Image.fromarray(np.kron(RGB[:3, :4], np.ones((16, 16, 1), "u1"))).save(path, format, exif=exif)
    with Image.open(path) as image:
        if loaded:
            image.load()
        picture = picture_from_pillow(image)
    expected = read_image(path)
    assert picture.size == expected.size
    np.testing.assert_array_equal(picture.color, expected.color)
    kept = Image.Exif()
    kept.load(picture.metadata.exif)
    assert (kept[0x0112], kept[0x010E]) == (1, "view")


def test_what_was_changed_after_opening_counts(tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "before"
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        del image.getexif()[0x0112]
        image.getexif()[0x010E] = "after"
        picture = picture_from_pillow(image)
    np.testing.assert_array_equal(picture.color, RGB)
    kept = Image.Exif()
    kept.load(picture.metadata.exif)
    assert kept[0x010E] == "after"


@pytest.mark.parametrize(
    "image, error, message",
    [
        (RGB, TypeError, "image: expected a PIL.Image.Image, got ndarray"),
        (Image.new("RGB", (0, 4)), ValueError, "image: expected at least one pixel, got an image of 0x4"),
        (Image.fromarray(GRAY.astype("i4") - 1000), ValueError, "values of mode I in 0..65535, got -1000 to "),
        (Image.fromarray(np.full((2, 2), np.inf, "f4")), ValueError, "image: some of its pixels are not finite"),
    ],
)
def test_what_is_no_picture_is_refused(image, error, message):
    with pytest.raises(error, match=message):
        picture_from_pillow(image)


def test_an_unsupported_mode_is_named_with_those_that_are_supported():
    image = Image.new("RGB", (2, 2))
    image._mode = "I;16S"
    with pytest.raises(ValueError, match=r"image: mode I;16S is not supported, expected one of 1, .*RGBA.*I;16, .*F"):
        picture_from_pillow(image)


# Back to Pillow


def a_picture(depth: str, channels: int, alpha: bool, metadata: Metadata = Metadata()) -> Picture:
    values = {"uint8": RGBA, "uint16": DEEP, "float32": np.concatenate([FLOATS, FLOATS[..., :1]], -1)}[depth]
    span = (0.0, {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}[depth])
    return Picture(values[..., :channels], values[..., 3] if alpha else None, "any", span, metadata)


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_8_bit_pixels_are_those_of_the_picture(channels, alpha):
    picture = a_picture("uint8", channels, alpha)
    image = picture_to_pillow(picture)
    assert image.mode == {(1, False): "L", (1, True): "LA", (3, False): "RGB", (3, True): "RGBA"}[channels, alpha]
    np.testing.assert_array_equal(np.asarray(image).reshape(H, W, -1)[..., :channels], picture.color)
    if alpha:
        np.testing.assert_array_equal(np.asarray(image)[..., -1], picture.alpha)


def test_gray_of_16_bits_and_floats_is_kept():
    for depth, mode in (("uint16", "I;16"), ("float32", "F")):
        picture = a_picture(depth, 1, False)
        image = picture_to_pillow(picture)
        assert image.mode == mode
        np.testing.assert_array_equal(np.asarray(image), picture.color[..., 0])


@pytest.mark.parametrize("depth", ["uint16", "float32"])
@pytest.mark.parametrize("channels, alpha", [(3, False), (3, True), (1, True)])
def test_color_of_more_bits_is_rounded_to_8(depth, channels, alpha):
    picture = a_picture(depth, channels, alpha)
    pixels = np.asarray(picture_to_pillow(picture))
    exact = picture.color.astype(float) / picture.span[1] * 255
    assert pixels.dtype == np.uint8
    assert np.abs(pixels[..., :channels] - exact).max() <= 0.5 + 1e-4


def test_every_16_bit_value_is_rounded_to_nearest():
    values = np.arange(65536, dtype="u2").reshape(256, 256, 1)
    picture = Picture(np.repeat(values, 3, axis=2), None, "RGB;16", (0.0, 65535.0))
    pixels = np.asarray(picture_to_pillow(picture)).astype(int)
    np.testing.assert_array_equal(pixels[..., :1], (values.astype(int) + 128) // 257)


DESCRIBED = Metadata(
    icc=SRGB,
    exif=exif_of(x010E="a view", x0132="2020:02:02 02:02:02"),
    xmp=b"<x/>",
    text={"Comment": "said", "Author": "\u0141ucja"},
    dpi=(300.0, 150.0),
)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("how", ["path", "name", "stream"])
def test_saving_keeps_the_metadata(suffix, how, tmp_path):
    path = tmp_path / f"a.{suffix}"
    image = picture_to_pillow(a_picture("uint8", 3, False, DESCRIBED))
    if how == "stream":
        stream = io.BytesIO()
        image.save(stream, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix))
        path.write_bytes(stream.getvalue())
    elif how == "name":
        image.save(str(path))
    else:
        image.save(path)
    with Image.open(path) as again:
        again.load()
        assert again.size == (W, H) and again.info["icc_profile"] == SRGB
        assert again.getexif()[0x010E] == "a view" and again.getexif()[0x0132] == "2020:02:02 02:02:02"
        if suffix != "webp":
            assert again.info["dpi"] == pytest.approx((300, 150), abs=0.02)
    found = read_image(path).metadata
    assert found.xmp == b"<x/>"
    comment = {"Comment": "Comment: said\nAuthor: \u0141ucja"}
    assert found.text == {"png": DESCRIBED.text, "jpg": comment}.get(suffix, {})


@pytest.mark.parametrize("depth, suffix", [("uint16", "png"), ("uint16", "tif"), ("float32", "tif")])
def test_saving_high_depth_keeps_the_metadata(depth, suffix, tmp_path):
    picture = a_picture(depth, 1, False, Metadata(exif=DESCRIBED.exif, dpi=(300.0, 150.0)))
    picture_to_pillow(picture).save(tmp_path / f"a.{suffix}")
    again = read_image(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(again.color, picture.color)
    assert again.metadata.exif == picture.metadata.exif
    assert again.metadata.dpi == pytest.approx((300, 150), abs=0.02)


def test_what_is_given_to_save_takes_precedence(tmp_path):
    image = picture_to_pillow(a_picture("uint8", 3, False, DESCRIBED))
    image.save(tmp_path / "a.png", dpi=(72, 72), exif=b"", icc_profile=None)
    with Image.open(tmp_path / "a.png") as again:
        assert again.info["dpi"] == pytest.approx((72, 72), abs=0.02)
        assert "icc_profile" not in again.info and not again.getexif()
    image.info["dpi"] = (96, 96)
    image.save(tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as again:
        assert again.info["dpi"] == pytest.approx((96, 96), abs=0.02)


def test_metadata_too_long_for_jpeg_is_left_out_with_a_warning(tmp_path):
    long = Metadata(exif=exif_of(x010E="x" * 66_000), dpi=(300.0, 150.0))
    image = picture_to_pillow(a_picture("uint8", 3, False, long))
    with pytest.warns(UserWarning, match="image: its EXIF: it is too long for a JPEG"):
        image.save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").metadata.dpi == (300, 150)


def test_a_profile_for_rgb_is_not_saved_with_gray(tmp_path):
    image = picture_to_pillow(a_picture("uint8", 1, False, DESCRIBED))
    image.save(tmp_path / "a.png")
    assert "icc_profile" not in image.info and read_image(tmp_path / "a.png").metadata.icc is None


def test_the_image_can_be_copied_and_pickled():
    image = picture_to_pillow(a_picture("uint8", 3, False, DESCRIBED))
    for again in (image.copy(), pickle.loads(pickle.dumps(image))):
        np.testing.assert_array_equal(np.asarray(again), RGBA[..., :3])
        assert picture_from_pillow(again).metadata.exif == picture_from_pillow(image).metadata.exif


def test_there_and_back_is_the_picture():
    for depth, channels, alpha in (("uint8", 1, True), ("uint8", 3, True), ("uint16", 1, False), ("float32", 1, False)):
        metadata = Metadata(exif=DESCRIBED.exif, xmp=b"<x/>", dpi=(300.0, 150.0), text={"Comment": "said"})
        picture = a_picture(depth, channels, alpha, metadata)
        assert_same_picture(picture_from_pillow(picture_to_pillow(picture)), picture)


PIXELS = st.one_of(
    *(
        arrays.arrays(dtype, st.tuples(st.integers(1, 5), st.integers(1, 5), *channels))
        for dtype, channels in (
            ("uint8", ()),
            ("uint8", (st.sampled_from([2, 3, 4]),)),
            ("uint16", ()),
        )
    )
)


@given(PIXELS)
@settings(max_examples=100, deadline=None)
def test_any_image_there_and_back_is_itself(pixels):
    image = Image.fromarray(pixels)
    again = picture_to_pillow(picture_from_pillow(image))
    assert again.mode == image.mode
    np.testing.assert_array_equal(np.asarray(again), pixels)
