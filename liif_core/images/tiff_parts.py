"""TIFF decoded a strip or a tile at a time, to the pixels that decoding the whole file gives.

A strip or tile is put into a small TIFF of its own, with the tags that describe the pixels, which the usual decoders
decode. Strips that are not compressed and strips that are deflated are divided further. Source: TIFF 6.0 (Adobe, 1992).
"""

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO, Literal

from attrs import evolve, frozen
from PIL import Image

from liif_core.images import complaints, eight_bit, high_depth, ifd, jpeg_end, nodata
from liif_core.images.metadata import from_directory
from liif_core.images.picture import Metadata, Picture
from liif_core.images.source import Block, Pixels, band_rows, joined
from liif_core.sizes import Size

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_BIT_ORDER, _STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_COUNTS, _PLANAR = 266, 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS = 322, 323, 324, 325
_PLACES = (_STRIP_OFFSETS, _STRIP_COUNTS, _TILE_OFFSETS, _TILE_COUNTS)
# Besides sizes: bits, compression, colors, bit order, samples, planes, options of fax, predictor, palette, inks, extra
# samples, their format, JPEG's tables, and what YCbCr needs. The value of pixels without data. LERC's parameters.
_LAYOUT = (
    258,
    259,
    262,
    266,
    277,
    284,
    292,
    293,
    317,
    320,
    332,
    334,
    338,
    339,
    347,
    529,
    530,
    531,
    532,
    nodata.TAG,
    50674,
)
_NOT_COMPRESSED, _OLD_JPEG, _JPEG, _DEFLATE = 1, 6, 7, (8, 32946)
_YCBCR = 6
_LONG_STRIP = 1 << 21  # bytes of pixels; longer strips are divided where they can be


@frozen(eq=False)
class TiffParts:
    """The strips or tiles of a page of a TIFF; made by ``open_parts``.

    ``size`` is (height, width) as stored, and ``part`` the size of a strip or tile.
    """

    path: Path
    page: ifd.Directory
    order: Literal["<", ">"]  # "<" or ">"
    size: Size
    part: Size
    tiled: bool
    deep: bool
    streamed: bool  # one deflated strip, of which some rows are inflated at a time
    places: tuple[tuple[tuple[int, int], ...], ...]  # of each plane: of each part, its offset and length
    metadata: Metadata

    @property
    def across(self) -> int:
        """How many parts lie side by side."""
        return -(-self.size[1] // self.part[1])

    def part_bytes(self) -> int:
        """About the bytes that decoding one part takes."""
        height, width = self.part
        return int(height * width * (5 * bits_per_pixel(self.page) / 8 + 8))

    def read(self, rows: slice, columns: slice) -> Pixels:
        """A rectangle of the picture as stored."""
        height, width = self.part
        with self.path.open("rb") as file:
            bands = []
            for down in range(rows.start // height, -(-rows.stop // height)):
                band = []
                for right in range(columns.start // width, -(-columns.stop // width)):
                    color, alpha = self._decoded(file, down, right)
                    inside = (
                        slice(max(0, rows.start - down * height), rows.stop - down * height),
                        slice(max(0, columns.start - right * width), columns.stop - right * width),
                    )
                    # A copy, so that the part itself is freed.
                    band.append((color[inside].copy(), None if alpha is None else alpha[inside].copy()))
                bands.append(joined(band, 1))
        return joined(bands, 0)

    def blocks(self, row: int = 0) -> Iterator[Block]:
        """Whole rows, of strips: from the strip that has ``row`` on."""
        if self.streamed:
            yield from ((top, _pixels(self._decode(*part))) for top, part in self._inflated(row))
            return
        with self.path.open("rb") as file:
            for down in range(row // self.part[0], -(-self.size[0] // self.part[0])):
                yield down * self.part[0], self._decoded(file, down, 0)

    def first(self) -> Picture:
        """The first part, with the metadata and notes of the picture."""
        if self.streamed:
            return self._decode(*next(self._inflated(0))[1])
        with self.path.open("rb") as file:
            return self._decode(*self._segments(file, 0, 0))

    def _decoded(self, file: BinaryIO, down: int, right: int) -> Pixels:
        return _pixels(self._decode(*self._segments(file, down, right)))

    def _segments(self, file: BinaryIO, down: int, right: int) -> tuple[list[bytes], int]:
        """The data of a part, for each plane, and its height."""
        data = []
        for plane in self.places:
            offset, length = plane[down * self.across + right]
            file.seek(offset)
            data.append(file.read(length))
            if len(data[-1]) < length:
                raise ValueError("it ends before its pixels do")
        return data, self.part[0] if self.tiled else min(self.part[0], self.size[0] - down * self.part[0])

    def _decode(self, data: list[bytes], height: int) -> Picture:
        check_jpeg(self.page, data)
        small = io.BytesIO(self._small_tiff(data, height))
        if self.deep:
            page = ifd.read_first(small)
            small.seek(0)
            (color, alpha), notes = high_depth.decode_tiff(self.path, small, 0, page)
            kept = self.metadata if alpha is not None else evolve(self.metadata, nodata=None)
            return Picture(color, alpha, "", (0.0, 1.0), kept, tuple(notes))
        with Image.open(small, formats=("TIFF",)) as image:
            with complaints.printed() if complaints.prints(self.page) else nullcontext():
                image.load()
            return eight_bit.to_picture(image, self.metadata, 1)

    def _small_tiff(self, data: list[bytes], height: int) -> bytes:
        """A TIFF of one strip, or tile, of each plane."""
        directory: ifd.Directory = {tag: self.page[tag] for tag in _LAYOUT if tag in self.page}
        directory |= {tag: ifd.Entry.of(ifd.LONG, [n]) for tag, n in ((_WIDTH, self.part[1]), (_HEIGHT, height))}
        sides = {_TILE_WIDTH: self.part[1], _TILE_HEIGHT: height} if self.tiled else {_ROWS_PER_STRIP: height}
        directory |= {tag: ifd.Entry.of(ifd.LONG, [side]) for tag, side in sides.items()}
        places, lengths = _PLACES[2:] if self.tiled else _PLACES[:2]
        directory[lengths] = ifd.Entry.of(ifd.LONG, [len(part) for part in data])
        directory[places] = ifd.Entry.of(ifd.LONG, [0] * len(data))
        start = 8 + len(ifd.directory_bytes(directory, 8))
        starts = [start + sum(len(part) for part in data[:number]) for number in range(len(data))]
        directory[places] = ifd.Entry.of(ifd.LONG, starts)
        head = {"<": b"II", ">": b"MM"}[self.order] + struct.pack(f"{self.order}HI", 42, 8)
        return head + ifd.directory_bytes(directory, 8, order=self.order) + b"".join(data)

    def _inflated(self, row: int) -> Iterator[tuple[int, tuple[list[bytes], int]]]:
        """The first row, data and height of parts of the one strip, from the one that has ``row`` on."""
        offset, length = self.places[0][0]
        with self.path.open("rb") as file:
            file.seek(offset)
            inflate, waiting = zlib.decompressobj(), b""
            for top in range(0, self.size[0], self.part[0]):
                height = min(self.part[0], self.size[0] - top)
                wanted, rows = height * _row_length(self.page, self.size[1]), bytearray()
                while len(rows) < wanted:
                    if not waiting:
                        waiting = file.read(min(1 << 16, length))
                        length -= len(waiting)
                    more = inflate.decompress(waiting, wanted - len(rows))
                    if not more and not waiting:
                        raise ValueError("it ends before its pixels do")
                    rows, waiting = rows + more, inflate.unconsumed_tail
                if top + height > row:
                    yield top, ([zlib.compress(rows, 0)], height)


def check_jpeg(page: ifd.Directory, data: Iterable[bytes]) -> None:
    """Adds to what decoders say of a page that a strip or tile of it, compressed as JPEG, ends early.

    Pillow makes libtiff keep silent about that.
    """
    if ifd.numbers(page, _COMPRESSION, [_NOT_COMPRESSED])[0] == _JPEG and any(map(jpeg_end.ends_early, data)):
        complaints.say("JPEG data of a strip or tile end early")


def segments(path: Path, page: ifd.Directory) -> Iterator[bytes]:
    """The data of all strips or tiles of a page."""
    offsets, lengths = (ifd.numbers(page, tag) for tag in (_PLACES[2:] if _TILE_OFFSETS in page else _PLACES[:2]))
    with path.open("rb") as file:
        for offset, length in zip(offsets, lengths):
            file.seek(offset)
            yield file.read(length)


def open_parts(path: Path, page: ifd.Directory, deep: bool) -> TiffParts | None:
    """The strips or tiles of a page, which tifffile decodes if it is ``deep``.

    None where they are not as they should be, or cannot be decoded one by one.
    """
    with path.open("rb") as file:
        order: Literal["<", ">"] = "<" if file.read(2) == b"II" else ">"
    size = ifd.numbers(page, _HEIGHT)[0], ifd.numbers(page, _WIDTH)[0]
    tiled = _TILE_OFFSETS in page
    if tiled:
        part = ifd.numbers(page, _TILE_HEIGHT)[0], ifd.numbers(page, _TILE_WIDTH)[0]
    else:
        part = min(size[0], ifd.numbers(page, _ROWS_PER_STRIP, [size[0]])[0]), size[1]
    offsets, lengths = (ifd.numbers(page, tag) for tag in (_PLACES[2:] if tiled else _PLACES[:2]))
    compression = ifd.numbers(page, _COMPRESSION, [_NOT_COMPRESSED])[0]
    planes = ifd.numbers(page, _SAMPLES, [1])[0] if ifd.numbers(page, _PLANAR, [1])[0] == 2 else 1
    if not min(part) or compression == _OLD_JPEG:
        return None
    count = -(-size[0] // part[0]) * -(-size[1] // part[1])
    if not len(offsets) == len(lengths) == count * planes or not min(lengths):
        return None
    places = [list(zip(offsets, lengths))[plane * count : (plane + 1) * count] for plane in range(planes)]
    streamed = False
    bits = ifd.numbers(page, _BITS, [1])
    row = _row_length(page, size[1]) if planes == 1 else (size[1] * bits[0] + 7) // 8
    long = not tiled and part[0] * row > _LONG_STRIP and ifd.numbers(page, _PHOTOMETRIC, [1])[0] != _YCBCR
    if long and compression == _NOT_COMPRESSED and len(set(bits)) == 1:
        if any(length < row * min(part[0], size[0] - top) for plane in places
               for top, (_, length) in zip(range(0, size[0], part[0]), plane)):  # fmt: skip
            return None
        height = band_rows(row)
        if part[0] % height and len(places[0]) > 1:  # all parts but the last have the same height
            height = next(few for few in range(height, 0, -1) if part[0] % few == 0)
        places = [_divided(plane, size[0], part[0], height, row) for plane in places]
        part = height, size[1]
    elif long and compression in _DEFLATE and count == planes == 1 and ifd.numbers(page, _BIT_ORDER, [1])[0] == 1:
        streamed, part = True, (band_rows(row), size[1])
    return TiffParts(
        path, page, order, size, part, tiled, deep, streamed,
        tuple(map(tuple, places)), evolve(from_directory(page)[0], nodata=nodata.value_of(page)),
    )  # fmt: skip


def _pixels(picture: Picture) -> Pixels:
    return picture.color, picture.alpha


def _row_length(page: ifd.Directory, width: int) -> int:
    """Bytes of a row whose samples lie side by side."""
    return (width * bits_per_pixel(page) + 7) // 8


def bits_per_pixel(page: ifd.Directory) -> int:
    """Bits of all samples of a pixel."""
    bits, samples = ifd.numbers(page, _BITS, [1]), ifd.numbers(page, _SAMPLES, [1])[0]
    return int(sum(bits) if len(bits) == samples else bits[0] * samples)


def _divided(
    strips: list[tuple[int, int]], image_height: int, strip_height: int, height: int, row: int
) -> list[tuple[int, int]]:
    """The places of strips of ``height`` rows in strips of more, not compressed."""
    return [
        (offset + first * row, min(height, strip_height - first, image_height - top - first) * row)
        for top, (offset, _) in zip(range(0, image_height, strip_height), strips)
        for first in range(0, min(strip_height, image_height - top), height)
    ]
