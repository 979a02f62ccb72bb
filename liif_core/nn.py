"""Building blocks for plugins: fused linear layers, nearest codes, Fourier features, and a check of conditions."""

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from liif_core.shapes import Float

__all__ = [
    "expect_conditions",
    "fourier_block",
    "fourier_features",
    "fused_linear",
    "nearest_code",
    "phases",
    "y_then_x",
]

_BORDER = 1e-6  # coordinates are clamped to the image less this, as in LIIF's published code

_FUSED = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
_AFTER: dict[str, Callable[[Tensor], Tensor]] = {"none": lambda x: x, "relu": torch.relu_, "gelu": F.gelu}


def fused_linear(x: Tensor, weight: Tensor, bias: Tensor | None, then: Literal["none", "relu", "gelu"]) -> Tensor:
    """A linear layer and an activation: x (..., in) -> (..., out), with ``weight`` (out, in) and ``bias`` (out,).

    On a CPU, where no gradient is recorded, both run in one oneDNN kernel, which saves two passes over the values.
    """
    fused = _FUSED and x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and weight.is_contiguous()
    if fused and not torch.is_grad_enabled():
        flat = x.reshape(-1, x.shape[-1])
        result: Tensor = torch.ops.mkldnn._linear_pointwise(flat, weight, bias, then, [], "none")
        return result.view(*x.shape[:-1], -1)
    return _AFTER[then](F.linear(x, weight, bias))


def expect_conditions(given: Mapping[str, int], **expected: int) -> None:
    """Check the conditions that a decoder is built with, name -> width, against those that it uses.

    For example, ``expect_conditions(conditions, coordinate=2, cell=2)``. Raises ValueError that names each difference.
    """
    wrong = [f"{name!r} is {given[name]} wide" for name, width in expected.items() if given.get(name, width) != width]
    wrong += [f"{name!r} would have no effect" for name in given if name not in expected]
    if wrong:
        wanted = ", ".join(f"{name!r} of width {width}" for name, width in expected.items())
        raise ValueError(f"conditions: expected {wanted}; {', '.join(wrong)}")


def nearest_code(position: Tensor, codes: int) -> tuple[Tensor, Tensor]:
    """The latent code nearest to each position along one axis: its index, int64, and its own position.

    ``position`` holds coordinates in [-1, 1], float32; positions outside are clamped. ``codes`` is the number of codes
    along the axis. A position exactly between two codes gets the one with the even index.
    """
    inside = position.clamp(-1 + _BORDER, 1 - _BORDER)
    index = (((inside + 1) * codes - 1) / 2).round().clamp(0, codes - 1)
    return index.long(), (-1 + 1 / codes) + (2 / codes) * index


def y_then_x(pairs: Tensor, dim: int = 0) -> Tensor:
    """Reorder frequencies stored in pairs (y, x) along an axis: all of y, then all of x.

    Both halves are then contiguous in memory, which is twice as fast to compute with.
    """
    return torch.cat(pairs.unflatten(dim, (-1, 2)).unbind(dim if dim < 0 else dim + 1), dim=dim)


def phases(cell: Tensor, weight: Tensor) -> Tensor:
    """Phases of a cell (LTE, section 3.2): (..., 2) -> (..., D / 2), a linear layer without bias, in float32.

    LTE is Lee and Jin, Local Texture Estimator for Implicit Representation Function, CVPR 2022.
    """
    with torch.autocast(cell.device.type, enabled=False):
        return F.linear(cell, weight.float())


def fourier_features(amplitude: Tensor, frequency: Tensor, offset: Tensor, phase: Tensor) -> Tensor:
    """Plane waves at a position (LTE, section 3.2): (..., D), float32.

    amplitude * [cos(pi z), sin(pi z)], where z = frequency_y * y + frequency_x * x + phase.

    ``amplitude`` (..., D); ``frequency`` (..., D), all of y before all of x; ``offset`` (..., 2) (y, x) and ``phase``
    (..., D / 2), or broadcastable. Half precision has too few digits for an angle.
    """
    with torch.autocast(amplitude.device.type, enabled=False):
        y, x = frequency.float().chunk(2, dim=-1)
        angle = math.pi * torch.addcmul(y * offset[..., :1] + phase, x, offset[..., 1:])
        return amplitude.float() * torch.cat([angle.cos(), angle.sin()], dim=-1)


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
