"""Simple parts to check a component with: a latent field, the codes around a query, and conditions."""

import math

import torch
from torch import Tensor

from liif_core.model.protocols import LatentField, Query, Sites
from liif_core.shapes import Float
from liif_core.sizes import Size


class ReferenceField(LatentField):
    """A field whose codes are the features themselves."""

    def __init__(self, features: Float[Tensor, "B C h w"], image: Float[Tensor, "B c y x"]):
        self.features = features
        self.channels = features.shape[1]
        self.image = image

    def dense(self) -> Float[Tensor, "B C h w"]:
        return self.features


def reference_sites(query: Query, grid: Size, neighbours: int) -> Sites:
    """The K codes of a square around each query, weighted by closeness. Offsets are differentiable."""
    side = math.isqrt(neighbours - 1) + 1
    size = torch.tensor(grid, device=query.coord.device)
    position = (query.coord.detach() + 1) / 2 * size - 0.5  # in codes
    first = (position - (side - 2) / 2).floor()
    steps = torch.cartesian_prod(torch.arange(side), torch.arange(side))[:neighbours].to(first.device)
    place = first + steps.view(neighbours, *[1] * (first.ndim - 1), 2)
    place = torch.minimum(place.clamp(min=0), size - 1.0)
    offset = (query.coord - ((2 * place + 1) / size - 1)) * size
    weight = torch.softmax(-offset.detach().square().sum(-1), dim=0)
    return Sites((place[..., 0] * grid[1] + place[..., 1]).long(), offset, weight)


def reference_condition(name: str, width: int, query: Query, sites: Sites, grid: Size) -> Tensor:
    """A condition by name: the offset ("coordinate", 2), the cell ("cell", 2), or a smooth function of the offset."""
    if (name, width) == ("coordinate", 2):
        return sites.offset
    if (name, width) == ("cell", 2):
        return (query.cell * torch.tensor(grid, device=query.cell.device)).unsqueeze(0)
    step = torch.arange(1, width + 1, device=sites.offset.device)
    return torch.sin(sites.offset[..., :1] * step + sites.offset[..., 1:])
