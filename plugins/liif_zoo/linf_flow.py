"""LINF's normalizing flow of colors, and the network that conditions it: waves of the codes around a query."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from attrs import frozen
from attrs.validators import ge
from torch import Tensor, nn

from liif_core import Maps, Sites, as_rows, gather, option
from liif_core.nn import float32_linear, fourier_features, fused_linear, phases
from liif_zoo.lte import even

_SHIFT = 2.0  # is added to what the network gives for a factor, so that factors begin near 1
_SMALLEST_FACTOR = 1e-4


@frozen
class LINFOptions:
    width: int = option(
        "Channels of the coefficients and of the frequencies, and width of the hidden layers; even.",
        256,
        check=even,
        quick=32,
    )
    layers: int = option("Number of hidden layers.", 3, check=ge(1), quick=2)
    flow_layers: int = option("Layers of the flow.", 10, check=ge(1), quick=4)


class Flow(nn.Module):
    """A flow between vectors of ``size`` colors and normally distributed numbers, in float32.

    From colors to numbers, each layer multiplies by a matrix and adds a vector, multiplies by factors and adds shifts;
    a last matrix and a last vector follow. Factors and shifts are conditions: of layer i, numbers 2 i and 2 i + 1 of
    (..., 2 * layers, size). Factors are sigmoid(number + 2) + 1e-4.
    """

    def __init__(self, layers: int, size: int):
        super().__init__()
        linears = [nn.Linear(size, size) for _ in range(layers + 1)]
        for linear in linears:
            nn.init.orthogonal_(linear.weight)  # its inverse does not amplify
            nn.init.zeros_(linear.bias)
        self.linears: Any = nn.ModuleList(linears)

    def inverse(self) -> Tensor:
        """(layers + 1, size, size + 1): of each matrix, the inverse, and its product with minus the vector.

        Raises ValueError for a matrix that has none.
        """
        with torch.autocast(self.linears[0].weight.device.type, enabled=False):
            weight = _double(torch.stack([linear.weight for linear in self.linears]))
            bias = _double(torch.stack([linear.bias for linear in self.linears]))
            matrix, info = torch.linalg.inv_ex(weight)
            singular = info.nonzero().flatten().tolist()
            if singular:
                raise ValueError(f"flow: matrix {singular[0]} is singular, so that the flow cannot be inverted")
            both = torch.cat([matrix, -matrix @ bias.unsqueeze(-1)], dim=-1)
            return both.to(self.linears[0].weight)

    def mode(self, conditions: Tensor, inverse: Tensor) -> Tensor:
        """The colors whose numbers are all 0: (..., 2 * layers * size) -> (..., size)."""
        with torch.autocast(conditions.device.type, enabled=False):
            scale, shift = self._numbers(conditions)
            factor = ((scale + _SHIFT).sigmoid() + _SMALLEST_FACTOR).reciprocal()
            matrices, constants = inverse[..., :-1], inverse[..., -1:]
            x = constants[-1]
            for i in range(len(self.linears) - 2, -1, -1):
                x = torch.addmm(constants[i], matrices[i], (x - shift[i]) * factor[i])
            return x.t().unflatten(0, conditions.shape[:-1])

    def surprise(self, colors: Tensor, conditions: Tensor) -> Tensor:
        """The negative log-likelihood of colors (..., size), in nats: (...)."""
        with torch.autocast(conditions.device.type, enabled=False):
            scale, shift = self._numbers(conditions)
            factor = (scale + _SHIFT).sigmoid() + _SMALLEST_FACTOR
            x = colors.float().flatten(0, -2).t()
            for i, linear in enumerate(self.linears[:-1]):
                x = torch.addmm(linear.bias.unsqueeze(1), linear.weight, x) * factor[i] + shift[i]
            z = torch.addmm(self.linears[-1].bias.unsqueeze(1), self.linears[-1].weight, x)
            weight = _double(torch.stack([linear.weight for linear in self.linears]))
            volume = torch.linalg.slogdet(weight).logabsdet.sum().to(factor) + factor.log().sum((0, 1))
            result = z.square().sum(0) / 2 + len(z) * math.log(2 * math.pi) / 2 - volume
            return result.unflatten(0, conditions.shape[:-1])

    def _numbers(self, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """(..., 2 * layers * size) -> twice (layers, size, N), contiguous: for the factors, and the shifts."""
        size = self.linears[0].in_features
        both = conditions.float().flatten(0, -2).unflatten(-1, (-1, 2, size)).permute(2, 1, 3, 0).contiguous()
        return both[0], both[1]


def _double(values: Tensor) -> Tensor:
    return (values.cpu() if values.device.type == "mps" else values).double()  # that has no doubles


class FlowNetwork(nn.Module):
    """Codes of the neighbours of a query -> a flow of ``size`` colors.

    The waves of each neighbour are multiplied by its weight. All of them, one after the other, enter one network, which
    gives the flow its conditions.
    """

    def __init__(self, in_channels: int, width: int, hidden: int, flow_layers: int, size: int, neighbours: int):
        super().__init__()
        self.coefficient = nn.Conv2d(in_channels, width, 3, padding=1)
        self.frequency = nn.Conv2d(in_channels, width, 3, padding=1)  # all of y, then all of x
        self.phase = nn.Linear(2, width // 2, bias=False)
        widths = [neighbours * width, *[width] * hidden, 2 * flow_layers * size]
        self.layers: Any = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))
        self.flow = Flow(flow_layers, size)

    def maps(self, codes: Tensor) -> Maps:
        """Codes (B, in_channels, h, w) -> waves; and the inverse of the flow, unless the weights may be in training."""
        layers = self.coefficient, self.frequency
        weight, bias = (torch.cat([getattr(layer, part) for layer in layers]) for part in ("weight", "bias"))
        maps = {"waves": as_rows(F.conv2d(codes, weight, bias, padding=1))}
        if not torch.is_grad_enabled():
            inverse = self.flow.inverse()
            maps["inverse"] = inverse.expand(len(codes), *inverse.shape)
        return maps

    def forward(self, maps: Maps, sites: Sites, offset: Tensor, cell: Tensor) -> Tensor:
        """The likeliest colors, (B, *Q, size).

        ``offset`` (K, b, *Q, 2) and ``cell`` (b, *Q, 2), or broadcastable to that, are in feature-cell units.
        """
        # with gradients, weights may have changed since the maps were made
        known = "inverse" in maps and not torch.is_grad_enabled()
        inverse = maps["inverse"][0] if known else self.flow.inverse()
        return self.flow.mode(self._conditions(maps, sites, offset, cell), inverse)

    def surprise(self, maps: Maps, sites: Sites, offset: Tensor, cell: Tensor, target: Tensor) -> Tensor:
        """The negative log-likelihood of each target (B, *Q, size), in nats: (B, *Q)."""
        return self.flow.surprise(target, self._conditions(maps, sites, offset, cell))

    def _conditions(self, maps: Maps, sites: Sites, offset: Tensor, cell: Tensor) -> Tensor:
        """(B, *Q, 2 * flow_layers * size)."""
        index = sites.index.movedim(0, -1).unsqueeze(0)  # neighbours last, in the order that the network reads them
        waves = gather(maps["waves"], index)[0]  # (B, *Q, K, 2 * width)
        weight, offset = sites.weight.movedim(0, -1).unsqueeze(-1), offset.movedim(0, -2)
        phase = phases(cell, self.phase.weight).unsqueeze(-2)
        hidden = (_waves if torch.is_grad_enabled() else _waves_)(waves, weight, offset, phase).flatten(-2)
        for layer in self.layers[:-1]:
            hidden = fused_linear(hidden, layer.weight, layer.bias, "relu")
        return float32_linear(hidden, self.layers[-1].weight, self.layers[-1].bias)


def _waves(waves: Tensor, weight: Tensor, offset: Tensor, phase: Tensor) -> Tensor:
    """Coefficients and frequencies (..., 2 * width) at an offset -> (..., width), float32, times the weight."""
    amplitude, frequency = waves.chunk(2, dim=-1)
    return fourier_features(amplitude * weight, frequency, offset, phase)


def _waves_(waves: Tensor, weight: Tensor, offset: Tensor, phase: Tensor) -> Tensor:
    """The same in fewer passes over the values, some of which are replaced; without gradients."""
    with torch.autocast(waves.device.type, enabled=False):
        amplitude, frequency = waves.float().chunk(2, dim=-1)
        (y, x), offset = frequency.chunk(2, dim=-1), math.pi * offset
        angle = torch.addcmul(math.pi * phase, y, offset[..., :1]).addcmul_(x, offset[..., 1:])
        result = amplitude * weight
        cosine, sine = result.chunk(2, dim=-1)
        cosine.mul_(angle.cos())
        sine.mul_(angle.sin_())
        return result
