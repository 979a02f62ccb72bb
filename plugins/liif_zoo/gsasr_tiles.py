"""Positions in tiles, and the Gaussians that reach into each tile, in batches of bounded memory."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from liif_core.shapes import Float, Int

_TILE = 3.0  # side of a tile of a pixel grid, in LR pixels
_SIDE = 24  # pixels along a side of such a tile, at most
_GROUP = 16  # scattered points that are computed together
_PAIRS = 1 << 21  # of a tile and a Gaussian that are listed at once
_VALUES = 1 << 19  # of Gaussians at positions that are computed at once on a CPU
_DEVICE_VALUES = 1 << 25  # the same on other devices


class Positions:
    """Positions in tiles. The tiles of all images are stacked: those of the second lie below those of the first.

    Positions are computed in groups of one size; each belongs to one tile.
    """

    first: tuple[Tensor, Tensor]  # lowest position of each tile row, and of each tile column
    last: tuple[Tensor, Tensor]  # highest
    groups: tuple[int, int]  # rows and columns of a group; of scattered points, all rows
    tile: Int[Tensor, " groups"]  # the tile of each group; does not descend
    images: int

    @property
    def tiles(self) -> int:
        """Of one image."""
        return len(self.first[0]) * len(self.first[1])

    def ranges(self, mean: Float[Tensor, "B G 2"], reach: Float[Tensor, "B G 2"]) -> tuple[Tensor, Tensor]:
        """The first and last tile row and tile column that each Gaussian reaches, (B * G, 2); first > last for none."""
        first, last = [], []
        for axis in range(2):
            first.append(torch.searchsorted(self.last[axis], (mean - reach)[..., axis].contiguous()))
            last.append(torch.searchsorted(self.first[axis], (mean + reach)[..., axis].contiguous(), right=True) - 1)
        stacked = torch.arange(self.images, device=mean.device).unsqueeze(1) * len(self.first[0])
        reached = [torch.stack([rows + stacked, columns], dim=-1).flatten(0, 1) for rows, columns in (first, last)]
        return reached[0], reached[1]

    def take(self, groups: Tensor) -> tuple[Float[Tensor, "g R"], Float[Tensor, "g C"]]:
        """y and x of the positions of some groups."""
        raise NotImplementedError

    def together(self, sums: Float[Tensor, "groups P channels"]) -> Tensor:
        """The sums of all groups as (B, *Q, channels)."""
        raise NotImplementedError

    def apart(self, sums: Tensor) -> Float[Tensor, "groups P channels"]:
        """The transpose of ``together``, for gradients."""
        raise NotImplementedError


class Grid(Positions):
    """Each tile is one group, of some rows and some columns. The last ones repeat the last position."""

    def __init__(self, rows: Tensor, columns: Tensor, images: int):
        self.shape, self.images = (len(rows), len(columns)), images
        axes = []
        for axis in (rows, columns):
            pitch = float(axis[-1] - axis[0]) / max(1, len(axis) - 1)
            side = min(_SIDE, len(axis), max(1, round(_TILE / pitch)) if pitch > 0 else _SIDE)
            place = torch.arange(-(-len(axis) // side) * side, device=axis.device).clamp(max=len(axis) - 1)
            axes.append(axis[place].view(-1, side))
        self.axes, self.groups = (axes[0], axes[1]), (axes[0].shape[1], axes[1].shape[1])
        self.first = axes[0][:, 0].contiguous(), axes[1][:, 0].contiguous()
        self.last = axes[0][:, -1].contiguous(), axes[1][:, -1].contiguous()
        self.across = len(axes[1])
        self.tile = torch.arange(images * len(axes[0]) * self.across, device=rows.device)

    def take(self, groups: Tensor) -> tuple[Tensor, Tensor]:
        rows, columns = self.axes
        return rows[groups // self.across % len(rows)], columns[groups % self.across]

    def together(self, sums: Tensor) -> Tensor:
        parts = sums.view(self.images, -1, self.across, *self.groups, sums.shape[-1])
        whole = parts.transpose(2, 3).flatten(3, 4).flatten(1, 2)
        return whole[:, : self.shape[0], : self.shape[1]]

    def apart(self, sums: Tensor) -> Tensor:
        (height, width), (down, across) = self.shape, self.groups
        whole = F.pad(sums, (0, 0, 0, -width % across, 0, -height % down))
        parts = whole.unflatten(2, (-1, across)).unflatten(1, (-1, down)).transpose(2, 3)
        return parts.reshape(-1, down * across, sums.shape[-1])


class Points(Positions):
    """Points sorted by tile. Each tile has groups of ``_GROUP`` points; its last one repeats its last point."""

    def __init__(self, points: Tensor):
        self.images, count, _ = points.shape
        low, high = points.amin((0, 1)), points.amax((0, 1))
        # tiles no larger than those of grids, since each tile's Gaussians are held at once; of many points, smaller
        sides = [side / _TILE for side in (high - low).tolist()]
        finer = max(1.0, count / (2 * _GROUP) / max(1.0, sides[0] * sides[1])) ** 0.5
        counts = [max(1, math.ceil(side * finer)) for side in sides]
        number, self.first, self.last = [], (), ()
        for axis, n in enumerate(counts):
            edges = torch.linspace(0, 1, n + 1, device=points.device) * (high - low)[axis] + low[axis]
            number.append(torch.searchsorted(edges[1:-1].contiguous(), points[..., axis].contiguous(), right=True))
            self.first, self.last = (*self.first, edges[:-1].contiguous()), (*self.last, edges[1:].contiguous())
        image = torch.arange(self.images, device=points.device).unsqueeze(1)
        tile = ((image * counts[0] + number[0]) * counts[1] + number[1]).flatten()
        sorted_tile, self.order = tile.sort()
        self.points = points.flatten(0, 1)[self.order]
        held = torch.bincount(sorted_tile, minlength=self.images * counts[0] * counts[1])
        parts = (held + _GROUP - 1) // _GROUP
        self.groups = _GROUP, 1
        self.tile = torch.repeat_interleave(parts)
        begin = (held.cumsum(0) - held)[self.tile]
        number_in_tile = torch.arange(len(self.tile), device=tile.device) - (parts.cumsum(0) - parts)[self.tile]
        place = (begin + number_in_tile * _GROUP).unsqueeze(1) + torch.arange(_GROUP, device=tile.device)
        end = (begin + held[self.tile]).unsqueeze(1)
        self.own, self.place = place < end, torch.minimum(place, end - 1)

    def take(self, groups: Tensor) -> tuple[Tensor, Tensor]:
        y, x = self.points[self.place[groups]].unbind(-1)
        return y, x

    def together(self, sums: Tensor) -> Tensor:
        result = sums.new_empty(len(self.order), sums.shape[-1])
        result[self.order] = sums[self.own]
        return result.unflatten(0, (self.images, -1))

    def apart(self, sums: Tensor) -> Tensor:
        result = sums.new_zeros(*self.own.shape, sums.shape[-1])
        result[self.own] = sums.flatten(0, 1)[self.order]
        return result


Batch = tuple[Tensor, Tensor, Tensor | None]  # groups; the Gaussians of each; which of these are real


def bands(positions: Positions, mean: Tensor, reach: Tensor) -> Iterator[list[Batch]]:
    """Groups of positions with the Gaussians that reach their tiles; groups that none reaches are left out.

    One list is of some tile rows, whose lists of Gaussians are held at once.
    """
    first, last = positions.ranges(mean, reach)
    seen = (last >= first).all(1)
    down, across = positions.images * len(positions.first[0]), len(positions.first[1])
    # how many pairs each tile row has: what begins there less what ended before, added up
    changes, wide = first.new_zeros(down + 1), last[seen, 1] - first[seen, 1] + 1
    changes.index_add_(0, first[seen, 0], wide).index_add_(0, last[seen, 0] + 1, -wide)
    per_row = changes[:-1].cumsum(0).tolist()
    rows = positions.tile // across
    top = 0
    while top < down:
        bottom, pairs = top + 1, per_row[top]
        while bottom < down and pairs + per_row[bottom] <= _PAIRS:
            pairs, bottom = pairs + per_row[bottom], bottom + 1
        if pairs:
            gaussian, held = _pairs(first, last, seen, (top, bottom), across)
            inside = torch.searchsorted(rows, torch.tensor([top, bottom], device=rows.device)).tolist()
            groups = torch.arange(*inside, device=rows.device)
            tile = positions.tile[groups] - top * across
            begin = held.cumsum(0) - held
            limit = (_VALUES if rows.device.type == "cpu" else _DEVICE_VALUES) // math.prod(positions.groups)
            yield list(_batches(groups, gaussian, begin[tile], held[tile], limit))
        top = bottom


def _pairs(first: Tensor, last: Tensor, seen: Tensor, rows: tuple[int, int], across: int) -> tuple[Tensor, Tensor]:
    """The Gaussians of each tile of some tile rows, one tile after the other, and how many each tile has."""
    top, bottom = rows
    found = (seen & (first[:, 0] < bottom) & (last[:, 0] >= top)).nonzero().squeeze(1)
    low, high = first[found], last[found]
    begin, wide = low[:, 0].clamp(min=top), high[:, 1] - low[:, 1] + 1
    count = (high[:, 0].clamp(max=bottom - 1) - begin + 1) * wide
    number = torch.repeat_interleave(count)
    step = torch.arange(len(number), device=first.device) - (count.cumsum(0) - count)[number]
    wide = wide[number]
    row = torch.div(step, wide, rounding_mode="floor")
    tile = ((begin - top) * across + low[:, 1])[number] + row * across + step - row * wide
    order = tile.int().argsort(stable=True)
    return found[number[order]], torch.bincount(tile, minlength=(bottom - top) * across)


def _batches(groups: Tensor, gaussian: Tensor, begin: Tensor, held: Tensor, limit: int) -> Iterator[Batch]:
    """Batches of at most ``limit`` Gaussians, or of one group.

    Group ``groups[i]`` has ``held[i]`` Gaussians, from place ``begin[i]`` on. Those of a batch have about as many each.
    """
    held, order = held.sort()
    groups, begin, counts = groups[order], begin[order], held.tolist()
    start = next((i for i, count in enumerate(counts) if count), len(counts))
    while start < len(counts):
        stop = start + 1
        while stop < len(counts) and (stop + 1 - start) * counts[stop] <= limit:
            stop += 1
        step = torch.arange(counts[stop - 1], device=held.device)
        place = begin[start:stop].unsqueeze(1) + step
        real = None if counts[start] == len(step) else step < held[start:stop].unsqueeze(1)
        yield groups[start:stop], gaussian[place if real is None else torch.where(real, place, 0)], real
        start = stop
