"""What is to be written: formats, how to encode, and one checked output."""

from pathlib import Path

from attrs import frozen

from liif_core.images.picture import Depth, Metadata
from liif_core.sizes import Size


@frozen
class Format:
    """What a file format can hold. ``limit`` is the longest side; ``whole``: its encoder wants the whole image."""

    name: str
    suffixes: tuple[str, ...]
    limit: int
    depths: tuple[Depth, ...]
    alpha: bool
    whole: bool


FORMATS = {
    "png": Format("PNG", (".png",), 2**31 - 1, ("uint8", "uint16"), alpha=True, whole=False),
    # The format's own limit is 65,535, but libjpeg, which everyone writes it with, stops here.
    "jpg": Format("JPEG", (".jpg", ".jpeg"), 65_500, ("uint8",), alpha=False, whole=True),
    "webp": Format("WebP", (".webp",), 16_383, ("uint8",), alpha=True, whole=True),
    "tif": Format("TIFF", (".tif", ".tiff"), 2**32 - 1, ("uint8", "uint16", "float32"), alpha=True, whole=False),
}


@frozen
class Encoding:
    """How to encode: ``quality`` 1 to 100 for JPEG (4:4:4) and lossy WebP, ``lossless`` for WebP, ``compression``
    0 to 9 for PNG and TIFF, ``tiled`` for TIFF (None: tiles where it is a BigTIFF, strips else).

    Level 4 deflates two to four times as fast as zlib's own default, 6, for 1 to 6% more bytes.
    """

    quality: int = 95
    lossless: bool = False
    compression: int = 4
    tiled: bool | None = None


@frozen
class Target:
    """A checked output: what ``open_writer`` will write.

    ``depth`` is what rows must have: the depth asked for, or what the format holds of it. ``memory`` is about how
    many bytes the writer will hold, ``notes`` sentences for the user about what the format cannot keep.
    """

    path: Path
    format: Format
    size: Size
    channels: int
    depth: Depth
    metadata: Metadata
    encoding: Encoding
    memory: int
    notes: tuple[str, ...]
