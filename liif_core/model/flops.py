"""Counts the multiply-adds of matrix products and convolutions."""

import math
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from liif_core.model.linear import onednn_is_faster


def counter() -> FlopCounterMode:
    """torch's counter of matrix products and convolutions, extended to kernels that its table lacks.

    ``get_total_flops() / 2`` are multiply-adds. Element-wise operations are not counted.
    """
    onednn_is_faster()  # it is measured once per process, by products that are not the model's
    extra: dict[Any, Any] = {torch.ops.aten.addmm_: _product}
    if hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu"):
        extra[torch.ops.aten._scaled_dot_product_flash_attention_for_cpu] = _attention
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        extra[torch.ops.mkldnn._linear_pointwise] = _fused_linear
    if hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        extra[torch.ops.mkldnn._convolution_pointwise] = _fused_convolution
    return FlopCounterMode(display=False, custom_mapping=extra)


def format_multiply_adds(counted: FlopCounterMode, places: int) -> str:
    """Multiply-adds for each of ``places``, such as "12,345"; says so where only element-wise operations ran."""
    total = counted.get_total_flops()
    return f"{total / 2 / places:,.0f}" if total else "not counted (only element-wise operations)"


def _product(_: Any, a: list[int], b: list[int], **__: Any) -> int:
    return 2 * a[0] * a[1] * b[1]


def _fused_linear(x: list[int], weight: list[int], *_: Any, **__: Any) -> int:
    return 2 * x[0] * x[1] * weight[0]


def _fused_convolution(*shapes: Any, out_shape: list[int], **_: Any) -> int:
    """Of an input and a weight, and with a sum, the second summand between them."""
    weight = shapes[2] if shapes[2] is not None and len(shapes[2]) == 4 else shapes[1]
    operations: int = 2 * math.prod(out_shape) * math.prod(weight[1:])
    return operations


def _attention(query: list[int], key: list[int], value: list[int], *_: Any, **__: Any) -> int:
    *several, queries, width = query
    return 2 * math.prod(several) * queries * key[-2] * (width + value[-1])
