"""Measures how far around a position a model looks."""

import math
from typing import Any

import torch
from torch import Tensor

from liif_core.testing.case import fail, random
from liif_core.testing.radius import average


def measured_halo(model: Any, channels: int) -> int | None:
    """The smallest halo that contains every pixel that influences a color; None if it cannot be measured.

    Raises ContractBroken if it exceeds ``model.halo``. The parameters of the model are changed.

    A halo of n means: a pixel influences no position that is n or more pixels away from its nearest edge. The images
    are strips that are just long enough. Positions near both ends are examined: first by replacing everything beyond
    the halo, then by gradients, and at last by gradients with positive weights, which keep all paths open.
    """
    declared, unit = model.halo, model.multiple_of
    length = -(-(declared + unit + 3) // unit) * unit
    positions = torch.arange(4 * unit + 1) / 4  # in pixels from the end
    measured: list[int | None] = []
    for open_all in (False, True):
        if open_all:
            average(model)
        for axis in (2, 3):
            shape = [1, channels, -(-3 // unit) * unit, -(-3 // unit) * unit]
            shape[axis] = length
            strip = random(*shape, low=0.0)
            for from_end in (False, True):
                place = length - positions if from_end else positions
                if not open_all:
                    _by_value(model, strip, axis, place, declared, from_end)
                measured += [_by_gradient(model, strip, axis, p, declared) for p in place.tolist()]
    known = [value for value in measured if value is not None]
    return max(known) if len(known) == len(measured) else None


def _colors(model: Any, image: Tensor, axis: int, positions: Tensor) -> Tensor:
    """Colors at positions along an axis, in pixels, halfway along the other."""
    length = image.shape[axis]
    coord = torch.zeros(1, len(positions), 2)
    coord[0, :, axis - 2] = 2 * positions / length - 1
    cell = torch.tensor([2.0 / image.shape[2], 2.0 / image.shape[3]])
    colors: Tensor = model.encode(image).query(coord, cell)
    return colors


def _by_value(model: Any, strip: Tensor, axis: int, positions: Tensor, halo: int, from_end: bool) -> None:
    length = strip.shape[axis]
    near = int(positions.min() - halo) if from_end else math.ceil(positions.max() + halo)
    changed = random(*strip.shape, seed=1, low=0.5)
    first, stop = (max(0, near), length) if from_end else (0, min(length, near))
    changed.narrow(axis, first, stop - first).copy_(strip.narrow(axis, first, stop - first))
    with torch.no_grad():
        before, after = (_colors(model, image, axis, positions) for image in (strip, changed))
    difference = (after - before).abs().max().item()
    if not difference <= 1e-4 * max(1.0, before.abs().max().item()):
        fail(f"declared {halo}, but pixels further away change a color by {difference:.2g}")


def _by_gradient(model: Any, strip: Tensor, axis: int, position: float, halo: int) -> int | None:
    source = strip.clone().requires_grad_()
    colors = _colors(model, source, axis, torch.tensor([position]))
    if not colors.requires_grad:
        return None
    colors.backward(random(*colors.shape, low=0.5))
    if source.grad is None:
        return None
    gradient = source.grad.abs().nan_to_num(0, 0, 0).amax([a for a in range(4) if a != axis])
    distances = [max(place - position, position - place - 1, -1) for place in gradient.nonzero().flatten().tolist()]
    needed: int = max([0, *(math.floor(distance) + 1 for distance in distances)])
    if needed > halo:
        fail(f"declared {halo}, but a color depends on pixels {max(distances):.2f} away, for which {needed} is needed")
    return needed
