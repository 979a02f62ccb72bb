"""The window of latent codes around a query: the nearest code, and all codes up to a radius away from it."""

import torch
from attrs import frozen
from attrs.validators import ge
from torch import Tensor, nn

from liif_core import Query, Sites, Size, option
from liif_core.nn import nearest_code


@frozen
class WindowOptions:
    radius: int = option(
        "Codes on each side of the nearest one, along each axis; a query reads (2 radius + 1)^2 codes.", 3, check=ge(1)
    )


class Window(nn.Module):
    """The codes up to ``radius`` away from the nearest one, row by row, with equal weights.

    Codes outside the grid have weight 0. Their offsets are those of the places where they would be; their index is that
    of the nearest code inside.
    """

    def __init__(self, options: WindowOptions):
        super().__init__()
        self.reach = options.radius
        self.neighbours = (2 * options.radius + 1) ** 2

    def forward(self, query: Query, grid: Size) -> Sites:
        with torch.autocast(query.cell.device.type, enabled=False):
            rows, columns = (window_axis(place, side, self.reach) for place, side in zip(query.places, grid))
            return window_sites(rows, columns, grid, (0, 0), grid)


Axis = tuple[Tensor, Tensor]  # numbers of codes, some of them outside the grid, and offsets from them, (S, *shape)


def window_axis(position: Tensor, codes: int, radius: int) -> Axis:
    """The codes of the window along one axis."""
    nearest, center = nearest_code(position, codes)
    steps = torch.arange(-radius, radius + 1, device=position.device).view(-1, *[1] * position.ndim)
    return nearest + steps, (position - center) * codes - 2 * steps


def window_sites(rows: Axis, columns: Axis, grid: Size, corner: Size, part: Size) -> Sites:
    """The sites of a window. Indices are those of a part of the grid, of size ``part``, which begins at ``corner``."""
    index, offset, weight = [], [], []
    for (number, away), codes, first, count in zip((rows, columns), grid, corner, part):
        inside = (number >= 0) & (number < codes)
        index.append(number.clamp(0, codes - 1).sub(first).clamp(0, count - 1))
        offset.append(away)
        weight.append(inside / inside.sum(0, keepdim=True))
    down, across = torch.broadcast_tensors(offset[0].unsqueeze(1), offset[1].unsqueeze(0))
    return Sites(
        (index[0].unsqueeze(1) * part[1] + index[1].unsqueeze(0)).flatten(0, 1),
        torch.stack([down, across], dim=-1).flatten(0, 1),
        (weight[0].unsqueeze(1) * weight[1].unsqueeze(0)).flatten(0, 1),
    )
