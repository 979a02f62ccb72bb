"""Metadata: read from files and images, and prepared for the files that are written."""

import io
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from attrs import evolve
from PIL import Image

from liif_core.images import ifd
from liif_core.images.picture import Metadata, Picture
from liif_core.sizes import Size

ORIENTATION = 0x0112
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 0x011A, 0x011B, 0x0128
XMP, _ICC = 0x02BC, 0x8773
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:=[\"']|>))(\d)")
_EXIF_PREFIX = b"Exif\0\0"
_EXIF_TEXTS = ("exif", "APP1")
_PIXEL_SIDES = (0xA002, 0xA003)  # EXIF: width and height of the image it describes
# Tags that describe the picture, not its storage: description, make, model, software, date, artist, copyright, rating,
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
# Maker notes, and the interoperability directory, hold positions in their original file.
_BOUND_TO_FILE = (0x927C, 0xA005)


def from_pillow(image: Image.Image, exif: bytes | None = None) -> tuple[Metadata, int]:
    """Metadata and orientation (1 to 8) of an image that Pillow has loaded; of a TIFF file use ``from_directory``.

    ``exif`` is used in place of the EXIF block in ``image.info``.
    """
    info = image.info
    text = dict(getattr(image, "text", {}))
    packet = text.pop("XML:com.adobe.xmp", None)
    comment = info.get("comment")
    if isinstance(comment, bytes) and comment:
        text.setdefault("Comment", comment.decode("utf-8", "replace"))
    page = _exif_page(stored_exif(info | text) if exif is None else exif)  # text may follow a PNG's pixels
    xmp = _xmp(info) or packet
    found = Metadata(
        icc=info.get("icc_profile") or None,
        exif=_cleaned(page),
        xmp=xmp.encode() if isinstance(xmp, str) else xmp,
        text={key: str(value) for key, value in text.items() if not key.startswith("Raw profile type")},
        dpi=None if info.get("dpi") == (1, 1) else _dpi(info),  # Pillow's value for a TIFF that says nothing
    )
    return _upright_xmp(found), _orientation(page, found.xmp)


def orientation(image: Image.Image) -> int:
    """The orientation (1 to 8) of an image that Pillow has opened; of a TIFF use ``from_directory``."""
    xmp = _xmp(image.info)
    return _orientation(_exif_page(stored_exif(image.info)), xmp.encode() if isinstance(xmp, str) else xmp)


def stored_exif(info: Mapping[Any, Any]) -> bytes | None:
    """The EXIF block in ``image.info``, or in the text in which old programs kept it in a PNG; maybe with a prefix."""
    block = info.get("exif")
    for name in _EXIF_TEXTS:
        text = info.get(f"Raw profile type {name}")
        if not block and isinstance(text, str):
            try:
                block = bytes.fromhex("".join(text.split("\n")[3:]))
            except ValueError:
                continue
    return block if isinstance(block, bytes) else None


def from_directory(page: ifd.Directory) -> tuple[Metadata, int]:
    """Metadata and orientation (1 to 8) of a TIFF page."""
    resolution = [_ratio(ifd.numbers(page, tag)) for tag in (_X_RESOLUTION, _Y_RESOLUTION)]
    inches = {2: 1.0, 3: 2.54}.get(ifd.numbers(page, _RESOLUTION_UNIT, [2])[0])
    found = Metadata(
        icc=ifd.raw(page, _ICC) or None,
        exif=_cleaned(page),
        xmp=ifd.raw(page, XMP) or None,
        dpi=_dpi({"dpi": [value * inches for value in resolution]} if inches else {}),
    )
    return _upright_xmp(found), _orientation(page, found.xmp)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (h, w, ...) with EXIF ``orientation`` (1 to 8) applied."""
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    down, across = ((1, 1), (1, -1), (-1, -1), (-1, 1), (1, 1), (1, -1), (-1, -1), (-1, 1))[orientation - 1]
    return np.ascontiguousarray(pixels[::down, ::across])


def matching_icc(metadata: Metadata, channels: int) -> Metadata:
    """Metadata without its ICC profile if that is not for images of ``channels`` (1: gray, 3: RGB)."""
    wanted = b"GRAY" if channels == 1 else b"RGB "
    return metadata if metadata.icc is None or metadata.icc[16:20] == wanted else evolve(metadata, icc=None)


def without_foreign_icc(picture: Picture) -> Picture:
    """The picture without its ICC profile, and with a note, if the profile is for other colors than the picture has."""
    kept, notes = own_icc(picture.metadata, picture.color.shape[2])
    return evolve(picture, metadata=kept, notes=(*picture.notes, *notes)) if notes else picture


def own_icc(metadata: Metadata, channels: int) -> tuple[Metadata, tuple[str, ...]]:
    """``matching_icc``, and a note if the profile was left out."""
    kept = matching_icc(metadata, channels)
    left_out = kept.icc != metadata.icc
    return kept, ("its ICC profile is for other colors than it has, and was left out",) if left_out else ()


def exif_directory(metadata: Metadata, size: Size) -> ifd.Directory:
    """The EXIF of an output of ``size``, with the resolution, which a TIFF keeps in the same directory."""
    directory = ifd.read_directories(io.BytesIO(metadata.exif))[0] if metadata.exif else {}
    details = directory.get(ifd.EXIF)
    for tag, side in zip(_PIXEL_SIDES, reversed(size)):
        if isinstance(details, dict) and tag in details:
            details[tag] = ifd.Entry.of(ifd.LONG, [side])
    if metadata.dpi:
        for tag, value in zip((_X_RESOLUTION, _Y_RESOLUTION), metadata.dpi):
            directory[tag] = ifd.Entry.of(ifd.RATIONAL, [round(value * 10_000), 10_000])
        directory[_RESOLUTION_UNIT] = ifd.Entry.of(ifd.SHORT, [2])
    return directory


def exif_block(metadata: Metadata, size: Size) -> bytes | None:
    """The EXIF of an output of ``size`` as a TIFF structure without prefix, or None if it is empty."""
    directory = exif_directory(metadata, size)
    return ifd.block(directory) if directory else None


def _xmp(info: Mapping[Any, Any]) -> str | bytes | None:
    return info.get("xmp") or info.get("XML:com.adobe.xmp") or None


def _exif_page(data: bytes | None) -> ifd.Directory:
    """The first directory of an EXIF block; empty where the block is broken or absent."""
    while data and data.startswith(_EXIF_PREFIX):  # some programs write it twice
        data = data[len(_EXIF_PREFIX) :]
    try:
        return ifd.read_first(io.BytesIO(data or b""))
    except ValueError:
        return {}


def _orientation(page: ifd.Directory, xmp: bytes | None) -> int:
    """The orientation that EXIF gives, or else XMP; 1 where neither does."""
    stated = ifd.numbers(page, ORIENTATION)
    if not stated and (match := _XMP_ORIENTATION.search(xmp or b"")):
        stated = [int(match[2])]
    return stated[0] if stated and stated[0] in range(1, 9) else 1


def _cleaned(page: ifd.Directory) -> bytes | None:
    kept = {tag: entry for tag, entry in page.items() if tag in _KEPT}
    details = kept.get(ifd.EXIF)
    if isinstance(details, dict):
        kept[ifd.EXIF] = {tag: entry for tag, entry in details.items() if tag not in _BOUND_TO_FILE}
    return ifd.block(kept | {ORIENTATION: ifd.Entry.of(ifd.SHORT, [1])}) if kept else None


def _upright_xmp(metadata: Metadata) -> Metadata:
    if metadata.xmp is None:
        return metadata
    return evolve(metadata, xmp=_XMP_ORIENTATION.sub(rb"\g<1>1", metadata.xmp))


def _ratio(pair: list[int]) -> float:
    return pair[0] / pair[1] if len(pair) == 2 and pair[1] else math.nan


def _dpi(info: Mapping[Any, Any]) -> tuple[float, float] | None:
    try:
        across, down = (float(value) for value in info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 0 < across < 1e5 and 0 < down < 1e5 else None
