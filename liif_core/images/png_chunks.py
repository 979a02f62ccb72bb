"""The chunks of a PNG: where each begins, and how one is written.

Source: PNG specification, third edition (W3C, 2025), section 5.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

START = b"\x89PNG\r\n\x1a\n"  # of every PNG file
_MOST_CHUNKS = 1_000_000


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk: its length, kind, data and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


END = chunk(b"IEND", b"")


def chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Kind, offset and length of the data of each chunk up to IEND, or up to one that is cut off; none of other files.

    The file may be read between two chunks.
    """
    length = file.seek(0, 2)
    file.seek(0)
    if file.read(len(START)) != START:
        return
    offset = len(START)
    for _ in range(_MOST_CHUNKS):
        if offset + 12 > length:
            return
        file.seek(offset)
        size, kind = struct.unpack(">I4s", file.read(8))
        if offset + 12 + size > length:
            return
        yield kind, offset + 8, size
        if kind == b"IEND":
            return
        offset += 12 + size


def chunk_data(file: BinaryIO, offset: int, length: int) -> bytes:
    """The data of a chunk."""
    file.seek(offset)
    return file.read(length)
