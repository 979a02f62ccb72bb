"""What a PNG keeps besides pixels in other ways than Pillow reads: profiles in text, and chunks of colors.

Sources: PNG specification, third edition (W3C, 2025); the profiles are ImageMagick's, written before PNG had a chunk
for EXIF: a name, a length, and the data in hexadecimal digits.
"""

import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from liif_core.images import iptc
from liif_core.images.picture import Change
from liif_core.images.png_chunks import chunk_data, chunks

COLOR_CHUNKS = ("cICP", "mDCV", "cLLI", "gAMA", "cHRM", "sRGB")  # what the values of the pixels mean
PREFIX = "raw profile type "
_PROFILE = re.compile(r"\s*[^\n]*\n\s*(\d+)\s*\n([0-9A-Fa-f\s]*)")
_XMP_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0"
# Chunks that hold pixels or say how they are stored, or that are read elsewhere.
_EXPECTED = (
    "IHDR", "PLTE", "IDAT", "IEND", "tRNS", "iCCP", "pHYs", "eXIf", "zxIf", "tEXt", "zTXt", "iTXt", "sBIT", "hIST",
    "acTL", "fcTL", "fdAT", "iDOT", "CgBI",
)  # fmt: skip
_DROPPED = {
    "caBX": "content credentials are signed for the input's pixels",
    "bKGD": "it is a color for the input's background",
    "tIME": "it is when the input was changed",
}


def profiles(text: Mapping[Any, Any]) -> dict[str, bytes]:
    """The profiles in a PNG's text: "exif", "xmp", "iptc" and "icc", where they are there and can be read."""
    found: dict[str, bytes] = {}
    for keyword, value in text.items():
        if not isinstance(keyword, str) or not keyword.lower().startswith(PREFIX) or not isinstance(value, str):
            continue
        name, data = keyword.lower().removeprefix(PREFIX).strip(), _decoded(value)
        if not data:
            continue
        if data.startswith(_XMP_SEGMENT):
            found.setdefault("xmp", data[len(_XMP_SEGMENT) :])
        elif name in ("exif", "app1"):
            found.setdefault("exif", data)
        elif name == "xmp":
            found.setdefault("xmp", data)
        elif name in ("icc", "icm"):
            found.setdefault("icc", data)
        elif name in ("iptc", "8bim", "app13"):
            records = iptc.from_profile(data)
            found |= {"iptc": records} if records and "iptc" not in found else {}
    return found


def profile_text(name: str, data: bytes) -> str:
    """Data as the text of a profile."""
    digits = data.hex()
    lines = "\n".join(digits[start : start + 72] for start in range(0, len(digits), 72))
    return f"\n{name}\n{len(data):8}\n{lines}\n"


def color_chunks(path: Path) -> tuple[dict[str, bytes], list[Change]]:
    """The chunks of colors of a PNG, and what other chunks are dropped; none of a file that is not a PNG."""
    colors: dict[str, bytes] = {}
    dropped: dict[Change, None] = {}
    with suppress(OSError), path.open("rb") as file:
        for kind, data in _named_chunks(file):
            if kind in COLOR_CHUNKS:
                colors.setdefault(kind, data)
            elif kind not in _EXPECTED:
                dropped[Change(f"chunk {kind}", _DROPPED.get(kind, "its meaning is not known"))] = None
    return colors, list(dropped)


def color_chunks_of(image: Image.Image) -> dict[str, bytes]:
    """The chunks of colors of an image that Pillow has opened from a PNG, and not loaded yet; else none."""
    file = getattr(image, "fp", None)
    if image.format != "PNG" or file is None:
        return {}
    at = file.tell()
    file.seek(0)
    try:
        return {kind: data for kind, data in _named_chunks(file) if kind in COLOR_CHUNKS}
    finally:
        file.seek(at)


def from_info(info: Mapping[Any, Any]) -> dict[str, bytes]:
    """The chunks of colors that Pillow has in ``image.info``, which lacks the newer ones."""
    colors: dict[str, bytes] = {}
    try:
        if "gamma" in info:
            colors["gAMA"] = struct.pack(">I", round(info["gamma"] * 100_000))
        if "chromaticity" in info:
            colors["cHRM"] = struct.pack(">8I", *(round(value * 100_000) for value in info["chromaticity"]))
        if "srgb" in info:
            colors["sRGB"] = bytes([info["srgb"]])
    except (struct.error, TypeError, ValueError):
        return {}
    return colors


def _named_chunks(file: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """The kind of each chunk, and the data of chunks of colors."""
    for kind, offset, length in chunks(file):
        name = kind.decode("latin-1")
        yield name, chunk_data(file, offset, length) if name in COLOR_CHUNKS and length <= 64 else b""


def _decoded(value: str) -> bytes:
    match = _PROFILE.match(value)
    digits = "".join(match[2].split()) if match else ""
    data = bytes.fromhex(digits[: len(digits) // 2 * 2])
    return data[: int(match[1])] if match else b""
