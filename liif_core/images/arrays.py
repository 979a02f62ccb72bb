"""Pixels as numbers in [0, 1], and back; colors for fully transparent pixels.

Alpha is straight: color and alpha are upscaled separately. The color of fully transparent pixels is invisible, but
interpolation would mix it into visible edges (dark fringes), so it is first replaced by the nearest visible color.
Partly transparent pixels have their true color already.
"""

import numpy as np
from attrs import evolve

from liif_core.images.picture import Depth, Picture, depth_of

_ALL = slice(None)


def fill_transparent(picture: Picture) -> Picture:
    """The picture with every fully transparent pixel in the color of the nearest pixel that is not.

    Distances are counted in steps between pixels that share a side. A picture without alpha, or wholly transparent,
    is returned unchanged.
    """
    if picture.alpha is None:
        return picture
    height, width, channels = picture.color.shape
    # A border that counts as visible stops the search at the edge, so that a flat index can replace (row, column).
    color = np.pad(picture.color, ((1, 1), (1, 1), (0, 0))).reshape(-1, channels)
    done = np.pad(picture.alpha > 0, 1, constant_values=True).reshape(-1)
    steps = (1, -1, width + 2, -width - 2)
    hidden = ~done
    beside = np.any([np.roll(hidden, step) for step in steps], axis=0)
    edge = np.flatnonzero(beside & np.pad(picture.alpha > 0, 1).reshape(-1))
    while edge.size:
        reached = []
        for step in steps:
            source = edge[~done[edge + step]]
            color[source + step] = color[source]
            done[source + step] = True
            reached.append(source + step)
        edge = np.concatenate(reached)
    filled = color.reshape(height + 2, width + 2, channels)[1:-1, 1:-1]
    return evolve(picture, color=np.ascontiguousarray(filled))


def to_planes(picture: Picture, rows: slice = _ALL, columns: slice = _ALL) -> tuple[np.ndarray, np.ndarray | None]:
    """Color (c, h, w), and alpha (1, h, w) or None, of a part of the picture, float32 in [0, 1].

    Color is 0 at the low end of the picture's span, and 1 at its high end.
    """
    low, high = picture.span
    color = picture.color[rows, columns].transpose(2, 0, 1).astype(np.float32, order="C")
    if low:
        color -= np.float32(low)
    color /= np.float32(high - low)
    if picture.alpha is None:
        return color, None
    return color, picture.alpha[None, rows, columns].astype(np.float32) / np.float32(top(picture.depth))


def from_planes(
    color: np.ndarray, alpha: np.ndarray | None, depth: Depth, span: tuple[float, float] = (0.0, 1.0)
) -> np.ndarray:
    """Rows for a writer: (h, w, c) or, with alpha, (h, w, c + 1) of type ``depth``.

    ``color`` (c, h, w) and ``alpha`` (1, h, w) are floats, where 0 and 1 are the ends of the range. For integer types
    they are clipped to [0, 1] and rounded to nearest, halves up. For float32, color is not clipped but scaled to the
    picture's ``span``, and alpha is clipped.
    """
    channels, height, width = color.shape
    rows = np.empty((height, width, channels + (alpha is not None)), dtype=depth)
    low, high = span
    for index, plane in enumerate([*color, *(() if alpha is None else alpha)]):
        if depth != "float32":
            rows[..., index] = np.floor(np.clip(plane, 0, 1) * np.float32(top(depth)) + np.float32(0.5))
        elif index < channels:
            rows[..., index] = plane * np.float32(high - low) + np.float32(low)
        else:
            rows[..., index] = np.clip(plane, 0, 1)
    return rows


def to_eight_bit(picture: Picture) -> Picture:
    """The picture in 8 bits: black to white of its span as 0 to 255, clipped and rounded to nearest."""
    return with_rows(picture, from_planes(*to_planes(picture), "uint8"))


def with_rows(picture: Picture, rows: np.ndarray) -> Picture:
    """The picture with other pixels: rows (h, w, c), or (h, w, c + 1) where it has alpha, as of ``from_planes``."""
    alpha = None if picture.alpha is None else rows[..., -1]
    span = picture.span if rows.dtype == np.float32 else (0.0, top(depth_of(rows)))
    return evolve(picture, color=rows[..., : picture.color.shape[2]], alpha=alpha, span=span)


def top(depth: Depth) -> float:
    """The value of full alpha, and of white where the span is the whole range."""
    return 1.0 if depth == "float32" else float(np.iinfo(depth).max)
