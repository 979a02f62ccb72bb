"""Which image files are read and written: formats, their suffixes, and limits. Everything else refers to this."""

from attrs import frozen

from liif_core.images.picture import Depth

MAX_PIXELS = 178_956_970  # of a file that is read unless more are allowed; where Pillow suspects a decompression bomb

# Formats that are read, by Pillow's names, and the suffixes of their files. Files are told apart by their first bytes:
# a suffix only says which files of a folder are images. TGA files have no first bytes of their own, and their suffix
# counts. AVIF needs Pillow 11.3, HEIF and JXL packages of their own, see ``kinds``.
READ_SUFFIXES = {
    "AVIF": (".avif", ".avifs"),
    "BMP": (".bmp", ".dib"),
    "DDS": (".dds",),
    "GIF": (".gif",),
    "HEIF": (".heic", ".heif", ".hif"),
    "ICO": (".ico",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "JXL": (".jxl",),
    "PNG": (".png", ".apng"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "TGA": (".tga", ".icb", ".vda", ".vst"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
# Files of cameras' sensors, which are refused: they have to be developed first. As TIFF or other structures they hold
# small previews, which are not the picture.
RAW_SUFFIXES = (
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq",
    ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl",
    ".sr2", ".srf", ".srw", ".x3f",
)  # fmt: skip
UNREAD_SUFFIXES = (*RAW_SUFFIXES, ".exr", ".hdr", ".psb", ".psd")  # of images that are refused by name
READABLE_SUFFIXES = tuple(suffix for suffixes in READ_SUFFIXES.values() for suffix in suffixes)


@frozen
class Format:
    """What a file format that is written can hold.

    ``limit`` is the longest side in pixels. ``whole`` says that its encoder needs the whole image in memory.
    ``several`` says what a file may have several of: frames, pages, or nothing.
    """

    name: str
    suffixes: tuple[str, ...]
    limit: int
    depths: tuple[Depth, ...]
    alpha: bool
    whole: bool
    several: tuple[str, ...] = ()


# Formats that are written, by the names that users give.
WRITABLE = {
    "png": Format(
        "PNG", (".png",), 2**31 - 1, ("uint8", "uint16"), alpha=True, whole=False, several=("frames",)
    ),
    # The format's own limit is 65,535, but libjpeg, which everyone writes it with, stops here.
    "jpg": Format("JPEG", (".jpg", ".jpeg"), 65_500, ("uint8",), alpha=False, whole=True),
    "webp": Format("WebP", (".webp",), 16_383, ("uint8",), alpha=True, whole=True, several=("frames",)),
    "tif": Format(
        "TIFF", (".tif", ".tiff"), 2**32 - 1, ("uint8", "uint16", "float32"),
        alpha=True, whole=False, several=("frames", "pages"),
    ),
}  # fmt: skip
WRITABLE_SUFFIXES = tuple(suffix for format in WRITABLE.values() for suffix in format.suffixes)
