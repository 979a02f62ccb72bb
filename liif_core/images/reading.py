"""Reading image files: decoded exactly, or refused with a message that names the file and the reason."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import evolve, frozen
from PIL import Image, UnidentifiedImageError

from liif_core.errors import UserError
from liif_core.images import eight_bit, high_depth, ifd, metadata, png
from liif_core.images.formats import MAX_PIXELS
from liif_core.images.picture import Header, Picture
from liif_core.sizes import Size

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Formats that not every Pillow has, by their first bytes.
_OTHER_SIGNATURES = (
    ("JPEG XL", re.compile(rb"\xff\x0a|\0\0\0\x0cJXL ", re.DOTALL)),
    ("AVIF", re.compile(rb"....ftypavi[fs]", re.DOTALL)),
    ("HEIF", re.compile(rb"....ftyp(?:hei[cxms]|hev[cx]|mif1|msf1)", re.DOTALL)),
)
_SUBFILE, _REDUCED_OR_MASK = 254, 1 | 4
_SAMPLES, _PLANAR = 277, 284


class TooManyPixels(UserError):
    """An image has more pixels than its reader allows."""


def header(path: str | Path, max_pixels: int = MAX_PIXELS) -> Header:
    """What a file holds, without decoding its pixels.

    Raises UserError, naming the file, where it is missing, not an image of a format read here, cut off in its
    header, animated or of several pages, of a mode that is not read, or in need of a package that is not installed;
    TooManyPixels where it has more than ``max_pixels``. Two things may turn out otherwise in ``read_image``: a
    palette of grays has one channel, and a PNG may name its orientation after its pixels.
    """
    path = Path(path)
    with named(path, max_pixels):
        found = look(path, max_pixels)[0]
        check_packages(found)
    return found


def read_image(
    path: str | Path, max_pixels: int = MAX_PIXELS, check: Callable[[Header], None] | None = None
) -> Picture:
    """Decode a file of one image: upright, straight alpha, all its bits, with its metadata.

    ``check`` is called with the header before pixels are decoded; a UserError that it raises is raised.
    Several threads may read at the same time. Raises UserError, naming the file, for all that ``header`` does and for
    pixels that are broken or cut off.
    """
    path = Path(path)
    with named(path, max_pixels):
        found, place = look(path, max_pixels)
        if check is not None:
            check(found)
        check_packages(found)
        if found.depth == "uint8":
            picture = eight_bit.read(path, place.bits, place.number, place.page)
        elif place.page is None:
            picture = high_depth.read_png(path, place.color_type)
        else:
            picture = high_depth.read_tiff(path, place.number, place.page)
    return metadata.without_foreign_icc(picture)


@frozen(eq=False)
class Place:
    """Where in the file the picture is, and what of the header Pillow does not report."""

    bits: int = 8
    color_type: int = 0
    number: int = 0
    page: ifd.Directory | None = None


def look(path: Path, max_pixels: int) -> tuple[Header, Place]:
    """The header of a file, and where the picture is in it. Within ``named``."""
    with path.open("rb") as file:
        start = file.read(26)
        pages = ifd.read_directories(file) if start.startswith(_TIFF_STARTS) else None
    if pages is not None:
        head, place = _look_at_tiff(path, pages)
    else:
        head, place = eight_bit.look(path), Place()
        if start.startswith(png.START):
            place = Place(bits=start[24], color_type=start[25])
        if place.bits == 16:
            channels = 1 if place.color_type in (0, 4) else 3
            head = evolve(head, depth="uint16", mode=high_depth.png_mode(place.color_type), channels=channels)
    _check_size(path, head.size, max_pixels)
    return head, place


def _look_at_tiff(path: Path, pages: list[ifd.Directory]) -> tuple[Header, Place]:
    full = [n for n, page in enumerate(pages) if not ifd.numbers(page, _SUBFILE, [0])[0] & _REDUCED_OR_MASK]
    if len(full) > 1:
        raise UserError(f"{path}: a TIFF of {len(full)} pages is not read; save its pages as files of their own first")
    number = full[0] if full else 0
    page = pages[number]
    if high_depth.is_high_depth(page):
        head = high_depth.tiff_header(path, page)
    elif ifd.numbers(page, _PLANAR, [1])[0] == 2 and ifd.numbers(page, _SAMPLES, [1])[0] == 2:
        # Pillow decodes the alpha of these as 0 everywhere, or not at all.
        raise UserError(
            f"{path}: a TIFF of 8-bit gray and alpha in separate planes is not read; convert it to PNG first"
        )
    else:
        head = eight_bit.look(path, number)
    return head, Place(number=number, page=page)


def check_packages(found: Header) -> None:
    """Raises UserError where a package that reads this image is not installed."""
    if found.depth != "uint8":
        high_depth.need(found.path)


def _check_size(path: Path, size: Size, max_pixels: int) -> None:
    height, width = size
    if height * width > max_pixels:
        raise _too_many(path, max_pixels, f" ({width}x{height})")


def _too_many(path: Path, max_pixels: int, size: str = "") -> TooManyPixels:
    return TooManyPixels(
        f"{path}: more pixels{size} than the {max_pixels:,} that are read, a limit against "
        "decompression bombs; if you trust the file, raise it with --max-pixels (max_pixels in Python)"
    )


@contextmanager
def named(path: Path, max_pixels: int) -> Iterator[None]:
    """Turns whatever a decoder raises into a UserError that names the file."""
    if not path.exists():
        raise UserError(f"{path}: there is no such file")
    if not path.is_file():
        raise UserError(f"{path}: not a file; give the images in it")
    try:
        with _PillowLimit(max_pixels):
            yield
    except UserError:
        raise
    except Image.DecompressionBombError:
        raise _too_many(path, max_pixels) from None
    except PermissionError:
        raise UserError(f"{path}: cannot be read; check its permissions") from None
    except UnidentifiedImageError:
        raise UserError(f"{path}: {_unidentified(path)}; formats read: {', '.join(eight_bit.FORMATS)}") from None
    except MemoryError:
        raise UserError(f"{path}: not enough memory to decode it") from None
    except Exception as problem:
        # Decoders raise anything from struct.error to IndexError on broken data.
        reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        raise UserError(f"{path}: broken or cut off ({reason}); replace it with an intact copy") from None


def _unidentified(path: Path) -> str:
    """What is wrong with a file of none of the formats that are read."""
    name = ""
    with suppress(Exception), Image.open(path) as image:  # of any format that Pillow has
        name = image.format or ""
    # Some formats have no signature, and Pillow finds them in files of other kinds.
    if name and Image.OPEN[name][1] is None and Image.registered_extensions().get(path.suffix.lower()) != name:
        name = ""
    with path.open("rb") as file:
        start = file.read(12)
    name = name or next((other for other, signature in _OTHER_SIGNATURES if signature.match(start)), "")
    if name:
        return f"{name} files are not read; convert it to PNG or TIFF first"
    if start.startswith((b"\xff\xd8\xff", *_TIFF_STARTS)):
        return "a kind of JPEG or TIFF that is not read, or broken in its header; convert it to PNG first"
    return "not an image, or broken in its header"


class _PillowLimit:
    """Raises Pillow's own limit of pixels, one for the whole process, while files of more are read.

    It is never lowered: ``_check_size`` is exact. Threads do not wait for one another.
    """

    _lock = threading.Lock()
    _readers = 0
    _before: int | None = None

    def __init__(self, max_pixels: int):
        self.limit = (max_pixels + 1) // 2  # Pillow raises an error beyond twice its limit

    def __enter__(self) -> None:
        with self._lock:
            current = Image.MAX_IMAGE_PIXELS
            self.raises = _PillowLimit._readers > 0 or (current is not None and current < self.limit)
            if self.raises:
                if _PillowLimit._readers == 0:
                    _PillowLimit._before = current
                if current is not None:
                    Image.MAX_IMAGE_PIXELS = max(current, self.limit)
                _PillowLimit._readers += 1

    def __exit__(self, *_: object) -> None:
        if self.raises:
            with self._lock:
                _PillowLimit._readers -= 1
                if _PillowLimit._readers == 0:
                    Image.MAX_IMAGE_PIXELS = _PillowLimit._before
