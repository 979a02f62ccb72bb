"""The decoders' formulas as their papers' code computes them, plainly in PyTorch, to measure and to compare with.

Codes are unfolded and written out, each of the four corners is sampled with ``grid_sample``, its inputs are
concatenated, and the whole network runs for each corner of each query. The functions read the parameters of our
decoders, and return the same colors up to rounding. A formula takes a decoder, maps (B, channels, h, w) that are
``prepared`` once per image, coordinates (B, N, 2) (y, x) and one cell (2,), and returns (B, N, out_channels) in [-1, 1]
space.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import liif_core

CORNERS = [(-1, -1), (-1, 1), (1, -1), (1, 1)]
NUDGE = 1e-6
RESIDUAL = ("lte", "lm-lte", "srno")  # these add the bilinear LR image


def sampled(maps: Tensor, place: Tensor) -> Tensor:
    """(B, C, h, w) at the nearest code of each position (B, N, 2) -> (B, N, C)."""
    inside = place.clamp(-1 + NUDGE, 1 - NUDGE).flip(-1).unsqueeze(1)
    return F.grid_sample(maps, inside, mode="nearest", align_corners=False)[:, :, 0].transpose(1, 2)


def centers(features: Tensor) -> Tensor:
    size = features.shape[-2], features.shape[-1]
    return liif_core.make_coord(size, flatten=False).permute(2, 0, 1).expand(len(features), -1, -1, -1)


def unfolded(features: Tensor) -> Tensor:
    batch, channels, height, width = features.shape
    return F.unfold(features, 3, padding=1).view(batch, 9 * channels, height, width)


def corners(maps: Tensor, coord: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """For each corner: its code, the offset from it in feature cells, and the area of the rectangle between them."""
    height, width = maps.shape[-2:]
    homes = centers(maps)
    for down, across in CORNERS:
        place = coord + torch.tensor([down / height + NUDGE, across / width + NUDGE])
        offset = (coord - sampled(homes, place)) * torch.tensor([height, width])
        yield sampled(maps, place), offset, offset.prod(-1).abs() + 1e-9


def ensemble(colors: list[Tensor], areas: list[Tensor]) -> Tensor:
    """Each corner's color, weighted by the area diagonally opposite."""
    total = torch.stack(areas).sum(0)
    return sum(color * (area / total).unsqueeze(-1) for color, area in zip(colors, reversed(areas)))


def mlp(layers: nn.ModuleList, x: Tensor) -> Tensor:
    for layer in layers[:-1]:
        x = layer(x).relu()
    return layers[-1](x)


def scaled_cell(cell: Tensor, maps: Tensor, coord: Tensor) -> Tensor:
    return (cell * torch.tensor(maps.shape[-2:])).expand_as(coord)


def waves(amplitude: Tensor, frequency: Tensor, offset: Tensor, phase: Tensor) -> Tensor:
    """Frequencies in pairs (y, x); all cosines, then all sines."""
    angle = math.pi * ((frequency.unflatten(-1, (-1, 2)) * offset.unsqueeze(-2)).sum(-1) + phase)
    return amplitude * torch.cat([angle.cos(), angle.sin()], dim=-1)


# What the papers' code computes once per image


def prepared(name: str, decoder: nn.Module, features: Tensor, cell: Tensor) -> Tensor:
    """Maps (B, channels, h, w)."""
    if name in ("lte", "lm-lte"):
        maps = torch.cat([decoder.coefficient(features), decoder.frequency(features)], dim=1)
        return maps if name == "lte" else latent_of_waves(decoder, maps, cell)
    if name == "lm-liif":
        codes = unfolded(features).movedim(1, -1)
        size = (cell * torch.tensor(features.shape[-2:])).expand(*codes.shape[:-1], 2)
        return mlp(decoder.latent, torch.cat([codes, size], dim=-1)).movedim(-1, 1)
    return features


def latent_of_waves(decoder: nn.Module, maps: Tensor, cell: Tensor) -> Tensor:
    amplitude, frequency = maps.movedim(1, -1).chunk(2, dim=-1)
    phase = decoder.phase(cell * torch.tensor(maps.shape[-2:]))
    x = waves(amplitude, frequency, torch.ones(2), phase)
    return mlp(decoder.latent, x).movedim(-1, 1)


# What it computes per query


def liif(decoder: nn.Module, features: Tensor, coord: Tensor, cell: Tensor) -> Tensor:
    """Chen, Liu, Wang, CVPR 2021: the features are unfolded in each call, as published."""
    codes = unfolded(features)
    size = scaled_cell(cell, codes, coord)
    colors, areas = [], []
    for code, offset, area in corners(codes, coord):
        colors.append(mlp(decoder.layers, torch.cat([code, offset, size], dim=-1)))
        areas.append(area)
    return ensemble(colors, areas)


def metasr(decoder: nn.Module, features: Tensor, coord: Tensor, cell: Tensor) -> Tensor:
    """Hu et al., CVPR 2019, in LIIF's version: a matrix for each query."""
    codes, size = unfolded(features), torch.tensor(features.shape[-2:])
    corner = coord - cell / 2
    code = sampled(codes, corner + NUDGE)
    away = (corner - sampled(centers(features) - (1 / size).view(2, 1, 1), corner + NUDGE)) * (size / 2)
    x = torch.cat([away, (cell * size / 2)[:1].expand(*coord.shape[:-1], 1)], dim=-1)
    matrices = decoder.second(decoder.first(x).relu()).unflatten(-1, (code.shape[-1], -1))
    return (code.unsqueeze(-2) @ matrices).squeeze(-2)


def lte(decoder: nn.Module, maps: Tensor, coord: Tensor, cell: Tensor) -> Tensor:
    """Lee and Jin, CVPR 2022."""
    phase = decoder.phase(scaled_cell(cell, maps, coord))
    colors, areas = [], []
    for code, offset, area in corners(maps, coord):
        amplitude, frequency = code.chunk(2, dim=-1)
        colors.append(mlp(decoder.layers, waves(amplitude, frequency, offset, phase)))
        areas.append(area)
    return ensemble(colors, areas)


def modulated(network: nn.Module, x: Tensor, modulation: Tensor) -> Tensor:
    scales, shifts = (part.split(network.width, dim=-1) for part in modulation.chunk(2, dim=-1))
    for layer, scale, shift in zip(network.layers, scales, shifts):
        x = (layer(x) * (1 + scale) + shift).relu()
    return network.last(x)


def lm_liif(decoder: nn.Module, maps: Tensor, coord: Tensor, cell: Tensor) -> Tensor:
    """He and Jin, CVPR 2024."""
    network, size = decoder.render, scaled_cell(cell, maps, coord)
    colors, areas = [], []
    for code, offset, area in corners(maps, coord):
        modulation, entry = code.split([network.modulations, network.width], dim=-1)
        colors.append(modulated(network, torch.cat([entry, offset, size], dim=-1), modulation))
        areas.append(area)
    return ensemble(colors, areas)


def lm_lte(decoder: nn.Module, maps: Tensor, coord: Tensor, cell: Tensor) -> Tensor:
    """He and Jin, CVPR 2024."""
    network, phase = decoder.render, decoder.render_phase(scaled_cell(cell, maps, coord))
    colors, areas = [], []
    for code, offset, area in corners(maps, coord):
        modulation, amplitude, frequency = code.split([network.modulations, network.width, network.width], dim=-1)
        colors.append(modulated(network, waves(amplitude, frequency, offset, phase), modulation))
        areas.append(area)
    return ensemble(colors, areas)


def srno(decoder: nn.Module, features: Tensor, coord: Tensor, cell: Tensor) -> Tensor:
    """Wei and Zhang, CVPR 2023: attention over all queries, which must be given in one call."""
    codes, offsets, areas = zip(*corners(features, coord))
    total = torch.stack(areas).sum(0)
    weighted = [code * (area / total).unsqueeze(-1) for code, area in zip(codes, reversed(areas))]
    entry = decoder.condition.weight
    entry = torch.cat([entry[:, :-2], decoder.code.weight, entry[:, -2:]], dim=1)
    joined = torch.cat([*offsets, *weighted, scaled_cell(cell, features, coord)], dim=-1)
    x = F.linear(joined, entry, decoder.condition.bias)
    for block in decoder.blocks:
        x = galerkin(block, x)
    return decoder.last(F.gelu(decoder.first(x)))


def galerkin(block: nn.Module, x: Tensor) -> Tensor:
    query, key, value = (
        layer(x).unflatten(-1, (block.heads, -1)).transpose(1, 2) for layer in (block.query, block.key, block.value)
    )
    key, value = head_norm(block.key_norm, key), head_norm(block.value_norm, value)
    attended = (query @ (key.mT @ value / x.shape[1])).transpose(1, 2).flatten(2)
    return x + block.second(F.gelu(block.first(attended + x)))


def head_norm(norm: nn.Module, x: Tensor) -> Tensor:
    return norm.weight * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-5) + norm.bias


FORMULAS = {"mlp": liif, "metasr": metasr, "lte": lte, "lm-liif": lm_liif, "lm-lte": lm_lte, "srno": srno}


def colors(name: str, decoder: nn.Module, maps: Tensor, image: Tensor, coord: Tensor, cell: Tensor) -> Tensor:
    """(B, N, out_channels) in [-1, 1] space, with the residual where the paper has one; ``image`` in [-1, 1]."""
    result = FORMULAS[name](decoder, maps, coord, cell)
    if name in RESIDUAL:
        place = coord.flip(-1).unsqueeze(1)
        result = result + F.grid_sample(image, place, mode="bilinear", padding_mode="border", align_corners=False)[
            :, :, 0
        ].transpose(1, 2)
    return result


def plain_decode(
    name: str, model: nn.Module, features: Tensor, image: Tensor, size: tuple[int, int], chunk: int = 30_000
) -> Tensor:
    """Everything after the encoder: (B, 3, H, W) in [0, 1] space, for an image in [0, 1], in chunks of queries.

    SRNO's attention is over all queries, so that its published code has one chunk.
    """
    cell = torch.tensor([2 / side for side in size])
    coord = liif_core.make_coord(size).expand(len(features), -1, -1)
    maps, image = prepared(name, model.decoder, features, cell), image * 2 - 1
    parts = [coord] if name == "srno" else coord.split(chunk, dim=1)
    result = torch.cat([colors(name, model.decoder, maps, image, part, cell) for part in parts], dim=1)
    return result.transpose(1, 2).unflatten(2, size) * 0.5 + 0.5


def plain_forward(name: str, model: nn.Module, image: Tensor, coord: Tensor, cell: Tensor) -> Tensor:
    """``model(image, coord, cell)``, with one cell (2,) for all images."""
    signal = image * 2 - 1
    features = model.encoder(signal)
    maps = prepared(name, model.decoder, features, cell)
    return colors(name, model.decoder, maps, signal, coord, cell) * 0.5 + 0.5
