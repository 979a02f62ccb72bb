"""LINF (Yao et al., CVPR 2023) as its paper's code computes it, plainly in PyTorch, to measure and to compare with.

The temperature is 0. The waves of the four corners are computed and joined for all queries of 256 rows, and the flow is
inverted layer by layer. The functions read the parameters of our models ``linf`` and ``linf-patch``, and return the
same colors up to rounding.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import liif_core

CORNERS = [(-1, -1), (-1, 1), (1, -1), (1, 1)]
NUDGE = 1e-6
ROWS = 256  # that the published evaluation computes at once


def decode(model: Any, features: Tensor, image: Tensor, size: tuple[int, int]) -> Tensor:
    """Everything after the encoder: (B, 3, H, W) in [0, 1] space, for an image in [0, 1]."""
    if not hasattr(model, "decoder"):
        return decode_patches(model, features, image, size)
    network, batch = model.decoder.network, len(features)
    maps = network.coefficient(features), network.frequency(features)
    cell = torch.tensor([2 / side for side in size])
    coord = liif_core.make_coord(size, flatten=False).expand(batch, -1, -1, -1)
    parts = []
    for rows in coord.split(ROWS, dim=1):
        flat = rows.flatten(1, 2)
        parts.append(colors(network, maps, flat, cell) + residual(image * 2 - 1, flat))
    return torch.cat(parts, dim=1).transpose(1, 2).unflatten(2, size) * 0.5 + 0.5


def decode_patches(
    model: Any, features: Tensor, image: Tensor, size: tuple[int, int], published_edge: bool = False
) -> Tensor:
    """The same of patches of 3 x 3 pixels. Coordinates continue where patches reach beyond the picture.

    ``published_edge``: coordinates are 0 there, as in published code: another result.
    """
    network, batch = model.network, len(features)
    maps = network.coefficient(features), network.frequency(features)
    cell = torch.tensor([2 / side for side in size])
    missing = [3 - side % 3 for side in size]
    coord = liif_core.make_coord(size, flatten=False)
    if published_edge:
        coord = F.pad(coord, (0, 0, 0, missing[1], 0, missing[0]))
    else:
        axes = [-1 + 1 / side + 2 / side * torch.arange(side + more).float() for side, more in zip(size, missing)]
        coord = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    centers = coord[1::3, 1::3]
    shape = centers.shape[0], centers.shape[1]
    patches = colors(network, maps, centers.reshape(1, -1, 2).expand(batch, -1, -1), cell)
    picture = F.pixel_shuffle(patches.transpose(1, 2).unflatten(2, shape), 3)[:, :, : size[0], : size[1]]
    whole = liif_core.make_coord(size).expand(batch, -1, -1)
    return (picture + residual(image * 2 - 1, whole).transpose(1, 2).unflatten(2, size)) * 0.5 + 0.5


def colors(network: Any, maps: tuple[Tensor, Tensor], coord: Tensor, cell: Tensor) -> Tensor:
    """(B, N, size of the flow), without the residual; for one cell (2,), or one for each query (B, N, 2)."""
    return inverted(network.flow, conditions(network, maps, coord, cell))


def conditions(network: Any, maps: tuple[Tensor, Tensor], coord: Tensor, cell: Tensor) -> Tensor:
    """What the network gives the flow: (B, N, 2 * layers * size)."""
    height, width = maps[0].shape[-2:]
    size = torch.tensor([height, width])
    homes = liif_core.make_coord((height, width), flatten=False).permute(2, 0, 1).expand(len(coord), -1, -1, -1)
    phase = F.linear(cell * size, network.phase.weight)
    tokens, areas = [], []
    for down, across in CORNERS:
        place = coord + torch.tensor([down / height + NUDGE, across / width + NUDGE])
        offset = (coord - sampled(homes, place)) * size
        along_y, along_x = sampled(maps[1], place).chunk(2, dim=-1)
        angle = math.pi * (along_y * offset[..., :1] + along_x * offset[..., 1:] + phase)
        tokens.append(sampled(maps[0], place) * torch.cat([angle.cos(), angle.sin()], dim=-1))
        areas.append(offset.prod(-1).abs() + 1e-9)
    total = torch.stack(areas).sum(0)
    x = torch.cat([token * (area / total).unsqueeze(-1) for token, area in zip(tokens, reversed(areas))], dim=-1)
    for layer in network.layers[:-1]:
        x = layer(x).relu()
    return network.layers[-1](x)


def inverted(flow: Any, given: Tensor, z: Tensor | None = None) -> Tensor:
    """The colors (..., size) that the flow maps to ``z``, or to zeros; matrices are inverted in each call."""
    *linears, last = flow.linears
    z = torch.zeros(*given.shape[:-1], last.out_features) if z is None else z
    x = F.linear(z - last.bias, torch.linalg.inv(last.weight))
    numbers = given.unflatten(-1, (len(linears), 2, -1))
    for i in reversed(range(len(linears))):
        scale, shift = numbers[..., i, 0, :], numbers[..., i, 1, :]
        x = (x - shift) / (torch.sigmoid(scale + 2) + 1e-4)
        x = F.linear(x - linears[i].bias, torch.linalg.inv(linears[i].weight))
    return x


def sampled(maps: Tensor, place: Tensor) -> Tensor:
    """(B, C, h, w) at the nearest code of each position (B, N, 2) -> (B, N, C)."""
    inside = place.clamp(-1 + NUDGE, 1 - NUDGE).flip(-1).unsqueeze(1)
    return F.grid_sample(maps, inside, mode="nearest", align_corners=False)[:, :, 0].transpose(1, 2)


def residual(image: Tensor, coord: Tensor) -> Tensor:
    """The bilinear image in [-1, 1] space at coordinates (B, N, 2): (B, N, 3)."""
    place = coord.flip(-1).unsqueeze(1)
    values = F.grid_sample(image, place, mode="bilinear", padding_mode="border", align_corners=False)
    return values[:, :, 0].transpose(1, 2)
