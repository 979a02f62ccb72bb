"""Checks of an output before it is computed."""

import os
import shutil
from pathlib import Path

import numpy as np
from attrs import evolve

from liif_core.errors import UserError, did_you_mean
from liif_core.files import nearest_existing
from liif_core.images import png, tiff
from liif_core.images.account import fit
from liif_core.images.formats import WRITABLE, WRITABLE_SUFFIXES, Format
from liif_core.images.picture import Depth, Metadata
from liif_core.images.target import Encoding, Target
from liif_core.sizes import Size

_MOST_HELD = 64 << 20  # bytes in a row of tiles, where tiles are not requested


def needs_whole(format: str) -> bool:
    """Whether writing a format ("png", "jpg", "webp", "tif") needs the whole image in memory."""
    return WRITABLE[format].whole


def check_output(
    path: str | Path,
    size: Size,
    channels: int,
    depth: Depth,
    metadata: Metadata = Metadata(),
    format: str | None = None,
    encoding: Encoding = Encoding(),
    pictures: int = 1,
) -> Target:
    """Check that an image of ``size`` (height, width) can be written to ``path``.

    ``channels`` counts alpha: 1 gray, 2 gray and alpha, 3 RGB, 4 RGBA. ``format`` is a key of WRITABLE, or None to use
    the suffix; ``pictures`` is the number of frames of this size. The disk must have space for the uncompressed image,
    which no PNG or TIFF exceeds by more than 0.1 %; for JPEG and WebP, for half of it, which photographs stay well
    below.

    Raises UserError with all problems at once: an unknown format, a side beyond the format's limit, alpha in a JPEG, a
    folder that cannot be written, too little space.
    """
    path = Path(path)
    kind = format_of(path, format)
    height, width = size
    problems = []
    if max(size) > kind.limit:
        problems.append(
            f"{path}: {width}x{height} is beyond the {kind.limit:,} pixels a side that {kind.name} can hold; "
            f"use {_others(size, channels)}a smaller size"
        )
    if channels in (2, 4) and not kind.alpha:
        problems.append(
            f"{path}: {kind.name} has no transparency, and this image has; use {_others(size, channels)}"
            "another image without transparency"
        )
    if metadata.nodata is not None and kind.name != "TIFF":
        problems.append(
            f"{path}: this image has pixels without data, marked by the value {metadata.nodata:g}, which {kind.name} "
            "cannot say; use --format tif"
        )
    kept = depth if depth in kind.depths else kind.depths[-1]
    row = width * channels * np.dtype(kept).itemsize
    problems += _place_problems(path, pictures * height * row // (2 if kind.whole else 1))
    if problems:
        raise UserError(*problems)
    notes = [] if kept == depth else [f"{kind.name} does not hold {depth}: the values are rounded to {kept}"]
    metadata = fit(metadata, kind.name, 1 if channels < 3 else 3, kept, size)
    if kind.name == "TIFF" and encoding.tiled is None:
        encoding = evolve(encoding, tiled=tiff.is_big(height * row) and tiff.TILE * row <= _MOST_HELD)
    memory = _memory(kind, size, channels, row, encoding)
    if kind.whole:
        memory += (pictures - 1) * 5 * height * width  # Pillow has RGB in four bytes; and the encoded frames
    return Target(path, kind, size, channels, kept, metadata, encoding, memory, tuple(notes))


def _others(size: Size, channels: int) -> str:
    """Advice to use the formats that can hold an image; empty if none can."""
    fitting = [
        name for name, kind in WRITABLE.items() if max(size) <= kind.limit and (channels in (1, 3) or kind.alpha)
    ]
    *others, last = fitting or [""]
    listed = f"{', '.join(others)} or {last}" if others else last
    return f"--format {listed}, or " if fitting else ""


def format_of(path: Path, format: str | None) -> Format:
    """The format with the name ``format``, or by the suffix of a path. Raises UserError for one that is not written."""
    if format is not None:
        if format not in WRITABLE:
            guess = did_you_mean(format, WRITABLE)
            raise UserError(f"no format is named {format!r}{guess}; known: {', '.join(WRITABLE)}")
        return WRITABLE[format]
    for kind in WRITABLE.values():
        if path.suffix.lower() in kind.suffixes:
            return kind
    raise UserError(
        f"{path}: no format has the suffix {path.suffix!r}{did_you_mean(path.suffix, WRITABLE_SUFFIXES)}; "
        f"name it with one of {', '.join(WRITABLE_SUFFIXES)}, or give --format"
    )


def _place_problems(path: Path, need: int) -> list[str]:
    if path.is_dir():
        return [f"{path}: is a folder; give a file's name"]
    folder = nearest_existing(path.parent)
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        return [f"{path}: {folder} is not a folder that may be written to"]
    free = shutil.disk_usage(folder).free
    if need > free:
        return [
            f"{path}: may need {need / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB free; "
            "make room, write elsewhere, or choose a smaller size"
        ]
    return []


def _memory(kind: Format, size: Size, channels: int, row: int, encoding: Encoding) -> int:
    pixels = size[0] * size[1]
    if kind.name == "JPEG":
        return pixels * (6 if channels > 1 else 2)  # Pillow keeps RGB in four bytes; and the file, before it is written
    if kind.name == "WebP":
        return pixels * (43 if encoding.lossless or channels in (2, 4) else 20)  # measured: libwebp 1.6, 4000x4000
    if kind.name == "TIFF":
        return tiff.memory(size, row // size[1], bool(encoding.tiled))
    return png.memory(size, row // size[1])
