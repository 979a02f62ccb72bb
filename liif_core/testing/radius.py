"""Measures how far a function looks, and compares that with the declared radius.

Exact tiling needs a declared radius that is large enough. One that is too large makes tiles overlap more than needed.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from liif_core.testing.case import fail, random

Function = Callable[[Tensor], Tensor]  # (1, c, h, w) -> (1, C, h, w), or (1, C, codes_per_pixel * (h, w))
Ratio = tuple[Fraction, Fraction]


def expect_radius(
    module: Any,
    function: Function,
    channels: int,
    radius: int,
    multiple: int = 1,
    codes_per_pixel: Ratio = (Fraction(1), Fraction(1)),
) -> int | None:
    """The largest distance at which an input pixel influences an output code; None if it cannot be measured.

    Raises ContractBroken if it exceeds ``radius``. ``function`` uses ``module``, whose parameters are changed.

    The inputs are strips that are just long enough, along both axes, examined at both ends. First everything beyond the
    radius is replaced, and outputs are compared. In a deep network the furthest pixels change the output by less than
    rounding errors. Therefore gradients in double precision are examined next: they are exactly zero beyond the radius.
    A ReLU can block the longest path by chance. Therefore weights and inputs are made positive at last, which keeps all
    paths open.
    """
    unit = max(multiple, *(ratio.denominator for ratio in codes_per_pixel))
    length = -(-(radius + unit + 2) // unit) * unit
    thick = -(-3 // unit) * unit
    strips = [(random(1, channels, thick, length), 3), (random(1, channels, length, thick), 2)]
    for strip, axis in strips:
        with torch.no_grad():
            _by_value(function, strip, axis, radius, unit, codes_per_pixel[axis - 2])
    module.double()
    measured: list[int | None] = []
    for open_all in (False, True):
        if open_all:
            average(module)
        for strip, axis in strips:
            source = strip.double().abs() if open_all else strip.double()
            measured.append(_by_gradient(function, source, axis, radius, unit, codes_per_pixel[axis - 2]))
    known = [value for value in measured if value is not None]
    return max(known) if len(known) == len(measured) else None


def over_declared(name: str, declared: int, measured: int | None) -> str:
    """The message for a declared distance that is larger than the measured one; empty otherwise."""
    if measured is None or measured >= declared:
        return ""
    return f"{name}: declared {declared}, measured {measured}; tiles overlap more than needed"


def average(module: Any) -> None:
    """Make every layer a weighted mean of its inputs: nothing is negative, and nothing grows with depth."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.abs_()
            if parameter.ndim > 1:
                parameter /= parameter.flatten(1).sum(1).clamp(min=1e-9).view(-1, *[1] * (parameter.ndim - 1))


def _ends(length: int, unit: int, ratio: Fraction) -> list[tuple[int, int, int, int]]:
    """Blocks of codes at both ends of a strip: (first code, how many, first pixel, last pixel) that they cover."""
    codes = int(length * ratio)
    return [
        (start, near, int(start / ratio), math.ceil((start + near) / ratio) - 1)
        for near in range(1, max(1, int(unit * ratio)) + 1)
        for start in (0, codes - near)
    ]


def _by_value(function: Function, strip: Tensor, axis: int, radius: int, unit: int, ratio: Fraction) -> None:
    before = function(strip)
    other = random(*strip.shape, seed=1, low=0.0)  # with another mean, to detect averages over everything
    length = strip.shape[axis]
    for start, near, low, high in _ends(length, unit, ratio):
        first, stop = max(0, low - radius), min(length, high + 1 + radius)
        changed = other.clone()
        changed.narrow(axis, first, stop - first).copy_(strip.narrow(axis, first, stop - first))
        difference = (function(changed) - before).narrow(axis, start, near).abs().max().item()
        if not difference <= 1e-4 * max(1.0, before.abs().max().item()):
            fail(f"declared {radius}, but values further away change a code by {difference:.2g}")


def _by_gradient(function: Function, strip: Tensor, axis: int, radius: int, unit: int, ratio: Fraction) -> int | None:
    furthest: int | None = None
    for start, near, low, high in _ends(strip.shape[axis], unit, ratio):
        source = strip.clone().requires_grad_()
        try:
            output = function(source).narrow(axis, start, near)
        except RuntimeError:  # a module that converts its input to float32: comparing values has to suffice
            return None
        if not output.requires_grad:
            return None
        output.backward(random(*output.shape).to(output.dtype))
        if source.grad is None:
            return None
        gradient = source.grad.abs().nan_to_num(0, 0, 0).amax([a for a in range(4) if a != axis])
        distances = [max(low - place, place - high, 0) for place in gradient.nonzero().flatten().tolist()]
        furthest = max([furthest or 0, *distances])
        if furthest > radius:
            fail(f"declared {radius}, but a code depends on values {furthest} away")
    return furthest
