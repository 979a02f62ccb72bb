"""Continuous models and images: encode once, then query colors at any position.

Trainer, evaluator, renderer and exporter use ``ContinuousModel.encode`` and ``ContinuousImage.query`` only.
``num_statistics`` says how the colors of an image depend on each other. Where it is a number above 0, they depend on
that many means over all queries, which ``ContinuousImage.partial_statistic`` computes chunk by chunk.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from attrs import evolve, frozen
from torch import Tensor, nn

from liif_core.model.device import moved
from liif_core.model.geometry import chunks_of, grid_over_image, region_axes
from liif_core.model.protocols import Query
from liif_core.shapes import Float
from liif_core.sizes import OutputSize, Region, Scale, Size

if TYPE_CHECKING:
    from liif_core.model.upscaler import AnyImage, OnProgress

Statistics = tuple[Tensor, ...]  # means over all queries of an image, (B, ...) each, in the order they depend on

QUERY_CHUNK = 1 << 15  # queries in one call of ``query`` on a CPU, where decoding divides them further
DEVICE_QUERY_CHUNK = 1 << 18  # the same on other devices


class RunningMean:
    """The mean over a set whose parts are added one by one; the sum is in double precision."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._count = 0

    def add(self, mean: Tensor, count: int) -> None:
        """Add a part of ``count`` elements with the given mean."""
        # without waiting for the device, except for one that has no doubles
        total = (mean.cpu() if mean.device.type == "mps" else mean).double() * count
        self._sum = total if self._sum is None else self._sum + total
        self._count += count
        self._like = mean

    def value(self) -> Tensor:
        """The mean over all parts, with the device and type of the last one."""
        assert self._sum is not None, "no part was added"
        return (self._sum / self._count).to(self._like)


@frozen
class TilePlacement:
    """Where a tile lies in the image that it is a part of.

    Attributes:
        size: (h, w) of the whole image, in pixels.
        top: the whole image's row that is the tile's first row; a multiple of the model's ``multiple_of``.
        left: the whole image's column that is the tile's first column; also a multiple.
    """

    size: Size
    top: int
    left: int


class ContinuousImage(ABC):
    """A batch of images as a function of position. Made by ``ContinuousModel.encode``."""

    size: Size  # (h, w) of the encoded image; of a tile, the size of the whole image
    channels: int
    device: torch.device
    num_statistics: int | None = 0  # as of the model
    _kept_statistics: tuple[object, Statistics] | None = None  # of a whole grid, for the next region of it

    @abstractmethod
    def query(self, where: Query | Tensor, cell: Tensor | None = None, statistics: Statistics = ()) -> Tensor:
        """Colors (B, *Q, channels), float32, in [0, 1] space, not clamped.

        ``where`` is a Query, or coordinates (B, N, 2) (y, x) in [-1, 1] with ``cell`` broadcastable to them: the
        height and width of the queried pixels, in the same units. Positions outside [-1, 1] take the nearest border
        codes. Unless ``num_statistics`` is 0, colors depend on all queries: these are the whole set, or ``statistics``
        are those of the whole set.

        Raises ValueError for shapes that do not fit, and for several cells where the model accepts one per image.
        """

    def as_query(self, where: Query | Tensor, cell: Tensor | None, batch: int) -> Query:
        """The arguments of ``query`` as a Query on this image's device; for use in subclasses.

        ``batch`` is the number of images. Raises ValueError for coordinates without a cell, and for shapes that do not
        fit.
        """
        if isinstance(where, Query):
            return where
        if cell is None:
            raise ValueError("cell: needed with coordinates: the height and width of the queried pixels")
        if where.ndim < 3 or where.shape[0] not in (1, batch) or where.shape[-1] != 2:
            raise ValueError(f"coord: expected ({batch}, N, 2), got {tuple(where.shape)}")
        return Query.points(moved(where, self.device), cell)

    def partial_statistic(self, query: Query, statistics: Statistics) -> Float[Tensor, "B ..."]:
        """The mean over ``query`` of statistic number ``len(statistics)``, which may depend on those before it."""
        raise NotImplementedError(f"{type(self).__name__} declares num_statistics and has no partial_statistic")

    def own_loss(self, where: Query | Tensor, cell: Tensor | None, target: Tensor) -> Float[Tensor, ""]:
        """The model's own training objective, where ``ContinuousModel.has_own_loss``.

        ``where`` and ``cell`` are as of ``query``; ``target`` (B, *Q, channels) has the true colors, in [0, 1] space.
        """
        raise NotImplementedError(f"{type(self).__name__} has no training objective of its own")

    def held_bytes(self) -> int:
        """Bytes that this image keeps: latent codes, and what was prepared from them. 0 if unknown."""
        return 0

    def render(self, size: Size, region: Region | None = None, clamp: bool = False) -> Float[Tensor, "B channels H W"]:
        """The image at any ``size`` = (H, W), float32, in [0, 1] space.

        ``region`` (top, left, bottom, right), in pixels of the encoded image, fractions allowed, is the part to render;
        ``size`` is then its size. The colors are those of the whole image, also where they depend on all queries: the
        statistics of the whole image are then computed first, once for all regions of the same scale. Values may leave
        [0, 1] slightly unless ``clamp``.

        Raises ValueError for an empty size or region.
        """
        if min(size) < 1:
            raise ValueError(f"size: expected at least 1 x 1, got {size}")
        rows, columns, cell = region_axes(size, self.size, region)
        statistics: Statistics = ()
        if region is not None and self.num_statistics:
            statistics = self._whole_statistics(size, region, cell)
        colors = self.render_grid(rows, columns, cell, statistics=statistics)
        return colors.clamp_(0, 1) if clamp else colors

    def render_grid(
        self,
        rows: Float[Tensor, " H"],
        columns: Float[Tensor, " W"],
        cell: Float[Tensor, " 2"],
        chunk_size: int | None = None,
        statistics: Statistics = (),
    ) -> Float[Tensor, "B channels H W"]:
        """Colors of a pixel grid, float32, in [0, 1] space, not clamped.

        ``rows`` and ``columns`` are coordinates in [-1, 1], and ``cell`` is the (height, width) of a pixel. One call of
        ``query`` has at most ``chunk_size`` queries, which does not change the result; where ``num_statistics`` is
        None, it has all. Unless ``num_statistics`` is 0, this grid is the whole set of queries, or ``statistics`` are
        those of the whole set.
        """
        size, output = (len(rows), len(columns)), None
        queries = list(self._chunks(rows, columns, cell, chunk_size))
        if self.num_statistics and len(queries) > 1 and not statistics:
            statistics = self.grid_statistics(rows, columns, cell, chunk_size)
        for down, across, query in queries:
            colors = (self.query(query, statistics=statistics) if statistics else self.query(query)).permute(0, 3, 1, 2)
            if output is None:
                output = colors.new_empty(*colors.shape[:2], *size)
            output[:, :, down, across] = colors
        assert output is not None
        return output

    def grid_statistic(
        self, rows: Tensor, columns: Tensor, cell: Tensor, statistics: Statistics, chunk_size: int | None = None
    ) -> Tensor:
        """``partial_statistic`` of a pixel grid, computed in chunks."""
        mean = RunningMean()
        for _, _, query in self._chunks(rows, columns, cell, chunk_size):
            mean.add(self.partial_statistic(query, statistics), query.shape[0] * query.shape[1])
        return mean.value()

    def grid_statistics(self, rows: Tensor, columns: Tensor, cell: Tensor, chunk_size: int | None = None) -> Statistics:
        """All ``num_statistics`` statistics of a pixel grid: what ``render_grid`` needs to render parts of it."""
        statistics: Statistics = ()
        for _ in range(self.num_statistics or 0):
            statistics += (self.grid_statistic(rows, columns, cell, statistics, chunk_size),)
        return statistics

    def _chunks(
        self, rows: Tensor, columns: Tensor, cell: Tensor, chunk_size: int | None
    ) -> Iterator[tuple[slice, slice, Query]]:
        whole = Query.grid(moved(rows, self.device), moved(columns, self.device), cell.cpu())
        assert whole.axes is not None
        rows, columns = whole.axes
        size = len(rows), len(columns)
        limit = chunk_size or (QUERY_CHUNK if self.device.type == "cpu" else DEVICE_QUERY_CHUNK)
        for down, across in chunks_of(size, size[0] * size[1] if self.num_statistics is None else limit):
            yield down, across, evolve(whole, axes=(rows[down], columns[across]))

    def _whole_statistics(self, size: Size, region: Region, cell: Tensor) -> Statistics:
        """The statistics of the grid over the whole image that a region of ``size`` pixels is a part of."""
        whole = grid_over_image(size, self.size, region)
        key = (whole, *cell.tolist())
        if self._kept_statistics is None or self._kept_statistics[0] != key:
            rows, columns, _ = region_axes(whole, self.size, None)
            self._kept_statistics = key, self.grid_statistics(rows, columns, cell)
        return self._kept_statistics[1]


class ContinuousModel(nn.Module, ABC):
    """Turns images into continuous images."""

    channels: int  # of its images, input and output
    multiple_of: int = 1  # a tile's top and left must be multiples of this
    halo: int | None = None  # how many pixels away the image can change a color; None: the whole image
    num_statistics: int | None = 0  # number of means over all queries that colors depend on; None: one call for all
    has_own_loss: bool = False  # whether its continuous images have a training objective of their own, ``own_loss``
    trained_scale: tuple[float, float] | None = None  # smallest and largest scale in training; None: unknown
    component_names: Mapping[str, str] = {}  # path of a submodule -> the component that it is, for messages
    loaded_from: str | None = None  # the file or name of its weights, for messages

    @abstractmethod
    def encode(self, image: Float[Tensor, "B channels h w"], placement: TilePlacement | None = None) -> ContinuousImage:
        """``image`` in [0, 1], of any size from 1 x 1. Raises ValueError for another shape.

        With ``placement``, ``image`` is a tile of a larger image. The result uses the coordinates of the larger image,
        and equals the larger image's own result at positions at least ``halo`` pixels from each cut.
        """

    def check_image(self, image: Tensor) -> None:
        """For use in ``encode``: raises ValueError for an image that is not (B, channels, h, w) with no empty side."""
        if image.ndim != 4 or image.shape[1] != self.channels or 0 in image.shape:
            raise ValueError(f"image: expected (B, {self.channels}, h, w) with no empty side, got {tuple(image.shape)}")

    def check_scale(self, size: Size, target: Size) -> None:
        """Raises ValueError, with one sentence, where the model cannot render an image of ``size`` at ``target``.

        Models that can render any size do not override this.
        """

    def upscale(
        self,
        image: "AnyImage",
        scale: "float | Sequence[float] | Scale | None" = None,
        *,
        width: int | None = None,
        height: int | None = None,
        region: Sequence[float] | None = None,
        memory: int | str | None = None,
        on_progress: "OnProgress | None" = None,
        precision: str = "float32",
    ) -> "AnyImage":
        """The image at another size, as an image of the same kind.

        Args:
            image: one of

                - a PIL image of any mode; the result keeps alpha, 16-bit gray, ICC profile, EXIF, XMP and resolution
                  as ``liif upscale`` keeps them, and is upright;
                - a numpy array (h, w), (h, w, 3) or (h, w, 4) with alpha last, of type uint8, uint16, or float32 in
                  [0, 1];
                - a tensor (channels, h, w) or (B, channels, h, w) of floats in [0, 1], on any device.
            scale: the magnification, any positive number, or a (vertical, horizontal) pair.
            width: the width of the result in pixels, instead of ``scale``.
            height: its height in pixels. Of width and height, one that is left out follows from the other.
            region: (top, left, bottom, right), in pixels of the image, fractions allowed: render this part only. Scale
                and size are then those of the part.
            memory: about how much memory rendering may use besides the image and the result, in bytes or as text such
                as "300MB". Larger images are rendered in tiles, with the same result. Default: a quarter of what is
                free, or half of what is free on a GPU.
            on_progress: a function that is called with the fraction that is done, from 0 to 1.
            precision: "float32"; "bf16", on a GPU or a CPU that has it; or "fp16", on a GPU.

        Returns:
            An image of the same kind, type and device, with values in [0, 1] for floats. A tensor that requires a
            gradient, or a model whose parameters do, gives a differentiable result, computed in one piece; call
            ``upscale`` under ``torch.no_grad()`` to render such a model in tiles.

        Raises TypeError or ValueError that names the argument, what was expected and what was given. Warns about a
        scale outside ``trained_scale``, about metadata that could not be kept, and where tiles make the result
        approximate.

        Example:
            >>> model = liif_core.load("best.safetensors")
            >>> large = model.upscale(Image.open("photo.jpg"), scale=2.5)
        """
        from liif_core.model.upscaler import upscale  # it renders models, so it cannot be imported above

        output = OutputSize.of(scale, width, height, region)
        return upscale(self, image, output, memory, on_progress, precision)

    def forward(self, image: Tensor, coord: Tensor, cell: Tensor) -> Float[Tensor, "B N channels"]:
        """``encode`` and ``query`` in one call, as training uses it."""
        return self.encode(image).query(coord, cell)
