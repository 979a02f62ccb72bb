"""The batches of an epoch, loaded ahead by worker processes, and shared out to the processes that train together."""

import multiprocessing
import re
import signal
import threading
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from liif_core.data.crops import CropDataset
from liif_core.distributed import ALONE, Processes
from liif_core.errors import UserError
from liif_core.model.device import moved

# What torch says where a worker process was killed, or where memory, /dev/shm or the number of open files ran out.
_NO_ROOM = (
    r"(?i)worker.*(killed|exited unexpectedly)|shared memory|/torch_|No space left|allocate memory|Bus error|ancdata"
    r"|Too many open files|unable to (open|write|mmap|resize)"
)


def batches_per_epoch(dataset: CropDataset, batch: int) -> int:
    """The number of batches of an epoch; the last may be smaller."""
    return -(-len(dataset) // batch)


def batch_length(dataset: CropDataset, batch: int, k: int) -> int:
    """The number of samples in the k-th batch of an epoch, from 0."""
    return min(batch, len(dataset) - k * batch)


def batches(
    dataset: CropDataset,
    batch: int,
    epoch: int,
    first: int = 0,
    workers: int = 0,
    device: torch.device | None = None,
    processes: Processes = ALONE,
) -> Generator[dict[str, Any], None, None]:
    """The batches of an epoch, from number ``first`` on, on ``device``: samples stacked, ``index`` (B,) int64.

    The order is a permutation determined by (seed, epoch); batches before ``first`` are not loaded. ``workers``
    processes load ahead; with 0, this process loads. Closing the iterator ends them.

    Of several ``processes``, each loads only its part of each batch, with a number ``share``: how much of the batch it
    is. Where a batch has fewer samples than there are processes, some parts are its first sample, with share 0.
    """
    # Four numbers, the last not 0, give a stream that no sample has: numpy pads with zeros.
    order = np.random.default_rng([dataset.seed, epoch, 0, 1]).permutation(len(dataset)).tolist()
    wholes = [order[at : at + batch] for at in range(first * batch, len(order), batch)]
    own = [[whole[i] for i in processes.share(len(whole))] for whole in wholes]
    parts = _Parts(dataset, epoch, [part or whole[:1] for part, whole in zip(own, wholes)])
    cuda = device is not None and device.type == "cuda"
    if workers == 0 or len(parts) == 0:
        loaded: Iterator[dict[str, Any] | UserError] = (parts[k] for k in range(len(parts)))
    else:
        loader: DataLoader[Any] = DataLoader(
            parts,
            batch_size=None,  # an item is a batch already
            num_workers=min(workers, len(parts)),
            multiprocessing_context="fork" if "fork" in multiprocessing.get_all_start_methods() else None,
            worker_init_fn=_start_worker,
            generator=torch.Generator(),  # a DataLoader draws from it, which must not affect the run's own
            pin_memory=cuda,
        )
        loaded = _loaded(loader, workers)
    try:
        for samples, part, whole in zip(loaded, own, wholes):
            if isinstance(samples, UserError):
                raise samples
            if device is not None:
                samples = {name: _sent(value, device) for name, value in samples.items()}
            yield samples if processes.size == 1 else {**samples, "share": len(part) / len(whole)}
    finally:
        del loaded  # this ends its workers


def _loaded(loader: "DataLoader[Any]", workers: int) -> Iterator[dict[str, Any] | UserError]:
    """What worker processes load. Raises UserError where the system ends one, or has no memory or files for them."""
    try:
        yield from _quietly_iterated(loader)
    except (RuntimeError, OSError, EOFError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not re.search(_NO_ROOM, str(error)):
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = lines[-1 if lines[0].startswith("Caught ") else 0]  # else it begins with a worker's traceback
        raise UserError(
            f"train.workers = {workers}: loading training data failed: {reason[:200]}; a process that loads data is "
            "ended by the system when memory or /dev/shm runs out: use fewer train.workers (0: none), a smaller "
            "train.batch_size, or give it more memory or a larger /dev/shm (docker run --shm-size), and --resume"
        ) from None


def _quietly_iterated(loader: "DataLoader[Any]") -> Iterator[Any]:
    """An iterator of a loader, which notices by itself, within seconds, that a worker process has ended.

    torch also raises that from a signal handler: anywhere, in the middle of an optimizer step for instance. The handler
    is taken away, so that the weights stay whole.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    try:
        return iter(loader)
    finally:
        if before is not None:  # None: set by another language
            signal.signal(signal.SIGCHLD, before)


class _Parts(Dataset[dict[str, torch.Tensor] | UserError]):
    """A data set whose items are batches."""

    def __init__(self, dataset: CropDataset, epoch: int, parts: list[list[int]]):
        self.dataset, self.epoch, self.parts = dataset, epoch, parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, k: int) -> dict[str, torch.Tensor] | UserError:
        try:
            batch: dict[str, torch.Tensor] = default_collate([self.dataset[self.epoch, i] for i in self.parts[k]])
            return batch
        except UserError as error:  # if it were raised, the worker's traceback would be added to its message
            return error


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)  # one core per worker
    # Ctrl-C goes to every process of a terminal; the main one decides, and uses its batches until it stops.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):  # as does the end of the terminal
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _sent(value: Tensor, device: torch.device) -> Tensor:
    """``value`` on ``device``. What a loader pinned is nobody else's, so that it is copied without waiting."""
    pinned = device.type == "cuda" and value.is_pinned()
    return value.to(device, non_blocking=True) if pinned else moved(value, device)
