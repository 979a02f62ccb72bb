"""Helpers of the tests that compare decoders with plain implementations of their formulas."""

import torch
from reference import centers, moved_to_corner, nearest
from torch import Tensor, nn


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


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def expect_same(colors: Tensor, output: Tensor) -> None:
    """Colors in [0, 1] space equal the network's output in [-1, 1] space, up to rounding."""
    tolerance = 1e-5 * output.abs().max().item()
    torch.testing.assert_close(colors * 2 - 1, output, rtol=0, atol=tolerance)
