"""Pixels without data, as maps have them: they are marked with a value that the file names, such as -9999.

They are no part of the picture: their value must not be mixed into that of their neighbors. While a picture is rendered
its alpha marks them with 0, so that they take the color of the nearest pixel that has data, as transparent ones do.
Of the result, those pixels have no data whose nearest pixel in the source has none.

Source: the GDAL_NODATA tag of the GeoTIFF driver of GDAL (https://gdal.org/drivers/raster/gtiff.html).
"""

import math

import numpy as np
from attrs import evolve

from liif_core.errors import UserError
from liif_core.images import ifd
from liif_core.images.arrays import top
from liif_core.images.picture import Header, Picture, depth_of
from liif_core.images.source import Pixels, Source
from liif_core.sizes import Size

TAG = 42113
_BITS, _PHOTOMETRIC, _FORMAT, _FLOAT, _WHITE_IS_ZERO = 258, 262, 339, 3, 0
MODES = ("1", "L", "RGB", "I;16", "RGB;16", "F", "RGB;F")  # in which pixels are marked


def value_of(page: ifd.Directory) -> float | None:
    """The value that a TIFF page names for pixels without data, once decoded; None if no pixel can have it."""
    text = (ifd.raw(page, TAG) or b"").split(b"\0")[0].decode("ascii", "replace").strip()
    try:
        value = float(text)
    except ValueError:
        return None
    bits = ifd.numbers(page, _BITS, [1])[0]
    if ifd.numbers(page, _FORMAT, [1])[0] == _FLOAT:
        with np.errstate(over="ignore"):
            return float(np.float32(np.float16(value) if bits == 16 else value))
    whole = 2**bits - 1
    if not (math.isfinite(value) and value.is_integer() and 0 <= value <= whole):
        return None
    value = whole - value if ifd.numbers(page, _PHOTOMETRIC, [1])[0] == _WHITE_IS_ZERO else value
    return value * 255 // whole if bits < 8 else value


def marked(color: np.ndarray, value: float) -> Pixels:
    """Color (h, w, channels) and alpha (h, w): 0 where all channels have the value, which become 0 too in floats.

    Raises ValueError where a pixel of floats has the value in some channels only.
    """
    same = np.isnan(color) if math.isnan(value) else color == color.dtype.type(value)
    without = same.all(-1)
    whole = color.dtype.type(top(depth_of(color)))
    if color.dtype.kind == "f":
        if (same.any(-1) != without).any():
            raise ValueError(f"some pixels have the no-data value {value:g} in some of their channels only")
        color = np.where(without[..., None], color.dtype.type(0), color)
    return color, np.where(without, color.dtype.type(0), whole)


def without_unused(picture: Picture) -> Picture:
    """The picture without marks, and with a note, if no pixel is marked."""
    value, alpha = picture.metadata.nodata, picture.alpha
    if value is None or alpha is None or not alpha.all():
        return picture
    notes = (*picture.notes, unused(value))
    return evolve(picture, alpha=None, metadata=evolve(picture.metadata, nodata=None), notes=notes)


def unused(value: float) -> str:
    """A note about a no-data value that no pixel has."""
    return f"no pixel has the value {value:g}, which marks pixels without data; the mark was left out"


def checked(head: Header, page: ifd.Directory) -> Header:
    """The header of a page with its no-data value. Raises UserError where such pixels could not be kept apart."""
    value = value_of(page)
    if value is None or (head.alpha and head.depth != "float32"):  # alpha says which pixels count
        return head
    if head.alpha or head.mode not in MODES:
        what = "alpha" if head.alpha else f"mode {head.mode}"
        raise UserError(
            f"{head.path}: a TIFF of {what} whose pixels without data are marked by the value {value:g} is not read; "
            "convert it to gray or RGB without alpha first"
        )
    return evolve(head, nodata=value)


def mark_rows(
    rows: np.ndarray, first: int, source: Source, size: Size, region: tuple[float, float, float, float] | None
) -> None:
    """Write the value of pixels without data into rows (h, W, channels), from ``first`` on, of an output of ``size``.

    It goes where the nearest pixel of the source has none. ``region`` is the part of the source that is rendered. Does
    nothing where the source names no such value.
    """
    value = source.metadata.nodata
    if value is None:
        return
    top, left, bottom, right = region or (0.0, 0.0, *source.size)
    down = _nearest(top, bottom, size[0], source.size[0])[first : first + len(rows)]
    across = _nearest(left, right, size[1], source.size[1])
    part = source.read(slice(down[0], down[-1] + 1), slice(across[0], across[-1] + 1))
    assert part.alpha is not None
    write_marks(rows, part.alpha[np.ix_(down - down[0], across - across[0])] == 0, value)


def _nearest(start: float, end: float, count: int, within: int) -> np.ndarray:
    """The indices of the pixels, of ``within``, in which the centers of ``count`` output pixels lie."""
    centers = start + (np.arange(count) + 0.5) * (end - start) / count
    return np.clip(np.floor(centers).astype(np.int64), 0, within - 1)


def write_marks(rows: np.ndarray, without: np.ndarray, value: float) -> None:
    """Give rows (h, w, channels) the value where ``without`` (h, w) says so; where it came by chance, the next one."""
    kind = rows.dtype.type
    if math.isfinite(value):
        by_chance = (rows == kind(value)).all(-1) & ~without
        if by_chance.any():
            up = np.nextafter(kind(value), kind(np.inf)) if rows.dtype.kind == "f" else kind(value - 1 if value else 1)
            rows[by_chance, 0] = up
    rows[without] = kind(value)
