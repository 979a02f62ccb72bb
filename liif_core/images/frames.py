"""Files of several pictures: the frames of an animation and the pages of a TIFF, all of them read in turn."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from attrs import evolve, frozen
from PIL import Image

from liif_core.errors import UserError
from liif_core.images import eight_bit, kinds, metadata
from liif_core.images.complaints import as_notes
from liif_core.images.formats import MAX_PIXELS
from liif_core.images.picture import Header, Picture
from liif_core.images.reading import full_pages, look, named
from liif_core.images.timing import Timing


@frozen
class Several:
    """What a file of several pictures holds.

    ``header`` is that of its first picture; ``numbers`` are the pictures, as ``frame`` of ``read_image`` counts them.
    Frames of an animation have a ``timing``, and all have the same size; pages have none, and may differ. ``alpha``
    says whether any frame has pixels that are not opaque. ``notes`` are for the user.
    """

    header: Header
    numbers: range
    timing: Timing | None
    alpha: bool
    notes: tuple[str, ...] = ()

    @property
    def what(self) -> str:
        """What its pictures are called: "frames" or "pages"."""
        return "pages" if self.timing is None else "frames"


def several(path: str | Path, max_pixels: int = MAX_PIXELS) -> Several | None:
    """What a file of several pictures holds; None if it has one, or one main picture, such as an MPO.

    All frames of an animation are decoded, one after the other, so that a broken one is found before work begins.
    Raises UserError, naming the file, for all that ``header`` does, for a frame that is broken, and for an animation
    of 16 bits per sample.
    """
    path = Path(path)
    with named(path, max_pixels):
        with path.open("rb") as file:
            if file.read(4) in kinds.TIFF_STARTS:
                count = len(full_pages(file))
                return None if count < 2 else Several(look(path, max_pixels, 1)[0], range(1, count + 1), None, False)
        with Image.open(path, formats=kinds.pillow_formats(path)) as image:
            count = eight_bit.animated(image)
        if count < 2:
            return None
        head, place = look(path, max_pixels, 1)
        if place.deep:
            raise UserError(
                f"{path}: an animated PNG of 16 bits per sample: only frame 1 is read; choose it with --frame 1"
            )
    return _animation(path, head, count, max_pixels)


def _animation(path: Path, head: Header, count: int, max_pixels: int) -> Several:
    milliseconds, alpha, first, notes = [], False, 0, []
    with named(path, max_pixels), Image.open(path, formats=kinds.pillow_formats(path)) as image:
        if image.info.get("default_image"):  # of an APNG: shown by programs without animations, and no frame
            first, notes = 1, ["its still picture for programs without animations is left out; --frame 1 renders it"]
        for number in range(first, count):
            _seek(path, image, number, count)
            milliseconds.append(float(image.info.get("duration", 0)))
            alpha = alpha or _is_seen_through(image)
        plays = int(image.info.get("loop", 1 if image.format == "GIF" else 0))
        if image.format == "GIF" and "loop" in image.info and plays:
            plays += 1  # a GIF says how often it is repeated
    return Several(head, range(first + 1, count + 1), Timing(tuple(milliseconds), plays), alpha, tuple(notes))


def frames(path: Path, found: Several, max_pixels: int = MAX_PIXELS) -> Iterator[Picture]:
    """The frames of an animation: each with all that came before it, in color, with alpha if any frame needs it.

    The first has the metadata of the file and notes. Raises UserError, naming the file, for a frame that is broken.
    """
    with named(path, max_pixels) as said:
        image = Image.open(path, formats=kinds.pillow_formats(path))
    with image:
        for number in found.numbers:
            with named(path, max_pixels) as heard:
                _seek(path, image, number - 1, found.numbers[-1])
                picture = eight_bit.to_picture(image, *metadata.from_pillow(image, path=path))
                picture = metadata.without_foreign_icc(picture)
            notes = (*picture.notes, *as_notes([*said, *heard]))
            yield evolve(eight_bit.in_color(picture, found.alpha), notes=notes)


def _is_seen_through(image: Image.Image) -> bool:
    """Whether a frame has pixels that are not opaque."""
    return image.has_transparency_data and bool(np.asarray(image.convert("RGBA").getchannel("A")).min() < 255)


def _seek(path: Path, image: Image.Image, number: int, count: int) -> None:
    try:
        image.seek(number)
        image.load()
    except Image.DecompressionBombError:
        raise
    except Exception as error:  # see ``named``
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path}: frame {number + 1} of {count} is broken or cut off ({reason}); replace the file with an intact "
            f"copy, or render the frames before it one by one with --frame"
        ) from None
