"""IGConv and IGConv+ (Lee, Yun and Ro, arXiv 2408.09674) plainly in PyTorch, to measure and to compare with.

At a whole scale, ``decode`` does what the published code does: a kernel for each of the s x s sub-pixels, one
convolution with all of them, and a pixel shuffle. At another scale, which the published code does not have, it
evaluates the same formula query by query: each with its own kernel.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import liif_core


def network(kernels: nn.Module, values: Tensor) -> Tensor:
    """The layers, where each group reads its own part of the channels."""
    for number, layer in enumerate(kernels.layers):
        values = values.relu() if number else values
        parts = zip(values.chunk(kernels.groups, dim=-1), layer.weight.chunk(kernels.groups))
        values = torch.cat([part @ weight.T for part, weight in parts], dim=-1)
        values = values if layer.bias is None else values + layer.bias
    return values


def kernels_at(kernels: nn.Module, y: Tensor, x: Tensor, cell: Tensor) -> Tensor:
    """(N, rows, outputs), of positions and cells (N,)."""
    down, across = kernels.frequency.chunk(2, dim=1)
    phase = cell[:, None, None] * kernels.phase.weight[:, 0] + kernels.phase.bias
    angle = math.pi * (across * x[:, None, None] + down * y[:, None, None] + phase)
    values = torch.cat([torch.cos(angle), torch.sin(angle)], dim=-1) * kernels.amplitude
    if kernels.groups == 2:
        values = torch.cat([values[..., 0::2], values[..., 1::2]], dim=-1)
    result = network(kernels, values)
    if kernels.side is None:
        return result
    square = result.unflatten(1, (-1, kernels.side, kernels.side))
    turned = [torch.rot90(square, turns, (2, 3)) for turns in range(4)]
    return torch.stack([*turned, *(one.flip(2) for one in turned)]).mean(0).flatten(1, 3)


def sampled(image: Tensor, place: Tensor) -> Tensor:
    """(B, N, 3), each color of an image (B, 3, h, w) at its own place (B, N, 3, 2), (x, y) in pixels from a corner."""
    size = torch.tensor([image.shape[3], image.shape[2]])
    grid = (2 * place / size - 1).transpose(1, 2)
    one_by_one = [
        F.grid_sample(image[:, [i]], grid[:, [i]], padding_mode="border", align_corners=False)[:, 0, 0]
        for i in range(image.shape[1])
    ]
    return torch.stack(one_by_one, dim=-1)


def moved(numbers: Tensor, channels: int) -> Tensor:
    """(..., channels, 2): how far, (x, y) in pixels, each color is read from the query's own place."""
    offset, gate = numbers.unflatten(-1, (2, 2, channels)).unbind(-3)
    return (offset * torch.sigmoid(gate) / 2).transpose(-1, -2)


def colors(decoder: nn.Module, codes: Tensor, image: Tensor, coord: Tensor, cell: Tensor) -> Tensor:
    """(B, N, 3) in [0, 1] space, of joined codes (B, D, h, w), at coordinates and cells (B, N, 2)."""
    batch, _, height, width = codes.shape
    size = torch.tensor([height, width])
    own = ((coord.clamp(-1 + 1e-6, 1 - 1e-6) + 1) / 2 * size - 0.5).round().long()
    own = torch.minimum(own.clamp(min=0), size - 1)
    center = (2 * own + 1) / size - 1
    y, x = ((coord - center) * size).unbind(-1)
    pixel = (cell * size).clamp(min=0.5).mean(-1)
    code = codes.flatten(2).mT.gather(
        1, (own[..., 0] * width + own[..., 1]).unsqueeze(-1).expand(-1, -1, codes.shape[1])
    )

    def product(kernels: nn.Module) -> Tensor:
        own = kernels_at(kernels, y.flatten(), x.flatten(), pixel.flatten())
        return (code.flatten(0, 1).unsqueeze(-1) * own).sum(1).unflatten(0, (batch, -1))

    result = product(decoder.kernels) + decoder.mean
    if decoder.skip is not None:
        place = (coord.flip(-1) + 1) / 2 * size.flip(0)
        result = result + sampled(image, place.unsqueeze(-2) + moved(product(decoder.skip), decoder.channels))
    return result


def published(decoder: nn.Module, features: Tensor, image: Tensor, scale: int, side: int = 3) -> Tensor:
    """(B, 3, s h, s w) at a whole scale s."""
    place = (2 * torch.arange(scale) + 1) / scale - 1
    y, x = torch.meshgrid(place, place, indexing="ij")
    pixel = torch.full((scale * scale,), 2 / min(scale, 4))

    def shuffled(kernels: nn.Module) -> Tensor:
        own = kernels_at(kernels, y.flatten(), x.flatten(), pixel)  # (s * s, rows, outputs)
        weight = own.permute(2, 0, 1).flatten(0, 1).unflatten(1, (-1, side, side))
        return F.pixel_shuffle(F.conv2d(features, weight, padding=side // 2), scale)

    result = shuffled(decoder.kernels) + decoder.mean.view(-1, 1, 1)
    if decoder.skip is not None:
        rows, columns = ((torch.arange(n) + 0.5) / scale for n in result.shape[-2:])
        own = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).view(-1, 1, 2)
        offset = moved(shuffled(decoder.skip).flatten(2).mT, decoder.channels)
        result = result + sampled(image, own + offset).mT.unflatten(2, result.shape[-2:])
    return result


def decode(model: nn.Module, features: Tensor, image: Tensor, size: tuple[int, int], chunk: int = 30_000) -> Tensor:
    """Everything after the encoder: (B, 3, H, W) in [0, 1] space; at no whole scale, in chunks of queries."""
    scale = size[0] // features.shape[2]
    if size == (features.shape[2] * scale, features.shape[3] * scale):
        return published(model.decoder, features, image, scale)
    codes = model.features(features).dense()
    coord = liif_core.make_coord(size).expand(len(features), -1, -1)
    cell = torch.tensor([2 / n for n in size])
    parts = [colors(model.decoder, codes, image, part, cell.expand_as(part)) for part in coord.split(chunk, dim=1)]
    return torch.cat(parts, dim=1).mT.unflatten(2, size)
