"""Writing an image of any size, row by row: first ``check_output``, before anything is computed; then ``open_writer``.

PNG and TIFF are written as the rows come. JPEG and WebP are collected first (``needs_whole``).
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from attrs import evolve, frozen

from liif_core.errors import UserError, did_you_mean
from liif_core.files import replacing
from liif_core.geometry import Size
from liif_core.images import tiff
from liif_core.images.metadata import exif_block, matching_icc
from liif_core.images.picture import Depth, Metadata
from liif_core.images.png import PngSink
from liif_core.images.whole import MOST_IN_JPEG, WholeSink

_MOST_HELD = 64 << 20  # bytes in a row of tiles that nobody asked for


@frozen
class Format:
    """What a file format can hold. ``limit`` is the longest side; ``whole``: its encoder wants the whole image."""

    name: str
    suffixes: tuple[str, ...]
    limit: int
    depths: tuple[Depth, ...]
    alpha: bool
    whole: bool


FORMATS = {
    "png": Format("PNG", (".png",), 2**31 - 1, ("uint8", "uint16"), alpha=True, whole=False),
    # The format's own limit is 65,535, but libjpeg, which everyone writes it with, stops here.
    "jpg": Format("JPEG", (".jpg", ".jpeg"), 65_500, ("uint8",), alpha=False, whole=True),
    "webp": Format("WebP", (".webp",), 16_383, ("uint8",), alpha=True, whole=True),
    "tif": Format("TIFF", (".tif", ".tiff"), 2**32 - 1, ("uint8", "uint16", "float32"), alpha=True, whole=False),
}


@frozen
class Encoding:
    """How to encode: ``quality`` 1 to 100 for JPEG (4:4:4) and lossy WebP, ``lossless`` for WebP, ``compression``
    0 to 9 for PNG and TIFF, ``tiled`` for TIFF (None: tiles where it is a BigTIFF, strips else)."""

    quality: int = 95
    lossless: bool = False
    compression: int = 6
    tiled: bool | None = None


@frozen
class Target:
    """A checked output: what ``open_writer`` will write.

    ``depth`` is what rows must have: the depth asked for, or what the format holds of it. ``memory`` is about how
    many bytes the writer will hold, ``notes`` sentences for the user about what the format cannot keep.
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


def needs_whole(format: str) -> bool:
    """Whether a format ("png", "jpg", "webp", "tif") is held in memory whole while it is written."""
    return FORMATS[format].whole


def check_output(
    path: str | Path,
    size: Size,
    channels: int,
    depth: Depth,
    metadata: Metadata = Metadata(),
    format: str | None = None,
    encoding: Encoding = Encoding(),
) -> Target:
    """See whether an image of ``size`` (height, width) can be written to ``path``, before it is computed.

    ``channels`` counts alpha: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA. ``format`` is a key of FORMATS, or None to go
    by the suffix. The disk must have room for the image unpacked, which no PNG or TIFF exceeds by more than a
    thousandth; for JPEG and WebP for half of it, which photographs stay well below.

    Raises UserError with all that is wrong: an unknown format, a side beyond the format's limit, alpha in a JPEG, a
    folder that cannot be written, too little space.
    """
    path = Path(path)
    kind = _format(path, format)
    height, width = size
    problems = []
    if max(size) > kind.limit:
        problems.append(
            f"{path}: {width}x{height} is beyond the {kind.limit:,} pixels a side that {kind.name} can hold; "
            "use --format tif or png, or a smaller size"
        )
    if channels in (2, 4) and not kind.alpha:
        problems.append(f"{path}: {kind.name} has no transparency, and this image has; use --format png, webp or tif")
    kept = depth if depth in kind.depths else kind.depths[-1]
    row = width * channels * np.dtype(kept).itemsize
    problems += _place_problems(path, height * row // (2 if kind.whole else 1))
    if problems:
        raise UserError(*problems)
    notes = [] if kept == depth else [f"{kind.name} does not hold {depth}: the values are rounded to {kept}"]
    metadata = matching_icc(metadata, 1 if channels < 3 else 3)
    if kind.name == "JPEG":
        metadata, lost = _fitting_jpeg(metadata, size)
        notes += lost
    if kind.name == "TIFF":
        if encoding.tiled is None:
            encoding = evolve(encoding, tiled=tiff.is_big(height * row) and tiff.TILE * row <= _MOST_HELD)
    memory = _memory(kind, size, channels, row, bool(encoding.tiled))
    return Target(path, kind, size, channels, kept, metadata, encoding, memory, tuple(notes))


class Writer:
    """Takes an image from the top, a band of rows at a time."""

    def __init__(self, target: Target, sink: PngSink | tiff.TiffSink | WholeSink):
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
    """A writer for a checked output. The file appears under its name when the body ends, whole; if the body raises,
    or does not write all rows, nothing is left."""
    with ExitStack() as stack:
        with _on_disk(target.path):
            file = stack.enter_context(stack.enter_context(replacing(target.path)).open("wb"))
            writer = Writer(target, _sink(file, target))
        yield writer
        writer.finish()


def _sink(file: BinaryIO, target: Target) -> PngSink | tiff.TiffSink | WholeSink:
    encoding, dtype = target.encoding, np.dtype(target.depth)
    common = file, target.size, target.channels
    if target.format.name == "PNG":
        return PngSink(*common, dtype.itemsize * 8, target.metadata, encoding.compression)
    if target.format.name == "TIFF":
        return tiff.TiffSink(*common, dtype, target.metadata, encoding.compression, bool(encoding.tiled))
    if target.format.name == "JPEG":
        options = {"quality": encoding.quality, "subsampling": 0}
    else:
        options = {"quality": encoding.quality, "lossless": encoding.lossless}
    return WholeSink(*common, target.format.name.upper(), target.metadata, options)


def _format(path: Path, format: str | None) -> Format:
    if format is not None:
        if format not in FORMATS:
            raise UserError(f"no format is named {format!r}{did_you_mean(format, FORMATS)}; known: {', '.join(FORMATS)}")
        return FORMATS[format]
    for kind in FORMATS.values():
        if path.suffix.lower() in kind.suffixes:
            return kind
    known = [suffix for kind in FORMATS.values() for suffix in kind.suffixes]
    raise UserError(
        f"{path}: no format has the suffix {path.suffix!r}{did_you_mean(path.suffix, known)}; "
        f"name it with one of {', '.join(known)}, or give --format"
    )


def _place_problems(path: Path, need: int) -> list[str]:
    if path.is_dir():
        return [f"{path}: is a folder; give a file's name"]
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        return [f"{path}: {folder} is not a folder that may be written to"]
    free = shutil.disk_usage(folder).free
    if need > free:
        return [
            f"{path}: may need {need / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB free; "
            "make room, write elsewhere, or choose a smaller size"
        ]
    return []


def _fitting_jpeg(metadata: Metadata, size: Size) -> tuple[Metadata, list[str]]:
    blocks = {"exif": exif_block(metadata, size), "xmp": metadata.xmp}
    long = [name for name, data in blocks.items() if data and len(data) > MOST_IN_JPEG]
    notes = [f"its {name.upper()} is too long for a JPEG, and was left out" for name in long]
    return evolve(metadata, **{name: None for name in long}), notes


def _memory(kind: Format, size: Size, channels: int, row: int, tiled: bool) -> int:
    if kind.whole:
        # Pillow keeps RGB in four bytes; WebP's encoder makes a copy of its own, JPEG's does not.
        pixel = 1 if channels == 1 and kind.name == "JPEG" else 4
        return size[0] * size[1] * pixel * (3 if kind.name == "WebP" else 1)
    if kind.name == "TIFF":
        return 3 * tiff.held_rows(size, row // size[1], tiled) * row
    return 8 * max(1 << 20, row)


@contextmanager
def _on_disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        raise UserError(f"{path}: cannot be written ({problem.strerror or problem})") from None
