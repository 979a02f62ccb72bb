"""A picture: the pixels, alpha and metadata of one image file."""

from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from attrs import Factory, evolve, frozen

from liif_core.sizes import Size

Depth = Literal["uint8", "uint16", "float32"]


def depth_of(pixels: np.ndarray) -> Depth:
    """The type of an array of pixels, by its numpy name. Raises ValueError for types that no picture has."""
    for depth in get_args(Depth):
        if pixels.dtype.name == depth:
            return cast(Depth, depth)
    raise ValueError(f"expected pixels of {', '.join(get_args(Depth))}, got {pixels.dtype}")


@frozen
class Change:
    """What became of a part of a file that is not copied as it was: what it is, and what was done and why."""

    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


@frozen
class Metadata:
    """What is copied from the file read to the file written, besides pixels.

    ``icc`` is the ICC profile of the pixels; ``exif`` a TIFF structure (no ``Exif`` prefix) whose orientation is 1;
    ``xmp`` a packet whose orientation is 1; ``text`` PNG text by keyword (a JPEG or GIF comment is ``Comment``);
    ``dpi`` (horizontal, vertical) pixels per inch, which upscaling does not change; ``iptc`` the data sets of IPTC-IIM;
    ``colors`` the chunks of a PNG that say what its colors mean, by their types; ``nodata`` the value of pixels without
    data, which alpha marks with 0, see ``nodata``. ``changed`` and ``dropped`` say what the file had that was changed,
    and what it had that is not here. ``whole`` is the size of the picture in the file, if it was enlarged as a whole:
    positions and sizes in metadata are corrected by it.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    text: dict[str, str] = Factory(dict)
    dpi: tuple[float, float] | None = None
    iptc: bytes | None = None
    colors: dict[str, bytes] = Factory(dict)
    changed: tuple[Change, ...] = ()
    dropped: tuple[Change, ...] = ()
    whole: Size | None = None
    nodata: float | None = None

    def without(self, part: str) -> "Metadata":
        """The same without one of its parts, named as the attribute."""
        nothing: dict[str, Any] = {part: getattr(Metadata(), part)}
        return evolve(self, **nothing)


@frozen
class Header:
    """What a file's header says about the picture.

    ``size`` is (height, width) with the orientation applied. ``format`` and ``mode`` are the file's own, under Pillow's
    names where it has one ("P", "CMYK"), else such as "RGB;16". ``channels`` (1 or 3), ``alpha`` and ``depth`` are
    those of the Picture that ``read_image`` returns. ``nodata`` is the value of pixels without data, if the file names
    one: its Picture has alpha then, which marks these pixels with 0 and is not written.
    """

    path: Path
    format: str
    size: Size
    mode: str
    channels: int
    alpha: bool
    depth: Depth
    nodata: float | None = None


@frozen(eq=False)
class Picture:
    """One image, upright, with straight alpha, at the depth of its file.

    ``color`` is (h, w, 1) or (h, w, 3), ``alpha`` (h, w) or None, both uint8, uint16 or float32; they may be
    read-only. ``span`` holds the color values of black and white: the whole range of an integer type, (0, 1) or wider
    for floats. Alpha is opaque at the greatest integer, or at 1. ``mode`` is the file's, as in Header; ``notes`` are
    sentences for the user about what was converted or left out.
    """

    color: np.ndarray
    alpha: np.ndarray | None
    mode: str
    span: tuple[float, float]
    metadata: Metadata = Factory(Metadata)
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> Size:
        """(height, width) in pixels."""
        return self.color.shape[0], self.color.shape[1]

    @property
    def depth(self) -> Depth:
        """The type of one sample, by its numpy name."""
        return depth_of(self.color)
