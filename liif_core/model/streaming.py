"""Bands of rows, from the device that computes them to the host, without keeping either waiting."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


def on_host(bands: Iterable[Tensor]) -> Iterator[Tensor]:
    """The same bands on the CPU, in the same order.

    From a CUDA GPU, each is copied to pinned memory in a stream of its own and returned one band later: the GPU
    computes the next band while this one is copied, and the caller uses it. Two bands are then in memory at a time. A
    band that is on the CPU already is returned at once, and is not copied.
    """
    stream: torch.cuda.Stream | None = None
    before: tuple[Tensor, torch.cuda.Event] | None = None
    for band in bands:
        if band.device.type != "cuda":
            yield band.cpu()
            continue
        stream = stream or torch.cuda.Stream(band.device)
        started = _copy(band, stream)
        del band  # the GPU's memory is free for another band once the copy has finished
        if before is not None:
            yield _finished(*before)
        before = started
    if before is not None:
        yield _finished(*before)


def _copy(band: Tensor, stream: torch.cuda.Stream) -> tuple[Tensor, torch.cuda.Event]:
    """A tensor in pinned memory that the band is being copied to, and the event that says when it is there."""
    band = band.contiguous()  # only such a tensor is copied in one piece, without the host
    host = torch.empty(band.shape, dtype=band.dtype, pin_memory=True)
    done = torch.cuda.Event()
    stream.wait_stream(torch.cuda.current_stream(band.device))  # for the band to be computed
    with torch.cuda.stream(stream):
        host.copy_(band, non_blocking=True)
        done.record(stream)
    band.record_stream(stream)  # its memory is in use until the copy has finished
    return host, done


def _finished(host: Tensor, done: torch.cuda.Event) -> Tensor:
    done.synchronize()
    return host
