"""Interpolation of the LR image at a query: the residual that a composed model may add to the decoder's output."""

import torch
from torch import Tensor

from liif_core.model.protocols import Query
from liif_core.sizes import Size


def pixels_around(query: Query, size: Size, kind: str) -> tuple[Tensor, Tensor]:
    """The pixels of an image of ``size`` that interpolation at a query reads: index and weight, (P, B or 1, *Q).

    ``kind``: "nearest" (P = 1) or "bilinear" (P = 4). Positions outside the image are moved to its border.
    """
    (row, row_weight), (column, column_weight) = (
        pixels_along(place, side, kind) for place, side in zip(query.places, size)
    )
    index = (row.unsqueeze(1) * size[1] + column.unsqueeze(0)).flatten(0, 1)
    return index, (row_weight.unsqueeze(1) * column_weight.unsqueeze(0)).flatten(0, 1)


def pixels_along(place: Tensor, count: int, kind: str) -> tuple[Tensor, Tensor]:
    """The same along one axis of ``count`` pixels: index and weight, (1 or 2, *shape) for ``place`` of any shape."""
    return {"nearest": _nearest, "bilinear": _linear}[kind](place, count)


def _pixel(place: Tensor, count: int) -> Tensor:
    """Coordinates as fractional pixel numbers, clamped to the image."""
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
