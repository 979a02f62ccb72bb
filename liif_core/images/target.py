"""What is to be written: how to encode, and one checked output."""

from pathlib import Path

import numpy as np
from attrs import frozen

from liif_core.images.account import Account, account
from liif_core.images.formats import Format
from liif_core.images.picture import Depth, Metadata
from liif_core.sizes import Size


@frozen
class Encoding:
    """How to encode: ``quality`` 1 to 100 for JPEG (4:4:4) and lossy WebP, ``lossless`` for WebP, ``compression``
    0 to 9 for PNG and TIFF, ``tiled`` for TIFF (None: tiles in a BigTIFF, else strips).

    Compression 4 is two to four times as fast as zlib's default, 6, for 1 to 6 % more bytes.
    """

    quality: int = 95
    lossless: bool = False
    compression: int = 4
    tiled: bool | None = None


@frozen
class Target:
    """A checked output, which ``open_writer`` writes.

    ``depth`` is the type of the rows to write: the depth requested, or the nearest that the format holds. ``memory``
    is about how many bytes the writer uses; ``notes`` are sentences for the user about the pixels that the format
    cannot keep. ``metadata`` is what the file will hold, and ``account`` says what became of that of the input.
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

    @property
    def raw_bytes(self) -> int:
        """Bytes of the pixels, uncompressed."""
        return self.size[0] * self.size[1] * self.channels * np.dtype(self.depth).itemsize

    @property
    def account(self) -> Account:
        """What of the input's metadata is kept, changed and dropped."""
        return account(self.metadata)
