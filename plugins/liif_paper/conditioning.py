"""The conditions of LIIF: the offset of a query from the latent code, and the size of its pixel (LIIF, section 3)."""

import torch
from attrs import frozen
from attrs.validators import gt, optional
from torch import Tensor, nn

from liif_core import Component, Query, Sites, hookimpl, option


class Coordinate(nn.Module):
    """The query's offset from the code (y, x), in feature-cell units."""

    channels = 2
    scope = "offset"

    def forward(self, query: Query, sites: Sites, grid: tuple[int, int]) -> Tensor:
        return sites.offset


@frozen
class CellOptions:
    max_scale: float | None = option(
        "Largest magnification that decoders see: smaller cells are given as 1 / max_scale of a feature cell (LTE: 4).",
        None,
        check=optional(gt(0)),
    )


class Cell(nn.Module):
    """The queried pixel's height and width, in feature-cell units (cell decoding; LIIF, section 3).

    With ``max_scale``, the cell of an axis magnified s times is cell * max(s / max_scale, 1), as in published
    evaluations of LTE and its successors. There s is 2 / cell, so the cell is at least 2 / max_scale.
    """

    channels = 2
    scope = "image"

    def __init__(self, options: CellOptions):
        super().__init__()
        self.smallest = 0.0 if options.max_scale is None else 2 / options.max_scale

    def forward(self, query: Query, sites: Sites, grid: tuple[int, int]) -> Tensor:
        # by axis: the sizes in a tensor would have to be copied to the device for every query
        cell = torch.stack([query.cell[..., axis] * codes for axis, codes in enumerate(grid)], dim=-1)
        return cell.clamp(min=self.smallest).unsqueeze(0)


@hookimpl
def liif_conditionings():
    return [
        Component("coordinate", lambda options: Coordinate()),
        Component("cell", Cell, CellOptions, lambda o: f"cell up to x{o.max_scale:g}" if o.max_scale else "cell"),
    ]
