"""Helpers of the tests that compare decoders with plain implementations of their formulas."""

from collections.abc import Callable
from typing import Any

import torch
from reference import centers, moved_to_corner, nearest
from torch import Tensor, nn

from liif_core import Scale, scaled_size


class Given(nn.Module):
    """An encoder that returns the same features for every image."""

    multiple_of = 1

    def __init__(self, features: Tensor):
        super().__init__()
        self.features = features

    def forward(self, image: Tensor) -> Tensor:
        return self.features


def neighbours(coord: Tensor, size: tuple[int, int], ensemble: bool = True) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For each code around queries (B, N, 2): a position nearest to it, the offset in feature cells, its weight."""
    home = centers(*size).permute(2, 0, 1).expand(len(coord), -1, -1, -1)
    corners = [(-1, -1), (-1, 1), (1, -1), (1, 1)] if ensemble else [None]
    moved = [moved_to_corner(coord, corner, size) for corner in corners]
    offsets = [(coord - nearest(home, place)) * torch.tensor(size) for place in moved]
    areas = [offset.prod(-1).abs() + 1e-9 for offset in offsets]
    return list(zip(moved, offsets, (area / sum(areas) for area in reversed(areas))))


SCALES = (0.7, 1, 2, 3.3, 6, (0.7, 4.1))


def expect_colors(model: Any, features: Tensor, answer: Callable[..., Tensor], graph: bool) -> None:
    """Rendered at several scales and at scattered queries, a model has the colors of ``answer``, the formula.

    ``features`` (B, C, h, w) are those that its encoder gives. ``graph``: record gradients.
    """
    batch, size = len(features), (features.shape[-2], features.shape[-1])
    with torch.set_grad_enabled(graph):
        picture = model.encode(torch.zeros(batch, 3, *size))
        for scale in SCALES:
            target = scaled_size(size, Scale.of(scale))
            coord = centers(*target).reshape(1, -1, 2).expand(batch, -1, 2)
            output = answer(model, features, coord, torch.tensor([[2 / n for n in target]] * batch))
            expect_same(picture.render(target).flatten(2).mT, output)
        generator = torch.Generator().manual_seed(2)
        coord = torch.rand(batch, 60, 2, generator=generator) * 2.6 - 1.3  # some beyond the border
        cell = torch.rand(batch, 2, generator=generator)  # each image its own
        expect_same(picture.query(coord, cell.unsqueeze(1)), answer(model, features, coord, cell))


def expect_gradients(model: Any, features: Tensor, answer: Callable[..., Tensor]) -> None:
    """Gradients in the features and in all parameters of the decoder are those of ``answer``, the formula."""
    batch, size = len(features), (features.shape[-2], features.shape[-1])
    coord, cell = torch.rand(batch, 40, 2) * 2 - 1, torch.rand(batch, 2)
    learned = {"features": features, **dict(model.decoder.named_parameters())}
    colors = model(torch.zeros(batch, 3, *size), coord, cell.unsqueeze(1)) * 2 - 1
    found = torch.autograd.grad(colors.square().sum(), list(learned.values()))
    expected = torch.autograd.grad(answer(model, features, coord, cell).square().sum(), list(learned.values()))
    for name, fast, slow in zip(learned, found, expected):
        tolerance = 1e-4 * slow.abs().max().item()
        torch.testing.assert_close(fast, slow, rtol=0, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}")


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def expect_same(colors: Tensor, output: Tensor) -> None:
    """Colors in [0, 1] space equal the network's output in [-1, 1] space, up to rounding."""
    tolerance = 1e-5 * output.abs().max().item()
    torch.testing.assert_close(colors * 2 - 1, output, rtol=0, atol=tolerance)
