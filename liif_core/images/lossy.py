"""Whether an image file was compressed with losses, by its first bytes."""

import re
import struct
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from liif_core.images import ifd

_COMPRESSION, _JPEG = 259, (6, 7)  # the TIFF tag, and its values for the old and the new JPEG
_BRANDS = {"AVIF": rb"avi[fs]", "HEIF": rb"hei[cxms]|hev[cx]|mif1|msf1"}  # names of their variants, in this order
_MOST_CHUNKS = 100  # of a WebP file that are looked through


def lossy_format(path: str | Path) -> str:
    """The format of a file whose compression loses detail: "JPEG", "lossy WebP", "AVIF", "HEIF" or "JPEG in TIFF".

    An empty text for every other file, and for a file that cannot be read. Nothing is decoded.
    """
    with suppress(OSError, ValueError, struct.error), open(path, "rb") as file:
        start = file.read(32)
        if start.startswith(b"\xff\xd8\xff"):
            return "JPEG"
        if re.match(rb"RIFF....WEBP", start, re.DOTALL):
            return "lossy WebP" if _is_lossy_webp(file) else ""
        if start[4:8] == b"ftyp":
            return next((name for name, brands in _BRANDS.items() if re.search(brands, start[8:])), "")
        if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            pages = ifd.read_directories(file)
            return "JPEG in TIFF" if any(set(ifd.numbers(page, _COMPRESSION)) & {*_JPEG} for page in pages) else ""
    return ""


def _is_lossy_webp(file: BinaryIO) -> bool:
    """Whether the first chunk of pixels, also of an animation, is VP8 and not VP8L. Source: RFC 9649, section 2."""
    offset = 12
    for _ in range(_MOST_CHUNKS):
        file.seek(offset)
        head = file.read(8)
        if len(head) < 8 or head[:4] in (b"VP8 ", b"VP8L"):
            return head[:4] == b"VP8 "
        if head[:4] == b"ANMF":  # a frame: its position, size and duration, and then chunks
            offset += 8 + 16
            continue
        length = int(struct.unpack("<I", head[4:])[0])
        offset += 8 + length + length % 2
    return False
