"""Broken files: decoded or refused by name, never another exception, never a hang."""

import io

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from liif_core.errors import UserError
from liif_core.images import read_image

MUTATIONS = 20  # a kind of file: 14 kinds make 280


def saved(image: Image.Image, format: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def tiff(pixels: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, photometric="rgb", **options)
    return stream.getvalue()


def files() -> dict[str, bytes]:
    """A valid file of every kind, with an orientation where it can have one."""
    image = Image.linear_gradient("L").resize((48, 40)).convert("RGB")
    deep = np.asarray(image).astype("u2") * 257
    exif = Image.Exif()
    exif[0x0112], exif[0x8769] = 6, {0xA002: 48}
    exif = exif.tobytes()
    return {
        "png": saved(image, "PNG", exif=exif),
        "png palette": saved(image.quantize(8), "PNG", transparency=1),
        "png 16": imagecodecs.png_encode(deep),
        "jpeg": saved(image, "JPEG", exif=exif),
        "jpeg progressive": saved(image.convert("CMYK"), "JPEG", progressive=True),
        "webp": saved(image, "WEBP", exif=exif),
        "webp lossless": saved(image.convert("RGBA"), "WEBP", lossless=True),
        "tiff": saved(image, "TIFF", exif=exif),
        "tiff lzw": saved(image, "TIFF", compression="tiff_lzw"),
        "tiff 16": tiff(deep),
        "tiff 16 deflate": tiff(deep, compression="zlib", predictor=True, tile=(16, 16)),
        "tiff float": tiff(deep / np.float32(65535), compression="lzw"),
        "gif": saved(image.quantize(8), "GIF"),
        "bmp": saved(image, "BMP"),
    }


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut off, or with a few bytes changed: near the start, where headers are, as often as anywhere."""
    if rng.random() < 0.3:
        return data[: rng.integers(len(data))]
    changed = bytearray(data)
    reach = len(data) if rng.random() < 0.5 else min(200, len(data))
    for place in rng.integers(0, reach, rng.integers(1, 8)):
        changed[place] = rng.integers(256)
    return bytes(changed)


@pytest.mark.parametrize("kind", files())
def test_broken_files_decode_or_are_refused_by_name(kind, tmp_path):
    rng = np.random.default_rng(sum(kind.encode()))
    path = tmp_path / "broken"
    whole = files()[kind]
    path.write_bytes(whole)
    assert max(read_image(path).size) == 48
    refused = 0
    for _ in range(MUTATIONS):
        path.write_bytes(mutated(whole, rng))
        try:
            picture = read_image(path, max_pixels=1_000_000)
        except UserError as error:
            assert str(error).startswith(f"{path}: ")
            refused += 1
        else:
            assert picture.color.ndim == 3 and picture.color.shape[2] in (1, 3)
            assert picture.alpha is None or picture.alpha.shape == picture.size
    assert refused >= 3
