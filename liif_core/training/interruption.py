"""What surrounds a training run: signals that stop it between two steps, and operations that repeat exactly."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP


class StopRequest:
    """``number`` is that of the signal that asked the run to stop, or 0."""

    number: int = 0


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Record the first of ``_SIGNALS``, for the run to stop after the current step; a second SIGINT stops at once.

    SIGHUP, which a terminal that is closed sends, is left alone where it is ignored, as under nohup. Outside the main
    thread, where Python delivers no signals, nothing is recorded.
    """
    request = StopRequest()

    def handle(number: int, _: FrameType | None) -> None:
        if request.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.number = number

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    wanted = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    wanted = [n for n in wanted if not (n.name == "SIGHUP" and signal.getsignal(n) is signal.SIG_IGN)]
    before = {number: signal.signal(number, handle) for number in wanted}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def repeatable(wanted: bool) -> Iterator[None]:
    """Only operations that repeat exactly: on CUDA, sums into shared places do not by themselves."""
    before = torch.are_deterministic_algorithms_enabled()
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
