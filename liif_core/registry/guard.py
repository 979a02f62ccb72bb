"""What plugins must not do to the process while they are loaded: it is undone, and said."""

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from attrs import define

_STDOUT = 1  # the file descriptor


@define
class Loading:
    """``printed`` is what was printed within, ``changed`` what had to be undone, as words for the user.

    ``interrupted`` says whether a KeyboardInterrupt is of a signal, such as Ctrl-C, and not of a plugin.
    """

    printed: str = ""
    changed: tuple[str, ...] = ()
    interrupted: bool = False


@contextmanager
def guarded() -> Iterator[Loading]:
    """Within, standard output is kept apart: a program may be reading it. Afterwards, settings are as before."""
    loading, printed, dtype = Loading(), _Kept(), _default_dtype()
    with _standard_output(loading), _interrupts(loading):
        try:
            with contextlib.redirect_stdout(printed):
                yield loading
        finally:
            loading.printed = printed.getvalue().strip()
            if _default_dtype() != dtype:
                loading.changed += (f"the default type of tensors to {_default_dtype()}",)
                sys.modules["torch"].set_default_dtype(dtype or sys.modules["torch"].float32)


class _Kept(io.StringIO):
    """Text that can be read after ``close``, which a plugin may call on its standard output."""

    def close(self) -> None:
        pass


def _default_dtype() -> Any:
    """Torch's default type; None where torch is not imported yet, or has the default that it comes with."""
    torch = sys.modules.get("torch")
    found = torch.get_default_dtype() if torch is not None and hasattr(torch, "get_default_dtype") else None
    return None if torch is None or found == torch.float32 else found


@contextmanager
def _standard_output(loading: Loading) -> Iterator[None]:
    """Open standard output again if it is closed within."""
    stream = sys.stdout
    try:
        kept, before = os.dup(_STDOUT), os.fstat(_STDOUT)
    except OSError:  # it is closed already
        yield
        return
    try:
        yield
    finally:
        lost, closed = not _is(before), stream is not None and stream.closed
        if lost:
            os.dup2(kept, _STDOUT)
        os.close(kept)
        if closed:
            sys.stdout = open(_STDOUT, "w", encoding=stream.encoding, errors=stream.errors, closefd=False)  # noqa: SIM115
        if lost or closed:
            loading.changed += ("standard output, which it closed",)


def _is(before: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.fstat(_STDOUT), before)
    except OSError:
        return False


@contextmanager
def _interrupts(loading: Loading) -> Iterator[None]:
    """Note whether a signal interrupts. Where that is unknown, every KeyboardInterrupt counts as one."""
    if threading.current_thread() is not threading.main_thread():
        loading.interrupted = True
        yield
        return
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    handlers = {number: handler for number in numbers if callable(handler := signal.getsignal(number))}

    def noted(number: int, frame: Any) -> None:
        loading.interrupted = True
        handlers[number](number, frame)

    for number in handlers:
        signal.signal(number, noted)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
