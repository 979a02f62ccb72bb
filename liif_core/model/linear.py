"""Linear layers on a CPU: one kernel for a layer and its activation, and the faster of two libraries for gradients."""

import functools
import logging
import time
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Activation = Literal["none", "relu", "gelu"]

FUSED = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
_AFTER: dict[str, Callable[[Tensor], Tensor]] = {"none": lambda x: x, "relu": torch.relu_, "gelu": F.gelu}

_NARROWEST, _FEWEST = 64, 256  # width and rows from which a layer's time is that of its matrix products
_CLEARLY = 1.3  # how many times faster oneDNN must be; on most machines the libraries differ by less than 10 %

_log = logging.getLogger(__name__)


def fused_linear(x: Tensor, weight: Tensor, bias: Tensor | None, then: Activation) -> Tensor:
    """A linear layer and an activation: x (..., in) -> (..., out), with ``weight`` (out, in) and ``bias`` (out,).

    On a CPU, both run in one oneDNN kernel, which saves two passes over the values. Where a gradient is recorded, this
    holds for "relu" in layers that are large enough, and products use the faster of the libraries that torch has (see
    ``onednn_is_faster``). Results are those of ``torch.nn.functional.linear`` up to rounding. Gradients of gradients
    are not supported there, and raise RuntimeError.
    """
    if not _is_fusible(x, weight):
        return _AFTER[then](F.linear(x, weight, bias))
    if not torch.is_grad_enabled() or not _needs_gradient(x, weight, bias):
        x, weight, bias = in_autocast_type(x, weight, bias)
        return _product(x.reshape(-1, x.shape[-1]), weight, bias, then).view(*x.shape[:-1], -1)
    large = min(weight.shape) >= _NARROWEST and x.numel() >= _FEWEST * x.shape[-1]
    if torch.is_autocast_enabled("cpu") or not large or not (then == "relu" or onednn_is_faster()):
        return _AFTER[then](F.linear(x, weight, bias))
    result: Tensor = _Linear.apply(x.reshape(-1, x.shape[-1]), weight, bias, then == "relu")  # type: ignore[no-untyped-call]
    return (F.gelu(result) if then == "gelu" else result).view(*x.shape[:-1], -1)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``fused_linear`` without an activation."""
    return fused_linear(x, weight, bias, "none")


def float32_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``linear`` in float32, under autocast too: for positions, and for the layer that computes colors."""
    with torch.autocast(x.device.type, enabled=False):
        return fused_linear(x.float(), weight.float(), None if bias is None else bias.float(), "none")


def _is_fusible(x: Tensor, weight: Tensor) -> bool:
    if not FUSED or x.device.type != "cpu" or not weight.is_contiguous() or torch.compiler.is_compiling():
        return False
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu") == torch.bfloat16 and has_bf16_kernels()
    return x.dtype == weight.dtype == torch.float32 or (
        x.dtype == weight.dtype == torch.bfloat16 and has_bf16_kernels()
    )


@functools.cache
def has_bf16_kernels() -> bool:
    """Whether oneDNN has kernels for bf16 on this machine, natively or by emulation."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return torch.backends.mkldnn.is_available() and supported is not None and bool(supported())


def in_autocast_type(*tensors: Any) -> Any:
    """The tensors, None among them, in the type of CPU autocast, if that is enabled."""
    if not torch.is_autocast_enabled("cpu"):
        return tensors
    kind = torch.get_autocast_dtype("cpu")
    return tuple(tensor if tensor is None else tensor.to(kind) for tensor in tensors)


def _needs_gradient(*tensors: Tensor | None) -> bool:
    return any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, then: Activation = "none") -> Tensor:
    """then(x @ weight.T + bias) by oneDNN: x (N, in), weight (out, in) of any strides -> (N, out)."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, then, [], "none")
    return result


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    """a @ b.T by the faster library."""
    return _onednn(a, b) if onednn_is_faster() else _blas(a, b)


class _Linear(torch.autograd.Function):
    """A linear layer, with or without ReLU; of its result, ReLU needs no more than the result itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
        result = _product(x, weight, bias, "relu" if relu else "none")
        ctx.relu = relu
        ctx.save_for_backward(x, weight, result if relu else None)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, result = ctx.saved_tensors
        if ctx.relu:
            grad = torch.ops.aten.threshold_backward(grad, result, 0)
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        return (
            _multiply(grad, weight.t()) if of_x else None,
            _multiply(grad.t(), x.t()) if of_weight else None,
            grad.sum(0) if of_bias else None,
            None,
        )


@functools.cache
def onednn_is_faster() -> bool:
    """Whether oneDNN computes the products of a linear layer clearly faster than torch's BLAS library on this machine.

    It is measured once per process, at the first layer that is trained, in about 100 ms: a layer of 256 by 256 with its
    gradients, by each library in turn. BLAS is kept unless oneDNN takes less than 1 / 1.3 of its time, as can be where
    BLAS is MKL and the CPU is not by Intel. Neither noise nor other processes may change the library, and with it the
    rounding, from run to run; therefore one thread's own time counts.
    """
    threads, x, weight = torch.get_num_threads(), torch.ones(2304, 256), torch.ones(256, 256)
    best = {"BLAS": float("inf"), "oneDNN": float("inf")}
    try:
        torch.set_num_threads(1)
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            for _ in range(5):
                for name, multiply in (("BLAS", _blas), ("oneDNN", _onednn)):
                    start = _clock()
                    multiply(x, weight)
                    multiply(x, weight.t())
                    multiply(x.t(), x.t())
                    best[name] = min(best[name], _clock() - start)
    finally:
        torch.set_num_threads(threads)
    faster = best["oneDNN"] * _CLEARLY < best["BLAS"]
    rates = ", ".join(f"{name} {_OPERATIONS / max(seconds, 1e-9) / 1e9:.0f}" for name, seconds in best.items())
    _log.info("linear layers in training use %s; GFLOP/s per core: %s", "oneDNN" if faster else "BLAS", rates)
    return faster


_OPERATIONS = 3 * 2 * 2304 * 256**2  # of the layer that is measured


def _clock() -> float:
    """Seconds of this thread, or of the clock on the wall where threads are timed coarsely (Windows)."""
    return time.thread_time() if time.get_clock_info("thread_time").resolution < 1e-4 else time.perf_counter()


def _onednn(a: Tensor, b: Tensor) -> Tensor:
    return _product(a, b, None)


def _blas(a: Tensor, b: Tensor) -> Tensor:
    return a @ b.t()
