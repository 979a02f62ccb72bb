"""Writing an image band by band: PNG and TIFF to the disk as rows arrive, JPEG and WebP at the end."""

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from liif_core.errors import UserError
from liif_core.files import replacing
from liif_core.images.ordered_pool import WORKERS
from liif_core.images.pillow_writer import WholeSink
from liif_core.images.png import PngSink
from liif_core.images.target import Target
from liif_core.images.tiff import TiffSink


class Writer:
    """Writes an image from the top, a band of rows at a time."""

    def __init__(self, target: Target, sink: PngSink | TiffSink | WholeSink):
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
    with ExitStack() as stack:
        with _on_disk(target.path):
            file = stack.enter_context(replacing(target.path)).open("wb")
            stack.callback(_close, file)
            writer = Writer(target, _sink(file, target, stack.enter_context(ThreadPoolExecutor(WORKERS))))
        yield writer
        writer.finish()
        with _on_disk(target.path):
            file.flush()


def _sink(file: BinaryIO, target: Target, pool: Executor) -> PngSink | TiffSink | WholeSink:
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
