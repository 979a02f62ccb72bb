"""Images that Pillow can only decode as a whole: the memory that takes, known before, and rectangles of the result."""

from pathlib import Path
from typing import BinaryIO

from attrs import evolve

from liif_core.images import eight_bit, ifd, metadata
from liif_core.images.picture import Header, Picture
from liif_core.images.source import Pixels, ReadPart
from liif_core.sizes import Size

_ONE_BYTE = ("1", "L", "P")  # modes of which Pillow holds a byte per pixel; of the others four
# Bytes per pixel that decoders need besides the image. At 4000 x 4000 with Pillow 13, 12 were measured for WebP, 8 of
# which stay as long as the image does, and 0 for a GIF of one frame; its 9 are an allowance.
_DECODER = {"WEBP": 12, "GIF": 9, "PNG": 0, "BMP": 0, "PPM": 0, "TIFF": 0, "TGA": 0}
_OTHER_DECODER = 20  # an allowance for AVIF, HEIF, JPEG XL, JPEG 2000, DDS and ICO
_FRAME = 8  # bytes per pixel that are kept while frames are put on those before
_START_OF_SCAN, _FRAMES = 0xDA, (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_ROTATED_TIFF = 4  # bytes per pixel: Pillow turns a TIFF, and has both for a moment


def held(head: Header) -> int:
    """Bytes of the decoded image, and of what its decoder keeps."""
    return _image_bytes(head) + (8 * head.size[0] * head.size[1] if head.format == "WEBP" else 0)


def _image_bytes(head: Header) -> int:
    return head.size[0] * head.size[1] * (1 if head.mode in _ONE_BYTE else 4)


def peak(head: Header, page: ifd.Directory | None = None, frame: int | None = None) -> int:
    """About the bytes that decoding takes at its peak, the image included. ``page`` is that of a TIFF."""
    pixels, length = head.size[0] * head.size[1], head.path.stat().st_size
    if head.format == "JPEG":
        with head.path.open("rb") as file:
            return _image_bytes(head) + int(pixels * _coefficient_bytes(file))
    extra = (_DECODER.get(head.format, _OTHER_DECODER) + (_FRAME if frame is not None and frame > 1 else 0)) * pixels
    if page is not None:
        # libtiff decodes one strip or tile, at most all of the image.
        extra += pixels * min(4, ifd.numbers(page, 277, [1])[0]) + length
        extra += pixels * _ROTATED_TIFF * (metadata.from_directory(page)[1] != 1)
    return _image_bytes(head) + extra + (length if head.format == "WEBP" else 0)


def decoded(
    path: Path, bits: int, number: int, page: ifd.Directory | None, frame: int | None
) -> tuple[ReadPart, Size, Picture, int]:
    """Decode a file, as ``eight_bit.read`` does.

    Returns a reader of rectangles of the image as stored; its size; its first pixel, with the metadata and notes of the
    image; and its orientation.
    """
    with eight_bit.opened(path, number, page, frame) as (image, found, orientation, notes):
        first = eight_bit.to_picture(image.crop((0, 0, 1, 1)), found, 1, bits)
        first = evolve(first, notes=(*notes, *first.notes))

    def read(rows: slice, columns: slice) -> Pixels:
        part = image.crop((columns.start, rows.start, columns.stop, rows.stop))
        picture = eight_bit.to_picture(part, found, 1, bits)
        return picture.color, picture.alpha

    return read, (image.height, image.width), first, orientation


def _coefficient_bytes(file: BinaryIO) -> float:
    """Bytes per pixel of a JPEG's coefficients, which a decoder keeps if the image is in several scans; else 0."""
    size, scans = 0.0, False
    file.seek(2)
    while (start := file.read(4))[:1] == b"\xff" and len(start) == 4:
        marker, length = start[1], int.from_bytes(start[2:], "big")
        if marker == 0xFF:
            file.seek(-3, 1)
            continue
        data = file.read(length - 2)
        if marker in _FRAMES and len(data) >= 6 + 3 * data[5]:
            sampling = [divmod(byte, 16) for byte in data[7 : 6 + 3 * data[5] : 3]]
            most = max(h for h, _ in sampling) * max(v for _, v in sampling)
            size, scans, components = sum(2 * h * v / most for h, v in sampling), marker in _PROGRESSIVE, data[5]
        elif marker == _START_OF_SCAN:
            return size if size and (scans or data[:1] != bytes([components])) else 0.0
    return 8.0
