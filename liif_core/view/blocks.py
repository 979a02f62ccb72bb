"""The continuous image of a picture, in blocks: each is encoded when it is needed, and kept as long as there is room.

A block is encoded with the halo that makes its codes exact, so that colors do not depend on the blocks.
"""

import time
from collections.abc import Generator, Hashable
from itertools import pairwise

import torch
from attrs import define
from torch import Tensor

from liif_core.errors import UserError
from liif_core.model.blame import blamed, check_finite_sum
from liif_core.model.continuous import ContinuousImage, ContinuousModel, RunningMean, Statistics, TilePlacement
from liif_core.model.device import device_of, moved
from liif_core.model.geometry import grid_over_image, region_axes
from liif_core.model.picture_batch import PictureBatch
from liif_core.model.tile_plan import plan_tiles
from liif_core.sizes import Region, Size
from liif_core.view.byte_cache import ByteCache

_SMALLEST = 256  # pixels: the side of a block, in which halos are
_HALOS = 10  # how many halos wide a block is at least: 44 % more pixels are encoded inside a picture, fewer at its edge
_STATISTIC_QUERIES = 1 << 20  # of a grid whose statistics are exact; of a finer one, so many queries are taken

Rendered = Generator[None, None, Tensor]


@define
class Progress:
    """How far a picture is encoded: ``done`` of ``blocks`` were at least once, in ``seconds`` of computing."""

    blocks: int = 0
    done: int = 0
    seconds: float = 0.0
    error: str | None = None


class EncodedPicture:
    """A picture as a model's continuous image. Used by one thread.

    ``cache`` keeps blocks under keys that begin with ``name``; encoding one takes about ``memory`` bytes more.
    """

    def __init__(self, name: Hashable, model: ContinuousModel, batch: PictureBatch, cache: ByteCache, memory: int):
        self.name, self.model, self.batch, self.cache, self.memory = name, model, batch, cache, memory
        self.size: Size = batch.picture.size
        self.progress = Progress()
        self.full = False  # whether encoding all blocks takes more than the cache holds
        self.approximate = False  # whether statistics of too fine a grid were estimated
        self._seen: set[tuple[int, int]] = set()
        self._bytes = 0  # of the largest block
        self._edges: tuple[list[int], list[int]] | None = None
        self._statistics: dict[Hashable, Statistics] = {}

    def render(self, size: Size, region: Region) -> Rendered:
        """The colors (B, c, H, W) of a region (top, left, bottom, right), block by block, as of ContinuousImage.render.

        Raises UserError where the model fails, or needs more memory than there is; ValueError for a scale that it
        cannot render.
        """
        self.model.check_scale(self.size, grid_over_image(size, self.size, region))
        rows, columns, cell = region_axes(size, self.size, region)
        statistics: Statistics = ()
        if self.model.num_statistics:
            statistics = yield from self._whole_statistics(size, region, cell)
        colors = torch.empty(self.batch.images, self.model.channels, *size)
        for place, down, across in self._cut(rows, columns):
            block = yield from self._block(place)
            with torch.inference_mode(), blamed(self.model):
                part = block.render_grid(rows[down], columns[across], cell, statistics=statistics)
                colors[:, :, down, across] = part.float().cpu()
            self._keep(place, block)  # with what it prepared
            yield
        check_finite_sum(colors.sum(), self.model, "float32")
        return colors

    def encode_all(self, center: tuple[float, float]) -> Generator[None, None, None]:
        """Encode the blocks that are left, those near ``center`` (y, x) in pixels first, while there is room.

        What goes wrong is in ``progress``.
        """
        try:
            down, across = self._divided()
            places = [(row, column) for row in range(len(down) - 1) for column in range(len(across) - 1)]

            def distance(place: tuple[int, int]) -> float:
                middle = (sum(edges[i : i + 2]) / 2 for edges, i in zip((down, across), place))
                return sum(abs(at - wanted) for at, wanted in zip(middle, center))

            for place in sorted(places, key=distance):
                if place in self._seen:
                    continue
                if self._bytes * (len(self._seen) + 1) > self.cache.limit:
                    self.full = True
                    return
                yield from self._block(place)
        except Exception as error:  # out of the code of a plugin, too
            self.progress.error = str(error) or type(error).__name__

    @property
    def state(self) -> str:
        """ "waiting", "encoding", "ready", "partly" (as much as there is room for) or "failed"."""
        if self.progress.error is not None:
            return "failed"
        if self._edges is None:
            return "waiting"
        if self.progress.done == self.progress.blocks:
            return "ready" if not self.full else "partly"
        return "partly" if self.full else "encoding"

    def _divided(self) -> tuple[list[int], list[int]]:
        """The edges of the blocks, from the top and from the left."""
        if self._edges is None:
            with blamed(self.model):
                plan = plan_tiles(
                    self.model, self.size, self.size, None, self.memory, self.batch.images, self.batch.picture.row_bytes
                )  # fmt: skip
            if plan.overlap:
                raise UserError(
                    "the model sees the whole picture at once, which takes more memory than there is; "
                    "raise --memory, or view a smaller picture"
                )
            if self.model.halo is None:
                sides: Size = self.size
            else:
                side = max(_SMALLEST, _HALOS * self.model.halo)
                sides = min(side, plan.tile[0]), min(side, plan.tile[1])
            down, across = (_evenly(whole, most) for whole, most in zip(self.size, sides))
            self._edges = down, across
            self.progress.blocks = (len(down) - 1) * (len(across) - 1)
        return self._edges

    def _block(self, place: tuple[int, int]) -> Generator[None, None, ContinuousImage]:
        """An encoded block: the kept one, or a new one."""
        kept: ContinuousImage | None = self.cache.get((self.name, place))
        if kept is not None:
            self._mark(place)
            return kept
        if place in self._seen:
            self.full = True  # it was dropped
        started = time.monotonic()
        down, across = self._divided()
        halo = max(self.size) if self.model.halo is None else self.model.halo
        rows, columns = (
            self._with_halo(edges[i], edges[i + 1], side, halo)
            for edges, i, side in zip((down, across), place, self.size)
        )
        with torch.inference_mode(), blamed(self.model):
            image = moved(self.batch.read(rows, columns), device_of(self.model))
            block = self.model.encode(image, TilePlacement(self.size, rows.start, columns.start))
            _prepare(block, self.size, (down[place[0]], across[place[1]]))
        self._keep(place, block)
        self.progress.seconds += time.monotonic() - started
        self._mark(place)
        yield
        return block

    def _mark(self, place: tuple[int, int]) -> None:
        self._seen.add(place)
        self.progress.done = len(self._seen)

    def _keep(self, place: tuple[int, int], block: ContinuousImage) -> None:
        self._bytes = max(self._bytes, block.held_bytes())
        self.cache.put((self.name, place), block, block.held_bytes())

    def _with_halo(self, start: int, stop: int, side: int, halo: int) -> slice:
        multiple = self.model.multiple_of
        return slice(max(0, start - halo) // multiple * multiple, min(side, stop + halo))

    def _cut(self, rows: Tensor, columns: Tensor) -> list[tuple[tuple[int, int], slice, slice]]:
        """The blocks that have the centers of a grid's pixels, and which rows and columns of the grid."""
        parts = [_parts(axis, side, edges) for axis, side, edges in zip((rows, columns), self.size, self._divided())]
        return [((row, column), down, across) for row, down in parts[0] for column, across in parts[1]]

    def _whole_statistics(self, size: Size, region: Region, cell: Tensor) -> Generator[None, None, Statistics]:
        """The statistics of the grid over the whole picture; of a very fine grid, those of a coarser one."""
        whole = grid_over_image(size, self.size, region)
        key = (whole, *cell.tolist())
        if key in self._statistics:
            return self._statistics[key]
        fraction = (_STATISTIC_QUERIES / (whole[0] * whole[1])) ** 0.5
        if fraction < 1:
            self.approximate = True
            whole = max(1, round(whole[0] * fraction)), max(1, round(whole[1] * fraction))
        rows, columns, _ = region_axes(whole, self.size, None)
        statistics: Statistics = ()
        for _ in range(self.model.num_statistics or 0):
            mean = RunningMean()
            for place, down, across in self._cut(rows, columns):
                block = yield from self._block(place)
                with torch.inference_mode(), blamed(self.model):
                    own = block.grid_statistic(rows[down], columns[across], cell, statistics)
                mean.add(own, len(rows[down]) * len(columns[across]))
                yield
            statistics += (mean.value(),)
        self._statistics[key] = statistics
        return statistics


def _prepare(block: ContinuousImage, size: Size, corner: Size) -> None:
    """Query one position, so that the decoder has prepared what it prepares once per image."""
    if not block.num_statistics and block.num_statistics is not None:
        top, left = corner
        block.render((1, 1), (top, left, min(size[0], top + 1), min(size[1], left + 1)))


def _evenly(side: int, most: int) -> list[int]:
    """The edges of the fewest parts of about equal length that are at most ``most`` long."""
    count = -(-side // most)
    return [round(i * side / count) for i in range(count + 1)]


def _parts(axis: Tensor, side: int, edges: list[int]) -> list[tuple[int, slice]]:
    """The parts between ``edges`` that have coordinates of ``axis``, and which. Outer parts have what is beyond."""
    place = (axis.double() + 1) * (side / 2)
    inner = [int(torch.searchsorted(place, float(edge))) for edge in edges[1:-1]]
    bounds = [0, *inner, len(axis)]
    return [(number, slice(first, last)) for number, (first, last) in enumerate(pairwise(bounds)) if first < last]
