"""CiaoSR (Cao et al., CVPR 2023) as its paper's code computes it, plainly in PyTorch, to measure and to compare with.

The non-local map has its whole attention matrix in memory. Each query runs both networks, from the codes themselves,
for each of its neighbors. The functions read the parameters of our decoder, and return the same colors up to rounding.
The non-local map is that of the whole image; the published code computes it in windows, which changes the result.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import liif_core
from liif_core.model.geometry import mirrored

NUDGE = 1e-6
SIDES = {1: (0,), 2: (-1, 1), 3: (-1, 0, 1)}


def mlp(layers: nn.ModuleList, x: Tensor) -> Tensor:
    for layer in layers[:-1]:
        x = layer(x).relu()
    return layers[-1](x)


def sampled(maps: Tensor, place: Tensor) -> Tensor:
    """(B, C, h, w) at the nearest code of each position (B, N, 2) -> (B, N, C)."""
    inside = place.clamp(-1 + NUDGE, 1 - NUDGE).flip(-1).unsqueeze(1)
    return F.grid_sample(maps, inside, mode="nearest", align_corners=False)[:, :, 0].transpose(1, 2)


# Once per image


def non_local(attention: nn.Module, features: Tensor, scale: int) -> Tensor:
    """(B, C, h, w) of features of that shape: what similar places look like at a larger scale."""
    height, width = features.shape[-2:]
    size = [-(-side // scale) * scale for side in (height, width)]
    padded = features[:, :, mirrored(height, size[0])][:, :, :, mirrored(width, size[1])]
    smaller = F.interpolate(padded, size=[side // scale for side in size], mode="bilinear", align_corners=False)
    values = F.unfold(attention.value(padded), 3 * scale, padding=scale, stride=scale)
    keys = F.unfold(attention.key(smaller), 3, padding=1)
    keys = keys / torch.maximum(keys.norm(dim=1, keepdim=True), attention.smallest_norm)
    queries = F.unfold(attention.query(padded), 3, padding=1)
    weights = torch.softmax(10 * queries.mT @ keys, dim=2)
    larger = F.fold(values @ weights.mT, [side * scale for side in size], 3 * scale, padding=scale, stride=scale)
    return attention.down[str(scale)](larger)[:, :, :height, :width] / 6


def prepared(decoder: nn.Module, features: Tensor) -> Tensor:
    """(B, channels, h, w): unfolded features, and the non-local maps."""
    unfolded = F.unfold(features, decoder.size, padding=decoder.size // 2).unflatten(2, features.shape[-2:])
    return torch.cat([unfolded, *(non_local(decoder.attention, features, scale) for scale in decoder.scales)], dim=1)


# Once per query


def shifted(coord: Tensor, cell: Tensor, size: tuple[int, int], local_size: int) -> Iterator[Tensor]:
    """The positions (B, N, 2) around queries whose nearest codes are blended. Along one code, nothing is shifted."""
    away = torch.stack([(1 - cell[..., axis]) / (n - 1 or float("inf")) for axis, n in enumerate(size)], dim=-1)
    for down in SIDES[local_size]:
        for across in SIDES[local_size]:
            side = torch.tensor([down, across])
            yield coord + (side * away + NUDGE * side.abs())


def decoded(decoder: nn.Module, codes: Tensor, coord: Tensor, cell: Tensor, local_size: int = 2) -> Tensor:
    """(B, N, out_channels) in [-1, 1] space, without the residual; ``codes`` (B, channels, h, w) are ``prepared``.

    ``coord`` and ``cell`` are (B, N, 2).
    """
    size = codes.shape[-2], codes.shape[-1]
    home = liif_core.make_coord(size, flatten=False).permute(2, 0, 1).expand(len(codes), -1, -1, -1)
    own = sampled(codes[:, : decoder.unfolded], coord)
    products, values = [], []
    for place in shifted(coord, cell, size, local_size):
        code = sampled(codes, place)
        about = torch.cat([coord - sampled(home, place), cell], dim=-1) * torch.tensor(size * 2)
        near = code[..., : decoder.unfolded]
        key = near * mlp(decoder.key_layers, torch.cat([near, about], dim=-1))
        values.append(code * mlp(decoder.value_layers, torch.cat([code, about], dim=-1)))
        products.append((own * key).sum(-1) / decoder.softmax_scale)
    weights = torch.stack(products).softmax(dim=0).unsqueeze(-1)
    return mlp(decoder.query_layers, (weights * torch.stack(values)).sum(0))


def decode(model: nn.Module, features: Tensor, image: Tensor, size: tuple[int, int], chunk: int = 30_000) -> Tensor:
    """Everything after the encoder: (B, 3, H, W) in [0, 1] space, for an image in [0, 1], in chunks of queries."""
    coord = liif_core.make_coord(size).expand(len(features), -1, -1)
    cell = torch.tensor([2 / side for side in size]).expand_as(coord)
    codes, colors = prepared(model.decoder, features), []
    for place, its_cell in zip(coord.split(chunk, dim=1), cell.split(chunk, dim=1)):
        residual = F.grid_sample(
            image * 2 - 1, place.flip(-1).unsqueeze(1), mode="bilinear", padding_mode="border", align_corners=False
        )
        colors.append(decoded(model.decoder, codes, place, its_cell) + residual[:, :, 0].transpose(1, 2))
    return torch.cat(colors, dim=1).transpose(1, 2).unflatten(2, size) * 0.5 + 0.5
