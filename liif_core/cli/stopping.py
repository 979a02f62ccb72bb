"""SIGTERM and SIGHUP end a command as Ctrl-C does: what is half written is removed."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt in the body at the first SIGTERM or SIGHUP; later ones do not disturb the cleaning up.

    A signal that the process ignores, as ``nohup`` makes it ignore SIGHUP, stays ignored. Outside the main thread,
    where Python delivers no signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process, stopping = os.getpid(), False

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal stopping
        if os.getpid() != process:  # a worker that was forked
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif not stopping:
            stopping = True
            raise KeyboardInterrupt(f"interrupted by {signal.Signals(number).name}")

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    caught = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    for number in caught:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, before[number])
