"""What each format can hold of metadata, what an output gets of it, and the account of what was kept, changed, dropped.

``KINDS`` is the one table of this; the documentation is made from it too.
"""

import struct
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import evolve, frozen

from liif_core.images import descriptions, exif, ifd, xmp
from liif_core.images.metadata import matching_icc
from liif_core.images.picture import Change, Depth, Metadata
from liif_core.sizes import Size

MOST_IN_JPEG = 65_000  # bytes of a block of metadata: it lives in one segment
_MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "TIFF": "image/tiff"}
FORMATS = tuple(_MEDIA_TYPES)  # that hold metadata, by their names in capitals


@frozen
class Kind:
    """A kind of metadata: the field of Metadata, its name, where it is read from, and where each format holds it."""

    field: str
    name: str
    read: str
    held: Mapping[str, str]  # by the format's name in capitals
    changes: str


KINDS = (
    Kind(
        "icc",
        "ICC profile",
        "every format; PNG text of ImageMagick",
        {"PNG": "`iCCP`", "JPEG": "APP2", "WEBP": "`ICCP`", "TIFF": "tag 34675"},
        "dropped if the colors were converted, or if it is for other colors than the output has",
    ),
    Kind(
        "colors",
        "color chunks of a PNG",
        "`cICP`, `mDCV`, `cLLI`, `gAMA`, `cHRM`, `sRGB`",
        {"PNG": "the same chunks"},
        "",
    ),
    Kind(
        "exif",
        "EXIF",
        "every format; PNG text of ImageMagick; blocks that are cut off or have a doubled prefix",
        {"PNG": "`eXIf`", "JPEG": "APP1", "WEBP": "`EXIF`", "TIFF": "tags"},
        "description, camera, software, date, artist, copyright, rating, the EXIF, GPS and interoperability "
        "directories; the orientation becomes 1 and the pixel size that of the output",
    ),
    Kind(
        "xmp",
        "XMP",
        "every format; PNG text of ImageMagick",
        {"PNG": "`iTXt`", "JPEG": "APP1", "WEBP": "`XMP `", "TIFF": "tag 700"},
        "the orientation becomes 1, sizes those of the output; gain maps, lists of items, motion photos, thumbnails "
        "and the description of the stored pixels are removed",
    ),
    Kind(
        "iptc",
        "IPTC",
        "JPEG (APP13), TIFF (tags 33723 and 34377), PNG text of ImageMagick",
        {"PNG": "text `Raw profile type iptc`", "JPEG": "APP13", "TIFF": "tag 33723"},
        "previews are removed",
    ),
    Kind(
        "dpi",
        "resolution",
        "every format, or EXIF",
        {"PNG": "`pHYs`", "JPEG": "JFIF", "WEBP": "EXIF", "TIFF": "tags 282, 283 and 296"},
        "unchanged by the scale",
    ),
    Kind(
        "text",
        "text",
        "PNG text; comments of JPEG and GIF",
        {"PNG": "`tEXt` or `iTXt`", "JPEG": "the comment"},
        "in a JPEG, one comment with all keywords; in WebP and TIFF, title, author, description and copyright become "
        "XMP if there is none",
    ),
)
# What is never copied, by the reason.
DROPPED = (
    ("embedded thumbnails and previews", "they show the input"),
    ("maker notes", "they hold positions in the original file"),
    ("SubjectArea, FocalPlaneXResolution and the like of EXIF and XMP", "they describe the input's pixels"),
    ("gain maps, depth maps, motion photos, all but the first picture of an MPO", "only the first picture is read"),
    ("content credentials (C2PA)", "they are signed for the input's pixels"),
    ("GeoTIFF's position, OME-XML of several planes", "they describe the input's raster"),
    ("segments, chunks and tags of unknown meaning", "they may no longer hold"),
)


@frozen
class Account:
    """What became of a file's metadata."""

    kept: tuple[str, ...]
    changed: tuple[Change, ...]
    dropped: tuple[Change, ...]

    @classmethod
    def of_all(cls, accounts: Iterable["Account"]) -> "Account":
        """One account of several pictures in a file."""
        parts = list(accounts)
        return cls(
            tuple(dict.fromkeys(what for part in parts for what in part.kept)),
            tuple(dict.fromkeys(change for part in parts for change in part.changed)),
            tuple(dict.fromkeys(change for part in parts for change in part.dropped)),
        )

    def line(self) -> str:
        """One line, without reasons; empty where there is nothing to say."""
        parts = [
            ("kept", self.kept),
            ("changed", dict.fromkeys(change.what for change in self.changed)),
            ("dropped", dict.fromkeys(change.what for change in self.dropped)),
        ]
        return "; ".join(f"{verb} {', '.join(whats)}" for verb, whats in parts if whats)

    def lines(self) -> list[str]:
        """A line for each part, with the reasons."""
        return [
            *(f"kept {what}" for what in self.kept),
            *(f"changed {change}" for change in self.changed),
            *(f"dropped {change}" for change in self.dropped),
        ]

    def after(self, text: str, verbose: bool) -> list[str]:
        """``text``, followed by the account: in the same line, or if ``verbose`` in lines of its own."""
        if verbose:
            return [text, *(f"  {line}" for line in self.lines())]
        return ["; ".join(filter(None, [text, self.line()]))]

    def as_json(self) -> dict[str, Any]:
        """The same for a JSON log."""
        return {
            "kept": list(self.kept),
            "changed": [{"what": change.what, "why": change.why} for change in self.changed],
            "dropped": [{"what": change.what, "why": change.why} for change in self.dropped],
        }


def account(metadata: Metadata) -> Account:
    """The account of metadata that ``fit`` has prepared."""
    kept = []
    for kind in KINDS:
        value = getattr(metadata, kind.field)
        if not value or (kind.field == "exif" and not exif.says_something(metadata)):
            continue
        if kind.field in ("text", "colors"):
            kept += [f"{'text' if kind.field == 'text' else 'chunk'} {name}" for name in value]
        elif kind.field == "dpi":
            kept.append("resolution {:.4g} x {:.4g} dpi".format(*value))
        else:
            kept.append(kind.name)
    return Account(tuple(kept), metadata.changed, metadata.dropped)


def fit(metadata: Metadata, format: str, channels: int, depth: Depth, size: Size) -> Metadata:
    """Metadata as a file of a format can hold it, for an image of ``size``, whose colors have 1 or 3 ``channels``.

    What is changed or dropped for that is added to ``changed`` and ``dropped``.
    """
    name, kind = format, format.upper()
    found = matching_icc(metadata, 3 if kind == "WEBP" else channels)  # WebP has no gray
    changed: list[Change] = []
    dropped: list[Change] = []
    found = _described(found, size, depth, changed, dropped)
    if found.xmp is not None:
        packet, corrected = xmp.for_size(found.xmp, size, _MEDIA_TYPES.get(kind, ""), found.whole)
        found, changed = evolve(found, xmp=packet), [*changed, *corrected]
    if kind != "PNG":
        found = _without_chunks(found, name, changed, dropped)
        found = _with_text_elsewhere(found, kind, changed)
    for part in KINDS:
        if getattr(found, part.field) and kind not in part.held:
            if part.field == "text":
                dropped += [Change(f"text {key}", f"{name} cannot hold it") for key in found.text]
            else:
                dropped.append(Change(part.name, f"{name} cannot hold it"))
            found = found.without(part.field)
    if kind == "JPEG":
        found = _fitting_jpeg(found, size, dropped)
    return evolve(
        found,
        changed=tuple(dict.fromkeys((*found.changed, *changed))),
        dropped=tuple(dict.fromkeys((*found.dropped, *dropped))),
    )


def jpeg_comment(text: Mapping[str, str]) -> bytes:
    """The comment of a JPEG that holds texts by keyword."""
    if set(text) == {"Comment"}:
        return text["Comment"].encode()
    return "\n".join(f"{keyword}: {words}" for keyword, words in text.items()).encode()


def _described(found: Metadata, size: Size, depth: Depth, changed: list[Change], dropped: list[Change]) -> Metadata:
    directory = exif.stored(found)
    stored = (ifd.raw(directory, exif.DESCRIPTION) or b"").rstrip(b"\0")
    if not stored:
        return found
    text = stored.decode("utf-8", "surrogateescape")
    new, change = descriptions.for_size(text, size, depth, found.whole)
    if change is None:
        return found
    del directory[exif.DESCRIPTION]
    if new is None:
        dropped.append(change)
    else:
        directory[exif.DESCRIPTION] = ifd.Entry.of(ifd.ASCII, new.encode("utf-8", "surrogateescape") + b"\0")
        changed.append(change)
    return evolve(found, exif=ifd.block(directory) if set(directory) - {exif.ORIENTATION} else None)


def _without_chunks(found: Metadata, name: str, changed: list[Change], dropped: list[Change]) -> Metadata:
    for kind, data in found.colors.items():
        what = f"chunk {kind}"
        if found.icc is not None and kind in ("gAMA", "cHRM", "sRGB"):
            changed.append(Change(what, "left out, the ICC profile stands for it"))
        elif data == _SRGB.get(kind, data if kind == "sRGB" else None):
            changed.append(Change(what, f"left out, a {name} without a profile is taken as sRGB all the same"))
        else:
            dropped.append(Change(what, f"{name} cannot hold it, and its colors are taken as sRGB"))
    return evolve(found, colors={})


_SRGB = {
    "gAMA": struct.pack(">I", 45455),
    "cHRM": struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000),
    "cICP": bytes([1, 13, 0, 1]),
}


def _with_text_elsewhere(found: Metadata, kind: str, changed: list[Change]) -> Metadata:
    """Texts of a PNG where another format has a place for them."""
    if kind == "JPEG":
        others = [key for key in found.text if key != "Comment"]
        changed += [Change(f"text {key}", "now in the comment") for key in others]
        return found
    if found.xmp is None and kind in ("WEBP", "TIFF"):
        packet, taken = xmp.from_text(found.text)
        changed += [Change(f"text {key}", "now in XMP") for key in found.text if key in taken]
        rest = {key: words for key, words in found.text.items() if key not in taken}
        return evolve(found, xmp=packet, text=rest)
    return found


def _fitting_jpeg(found: Metadata, size: Size, dropped: list[Change]) -> Metadata:
    """Metadata without what is too long for a JPEG."""
    blocks = {
        "exif": exif.block(found, size),
        "xmp": found.xmp,
        "iptc": found.iptc,
        "text": jpeg_comment(found.text),
    }
    for name, data in blocks.items():
        if data and len(data) > MOST_IN_JPEG:
            what = {"exif": "EXIF", "xmp": "XMP", "iptc": "IPTC", "text": "comment"}[name]
            dropped.append(Change(what, "it is too long for a JPEG"))
            found = found.without(name)
    return found
