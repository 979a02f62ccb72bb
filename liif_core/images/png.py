"""Writing PNG, a band of rows at a time, in memory that does not grow with the image.

Source: PNG specification, third edition (W3C, 2025): chunks, filters and the sum-of-absolute-differences choice; RFC
1950 and 1951 for the stream of deflated bands.
"""

import struct
import zlib
from collections.abc import Callable
from concurrent.futures import Executor
from typing import BinaryIO

import numpy as np

from liif_core.images import exif, iptc
from liif_core.images.ordered_pool import WORKERS, InOrder
from liif_core.images.picture import Metadata
from liif_core.images.png_chunks import END, START, chunk
from liif_core.images.png_profiles import COLOR_CHUNKS, profile_text
from liif_core.images.target import Target
from liif_core.sizes import Size

_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by samples per pixel
_SUB, _UP, _AVERAGE = 1, 2, 3
_BAND_BYTES = 1 << 19
_INCH = 0.0254
_ADLER = 65521


class PngSink:
    """Writes rows (h, width, samples) of uint8 or uint16 as they come, compressed on the threads of ``pool``."""

    def __init__(self, file: BinaryIO, target: Target, pool: Executor):
        self.file = file
        file.write(start_of_file(target))
        self.pixels = PixelStream(target, pool, lambda data: file.write(chunk(b"IDAT", data)))

    def rows(self, rows: np.ndarray) -> None:
        """Append rows, in order from the top."""
        self.pixels.rows(rows)

    def finish(self) -> None:
        """Write what ends the file."""
        self.pixels.finish()
        self.file.write(END)


class PixelStream:
    """The compressed pixels of one picture, passed to ``take`` in parts as rows (h, width, samples) come.

    Each row is filtered by the one of Sub, Up and Average whose result has the smallest sum of absolute values. Bands
    of rows are deflated separately, which adds less than 1 % to the size, and joined to the one stream of a PNG.
    """

    def __init__(self, target: Target, pool: Executor, take: Callable[[bytes], object]):
        self.take, self.compression = take, target.encoding.compression
        self.packed, self.checksum = InOrder(pool, self._append), 1
        self.step = target.channels * np.dtype(target.depth).itemsize
        self.above = np.zeros(target.size[1] * self.step, np.uint8)
        take(b"\x78\x9c")  # zlib's header

    def rows(self, rows: np.ndarray) -> None:
        """Append rows, in order from the top."""
        few = max(1, _BAND_BYTES // len(self.above))
        for top in range(0, len(rows), few):
            band = rows[top : top + few].astype(rows.dtype.newbyteorder(">"), order="C")
            band = band.reshape(len(band), -1).view(np.uint8)
            self.packed.submit(_packed, band, self.above, self.step, self.compression)
            self.above = band[-1]

    def finish(self) -> None:
        """Pass on what ends the stream."""
        self.packed.finish()
        self.take(b"\x03\x00" + struct.pack(">I", self.checksum))  # an empty last block

    def _append(self, packed: tuple[bytes, int, int]) -> None:
        data, checksum, length = packed
        self.take(data)
        # Adler-32 of two parts in a row, from that of each (RFC 1950).
        (first, second), (one, two) = (divmod(value, 65536)[::-1] for value in (self.checksum, checksum))
        first, second = first + one - 1, second + two + length * (first - 1)
        self.checksum = second % _ADLER * 65536 + first % _ADLER


def start_of_file(target: Target) -> bytes:
    """All that comes before the pixels."""
    (height, width), bits, colors = target.size, 8 * np.dtype(target.depth).itemsize, _COLOR_TYPES[target.channels]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colors, 0, 0, 0))
    return START + head + b"".join(chunk(*one) for one in _metadata_chunks(target.metadata, target.size))


def memory(size: Size, pixel_bytes: int) -> int:
    """About how many bytes a writer uses: pending bands, and copies of those being compressed."""
    return 10 * WORKERS * max(_BAND_BYTES, size[1] * pixel_bytes)


def _packed(rows: np.ndarray, above: np.ndarray, step: int, compression: int) -> tuple[bytes, int, int]:
    """Rows of bytes filtered and deflated, ending on a whole byte; checksum and length of the data before deflating."""
    data = _filtered(rows, above, step)
    deflate = zlib.compressobj(compression, zlib.DEFLATED, -zlib.MAX_WBITS)
    return deflate.compress(data) + deflate.flush(zlib.Z_FULL_FLUSH), zlib.adler32(data), len(data)


def _filtered(rows: np.ndarray, above: np.ndarray, step: int) -> bytes:
    """Rows of bytes as in a PNG: each filtered, after a byte that names its filter. ``step`` is the bytes per pixel."""
    left = np.zeros_like(rows)
    left[:, step:] = rows[:, :-step]
    up = np.concatenate([above[None], rows[:-1]])
    average = (left & up) + ((left ^ up) >> 1)  # of bytes, rounded down, in bytes
    best = np.empty((len(rows), rows.shape[1] + 1), np.uint8)
    least = np.full(len(rows), np.iinfo(np.int64).max)
    for kind, expected in ((_SUB, left), (_UP, up), (_AVERAGE, average)):
        rest = rows - expected
        cost = np.abs(rest.view(np.int8)).view(np.uint8).sum(axis=1, dtype=np.int64)
        better = cost < least
        best[better, 0] = kind
        best[better, 1:] = rest[better]
        least = np.minimum(least, cost)
    return best.tobytes()


def _metadata_chunks(metadata: Metadata, size: Size) -> list[tuple[bytes, bytes]]:
    chunks = color_chunks(metadata)
    if metadata.icc:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc)))
    if metadata.dpi:
        chunks.append((b"pHYs", struct.pack(">IIB", *(round(value / _INCH) for value in metadata.dpi), 1)))
    block = exif.block(metadata, size)
    if block:
        chunks.append((b"eXIf", block))
    return chunks + text_chunks(metadata)


def color_chunks(metadata: Metadata) -> list[tuple[bytes, bytes]]:
    """The chunks, as pairs of type and data, that say what colors mean; they come before the pixels."""
    return [(kind.encode(), metadata.colors[kind]) for kind in COLOR_CHUNKS if kind in metadata.colors]


def text_chunks(metadata: Metadata) -> list[tuple[bytes, bytes]]:
    """The chunks, as pairs of type and data, that hold XMP, IPTC and text."""
    chunks = []
    if metadata.xmp:
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp))
    if metadata.iptc:
        profile = profile_text("iptc", iptc.resource(metadata.iptc))  # as ImageMagick and ExifTool keep it
        chunks.append((b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(profile.encode())))
    for keyword, text in metadata.text.items():
        key = keyword.encode("latin-1", "replace")[:79].strip()
        if key:
            try:
                chunks.append((b"tEXt", key + b"\0" + text.encode("latin-1")))
            except UnicodeEncodeError:
                chunks.append((b"iTXt", key + b"\0\0\0\0\0" + text.encode()))
    return chunks
