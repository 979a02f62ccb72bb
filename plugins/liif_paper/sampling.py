"""Which latent codes a query reads: the nearest, or the four around it (local ensemble; LIIF, section 3).

Rounds as the published code does: the query is moved by half a feature cell and 1e-6 towards each corner and clamped to
the image, and the nearest code there is read, halves to even.
"""

from typing import Literal

import torch
from attrs import frozen
from torch import Tensor, nn

from liif_core import AxisSites, Component, Query, Sites, hookimpl, option
from liif_core.nn import nearest_code

_SHIFT = 1e-6  # moves a query that lies exactly between two codes to one side
_CERTAIN = 0.1  # summed distances from which _SMALLEST_AREA changes weights by less than 1e-6
_SMALLEST_AREA = 1e-9  # keeps the weights finite where all areas vanish


Ties = Literal["even", "away"]


@frozen
class NearestOptions:
    ties: Ties = option(
        "Which of two codes is read by a query exactly between them: the one with the even index, or 'away', the one "
        "with the larger index (Thera).",
        "even",
    )


def _axis(position: Tensor, codes: int, sides: tuple[int, ...], ties: Ties) -> tuple[Tensor, Tensor]:
    """(len(sides), *shape) indices and offsets, in feature-cell units, of the code on each side of a position."""
    indices, offsets = [], []
    for side in sides:
        index, center = nearest_code(position + (side / codes + _SHIFT) if side else position, codes, ties)
        indices.append(index)
        # "away" is for waves of high frequencies, whose phases rounding would change; the other order is LIIF's
        offsets.append((position - center) * codes if ties == "even" else position * codes - (2 * index + 1 - codes))
    return torch.stack(indices), torch.stack(offsets)


class NeighbourSampling(nn.Module):
    """The codes on the given sides of a query along each axis, weighted by area."""

    def __init__(self, sides: tuple[int, ...], ties: Ties = "even"):
        super().__init__()
        self.sides, self.ties = sides, ties
        self.neighbours = len(sides) ** 2
        self.reach = max(sides)

    def forward(self, query: Query, grid: tuple[int, int]) -> Sites:
        with torch.autocast(query.cell.device.type, enabled=False):
            return self._sites(query, grid)

    def _sites(self, query: Query, grid: tuple[int, int]) -> Sites:
        height, width = grid
        rows, columns = query.places  # of a grid, per row and per column; what follows broadcasts them to the grid
        row, row_offset = _axis(rows, height, self.sides, self.ties)
        column, column_offset = _axis(columns, width, self.sides, self.ties)
        # neighbours in the order (-, -), (-, +), (+, -), (+, +)
        row, row_offset = row.unsqueeze(1), row_offset.unsqueeze(1)
        column, column_offset = column.unsqueeze(0), column_offset.unsqueeze(0)
        index = (row * width + column).flatten(0, 1)
        offset = torch.stack(torch.broadcast_tensors(row_offset, column_offset), dim=-1).flatten(0, 1)
        return Sites(index, offset, _opposite_areas(row_offset, column_offset))

    def axes(self, query: Query, grid: tuple[int, int]) -> tuple[AxisSites, AxisSites]:
        assert query.axes is not None
        with torch.autocast(query.cell.device.type, enabled=False):
            rows, columns = (
                AxisSites(*_axis(axis, codes, self.sides, self.ties)) for axis, codes in zip(query.axes, grid)
            )
        return rows, columns

    def axis_weights(self, sites: AxisSites) -> Tensor:
        distance = sites.offset.abs()
        total = distance.sum(0)
        if self.neighbours == 1:
            return torch.ones_like(distance)
        return (distance.flip(0) / total).where(total > _CERTAIN, torch.nan)

    def weights(self, rows: AxisSites, columns: AxisSites) -> Tensor:
        return _opposite_areas(rows.offset[:, None, :, None], columns.offset[None, :, None, :])


def _opposite_areas(row: Tensor, column: Tensor) -> Tensor:
    """(K, ...): the weights of the neighbours, from offsets (S, 1, ...) and (1, S, ...).

    Each is the area between the query and the code diagonally opposite, as a part of the sum.
    """
    area = (row * column).abs().flatten(0, 1) + _SMALLEST_AREA
    return area.flip(0) / area.sum(0)


@hookimpl
def liif_samplings():
    return [
        Component("nearest", lambda options: NeighbourSampling((0,), options.ties), NearestOptions),
        Component("local-ensemble", lambda options: NeighbourSampling(sides=(-1, 1))),
    ]
