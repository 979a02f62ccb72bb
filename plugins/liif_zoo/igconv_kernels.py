"""The kernels of IGConv as a function of position, and the positions at which they are needed."""

from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from liif_core.nn import Activation, float32_linear, fourier_features, fused_linear
from liif_zoo.igconv_codes import room

Scale = tuple[Fraction, Fraction]  # vertical, horizontal

_SNAP = 5e-4  # offsets, in half feature cells, that differ by less can be equal but for the rounding of coordinates
_LARGEST = 64  # denominator of a scale that is taken for a fraction


class Kernels(nn.Module):
    """Position (y, x) in a code's cell, and size of a pixel -> a kernel: ``outputs`` numbers for each of ``rows``.

    Each row has sine and cosine waves of its own, which a network that all rows share maps to the row's numbers. With
    two groups, one half of the network reads the even waves and the other half the odd ones, and the last layer has no
    bias. With ``side``, kernels are means over the eight flips and turns of their squares of that side.
    """

    def __init__(self, rows: int, outputs: int, waves: int, width: int, depth: int, groups: int, side: int | None):
        super().__init__()
        self.groups, self.side = groups, side
        self.frequency = nn.Parameter(torch.randn(rows, 2 * waves))  # all of y, then all of x
        self.amplitude = nn.Parameter(torch.randn(rows, 2 * waves))  # of cosines, then of sines
        self.phase = nn.Linear(1, waves)
        widths = [2 * waves, *[width] * depth, outputs]
        layers = [
            nn.Linear(a // groups, b, bias=groups == 1 or i < depth) for i, (a, b) in enumerate(zip(widths, widths[1:]))
        ]
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        with torch.no_grad():
            for parameter in layers[-1].parameters():  # so that sums over the rows are small at first
                parameter.mul_(0.1 * rows**-0.5)
        self.layers: Any = nn.ModuleList(layers)

    def at(self, offset: Tensor, pixel: Tensor) -> Tensor:
        """(n, rows, outputs), float32, of offsets (n, 2) in half cells and sizes of pixels (n, 1)."""
        rows, width = self.frequency.shape
        step = max(1, room(offset.device) // (rows * max(width, *(len(layer.weight) for layer in self.layers))))
        with torch.autocast(offset.device.type, enabled=False):
            some = list(zip(offset.split(step), pixel.split(step)))
            if len(some) == 1 or not torch.is_grad_enabled():
                return torch.cat([self._some(*own) for own in some])
            # what these layers compute is hundreds of times as large as codes: it is computed again for gradients
            return torch.cat([checkpoint(self._some, *own, use_reentrant=False) for own in some])

    def _some(self, offset: Tensor, pixel: Tensor) -> Tensor:
        phase = float32_linear(pixel, self.phase.weight, self.phase.bias).unsqueeze(1)
        x = fourier_features(self.amplitude, self.frequency, offset.unsqueeze(1), phase)
        if self.groups > 1:
            x = torch.cat([x[..., i :: self.groups] for i in range(self.groups)], dim=-1)
        *hidden, last = self.layers
        for layer in hidden:
            x = self._grouped(x, layer, "relu")
        kernels = self._grouped(x, last, "none")
        return kernels if self.side is None else _symmetric(kernels, self.side)

    def _grouped(self, x: Tensor, layer: nn.Linear, then: Activation) -> Tensor:
        if self.groups == 1:
            return fused_linear(x, layer.weight, layer.bias, then)
        biases = [None] * self.groups if layer.bias is None else layer.bias.chunk(self.groups)
        parts = zip(x.chunk(self.groups, dim=-1), layer.weight.chunk(self.groups), biases)
        return torch.cat([fused_linear(part.contiguous(), weight, bias, then) for part, weight, bias in parts], dim=-1)


def _symmetric(kernels: Tensor, side: int) -> Tensor:
    """(n, rows, outputs) -> the same, the mean over the eight flips and turns; a row is (channel, y, x)."""
    square = kernels.unflatten(1, (-1, side, side))
    square = square + square.transpose(2, 3)
    square = square + square.flip(2)
    result: Tensor = (square + square.flip(3)).flatten(1, 3) / 8
    return result


def scale_of(cell: Tensor) -> Scale | None:
    """The vertical and horizontal scale of cells (n, 2), if all are equal and these are simple fractions."""
    if len(cell) > 1 and not (cell == cell[:1]).all():
        return None
    found = []
    for side in cell[0].tolist():
        scale = Fraction(2 / side).limit_denominator(_LARGEST) if 1e-6 < side < 1e3 else Fraction(0)
        if scale == 0 or abs(side * scale / 2 - 1) > 1e-6:
            return None
        found.append(scale)
    return found[0], found[1]


def lattice(scale: Fraction, device: torch.device) -> Tensor:
    """All offsets from the nearest code, in half cells, that pixels of an image enlarged by a fraction can have.

    Pixel j and code i of an image enlarged p / q times are ((2 j + 1) q - (2 i + 1) p) / p apart: a whole number that
    is even or odd as p - q is, from -p to p.
    """
    most = lattice_size(scale) - 1
    return torch.arange(-most, most + 1, 2, device=device, dtype=torch.float32) / scale.numerator


def lattice_size(scale: Fraction) -> int:
    """The number of offsets in ``lattice``."""
    return scale.numerator + 1 - scale.denominator % 2


def places_in(lattice: Tensor, offset: Tensor, filled: bool = False) -> Tensor | None:
    """The place of each offset in a lattice; None if one is not there.

    With ``filled``, zeros in all but the first column stand for no offset, and may have any place.
    """
    if filled and len(lattice) % 2 == 0:  # 0 is not in it
        offset = torch.cat([offset[:, :1], offset[:, 1:].where(offset[:, 1:] != 0, lattice[0])], dim=1)
    step = (lattice[-1] - lattice[0]) / (len(lattice) - 1) if len(lattice) > 1 else 2
    place = ((offset - lattice[0]) / step).round().clamp(0, len(lattice) - 1)
    near = ((offset - lattice[0] - place * step).abs() < _SNAP).all()
    return place.long() if near else None


def distinct(offset: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The different pairs of an offset (..., 2) and a size of a pixel (..., 1), and which of them each query has.

    (n, 2), (n, 1) and (...).
    """
    axes = [_merged(values) for values in (offset[..., 0], offset[..., 1])]
    sizes, number = pixel[..., 0].unique(return_inverse=True)
    for values, own in axes:
        number = number * len(values) + own
    number, which = number.unique(return_inverse=True)
    found = []
    for values, _ in reversed(axes):
        found.append(values[number % len(values)])
        number = number.div(len(values), rounding_mode="floor")
    return torch.stack(found[::-1], dim=-1), sizes[number].unsqueeze(-1), which


def _merged(values: Tensor) -> tuple[Tensor, Tensor]:
    """Different values, and which of them each is. Few groups that are narrow are taken for one value each.

    So are the offsets of the pixels of a grid, which repeat and differ by the rounding of coordinates.
    """
    found, which = values.unique(return_inverse=True)
    group = (found.diff(prepend=found[:1]) > _SNAP).cumsum(0)
    last = int(group[-1])
    if 4 * (last + 1) > len(found):
        return found, which
    low, high = (found.new_zeros(last + 1).scatter_reduce(0, group, found, way, include_self=False)
                 for way in ("amin", "amax"))  # fmt: skip
    if ((high - low) > _SNAP).any():
        return found, which
    return (low + high) / 2, group[which]
