"""HIIF (Jiang et al., CVPR 2025) as its paper's code computes it, plainly in PyTorch, to measure and to compare with.

The codes of the four corners, the cell and the digits of all queries are joined, and each layer runs over all of them.
The functions read the parameters of our decoder, and return the same colors up to rounding.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import liif_core

CORNERS = [(-1, -1), (-1, 1), (1, -1), (1, 1)]
NUDGE = 1e-6
LEVELS = 6


def sampled(maps: Tensor, place: Tensor) -> Tensor:
    """(B, C, h, w) at the nearest code of each position (B, N, 2) -> (B, N, C)."""
    inside = place.clamp(-1 + NUDGE, 1 - NUDGE).flip(-1).unsqueeze(1)
    return F.grid_sample(maps, inside, mode="nearest", align_corners=False)[:, :, 0].transpose(1, 2)


def digits(offset: Tensor, size: Tensor) -> list[Tensor]:
    """For each level, the digits (B, N, 2) of positions given by offsets (B, N, 2) from the first corner."""
    place = offset / 2
    place = torch.where(place > 0, place, 1 / size - place)
    return [torch.floor(torch.clip(place - 1e-9, 0, 1) * 2 ** (level + 1)) % 2 for level in range(LEVELS)]


def level_of(level: nn.Module, x: Tensor) -> Tensor:
    return level.second(F.gelu(level.first(level.norm(x))))


def attention(block: nn.Module, x: Tensor) -> Tensor:
    """(B, N, width) of (B, N, width), over all N queries."""
    query, key, value = (
        layer(x).unflatten(-1, (block.heads, -1)).transpose(1, 2) for layer in (block.query, block.key, block.value)
    )
    key, value = (
        F.layer_norm(values, values.shape[-1:], norm.weight, norm.bias)
        for values, norm in ((key, block.key_norm), (value, block.value_norm))
    )
    attended = (query @ (key.mT @ value / x.shape[1])).transpose(1, 2).flatten(2)
    return x + block.second(F.gelu(block.first(x + attended)))


def colors(decoder: nn.Module, maps: Tensor, image: Tensor, coord: Tensor, cell: Tensor) -> Tensor:
    """(B, N, out_channels) in [-1, 1] space, of all queries (B, N, 2) together; ``image`` in [-1, 1], cell (2,).

    ``maps`` (B, width, h, w) are the encoder's features after the decoder's convolution.
    """
    height, width = maps.shape[-2:]
    size = torch.tensor([height, width])
    homes = liif_core.make_coord((height, width), flatten=False).permute(2, 0, 1).expand(len(maps), -1, -1, -1)
    codes, offsets, areas = [], [], []
    for down, across in CORNERS:
        place = coord + torch.tensor([down / height + NUDGE, across / width + NUDGE])
        codes.append(sampled(maps, place))
        offsets.append((coord - sampled(homes, place)) * size)
        areas.append((offsets[-1] / 2).prod(-1).abs() + 1e-9)
    total = torch.stack(areas).sum(0)
    weighted = [code * (area / total).unsqueeze(-1) for code, area in zip(codes, reversed(areas))]
    position = digits(offsets[0], size)
    x = torch.cat([*weighted, (cell * size).expand_as(coord), position[0]], dim=-1)
    x = level_of(decoder.levels[0], x)
    for block in decoder.blocks:
        x = attention(block, x)
    for level, its_digits in zip(decoder.levels[1:], position[1:]):
        x = level_of(level, torch.cat([x, its_digits], dim=-1))
    place = coord.flip(-1).unsqueeze(1)
    residual = F.grid_sample(image, place, mode="bilinear", padding_mode="border", align_corners=False)
    return x + residual[:, :, 0].transpose(1, 2)


def decode(model: nn.Module, features: Tensor, image: Tensor, size: tuple[int, int], rows: int | None = None) -> Tensor:
    """Everything after the encoder: (B, 3, H, W) in [0, 1] space, for an image in [0, 1].

    ``rows``: as published code evaluates, windows of that many rows, each of which attends to itself alone: another
    result.
    """
    cell = torch.tensor([2 / side for side in size])
    coord = liif_core.make_coord(size, flatten=False).expand(len(features), -1, -1, -1)
    maps = model.decoder.codes(features)
    windows = [window.flatten(1, 2) for window in coord.split(rows or size[0], dim=1)]
    parts = [colors(model.decoder, maps, image * 2 - 1, window, cell) for window in windows]
    return torch.cat(parts, dim=1).transpose(1, 2).unflatten(2, size) * 0.5 + 0.5
