"""PNG decoded some rows at a time, to the pixels that decoding the whole file gives.

The stream of rows is inflated here. A band of its rows is then put into a small PNG of its own, which the usual decoder
decodes: that undoes the filters at its speed, and expands palettes and transparent colors by its rules. Source: PNG
specification, third edition (W3C, 2025). Interlaced files do not have their rows in order and are not read here.
"""

import importlib
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from attrs import frozen
from PIL import Image

from liif_core.images import eight_bit, metadata
from liif_core.images.picture import Metadata
from liif_core.images.png_chunks import START, chunk, chunk_data, chunks
from liif_core.images.source import Block, Pixels, band_rows

_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by color type
_READ_BYTES = 1 << 16
# Bytes per pixel to (bits, color type) of a PNG with as many, whose filters are the same.
_SAME_FILTERS = {1: (8, 0), 2: (8, 4), 3: (8, 2), 4: (8, 6), 6: (16, 2), 8: (16, 6)}


@frozen(eq=False)
class PngRows:
    """A PNG whose rows are decoded in order; made by ``open_rows``."""

    path: Path
    width: int
    height: int
    bits: int
    color_type: int
    extra: tuple[tuple[bytes, bytes], ...]  # the chunks PLTE and tRNS
    data: tuple[tuple[int, int], ...]  # offsets and lengths of the parts of the stream of rows
    metadata: Metadata
    orientation: int

    @property
    def row_length(self) -> int:
        """Bytes of one row in the file, without its filter."""
        return (self.width * _SAMPLES[self.color_type] * self.bits + 7) // 8

    def blocks(self, row: int = 0) -> Iterator[Block]:
        """Blocks of rows, from the one that has ``row`` on. Raises ValueError where the file is cut off."""
        step = max(1, self.bits * _SAMPLES[self.color_type] // 8)
        many = band_rows(max(self.row_length, 4 * self.width))
        above = np.zeros(self.row_length, np.uint8)
        with self.path.open("rb") as file:
            stream = self._inflated(file)
            for top in range(0, self.height, many):
                count = min(many, self.height - top)
                rows = np.frombuffer(_exactly(stream, count * (self.row_length + 1)), np.uint8)
                unfiltered = _unfiltered(rows.reshape(count, -1), above, step)
                above = unfiltered[-1].copy()
                if top + count > row:
                    yield top, self._pixels(unfiltered)

    def _inflated(self, file: BinaryIO) -> "_Inflated":
        def parts() -> Iterator[bytes]:
            for offset, length in self.data:
                for start in range(0, length, _READ_BYTES):
                    file.seek(offset + start)
                    yield file.read(min(_READ_BYTES, length - start))

        return _Inflated(parts())

    def _pixels(self, rows: np.ndarray) -> Pixels:
        if self.bits == 8 and self.color_type != 3 and not self.extra:
            pixels = rows.reshape(len(rows), self.width, -1)
            channels = 1 if self.color_type in (0, 4) else 3
            alpha = np.ascontiguousarray(pixels[..., channels]) if self.color_type in (4, 6) else None
            return np.ascontiguousarray(pixels[..., :channels]), alpha
        plain = np.pad(rows, ((0, 0), (1, 0)))
        small = _small_png(self.width, self.bits, self.color_type, plain, self.extra)
        if self.bits == 16:
            pixels = _decoded_deep(small)
            channels = 3 if pixels.shape[2] > 2 else 1
            return pixels[..., :channels], pixels[..., channels] if pixels.shape[2] > channels else None
        with Image.open(io.BytesIO(small), formats=("PNG",)) as image:
            image.load()
            picture = eight_bit.to_picture(image, Metadata(), 1, self.bits)
        return picture.color, picture.alpha


def open_rows(path: Path) -> PngRows | None:
    """The rows of a PNG; None where they are not in order, or where the file is not as it should be."""
    with path.open("rb") as file:
        found = list(chunks(file))
        pixels = tuple((offset, length) for kind, offset, length in found if kind == b"IDAT")
        kinds = [kind for kind, _, _ in found]
        if not pixels or kinds[0] != b"IHDR" or kinds[-1] != b"IEND" or {b"acTL", b"fdAT"} & set(kinds):
            return None
        others = [(kind, chunk_data(file, offset, length)) for kind, offset, length in found if kind != b"IDAT"]
        place = kinds.index(b"IDAT")
    width, height, bits, color_type, *methods = struct.unpack(">IIBBBBB", others[0][1][:13])
    if any(methods) or color_type not in _SAMPLES:
        return None
    extra = tuple((kind, content) for kind, content in others[:place] if kind in (b"PLTE", b"tRNS"))
    if color_type != 3:
        extra = tuple(part for part in extra if part[0] == b"tRNS")
    # All of the file's metadata, before and after the pixels, and one pixel.
    head = struct.pack(">IIBBBBB", 1, 1, bits, color_type, 0, 0, 0)
    pixel = zlib.compress(bytes(1 + (bits * _SAMPLES[color_type] + 7) // 8))
    small = [(b"IHDR", head), *others[1:place], (b"IDAT", pixel), *others[place:]]
    with Image.open(io.BytesIO(START + b"".join(chunk(*part) for part in small)), formats=("PNG",)) as image:
        image.load()
        kept, orientation = metadata.from_pillow(image, path=path)
    return PngRows(path, width, height, bits, color_type, extra, pixels, kept, orientation)


class _Inflated:
    """A stream of deflated bytes, of which some are inflated at a time."""

    def __init__(self, parts: Iterator[bytes]):
        self.parts, self.inflate = parts, zlib.decompressobj()

    def read(self, most: int) -> bytes:
        """At most so many bytes; none at the end."""
        while not self.inflate.eof:
            waiting = self.inflate.unconsumed_tail or next(self.parts, b"")
            data = self.inflate.decompress(waiting, most)
            if data or not waiting:
                return data
        return b""


def _exactly(stream: _Inflated, length: int) -> bytearray:
    data = bytearray()
    while len(data) < length:
        more = stream.read(length - len(data))
        if not more:
            raise ValueError("it ends before its pixels do")
        data += more
    return data


def _unfiltered(rows: np.ndarray, above: np.ndarray, step: int) -> np.ndarray:
    """Rows of bytes (n, length) from rows (n, 1 + length) that begin with their filter; ``step`` is bytes per pixel."""
    if not rows[:, 0].any():
        return rows[:, 1:]
    bits, color_type = _SAME_FILTERS[step]
    length = rows.shape[1] - 1
    first = np.concatenate([np.zeros(1, np.uint8), above])  # the row above, which needs no filter
    small = _small_png(length // step, bits, color_type, np.concatenate([first[None], rows]))
    if bits == 16:
        return _decoded_deep(small).astype(">u2").reshape(len(rows) + 1, -1).view(np.uint8)[1:]
    with Image.open(io.BytesIO(small), formats=("PNG",)) as image:
        return np.asarray(image).reshape(len(rows) + 1, -1)[1:]


def _decoded_deep(data: bytes) -> np.ndarray:
    pixels: np.ndarray = importlib.import_module("imagecodecs").png_decode(data)
    return pixels.reshape(*pixels.shape[:2], -1)


def _small_png(
    width: int, bits: int, color_type: int, rows: np.ndarray, extra: tuple[tuple[bytes, bytes], ...] = ()
) -> bytes:
    head = struct.pack(">IIBBBBB", width, len(rows), bits, color_type, 0, 0, 0)
    data = zlib.compress(np.ascontiguousarray(rows).data, 0)
    chunks = [(b"IHDR", head), *extra, (b"IDAT", data), (b"IEND", b"")]
    return START + b"".join(chunk(*part) for part in chunks)
