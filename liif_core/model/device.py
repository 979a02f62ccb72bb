"""Devices, precision, and evaluation mode."""

import functools
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain

import torch
from torch import Tensor, nn

from liif_core.errors import UserError
from liif_core.model.linear import has_bf16_kernels

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str = "auto") -> torch.device:
    """``auto`` takes CUDA, else MPS, else the CPU. Raises UserError for a device that is not here."""
    if name == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"device: expected auto, cpu, cuda, cuda:N or mps, got {name!r}")
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}[device.type]
    if here and device.type == "cuda":
        here = (device.index or 0) < torch.cuda.device_count()
    if not here:
        raise UserError(f"device: {name!r} is not on this machine; use auto or cpu")
    return device


def device_of(model: nn.Module) -> torch.device:
    """The device that a model's parameters and buffers are on; the CPU if it has none."""
    for tensor in chain(model.parameters(), model.buffers()):
        return tensor.device
    return torch.device("cpu")


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on ``device``. The host does not wait for a copy to a CUDA GPU: it is made through pinned memory."""
    # a tensor that is pinned already could change before the copy is made
    if device.type != "cuda" or tensor.device.type != "cpu" or tensor.is_pinned():
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Puts a model in evaluation mode, and afterwards every module of it back in the mode that it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def precision_problems(name: str) -> list[str]:
    """What is wrong with a --precision, as lines for the user: nothing, or one."""
    known = ("float32", *_DTYPES)
    return [] if name in known else [f"--precision {name}: expected {', '.join(known[:-1])} or {known[-1]}"]


@functools.cache
def cpu_has_bf16() -> bool:
    """Whether this CPU computes in bf16: with AVX512-BF16, AMX, or the BF16 extension of Arm.

    torch computes in bf16 on other CPUs too, by conversion to float32 and back, which gains nothing.
    """
    if platform.machine().lower() in ("aarch64", "arm64"):
        return has_bf16_kernels()
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check is not None and check() for check in checks)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The context for matrix products in ``precision``: "float32", "bf16" or "fp16".

    Raises UserError for another name, for "fp16" on a CPU, and for "bf16" on a CPU without instructions for it.
    """
    if precision not in ("float32", *_DTYPES):
        raise UserError(f"precision: expected 'float32', 'bf16' or 'fp16', got {precision!r}")
    if precision == "float32":
        if device.type == "cuda":  # torch's default lets convolutions round to TF32
            torch.backends.cudnn.allow_tf32 = False
        return nullcontext()
    if device.type == "cpu" and precision == "bf16" and not cpu_has_bf16():
        raise UserError(
            "precision: 'bf16' needs a GPU, or a CPU with AVX512-BF16, AMX or Arm's BF16, which this one lacks; "
            "use precision = 'float32'"
        )
    if device.type == "cpu" and precision == "fp16":
        raise UserError(f"precision: {precision!r} needs a GPU; on the CPU use precision = 'float32'")
    return torch.autocast(device.type, _DTYPES[precision])
