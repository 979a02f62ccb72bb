"""Writing images band by band: PNG and TIFF to the disk as rows arrive, JPEG and WebP at the end."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from liif_core.errors import UserError
from liif_core.files import replacing
from liif_core.images.apng import ApngFile
from liif_core.images.ordered_pool import WORKERS
from liif_core.images.pillow_writer import WebpFrames, WholeSink
from liif_core.images.png import PngSink
from liif_core.images.target import Target
from liif_core.images.tiff import TiffSink, is_big
from liif_core.images.timing import Timing


class Sink(Protocol):
    """What encodes the rows of a picture."""

    def rows(self, rows: np.ndarray) -> None:
        """Append rows, in order from the top."""

    def finish(self) -> None:
        """Write what ends the picture."""


class Writer:
    """Writes an image from the top, a band of rows at a time."""

    def __init__(self, target: Target, sink: Sink):
        self.target, self.sink, self.done = target, sink, 0

    def write_rows(self, rows: np.ndarray) -> None:
        """Append rows (h, width, channels), or (h, width) of one channel, of the target's depth.

        Raises ValueError for rows of another shape or type, or too many; UserError where the disk refuses them.
        """
        (height, width), channels = self.target.size, self.target.channels
        rows = rows[..., None] if rows.ndim == 2 else rows
        if rows.ndim != 3 or rows.shape[1:] != (width, channels) or rows.dtype.name != self.target.depth:
            raise ValueError(
                f"expected rows (h, {width}, {channels}) of {self.target.depth}, got {rows.shape} of {rows.dtype}"
            )
        if self.done + len(rows) > height:
            raise ValueError(f"{self.done + len(rows)} rows for an image of {height}")
        self.done += len(rows)
        if len(rows):
            with _on_disk(self.target.path):
                self.sink.rows(np.ascontiguousarray(rows))

    def finish(self) -> None:
        """Write what ends the file; ``open_writer`` calls it. Raises ValueError where rows are missing."""
        if self.done != self.target.size[0]:
            raise ValueError(f"{self.done} rows of {self.target.size[0]} were written")
        with _on_disk(self.target.path):
            self.sink.finish()


@contextmanager
def open_writer(target: Target) -> Iterator[Writer]:
    """A writer for an output that ``check_output`` has checked.

    The complete file appears under its name when the body ends. If the body raises or does not write all rows, no
    partial file is left, and an existing file is unchanged.
    """
    with (
        _open(target.path) as (file, pool),
        FramesWriter(lambda target: _sink(file, target, pool)).next(target) as writer,
    ):
        yield writer


class FramesWriter:
    """Writes the frames of an animation, or pages, one after the other."""

    def __init__(self, start: Callable[[Target], Sink]):
        self.start = start

    @contextmanager
    def next(self, target: Target) -> Iterator[Writer]:
        """A writer for the next frame or page; those of an animation have equal targets. The body writes all rows."""
        with _on_disk(target.path):
            writer = Writer(target, self.start(target))
        yield writer
        writer.finish()


@contextmanager
def open_frames(target: Target, timing: Timing | None, raw_bytes: int) -> Iterator[FramesWriter]:
    """A writer for a file of several pictures, of which ``target`` is the first: PNG, WebP or TIFF.

    ``timing`` is that of an animation; a TIFF has none. ``raw_bytes`` are those of all pictures, uncompressed. The file
    appears as with ``open_writer``, when all frames of the timing, or all pages, are written.
    """
    with _open(target.path) as (file, pool):
        if target.format.name == "TIFF":
            yield FramesWriter(_tiff_pages(file, pool, is_big(raw_bytes)))
            return
        assert timing is not None
        with _on_disk(target.path):
            png = target.format.name == "PNG"
            kind = ApngFile(file, target, pool, timing) if png else WebpFrames(file, target, timing)
        yield FramesWriter(lambda _: kind.frame())
        with _on_disk(target.path):
            kind.finish()


def _tiff_pages(file: BinaryIO, pool: Executor, big: bool) -> Callable[[Target], Sink]:
    pages: list[TiffSink] = []

    def start(target: Target) -> TiffSink:
        pages[:] = [TiffSink(file, target, pool, pages[0] if pages else None, big)]
        return pages[0]

    return start


@contextmanager
def _open(path: Path) -> Iterator[tuple[BinaryIO, Executor]]:
    with ExitStack() as stack:
        with _on_disk(path):
            file = stack.enter_context(replacing(path)).open("wb")
            stack.callback(_close, file)
        yield file, stack.enter_context(ThreadPoolExecutor(WORKERS))
        with _on_disk(path):
            file.flush()


def _sink(file: BinaryIO, target: Target, pool: Executor) -> Sink:
    if target.format.whole:
        return WholeSink(file, target)
    return (PngSink if target.format.name == "PNG" else TiffSink)(file, target, pool)


def _close(file: BinaryIO) -> None:
    # After an error on a full disk, closing would try to write again; the error has been reported.
    with suppress(OSError):
        file.close()


@contextmanager
def _on_disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        raise UserError(f"{path}: cannot be written ({problem.strerror or problem})") from None
