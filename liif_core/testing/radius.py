"""Is a declared radius true? What lies further away must change nothing: exact tiling rests on it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from liif_core.testing.case import fail, random

Function = Callable[[Tensor], Tensor]  # (1, c, h, w) -> (1, C, h, w)


def expect_radius(module: nn.Module, function: Function, channels: int, radius: int, multiple: int = 1) -> None:
    """``function`` uses ``module``, whose parameters are others afterwards.

    Strips that are just long enough, along both axes and from both ends. First by value, everything beyond the radius
    replaced. A deep network's furthest pixels change its output by less than rounding, so then by the gradient, in
    double precision, where it is zero beyond the radius or not. A ReLU may close the longest path by chance, so last
    with weights and inputs that keep all of them open.
    """
    length = -(-(radius + multiple + 2) // multiple) * multiple
    thick = -(-3 // multiple) * multiple
    strips = [random(1, channels, thick, length), random(1, channels, length, thick)]
    for strip, axis in zip(strips, (3, 2)):
        with torch.no_grad():
            _by_value(function, strip, axis, radius, multiple)
    module.double()
    for open_all in (False, True):
        if open_all:
            _average(module)
        for strip, axis in zip(strips, (3, 2)):
            _by_gradient(function, strip.double().abs() if open_all else strip.double(), axis, radius, multiple)


def _average(module: nn.Module) -> None:
    """Make every layer a weighted mean of what it sees: nothing is negative, and nothing grows with depth."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.abs_()
            if parameter.ndim > 1:
                parameter /= parameter.flatten(1).sum(1).clamp(min=1e-9).view(-1, *[1] * (parameter.ndim - 1))


def _by_value(function: Function, strip: Tensor, axis: int, radius: int, multiple: int) -> None:
    before = function(strip)
    other = random(*strip.shape, seed=1, low=0.0)  # another mean too, for what averages over everything
    length = strip.shape[axis]
    for near in range(1, multiple + 1):  # codes that must not change, at either end
        for start in (0, length - near):
            changed = other.clone()
            seen = _seen(start, near, radius, length)
            changed.narrow(axis, *seen).copy_(strip.narrow(axis, *seen))
            difference = (function(changed) - before).narrow(axis, start, near).abs().max().item()
            if not difference <= 1e-4 * max(1.0, before.abs().max().item()):
                fail(f"{radius} is declared, and what lies further away changes a code by {difference:.2g}")


def _by_gradient(function: Function, strip: Tensor, axis: int, radius: int, multiple: int) -> None:
    length = strip.shape[axis]
    for near in range(1, multiple + 1):
        for start in (0, length - near):
            source = strip.clone().requires_grad_()
            try:
                output = function(source).narrow(axis, start, near)
            except RuntimeError:  # a module that makes float32 of what it gets: values have to do
                return
            if not output.requires_grad:
                return
            output.backward(random(*output.shape).to(output.dtype))
            if source.grad is None:
                return
            gradient = source.grad.abs().nan_to_num(0, 0, 0)
            gradient.narrow(axis, *_seen(start, near, radius, length)).zero_()
            if gradient.any():
                places = gradient.amax([a for a in range(4) if a != axis]).nonzero().flatten()
                ends = (start, start + near - 1)
                furthest = max(min(abs(int(place) - end) for end in ends) for place in places)
                fail(f"{radius} is declared, and a code sees what lies {furthest} away")


def _seen(start: int, count: int, radius: int, length: int) -> tuple[int, int]:
    """First place, and how many, that codes from ``start`` may look at."""
    first = max(0, start - radius)
    return first, min(length, start + count + radius) - first
