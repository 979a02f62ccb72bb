"""A plain implementation of LIIF's query (Chen, Liu, Wang, CVPR 2021, section 3), and small models to compare with.

It handles one corner at a time, stores every code and every joined input, and applies the whole MLP for each corner:
slow, and short enough to be checked by eye.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

import liif_core
from liif_core.experiment.toml_file import model_from_table


def unfolded(features: Tensor, size: int) -> Tensor:
    """(B, C, h, w) -> (B, C * size * size, h, w): each code with its neighbours, zeros beyond the border."""
    batch, channels, height, width = features.shape
    padded = F.pad(features, [size // 2] * 4)
    neighbours = [
        padded[:, :, down : down + height, across : across + width] for down in range(size) for across in range(size)
    ]
    return torch.stack(neighbours, dim=2).reshape(batch, channels * size * size, height, width)


def centers(height: int, width: int) -> Tensor:
    """(height, width, 2): the positions (y, x) of pixel centers, the whole image being [-1, 1].

    In float32 and in the published order of operations: where a query lies at a code's own center beside a border,
    all four areas vanish, and rounding alone decides the weights.
    """
    ys, xs = (-1 + 1 / n + 2 / n * torch.arange(n).float() for n in (height, width))
    return torch.stack([ys[:, None].expand(height, width), xs[None, :].expand(height, width)], dim=-1)


def nearest(maps: Tensor, position: Tensor) -> Tensor:
    """(B, C, h, w) at positions (B, N, 2) (y, x) -> (B, N, C), by torch's nearest sampling."""
    values = F.grid_sample(maps, position.flip(-1).unsqueeze(1), mode="nearest", align_corners=False)
    return values[:, :, 0].transpose(1, 2)


def moved_to_corner(coord: Tensor, corner: tuple[int, int] | None, size: tuple[int, int]) -> Tensor:
    """The position whose nearest code is read for a corner: half a feature cell and 1e-6 away, inside the image."""
    if corner is not None:  # one addition per axis, as published: two would round differently where codes tie
        coord = torch.stack([coord[..., axis] + (corner[axis] / size[axis] + 1e-6) for axis in (0, 1)], dim=-1)
    return coord.clamp(-1 + 1e-6, 1 - 1e-6)


def mlp(layers: Sequence[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    """Linear layers with ReLU between them."""
    for number, (weight, bias) in enumerate(layers):
        x = x @ weight.T + bias
        if number < len(layers) - 1:
            x = x.clamp(min=0)
    return x


def query(
    codes: Tensor,
    coord: Tensor,
    cell: Tensor,
    layers: Sequence[tuple[Tensor, Tensor]],
    conditioning=("coordinate", "cell"),
    ensemble: bool = True,
) -> Tensor:
    """The network's output (B, N, out), in [-1, 1] space.

    ``codes`` (B, D, h, w) are already unfolded; ``coord`` and ``cell`` are (B, N, 2).
    """
    batch, _, height, width = codes.shape
    size = torch.tensor([height, width])
    where_codes_are = centers(height, width).permute(2, 0, 1).expand(batch, 2, height, width)
    answers, areas = [], []
    corners = [(-1, -1), (-1, 1), (1, -1), (1, 1)] if ensemble else [None]
    for corner in corners:
        moved = moved_to_corner(coord, corner, (height, width))
        code, home = nearest(codes, moved), nearest(where_codes_are, moved)
        offset = (coord - home) * size
        conditions = {"coordinate": offset, "cell": cell * size}
        answers.append(mlp(layers, torch.cat([code, *(conditions[name] for name in conditioning)], dim=-1)))
        areas.append((offset[..., 0] * offset[..., 1]).abs() + 1e-9)
    if not ensemble:
        return answers[0]
    # the weight of a corner is the area between the query and the diagonally opposite corner
    total = sum(areas)
    return sum(answer * (area / total).unsqueeze(-1) for answer, area in zip(answers, reversed(areas)))


def answer(model: liif_core.ContinuousModel, image: Tensor, coord: Tensor, cell: Tensor, size: int = 3) -> Tensor:
    """The expected colors of a composed LIIF with this encoder and these weights, without its residual, in [0, 1]."""
    features = model.encoder((image - 0.5) / 0.5)
    layers = [(layer.weight, layer.bias) for layer in model.decoder.layers]
    ensemble = model.sampling.neighbours == 4
    coord = coord.expand(len(image), -1, 2)
    cell = cell.expand(coord.shape)
    return query(unfolded(features, size), coord, cell, layers, model.condition_names, ensemble) * 0.5 + 0.5


# The [model] table of small_model(registry, hidden=(8,), residual="bilinear").
SMALL_TABLE = {
    "residual": "bilinear",
    "encoder": {"use": "edsr", "blocks": 1, "channels": 4},
    "features": {"use": "unfold"},
    "sampling": {"use": "local-ensemble"},
    "conditioning": [{"use": "coordinate"}, {"use": "cell"}],
    "decoder": {"use": "mlp", "hidden": [8]},
}


def small_model(
    registry: liif_core.Registry,
    *,
    unfold: bool = True,
    ensemble: bool = True,
    conditioning: Sequence[str] = ("coordinate", "cell"),
    hidden: Sequence[int] = (16, 8),
    channels: int = 3,
    residual: str = "none",
    seed: int = 0,
) -> liif_core.ContinuousModel:
    """A composed LIIF of a thousand or so parameters, with weights large enough for each to matter."""
    table = {
        "channels": channels,
        "residual": residual,
        "encoder": {"use": "edsr", "blocks": 1, "channels": 4},
        "features": {"use": "unfold"} if unfold else {"use": "identity"},
        "sampling": {"use": "local-ensemble" if ensemble else "nearest"},
        "conditioning": [{"use": name} for name in conditioning],
        "decoder": {"use": "mlp", "hidden": list(hidden)},
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = liif_core.build_model(model_from_table(table, registry, "small model"))
    return model.eval().requires_grad_(False)
