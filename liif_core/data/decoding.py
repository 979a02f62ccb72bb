"""Image files as uint8 arrays for training and evaluation: 8-bit gray or RGB; others are refused by name."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from attrs import Factory, evolve, frozen
from PIL import Image
from tqdm import tqdm

from liif_core.errors import UserError
from liif_core.images import MAX_PIXELS, READABLE_SUFFIXES, UNREAD_SUFFIXES, Header, TooManyPixels, read_image
from liif_core.sizes import Size

CHANNELS = (1, 3)  # gray, RGB
_MODES = ("1", "L", "P", "RGB", "LA", "PA", "RGBA")  # of those with alpha, opaque images only
_AT_ONCE = 8  # images decoded before the next are begun, which bounds what is in memory
_NOT_IMAGES = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PDF", "WMF")  # other formats whose suffixes Pillow lists


Stamp = tuple[int, int]  # when a file was changed last, in ns, and its bytes


@frozen
class Decoded:
    """What decoding found in image files; those that could not be decoded are in ``problems`` only."""

    sizes: dict[Path, Size] = Factory(dict)
    digests: dict[Path, str] = Factory(dict)  # sha256 of the pixels
    held: Mapping[Path, np.ndarray] = Factory(dict)  # (h, w, channels) uint8
    stamps: dict[Path, Stamp] = Factory(dict)
    problems: dict[Path, tuple[str, ...]] = Factory(dict)


def image_suffixes() -> set[str]:
    """The suffixes, in lower case with their dot, of files that are looked at as images.

    Beside those of formats that are read, these are of further formats, whose files are refused by name rather than
    passed over.
    """
    kinds = Image.registered_extensions()
    return {
        *READABLE_SUFFIXES,
        *UNREAD_SUFFIXES,
        *(suffix for suffix, kind in kinds.items() if kind not in _NOT_IMAGES),
    }


def decode(path: Path, channels: int) -> np.ndarray:
    """(h, w, channels) uint8, upright; channels is 1 (gray) or 3 (RGB).

    Black and white, gray, RGB and palette images are converted to that; gray is the luma of ITU-R 601. Alpha that is
    opaque everywhere is dropped. Raises UserError for a file that ``read_image`` refuses, for one that has
    transparency, and for one of another mode.
    """
    try:
        picture = read_image(path, MAX_PIXELS, _check)
    except TooManyPixels as error:
        found = error.problems[0].partition(" that are read")[0]
        raise UserError(f"{found} that images for training may have; cut it into parts") from None
    if picture.alpha is not None and picture.alpha.min() < 255:
        raise UserError(
            f"{path}: transparent (mode {picture.mode}), expected 8-bit gray or RGB; put it on a background"
        )
    color = picture.color
    if color.shape[2] == channels:
        return color
    if channels == 3:
        return np.repeat(color, 3, axis=2)
    return np.asarray(Image.fromarray(color).convert("L"))[..., None]


def _check(header: Header) -> None:
    """Raises UserError where an image is not one for training and evaluation."""
    if header.depth != "uint8" or header.mode not in _MODES:
        raise UserError(f"{header.path}: mode {header.mode}, expected 8-bit gray or RGB; convert it, or leave it out")


def stamp(path: Path) -> Stamp:
    """What shows that a file was changed or replaced; (0, 0) for one that is not there."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


def sha256(pixels: np.ndarray) -> str:
    """SHA-256 of an image's pixels."""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()


def decode_in_memory(files: Sequence[Path], channels: int, budget: float) -> Decoded:
    """Decode every file once, several at a time; keep arrays, in order, while they fit in ``budget`` bytes."""
    held: dict[Path, np.ndarray] = {}

    def keep(path: Path, pixels: np.ndarray) -> None:
        nonlocal budget
        if pixels.nbytes <= budget and path not in held:
            held[path] = pixels
            budget -= pixels.nbytes

    return evolve(decode_all(files, channels, keep), held=held)


def decode_all(files: Sequence[Path], channels: int, keep: Callable[[Path, np.ndarray], None]) -> Decoded:
    """Decode every file once, several at a time; ``keep`` is called with the pixels of each, in order."""
    found = Decoded()

    def look(path: Path) -> tuple[np.ndarray, str, Stamp] | UserError:
        try:
            before = stamp(path)
            pixels = decode(path, channels)
        except UserError as error:
            return error
        return pixels, sha256(pixels), before

    with (
        ThreadPoolExecutor(min(_AT_ONCE, os.cpu_count() or 1)) as pool,
        tqdm(total=len(files), desc="reading images", unit="image", delay=2, leave=False, disable=None) as bar,
    ):
        for first in range(0, len(files), _AT_ONCE):
            part = files[first : first + _AT_ONCE]
            for path, result in zip(part, pool.map(look, part)):
                bar.update()
                if isinstance(result, UserError):
                    found.problems[path] = result.problems
                    continue
                pixels, found.digests[path], found.stamps[path] = result
                found.sizes[path] = pixels.shape[0], pixels.shape[1]
                keep(path, pixels)
    return found
