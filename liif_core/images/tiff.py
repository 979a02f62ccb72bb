"""TIFF, a band of rows at a time, in strips or tiles, past 4 GB as BigTIFF, all deflated.

Source: TIFF 6.0 (Adobe, 1992), sections 3 to 15 and its supplements (deflate), and BigTIFF. Written here because the
packages that write TIFF want the whole image, or to pull it from an iterator of tiles.
"""

import struct
import zlib
from typing import BinaryIO

import numpy as np

from liif_core.geometry import Size
from liif_core.images import tags
from liif_core.images.metadata import exif_directory
from liif_core.images.picture import Metadata

TILE = 256  # pixels a side
_LAST_OFFSET = 4_000_000_000  # bytes; a plain TIFF cannot point beyond 4.29e9, and deflate may add a little
_STRIP_BYTES = 1 << 20
_DEFLATE, _HORIZONTAL_DIFFERENCES = 8, 2
_SAMPLE_FORMAT = {"u": 1, "f": 3}
_STRAIGHT_ALPHA = 2


class TiffSink:
    """Writes rows (h, width, samples) of ``dtype`` (uint8, uint16 or float32) as they come.

    At most a row of tiles, or a strip of about 1 MB, is held back.
    """

    def __init__(
        self, file: BinaryIO, size: Size, samples: int, dtype: np.dtype, metadata: Metadata,
        compression: int, tiled: bool,
    ):
        self.file, self.size, self.metadata = file, size, metadata
        self.compression, self.tiled = compression, tiled
        height, width = size
        self.big = is_big(height * width * samples * dtype.itemsize)
        self.deep = held_rows(size, samples * dtype.itemsize, tiled)
        self.held = np.zeros((self.deep, width, samples), dtype.newbyteorder("<"))
        self.filled = 0
        self.offsets: list[int] = []
        self.counts: list[int] = []
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0) if self.big else struct.pack("<2sHI", b"II", 42, 0))

    def rows(self, rows: np.ndarray) -> None:
        """Append rows, in order from the top."""
        while len(rows):
            some = rows[: self.deep - self.filled]
            self.held[self.filled : self.filled + len(some)] = some
            self.filled += len(some)
            rows = rows[len(some) :]
            if self.filled == self.deep:
                self._flush()

    def finish(self) -> None:
        """Write what ends the file."""
        if self.filled:
            self._flush()
        place = self._align()
        self.file.write(tags.directory_bytes(self._directory(), place, self.big))
        self.file.seek(8 if self.big else 4)
        self.file.write(struct.pack("<Q" if self.big else "<I", place))

    def _flush(self) -> None:
        held, self.filled = self.held[: self.filled], 0
        if self.tiled:
            for left in range(0, self.size[1], TILE):
                part = held[:, left : left + TILE]
                missing = [(0, TILE - side) for side in part.shape[:2]]
                self._segment(np.pad(part, [*missing, (0, 0)], mode="edge"))
        else:
            self._segment(held)

    def _segment(self, pixels: np.ndarray) -> None:
        if pixels.dtype.kind == "u":
            pixels = np.concatenate([pixels[:, :1], pixels[:, 1:] - pixels[:, :-1]], axis=1)
        data = zlib.compress(pixels.tobytes(), self.compression)
        self.offsets.append(self._align())
        self.counts.append(len(data))
        self.file.write(data)

    def _align(self) -> int:
        if self.file.tell() % 2:
            self.file.write(b"\0")
        return self.file.tell()

    def _directory(self) -> tags.Directory:
        (height, width), samples, dtype = self.size, self.held.shape[2], self.held.dtype
        short, long = tags.SHORT, tags.LONG
        own = {
            256: (long, [width]),
            257: (long, [height]),
            258: (short, [dtype.itemsize * 8] * samples),
            259: (short, [_DEFLATE]),
            262: (short, [2 if samples > 2 else 1]),  # RGB, or grey with black as 0
            277: (short, [samples]),
            284: (short, [1]),  # samples side by side
            339: (short, [_SAMPLE_FORMAT[dtype.kind]] * samples),
        }
        if dtype.kind == "u":
            own[317] = (short, [_HORIZONTAL_DIFFERENCES])
        if samples in (2, 4):
            own[338] = (short, [_STRAIGHT_ALPHA])
        offset = tags.LONG8 if self.big else long
        if self.tiled:
            own |= {322: (long, [TILE]), 323: (long, [TILE]), 324: (offset, self.offsets), 325: (long, self.counts)}
        else:
            own |= {273: (offset, self.offsets), 278: (long, [self.deep]), 279: (long, self.counts)}
        if self.metadata.icc:
            own[34675] = (tags.UNDEFINED, self.metadata.icc)
        if self.metadata.xmp:
            own[700] = (tags.BYTE, self.metadata.xmp)
        return exif_directory(self.metadata, self.size) | {tag: tags.Entry.of(*entry) for tag, entry in own.items()}


def is_big(image_bytes: int) -> bool:
    """Whether an image of so many bytes, unpacked, is written as BigTIFF."""
    return image_bytes > _LAST_OFFSET


def held_rows(size: Size, pixel_bytes: int, tiled: bool) -> int:
    """How many rows a writer of such a TIFF holds back: a row of tiles, or a strip."""
    return TILE if tiled else min(size[0], max(1, _STRIP_BYTES // (size[1] * pixel_bytes)))
