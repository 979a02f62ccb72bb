"""A decoder of separable functions: a code's coefficients say how much of each product of a function of y and a
function of x its colors have.

    color(y, x) = sum over p and q of coefficient[p, q] * f_p(y, cell_y) * f_q(x, cell_x)

The nearest relative is OPE-SR (Song et al., OPE-SR: Orthogonal Position Encoding for Designing a Parameter-free
Upsampling Module in Arbitrary-scale Image Super-Resolution, CVPR 2023), whose functions are fixed waves. Here they are
those of the discrete cosine transform plus a learned part, and they and the coefficients depend on the cell. At a pixel
grid, the functions are computed once per row and column, so that a pixel costs two short sums.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from attrs import frozen
from attrs.validators import deep_iterable, ge
from torch import Tensor, nn

from liif_core import Component, LatentField, Maps, Sites, as_rows, blend, gather, hookimpl, option
from liif_core.nn import expect_conditions, float32_linear, linear


@frozen
class BasisOptions:
    functions: int = option(
        "Functions of an axis; a code has the square of this number of coefficients for each color.", 4, check=ge(1)
    )
    latent: tuple[int, ...] = option(
        "Widths of the hidden layers of the network that computes a code's coefficients.",
        (128,),
        check=deep_iterable(ge(1)),
        quick=(32,),
    )
    axis: tuple[int, ...] = option(
        "Widths of the hidden layers of the network that computes the functions.",
        (32, 32),
        check=deep_iterable(ge(1)),
        quick=(8,),
    )
    modulation: int = option(
        "Width of the layer through which the cell changes the first layer of a code.", 32, check=ge(1), quick=8
    )
    zero_last: bool = option(
        "Initialize the coefficients with zeros, so that training starts from the residual.", False, quick=True
    )


class AxisFunctions(nn.Module):
    """Offsets along an axis, and the cell along it if that is known -> values of all functions, (..., count).

    Function number p is a half-wave cosine of p half-waves over a feature cell, plus a smooth learned function.
    """

    def __init__(self, count: int, hidden: tuple[int, ...], inputs: int):
        super().__init__()
        self.count = count
        widths = [inputs, *hidden, count]
        self.layers: Any = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))

    def forward(self, offset: Tensor, *cell: Tensor) -> Tensor:
        with torch.autocast(offset.device.type, enabled=False):
            x = torch.stack(torch.broadcast_tensors(offset, *cell), dim=-1)
            waves = torch.arange(self.count, device=x.device, dtype=x.dtype) * (math.pi / 2)
            fixed = torch.cos((x[..., :1] + 1) * waves)  # a feature cell is 2 wide, from -1 to 1
            for layer in self.layers[:-1]:
                x = F.gelu(layer(x))
            return fixed + self.layers[-1](x)


class Basis(nn.Module):
    """Codes, the query's offset from them and, if there is that condition, its cell -> out_channels.

    Colors are sums of products of a function of y and a function of x, which all codes share. Fast on a CPU.
    """

    needs = frozenset({"coordinate"})
    num_statistics = 0
    radius = 0
    block_positions = 262144

    def __init__(
        self, options: BasisOptions, in_channels: int, out_channels: int, conditions: Mapping[str, int], neighbours: int
    ):
        super().__init__()
        expect_conditions(conditions, coordinate=2, cell=2)
        self.scale_dependent = "cell" in conditions
        self.shape = out_channels, options.functions, options.functions
        widths = [in_channels, *options.latent, math.prod(self.shape)]
        self.latent: Any = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))
        self.functions = AxisFunctions(options.functions, options.axis, 2 if self.scale_dependent else 1)
        if self.scale_dependent:
            self.entry = nn.Linear(2, options.modulation)
            self.modulation = nn.Linear(options.modulation, 2 * widths[1])
        if options.zero_last:
            for parameter in self.latent[-1].parameters():
                nn.init.zeros_(parameter)

    def prepare(self, field: LatentField, image_conditions: Mapping[str, Tensor]) -> Maps:
        first, *others = self.latent
        if self.scale_dependent:
            numbers = self._modulated(field, first, image_conditions["cell"])
        else:
            numbers = as_rows(field.linear(first.weight, first.bias))
        for layer in others[:-1]:
            numbers = linear(numbers.relu_(), layer.weight, layer.bias)
        if others:
            numbers = float32_linear(numbers.relu_(), others[-1].weight, others[-1].bias)
        return {"coefficient": numbers.float()}

    def decode(self, maps: Maps, sites: Sites, conditions: Mapping[str, Tensor]) -> Tensor:
        coefficients = gather(maps["coefficient"], sites.index).unflatten(-1, (self.shape[0], -1))
        known = [conditions["coordinate"]] + ([conditions["cell"]] if self.scale_dependent else [])
        down, across = (self.functions(*(values[..., axis] for values in known)) for axis in (0, 1))
        products = (down.unsqueeze(-1) * across.unsqueeze(-2)).flatten(-2)
        return blend((coefficients * products.unsqueeze(-2)).sum(-1), sites.weight)

    def axis_functions(self, axis: int, offsets: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        cell = [conditions["cell"][:, axis].view(-1, *[1] * offsets.ndim)] if self.scale_dependent else []
        return self.functions(offsets.unsqueeze(0), *cell)

    def decode_block(self, maps: Maps, rows: Tensor, columns: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        coefficients = maps["coefficient"].unflatten(-1, self.shape)
        down, across = (self.axis_functions(axis, offsets, conditions) for axis, offsets in enumerate((rows, columns)))
        with torch.autocast(coefficients.device.type, enabled=False):
            # p and q: functions of y and of x; r and s: positions along y and x
            of_columns = torch.einsum("bhwcpq,bwsq->bhwcps", coefficients, across)
            return torch.einsum("bhwcps,bhrp->bhwrsc", of_columns, down)

    def _modulated(self, field: LatentField, layer: nn.Linear, cell: Tensor) -> Tensor:
        """The first layer of all codes, times factors and plus shifts that depend on the cell: (B, h * w, D)."""
        with torch.autocast(cell.device.type, enabled=False):
            factor, shift = self.modulation(self.entry(cell).relu()).chunk(2, dim=-1)
        factor = 1 + factor
        if len(cell) == 1:  # one cell for all images: the factors multiply the weights
            weight, bias = layer.weight * factor.t(), layer.bias * factor[0] + shift[0]
            return as_rows(field.linear(weight, bias))
        return as_rows(field.linear(layer.weight, layer.bias)) * factor.unsqueeze(1) + shift.unsqueeze(1)


@hookimpl
def liif_decoders():
    return Component("basis", Basis, BasisOptions, lambda o: f"Basis {o.functions}x{o.functions}")
