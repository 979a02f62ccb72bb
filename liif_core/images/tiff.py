"""Writing TIFF, a band of rows at a time, in deflated strips or tiles; beyond 4 GB as BigTIFF.

Source: TIFF 6.0 (Adobe, 1992), sections 3 to 15 and its supplements (deflate), and BigTIFF. Written here because the
packages that write TIFF need the whole image, or an iterator of tiles.
"""

import os
import struct
import zlib
from concurrent.futures import Executor
from typing import BinaryIO

import numpy as np

from liif_core.images import exif, ifd, iptc, nodata
from liif_core.images.ordered_pool import WORKERS, InOrder
from liif_core.images.target import Target
from liif_core.sizes import Size

TILE = 256  # pixels a side
_LAST_OFFSET = 4_000_000_000  # bytes; a plain TIFF cannot point beyond 4.29e9, and deflate may add a little
_STRIP_BYTES = 1 << 19
_DEFLATE, _HORIZONTAL_DIFFERENCES = 8, 2
_SAMPLE_FORMAT = {"u": 1, "f": 3}
_STRAIGHT_ALPHA = 2


class TiffSink:
    """Writes rows (h, width, samples) of uint8, uint16 or float32 as they come, compressed on the threads of ``pool``.

    A row of tiles, or a strip of about half a megabyte, is kept in memory until it is full. ``after`` is the page
    before this one in the same file, whose ``big`` counts for all; ``big`` decides for a file of several pages.
    """

    def __init__(
        self, file: BinaryIO, target: Target, pool: Executor, after: "TiffSink | None" = None, big: bool | None = None
    ):
        self.file, self.target, self.tiled = file, target, bool(target.encoding.tiled)
        (height, width), dtype = target.size, np.dtype(target.depth).newbyteorder("<")
        pixel_bytes = target.channels * dtype.itemsize
        self.big: bool = after.big if after else is_big(height * width * pixel_bytes) if big is None else big
        # Where the place of the directory is written: in the page before, or in the header of the file.
        self.pointer: int = after.next_pointer if after else 8 if self.big else 4
        self.next_pointer: int = 0
        self.held_rows = _held_rows(target.size, pixel_bytes, self.tiled)
        self.held = np.zeros((self.held_rows, width, target.channels), dtype)
        self.filled = 0
        self.packed = InOrder(pool, self._append)
        self.offsets: list[int] = []
        self.counts: list[int] = []
        if after is None:
            file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0) if self.big else struct.pack("<2sHI", b"II", 42, 0))

    def rows(self, rows: np.ndarray) -> None:
        """Append rows, in order from the top."""
        while len(rows):
            some = rows[: self.held_rows - self.filled]
            self.held[self.filled : self.filled + len(some)] = some
            self.filled += len(some)
            rows = rows[len(some) :]
            if self.filled == self.held_rows:
                self._flush()

    def finish(self) -> None:
        """Write what ends the page."""
        if self.filled:
            self._flush()
        self.packed.finish()
        place, directory = self._align(), self._directory()
        self.next_pointer = place + ifd.table_bytes(len(directory), self.big)
        self.file.write(ifd.directory_bytes(directory, place, self.big))
        self.file.seek(self.pointer)
        self.file.write(struct.pack("<Q" if self.big else "<I", place))
        self.file.seek(0, os.SEEK_END)

    def _flush(self) -> None:
        held, self.filled = self.held[: self.filled], 0
        compression = self.target.encoding.compression
        if self.tiled:
            for left in range(0, held.shape[1], TILE):
                part = held[:, left : left + TILE]
                missing = [(0, TILE - side) for side in part.shape[:2]]
                self.packed.submit(_packed, np.pad(part, [*missing, (0, 0)], mode="edge"), compression)
        else:
            self.packed.submit(_packed, held.copy(), compression)

    def _append(self, data: bytes) -> None:
        self.offsets.append(self._align())
        self.counts.append(len(data))
        self.file.write(data)

    def _align(self) -> int:
        if self.file.tell() % 2:
            self.file.write(b"\0")
        return self.file.tell()

    def _directory(self) -> ifd.Directory:
        (height, width), samples, dtype = self.target.size, self.target.channels, self.held.dtype
        short, long, metadata = ifd.SHORT, ifd.LONG, self.target.metadata
        own: dict[int, tuple[int, list[int] | bytes]] = {
            256: (long, [width]),
            257: (long, [height]),
            258: (short, [dtype.itemsize * 8] * samples),
            259: (short, [_DEFLATE]),
            262: (short, [2 if samples > 2 else 1]),  # RGB, or gray with black as 0
            277: (short, [samples]),
            284: (short, [1]),  # samples side by side
            339: (short, [_SAMPLE_FORMAT[dtype.kind]] * samples),
        }
        if dtype.kind == "u":
            own[317] = (short, [_HORIZONTAL_DIFFERENCES])
        if samples in (2, 4):
            own[338] = (short, [_STRAIGHT_ALPHA])
        offset = ifd.LONG8 if self.big else long
        if self.tiled:
            own |= {322: (long, [TILE]), 323: (long, [TILE]), 324: (offset, self.offsets), 325: (long, self.counts)}
        else:
            own |= {273: (offset, self.offsets), 278: (long, [self.held_rows]), 279: (long, self.counts)}
        if metadata.icc:
            own[34675] = (ifd.UNDEFINED, metadata.icc)
        if metadata.xmp:
            own[700] = (ifd.BYTE, metadata.xmp)
        if metadata.nodata is not None:
            own[nodata.TAG] = (ifd.ASCII, f"{metadata.nodata:.17g}\0".encode())
        if metadata.iptc:
            own[iptc.TIFF_TAG] = (ifd.UNDEFINED, metadata.iptc)
        carried = exif.directory_for(metadata, self.target.size)
        return carried | {tag: ifd.Entry.of(*entry) for tag, entry in own.items()}


def is_big(image_bytes: int) -> bool:
    """Whether an image of so many bytes, uncompressed, is written as BigTIFF."""
    return image_bytes > _LAST_OFFSET


def memory(size: Size, pixel_bytes: int, tiled: bool) -> int:
    """About how many bytes a writer uses: a row of tiles or a strip, and copies of those being compressed."""
    held = _held_rows(size, pixel_bytes, tiled) * size[1] * pixel_bytes
    return held + 6 * WORKERS * (TILE**2 * pixel_bytes if tiled else held) + (1 << 20)


def _packed(pixels: np.ndarray, compression: int) -> bytes:
    """A strip or tile deflated, integers as differences along their rows."""
    if pixels.dtype.kind == "u":
        pixels = np.concatenate([pixels[:, :1], pixels[:, 1:] - pixels[:, :-1]], axis=1)
    return zlib.compress(pixels.tobytes(), compression)


def _held_rows(size: Size, pixel_bytes: int, tiled: bool) -> int:
    return TILE if tiled else min(size[0], max(1, _STRIP_BYTES // (size[1] * pixel_bytes)))
