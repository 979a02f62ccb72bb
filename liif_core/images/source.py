"""A picture as a source of rectangles, so that a large file need not be in memory as a whole."""

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
from attrs import Factory, frozen

from liif_core.errors import UserError
from liif_core.images.arrays import fill_transparent
from liif_core.images.complaints import as_notes
from liif_core.images.metadata import upright
from liif_core.images.picture import Depth, Metadata, Picture
from liif_core.sizes import Size

Pixels = tuple[np.ndarray, np.ndarray | None]  # color (h, w, channels), alpha (h, w) or None
ReadPart = Callable[[slice, slice], Pixels]  # rows and columns, with start and stop
Block = tuple[int, Pixels]  # its first row, and whole rows
Blocks = Callable[[int], Iterator[Block]]  # all blocks from the one with this row on, in order

NOT_FINITE = "some of its pixels are not finite numbers; replace them first"
_BAND_BYTES = 1 << 21  # of pixels that are looked at together


@frozen(eq=False)
class Source:
    """A picture of which rectangles are read. Its colors under full transparency are filled, see ``fill_transparent``.

    ``size`` is (height, width). ``channels`` (1 or 3), ``depth``, ``span``, ``mode``, ``metadata`` and ``notes`` are as
    of a Picture; to the notes, ``own_notes``, what decoders print (``heard``) is added, which is known in full when all
    parts are read. ``alpha_range`` holds the least and the greatest alpha, None where the picture has no alpha.
    ``part`` reads rows and columns. ``row_bytes`` is how many bytes are held for each row of a part, at any width.
    """

    size: Size
    channels: int
    depth: Depth
    span: tuple[float, float]
    alpha_range: tuple[float, float] | None
    mode: str
    part: ReadPart
    row_bytes: int = 0
    metadata: Metadata = Factory(Metadata)
    own_notes: tuple[str, ...] = ()
    heard: list[str] = Factory(list)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the user about what was converted or left out, and what decoders say."""
        return (*self.own_notes, *as_notes(self.heard))

    def read(self, rows: slice, columns: slice) -> Picture:
        """A part of the picture; both slices have a start and a stop within it."""
        color, alpha = self.part(rows, columns)
        if color.shape[2] < self.channels:  # a part of a palette image in which all colors are gray
            color = np.broadcast_to(color, (*color.shape[:2], self.channels))
        return Picture(color, alpha, self.mode, self.span)


def from_picture(picture: Picture) -> Source:
    """A picture in memory as a source."""
    filled = fill_transparent(picture)

    def part(rows: slice, columns: slice) -> Pixels:
        return filled.color[rows, columns], None if filled.alpha is None else filled.alpha[rows, columns]

    return Source(
        size=picture.size,
        channels=picture.color.shape[2],
        depth=picture.depth,
        span=picture.span,
        alpha_range=None if picture.alpha is None else (float(picture.alpha.min()), float(picture.alpha.max())),
        mode=picture.mode,
        part=part,
        metadata=picture.metadata,
        own_notes=picture.notes,
    )


class RowWindow:
    """Reads parts from rows that can only be decoded in order, and keeps the rows of the last part.

    A part that begins above them makes it start again.
    """

    def __init__(self, blocks: Blocks):
        self.blocks = blocks
        self.held: deque[Block] = deque()
        self.coming: Iterator[Block] | None = None
        self.first = 0  # the first row that can still be read without starting again

    def __call__(self, rows: slice, columns: slice) -> Pixels:
        if self.coming is None or rows.start < self.first:
            self.held.clear()
            self.coming, self.first = self.blocks(rows.start), rows.start
        while self.held and _end(self.held[0]) <= rows.start:
            self.held.popleft()
        while not self.held or _end(self.held[-1]) < rows.stop:
            block = next(self.coming, None)
            if block is None:
                raise ValueError("it ends before its pixels do")
            if _end(block) > rows.start:
                self.held.append(block)
        self.first = max(self.first, self.held[0][0])
        parts = [_cut(block, rows, columns) for block in self.held if block[0] < rows.stop]
        return joined(parts, 0)


def joined(parts: list[Pixels], axis: int) -> Pixels:
    """Parts of one picture, one below or beside the other. Where only some are gray, all get three channels."""
    if len(parts) == 1:
        return parts[0]
    channels = max(color.shape[2] for color, _ in parts)
    colors = [np.broadcast_to(color, (*color.shape[:2], channels)) for color, _ in parts]
    alphas = [alpha for _, alpha in parts if alpha is not None]
    return np.concatenate(colors, axis), np.concatenate(alphas, axis) if alphas else None


def in_blocks(read: ReadPart, size: Size, step: int) -> Blocks:
    """Whole rows, ``step`` at a time, of what ``read`` reads."""

    def blocks(row: int) -> Iterator[Block]:
        for top in range(row // step * step, size[0], step):
            yield top, read(slice(top, min(top + step, size[0])), slice(0, size[1]))

    return blocks


def band_rows(row_bytes: int) -> int:
    """How many rows of so many bytes are read together where any number could be."""
    return max(1, _BAND_BYTES // row_bytes)


def as_seen(read: ReadPart, stored: Size, orientation: int) -> ReadPart:
    """Reads an upright picture of which ``read`` reads the pixels as stored; ``orientation`` (1 to 8) is EXIF's."""
    if orientation == 1:
        return read
    height, width = stored

    def part(rows: slice, columns: slice) -> Pixels:
        down, across = (columns, rows) if orientation > 4 else (rows, columns)
        if orientation in (3, 4, 6, 7):
            down = slice(height - down.stop, height - down.start)
        if orientation in (2, 3, 7, 8):
            across = slice(width - across.stop, width - across.start)
        color, alpha = read(down, across)
        return upright(color, orientation), None if alpha is None else upright(alpha, orientation)

    return part


@frozen
class Facts:
    """What is known only when all pixels were seen. ``low`` and ``high`` are of the color, the last two of alpha."""

    channels: int
    low: float
    high: float
    alpha_range: tuple[float, float] | None


def look_through(path: object, blocks: Iterator[Block]) -> Facts:
    """The facts about a picture, from all of its blocks. Raises UserError, naming ``path``, where it is not finite."""
    channels, lows, highs, alpha_lows, alpha_highs = 1, [], [], [], []
    for _, (color, alpha) in blocks:
        channels = max(channels, color.shape[2])
        lows.append(float(color.min()))
        highs.append(float(color.max()))
        if alpha is not None:
            alpha_lows.append(float(alpha.min()))
            alpha_highs.append(float(alpha.max()))
    if not np.isfinite([*lows, *highs, *alpha_lows, *alpha_highs]).all():
        raise UserError(f"{path}: {NOT_FINITE}")
    return Facts(
        channels, min(lows), max(highs), (min(alpha_lows), max(alpha_highs)) if alpha_lows else None
    )  # fmt: skip


def _end(block: Block) -> int:
    return block[0] + len(block[1][0])


def _cut(block: Block, rows: slice, columns: slice) -> Pixels:
    top, (color, alpha) = block
    inside = slice(max(0, rows.start - top), rows.stop - top)
    return color[inside, columns], None if alpha is None else alpha[inside, columns]
