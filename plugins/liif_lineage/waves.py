"""The plane waves of LTE and LM-LTE: a code holds amplitudes and frequencies, and a place near it has their values."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def y_then_x(pairs: Tensor, dim: int = 0) -> Tensor:
    """Frequencies that come in pairs (y, x) along an axis, as they are trained: all of y, then all of x.

    In that order both halves lie together in memory, which is twice as fast to compute with.
    """
    return torch.cat(pairs.unflatten(dim, (-1, 2)).unbind(dim if dim < 0 else dim + 1), dim=dim)


def phases(cell: Tensor, weight: Tensor) -> Tensor:
    """(..., 2) -> (..., D / 2): a linear layer without bias, in float32."""
    with torch.autocast(cell.device.type, enabled=False):
        return F.linear(cell, weight.float())


def wave_values(amplitude: Tensor, frequency: Tensor, offset: Tensor, phase: Tensor) -> Tensor:
    """(..., D): amplitude * [cos(pi z), sin(pi z)], where z = frequency_y * y + frequency_x * x + phase.

    ``amplitude`` (..., D); ``frequency`` (..., D), all of y before all of x; ``offset`` (..., 2) (y, x) and ``phase``
    (..., D / 2), or broadcastable. In float32: half precision has too few digits for an angle.
    """
    with torch.autocast(amplitude.device.type, enabled=False):
        y, x = frequency.float().chunk(2, dim=-1)
        angle = math.pi * torch.addcmul(y * offset[..., :1] + phase, x, offset[..., 1:])
        return amplitude.float() * torch.cat([angle.cos(), angle.sin()], dim=-1)
