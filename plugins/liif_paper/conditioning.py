"""What the decoder is told besides the latent code: where the query lies from it, and how large its pixel is."""

import torch
from torch import Tensor, nn

from liif_core import Component, Query, Sites, hookimpl


class Coordinate(nn.Module):
    """The query's offset from the code (y, x), feature-cell units."""

    channels = 2

    def forward(self, query: Query, sites: Sites, grid: tuple[int, int]) -> Tensor:
        return sites.offset


class Cell(nn.Module):
    """The queried pixel's height and width, feature-cell units (cell decoding; LIIF, section 3)."""

    channels = 2

    def forward(self, query: Query, sites: Sites, grid: tuple[int, int]) -> Tensor:
        return (query.cell * torch.tensor(grid, device=query.cell.device)).unsqueeze(0)


@hookimpl
def liif_conditionings():
    return [
        Component("coordinate", lambda options: Coordinate()),
        Component("cell", lambda options: Cell()),
    ]
