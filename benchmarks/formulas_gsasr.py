"""GSASR (Chen et al., ICCV 2025) after its encoder, plainly in PyTorch: one Gaussian after another.

The network makes the Gaussians once for an image and a scale; then each Gaussian is computed at every pixel within its
cut, and added. Sizes are those of the published code: the image is padded to whole windows, rendered at whole sizes,
and cropped. The functions read the parameters of our model, and return the same colors up to rounding.
"""

import torch
from torch import Tensor, nn


def gaussians(model: nn.Module, features: Tensor, scale: float) -> Tensor:
    """(B, G, 6 + channels): sigma (2), rho, alpha, color, and the mean (x, y) in [0, 1] of the padded image, all raw
    but the mean. ``features`` are those of the padded image."""
    height, width = features.shape[-2:]
    inverse = torch.full((len(features), 1), 1 / scale)
    numbers = model.network(model.network.read(features), inverse, (height, width))
    rows, columns = (torch.arange(4 * side) for side in (height, width))
    raw_x, raw_y = numbers[..., -2], numbers[..., -1]
    mean = torch.stack([(columns + 0.5 + raw_x) / (4 * width), (rows[:, None] + 0.5 + raw_y) / (4 * height)], dim=-1)
    return torch.cat([numbers[..., :-2], mean], dim=-1).flatten(1, 2)


def splat(numbers: Tensor, size: tuple[int, int], scale: float, dmax: float) -> Tensor:
    """The sum of Gaussians (G, 6 + channels) at a whole padded image of ``size`` pixels: (channels, H, W)."""
    height, width = size
    sides = numbers.new_tensor([height, width])
    sigma = (0.99999 * numbers[:, :2].sigmoid() + 1e-6) * (scale / 1.2)
    rho = 0.999999 * numbers[:, 2].tanh()
    colors = numbers[:, 4:-2].sigmoid() * numbers[:, 3:4].sigmoid()
    centers = numbers[:, -2:].flip(-1) * sides - 0.5
    cut = dmax * (sides - 1) / 2
    low = (centers - cut).ceil().clamp(min=0).int().tolist()
    high = (centers + cut).floor().int().tolist()
    picture = numbers.new_zeros(colors.shape[1], height, width)
    for i, ((top, left), (bottom, right)) in enumerate(zip(low, high)):
        bottom, right = min(bottom + 1, height), min(right + 1, width)
        if top >= bottom or left >= right:
            continue
        v = ((torch.arange(top, bottom) - centers[i, 0]) / sigma[i, 0])[:, None]
        u = (torch.arange(left, right) - centers[i, 1]) / sigma[i, 1]
        value = torch.exp(-(u * u - 2 * rho[i] * u * v + v * v) / (2 * (1 - rho[i] * rho[i])))
        picture[:, top:bottom, left:right] += colors[i, :, None, None] * value
    return picture


def decode(model: nn.Module, features: Tensor, image: Tensor, size: tuple[int, int]) -> Tensor:
    """Everything after the encoder: (B, channels, H, W) in [0, 1] space, for the features of the padded image."""
    scale = size[0] / image.shape[-2]
    padded = int(scale * features.shape[-2] + 1e-6), int(scale * features.shape[-1] + 1e-6)
    pictures = [splat(part, padded, scale, model.dmax) for part in gaussians(model, features, scale)]
    return torch.stack(pictures)[:, :, : size[0], : size[1]]
