"""The LR image at a query, which a composed model may add to what its decoder says."""

import torch
from torch import Tensor

from liif_core.geometry import Size
from liif_core.protocols import Query


def pixels_around(query: Query, size: Size, kind: str) -> tuple[Tensor, Tensor]:
    """Which pixels of an image of ``size`` a query is interpolated from: index and weight, (P, B or 1, *Q).

    ``kind``: "nearest" (P = 1) or "bilinear" (P = 4). What lies outside is interpolated at the border.
    """
    if query.axes is None:
        places = query.coord.unbind(-1)
    else:
        places = query.axes[0].view(1, -1, 1), query.axes[1].view(1, 1, -1)
    pick = {"nearest": _nearest, "bilinear": _linear}[kind]
    (row, row_weight), (column, column_weight) = (pick(place, side) for place, side in zip(places, size))
    index = (row.unsqueeze(1) * size[1] + column.unsqueeze(0)).flatten(0, 1)
    return index, (row_weight.unsqueeze(1) * column_weight.unsqueeze(0)).flatten(0, 1)


def _pixel(place: Tensor, count: int) -> Tensor:
    """Coordinates as pixel numbers, fractions between; what lies outside is moved to the border."""
    return (((place + 1) * count - 1) / 2).clamp(0, count - 1)


def _nearest(place: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(1, *shape) index and weight of the pixel nearest to each place along one axis."""
    index = _pixel(place, count).round().long().unsqueeze(0)
    return index, torch.ones_like(index, dtype=torch.float32)


def _linear(place: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(2, *shape) indices and weights of the two pixels around each place along one axis."""
    position = _pixel(place, count)
    low = position.floor()
    index = torch.stack([low, (low + 1).clamp(max=count - 1)]).long()
    return index, torch.stack([1 - (position - low), position - low])
