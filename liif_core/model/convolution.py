"""Convolutions on a CPU, with the operation that follows in the same kernel."""

from typing import Literal

import torch
from torch import Tensor, nn

from liif_core.model.linear import has_bf16_kernels, in_autocast_type

FUSED = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")


def fused_conv(
    x: Tensor, layer: nn.Conv2d, then: Literal["none", "relu"] = "none", plus: Tensor | None = None
) -> Tensor:
    """A convolution, the sum with ``plus`` if given, and an activation: x (B, in, h, w) -> (B, out, h', w').

    On a CPU, where no gradient is recorded, all run in one oneDNN kernel, which saves passes over the values. Results
    are those of the single operations up to rounding. ``layer`` pads with zeros by numbers; ``plus`` has the shape of
    the result.
    """
    if not _is_fusible(x, layer, plus):
        result: Tensor = layer(x)
        result = result if plus is None else plus + result
        return result.relu_() if then == "relu" else result
    x, weight, bias, plus = in_autocast_type(x, layer.weight, layer.bias, plus)
    where = layer.padding, layer.stride, layer.dilation, layer.groups
    if plus is None:
        fused: Tensor = torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *where, then, [], "")
        return fused
    after = None if then == "none" else then
    summed: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(
        x, plus, weight, bias, *where, "add", 1.0, after, [], ""
    )
    return summed


def _is_fusible(x: Tensor, layer: nn.Conv2d, plus: Tensor | None) -> bool:
    tensors = [x, layer.weight, *([] if plus is None else [plus])]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (*tensors, layer.bias) if tensor is not None):
        return False
    if not FUSED or x.device.type != "cpu" or torch.compiler.is_compiling() or layer.padding_mode != "zeros":
        return False
    if type(layer) is not nn.Conv2d or layer._forward_hooks or layer._forward_pre_hooks:
        return False
    if isinstance(layer.padding, str) or 0 in x.shape:
        return False
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu") == torch.bfloat16 and has_bf16_kernels()
    return all(tensor.dtype == torch.float32 for tensor in tensors)
