"""The small operations that decoders are made of: gathering the codes that queries read, and blending the results."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from liif_core.shapes import Float, Int


def as_rows(maps: Float[Tensor, "B D h w"]) -> Float[Tensor, "B codes D"]:
    """(B, D, h, w) -> (B, h * w, D), the layout that ``gather`` reads; without a copy if the map is channels-last."""
    return maps.permute(0, 2, 3, 1).reshape(maps.shape[0], -1, maps.shape[1])


def gather(rows: Float[Tensor, "B codes D"], index: Int[Tensor, "K b *Q"]) -> Float[Tensor, "K B *Q D"]:
    """The rows of ``as_rows`` at the given indices."""
    batch, codes, width = rows.shape
    index = index.expand(index.shape[0], batch, *index.shape[2:])
    if batch > 1:
        first = torch.arange(0, batch * codes, codes, device=index.device)
        index = index + first.view(1, batch, *[1] * (index.ndim - 2))
    return rows.reshape(-1, width).index_select(0, index.reshape(-1)).reshape(*index.shape, width)


def blend(values: Float[Tensor, "K B *Q D"], weight: Float[Tensor, "K b *Q"]) -> Float[Tensor, "B *Q D"]:
    """The weighted sum over the K neighbours, in float32 also where ``values`` are in half precision.

    Gradients of gradients are not supported, and raise RuntimeError.
    """
    if len(values) == 1:  # a single weight is 1
        return values[0].to(torch.promote_types(values.dtype, weight.dtype))
    if torch.is_grad_enabled() and (values.requires_grad or weight.requires_grad):
        result: Tensor = _Blend.apply(values, weight)  # type: ignore[no-untyped-call]
        return result
    return _weighted_sum(values, weight)


def _weighted_sum(values: Tensor, weight: Tensor) -> Tensor:
    weight = weight.unsqueeze(-1)
    result = values[0] * weight[0]
    for value, its in zip(values[1:], weight[1:]):  # one by one: no second tensor as large as all of them
        result = torch.addcmul(result, value, its)
    return result


class _Blend(torch.autograd.Function):
    """The weighted sum. Its gradient is one product; torch's own would add up K tensors as large as ``values``."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor) -> Tensor:
        ctx.of_values = values.shape, values.dtype
        ctx.save_for_backward(weight, values if weight.requires_grad else None)
        return _weighted_sum(values, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        weight, values = ctx.saved_tensors
        shape, dtype = ctx.of_values
        of_values, of_weight = ctx.needs_input_grad
        return (
            (grad * weight.unsqueeze(-1)).sum_to_size(shape).to(dtype) if of_values else None,
            (grad * values).sum(-1).sum_to_size(weight.shape).to(weight.dtype) if of_weight else None,
        )
