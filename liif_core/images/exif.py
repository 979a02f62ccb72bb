"""EXIF and the tags of a TIFF: what is copied of them, and what is not and why.

Sources: TIFF 6.0 (Adobe, 1992); Exif 3.0 (CIPA, 2023).
"""

import io
import math

from liif_core.images import ifd
from liif_core.images.picture import Change, Metadata
from liif_core.sizes import Size

ORIENTATION, DESCRIPTION = 0x0112, 0x010E
XMP, ICC = 0x02BC, 0x8773
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 0x011A, 0x011B, 0x0128
_PIXEL_SIDES = (0xA002, 0xA003)  # EXIF: width and height of the image it describes
# Tags that describe the picture, not its storage: description, make, model, software, date, artist, host, white point
# and primaries, copyright, rating, Windows' title to subject, the EXIF and GPS directories.
_KEPT = {
    DESCRIPTION,
    0x010F,
    0x0110,
    0x0131,
    0x0132,
    0x013B,
    0x013C,
    0x013E,
    0x013F,
    0x8298,
    0x4746,
    0x4749,
    *range(0x9C9B, 0x9CA0),
    ifd.EXIF,
    ifd.GPS,
}
PROCESSING_SOFTWARE = 0x000B  # in which outputs of liif-core say how they were made
_NAMES = {
    PROCESSING_SOFTWARE: Change("ProcessingSoftware", "the picture is processed again"),
    0x014A: Change("further images of a TIFF (SubIFDs)", "only the first is read"),
    0x927C: Change("maker notes", "they hold positions in the original file"),
    0x935C: Change("Photoshop's layers", "they hold the input's pixels"),
    0xA410: Change("GDAL's metadata", "it describes the input's raster"),
    0xC4A5: Change("PrintIM", "its meaning is not published"),
    0x012D: Change("transfer function", "it has an entry for each value of the input's samples"),
    ifd.EXIF: Change("EXIF directory", "it cannot be read"),
    ifd.GPS: Change("GPS", "it cannot be read"),
    ifd.INTEROPERABILITY: Change("EXIF interoperability", "it cannot be read"),
    **{
        tag: Change("GeoTIFF's position", "it is that of the input's pixels")
        for tag in (0x830E, 0x8480, 0x8482, 0x85D8, 0x87AF, 0x87B0, 0x87B1)
    },
    **{
        tag: Change("EXIF's description of the pixels", "it is that of the input's")
        for tag in (0x9102, 0x9214, 0xA20E, 0xA20F, 0xA210, 0xA214)  # compressed size, areas, pixels of the sensor
    },
}
# Tags of a TIFF that say how its pixels are stored, or that have places of their own here.
_STORAGE = {
    *range(0x00FE, 0x010E),
    *range(0x0111, 0x012D),
    0x013D,
    *range(0x0140, 0x014A),
    *range(0x014C, 0x0161),
    *range(0x0200, 0x0215),
    XMP,
    0x80E3,
    0x80E4,
    0x80E5,
    0x80E6,
    0x83BB,
    0x8649,
    ICC,
    0xA481,
    0xC5F2,
}
_INTEROPERABILITY_KEPT = (0x0001, 0x0002)  # index (R98: sRGB, R03: Adobe RGB) and version


def cleaned(page: ifd.Directory, lost: tuple[int, ...] = ()) -> tuple[bytes | None, list[Change]]:
    """What is copied of a directory, as an EXIF block with orientation 1, and what is dropped.

    ``lost`` are tags that could not be read.
    """
    kept = {tag: entry for tag, entry in page.items() if tag in _KEPT}
    left_out = [tag for tag in page if tag not in _KEPT | _STORAGE]
    details = kept.get(ifd.EXIF)
    if isinstance(details, dict):
        left_out += [tag for tag in details if tag in _NAMES and tag != ifd.INTEROPERABILITY]
        inner = {tag: entry for tag, entry in details.items() if tag not in left_out}
        roots = inner.pop(ifd.INTEROPERABILITY, None)
        if isinstance(roots, dict):
            index = {tag: entry for tag, entry in roots.items() if tag in _INTEROPERABILITY_KEPT}
            inner |= {ifd.INTEROPERABILITY: index} if index else {}
        kept[ifd.EXIF] = inner
    dropped = [_NAMES.get(tag) or Change(f"tag {tag} (0x{tag:04X})", "its meaning is not known") for tag in left_out]
    dropped += [
        Change(_NAMES[tag].what if tag in _NAMES else f"EXIF tag 0x{tag:04X}", "it lies beyond the end of its block")
        for tag in lost
    ]
    kept = {tag: entry for tag, entry in kept.items() if not isinstance(entry, dict) or entry}
    block = ifd.block(kept | {ORIENTATION: ifd.Entry.of(ifd.SHORT, [1])}) if kept else None
    return block, list(dict.fromkeys(dropped))


def dots_per_inch(page: ifd.Directory) -> tuple[tuple[float, float] | None, list[Change]]:
    """The resolution that a directory states, and what of it is dropped."""
    across, down = (_ratio(ifd.numbers(page, tag)) for tag in (_X_RESOLUTION, _Y_RESOLUTION))
    unit = ifd.numbers(page, _RESOLUTION_UNIT, [2])
    inches = {2: 1.0, 3: 2.54}.get(unit[0] if unit else 2)
    if inches is None:
        one = (across, down) in ((1, 1), (72, 72)) or math.isnan(across)
        return None, [] if one else [Change("resolution", "it has no unit")]
    return plausible(across * inches, down * inches), []


def plausible(across: float, down: float) -> tuple[float, float] | None:
    """A resolution, or None where it cannot be one."""
    return (across, down) if 0 < across < 1e5 and 0 < down < 1e5 else None


def directory_for(metadata: Metadata, size: Size) -> ifd.Directory:
    """The EXIF of an output of ``size``, with the resolution, which a TIFF keeps in the same directory."""
    directory = stored(metadata)
    details = directory.get(ifd.EXIF)
    for tag, side in zip(_PIXEL_SIDES, reversed(size)):
        if isinstance(details, dict) and tag in details:
            details[tag] = ifd.Entry.of(ifd.LONG, [side])
    if metadata.dpi:
        for tag, value in zip((_X_RESOLUTION, _Y_RESOLUTION), metadata.dpi):
            directory[tag] = ifd.Entry.of(ifd.RATIONAL, [round(value * 10_000), 10_000])
        directory[_RESOLUTION_UNIT] = ifd.Entry.of(ifd.SHORT, [2])
    return directory


def stored(metadata: Metadata) -> ifd.Directory:
    """The EXIF that metadata holds, as a directory."""
    return ifd.read_directories(io.BytesIO(metadata.exif))[0] if metadata.exif else {}


def says_something(metadata: Metadata) -> bool:
    """Whether EXIF has more than what every output has."""
    return bool(set(stored(metadata)) - {ORIENTATION, PROCESSING_SOFTWARE})


def block(metadata: Metadata, size: Size) -> bytes | None:
    """The EXIF of an output of ``size`` as a TIFF structure without prefix, or None if it is empty."""
    directory = directory_for(metadata, size)
    return ifd.block(directory) if directory else None


def _ratio(pair: list[int]) -> float:
    return pair[0] / pair[1] if len(pair) == 2 and pair[1] else math.nan
