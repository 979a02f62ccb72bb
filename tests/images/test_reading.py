"""Reading: every mode, depth, orientation and piece of metadata, against Pillow and plain formulas."""

import struct
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import numpy as np
import pytest
import tifffile
from image_files import (
    CASES,
    COLORS,
    DEEP,
    FLOATS,
    GRAY,
    INDEX,
    PILLOW_READS_YCBCR_TIFF,
    PRE,
    RGB,
    RGBA,
    SRGB,
    H,
    W,
    noise,
    palette_image,
    png,
    saved,
    tiff,
)
from PIL import Image, ImageCms, ImageFile, PngImagePlugin

from liif_core.errors import UserError
from liif_core.images import TooManyPixels, header, read_image


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


@pytest.mark.parametrize("case", CASES)
def test_every_mode_is_read_as_it_was_written(case, path):
    data, mode, color, alpha = CASES[case]
    path.write_bytes(data)
    head, picture = header(path), read_image(path)
    color = color.reshape(H, W, -1)
    assert picture.mode == head.mode == mode
    assert picture.color.dtype == color.dtype
    np.testing.assert_array_equal(picture.color, color)
    assert (picture.alpha is None) == (alpha is None) == (not head.alpha)
    if alpha is not None:
        assert picture.alpha.dtype == color.dtype
        np.testing.assert_array_equal(picture.alpha, alpha)
    assert (head.size, head.channels, head.depth) == (picture.size, color.shape[2], picture.depth)
    assert picture.span == (0, 1 if picture.depth == "float32" else np.iinfo(picture.depth).max)


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_a_palette_of_grays_is_gray(format, path):
    image = palette_image()
    image.putpalette([7, 7, 7, 50, 50, 50, 99, 99, 99, 255, 255, 255])
    image.save(path, format)
    np.testing.assert_array_equal(read_image(path).color[..., 0], np.array([7, 50, 99, 255])[INDEX])


def test_pa_is_read_with_its_alpha(path):
    image = palette_image().convert("PA")
    image.putalpha(Image.fromarray(RGBA[..., 3]))
    image.save(path, "TIFF")
    picture = read_image(path)
    assert picture.mode == "PA"
    np.testing.assert_array_equal(picture.color, COLORS[INDEX])
    np.testing.assert_array_equal(picture.alpha, RGBA[..., 3])


def test_premultiplied_tiff_becomes_straight(path):
    path.write_bytes(tiff(PRE, photometric="rgb", extrasamples=["assocalpha"]))
    picture = read_image(path)
    share = DEEP[..., 3:].astype(float)
    exact = np.divide(PRE[..., :3] * 65535.0, share, out=np.zeros((H, W, 3)), where=share > 0)
    assert np.abs(picture.color - np.minimum(exact, 65535)).max() <= 0.51


def test_a_third_channel_beside_color_and_alpha_is_left_out_and_said(path):
    pixels = np.concatenate([DEEP, DEEP[..., :1]], -1)
    path.write_bytes(tiff(pixels, photometric="rgb", extrasamples=["unassalpha", "unspecified"]))
    picture = read_image(path)
    assert picture.notes == ("1 extra channel was left out",)
    np.testing.assert_array_equal(picture.alpha, DEEP[..., 3])


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_is_converted_and_said(format, path):
    image = Image.fromarray(RGB).resize((40, 30)).convert("CMYK")
    path.write_bytes(saved(image, format))
    with Image.open(path) as again:
        plain = np.asarray(again.convert("RGB"))
    picture = read_image(path)
    np.testing.assert_array_equal(picture.color, plain)
    assert header(path).mode == picture.mode == "CMYK"
    assert "CMYK was converted to RGB" in picture.notes[0]


def cmyk_profile() -> bytes:
    """The least ICC profile for CMYK: no ink is white, all four are black, and any others the gray of CIE L* 50."""
    straight = bytes(range(256))
    corners = b"".join(bytes([{0: 255, 15: 0}.get(corner, 128), 128, 128]) for corner in range(16))
    identity = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + straight * 4 + corners + straight * 3
    lut += bytes(-len(lut) % 4)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    tags = struct.pack(">I", 2) + b"A2B0" + struct.pack(">II", 156, len(lut))
    tags += b"wtpt" + struct.pack(">II", 156 + len(lut), len(white))
    start = b"lcms" + bytes.fromhex("02400000") + b"prtrCMYKLab " + bytes(12) + b"acsp" + bytes(28)
    head = struct.pack(">I", 156 + len(lut) + len(white)) + start + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + tags + lut + white


def test_cmyk_is_converted_through_its_profile_and_loses_it(path):
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    cyan.save(path, "TIFF", icc_profile=cmyk_profile())
    picture = read_image(path)
    assert picture.notes == ("CMYK was converted to RGB through its ICC profile",)
    assert picture.metadata.icc is None
    assert np.abs(picture.color.astype(int) - 119).max() <= 1  # L* 50 in sRGB; the plain formula says (0, 255, 255)


def test_cmyk_with_a_broken_profile_is_converted_plainly_and_said(path):
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(path, "TIFF", icc_profile=b"nonsense")
    picture = read_image(path)
    assert "by the simple formula: its ICC profile cannot be used" in picture.notes[0]
    assert (picture.color == [0, 255, 255]).all()


def test_ycbcr_and_lab_are_converted_and_said(path):
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    as_lab = ImageCms.profileToProfile(Image.fromarray(RGB), srgb, lab, outputMode="LAB")
    del as_lab.info["icc_profile"]
    for image in (Image.fromarray(RGB).convert("YCbCr"), as_lab)[not PILLOW_READS_YCBCR_TIFF :]:
        path.write_bytes(saved(image, "TIFF"))
        picture = read_image(path)
        # 8 bits of another space hold less than 8 bits of RGB.
        assert np.abs(picture.color.astype(int) - RGB).mean() < 3
        assert picture.notes == (f"{image.mode} was converted to RGB",)


def test_floats_beyond_one_are_kept_and_said(path):
    tifffile.imwrite(path, FLOATS[..., 0] * 900 - 100)
    picture = read_image(path)
    np.testing.assert_array_equal(picture.color[..., 0], FLOATS[..., 0] * 900 - 100)
    assert picture.span == (picture.color.min(), picture.color.max())
    assert "go beyond 0 to 1" in picture.notes[0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("case", ["PNG", "JPEG", "WEBP", "TIFF", "PNG;16", "TIFF;16"])
def test_orientations_are_applied_and_reset(case, orientation, path):
    gray = np.repeat(np.repeat(noise(3, 5), 16, 0), 16, 1)
    image = Image.fromarray(np.stack([gray] * 3, -1))
    exif = Image.Exif()
    exif[0x0112], exif[0x0132] = orientation, "2020:02:02 02:02:02"
    as_seen = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.T,
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).T,
        8: np.rot90,
    }[orientation](gray)
    if case == "TIFF;16":
        tifffile.imwrite(path, gray.astype("u2"), extratags=[(0x0112, 3, 1, orientation, True)], metadata=None)
    elif case == "PNG;16":
        Image.fromarray(gray.astype("u2")).save(path, "PNG", exif=exif)
    else:
        options = {"quality": 100, "subsampling": 0} if case == "JPEG" else {"lossless": True} if case == "WEBP" else {}
        image.save(path, case, exif=exif, **options)
    picture = read_image(path)
    assert header(path).size == picture.size == as_seen.shape
    assert np.abs(picture.color[..., 0].astype(int) - as_seen).max() <= (3 if case == "JPEG" else 0)
    if case != "TIFF;16":
        kept = Image.Exif()
        kept.load(picture.metadata.exif)
        assert (kept[0x0112], kept[0x0132]) == (1, "2020:02:02 02:02:02")


def test_xmp_orientation_is_reset_with_the_pixels(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(path, "WEBP", exif=exif, xmp=b'<x tiff:Orientation="6"/>')
    assert read_image(path).metadata.xmp == b'<x tiff:Orientation="1"/>'


def test_orientation_in_xmp_counts_where_exif_has_none(path):
    packet = b'<x tiff:Orientation="6"/>'
    Image.fromarray(RGB).save(path, "WEBP", lossless=True, xmp=packet)
    assert header(path).size == (W, H)
    np.testing.assert_array_equal(read_image(path).color, np.rot90(RGB, -1))
    exif = Image.Exif()
    exif[0x0112] = 1
    Image.fromarray(RGB).save(path, "WEBP", lossless=True, xmp=packet, exif=exif)
    np.testing.assert_array_equal(read_image(path).color, RGB)


@pytest.mark.parametrize("name", ["exif", "APP1"])
@pytest.mark.parametrize("after", [False, True])
def test_orientation_in_the_text_of_old_pngs(name, after, path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a view"
    block = exif.tobytes()
    text = f"Raw profile type {name}\0\n{name}\n{len(block):8}\n{block.hex()}\n".encode()
    whole = png(8, 2, RGB.reshape(H, -1), (b"tEXt", text))
    if after:
        without = png(8, 2, RGB.reshape(H, -1))
        chunk = whole[33 : 33 + 12 + len(text)]
        whole = without[:-12] + chunk + without[-12:]
    path.write_bytes(whole)
    picture = read_image(path)
    np.testing.assert_array_equal(picture.color, np.rot90(RGB, -1))
    assert b"a view" in picture.metadata.exif and picture.metadata.text == {}


@pytest.mark.parametrize("following", [b"", b"\xef\xbe\xad\xde", struct.pack("<I", 8)])
@pytest.mark.parametrize("prefix", [b"Exif\0\0", b"Exif\0\0Exif\0\0"])
def test_exif_with_a_broken_pointer_to_what_follows(prefix, following, path):
    block = b"II*\0" + struct.pack("<IHHHIHH", 8, 1, 0x0112, 3, 1, 6, 0) + following
    Image.fromarray(RGB).save(path, "JPEG", quality=100, subsampling=0, exif=prefix + block)
    assert header(path).size == read_image(path).size == (W, H)


def test_metadata_of_png_is_read(path):
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "plain")
    text.add_itxt("Author", "Łucja")
    text.add_itxt("XML:com.adobe.xmp", "<xmp/>")
    Image.fromarray(RGB).save(path, "PNG", pnginfo=text, dpi=(300, 150), icc_profile=SRGB)
    found = read_image(path).metadata
    assert (found.text, found.xmp, found.icc) == ({"Title": "plain", "Author": "Łucja"}, b"<xmp/>", SRGB)
    assert found.dpi == pytest.approx((300, 150), abs=0.02)


def test_metadata_of_jpeg_is_read_with_details_and_place_without_maker_notes(path):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif[0x8769] = {0x829A: 0.01, 0x927C: b"private", 0xA002: 99}
    exif[0x8825] = {1: "N", 2: (48.0, 51.0, 24.0)}
    Image.fromarray(RGB).save(path, "JPEG", exif=exif, dpi=(72, 72), icc_profile=SRGB, comment=b"said")
    found = read_image(path).metadata
    kept = Image.Exif()
    kept.load(found.exif)
    assert kept[0x010F] == "Maker"
    assert kept.get_ifd(0x8769) == {0x829A: 0.01, 0xA002: 99}
    assert kept.get_ifd(0x8825) == {1: "N", 2: (48.0, 51.0, 24.0)}
    assert (found.dpi, found.icc, found.text) == ((72, 72), SRGB, {"Comment": "said"})


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_metadata_of_tiff_is_read(dtype, path):
    tags = [(34675, 7, len(SRGB), SRGB, True), (700, 1, 6, b"<xmp/>", True)]
    tifffile.imwrite(
        path,
        RGB.astype(dtype),
        photometric="rgb",
        resolution=(100, 50),
        resolutionunit="CENTIMETER",
        description="a view",
        extratags=tags,
        metadata=None,
    )
    found = read_image(path).metadata
    assert (found.icc, found.xmp) == (SRGB, b"<xmp/>")
    assert found.dpi == pytest.approx((254, 127))
    kept = Image.Exif()
    kept.load(found.exif)
    assert kept[0x010E] == "a view"


def test_a_profile_for_other_colors_is_left_out_and_said(path):
    Image.fromarray(GRAY).save(path, "PNG", icc_profile=SRGB)
    picture = read_image(path)
    assert picture.metadata.icc is None and "ICC profile: it is for other colors" in str(picture.metadata.dropped[0])


def test_broken_exif_is_as_none(path):
    Image.fromarray(RGB).save(path, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert read_image(path).metadata.exif is None


def frames(format: str) -> bytes:
    return saved(Image.fromarray(RGB), format, save_all=True, append_images=[Image.fromarray(RGB[::-1])])


REFUSED = {
    "animated GIF": (frames("GIF"), "animated GIF .2 frames."),
    "animated PNG": (frames("PNG"), "animated PNG"),
    "animated WebP": (frames("WEBP"), "animated WEBP"),
    "two pages": (frames("TIFF"), "TIFF of several pages .2 pages."),
    "32-bit integers": (tiff(GRAY.astype("i4")), "32-bit signed integer samples is not read"),
    "signed": (tiff(GRAY.astype("i2")), "16-bit signed integer"),
    "16-bit CMYK": (tiff(DEEP, photometric="separated"), "CMYK 16-bit"),
    "not finite": (tiff(np.where(GRAY > 9, np.nan, FLOATS[..., 0]).astype("f4")), "not finite"),
    "deep PPM": (b"P6 2 1 65535 " + bytes(12), "more than 8 bits"),
    "float PPM": (b"Pf\n1 1\n-1.0\n" + bytes(4), "of mode F is not read"),
    "Targa": (saved(Image.fromarray(RGB), "TGA"), "not an image"),  # it has no signature, and the name is no help
    "text": (b"hello, world", "not an image"),
    "empty": (b"", "an empty file"),
    "half a header": (CASES["RGB"][0][:20], "broken or cut off"),
    "half a TIFF header": (CASES["RGB;16 tiff"][0][:6], "broken or cut off"),
    "half a PNG": (CASES["RGB"][0][:400], "broken or cut off"),
    "half a TIFF": (tiff(DEEP, photometric="rgb", extrasamples=[2])[:700], "broken or cut off"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_read_is_refused_by_name(case, path):
    data, reason = REFUSED[case]
    path.write_bytes(data)
    with pytest.raises(UserError, match=reason) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_missing_files_and_folders_are_refused_by_name(tmp_path):
    for path, reason in ((tmp_path / "no.png", "no such file"), (tmp_path, "not a file")):
        with pytest.raises(UserError, match=reason):
            header(path)


def test_a_bomb_is_refused_by_its_header(path):
    rows = np.zeros((1, 1), "u1")
    bomb = bytearray(png(8, 0, rows))
    bomb[16:24] = struct.pack(">II", 60_000, 60_000)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
    path.write_bytes(bomb)
    with pytest.raises(UserError, match="decompression bombs.*--max-pixels"):
        header(path)
    assert header(path, max_pixels=60_000**2).size == (60_000, 60_000)


def test_the_limit_of_pixels_is_kept_to_the_pixel_for_every_reader(path):
    for case in ("RGB", "RGB;16", "RGB;16 tiff", "L tiff"):
        path.write_bytes(CASES[case][0])
        assert header(path, max_pixels=H * W).size == (H, W)
        with pytest.raises(UserError, match=f"than the {H * W - 1} that"):
            header(path, max_pixels=H * W - 1)
    assert Image.MAX_IMAGE_PIXELS == 1024**3 // 12  # as Pillow has it


def test_a_thumbnail_beside_the_picture_is_not_a_page(path):
    with tifffile.TiffWriter(path) as writer:
        writer.write(GRAY[::4, ::4].copy(), subfiletype=1)
        writer.write(GRAY)
    assert header(path).size == (H, W)
    np.testing.assert_array_equal(read_image(path).color[..., 0], GRAY)


def test_of_a_multi_picture_jpeg_the_first_is_read_and_said(path):
    image = Image.fromarray(RGB)
    image.save(path, "MPO", save_all=True, append_images=[image.rotate(90)])
    picture = read_image(path)
    assert header(path).format == "JPEG" and picture.size == (H, W)
    assert picture.notes == ("of the 2 pictures in this file only the first is read",)


@pytest.mark.parametrize("missing", ["tifffile", "imagecodecs"])
@pytest.mark.parametrize("case", ["RGB;16", "RGB;16 tiff", "F"])
def test_without_the_extra_deep_images_are_refused_and_others_read(missing, case, path, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    path.write_bytes(CASES[case][0])
    with pytest.raises(UserError, match="pip install 'liif-core.images.'"):
        header(path)
    path.write_bytes(CASES["RGB tiff lzw"][0])
    np.testing.assert_array_equal(read_image(path).color, RGB)


def test_the_16_bit_reference_decoder_agrees(path):
    path.write_bytes(imagecodecs.png_encode(DEEP[..., :3].copy()))
    np.testing.assert_array_equal(read_image(path).color, DEEP[..., :3])


def test_other_formats_of_pillow_are_named(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.pcx")
    with pytest.raises(
        UserError, match="PCX files are not read; convert it to PNG or TIFF first; formats read: AVIF, "
    ):
        read_image(tmp_path / "a.pcx")


@pytest.mark.parametrize("case", ["RGB", "I;16", "RGB tiff lzw", "RGB;16 tiff"])
def test_a_header_is_read_without_the_pixels(case, path, monkeypatch):
    path.write_bytes(CASES[case][0])
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("the pixels were decoded"))
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda self: pytest.fail("the pixels were decoded"))
    assert header(path).size == (H, W)


@pytest.mark.parametrize("case", ["RGB", "RGB;16 tiff"])
def test_a_check_sees_the_header_before_pixels_are_decoded(case, path):
    path.write_bytes(CASES[case][0])
    seen = []
    assert read_image(path, check=seen.append).size == (H, W)
    assert seen == [header(path)]

    def refuse(found):
        raise UserError(f"{found.path}: {found.mode} is not wanted")

    path.write_bytes(CASES[case][0][:-40])  # whose pixels are cut off
    with pytest.raises(UserError, match="is not wanted"):
        read_image(path, check=refuse)


def test_a_check_comes_before_the_packages_that_pixels_need(path, monkeypatch):
    def refuse(found):
        raise UserError("not wanted")

    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    path.write_bytes(CASES["RGB;16"][0])
    with pytest.raises(UserError, match="not wanted"):
        read_image(path, check=refuse)


def test_threads_read_at_the_same_time_with_limits_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)  # an error beyond 100
    path = tmp_path / "a.png"
    Image.fromarray(RGB).save(path)
    together = threading.Barrier(3, timeout=30)

    def wait(_):
        together.wait()  # passed only if three are reading at once

    def read(limit):
        try:
            return read_image(path, max_pixels=limit, check=wait).size
        except TooManyPixels:
            return None

    with ThreadPoolExecutor(6) as pool:
        sizes = list(pool.map(read, [H * W, H * W - 1, 10**6, H * W - 1, 10**9, 10]))
    assert sizes == [(H, W), None, (H, W), None, (H, W), None]
    assert Image.MAX_IMAGE_PIXELS == 50
