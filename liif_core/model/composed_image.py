"""The continuous image of a composed model: latent codes, prepared maps, and the decoding of queries."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from attrs import evolve
from torch import Tensor

from liif_core.model.continuous import QUERY_CHUNK, ContinuousImage, RunningMean, Statistics, TilePlacement
from liif_core.model.device import moved
from liif_core.model.frame import Frame
from liif_core.model.gathering import as_rows, blend, gather
from liif_core.model.grid_decoding import GridDecoding
from liif_core.model.grid_plan import plan_axis
from liif_core.model.interpolation import pixels_along, pixels_around
from liif_core.model.protocols import (
    BlockDecoder,
    ChunkingDecoder,
    GlobalDecoder,
    GridSampling,
    Known,
    LatentField,
    Maps,
    Query,
    Sites,
)
from liif_core.model.threads import on_threads
from liif_core.shapes import Float, Int
from liif_core.sizes import Size

if TYPE_CHECKING:
    from liif_core.model.composed import ComposedModel

CACHE = 2 << 20  # bytes gathered for one call of ``decode`` on a CPU: about the size of its caches (see benchmarks/)

RESIDUAL_PIXELS = 1 << 15  # of the residual that are computed at once on a CPU

_Chunk = tuple[Sites, dict[str, Tensor]]  # queries as the decoder receives them: sites and conditions


class ComposedImage(ContinuousImage):
    """What ``ComposedModel.encode`` returns: the latent codes, and the maps that the decoder prepared from them."""

    def __init__(self, model: "ComposedModel", tile: TilePlacement, field: LatentField, frame: Frame):
        self.model = model
        self.tile = tile
        self.field = field
        self.frame = frame
        self.size = tile.size
        self.channels = model.channels
        self.device = field.image.device
        self.num_statistics = model.num_statistics
        self._prepared: tuple[Tensor | None, Maps] | None = None  # the cell, where maps depend on it, and the maps

    def query(self, where: Query | Tensor, cell: Tensor | None = None, statistics: Statistics = ()) -> Tensor:
        query = self.as_query(where, cell, len(self.field.image))
        maps, chunks = self._decodable(query)
        decoder = self.model.decoder
        if isinstance(decoder, GlobalDecoder) and decoder.num_statistics:
            known = self._known(statistics)
            while len(chunks) > 1 and len(known) < decoder.num_statistics:
                known = decoder.with_statistic(known, self._mean(maps, chunks, known))
            colors = list(on_threads(lambda chunk: decoder.decode(maps, *chunk, known), chunks))
        else:
            colors = list(on_threads(lambda chunk: decoder.decode(maps, *chunk), chunks))
        result = (colors[0] if len(chunks) == 1 else torch.cat(colors, dim=1).unflatten(1, query.shape)).float()
        if self.model.residual != "none":
            result = result + self._residual(query)
        return result * 0.5 + 0.5

    def render_grid(
        self, rows: Tensor, columns: Tensor, cell: Tensor, chunk_size: int | None = None, statistics: Statistics = ()
    ) -> Tensor:
        decoding = self._grid_decoding(rows, columns, cell)
        if decoding is None:
            return super().render_grid(rows, columns, cell, chunk_size, statistics)
        colors = decoding.colors(self.channels)
        if self.model.residual != "none":
            self._add_residual(colors, rows, columns)
        return colors.mul_(0.5).add_(0.5)

    def _grid_decoding(self, rows_at: Tensor, columns_at: Tensor, cell_size: Tensor) -> GridDecoding | None:
        """How to decode a pixel grid code by code; None where the parts cannot do that, or where it is not better."""
        model = self.model
        able = isinstance(model.decoder, BlockDecoder) and isinstance(model.sampling, GridSampling)
        able = able and all(conditioning.scope != "query" for conditioning in model.conditioning)
        if torch.is_grad_enabled() or not able:
            return None
        query = _on_host(rows_at, columns_at, cell_size)
        if self.frame.size != self.size:
            query = _in_frame(query, self.size, self.frame.size)
        rows, columns = map(plan_axis, model.sampling.axes(query, self.frame.grid))
        if rows is None or columns is None:
            return None
        cell = moved(query.cell, self.device)
        decoding = GridDecoding(
            rows, columns, model.decoder, model.sampling, self.maps(cell, query.known_cell), self.field.grid,
            corner=(self.frame.top, self.frame.left), conditions=self._image_conditions(cell.view(1, 2)),
        )  # fmt: skip
        return decoding if decoding.pays() else None

    def _add_residual(self, colors: Float[Tensor, "B channels H W"], rows: Tensor, columns: Tensor) -> None:
        """Add the LR image interpolated at a pixel grid: along columns, then along rows."""
        (row, row_weight), (column, column_weight) = (
            pixels_along(moved(axis, self.device), side, self.model.residual)
            for axis, side in ((rows, self.size[0]), (columns, self.size[1]))
        )
        image = self.field.image.permute(0, 2, 3, 1).contiguous()  # the order of colors in memory
        wide = _weighted(image, 2, column - self.tile.left, column_weight)
        target = colors.permute(0, 2, 3, 1)

        def add(band: slice) -> None:
            target[:, band] += _weighted(wide, 1, row[:, band] - self.tile.top, row_weight[:, band])

        on_cpu = self.device.type == "cpu"
        step = max(1, RESIDUAL_PIXELS // max(1, len(columns))) if on_cpu else max(1, len(rows))
        bands = [slice(first, first + step) for first in range(0, len(rows), step)]
        for _ in on_threads(add, bands) if on_cpu else map(add, bands):
            pass

    def partial_statistic(self, query: Query, statistics: Statistics) -> Tensor:
        maps, chunks = self._decodable(query)
        return self._mean(maps, chunks, self._known(statistics))

    def own_loss(self, where: Query | Tensor, cell: Tensor | None, target: Tensor) -> Tensor:
        query = self.as_query(where, cell, len(self.field.image))
        sites, conditions, maps = self._for_decoder(query)
        wanted = target * 2 - 1
        if self.model.residual != "none":
            wanted = wanted - self._residual(query)
        loss: Tensor = self.model.decoder.own_loss(maps, sites, conditions, wanted)
        return loss

    def held_bytes(self) -> int:
        prepared = self._prepared[1].values() if self._prepared else ()
        return sum(tensor.nbytes for tensor in (self.field.image, self.field.features, *prepared))

    def maps(self, cell: Float[Tensor, "b *q 2"], known: Float[Tensor, "1 2"] | None = None) -> Maps:
        """What the decoder prepared: once per image, or once per image and cell if it is scale dependent.

        ``known`` is ``Query.known_cell``. Raises ValueError if it is scale dependent and an image has several cells.
        """
        scale_dependent = self.model.decoder.scale_dependent
        cell = _one_cell(cell) if scale_dependent else cell
        key = (cell if known is None else known) if scale_dependent else None
        if self._prepared is None or not _same(self._prepared[0], key):
            conditions = self._image_conditions(cell) if scale_dependent else {}
            self._prepared = key, self.model.decoder.prepare(self.field, conditions)
        return self._prepared[1]

    def _known(self, statistics: Statistics) -> Known:
        known: Known = ()
        for statistic in statistics:
            known = self.model.decoder.with_statistic(known, statistic)
        return known

    def _mean(self, maps: Maps, chunks: list[_Chunk], known: Known) -> Tensor:
        """The next statistic of the queries in ``chunks``."""
        mean = RunningMean()
        partial = self.model.decoder.partial_statistic
        for (sites, _), part in zip(chunks, on_threads(lambda chunk: partial(maps, *chunk, known), chunks)):
            mean.add(part, math.prod(sites.index.shape[2:]))
        return mean.value()

    def _decodable(self, query: Query) -> tuple[Maps, list[_Chunk]]:
        """The arguments of ``decode`` for a query; on a CPU, without gradients, in chunks that fit its caches."""
        sites, conditions, maps = self._for_decoder(query)
        count = self._decoded_at_once(maps)
        in_one = self.device.type != "cpu" or self.num_statistics is None or torch.is_grad_enabled()
        if in_one or math.prod(query.shape) <= count:
            return maps, [(sites, conditions)]
        return maps, list(_split(sites, conditions, query.shape, count))

    def _for_decoder(self, query: Query) -> tuple[Sites, dict[str, Tensor], Maps]:
        """The sites, conditions and maps of a query."""
        model = self.model
        if self.frame.size != self.size:
            query = _in_frame(query, self.size, self.frame.size)
        sites = model.sampling(query, self.frame.grid)
        conditions = self._conditions(query, sites)
        if self.field.grid != self.frame.grid:  # a tile
            index = _own_index(sites.index, self.frame.grid[1], self.field.grid[1], self.frame.top, self.frame.left)
            sites = evolve(sites, index=index)
        return sites, conditions, self.maps(query.cell, query.known_cell)

    def _decoded_at_once(self, maps: Maps) -> int:
        """How many queries one call of ``decode`` has on a CPU."""
        decoder = self.model.decoder
        if isinstance(decoder, ChunkingDecoder):
            return decoder.queries_at_once
        gathered = sum(values.shape[-1] for values in maps.values())
        return max(128, CACHE // (4 * gathered * self.model.sampling.neighbours)) if gathered else QUERY_CHUNK

    def _conditions(self, query: Query, sites: Sites) -> dict[str, Tensor]:
        model, grid = self.model, self.frame.grid
        return {name: module(query, sites, grid) for name, module in zip(model.condition_names, model.conditioning)}

    def _image_conditions(self, cell: Float[Tensor, "b 2"]) -> "_ImageConditions":
        """The conditions of scope "image", computed for one query with this cell."""
        center = Query.points(cell.new_zeros(len(cell), 1, 2), cell.unsqueeze(1))
        sites = self.model.sampling(center, self.frame.grid)
        model = self.model
        return _ImageConditions(
            {
                name: module(center, sites, self.frame.grid)[0, :, 0]
                for name, module in zip(model.condition_names, model.conditioning)
                if module.scope == "image"
            }
        )

    def _residual(self, query: Query) -> Tensor:
        image, (index, weight) = self.field.image, pixels_around(query, self.size, self.model.residual)
        if (image.shape[-2], image.shape[-1]) != self.size:  # a tile
            index = _own_index(index, self.size[1], image.shape[-1], self.tile.top, self.tile.left)
        return blend(gather(as_rows(image), index), weight)


class _ImageConditions(dict[str, Tensor]):
    """Conditions by name, for ``Decoder.prepare``."""

    def __missing__(self, name: str) -> Tensor:
        known = ", ".join(map(repr, self)) or "none"
        raise ValueError(f"'prepare' needs the condition {name!r} with scope 'image'; of that scope here: {known}")


def _weighted(image: Tensor, dim: int, index: Int[Tensor, "P n"], weight: Float[Tensor, "P n"]) -> Tensor:
    """The weighted sum of P pixels along one axis of an image (B, h, w, channels)."""
    shape = [-1, *[1] * (3 - dim)]
    total = image.index_select(dim, index[0])
    if len(index) > 1:
        total *= weight[0].view(shape)
        total.addcmul_(image.index_select(dim, index[1]), weight[1].view(shape))
    return total


def _on_host(rows: Tensor, columns: Tensor, cell: Tensor) -> Query:
    """A pixel grid on the CPU, read from a GPU in one copy."""
    if any(part.device.type != "cpu" for part in (rows, columns, cell)):
        parts = [part.float().to(rows.device) for part in (rows, columns, cell)]
        rows, columns, cell = torch.cat(parts).cpu().split([len(part) for part in parts])
    return Query.grid(rows, columns, cell)


def _in_frame(query: Query, size: Size, frame: Size) -> Query:
    """A query of an image of ``size``, in the coordinates of that image padded to ``frame``."""
    ratio = [side / padded for side, padded in zip(size, frame)]
    y, x = ((place + 1) * share - 1 for place, share in zip(query.places, ratio))
    known = None if query.known_cell is None else _times(query.known_cell, ratio)
    query = evolve(query, cell=_times(query.cell, ratio), known_cell=known)
    if query.axes is not None:
        return evolve(query, axes=(y.flatten(), x.flatten()))
    return evolve(query, coord=torch.stack([y, x], dim=-1))


def _times(pairs: Float[Tensor, "*any 2"], factors: Sequence[float]) -> Float[Tensor, "*any 2"]:
    """Pairs (y, x) times a factor for each axis. Factors in a tensor would have to be copied to the device."""
    return torch.stack([pairs[..., axis] * factor for axis, factor in enumerate(factors)], dim=-1)


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two cells are equal. It waits for a GPU only if both are there."""
    if one is None or other is None:
        return one is other
    return one is other or (one.device == other.device and torch.equal(one, other))


def _own_index(index: Int[Tensor, "*any"], width: int, own: int, top: int, left: int) -> Int[Tensor, "*any"]:
    """Indices into a grid of ``width``, as indices into a part of it that begins at (top, left) and is ``own`` wide."""
    skipped = top * own + left
    return index - (index // width * (width - own) + skipped if own != width else skipped)


def _one_cell(cell: Float[Tensor, "b *q 2"]) -> Float[Tensor, "b 2"]:
    """The cell of each image. Raises ValueError if an image has several."""
    cells = cell.reshape(len(cell), -1, 2)
    if cells.shape[1] > 1 and (cells != cells[:, :1]).any():
        raise ValueError("cell: this decoder prepares an image for one cell at a time; query one cell per call")
    return cells[:, 0]


def _split(sites: Sites, conditions: Mapping[str, Tensor], shape: tuple[int, ...], count: int) -> Iterator[_Chunk]:
    """Queries of ``shape``, flattened, in chunks of ``count``."""
    sites = Sites(_flat(sites.index, shape), _flat(sites.offset, shape), _flat(sites.weight, shape))
    conditions = {name: _flat(values, shape) for name, values in conditions.items()}
    for first in range(0, math.prod(shape), count):
        chunk = slice(first, first + count)
        own = Sites(sites.index[:, :, chunk], sites.offset[:, :, chunk], sites.weight[:, :, chunk])
        yield own, {name: values[:, :, chunk] for name, values in conditions.items()}


def _flat(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(K, B or 1, *Q, ...), or broadcastable to it, as (K, B or 1, N, ...) for N = prod(Q)."""
    rest = values.shape[2 + len(shape) :]
    return values.expand(*values.shape[:2], *shape, *rest).reshape(*values.shape[:2], -1, *rest)
