"""How a file is read in a given memory: in parts where its format allows it, or as a whole. Known before it is decoded.

A small image is read as a whole. A larger one is read in parts, if it is a PNG that is not interlaced and not turned,
or a TIFF of strips or tiles.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from attrs import evolve, frozen

from liif_core.images import filling, high_depth, metadata, nodata, pillow_parts
from liif_core.images.arrays import top
from liif_core.images.formats import MAX_PIXELS
from liif_core.images.picture import Header, Picture
from liif_core.images.png_rows import open_rows
from liif_core.images.reading import Place, check_packages, look, named, read_image
from liif_core.images.source import (
    Pixels,
    ReadPart,
    RowWindow,
    Source,
    as_seen,
    band_rows,
    from_picture,
    in_blocks,
    look_through,
)
from liif_core.images.tiff_parts import bits_per_pixel, check_jpeg, open_parts, segments
from liif_core.sizes import Size

_PALETTES = ("P", "PA")  # of which only the colors that occur tell whether the picture is gray
_SMALL = 32 << 20  # bytes; an image that takes less is read as a whole
_PNG_BYTES = 24 << 20  # that inflating and decoding a band of a PNG takes, for rows of up to 2 MB
_FILL_BYTES = 24  # per pixel, that ``fill_transparent`` takes besides the picture


@frozen(eq=False)
class Opening:
    """How a file will be read.

    ``peak`` is about how many bytes reading takes at most, and ``held`` how many while parts are read. For each row of
    a part, ``row_bytes`` more are held. ``in_parts`` says whether the image is never in memory as a whole.
    """

    header: Header
    peak: int
    held: int
    row_bytes: int
    in_parts: bool
    open: Callable[[], Source]


def survey(
    path: str | Path, memory: int, max_pixels: int = MAX_PIXELS, frame: int | None = None, others: bool = False
) -> Opening:
    """How to read a file when about ``memory`` bytes may be used; nothing is decoded yet, except of a later ``frame``.

    ``Opening.open`` then reads what must be known of the whole picture, and returns the picture, whose parts have
    exactly the pixels of ``read_image``. It raises UserError as ``read_image`` does, and so does reading a part.
    ``others`` says that the other pages of the file are read too, so that no note has to say that they are not.

    Raises UserError for all that ``header`` does.
    """
    path = Path(path)
    with named(path, max_pixels):
        found, place = look(path, max_pixels, frame)
        check_packages(found, place)
        whole = _as_whole(found, place, max_pixels, frame)
        if whole.peak <= min(_SMALL, memory // 8):
            opening = evolve(whole, open=lambda: from_picture(read_image(path, max_pixels, frame=frame)))
        else:
            parts = _in_parts(found, place, max_pixels)
            opening = whole if parts is None or parts.peak >= whole.peak else parts
    if not others or not place.notes:
        return opening
    return evolve(opening, open=lambda: _without_first_notes(opening.open(), len(place.notes)))


def _without_first_notes(source: Source, count: int) -> Source:
    return evolve(source, own_notes=source.own_notes[count:])


def _as_whole(found: Header, place: Place, max_pixels: int, frame: int | None) -> Opening:
    pixels = found.size[0] * found.size[1]
    if not place.deep:

        def opened() -> Source:
            with named(found.path, max_pixels) as heard:
                if place.page is not None:
                    check_jpeg(place.page, segments(found.path, place.page))
                decoded = pillow_parts.decoded(found.path, place.bits, place.number, place.page, place.frame)
                return _finished(found, place, *decoded, 0, 1, max_pixels, heard)

        peak, held = pillow_parts.peak(found, place.page, place.frame), pillow_parts.held(found)
        return Opening(found, peak, held, 0, False, opened)
    held = pixels * _pixel_bytes(found)
    stored = held if place.page is None else pixels * bits_per_pixel(place.page) // 8
    peak = held + 2 * stored + found.path.stat().st_size + (_FILL_BYTES * pixels if _has_alpha(found) else 0)
    return Opening(found, peak, held, 0, False, lambda: from_picture(read_image(found.path, max_pixels, frame=frame)))


def _in_parts(found: Header, place: Place, max_pixels: int) -> Opening | None:
    """How to read a file in parts; None where that is not possible."""
    row_bytes = found.size[1] * _pixel_bytes(found)
    if place.page is None:
        rows = open_rows(found.path) if found.format == "PNG" and place.frame in (None, 1) else None
        if rows is None or rows.orientation > 2:
            return None
        held = _PNG_BYTES + 10 * row_bytes

        def opened_png() -> Source:
            with named(found.path, max_pixels) as heard:
                first = Picture(np.empty(0), None, found.mode, (0.0, 1.0), rows.metadata)
                read, stored = RowWindow(rows.blocks), (rows.height, rows.width)
                return _finished(found, place, read, stored, first, rows.orientation, row_bytes, 1, max_pixels, heard)

        return Opening(found, held, held, row_bytes, True, opened_png)
    parts, orientation = open_parts(found.path, place.page, place.deep), metadata.from_directory(place.page)[1]
    if parts is None or (orientation > 4 and not parts.tiled):
        return None
    if parts.deep:
        high_depth.check_whole(found.path, place.page)
    held = parts.part_bytes() + (0 if parts.tiled else 2 * parts.part[0] * row_bytes)
    peak = held + (2 * parts.part[orientation > 4] * row_bytes if parts.tiled and _is_seen(found) else 0)

    def opened_tiff() -> Source:
        with named(found.path, max_pixels) as heard:
            read = parts.read if parts.tiled else RowWindow(parts.blocks)
            step, held_rows = parts.part[orientation > 4], 0 if parts.tiled else row_bytes
            first = parts.first()
            return _finished(found, place, read, parts.size, first, orientation, held_rows, step, max_pixels, heard)

    return Opening(found, peak, held, 0 if parts.tiled else row_bytes, True, opened_tiff)


def _finished(
    found: Header,
    place: Place,
    stored: ReadPart,
    stored_size: Size,
    first: Picture,
    orientation: int,
    row_bytes: int,
    step: int,
    max_pixels: int,
    heard: list[str],
) -> Source:
    """The source whose pixels as stored are read by ``stored``; ``first`` has its metadata and notes.

    ``step`` is how many rows are decoded together anyway. ``heard`` is what decoders print.
    """
    size = stored_size[::-1] if orientation > 4 else stored_size  # a PNG may name its orientation after its pixels
    read = as_seen(stored, stored_size, orientation)
    span, alpha_range, channels, notes = (0.0, top(found.depth)), None, found.channels, [*place.notes, *first.notes]
    blocks = in_blocks(read, size, max(step, band_rows(size[1] * _pixel_bytes(found))))
    if _is_seen(found):
        facts = look_through(found.path, blocks(0))
        alpha_range = facts.alpha_range
        if found.mode in _PALETTES and not metadata.has_color_profile(first.metadata):
            channels = facts.channels
        if found.depth == "float32":
            span, beyond = high_depth.span_between(facts.low, facts.high)
            notes += beyond
    if first.metadata.nodata is not None and alpha_range is not None and alpha_range[0] > 0:
        read, alpha_range = _without_alpha(read), None
        notes.append(nodata.unused(first.metadata.nodata))
        first = evolve(first, metadata=evolve(first.metadata, nodata=None))
    if alpha_range is not None and alpha_range[0] == 0 < alpha_range[1]:
        read, row_bytes = filling.filled_in_file(found.path, blocks(0), size, channels, found.depth), 0

    def part(rows: slice, columns: slice) -> Pixels:
        with named(found.path, max_pixels) as more:
            pixels = read(rows, columns)
        heard.extend(line for line in more if line not in heard)
        return pixels

    return Source(
        size=size,
        channels=channels,
        depth=found.depth,
        span=span,
        alpha_range=alpha_range,
        mode=found.mode,
        part=part,
        row_bytes=row_bytes,
        metadata=metadata.matching_icc(first.metadata, channels),
        own_notes=tuple(notes),
        heard=heard,
    )


def _without_alpha(read: ReadPart) -> ReadPart:
    return lambda rows, columns: (read(rows, columns)[0], None)


def _is_seen(found: Header) -> bool:
    """Whether all pixels must be seen before the first is rendered."""
    return _has_alpha(found) or found.depth == "float32" or found.mode in _PALETTES


def _has_alpha(found: Header) -> bool:
    """Whether alpha is read, if only to mark pixels without data."""
    return found.alpha or found.nodata is not None


def _pixel_bytes(found: Header) -> int:
    return (found.channels + _has_alpha(found)) * np.dtype(found.depth).itemsize
