"""A linear layer and what follows it in one kernel, where there is one: oneDNN's saves two passes over the values."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

_FUSED = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
_AFTER = {"none": lambda x: x, "relu": torch.relu_, "gelu": F.gelu}


def fused_linear(x: Tensor, weight: Tensor, bias: Tensor | None, then: Literal["none", "relu", "gelu"]) -> Tensor:
    """``then`` of a linear layer of x (..., in): (..., out), with ``weight`` (out, in) and ``bias`` (out,)."""
    fused = _FUSED and x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and weight.is_contiguous()
    if fused and not torch.is_grad_enabled():
        flat = x.reshape(-1, x.shape[-1])
        return torch.ops.mkldnn._linear_pointwise(flat, weight, bias, then, [], "none").view(*x.shape[:-1], -1)
    return _AFTER[then](F.linear(x, weight, bias))
