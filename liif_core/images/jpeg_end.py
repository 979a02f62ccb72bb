"""JPEG files that lack only the marker that ends them: all their pixels are there, but Pillow says "cut off"."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

NOTE = "it lacks the marker that ends a JPEG file; all its pixels are there"
_END = b"\xff\xd9"
_PADDING = 4  # bytes that may follow the last marker
# What follows in trials. As Huffman codes, some of these patterns mean coefficients, others the end of a block.
_FOLLOWING = tuple(bytes(part) * (4096 // len(part)) for part in (
    [0x00], [0xFF, 0x00], [0x55], [0xAA], [0x92, 0x49, 0x24], [0x6D, 0xB6, 0xDB], [0xC3, 0x3C], range(1, 255, 7),
))  # fmt: skip
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_SCANS, _START_OF_SCAN = (0xC0, 0xC1, 0xC2), 0xDA


def completed(path: Path) -> io.BytesIO | None:
    """The file with its last marker, if all its pixels are there; None if some are missing, or may be.

    They are all there if they do not depend on what follows: nothing, or bits of several patterns; and if its scans
    together have every coefficient of every component in full.
    """
    data = path.read_bytes().rstrip(b"\xff")
    if not data.startswith(b"\xff\xd8\xff") or not _has_all_scans(data):
        return None
    first = None
    for more in (b"", *_FOLLOWING):
        try:
            with Image.open(io.BytesIO(data + more + _END), formats=("JPEG",)) as image:
                pixels = image.tobytes()
        except Exception:
            return None
        if first is not None and pixels != first:
            return None
        first = pixels
    return io.BytesIO(data + _END)


def ends_early(data: bytes) -> bool:
    """Whether a JPEG stream, such as that of a strip of a TIFF, ends before its data do, or has no end."""
    for kind, start, _ in _markers(data):
        if kind == _END[1]:
            return len(data) - start > _PADDING
    return True


def _markers(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Of each marker its kind, where its segment starts, with two bytes of its length, and where that ends."""
    place = 2
    while found := _MARKER.search(data, place):
        start = found.end()
        place = start + int.from_bytes(data[start : start + 2], "big")
        yield data[found.start() + 1], start, place


def _has_all_scans(data: bytes) -> bool:
    components: list[int] = []
    missing: set[tuple[int, int]] = set()
    for kind, start, end in _markers(data):
        part = data[start + 2 : end]
        if kind in _SCANS and len(part) >= 6 + 3 * part[5]:
            components = list(part[6 : 6 + 3 * part[5] : 3])
            missing = {(component, number) for component in components for number in range(64)}
        elif kind == _START_OF_SCAN and part and len(part) >= 4 + 2 * part[0]:
            first, last, bits = part[1 + 2 * part[0] : 4 + 2 * part[0]]
            if bits & 15 == 0:
                missing -= {
                    (component, number)
                    for component in part[1 : 1 + 2 * part[0] : 2]
                    for number in range(first, last + 1)
                }
    return bool(components) and not missing
