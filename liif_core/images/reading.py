"""Reading image files: decoded exactly, or refused with a message that names the file and the reason."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from attrs import evolve, frozen
from PIL import Image, UnidentifiedImageError

from liif_core.errors import UserError
from liif_core.images import complaints, eight_bit, high_depth, ifd, kinds, metadata, nodata, png_chunks, tiff_parts
from liif_core.images.formats import MAX_PIXELS
from liif_core.images.picture import Header, Picture
from liif_core.sizes import Size

_SUBFILE, _REDUCED_OR_MASK = 254, 1 | 4
# What decoders say of whole files that they cannot decode.
_NOT_SUPPORTED = re.compile(
    r"not (?:yet )?(?:supported|implemented|available|configured)|unsupported|"
    r"unknown (?:compression|codec|pixel mode|raw mode)|"
    r"cannot handle|requires the",
    re.IGNORECASE,
)


class TooManyPixels(UserError):
    """An image has more pixels than its reader allows."""


def header(path: str | Path, max_pixels: int = MAX_PIXELS, frame: int | None = None) -> Header:
    """What a file holds, without decoding its pixels; of an animation or of pages, ``frame``, from 1.

    Raises UserError, naming the file, where it is missing, not an image of a format read here, cut off in its
    header, animated or of several pages of which none is chosen, of a mode that is not read, or in need of a package
    that is not installed; TooManyPixels where it has more than ``max_pixels``. Two things may turn out otherwise in
    ``read_image``: a palette of grays has one channel, and a PNG may name its orientation after its pixels.
    """
    path = Path(path)
    with named(path, max_pixels):
        found, place = look(path, max_pixels, frame)
        check_packages(found, place)
    return found


def read_image(
    path: str | Path,
    max_pixels: int = MAX_PIXELS,
    check: Callable[[Header], None] | None = None,
    frame: int | None = None,
) -> Picture:
    """Decode a file of one image: upright, straight alpha, all its bits, with its metadata.

    Of a file of several frames or pages, ``frame`` chooses one, from 1. Where pixels have no data (see ``nodata``),
    alpha marks them. What decoders say of a file that they decode all the same is in the picture's notes.

    ``check`` is called with the header before pixels are decoded; a UserError that it raises is raised.
    Several threads may read at the same time. Raises UserError, naming the file, for all that ``header`` does and for
    pixels that are broken or cut off.
    """
    path = Path(path)
    with named(path, max_pixels) as heard:
        found, place = look(path, max_pixels, frame)
        if check is not None:
            check(found)
        check_packages(found, place)
        if not place.deep:
            if place.page is not None:
                tiff_parts.check_jpeg(place.page, tiff_parts.segments(path, place.page))
            picture = eight_bit.read(path, place.bits, place.number, place.page, place.frame)
        elif place.page is None:
            picture = high_depth.read_png(path, place.color_type)
        else:
            picture = high_depth.read_tiff(path, place.number, place.page)
    picture = nodata.without_unused(metadata.without_foreign_icc(picture))
    return evolve(picture, notes=(*place.notes, *picture.notes, *complaints.as_notes(heard)))


@frozen(eq=False)
class Place:
    """Where in the file the picture is, and what of the header Pillow does not report.

    ``frame`` is that of an animation, from 1; ``deep`` says that ``high_depth`` reads it, and not Pillow. ``notes`` are
    for the user.
    """

    bits: int = 8
    color_type: int = 0
    number: int = 0
    page: ifd.Directory | None = None
    frame: int | None = None
    deep: bool = False
    notes: tuple[str, ...] = ()


def look(path: Path, max_pixels: int, frame: int | None = None) -> tuple[Header, Place]:
    """The header of a file, and where the picture is in it. Within ``named``."""
    with path.open("rb") as file:
        start = file.read(26)
        pages = ifd.read_directories(file) if start.startswith(kinds.TIFF_STARTS) else None
    kinds.check_not_raw(path, pages)
    if pages is not None:
        head, place = _look_at_tiff(path, pages, frame)
    else:
        head, place = eight_bit.look(path, frame=frame), Place(frame=frame)
        if start.startswith(png_chunks.START):
            place = Place(bits=start[24], color_type=start[25], frame=frame, deep=start[24] == 16)
        if place.deep:
            if frame is not None and frame > 1:
                raise UserError(f"{path}: of an animated PNG of 16 bits only frame 1 is read; convert it first")
            channels = 1 if place.color_type in (0, 4) else 3
            head = evolve(head, depth="uint16", mode=high_depth.png_mode(place.color_type), channels=channels)
    _check_size(path, head.size, max_pixels)
    return head, place


def _look_at_tiff(path: Path, pages: list[ifd.Directory], frame: int | None) -> tuple[Header, Place]:
    full = _full(pages)
    eight_bit.check_frame(path, "a TIFF of several pages", "page", len(full), frame)
    number = full[(frame or 1) - 1]
    page = pages[number]
    deep = high_depth.is_high_depth(page) or high_depth.is_misread(page)
    if not deep:
        try:
            head = eight_bit.look(path, number)
        except (UnidentifiedImageError, SyntaxError, KeyError):  # for layouts that Pillow does not know
            deep = True
    if deep:
        head = high_depth.tiff_header(path, page)
    notes = (f"of the {len(full)} pages in this file only page {frame} is read",) if len(full) > 1 else ()
    return nodata.checked(head, page), Place(number=number, page=page, deep=deep, notes=notes)


def full_pages(file: BinaryIO) -> list[int]:
    """The numbers, from 0, of the directories of a TIFF that hold pages: not smaller versions or masks of one."""
    file.seek(0)
    return _full(ifd.read_directories(file))


def _full(pages: list[ifd.Directory]) -> list[int]:
    return [n for n, page in enumerate(pages) if not ifd.numbers(page, _SUBFILE, [0])[0] & _REDUCED_OR_MASK] or [0]


def check_packages(found: Header, place: Place) -> None:
    """Raises UserError where a package that reads this image is not installed."""
    if place.deep:
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
def named(path: Path, max_pixels: int) -> Iterator[list[str]]:
    """Turns whatever a decoder raises into a UserError that names the file. Gives what decoders print meanwhile."""
    if not path.exists():
        raise UserError(f"{path}: there is no such file")
    if not path.is_file():
        raise UserError(f"{path}: not a file; give the images in it")
    heard: list[str] = []
    try:
        with _PillowLimit(max_pixels), complaints.collected(heard):
            yield heard
    except UserError:
        raise
    except Image.DecompressionBombError:
        raise _too_many(path, max_pixels) from None
    except PermissionError:
        raise UserError(f"{path}: cannot be read; check its permissions") from None
    except UnidentifiedImageError:
        raise UserError(f"{path}: {_unidentified(path)}") from None
    except MemoryError:
        raise UserError(f"{path}: not enough memory to decode it") from None
    except Exception as problem:
        # Decoders raise anything from struct.error to IndexError on broken data.
        reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        reason = "; ".join(dict.fromkeys([reason, *heard[:1]]))
        what = kinds.unread(path)
        if what or _NOT_SUPPORTED.search(reason):
            raise UserError(
                f"{path}: {what or 'files of this kind'} are not read ({reason}); convert it to PNG or TIFF first"
            ) from None
        raise UserError(f"{path}: broken or cut off ({reason}); replace it with an intact copy") from None


def _unidentified(path: Path) -> str:
    """What is wrong with a file of none of the formats that are read."""
    if not path.stat().st_size:
        return "an empty file, such as an interrupted copy leaves; replace it with an intact copy"
    other = kinds.other_format(path)
    name = kinds.unread(path) or (f"{other} files" if other else "")
    problem = (
        f"{name} are not read; convert it to PNG or TIFF first" if name else "not an image, or broken in its header"
    )
    return f"{problem}; formats read: {', '.join(kinds.FORMATS)}"


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
