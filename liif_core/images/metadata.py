"""Metadata on its way from the file read to the file written."""

import io
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from attrs import evolve
from PIL import Image

from liif_core.images import ifd
from liif_core.images.picture import Metadata
from liif_core.sizes import Size

ORIENTATION = 0x0112
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 0x011A, 0x011B, 0x0128
_XMP, _ICC = 0x02BC, 0x8773
_PIXEL_SIDES = (0xA002, 0xA003)  # EXIF: width and height of the image it describes
# What describes the picture, not its storage: description, make, model, software, date, artist, copyright, rating,
# Windows' title to subject, the EXIF and GPS directories.
_KEPT = {
    0x010E,
    0x010F,
    0x0110,
    0x0131,
    0x0132,
    0x013B,
    0x8298,
    0x4746,
    0x4749,
    *range(0x9C9B, 0x9CA0),
    ifd.EXIF,
    ifd.GPS,
}
# Maker notes point into the file they came from, and so does the interoperability directory.
_BOUND_TO_FILE = (0x927C, 0xA005)


def from_pillow(image: Image.Image) -> tuple[Metadata, int]:
    """Metadata and EXIF orientation (1 to 8) of an image that Pillow has loaded; of a TIFF use ``from_directory``."""
    info = image.info
    text = dict(getattr(image, "text", {}))
    packet = text.pop("XML:com.adobe.xmp", None)
    xmp = info.get("xmp") or packet
    comment = info.get("comment")
    if isinstance(comment, bytes) and comment:
        text.setdefault("Comment", comment.decode("utf-8", "replace"))
    exif, turn = _exif(info.get("exif"))
    found = Metadata(
        icc=info.get("icc_profile") or None,
        exif=exif,
        xmp=xmp.encode() if isinstance(xmp, str) else xmp,
        text={key: str(value) for key, value in text.items() if not key.startswith("Raw profile type")},
        dpi=_dpi(info),
    )
    return _upright_xmp(found), turn


def orientation(image: Image.Image) -> int:
    """The EXIF orientation (1 to 8) of an image that Pillow has opened; of a TIFF use ``from_directory``."""
    return _exif(image.info.get("exif"))[1]


def from_directory(page: ifd.Directory) -> tuple[Metadata, int]:
    """Metadata and orientation (1 to 8) of a TIFF page."""
    resolution = [_ratio(ifd.numbers(page, tag)) for tag in (_X_RESOLUTION, _Y_RESOLUTION)]
    inches = {2: 1.0, 3: 2.54}.get(ifd.numbers(page, _RESOLUTION_UNIT, [2])[0])
    found = Metadata(
        icc=ifd.raw(page, _ICC) or None,
        exif=_cleaned(page),
        xmp=ifd.raw(page, _XMP) or None,
        dpi=_dpi({"dpi": [value * inches for value in resolution]} if inches else {}),
    )
    return _upright_xmp(found), _orientation(page)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (h, w, ...) turned the way EXIF ``orientation`` (1 to 8) says they are to be seen."""
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    down, across = ((1, 1), (1, -1), (-1, -1), (-1, 1), (1, 1), (1, -1), (-1, -1), (-1, 1))[orientation - 1]
    return np.ascontiguousarray(pixels[::down, ::across])


def matching_icc(metadata: Metadata, channels: int) -> Metadata:
    """Without its ICC profile, if that is made for other colors than the ``channels`` (1: gray, 3: RGB) given."""
    wanted = b"GRAY" if channels == 1 else b"RGB "
    return metadata if metadata.icc is None or metadata.icc[16:20] == wanted else evolve(metadata, icc=None)


def exif_directory(metadata: Metadata, size: Size) -> ifd.Directory:
    """The EXIF of an output of ``size``, resolution included: what a TIFF keeps in its own directory."""
    directory = ifd.read_directories(io.BytesIO(metadata.exif))[0] if metadata.exif else {}
    details = directory.get(ifd.EXIF, {})
    for tag, side in zip(_PIXEL_SIDES, reversed(size)):
        if tag in details:
            details[tag] = ifd.Entry.of(ifd.LONG, [side])
    if metadata.dpi:
        for tag, value in zip((_X_RESOLUTION, _Y_RESOLUTION), metadata.dpi):
            directory[tag] = ifd.Entry.of(ifd.RATIONAL, [round(value * 10_000), 10_000])
        directory[_RESOLUTION_UNIT] = ifd.Entry.of(ifd.SHORT, [2])
    return directory


def exif_block(metadata: Metadata, size: Size) -> bytes | None:
    """The EXIF of an output of ``size`` as a TIFF structure without prefix, or None where there is nothing to say."""
    directory = exif_directory(metadata, size)
    return ifd.block(directory) if directory else None


def _exif(data: bytes | None) -> tuple[bytes | None, int]:
    """EXIF that describes the picture, and its orientation; broken EXIF is treated as absent."""
    try:
        page = ifd.read_directories(io.BytesIO((data or b"").removeprefix(b"Exif\0\0")))[0]
    except ValueError:
        return None, 1
    return _cleaned(page), _orientation(page)


def _orientation(page: ifd.Directory) -> int:
    value = (ifd.numbers(page, ORIENTATION) or [1])[0]
    return value if value in range(1, 9) else 1


def _cleaned(page: ifd.Directory) -> bytes | None:
    kept = {tag: entry for tag, entry in page.items() if tag in _KEPT}
    if isinstance(kept.get(ifd.EXIF), dict):
        kept[ifd.EXIF] = {tag: entry for tag, entry in kept[ifd.EXIF].items() if tag not in _BOUND_TO_FILE}
    return ifd.block(kept | {ORIENTATION: ifd.Entry.of(ifd.SHORT, [1])}) if kept else None


def _upright_xmp(metadata: Metadata) -> Metadata:
    if metadata.xmp is None:
        return metadata
    turned = re.sub(rb"(tiff:Orientation(?:=[\"']|>))\d", rb"\g<1>1", metadata.xmp)
    return evolve(metadata, xmp=turned)


def _ratio(pair: list[int]) -> float:
    return pair[0] / pair[1] if len(pair) == 2 and pair[1] else math.nan


def _dpi(info: Mapping[str, Any]) -> tuple[float, float] | None:
    try:
        across, down = (float(value) for value in info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 0 < across < 1e5 and 0 < down < 1e5 else None
