"""Which device each of several processes computes on."""

import torch

from liif_core.distributed import Processes
from liif_core.errors import UserError
from liif_core.model.device import pick_device


def device_of_process(name: str, processes: Processes) -> torch.device:
    """The device of this process, for ``run.device`` or --device. Each process on a machine has a GPU of its own.

    Raises UserError as ``pick_device`` does, and where there are fewer GPUs than processes.
    """
    if processes.size == 1:
        return pick_device(name)
    if name == "auto" and not torch.cuda.is_available():
        return torch.device("cpu")
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"device: expected auto, cpu or cuda for several processes, got {name!r}")
    device = pick_device(name)
    if device.type == "cpu":
        return device
    there = torch.cuda.device_count()
    if there < processes.local_size:
        raise UserError(
            f"device: {processes.local_size} processes on a machine with {there} GPUs: each process needs one of "
            f"its own; start torchrun with --nproc-per-node {there}, or use the device cpu"
        )
    torch.cuda.set_device(processes.local_rank)
    return torch.device("cuda", processes.local_rank)
