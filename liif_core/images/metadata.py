"""Metadata, read from files and images: what is copied to the output, and what is not and why."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from attrs import evolve
from PIL import Image

from liif_core.images import exif, ifd, iptc, png_profiles, xmp
from liif_core.images.picture import Change, Metadata, Picture

_XMP_KEYWORD = "XML:com.adobe.xmp"
_SIGNED = "they are signed for the input's pixels"
_ONLY_FIRST = "only the first is read"
# Segments of a JPEG that are not copied, by their name and first bytes.
_SEGMENTS = (
    ("APP0", b"JFXX", Change("thumbnail", "it shows the input")),
    ("APP1", b"http://ns.adobe.com/xmp/extension/", Change("extended XMP", "it is not read")),
    ("APP2", b"MPF", Change("further pictures (MPF)", _ONLY_FIRST)),
    ("APP2", b"urn:iso:std:iso:ts:21496", Change("gain map", "it belongs to a second image, which is not read")),
    ("APP11", b"JP", Change("content credentials", _SIGNED)),
)
# Segments that are read elsewhere, or say how the pixels are stored.
_READ_SEGMENTS = (
    ("APP0", b"JFIF"),
    ("APP1", b"Exif\0\0"),
    ("APP1", b"http://ns.adobe.com/xap/1.0/\0"),
    ("APP2", b"ICC_PROFILE\0"),
    ("APP12", b"Ducky"),
    ("APP13", b"Photoshop 3.0\0"),
    ("APP14", b"Adobe"),
    ("COM", b""),
)
# Text of ImageMagick and of desktops that describes the input's file.
_BOUND_TEXT = ("thumb::", "png:", "jpeg:", "exif:", "tiff:")


def from_pillow(image: Image.Image, block: bytes | None = None, path: Path | None = None) -> tuple[Metadata, int]:
    """Metadata and orientation (1 to 8) of an image that Pillow has loaded; of a TIFF file use ``from_directory``.

    ``block`` is used in place of the EXIF block in ``image.info``. ``path`` is the image's file, of which a PNG has
    more than Pillow reads.
    """
    info = image.info
    text = dict(getattr(image, "text", {}))  # may follow a PNG's pixels
    profiles = png_profiles.profiles(info | text)
    packet = _bytes(_xmp(info) or text.pop(_XMP_KEYWORD, None)) or profiles.get("xmp")
    text.pop(_XMP_KEYWORD, None)
    if comment := _comment(image):
        text.setdefault("Comment", comment)
    page, dropped = _exif_page(stored_exif(info | text) if block is None else block)
    kept_exif, left_out = exif.cleaned(page)
    profile_texts = [key for key in text if key.lower().startswith(png_profiles.PREFIX)]
    bound = [Change(f"text {key}", "it describes the input's file") for key in text if _bound(key)]
    colors, other_chunks = png_profiles.color_chunks(path) if path is not None else ({}, [])
    records, resources = _iptc(image)
    records = records or profiles.get("iptc")
    no_unit: list[Change] = []
    dpi = _dpi(info)
    if dpi is None:
        dpi, no_unit = exif.dots_per_inch(page)
    found = Metadata(
        icc=info.get("icc_profile") or profiles.get("icc"),
        exif=kept_exif,
        xmp=packet,
        text={key: str(value) for key, value in text.items() if not _bound(key) and key not in profile_texts},
        dpi=dpi,
        iptc=iptc.cleaned(records),
        colors=colors or dict(getattr(image, "colors", {})) or png_profiles.from_info(info),
        dropped=(*dropped, *left_out, *no_unit, *_aspect(info), *bound, *other_chunks, *_segments(image), *resources),
    )
    if iptc.has_preview(records):
        found = evolve(found, dropped=(*found.dropped, Change("IPTC's preview", "it shows the input")))
    return _upright(found, page)


def orientation(image: Image.Image) -> int:
    """The orientation (1 to 8) of an image that Pillow has opened; of a TIFF use ``from_directory``."""
    profiles = png_profiles.profiles(image.info)
    packet = _bytes(_xmp(image.info)) or profiles.get("xmp")
    return _orientation(_exif_page(stored_exif(image.info))[0], packet)


def stored_exif(info: Mapping[Any, Any]) -> bytes | None:
    """The EXIF block in ``image.info``, or in the text in which old programs kept it in a PNG; maybe with a prefix."""
    block = info.get("exif") or png_profiles.profiles(info).get("exif")
    return block if isinstance(block, bytes) else None


def from_directory(page: ifd.Directory) -> tuple[Metadata, int]:
    """Metadata and orientation (1 to 8) of a TIFF page."""
    kept, dropped = exif.cleaned(page)
    dpi, no_unit = exif.dots_per_inch(page)
    resources = iptc.from_resources(ifd.raw(page, iptc.TIFF_RESOURCES) or b"")
    found = Metadata(
        icc=ifd.raw(page, exif.ICC) or None,
        exif=kept,
        xmp=ifd.raw(page, exif.XMP) or None,
        dpi=dpi,
        iptc=iptc.from_tags(page),
        dropped=(*dropped, *no_unit, *_resources(resources)),
    )
    return _upright(found, page)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (h, w, ...) with EXIF ``orientation`` (1 to 8) applied."""
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    down, across = ((1, 1), (1, -1), (-1, -1), (-1, 1), (1, 1), (1, -1), (-1, -1), (-1, 1))[orientation - 1]
    return np.ascontiguousarray(pixels[::down, ::across])


def has_color_profile(metadata: Metadata) -> bool:
    """Whether the ICC profile is for RGB, so that gray pixels of a palette have to stay RGB."""
    return metadata.icc is not None and metadata.icc[16:20] == b"RGB "


def matching_icc(metadata: Metadata, channels: int) -> Metadata:
    """Metadata without its ICC profile if that is not for images of ``channels`` (1: gray, 3: RGB)."""
    wanted = b"GRAY" if channels == 1 else b"RGB "
    if metadata.icc is None or metadata.icc[16:20] == wanted:
        return metadata
    return evolve(metadata, icc=None, dropped=(*metadata.dropped, FOREIGN_ICC))


FOREIGN_ICC = Change("ICC profile", "it is for other colors than the picture has")


def without_foreign_icc(picture: Picture) -> Picture:
    """The picture without its ICC profile if the profile is for other colors than the picture has."""
    return evolve(picture, metadata=matching_icc(picture.metadata, picture.color.shape[2]))


def _xmp(info: Mapping[Any, Any]) -> str | bytes | None:
    return info.get("xmp") or info.get(_XMP_KEYWORD) or None


def _bytes(packet: Any) -> bytes | None:
    return packet.encode() if isinstance(packet, str) else packet if isinstance(packet, bytes) else None


def _exif_page(data: bytes | None) -> tuple[ifd.Directory, list[Change]]:
    """The first directory of an EXIF block, empty where the block is broken or absent; and what of it is dropped."""
    if not data:
        return {}, []
    try:
        read = ifd.read_exif(data)
    except ValueError as problem:
        return {}, [Change("EXIF", f"it is broken ({problem})")]
    dropped = exif.cleaned({}, read.lost)[1]
    dropped += [Change("thumbnail", "it shows the input")] if read.thumbnail else []
    dropped += [Change("end of EXIF", "the block is cut off")] if read.cut_off else []
    return read.directory, dropped


def _orientation(page: ifd.Directory, packet: bytes | None) -> int:
    """The orientation that EXIF gives, or else XMP; 1 where neither does."""
    stated = ifd.numbers(page, exif.ORIENTATION)[:1] or [xmp.orientation(packet)]
    return stated[0] if stated[0] in range(1, 9) else 1


def _upright(found: Metadata, page: ifd.Directory) -> tuple[Metadata, int]:
    """Metadata as of the upright picture, and the orientation that is to be applied."""
    turn = _orientation(page, found.xmp)
    changed = [Change(f"orientation {turn}", "applied, the picture is upright")] if turn != 1 else []
    if found.xmp is not None:
        packet, more, dropped = xmp.upright(found.xmp, turn != 1)
        changed += [] if turn != 1 else more  # what was applied need not be said twice
        found = evolve(found, xmp=packet, dropped=(*found.dropped, *dropped))
    dropped_once = tuple(dict.fromkeys(found.dropped))
    return evolve(found, changed=(*changed, *found.changed), dropped=dropped_once), turn


def _comment(image: Image.Image) -> str:
    """The comments of a JPEG or GIF."""
    comments = [data for name, data in getattr(image, "applist", []) if name == "COM"] or [image.info.get("comment")]
    return "\n".join(_decoded(data) for data in comments if isinstance(data, bytes)).rstrip("\0")


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _bound(keyword: str) -> bool:
    return keyword.lower().startswith(_BOUND_TEXT)


def _iptc(image: Image.Image) -> tuple[bytes | None, list[Change]]:
    """IPTC of an image of Pillow, and what of Photoshop's resources is dropped."""
    resources = image.info.get("photoshop")
    if not isinstance(resources, dict):
        return None, []
    records = resources.get(iptc.RECORDS)
    return records if isinstance(records, bytes) else None, _resources(resources)


def _resources(resources: Mapping[int, Any]) -> list[Change]:
    others = ", ".join(f"0x{number:04X}" for number in iptc.other_resources(resources))
    return [Change(f"Photoshop's resources {others}", "they are the input's own")] if others else []


def _segments(image: Image.Image) -> list[Change]:
    """The segments of a JPEG that are not copied."""
    dropped = []
    for name, data in getattr(image, "applist", []):
        known = [change for segment, start, change in _SEGMENTS if name == segment and data.startswith(start)]
        if known:
            dropped.append(known[0])
        elif (name, data[:4]) == ("APP0", b"JFIF"):
            if len(data) >= 14 and data[12] * data[13]:
                dropped.append(Change("thumbnail", "it shows the input"))
        elif not any(name == segment and data.startswith(start) for segment, start in _READ_SEGMENTS):
            dropped.append(Change(f"segment {name}", "its meaning is not known"))
    return dropped


def _aspect(info: Mapping[Any, Any]) -> list[Change]:
    """What is said of a resolution that only states how wide pixels are."""
    sides = info.get("aspect") or (info.get("jfif_density") if info.get("jfif_unit") == 0 else None)
    if not sides or sides[0] == sides[1]:
        return []
    return [Change(f"pixel aspect ratio {sides[0]}:{sides[1]}", "only resolutions are kept")]


def _dpi(info: Mapping[Any, Any]) -> tuple[float, float] | None:
    if info.get("dpi") == (1, 1):  # Pillow's value for a TIFF that says nothing
        return None
    try:
        across, down = (float(value) for value in info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return exif.plausible(across, down)
