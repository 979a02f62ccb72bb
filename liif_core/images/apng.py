"""Writing animated PNG, frame by frame, in memory that does not grow with their number.

Source: PNG specification, third edition (W3C, 2025), section 11.3.4: the chunks acTL, fcTL and fdAT.
"""

import struct
from concurrent.futures import Executor
from fractions import Fraction
from typing import BinaryIO

from liif_core.images.png import PixelStream, start_of_file
from liif_core.images.png_chunks import END, chunk
from liif_core.images.target import Target
from liif_core.images.timing import Timing

_MOST = 65_535  # of a numerator or denominator of seconds


class ApngFile:
    """Writes frames that each replace the whole picture. ``target`` is that of every frame."""

    def __init__(self, file: BinaryIO, target: Target, pool: Executor, timing: Timing):
        self.file, self.target, self.pool, self.timing = file, target, pool, timing
        self.frames, self.sequence = 0, 0
        file.write(start_of_file(target))
        file.write(chunk(b"acTL", struct.pack(">II", len(timing.milliseconds), timing.plays)))

    def frame(self) -> PixelStream:
        """The pixels of the next frame, to be written."""
        height, width = self.target.size
        delay = _seconds(self.timing.milliseconds[self.frames])
        control = struct.pack(">IIIIHHBB", width, height, 0, 0, delay.numerator, delay.denominator, 0, 0)
        self._numbered(b"fcTL", control)
        self.frames += 1
        return PixelStream(self.target, self.pool, self._first if self.frames == 1 else self._other)

    def finish(self) -> None:
        """Write what ends the file."""
        self.file.write(END)

    def _first(self, data: bytes) -> None:
        self.file.write(chunk(b"IDAT", data))

    def _other(self, data: bytes) -> None:
        self._numbered(b"fdAT", data)

    def _numbered(self, kind: bytes, data: bytes) -> None:
        self.file.write(chunk(kind, struct.pack(">I", self.sequence) + data))
        self.sequence += 1


def _seconds(milliseconds: float) -> Fraction:
    """A duration as a fraction whose parts fit into 16 bits; longer ones become the longest, 18 hours."""
    seconds = Fraction(milliseconds / 1000)
    return min(seconds.limit_denominator(_MOST if seconds < 1 else int(_MOST // seconds) or 1), Fraction(_MOST))
