"""IPTC: the data sets that news agencies and photographers' programs write, in JPEG, TIFF and PNG files.

Sources: IPTC-IIM 4.2 (IPTC, 2014); Photoshop File Formats Specification (Adobe, 2019), image resources.
"""

import struct
from collections.abc import Iterator, Mapping

from liif_core.images import ifd

TIFF_TAG, TIFF_RESOURCES = 0x83BB, 0x8649
RECORDS = 0x0404  # the image resource that holds IPTC
_PHOTOSHOP = b"Photoshop 3.0\0"
_PREVIEWS = ((2, 200), (2, 201), (2, 202), (7, 10), (8, 10))  # a small picture of the object, and its format
# Image resources that say how Photoshop stored or printed the file, and need no mention: resolution, print settings,
# the digest of IPTC, which is in the file without them, EXIF and XMP, which have places of their own.
_USUAL = (0x03ED, 0x0425, 0x0422, 0x0423, 0x0424, RECORDS)


def from_resources(data: bytes) -> dict[int, bytes]:
    """Photoshop's image resources by number; what follows a broken one is left out."""
    found: dict[int, bytes] = {}
    data = data.removeprefix(_PHOTOSHOP)
    at = 0
    while data[at : at + 4] == b"8BIM" and at + 12 <= len(data):
        number, name = struct.unpack_from(">HB", data, at + 4)
        at += 6 + (1 + name + 1) // 2 * 2
        if at + 4 > len(data):
            break
        (length,) = struct.unpack_from(">I", data, at)
        found.setdefault(number, data[at + 4 : at + 4 + length])
        at += 4 + length + length % 2
    return found


def from_profile(data: bytes) -> bytes | None:
    """IPTC in the data of a profile, which is bare, or among image resources."""
    return cleaned(data if data.startswith(b"\x1c") else from_resources(data).get(RECORDS))


def from_tags(page: ifd.Directory) -> bytes | None:
    """IPTC of a TIFF page. It may be stored as words, some of them with their bytes swapped."""
    data = ifd.raw(page, TIFF_TAG)
    if data and not data.startswith(b"\x1c") and data[3:4] == b"\x1c":
        data = b"".join(data[start : start + 4][::-1] for start in range(0, len(data), 4))
    return cleaned(data) or from_profile(ifd.raw(page, TIFF_RESOURCES) or b"")


def cleaned(data: bytes | None) -> bytes | None:
    """Data sets without previews and padding; None where there are none."""
    if not data or not data.startswith(b"\x1c"):
        return None
    return b"".join(whole for record, number, whole in _data_sets(data) if (record, number) not in _PREVIEWS) or None


def has_preview(data: bytes | None) -> bool:
    """Whether a preview is among data sets."""
    return any((record, number) in _PREVIEWS for record, number, _ in _data_sets(data or b""))


def other_resources(resources: Mapping[int, object]) -> list[int]:
    """The numbers of resources that hold something besides IPTC."""
    return sorted(number for number in resources if number not in _USUAL)


def resource(records: bytes) -> bytes:
    """The image resource that holds IPTC."""
    return b"8BIM" + struct.pack(">HHI", RECORDS, 0, len(records)) + records + b"\0" * (len(records) % 2)


def jpeg_segment(records: bytes) -> bytes:
    """The segment APP13 of a JPEG. Raises struct.error where it is too long."""
    data = _PHOTOSHOP + resource(records)
    return b"\xff\xed" + struct.pack(">H", len(data) + 2) + data


def _data_sets(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Record, number and all bytes of each data set."""
    at = 0
    while data[at : at + 1] == b"\x1c" and at + 5 <= len(data):
        record, number, length = struct.unpack_from(">BBH", data, at + 1)
        end = at + 5 + length
        if length & 0x8000:  # the length of the length
            end = at + 5 + (length & 0x7FFF)
            end += int.from_bytes(data[at + 5 : end], "big")
        if end > len(data):
            return
        yield record, number, data[at:end]
        at = end
