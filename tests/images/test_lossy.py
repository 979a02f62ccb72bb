"""Which files count as compressed with losses."""

import struct

import numpy as np
import pytest
from PIL import Image, features

from liif_core.images import lossy_format

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 20, 4), np.uint8), "RGBA")
EXIF = Image.Exif()
EXIF[0x010F] = "a maker"


@pytest.mark.parametrize(
    "name, mode, options, expected",
    [
        ("a.jpg", "RGB", {}, "JPEG"),
        ("a.jpg", "L", {"quality": 100}, "JPEG"),
        ("jpeg-named.png", "RGB", {"format": "JPEG"}, "JPEG"),
        ("a.jpg", "RGB", {"format": "PNG"}, ""),
        ("a.png", "RGBA", {}, ""),
        ("a.gif", "L", {}, ""),
        ("a.bmp", "RGB", {}, ""),
        ("a.ppm", "RGB", {}, ""),
        ("a.tif", "RGB", {}, ""),
        ("a.tif", "RGB", {"compression": "tiff_lzw"}, ""),
        ("a.tif", "RGB", {"compression": "jpeg"}, "JPEG in TIFF"),
        ("a.webp", "RGB", {}, "lossy WebP"),
        ("a.webp", "RGBA", {}, "lossy WebP"),
        ("a.webp", "RGBA", {"exif": EXIF.tobytes(), "icc_profile": b"odd"}, "lossy WebP"),
        ("a.webp", "RGB", {"lossless": True}, ""),
        ("a.webp", "RGBA", {"lossless": True, "exif": EXIF.tobytes(), "icc_profile": b"odd"}, ""),
    ],
)
def test_the_content_decides(tmp_path, name, mode, options, expected):
    PICTURE.convert(mode).save(tmp_path / name, **options)
    assert lossy_format(tmp_path / name) == expected


@pytest.mark.parametrize("lossless, expected", [(False, "lossy WebP"), (True, "")])
def test_an_animation(tmp_path, lossless, expected):
    frames = [PICTURE, PICTURE.rotate(90)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=lossless, exif=EXIF)
    assert lossy_format(tmp_path / "a.webp") == expected


def test_avif(tmp_path):
    if not features.check("avif"):
        pytest.skip("this Pillow does not write AVIF")
    PICTURE.convert("RGB").save(tmp_path / "a.avif")
    assert lossy_format(tmp_path / "a.avif") == "AVIF"


@pytest.mark.parametrize(
    "brands, expected",
    [(b"avif\0\0\0\0mif1miaf", "AVIF"), (b"mif1\0\0\0\0avifmiaf", "AVIF"), (b"heic\0\0\0\0mif1", "HEIF"),
     (b"isom\0\0\2\0mp41", "")],
)  # fmt: skip
def test_brands(tmp_path, brands, expected):
    (tmp_path / "a").write_bytes(struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + b"\0" * 20)
    assert lossy_format(tmp_path / "a") == expected


@pytest.mark.parametrize(
    "data",
    [b"", b"II*\0", b"II*\0\xff\xff\xff\x7f", b"RIFF\xff\xff\xff\xffWEBP", b"RIFF\0\0\0\0WEBPVP8X\xff\xff\xff\xff",
     b"RIFF\0\0\0\0WEBP" + b"ICCP\0\0\0\0" * 500 + b"VP8 \0\0\0\0"],
)  # fmt: skip
def test_broken_files_are_none(tmp_path, data):
    (tmp_path / "a").write_bytes(data)
    assert lossy_format(tmp_path / "a") == ""


def test_files_that_cannot_be_read_are_none(tmp_path):
    assert lossy_format(tmp_path) == lossy_format(tmp_path / "missing.jpg") == ""
