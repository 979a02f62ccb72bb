"""Thera (arXiv 2311.17643) after its encoder, as its published code computes it, plainly in PyTorch.

The network between encoder and field and the 1x1 convolution after it run once for an image; then each query reads the
numbers of its nearest code, and computes a sine and an exponential for each wave. The functions read the parameters of
our components, and return the same colors up to rounding.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import liif_core


def nearest(coord: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Rows and columns of the codes nearest to (B, N, 2), halves away from zero, and the offsets in feature cells."""
    sides = coord.new_tensor(size)
    place = coord / 2 * sides + (sides - 1) / 2
    index = torch.minimum((place + 0.5).floor().clamp(min=0), sides - 1)
    row, column = index.long().unbind(-1)
    return row, column, place - index


def numbers_of(decoder: nn.Module, codes: Tensor) -> Tensor:
    """(B, (channels + 1) * waves, h, w): amplitudes and phases of all codes."""
    return F.conv2d(codes, decoder.code.weight[:, :, None, None], decoder.code.bias)


def read(decoder: nn.Module, numbers: Tensor, coord: Tensor) -> tuple[Tensor, Tensor]:
    """Amplitudes (B, N, waves, channels) and angles r w + p (B, N, waves)."""
    row, column, offset = nearest(coord, numbers.shape[-2:])
    own = numbers[torch.arange(len(numbers)).unsqueeze(1), :, row, column]
    amplitude, phase = own.split([decoder.channels * decoder.waves, decoder.waves], dim=-1)
    return amplitude.unflatten(-1, (decoder.waves, decoder.channels)), offset @ decoder.frequency + phase


def field(decoder: nn.Module, numbers: Tensor, coord: Tensor, cell: Tensor) -> Tensor:
    """The field alone, (B, N, channels), at ``coord`` (B, N, 2) for pixels of ``cell`` (B, N, 2)."""
    amplitude, angle = read(decoder, numbers, coord)
    time = (cell[..., :1] * numbers.shape[-2] / 2) ** 2
    waves = angle.sin() * torch.exp(-(decoder.frequency**2).sum(0) * decoder.diffusivity * time)
    return (amplitude * waves.unsqueeze(-1)).sum(-2)


def colors(decoder: nn.Module, numbers: Tensor, image: Tensor, coord: Tensor, cell: Tensor) -> Tensor:
    """(B, N, channels) in [0, 1] space, for an image in [0, 1]."""
    row, column, _ = nearest(coord, image.shape[-2:])
    pixel = image[torch.arange(len(image)).unsqueeze(1), :, row, column]
    return field(decoder, numbers, coord, cell) / 2 + decoder.mean.flatten() + pixel


def decode(model: nn.Module, features: Tensor, image: Tensor, size: tuple[int, int], chunk: int = 30_000) -> Tensor:
    """Everything after the encoder: (B, channels, H, W) in [0, 1] space, for an image in [0, 1]."""
    numbers = numbers_of(model.decoder, model.features(features).dense())
    coord = liif_core.make_coord(size).expand(len(features), -1, -1)
    cell = torch.tensor([2 / side for side in size])
    parts = [colors(model.decoder, numbers, image, part, cell.expand_as(part)) for part in coord.split(chunk, dim=1)]
    return torch.cat(parts, dim=1).transpose(1, 2).unflatten(2, size)
