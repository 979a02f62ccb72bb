"""PNG, a band of rows at a time: what is held in memory does not grow with the image.

Source: PNG specification, third edition (W3C, 2025): chunks, filters and the sum-of-absolute-differences choice.
"""

import struct
import zlib
from typing import BinaryIO

import numpy as np

from liif_core.geometry import Size
from liif_core.images.metadata import exif_block
from liif_core.images.picture import Metadata

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by samples a pixel
_SUB, _UP, _AVERAGE = 1, 2, 3
_BAND_BYTES = 1 << 20
_INCH = 0.0254


class PngSink:
    """Writes rows (h, width, samples) of uint8 or uint16 as they come.

    Each row is filtered by that one of Sub, Up and Average whose result has the least sum of absolute values.
    """

    def __init__(self, file: BinaryIO, size: Size, samples: int, bits: int, metadata: Metadata, compression: int):
        self.file, self.step = file, samples * bits // 8
        self.compressor = zlib.compressobj(compression)
        height, width = size
        self.above = np.zeros(width * self.step, np.uint8)
        file.write(b"\x89PNG\r\n\x1a\n")
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, _COLOUR_TYPES[samples], 0, 0, 0))
        for kind, data in _metadata_chunks(metadata, size):
            self._chunk(kind, data)

    def rows(self, rows: np.ndarray) -> None:
        """Append rows, in order from the top."""
        rows = rows.astype(rows.dtype.newbyteorder(">"), copy=False).reshape(len(rows), -1)
        rows = np.ascontiguousarray(rows).view(np.uint8)
        few = max(1, _BAND_BYTES // rows.shape[1])
        for top in range(0, len(rows), few):
            band = rows[top : top + few]
            self._data(self.compressor.compress(_filtered(band, self.above, self.step)))
            self.above = band[-1].copy()

    def finish(self) -> None:
        """Write what ends the file."""
        self._data(self.compressor.flush())
        self._chunk(b"IEND", b"")

    def _data(self, compressed: bytes) -> None:
        if compressed:
            self._chunk(b"IDAT", compressed)

    def _chunk(self, kind: bytes, data: bytes) -> None:
        self.file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))


def _filtered(rows: np.ndarray, above: np.ndarray, step: int) -> bytes:
    """Rows of bytes as PNG has them: each filtered, after a byte that names its filter. ``step``: bytes a pixel."""
    left = np.zeros_like(rows)
    left[:, step:] = rows[:, :-step]
    up = np.concatenate([above[None], rows[:-1]])
    best = np.empty((len(rows), rows.shape[1] + 1), np.uint8)
    least = np.full(len(rows), np.iinfo(np.int64).max)
    for kind in (_SUB, _UP, _AVERAGE):
        expected = {_SUB: lambda: left, _UP: lambda: up, _AVERAGE: lambda: (left & up) + ((left ^ up) >> 1)}[kind]()
        rest = rows - expected
        cost = np.abs(rest.view(np.int8)).view(np.uint8).sum(axis=1, dtype=np.int64)
        better = cost < least
        best[better, 0] = kind
        best[better, 1:] = rest[better]
        least = np.minimum(least, cost)
    return best.tobytes()


def _metadata_chunks(metadata: Metadata, size: Size) -> list[tuple[bytes, bytes]]:
    chunks = []
    if metadata.icc:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc)))
    if metadata.dpi:
        chunks.append((b"pHYs", struct.pack(">IIB", *(round(value / _INCH) for value in metadata.dpi), 1)))
    exif = exif_block(metadata, size)
    if exif:
        chunks.append((b"eXIf", exif))
    if metadata.xmp:
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp))
    for keyword, text in metadata.text.items():
        key = keyword.encode("latin-1", "replace")[:79].strip()
        if key:
            try:
                chunks.append((b"tEXt", key + b"\0" + text.encode("latin-1")))
            except UnicodeEncodeError:
                chunks.append((b"iTXt", key + b"\0\0\0\0\0" + text.encode()))
    return chunks
