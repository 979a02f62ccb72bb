"""The small network of LM-LIIF and LM-LTE: its layers are scaled and shifted by values of the code (see ``lm.py``)."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from liif_core import blend
from liif_core.nn import float32_linear

_MANY = 40  # positions of a code from which on one matrix product for each code is faster


class ModulatedMLP(nn.Module):
    """``depth`` layers relu(linear(x) * (1 + scale) + shift), with scales and shifts of the code; then a linear one."""

    def __init__(self, in_width: int, width: int, depth: int, out_channels: int):
        super().__init__()
        self.width = width
        self.layers: Any = nn.ModuleList(nn.Linear(in_width if i == 0 else width, width) for i in range(depth))
        self.last = nn.Linear(width, out_channels)
        self.modulations = 2 * depth * width  # values of a code: all scales, then all shifts

    def folded(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """The linear layer that computes a code's modulations, with the biases of ``layers`` folded in.

        Its outputs are factors and shifts, so that a layer is relu(product * factor + shift).
        """
        (scale, shift), (scale_bias, shift_bias) = weight.chunk(2), bias.chunk(2)
        own = torch.cat([layer.bias for layer in self.layers])
        factor_bias = 1 + scale_bias
        return torch.cat([scale, torch.addcmul(shift, own.unsqueeze(1), scale)]), torch.cat(
            [factor_bias, torch.addcmul(shift_bias, own, factor_bias)]
        )

    def forward(self, product: Tensor, modulation: Tensor, weight: Tensor) -> Tensor:
        """The first layer's product (K, B, *Q, width), without its bias -> (B, *Q, out_channels), blended."""
        with narrow_precision(product.device):
            modulation = _converted(modulation)
            factors, shifts = (part.split(self.width, dim=-1) for part in modulation.chunk(2, dim=-1))
            x = torch.addcmul(shifts[0], product.to(modulation.dtype), factors[0]).relu_()
            for layer, factor, shift in zip(self.layers[1:], factors[1:], shifts[1:]):
                x = torch.addcmul(shift, F.linear(x, layer.weight), factor).relu_()
        # the last layer is linear, and the weights sum to 1
        return float32_linear(blend(x, weight), self.last.weight, self.last.bias)

    def of_blocks(self, x: Tensor, modulation: Tensor, first: int) -> Tensor:
        """The layers from number ``first`` on, of blocks of positions: (*codes, R, C, width) -> (*codes, R, C, out).

        ``modulation`` (*codes, modulations). The result is not blended.
        """
        codes, positions = x.shape[:-3], x.shape[-3:-1]
        x = x.reshape(-1, positions.numel(), self.width)
        factors, shifts = (
            part.reshape(len(x), -1, 1, self.width)[:, first:].unbind(1)
            for part in _converted(modulation).chunk(2, dim=-1)
        )
        with narrow_precision(x.device):
            layers = self._few if positions.numel() < _MANY else self._many
            return layers(x, factors, shifts, first).view(*codes, *positions, -1)

    def _few(self, x: Tensor, factors: Sequence[Tensor], shifts: Sequence[Tensor], first: int) -> Tensor:
        for layer, factor, shift in zip(self.layers[first:], factors, shifts):
            x = torch.addcmul(shift, F.linear(x, layer.weight), factor).relu_()
        return float32_linear(x, self.last.weight, self.last.bias)

    def _many(self, x: Tensor, factors: Sequence[Tensor], shifts: Sequence[Tensor], first: int) -> Tensor:
        """One matrix product for each code: the factors multiply its weights.

        As relu(y + t) = max(y, -t) + t, each shift t can be added later, once per code, by the next layer's shift.
        """
        pending: Tensor | None = None
        for layer, factor, shift in zip(self.layers[first:], factors, shifts):
            weight = layer.weight.t() * factor
            pending = shift if pending is None else torch.baddbmm(shift, pending, weight)
            x = torch.bmm(x, weight)
            torch.maximum(x, -pending, out=x)
        colors = float32_linear(x, self.last.weight)
        shift = self.last.bias if pending is None else float32_linear(pending, self.last.weight, self.last.bias)
        return colors.add_(shift)


def narrow_precision(device: torch.device) -> AbstractContextManager[object]:
    """Narrow layers are float32 on a CPU, where half precision does not make them faster."""
    return torch.autocast("cpu", enabled=False) if device.type == "cpu" else nullcontext()


def _converted(numbers: Tensor) -> Tensor:
    return numbers.float() if numbers.device.type == "cpu" else numbers
