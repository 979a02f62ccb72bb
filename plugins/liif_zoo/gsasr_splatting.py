"""Sums of many two-dimensional Gaussians, at pixel grids and at scattered points.

Positions are divided into tiles, and only the Gaussians that reach into a tile are computed there, so that the cost
grows with the number of positions plus that of the Gaussians, not with their product.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from attrs import frozen
from torch import Tensor
from torch.autograd.function import once_differentiable

from liif_core.nn import on_threads
from liif_core.shapes import Float
from liif_zoo.gsasr_tiles import Batch, Grid, Points, Positions, bands

WIDTHS = 6.0  # of a Gaussian, beyond which it is below 1.6e-8

_FAR = 1e6  # a distance in widths whose Gaussian is 0, and whose gradient is 0 and not NaN


@frozen(eq=False)
class Mixture:
    """The Gaussians of some images. Lengths and positions are in LR pixels, from the corner of the image.

    ``values`` are y and x of the mean, three factors and the color. The value of a Gaussian at a distance (dy, dx) is
    exp(-(dx * values[2] - dy * values[3])^2 - (dy * values[4])^2).
    """

    values: Float[Tensor, "B G numbers"]
    reach: Float[Tensor, "B G 2"]  # beyond which a Gaussian is taken for 0, along each axis
    cut: Float[Tensor, "B 2"]  # beyond which it is 0 exactly

    @classmethod
    def of(cls, mean: Tensor, width: Tensor, correlation: Tensor, color: Tensor, cut: Tensor) -> "Mixture":
        """Means and widths (B, G, 2), y first; correlations (B, G), colors (B, G, channels) and ``cut`` (B, 2)."""
        sharp = (2 * (1 - correlation) * (1 + correlation)).rsqrt()
        factors = [sharp / width[..., 1], correlation * sharp / width[..., 0], 0.5**0.5 / width[..., 0]]
        values = torch.cat([mean, torch.stack(factors, dim=-1), color], dim=-1)
        return cls(values, torch.minimum(WIDTHS * width.detach(), cut.unsqueeze(1)), cut)

    def at_grid(self, rows: Float[Tensor, " H"], columns: Float[Tensor, " W"]) -> Float[Tensor, "B H W channels"]:
        """The sums at a pixel grid whose rows and columns ascend."""
        if not len(rows) or not len(columns):
            return self.values.new_zeros(len(self.values), len(rows), len(columns), self.values.shape[-1] - 5)
        return _sums(self, Grid(rows, columns, len(self.values)))

    def at_points(self, points: Float[Tensor, "B N 2"]) -> Float[Tensor, "B N channels"]:
        """The sums at scattered points, (y, x)."""
        if not points.shape[1]:
            return self.values.new_zeros(len(self.values), 0, self.values.shape[-1] - 5)
        return _sums(self, Points(points))


class _Part:
    """Some Gaussians at the positions of a group each: g groups with n Gaussians and P positions, or R x C.

    ``real`` (g, n) is False for Gaussians that only fill a group up; None: there are none.
    """

    def __init__(self, mixture: Mixture, positions: Positions, batch: Batch):
        groups, gaussian, self.real = batch
        self.scattered = isinstance(positions, Points)
        numbers = mixture.values.detach().flatten(0, 1)[gaussian].transpose(1, 2).contiguous()
        y, x, self.along, self.shear, self.down = (numbers[:, i : i + 1] for i in range(5))
        self.color = numbers[:, 5:] if self.real is None else numbers[:, 5:] * self.real.unsqueeze(1)
        cut = mixture.cut[positions.tile[groups] // positions.tiles].unsqueeze(1)
        rows, columns = positions.take(groups)
        self.dy, self.dx = rows.unsqueeze(-1) - y, columns.unsqueeze(-1) - x
        inside = self.dy.abs() <= cut[..., :1]
        self.vertical = torch.where(inside, self.dy * self.down, _FAR).square_().neg_().exp_()
        across = torch.where(self.dx.abs() <= cut[..., 1:], self.dx * self.along, _FAR)
        sheared = (self.dy * self.shear).clamp_(-_FAR / 2, _FAR / 2)
        # (g, P, n), or (g, R, C, n): the exponent is minus its square, without the vertical factor
        self.root = across - sheared if self.scattered else across.unsqueeze(1) - sheared.unsqueeze(2)

    def sums(self) -> Float[Tensor, "g P channels"]:
        weight = self.root.square_().neg_().exp_()
        if self.scattered:
            return weight.mul_(self.vertical) @ self.color.transpose(1, 2)
        # the vertical factor of a row is multiplied with the color, since that has fewer values
        color = self.vertical.unsqueeze(2) * self.color.unsqueeze(1)
        return (weight @ color.transpose(-1, -2)).flatten(1, 2)

    def gradient(self, grad: Float[Tensor, "g P channels"]) -> Float[Tensor, "g n numbers"]:
        """Of ``values``, from the gradient of ``sums``."""
        weight = self.root.square().neg_().exp_()
        if self.scattered:
            weight *= self.vertical
            of_color = weight.transpose(1, 2) @ grad
            of_power = (grad @ self.color).mul_(weight)
            of_row = of_column = (self.root * of_power).mul_(-2)
        else:
            grad = grad.unflatten(1, self.root.shape[1:3])
            of_color = (weight.transpose(2, 3) @ grad).mul_(self.vertical.unsqueeze(-1)).sum(1)
            power = (grad @ self.color.unsqueeze(1)).mul_(weight).mul_(self.vertical.unsqueeze(2))
            of_root = (self.root * power).mul_(-2)
            of_row, of_column, of_power = of_root.sum(2), of_root.sum(1), power.sum(2)
        total, lever = of_row.sum(1, keepdim=True), of_power * self.dy
        of_values = [
            self.shear * total + 2 * self.down**2 * lever.sum(1, keepdim=True),
            -self.along * total,
            (of_column * self.dx).sum(1, keepdim=True),
            -(of_row * self.dy).sum(1, keepdim=True),
            -2 * self.down * (lever * self.dy).sum(1, keepdim=True),
        ]
        of_color = of_color if self.real is None else of_color * self.real.unsqueeze(-1)
        return torch.cat([torch.cat(of_values, dim=1).transpose(1, 2), of_color], dim=-1)


def _sums(mixture: Mixture, positions: Positions) -> Tensor:
    result: Tensor = _Sums.apply(mixture.values, mixture, positions)  # type: ignore[no-untyped-call]
    return result


def _computed(function: Callable[[Batch], Tensor], mixture: Mixture, positions: Positions) -> Iterator[Any]:
    """Batches, and ``function`` of each."""
    mean = mixture.values[..., :2].detach()
    for band in bands(positions, mean, mixture.reach):
        over = on_threads if mean.device.type == "cpu" else map
        yield from zip(band, over(function, band))


class _Sums(torch.autograd.Function):
    """The sums. For the gradient, the Gaussians are computed at all positions again, so that nothing is kept."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, mixture: Mixture, positions: Positions) -> Tensor:
        ctx.mixture, ctx.positions = mixture, positions
        sums = values.new_zeros(len(positions.tile), math.prod(positions.groups), values.shape[-1] - 5)
        for batch, part in _computed(lambda batch: _Part(mixture, positions, batch).sums(), mixture, positions):
            sums[batch[0]] = part
        return positions.together(sums)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None]:
        mixture, positions = ctx.mixture, ctx.positions
        result, apart = torch.zeros_like(mixture.values).flatten(0, 1), positions.apart(grad)

        def gradient(batch: Batch) -> Tensor:
            return _Part(mixture, positions, batch).gradient(apart[batch[0]])

        for batch, part in _computed(gradient, mixture, positions):
            result.index_add_(0, batch[1].flatten(), part.flatten(0, 1))
        return result.view_as(mixture.values), None, None
