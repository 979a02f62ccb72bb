"""Which image files are read and written: formats, their suffixes, and limits. Everything else refers to this."""

from attrs import frozen

from liif_core.images.picture import Depth

MAX_PIXELS = 178_956_970  # of a file that is read unless more are allowed; where Pillow suspects a decompression bomb

# Formats that are read, by Pillow's names, and the suffixes of their files. Files are told apart by their first bytes:
# a suffix only says which files of a folder are images.
READ_SUFFIXES = {
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
UNREAD_SUFFIXES = (".avif", ".heic", ".heif", ".jxl")  # of formats that are refused, and that not every Pillow has
READABLE_SUFFIXES = tuple(suffix for suffixes in READ_SUFFIXES.values() for suffix in suffixes)


@frozen
class Format:
    """What a file format that is written can hold.

    ``limit`` is the longest side in pixels. ``whole`` says that its encoder needs the whole image in memory.
    """

    name: str
    suffixes: tuple[str, ...]
    limit: int
    depths: tuple[Depth, ...]
    alpha: bool
    whole: bool


# Formats that are written, by the names that users give.
WRITABLE = {
    "png": Format("PNG", (".png",), 2**31 - 1, ("uint8", "uint16"), alpha=True, whole=False),
    # The format's own limit is 65,535, but libjpeg, which everyone writes it with, stops here.
    "jpg": Format("JPEG", (".jpg", ".jpeg"), 65_500, ("uint8",), alpha=False, whole=True),
    "webp": Format("WebP", (".webp",), 16_383, ("uint8",), alpha=True, whole=True),
    "tif": Format("TIFF", (".tif", ".tiff"), 2**32 - 1, ("uint8", "uint16", "float32"), alpha=True, whole=False),
}
WRITABLE_SUFFIXES = tuple(suffix for format in WRITABLE.values() for suffix in format.suffixes)
