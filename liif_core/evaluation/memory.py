"""The peak memory of a piece of work."""

import ctypes
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")


def peak_memory(device: torch.device, work: Callable[[], object]) -> int | None:
    """Bytes that ``work`` needs at its peak, beyond what there is before; None where that cannot be measured.

    On a CUDA GPU, of tensors on it; on a CPU, of the whole process, which Linux tells.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    if device.type != "cpu" or sys.platform != "linux":
        return None
    with suppress(OSError, AttributeError):  # another C library than GNU's keeps less, and has no such function
        ctypes.CDLL(None).malloc_trim(0)  # memory that was freed but kept would be used again, unseen
    try:
        (_PROCESS / "clear_refs").write_text("5")  # begin a new peak
    except OSError:
        return None
    resident = _resident("VmRSS")
    work()
    peak = _resident("VmHWM")
    return None if resident is None or peak is None else max(0, peak - resident)


def _resident(which: str) -> int | None:
    """Bytes of this process: VmRSS now, VmHWM at its peak; None where Linux does not tell."""
    found = re.search(rf"^{which}:\s+(\d+) kB$", (_PROCESS / "status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else None
