"""Image files of every mode that is read, written by Pillow, tifffile or byte by byte, with the pixels they hold."""

import io
import struct
import zlib

import numpy as np
import tifffile
from PIL import Image, ImageCms

H, W = 13, 17


def noise(*shape: int, high: int = 256, dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(3).integers(0, high, shape).astype(dtype)


RGB = noise(H, W, 3)
RGBA = noise(H, W, 4)
GRAY = noise(H, W)
INDEX = noise(H, W, high=4)  # into a palette
DEEP = noise(H, W, 4, high=65536, dtype="uint16")
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def png(bits: int, color_type: int, rows: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG from packed rows of bytes, no filter: what Pillow cannot write (16-bit RGB, gray of 2 bits with a key)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", W, H, bits, color_type, 0, 0, 0)
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    middle = b"".join(chunk(*part) for part in chunks)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + middle + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def saved(image: Image.Image, format: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def tiff(pixels: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, **options)
    return stream.getvalue()


def palette_image() -> Image.Image:
    image = Image.new("P", (W, H))
    image.frombytes(INDEX.tobytes())
    image.putpalette([10, 20, 30, 200, 0, 0, 0, 250, 9, 255, 255, 255])
    return image


COLORS = np.array([[10, 20, 30], [200, 0, 0], [0, 250, 9], [255, 255, 255]], np.uint8)
KEY = [int(v) for v in RGB[2, 3]]
DEEP_KEY = DEEP[4, 5]
TWO_BITS = np.packbits(np.unpackbits(INDEX[..., None], axis=-1)[..., -2:].reshape(H, -1), axis=-1)
PRE = np.concatenate([(DEEP[..., :3].astype(float) * DEEP[..., 3:] / 65535).round().astype("u2"), DEEP[..., 3:]], -1)
FLOATS = np.random.default_rng(4).random((H, W, 3)).astype("f4")


def where(mask: np.ndarray) -> np.ndarray:
    return np.where(mask, 255, 0).astype("u1")


# name: (bytes of the file, mode, color, alpha)
CASES = {
    "1": (saved(Image.fromarray(GRAY > 99), "PNG"), "1", where(GRAY > 99), None),
    "L": (saved(Image.fromarray(GRAY), "PNG"), "L", GRAY, None),
    "L bmp": (saved(Image.fromarray(GRAY), "BMP"), "L", GRAY, None),
    "L tiff": (saved(Image.fromarray(GRAY), "TIFF"), "L", GRAY, None),
    "L key": (saved(Image.fromarray(GRAY), "PNG", transparency=int(GRAY[1, 1])), "L", GRAY, where(GRAY[1, 1] != GRAY)),
    "L key of 2 bits": (png(2, 0, TWO_BITS, (b"tRNS", b"\0\2")), "L", INDEX * 85, where(INDEX != 2)),
    "LA": (saved(Image.fromarray(RGBA[..., :2]), "PNG"), "LA", RGBA[..., 0], RGBA[..., 1]),
    "LA tiff": (saved(Image.fromarray(RGBA[..., :2]), "TIFF"), "LA", RGBA[..., 0], RGBA[..., 1]),
    "RGB": (saved(Image.fromarray(RGB), "PNG"), "RGB", RGB, None),
    "RGB bmp": (saved(Image.fromarray(RGB), "BMP"), "RGB", RGB, None),
    "RGB ppm": (saved(Image.fromarray(RGB), "PPM"), "RGB", RGB, None),
    "RGB webp": (saved(Image.fromarray(RGB), "WEBP", lossless=True), "RGB", RGB, None),
    "RGB tiff lzw": (saved(Image.fromarray(RGB), "TIFF", compression="tiff_lzw"), "RGB", RGB, None),
    "RGB key": (
        saved(Image.fromarray(RGB), "PNG", transparency=tuple(KEY)),
        "RGB",
        RGB,
        where((RGB != KEY).any(-1)),
    ),
    "RGBA": (saved(Image.fromarray(RGBA), "PNG"), "RGBA", RGBA[..., :3], RGBA[..., 3]),
    "RGBA tiff": (saved(Image.fromarray(RGBA), "TIFF"), "RGBA", RGBA[..., :3], RGBA[..., 3]),
    "P": (saved(palette_image(), "PNG"), "P", COLORS[INDEX], None),
    "P gif": (saved(palette_image(), "GIF"), "P", COLORS[INDEX], None),
    "P tiff": (saved(palette_image(), "TIFF"), "P", COLORS[INDEX], None),
    "P one clear": (saved(palette_image(), "PNG", transparency=1), "P", COLORS[INDEX], where(INDEX != 1)),
    "P gif clear": (saved(palette_image(), "GIF", transparency=2), "P", COLORS[INDEX], where(INDEX != 2)),
    "P alphas": (
        saved(palette_image(), "PNG", transparency=bytes([9, 0, 128, 255])),
        "P",
        COLORS[INDEX],
        np.array([9, 0, 128, 255], "u1")[INDEX],
    ),
    "I;16": (saved(Image.fromarray(DEEP[..., 0]), "PNG"), "I;16", DEEP[..., 0], None),
    "I;16 key": (
        png(16, 0, DEEP[..., 0].astype(">u2"), (b"tRNS", DEEP_KEY[:1].astype(">u2").tobytes())),
        "I;16",
        DEEP[..., 0],
        np.where(DEEP[..., 0] != DEEP_KEY[0], 65535, 0).astype("u2"),
    ),
    "I;16 tiff": (saved(Image.fromarray(DEEP[..., 0]), "TIFF"), "I;16", DEEP[..., 0], None),
    "I;16 tiff big-endian": (tiff(DEEP[..., 0], byteorder=">"), "I;16", DEEP[..., 0], None),
    "I;16 tiff white is zero": (tiff(DEEP[..., 0], photometric="miniswhite"), "I;16", 65535 - DEEP[..., 0], None),
    "LA;16": (png(16, 4, DEEP[..., :2].astype(">u2")), "LA;16", DEEP[..., 0], DEEP[..., 1]),
    "LA;16 tiff": (
        tiff(DEEP[..., :2], photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"]),
        "LA;16",
        DEEP[..., 0],
        DEEP[..., 1],
    ),
    "RGB;16": (png(16, 2, DEEP[..., :3].astype(">u2")), "RGB;16", DEEP[..., :3], None),
    "RGB;16 tiff": (tiff(DEEP[..., :3], photometric="rgb"), "RGB;16", DEEP[..., :3], None),
    "RGB;16 tiff lzw": (
        tiff(DEEP[..., :3], photometric="rgb", compression="lzw", predictor=True),
        "RGB;16",
        DEEP[..., :3],
        None,
    ),
    "RGB;16 tiff planes": (
        tiff(np.moveaxis(DEEP[..., :3], -1, 0), photometric="rgb", planarconfig="separate"),
        "RGB;16",
        DEEP[..., :3],
        None,
    ),
    "RGB;16 bigtiff": (
        tiff(DEEP[..., :3], photometric="rgb", bigtiff=True, tile=(16, 16)),
        "RGB;16",
        DEEP[..., :3],
        None,
    ),
    "RGBA;16": (png(16, 6, DEEP.astype(">u2")), "RGBA;16", DEEP[..., :3], DEEP[..., 3]),
    "RGBA;16 tiff": (
        tiff(DEEP, photometric="rgb", extrasamples=["unassalpha"]),
        "RGBA;16",
        DEEP[..., :3],
        DEEP[..., 3],
    ),
    "F": (saved(Image.fromarray(FLOATS[..., 0]), "TIFF"), "F", FLOATS[..., 0], None),
    "F half": (tiff(FLOATS[..., 0].astype("f2")), "F", FLOATS[..., 0].astype("f2").astype("f4"), None),
    "F double": (tiff(FLOATS[..., 0].astype("f8")), "F", FLOATS[..., 0], None),
    "RGB;F": (tiff(FLOATS, photometric="rgb"), "RGB;F", FLOATS, None),
}


def _reads_its_own_ycbcr() -> bool:
    image = Image.new("YCbCr", (3, 3), (9, 8, 7))
    try:
        with Image.open(io.BytesIO(saved(image, "TIFF"))) as again:
            return np.array_equal(np.asarray(again), np.asarray(image))
    except OSError:
        return False


# Pillow 11 takes uncompressed TIFFs of YCbCr for RGB with padding.
PILLOW_READS_YCBCR_TIFF = _reads_its_own_ycbcr()
