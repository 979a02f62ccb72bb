"""Plane waves, the features of LTE (Lee and Jin, Local Texture Estimator for Implicit Representation Function, CVPR
2022), with gradients that keep little in memory."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from liif_core.shapes import Float


def y_then_x(pairs: Tensor, dim: int = 0) -> Tensor:
    """Reorder frequencies stored in pairs (y, x) along an axis: all of y, then all of x.

    Both halves are then contiguous in memory, which is twice as fast to compute with.
    """
    return torch.cat(pairs.unflatten(dim, (-1, 2)).unbind(dim if dim < 0 else dim + 1), dim=dim)


def phases(cell: Tensor, weight: Tensor) -> Tensor:
    """Phases of a cell (LTE, section 3.2): (..., 2) -> (..., D / 2), a linear layer without bias, in float32."""
    with torch.autocast(cell.device.type, enabled=False):
        return F.linear(cell, weight.float())


def fourier_features(amplitude: Tensor, frequency: Tensor, offset: Tensor, phase: Tensor) -> Tensor:
    """Plane waves at a position (LTE, section 3.2): (..., D), float32.

    amplitude * [cos(pi z), sin(pi z)], where z = frequency_y * y + frequency_x * x + phase.

    ``amplitude`` (..., D); ``frequency`` (..., D), all of y before all of x; ``offset`` (..., 2) (y, x) and ``phase``
    (..., D / 2), or broadcastable. Half precision has too few digits for an angle. Gradients of gradients are not
    supported, and raise RuntimeError.
    """
    with torch.autocast(amplitude.device.type, enabled=False):
        parts = amplitude.float(), frequency.float(), offset.float(), phase.float()
        if torch.is_grad_enabled() and any(part.requires_grad for part in parts):
            result: Tensor = _Waves.apply(*parts)  # type: ignore[no-untyped-call]
            return result
        return _waves(parts[0], _angle(*parts[1:]))


def _angle(frequency: Tensor, offset: Tensor, phase: Tensor) -> Tensor:
    y, x = frequency.chunk(2, dim=-1)
    return math.pi * torch.addcmul(y * offset[..., :1] + phase, x, offset[..., 1:])


def _waves(amplitude: Tensor, angle: Tensor) -> Tensor:
    return amplitude * torch.cat([angle.cos(), angle.sin()], dim=-1)


def fourier_block(
    amplitude: Float[Tensor, "B h w D"],
    frequency: Float[Tensor, "B h w D"],
    rows: Float[Tensor, "h R"],
    columns: Float[Tensor, "w C"],
    phase: Float[Tensor, "b D/2"],
) -> Float[Tensor, "B h w R C D"]:
    """``fourier_features`` of codes at blocks of positions, for ``BlockDecoder.decode_block``; float32.

    ``amplitude`` and ``frequency`` are as in ``fourier_features``; ``rows`` and ``columns`` are the positions' offsets.
    The addition theorem, cos(a + b) = cos a cos b - sin a sin b, needs R + C sines and cosines of a wave, not R * C.
    """
    with torch.autocast(amplitude.device.type, enabled=False):
        y, x = (math.pi * part.unsqueeze(3) for part in frequency.float().chunk(2, dim=-1))
        down = torch.addcmul(math.pi * phase[:, None, None, None], y, rows[:, None, :, None])
        across = x * columns[:, :, None]
        cosine, sine = (part.unsqueeze(3) for part in amplitude.float().chunk(2, dim=-1))
        down_cosine, down_sine = down.cos(), down.sin()
        across_cosine, across_sine = across.cos().unsqueeze(3), across.sin().unsqueeze(3)
        values = down.new_empty(*down.shape[:4], columns.shape[1], amplitude.shape[-1])
        first, second = values.chunk(2, dim=-1)
        torch.mul((cosine * down_cosine).unsqueeze(4), across_cosine, out=first)
        first.addcmul_((cosine * down_sine).unsqueeze(4), across_sine, value=-1)
        torch.mul((sine * down_sine).unsqueeze(4), across_cosine, out=second)
        second.addcmul_((sine * down_cosine).unsqueeze(4), across_sine)
        return values


class _Waves(torch.autograd.Function):
    """Keeps the angles; sines and cosines, twice as many, are computed again for the gradient."""

    @staticmethod
    def forward(ctx: Any, amplitude: Tensor, frequency: Tensor, offset: Tensor, phase: Tensor) -> Tensor:
        angle = _angle(frequency, offset, phase)
        ctx.shapes = amplitude.shape, frequency.shape, offset.shape, phase.shape
        ctx.save_for_backward(amplitude, angle, offset, frequency if offset.requires_grad else None)
        return _waves(amplitude, angle)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        amplitude, angle, offset, frequency = ctx.saved_tensors
        of_amplitude, of_frequency, of_offset, of_phase = ctx.needs_input_grad
        cos, sin = angle.cos(), angle.sin()
        grads: list[Tensor | None] = [None, None, None, None]
        if of_amplitude:
            grads[0] = grad * torch.cat([cos, sin], dim=-1)
        if of_frequency or of_offset or of_phase:
            of_cos, of_sin = (grad * amplitude).chunk(2, dim=-1)
            slope = torch.addcmul(of_sin * cos, of_cos, sin, value=-1).mul_(math.pi)  # by z
            if of_frequency:
                grads[1] = torch.cat([slope * offset[..., :1], slope * offset[..., 1:]], dim=-1)
            if of_offset:
                y, x = frequency.chunk(2, dim=-1)
                grads[2] = torch.stack([(slope * y).sum(-1), (slope * x).sum(-1)], dim=-1)
            grads[3] = slope if of_phase else None
        return tuple(None if own is None else own.sum_to_size(shape) for own, shape in zip(grads, ctx.shapes))
