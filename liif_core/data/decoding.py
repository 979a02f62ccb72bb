"""Image files -> uint8 arrays, for training and evaluation: 8-bit gray or RGB, anything else refused by name.

Pixels are taken as stored: EXIF orientation is not applied, and 48-bit RGB is read as 24-bit, as Pillow does it.
"""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from attrs import Factory, frozen
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from liif_core.errors import UserError
from liif_core.sizes import Size

MODES = {1: "L", 3: "RGB"}  # channels -> Pillow's name
_AT_ONCE = 8  # images decoded before the next are begun, which bounds what is in memory
_NAMED_ONLY = ("BUFR", "GRIB", "HDF5", "MPEG", "WMF")  # formats that Pillow recognizes, but cannot decode


@frozen
class Decoded:
    """What was learned of image files; those that could not be decoded are in ``problems`` alone."""

    sizes: dict[Path, Size] = Factory(dict)
    digests: dict[Path, str] = Factory(dict)  # sha256 of the pixels
    held: dict[Path, np.ndarray] = Factory(dict)  # (h, w, channels) uint8
    problems: list[str] = Factory(list)


def endings() -> set[str]:
    """The file name endings, in lower case with their dot, of every format that Pillow can read."""
    kinds = Image.registered_extensions()
    return {ending for ending, kind in kinds.items() if kind in Image.OPEN and kind not in _NAMED_ONLY}


def decode(path: Path, channels: int) -> np.ndarray:
    """(h, w, channels) uint8; channels 1 (gray) or 3 (RGB).

    Black and white, gray, RGB and palette images are converted to that. Raises UserError for a file that cannot be
    read, holds several pictures, is transparent, or is of another mode.
    """
    try:
        with Image.open(path) as picture:
            picture.load()
            frames, mode, transparent = getattr(picture, "n_frames", 1), picture.mode, picture.has_transparency_data
            if frames == 1 and not transparent and mode in ("1", "L", "P", "RGB"):
                pixels = np.array(picture if mode == MODES[channels] else picture.convert(MODES[channels]))
                return pixels.reshape(*pixels.shape[:2], channels)
    except UnidentifiedImageError:
        raise UserError(f"{path}: not an image that Pillow can read; replace it, or leave it out") from None
    except Exception as error:  # a decoder at a damaged file raises anything: OSError, SyntaxError, struct.error, ...
        raise UserError(f"{path}: cannot be read ({error}); replace it, or leave it out") from error
    if frames > 1:
        raise UserError(f"{path}: holds {frames} pictures, expected one; save the one you mean as a file of its own")
    if transparent:
        raise UserError(f"{path}: transparent (mode {mode}), expected 8-bit gray or RGB; put it on a background")
    raise UserError(f"{path}: mode {mode}, expected 8-bit gray or RGB; convert it, or leave it out")


def decode_all(files: Sequence[Path], channels: int, budget: float) -> Decoded:
    """Decode every file once, several at a time; hold arrays, in order, while they fit in ``budget`` bytes."""
    found = Decoded()

    def look(path: Path) -> tuple[np.ndarray, str] | UserError:
        try:
            pixels = decode(path, channels)
        except UserError as error:
            return error
        return pixels, hashlib.sha256(pixels).hexdigest()

    with (
        ThreadPoolExecutor(min(_AT_ONCE, os.cpu_count() or 1)) as pool,
        tqdm(total=len(files), desc="looking at images", unit="image", delay=2, leave=False, disable=None) as bar,
    ):
        for first in range(0, len(files), _AT_ONCE):
            part = files[first : first + _AT_ONCE]
            for path, result in zip(part, pool.map(look, part)):
                bar.update()
                if isinstance(result, UserError):
                    found.problems.extend(result.problems)
                    continue
                pixels, found.digests[path] = result
                found.sizes[path] = pixels.shape[:2]
                if pixels.nbytes <= budget and path not in found.held:
                    found.held[path] = pixels
                    budget -= pixels.nbytes
    return found
