"""Formats, layouts and frames: read as they are, or refused by their names; nothing that is whole is called broken."""

import importlib
import io
import re
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image, features

from liif_core.errors import UserError
from liif_core.images import ifd, read_image, survey

CORNERS = np.array([[[200, 40, 40], [40, 180, 60]], [[40, 60, 200], [230, 220, 60]]], "u1")
RGB = np.kron(CORNERS, np.ones((8, 12, 1), "u1"))
ALPHA = np.kron(np.array([[255, 128], [200, 255]], "u1"), np.ones((8, 12), "u1"))
FRAMES = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


def saved(image, format, **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def opened(path, **options):
    """The picture, read as a whole and as a source."""
    picture, source = read_image(path, **options), survey(path, 1 << 30, **options).open()
    assert (source.size, source.notes, source.metadata) == (picture.size, picture.notes, picture.metadata)
    return picture


def refusal(path, **options):
    with pytest.raises(UserError) as caught:
        read_image(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message


@pytest.mark.parametrize(
    "format, options", [("JPEG2000", {}), ("TGA", {}), ("TGA", {"compression": "tga_rle"}), ("DDS", {})]
)
def test_formats_that_pillow_reads(format, options, tmp_path):
    path = tmp_path / f"a.{format.lower()}"
    for mode in ("RGB", "RGBA"):
        image = Image.fromarray(RGB)
        if mode == "RGBA":
            image.putalpha(Image.fromarray(ALPHA))
        path.write_bytes(saved(image, format, **options))
        picture = opened(path)
        np.testing.assert_array_equal(picture.color, RGB)
        assert (picture.alpha is None) == (mode == "RGB")
        assert mode == "RGB" or (picture.alpha == ALPHA).all()


def test_the_largest_size_of_an_icon_is_read_and_the_others_are_mentioned(tmp_path):
    path = tmp_path / "a.ico"
    path.write_bytes(saved(Image.fromarray(RGB), "ICO", sizes=[(12, 8), (24, 16)]))
    picture = opened(path)
    np.testing.assert_array_equal(picture.color, RGB)
    assert picture.notes == ("of the 2 sizes of this icon only the largest is read",)


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
def test_avif_is_read_upright(tmp_path):
    path, exif = tmp_path / "a.avif", Image.Exif()
    exif[0x0112] = 6
    path.write_bytes(saved(Image.fromarray(RGB), "AVIF", quality=100, subsampling="4:4:4", exif=exif.tobytes()))
    np.testing.assert_allclose(opened(path).color.astype(int), np.rot90(RGB, -1), atol=3)


@pytest.mark.parametrize("module, format, suffix", [("pillow_heif", "HEIF", "heic"), ("pillow_jxl", "JXL", "jxl")])
def test_formats_of_other_packages(module, format, suffix, tmp_path):
    plugin = pytest.importorskip(module)
    if module == "pillow_heif":
        plugin.register_heif_opener()
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(saved(Image.fromarray(RGB), format, quality=95))
    np.testing.assert_allclose(opened(path).color.astype(int), RGB, atol=8)


@pytest.mark.parametrize(
    "start", [b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n", b"\0\0\0\x18ftypheic", b"\0\0\0\x18ftypmif1"]
)
@pytest.mark.parametrize("broken", [False, True])
def test_the_package_that_is_missing_is_named(start, broken, tmp_path, monkeypatch):
    def absent(name):
        raise RuntimeError("libfoo.so is too old") if broken else ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    path = tmp_path / "a.png"
    path.write_bytes(start + bytes(40))
    message = refusal(path)
    assert ("pillow-heif" in message) != ("pillow-jxl-plugin" in message)
    assert "liif-core[formats]" in message and ("libfoo.so is too old" in message) == broken


@pytest.mark.parametrize(
    "start, name, what",
    [
        (b"8BPS\0\1", "a.psd", "Photoshop files are not read"),
        (b"\x76\x2f\x31\x01", "a.exr", "OpenEXR files are not read"),
        (b"#?RADIANCE\n", "a.hdr", "Radiance HDR files are not read"),
        (b"<?xml version='1.0'?>\n<svg>", "a.svg", "SVG files are not read"),
        (b"\0\0\0\x18ftypisom", "a.mp4", "video files are not read"),
        (b"\xff\xd8\xff\xf7\0\x0b\x08\0\x10\0\x18\1\1\x11\0", "a.jls", r"lossless \(JPEG-LS\) JPEG files are not read"),
        (b"\xff\xd8\xff\xc1\0\x0b\x0c\0\x10\0\x18\1\1\x11\0", "a.jpg", "JPEG files of 12 bits per sample are not read"),
        (b"nothing that is an image, of any kind at all", "a.tga", "not an image, or broken in its header"),
    ],
)
def test_other_files_are_refused_by_name(start, name, what, tmp_path):
    path = tmp_path / name
    path.write_bytes(start + bytes(100))
    message = refusal(path)
    assert re.search(what, message)


def test_jpeg_2000_of_more_bits_is_not_reduced(tmp_path):
    path = tmp_path / "a.jp2"
    path.write_bytes(saved(Image.fromarray(RGB[..., 0].astype("u2") * 257), "JPEG2000"))
    assert "a JPEG 2000 of 16 bits per sample is not read" in refusal(path)


# --- camera raw


def sensor_tiff(tags, below=()):
    """A TIFF of a preview, with further tags, and a directory below with tags of its own."""
    short, long = ifd.SHORT, ifd.LONG
    preview = {256: (long, [4]), 257: (long, [4]), 258: (short, [8]), 259: (short, [1]), 262: (short, [1]),
               273: (long, [8]), 277: (short, [1]), 278: (long, [4]), 279: (long, [16])}  # fmt: skip
    inner = ifd.directory_bytes({tag: ifd.Entry.of(*entry) for tag, entry in below}, 24) if below else b""
    outer = dict(preview) | dict(tags) | ({330: (long, [24])} if below else {})
    place = 24 + len(inner)
    return (
        b"II*\0" + struct.pack("<I", place) + bytes(16) + inner
        + ifd.directory_bytes({tag: ifd.Entry.of(*entry) for tag, entry in outer.items()}, place)
    )  # fmt: skip


@pytest.mark.parametrize(
    "name, data",
    [
        ("a.nef", sensor_tiff({})),
        ("renamed.tif", sensor_tiff({}, [(262, (ifd.SHORT, [32803]))])),
        ("linear.tif", sensor_tiff({}, [(262, (ifd.SHORT, [34892]))])),
        ("a.tif", sensor_tiff({50706: (ifd.BYTE, [1, 4, 0, 0])})),
        ("a.cr2", b"II*\0\x10\0\0\0CR\x02\0" + bytes(60)),
        ("a.jpg", b"FUJIFILMCCD-RAW 0201" + bytes(60)),
        ("a.cr3", b"\0\0\0\x18ftypcrx " + bytes(60)),
        ("a.rw2", b"IIU\0\x18\0\0\0" + bytes(60)),
        ("a.orf", b"IIRO\x08\0\0\0" + bytes(60)),
    ],
)
def test_camera_raw_is_refused_with_advice(name, data, tmp_path):
    path = tmp_path / name
    path.write_bytes(data)
    assert "a camera raw file is not read" in refusal(path) and "raw converter" in refusal(path)


def test_a_tiff_with_a_smaller_copy_below_is_not_taken_for_raw(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(sensor_tiff({}, [(262, (ifd.SHORT, [1]))]))
    assert opened(path).size == (4, 4)


# --- layouts of TIFF


LAYOUTS = {
    "gray and alpha in planes": (2, {"photometric": "minisblack", "planarconfig": "separate", "extrasamples": [2]}),
    "the same, deflated": (
        2,
        {"photometric": "minisblack", "planarconfig": "separate", "extrasamples": [2], "compression": "zlib"},
    ),
    "white is zero, in planes": (2, {"photometric": "miniswhite", "planarconfig": "separate", "extrasamples": [2]}),
    "gray with extra samples": (3, {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": [0, 0]}),
    "RGB with alpha and more, in planes": (
        5,
        {"photometric": "rgb", "planarconfig": "separate", "extrasamples": [2, 0]},
    ),
    "JPEG 2000": (3, {"photometric": "rgb", "compression": "jpeg2000"}),
    "big-endian BigTIFF": (3, {"photometric": "rgb", "bigtiff": True, "byteorder": ">"}),
    "big-endian BigTIFF of tiles": (3, {"photometric": "rgb", "bigtiff": True, "byteorder": ">", "tile": (16, 16)}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rare_layouts_of_tiff(layout, tmp_path):
    samples, options = LAYOUTS[layout]
    path = tmp_path / "a.tif"
    gray = "rgb" not in options["photometric"]
    parts = [RGB[..., :1], ALPHA[..., None]] if gray else [RGB, ALPHA[..., None]]
    pixels = np.concatenate([*parts, RGB], axis=2)[..., :samples]
    stored = np.moveaxis(pixels, -1, 0) if options.get("planarconfig") == "separate" else pixels
    tifffile.imwrite(path, stored, metadata=None, **options)
    picture = opened(path)
    color = 255 - pixels[..., :1] if options["photometric"] == "miniswhite" else pixels[..., : 1 if gray else 3]
    np.testing.assert_array_equal(picture.color, color)
    has_alpha = 2 in options.get("extrasamples", [])
    assert (picture.alpha is not None) == has_alpha
    assert not has_alpha or (picture.alpha == ALPHA).all()
    extra = samples - color.shape[2] - has_alpha
    assert any("left out" in note for note in picture.notes) == (extra > 0)


def test_four_bits_of_rgb_are_scaled_to_eight(tmp_path):
    path = tmp_path / "a.tif"
    four = (RGB >> 4).reshape(16, -1)
    data = (four[:, ::2] << 4 | four[:, 1::2]).tobytes()
    tags = {256: (4, [24]), 257: (4, [16]), 258: (3, [4, 4, 4]), 259: (3, [1]), 262: (3, [2]), 277: (3, [3]),
            278: (4, [16]), 273: (4, [8]), 279: (4, [len(data)])}  # fmt: skip
    directory = ifd.directory_bytes({tag: ifd.Entry.of(*entry) for tag, entry in tags.items()}, 8 + len(data))
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory)
    np.testing.assert_array_equal(opened(path).color, (RGB >> 4) * 17)


def test_layouts_that_are_not_read_are_named(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RGB, photometric="icclab", metadata=None)
    assert "a TIFF of 3 LAB 8-bit unsigned integer samples is not read" in refusal(path)


@pytest.mark.parametrize("compression", ["webp", "zstd", "lzma", "jpegxl", "png", "lerc"])
def test_compressions_of_tiff_that_one_of_two_readers_knows(compression, tmp_path):
    pytest.importorskip("imagecodecs")
    path = tmp_path / "a.tif"
    args = {"compressionargs": {"level": 100, "lossless": True}} if compression == "webp" else {}
    tifffile.imwrite(path, RGB, compression=compression, photometric="rgb", metadata=None, **args)
    np.testing.assert_array_equal(opened(path).color, RGB)


def test_a_bmp_without_the_header_of_a_file(tmp_path):
    path = tmp_path / "a.dib"
    path.write_bytes(saved(Image.fromarray(RGB), "BMP")[14:])
    np.testing.assert_array_equal(opened(path).color, RGB)


def test_a_kind_that_pillow_knows_by_another_name_is_refused(tmp_path):
    path = tmp_path / "a.p7"  # a thumbnail of XV
    path.write_bytes(b"P7 332\n#END_OF_COMMENTS\n4 2 255\n" + bytes(8))
    assert "XVThumb files are not read; convert it to PNG or TIFF first" in refusal(path)


def test_what_pillow_logs_of_a_file_is_not_printed(tmp_path, capfd):
    path = tmp_path / "a.tif"
    tags = {256: (4, [4]), 257: (4, [2]), 258: (3, [8]), 277: (3, [65535]), 262: (3, [1]), 273: (4, [8]), 279: (4, [8])}
    directory = ifd.directory_bytes({tag: ifd.Entry.of(*entry) for tag, entry in tags.items()}, 16)
    path.write_bytes(b"II*\0" + struct.pack("<I", 16) + bytes(8) + directory)
    assert "TIFF" in refusal(path)
    assert capfd.readouterr().err == ""


# --- frames and pages


@pytest.mark.parametrize("format, options", [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})])
def test_one_frame_is_read_and_the_others_are_mentioned(format, options, tmp_path):
    path = tmp_path / "a"
    images = [Image.new("RGB", (9, 7), color) for color in FRAMES]
    path.write_bytes(saved(images[0], format, save_all=True, append_images=images[1:], **options))
    assert "choose it with --frame N of liif upscale, from 1 to 3" in refusal(path)
    for number, color in enumerate(FRAMES, start=1):
        picture = opened(path, frame=number)
        assert (picture.color == color).all() and picture.size == (7, 9)
        part = "page" if format == "TIFF" else "frame"
        assert picture.notes == (f"of the 3 {part}s in this file only {part} {number} is read",)
    assert "there is no frame 4" in refusal(path, frame=4)


def test_a_frame_is_put_on_those_before_it(tmp_path):
    path = tmp_path / "a.gif"
    second = Image.fromarray(RGB).quantize(4).convert("RGB")
    changed = second.copy()
    changed.paste((0, 0, 0), (0, 0, 3, 3))
    second.save(path, save_all=True, append_images=[changed], duration=50, disposal=1)
    np.testing.assert_array_equal(opened(path, frame=2).color, np.asarray(changed))


def test_a_single_picture_has_frame_1(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(saved(Image.fromarray(RGB), "PNG"))
    np.testing.assert_array_equal(opened(path, frame=1).color, RGB)
    assert "there is no frame 2: it holds a single picture" in refusal(path, frame=2)


# --- JPEG without its end


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 2, "quality": 30}, {"restart_marker_blocks": 1}]
)
@pytest.mark.parametrize("end", [b"", b"\xff", b"\0\0\0\0"])
def test_a_jpeg_with_all_its_pixels_but_without_its_end_is_read(options, end, tmp_path):
    path = tmp_path / "a.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (40, 56, 3)).astype("u1")
    whole = saved(Image.fromarray(noise), "JPEG", **options)
    path.write_bytes(whole)
    expected = read_image(path).color
    path.write_bytes(whole[:-2] + end)
    picture = opened(path)
    np.testing.assert_array_equal(picture.color, expected)
    assert "marker that ends" in picture.notes[0]


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_jpeg_without_all_its_pixels_is_cut_off(options, tmp_path):
    path = tmp_path / "a.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (40, 56, 3)).astype("u1")
    whole = saved(Image.fromarray(noise), "JPEG", **options)
    for missing in (4, 8, 20, 100, len(whole) // 2):
        path.write_bytes(whole[:-missing])
        assert "broken or cut off" in refusal(path)
