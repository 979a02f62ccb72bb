"""Directories of TIFF tags, in which TIFF files and EXIF blocks keep metadata.

Values are copied and not interpreted, so that they stay the same from file to file. Source: TIFF 6.0 (Adobe, 1992),
section 2, and the BigTIFF layout of the same structure with 64-bit counts and offsets.
"""

import io
import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, BinaryIO, Literal, Union

import numpy as np
from attrs import frozen

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, LONG8 = 1, 2, 3, 4, 5, 7, 16
EXIF, GPS, INTEROPERABILITY = 0x8769, 0x8825, 0xA005  # tags whose value is a further directory

# field type: (numpy type, how many of it make one value)
_TYPES = {
    1: ("u1", 1),
    2: ("u1", 1),
    3: ("u2", 1),
    4: ("u4", 1),
    5: ("u4", 2),
    6: ("i1", 1),
    7: ("u1", 1),
    8: ("i2", 1),
    9: ("i4", 1),
    10: ("i4", 2),
    11: ("f4", 1),
    12: ("f8", 1),
    13: ("u4", 1),
    16: ("u8", 1),
    17: ("i8", 1),
    18: ("u8", 1),
}
_MOST_PAGES = 10_000


@frozen(eq=False)
class Entry:
    """A tag's value: its field type, and its numbers as a flat little-endian array (two for each rational)."""

    type: int
    values: np.ndarray

    @classmethod
    def of(cls, type: int, values: Iterable[int] | bytes) -> "Entry":
        """From numbers, or from bytes for the types made of bytes."""
        kind = "<" + _TYPES[type][0]
        return cls(type, np.frombuffer(values, kind) if isinstance(values, bytes) else np.array(list(values), kind))


Directory = dict[int, Union[Entry, "Directory"]]


def numbers(directory: Directory, tag: int, default: Iterable[Any] = ()) -> list[Any]:
    """A tag's numbers as Python numbers, or ``default`` where the tag is absent or is a directory."""
    entry = directory.get(tag)
    return entry.values.tolist() if isinstance(entry, Entry) else list(default)


def raw(directory: Directory, tag: int) -> bytes | None:
    """A tag's bytes, or None where the tag is absent or is a directory."""
    entry = directory.get(tag)
    return entry.values.tobytes() if isinstance(entry, Entry) else None


def read_directories(stream: BinaryIO) -> list[Directory]:
    """The chain of directories of a TIFF file or EXIF block, with EXIF and GPS directories as values of their tags.

    Tags that cannot be read are left out. Raises ValueError where the chain itself is broken.
    """
    reader = _Reader(stream)
    pages: list[Directory] = []
    seen: set[int] = set()
    offset = reader.first
    while offset and len(pages) < _MOST_PAGES:
        if offset in seen:
            raise ValueError("the TIFF directory chain is cyclic")
        seen.add(offset)
        directory, offset = reader.page(offset)
        pages.append(directory)
    if not pages:
        raise ValueError("there is no TIFF directory")
    return pages


def read_at(stream: BinaryIO, offsets: Iterable[int]) -> list[Directory]:
    """The directories at these places of a TIFF file; those that are broken are left out."""
    reader = _Reader(stream)
    found = []
    for offset in offsets:
        with suppress(ValueError):
            found.append(reader.directory(offset)[0])
    return found


def read_first(stream: BinaryIO) -> Directory:
    """Only the first directory, which in an EXIF block describes the picture. Raises ValueError if it is broken.

    The pointer to the next directory is ignored.
    """
    reader = _Reader(stream)
    return reader.page(reader.first)[0]


@frozen(eq=False)
class ExifBlock:
    """The first directory of an EXIF block, the tags of it that cannot be read, whether there is a thumbnail, and
    whether a directory is cut off."""

    directory: Directory
    lost: tuple[int, ...]
    thumbnail: bool
    cut_off: bool


def read_exif(data: bytes) -> ExifBlock:
    """An EXIF block, with whatever prefix; of a block that is cut off, what is left. Raises ValueError if nothing is.

    Only the first directory describes the picture; a second one, if the pointer to it is right, holds a thumbnail.
    """
    starts = [data.find(start, 0, 64) for start in (b"II*\0", b"MM\0*")]  # some programs write the prefix twice
    start = min((place for place in starts if place >= 0), default=0)
    reader = _Reader(io.BytesIO(data[start:]), lenient=True)
    directory, following = reader.page(reader.first)
    if not directory:
        raise ValueError("there is no TIFF directory")
    lost, thumbnail, cut_off = tuple(reader.lost), False, reader.cut_off
    with suppress(ValueError):
        thumbnail = following != reader.first and not {0x0111, 0x0201}.isdisjoint(reader.directory(following)[0])
    return ExifBlock(directory, lost, thumbnail, cut_off)


class _Reader:
    def __init__(self, stream: BinaryIO, lenient: bool = False):
        self.stream = stream
        self.lenient = lenient  # a directory that is cut off is read as far as it goes
        self.cut_off = False
        self.lost: list[int] = []  # tags that cannot be read
        stream.seek(0)
        head = stream.read(16)
        self.order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        self.big = head[2:4] in (b"\x2b\0", b"\0\x2b")
        if not self.order or len(head) < (16 if self.big else 8):
            raise ValueError("not a TIFF structure")
        self.first = self.unpack("Q", head[8:16]) if self.big else self.unpack("I", head[4:8])
        self.length = stream.seek(0, 2)

    def unpack(self, layout: str, data: bytes) -> int:
        return int(struct.unpack(self.order + layout, data)[0])

    def at(self, offset: int, count: int) -> bytes:
        if offset + count > self.length:
            raise ValueError("the TIFF structure is cut off")
        self.stream.seek(offset)
        return self.stream.read(count)

    def page(self, offset: int) -> tuple[Directory, int]:
        """The directory at ``offset`` with its EXIF and GPS directories, and the offset of the next one (0: none)."""
        directory, following = self.directory(offset)
        self._follow(directory, EXIF, GPS)
        details = directory.get(EXIF)
        if isinstance(details, dict):
            self._follow(details, INTEROPERABILITY)
        return directory, following

    def _follow(self, directory: Directory, *tags: int) -> None:
        """Puts the directories that tags point to in their place."""
        for tag in tags:
            if tag in directory:
                try:
                    directory[tag], _ = self.directory(numbers(directory, tag)[0])
                except (ValueError, IndexError, TypeError):
                    del directory[tag]
                    self.lost.append(tag)

    def directory(self, offset: int) -> tuple[Directory, int]:
        """The directory at ``offset``, and the offset of the next one (0: none)."""
        count_size, entry_size, pointer = (8, 20, "Q") if self.big else (2, 12, "I")
        count = self.unpack("Q" if self.big else "H", self.at(offset, count_size))
        if self.lenient:
            there = (self.length - offset - count_size) // entry_size
            self.cut_off |= count > there
            count = min(count, there)
        table = self.at(offset + count_size, count * entry_size)
        directory: Directory = {}
        for start in range(0, len(table), entry_size):
            tag, kind, many = struct.unpack_from(f"{self.order}HH{pointer}", table, start)
            inline = table[start + 4 + struct.calcsize(pointer) : start + entry_size]
            if kind in _TYPES:
                name, per = _TYPES[kind]
                need = many * per * int(name[1])
                try:
                    data = inline[:need] if need <= len(inline) else self.at(self.unpack(pointer, inline), need)
                except ValueError:
                    self.lost.append(tag)
                    continue
                values = np.frombuffer(data, self.order + name).astype("<" + name)
                directory.setdefault(tag, Entry(kind, values))
        try:
            following = self.at(offset + count_size + len(table), struct.calcsize(pointer))
        except ValueError:
            return directory, 0  # some programs leave out the last pointer
        return directory, self.unpack(pointer, following)


def directory_bytes(directory: Directory, offset: int, big: bool = False, order: Literal["<", ">"] = "<") -> bytes:
    """A directory, followed by its values, for position ``offset`` of a file; the last of a chain.

    ``offset`` must be even. ``order`` is the byte order: "<" little-endian, ">" big-endian.
    """
    width, pointer, count = (8, order + "Q", order + "Q") if big else (4, order + "I", order + "H")
    table = bytearray(struct.pack(count, len(directory)))
    after = bytearray()
    end = offset + table_bytes(len(directory), big) + width
    for tag, entry in sorted(directory.items()):
        place = end + len(after)
        if isinstance(entry, dict):
            after += directory_bytes(entry, place, big, order)
            entry = Entry.of(LONG8 if big else LONG, [place])
        data = entry.values.astype(entry.values.dtype.newbyteorder(order)).tobytes()
        many = len(entry.values) // _TYPES[entry.type][1]
        table += struct.pack(f"{order}HH", tag, entry.type) + struct.pack(pointer, many)
        if len(data) <= width:
            table += data.ljust(width, b"\0")
        else:
            table += struct.pack(pointer, place)
            after += data
        after += b"\0" * (len(after) % 2)
    return bytes(table) + bytes(width) + bytes(after)


def table_bytes(entries: int, big: bool) -> int:
    """Length of the table that a directory begins with; the place of the next directory comes after it."""
    return 8 + 20 * entries if big else 2 + 12 * entries


def block(directory: Directory) -> bytes:
    """A directory as a complete little-endian TIFF structure: an EXIF block without its prefix."""
    return b"II*\0" + struct.pack("<I", 8) + directory_bytes(directory, 8)
