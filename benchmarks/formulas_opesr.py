"""OPE-SR (Song et al., CVPR 2023) as its paper's code computes it, plainly in PyTorch, to measure and to compare with.

Each of the four codes around a query is sampled with all its coefficients, and all products of a function of y and one
of x are written out for each query. The functions read nothing but the size of our decoder: it has no parameters.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import liif_core

CORNERS = [(-1, -1), (-1, 1), (1, -1), (1, 1)]
NUDGE = 1e-6


def sampled(maps: Tensor, place: Tensor) -> Tensor:
    """(B, C, h, w) at the nearest code of each position (B, N, 2) -> (B, N, C)."""
    inside = place.clamp(-1 + NUDGE, 1 - NUDGE).flip(-1).unsqueeze(1)
    return F.grid_sample(maps, inside, mode="nearest", align_corners=False)[:, :, 0].transpose(1, 2)


def functions(offset: Tensor, max_freq: int) -> Tensor:
    """(..., 2 n + 1): 1, then a cosine and a sine of each frequency."""
    values = [torch.ones_like(offset)]
    for frequency in range(1, max_freq + 1):
        angle = frequency * math.pi * offset / 2
        values += [2**0.5 * torch.cos(angle), 2**0.5 * torch.sin(angle)]
    return torch.stack(values, dim=-1)


def colors(decoder: nn.Module, codes: Tensor, coord: Tensor) -> Tensor:
    """(B, N, out_channels), in [-1, 1] space, of codes (B, C, h, w) at coordinates (B, N, 2)."""
    height, width = codes.shape[-2:]
    homes = liif_core.make_coord((height, width), flatten=False).permute(2, 0, 1).expand(len(codes), -1, -1, -1)
    answers, areas = [], []
    for down, across in CORNERS:
        place = coord + torch.tensor([down / height + NUDGE, across / width + NUDGE])
        offset = (coord - sampled(homes, place)) * torch.tensor([height, width])
        of_y, of_x = (functions(offset[..., axis], decoder.max_freq) for axis in (0, 1))
        products = of_y.unsqueeze(-1) * of_x.unsqueeze(-2)
        coefficients = sampled(codes, place).unflatten(-1, (-1, *products.shape[-2:]))
        answers.append((coefficients * products.unsqueeze(-3)).sum((-2, -1)))
        areas.append(offset.prod(-1).abs() + 1e-9)
    total = torch.stack(areas).sum(0)
    return sum(answer * (area / total).unsqueeze(-1) for answer, area in zip(answers, reversed(areas)))


def decode(model: nn.Module, features: Tensor, image: Tensor, size: tuple[int, int], chunk: int = 30_000) -> Tensor:
    """Everything after the encoder: (B, 3, H, W) in [0, 1] space, in chunks of queries. ``image`` is not used."""
    coord = liif_core.make_coord(size).expand(len(features), -1, -1)
    codes = model.features(features).dense()
    parts = [colors(model.decoder, codes, part) for part in coord.split(chunk, dim=1)]
    return torch.cat(parts, dim=1).transpose(1, 2).unflatten(2, size) * 0.5 + 0.5
