"""Continuous models and images: encode once, then ask for colours anywhere.

Trainer, evaluator, renderer and exporter see only ``ContinuousModel.encode`` and ``ContinuousImage.query``. Where a
colour depends on the others asked for with it, through means over all of them, ``passes`` says how many such means
there are, and ``ContinuousImage.moment`` gathers them window by window.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from attrs import frozen
from torch import Tensor, nn

from liif_core.geometry import Size, region_axes, whole_size, windows
from liif_core.protocols import Query

Moments = tuple[Tensor, ...]
Region = tuple[float, float, float, float]  # (top, left, bottom, right) in pixels of the image

WINDOW = 1 << 15  # queries in a window on a CPU: what is not decoding is done for all of its blocks at once
DEVICE_WINDOW = 1 << 18  # queries in a window elsewhere


class RunningMean:
    """The mean over a set that comes in parts, summed in double precision."""

    def __init__(self) -> None:
        self._sum: Tensor | float = 0.0
        self._count = 0

    def add(self, mean: Tensor, count: int) -> None:
        """One more part: its own mean, and how many it has."""
        self._sum = self._sum + mean.double().cpu() * count  # on the CPU: not every device has doubles
        self._count += count

    def value(self, like: Tensor) -> Tensor:
        return (self._sum / self._count).to(like)


@frozen
class Part:
    """Where an image that is encoded alone lies in a larger one, whose colours it is to answer for."""

    size: Size  # (h, w) of the larger image
    top: int
    left: int


class ContinuousImage(ABC):
    """A batch of images as a function of position. Made by ``ContinuousModel.encode``."""

    size: Size  # (h, w) of the image that was encoded, or of the larger one that it is a part of
    channels: int
    device: torch.device
    passes: int | None = 0  # as the model's
    _known: tuple[object, Moments] | None = None  # of a whole grid, for the next region of it

    @abstractmethod
    def query(self, where: Query | Tensor, cell: Tensor | None = None, moments: Moments = ()) -> Tensor:
        """Colours (B, *Q, channels), float32, [0, 1] space, not clamped.

        ``where`` is a Query, or coordinates (B, N, 2) (y, x) in [-1, 1] with ``cell`` broadcastable to them: the
        height and width of the pixel asked for, in the same units. Points outside are answered from the border.
        Unless ``passes`` is 0, these queries are the whole set that colours depend on, or ``moments`` are those of it.
        Raises ValueError for shapes that do not fit, and for several cells where the model can be asked for one.
        """

    def moment(self, query: Query, moments: Moments) -> Tensor:
        """Number ``len(moments)`` of ``passes``, the ones before it being known: (B, ...), its mean over a query."""
        raise NotImplementedError(f"{type(self).__name__} has no passes")

    def held_bytes(self) -> int:
        """Of memory: the codes, and what was prepared of them; 0 where nobody counts."""
        return 0

    def render(self, size: Size, region: Region | None = None, clamp: bool = False) -> Tensor:
        """The image (B, channels, H, W) at any ``size`` = (H, W), float32, [0, 1] space.

        ``region`` (top, left, bottom, right), in pixels of the encoded image, fractions allowed, renders that part: what
        the whole image shows there, also where colours depend on all of it (which then costs ``passes`` over the whole,
        for the first of its regions). Values may leave [0, 1] a little unless ``clamp``. The result does not depend on
        how it is cut in windows.
        """
        if min(size) < 1:
            raise ValueError(f"size: expected at least 1 x 1, got {size}")
        rows, columns, cell = region_axes(size, self.size, region)
        moments = self._moments_of_whole(size, region, cell) if region is not None and self.passes else ()
        colours = self.render_grid(rows, columns, cell, moments=moments)
        return colours.clamp_(0, 1) if clamp else colours

    def render_grid(
        self, rows: Tensor, columns: Tensor, cell: Tensor, window: int | None = None, moments: Moments = ()
    ) -> Tensor:
        """Colours (B, channels, H, W) of a pixel grid: ``rows`` (H,), ``columns`` (W,), one ``cell`` (2,).

        ``window``: how many queries are asked for at once; all of them, whatever it says, where ``passes`` is None.
        Unless ``passes`` is 0, this grid is the whole set that colours depend on, or ``moments`` are those of it.
        """
        size, output = (len(rows), len(columns)), None
        queries = list(self._windows(rows, columns, cell, window))
        if self.passes and len(queries) > 1 and not moments:
            moments = self.grid_moments(rows, columns, cell, window)
        for down, across, query in queries:
            colours = (self.query(query, moments=moments) if moments else self.query(query)).permute(0, 3, 1, 2)
            if output is None:
                output = colours.new_empty(*colours.shape[:2], *size)
            output[:, :, down, across] = colours
        return output

    def grid_moment(
        self, rows: Tensor, columns: Tensor, cell: Tensor, moments: Moments, window: int | None = None
    ) -> Tensor:
        """``moment`` of a pixel grid, in windows."""
        mean = RunningMean()
        for _, _, query in self._windows(rows, columns, cell, window):
            part = self.moment(query, moments)
            mean.add(part, query.shape[0] * query.shape[1])
        return mean.value(like=part)

    def grid_moments(self, rows: Tensor, columns: Tensor, cell: Tensor, window: int | None = None) -> Moments:
        """All ``passes`` moments of a pixel grid: what ``render_grid`` needs to render parts of it alone."""
        moments: Moments = ()
        for _ in range(self.passes or 0):
            moments += (self.grid_moment(rows, columns, cell, moments, window),)
        return moments

    def _windows(
        self, rows: Tensor, columns: Tensor, cell: Tensor, window: int | None
    ) -> Iterator[tuple[slice, slice, Query]]:
        rows, columns, cell = (t.to(self.device) for t in (rows, columns, cell))
        size = len(rows), len(columns)
        limit = window or (WINDOW if self.device.type == "cpu" else DEVICE_WINDOW)
        for down, across in windows(size, size[0] * size[1] if self.passes is None else limit):
            yield down, across, Query.grid(rows[down], columns[across], cell)

    def _moments_of_whole(self, size: Size, region: Region, cell: Tensor) -> Moments:
        """Of the grid over the whole image that a region of ``size`` pixels is cut from."""
        whole = whole_size(size, self.size, region)
        key = (whole, *cell.tolist())
        if self._known is None or self._known[0] != key:
            rows, columns, _ = region_axes(whole, self.size, None)
            self._known = key, self.grid_moments(rows, columns, cell)
        return self._known[1]


class ContinuousModel(nn.Module, ABC):
    """Makes continuous images of images."""

    channels: int  # of the images it takes and gives
    multiple_of: int = 1  # a part's top and left must be multiples of this
    halo: int | None = None  # pixels around a place that its colours depend on; None: the whole image
    passes: int | None = 0  # over all queries, before any has its colour; None: they must be asked for at once

    @abstractmethod
    def encode(self, image: Tensor, part: Part | None = None) -> ContinuousImage:
        """``image`` (B, channels, h, w) in [0, 1], any size from 1 x 1. Raises ValueError for another shape.

        With ``part``, ``image`` is cut from a larger one; the result has that one's coordinates, and answers, as if it
        had been encoded whole, what lies at least ``halo`` pixels from each cut.
        """

    def forward(self, image: Tensor, coord: Tensor, cell: Tensor) -> Tensor:
        """``encode`` and ``query`` in one call, as training uses it: (B, N, channels)."""
        return self.encode(image).query(coord, cell)
