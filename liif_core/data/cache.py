"""A file of decoded images, which all processes of a machine map into memory, and later runs use again.

The system keeps one copy of its pages, whatever the number of processes, and drops them where memory is needed for
other things. The file has the pixels of all images, one after the other; then a description in JSON; then the
description's length and SHA-256, and what kind of file this is.
"""

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from liif_core import files
from liif_core.data.decoding import Decoded, decode_all, sha256, stamp
from liif_core.errors import UserError
from liif_core.locks import lock

_KIND = b"liif-core images 1"
_END = struct.Struct(f"<Q32s{len(_KIND)}s")
_ALIGN = 64  # bytes at which the pixels of an image begin


class Mapped(Mapping[Path, np.ndarray]):
    """The images of a cache file, (h, w, channels) uint8, read-only. Pickled, it is the name of the file."""

    def __init__(self, file: Path, places: Mapping[Path, tuple[int, tuple[int, int, int]]]):
        self.file, self.places = file, places
        self.pixels = np.memmap(file, np.uint8, "r")

    def __getitem__(self, path: Path) -> np.ndarray:
        start, shape = self.places[path]
        return np.ndarray(shape, np.uint8, self.pixels.data, start)

    def __iter__(self) -> Iterator[Path]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def __reduce__(self) -> tuple[Any, ...]:
        return Mapped, (self.file, self.places)


def decode_cached(paths: Sequence[Path], channels: int, folder: Path, check: bool = True) -> Decoded:
    """What ``decode_all`` finds in files, with all images in a file in ``folder``, which is made if need be.

    Files that changed since are decoded again. Of processes that do this at once, one decodes and the others wait for
    it. ``check`` says whether all pixels are compared with their SHA-256; a file that is damaged is made again.

    Raises UserError where the folder cannot be written to.
    """
    key = hashlib.sha256(json.dumps([channels, *map(os.fsdecode, paths)]).encode("utf-8", "surrogatepass"))
    file = folder / f"{key.hexdigest()[:16]}.images"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = os.open(file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise _unwritable(folder, error) from None
    try:
        lock(held)
        found = _read(file, paths, check)
        if found is None:
            _write(file, paths, channels)
            found = _read(file, paths, check=False)
    except OSError as error:
        raise _unwritable(folder, error) from None
    finally:
        os.close(held)
    if found is None:
        raise UserError(f"data.cache: images in {paths[0].parent} change while they are read; start again")
    return found


def _unwritable(folder: Path, error: OSError) -> UserError:
    return UserError(
        f"data.cache: {folder}: cannot be used: {error.strerror or error}; choose another folder, or leave it out"
    )


def _write(file: Path, paths: Sequence[Path], channels: int) -> None:
    places: dict[Path, tuple[int, tuple[int, ...]]] = {}
    with files.replacing(file) as temporary, open(temporary, "wb") as target:

        def keep(path: Path, pixels: np.ndarray) -> None:
            target.write(bytes(-target.tell() % _ALIGN))
            places[path] = target.tell(), pixels.shape
            target.write(np.ascontiguousarray(pixels).data)

        found = decode_all(paths, channels, keep)
        described = [
            {
                "path": os.fsdecode(path),
                "stamp": found.stamps[path],
                "sha256": found.digests[path],
                "start": places[path][0],
                "shape": places[path][1],
            }
            for path in found.sizes
        ]
        bad = [
            {"path": os.fsdecode(path), "stamp": stamp(path), "problems": lines}
            for path, lines in found.problems.items()
        ]
        text = json.dumps({"images": described, "bad": bad}).encode("utf-8", "surrogatepass")
        target.write(text + _END.pack(len(text), hashlib.sha256(text).digest(), _KIND))


def _read(file: Path, paths: Sequence[Path], check: bool) -> Decoded | None:
    """What a cache file holds; None where there is none, or it is damaged, or is not of these files as they are."""
    try:
        with open(file, "rb") as source:
            length = source.seek(0, os.SEEK_END)
            source.seek(max(0, length - _END.size))
            size, digest, kind = _END.unpack(source.read())
            source.seek(length - _END.size - size)
            text = source.read(size)
        if kind != _KIND or hashlib.sha256(text).digest() != digest:
            return None
        described = json.loads(text)
    except (OSError, ValueError, struct.error):
        return None
    images = {Path(image["path"]): image for image in described["images"]}
    bad = {Path(image["path"]): image for image in described["bad"]}
    known = {**images, **bad}
    if known.keys() != set(paths) or any(tuple(known[path]["stamp"]) != stamp(path) for path in known):
        return None
    held = Mapped(file, {path: (image["start"], tuple(image["shape"])) for path, image in images.items()})
    if check and any(sha256(held[path]) != image["sha256"] for path, image in images.items()):
        return None
    return Decoded(
        sizes={path: tuple(image["shape"][:2]) for path, image in images.items()},
        digests={path: image["sha256"] for path, image in images.items()},
        held=held,
        stamps={path: tuple(image["stamp"]) for path, image in images.items()},
        problems={path: tuple(image["problems"]) for path, image in bad.items()},
    )
