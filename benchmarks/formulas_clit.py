"""CLIT (Chen et al., CVPR 2023) as its paper computes it, plainly in PyTorch, to measure and to compare with.

For each query, all keys and values of its window are sampled, the values are multiplied by their weights, and the whole
network runs on all of them. The functions read the parameters of our models, and return the same colors up to rounding.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import liif_core

CHUNK = 30_000  # queries that the published evaluation computes at once


def decode(model: Any, features: Tensor, image: Tensor, size: tuple[int, int], chunk: int = CHUNK) -> Tensor:
    """Everything after the encoder: (B, 3, H, W) in [0, 1] space, for an image in [0, 1]."""
    coord = liif_core.make_coord(size).expand(len(features), -1, -1)
    cell = torch.tensor([2 / side for side in size])
    colors = answer(model, features, image, coord, cell, chunk)
    return colors.transpose(1, 2).unflatten(2, size)


def answer(
    model: Any,
    features: Tensor,
    image: Tensor,
    coord: Tensor,
    cell: Tensor,
    chunk: int = CHUNK,
    grids: list[tuple[int, int]] | None = None,
) -> Tensor:
    """Colors (B, N, 3) in [0, 1] space at coordinates (B, N, 2), for one cell (2,).

    ``grids``: the sizes of the stages' grids, where the result has not the same scale along both axes.
    """
    if hasattr(model, "stages"):
        size = features.shape[-2], features.shape[-1]
        grids = grids or published_grids(size, round(2 / cell[0].item()) / size[0])
        total = cascade(model, features, coord, cell, grids, chunk)
    else:
        decoder = model.decoder
        total = stage(decoder.stage, decoder.position, decoder.entry(features), coord, cell, chunk)
    residual = sampled(image * 2 - 1, coord, "bilinear", "border")
    return (total + residual) * 0.5 + 0.5


def cascade(
    model: Any, features: Tensor, coord: Tensor, cell: Tensor, grids: list[tuple[int, int]], chunk: int
) -> Tensor:
    codes = model.entry(features)
    total = stage(model.stages[0], model.position, codes, coord, cell, chunk)
    for network, size in zip(model.stages[1:], grids[1:]):
        places = liif_core.make_coord(size).expand(len(codes), -1, -1)
        larger = sampled(codes, places, "bilinear", "zeros").transpose(1, 2).unflatten(2, size)
        total = stage(network, model.position, larger, coord, cell, chunk) + 0.75 * total
    return total


def published_grids(size: tuple[int, int], scale: float) -> list[tuple[int, int]]:
    """The scale, divided into 4, 4, ... and a rest; a stage's grid is larger by the product of the parts before."""
    parts = [scale]
    if scale > 4:
        parts, scale = [4.0], scale / 4
        while scale > 1:
            parts.append(4 if scale >= 4 else scale)
            scale /= 4
    factors = [math.prod(parts[:number]) for number in range(len(parts))]
    return [(round(size[0] * factor), round(size[1] * factor)) for factor in factors]


def stage(network: Any, position: Any, codes: Tensor, coord: Tensor, cell: Tensor, chunk: int) -> Tensor:
    """(B, N, 3) of codes (B, C, h, w), in chunks of queries."""
    query, key, value = network.query(codes), network.key(codes), network.value(codes)
    parts = [attention(network, position, query, key, value, part, cell) for part in coord.split(chunk, dim=1)]
    return torch.cat(parts, dim=1)


def attention(
    network: Any, position: Any, query: Tensor, key: Tensor, value: Tensor, coord: Tensor, cell: Tensor
) -> Tensor:
    heads, radius = network.heads, network.side // 2
    size = torch.tensor(key.shape[-2:])
    q = sampled(query, coord, "bilinear", "zeros").unflatten(-1, (1, heads, -1))
    centers = liif_core.make_coord(tuple(key.shape[-2:]), flatten=False).permute(2, 0, 1)[None]
    center = sampled(centers.expand(len(coord), -1, -1, -1), coord.clamp(-1 + 1e-6, 1 - 1e-6), "nearest", "border")
    steps = torch.cartesian_prod(*[torch.arange(-radius, radius + 1)] * 2)
    places = center.unsqueeze(2) + steps * 2 / size  # (B, N, K, 2)
    k, v = (
        sampled(maps, places.flatten(1, 2), "nearest", "zeros").view(*places.shape[:3], -1) for maps in (key, value)
    )
    k, v = k.unflatten(-1, (heads, -1)), v.unflatten(-1, (heads, -1))
    logits = (q * k).sum(-1) / k.shape[-1] ** 0.5
    if position is not None:
        offset = ((coord - center) * size).unsqueeze(2) - 2 * steps
        angle = offset.unsqueeze(-1) * position.frequencies  # (B, N, K, 2, frequencies)
        waves = torch.cat([angle.sin().flatten(-2), angle.cos().flatten(-2)], dim=-1)
        logits = logits + F.linear(waves, position.layer.weight)
    x = (logits.softmax(2).unsqueeze(-1) * v).flatten(2)
    if network.cell:
        x = torch.cat([x, (cell * size).expand(*x.shape[:2], 2)], dim=-1)
    for layer in network.layers[:-1]:
        x = F.gelu(layer(x))
    return network.layers[-1](x)


def sampled(maps: Tensor, coord: Tensor, mode: str, padding: str) -> Tensor:
    """(B, C, h, w) at positions (B, N, 2) -> (B, N, C)."""
    place = coord.flip(-1).unsqueeze(1)
    return F.grid_sample(maps, place, mode=mode, padding_mode=padding, align_corners=False)[:, :, 0].transpose(1, 2)
