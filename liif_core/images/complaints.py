"""What decoders print, log or warn of while a file is read: collected, to be said with the file's name."""

import io
import logging
import os
import re
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from liif_core.images import ifd

_PRINTED = re.compile(r"[A-Za-z_][\w./\\ -]*: \S.*")  # what libtiff and libjpeg print: "Fax4Decode: Bad code word."
_COMPRESSION, _NOT_COMPRESSED = 259, 1
_MOST = 3  # lines that are said of a file
_LONGEST = 200  # characters of a line

_here = threading.local()  # ``lines``: where this thread collects
_stderr = threading.Lock()


@contextmanager
def collected(lines: list[str]) -> Iterator[None]:
    """Within, what Pillow warns of and tifffile logs in this thread goes to ``lines``, or to those of an outer call."""
    before = getattr(_here, "lines", None)
    _here.lines = lines if before is None else before
    _Warnings.enter()
    try:
        yield
    finally:
        _Warnings.leave()
        _here.lines = before


@contextmanager
def printed() -> Iterator[None]:
    """Within ``collected``, what C libraries print to the standard error stream is collected too.

    The stream belongs to the whole process, so one thread at a time decodes within this. What does not look like a line
    of such a library is passed on.
    """
    lines = getattr(_here, "lines", None)
    if lines is None:
        yield
        return
    with _stderr:
        kept = _redirected()
        try:
            yield
        finally:
            if kept is not None:
                for line in _restored(*kept).decode("utf-8", "replace").splitlines():
                    if _PRINTED.fullmatch(line):
                        lines.append(line)
                    elif line.strip():
                        os.write(2, line.encode("utf-8", "replace") + b"\n")


def say(line: str) -> None:
    """Add a line to what this thread collects."""
    lines = getattr(_here, "lines", None)
    if lines is not None:
        lines.append(line)


def prints(page: ifd.Directory | None) -> bool:
    """Whether Pillow decodes a file by a C library that prints: libtiff, for pages of a TIFF that are compressed."""
    return page is not None and ifd.numbers(page, _COMPRESSION, [_NOT_COMPRESSED])[0] != _NOT_COMPRESSED


def as_notes(lines: Iterable[str]) -> tuple[str, ...]:
    """Sentences for the user about what a decoder said of a picture that it decoded all the same."""
    told = list(dict.fromkeys(line.strip()[:_LONGEST] for line in lines))
    notes = [f"its decoder says: {line}; check the result" for line in told[:_MOST]]
    return (*notes, *([f"its decoder says {len(told) - _MOST} more things"] if len(told) > _MOST else []))


def _redirected() -> tuple[io.BufferedRandom, int] | None:
    """A file to which the standard error stream goes from now on, and where it went before; None if it cannot."""
    try:
        before = os.dup(2)
    except OSError:  # it is closed
        return None
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by ``_restored``
    except OSError:
        os.close(before)
        return None
    os.dup2(file.fileno(), 2)
    return file, before


def _restored(file: io.BufferedRandom, before: int) -> bytes:
    os.dup2(before, 2)
    os.close(before)
    with file:
        file.seek(0)
        return file.read()


class _Warnings:
    """Sends warnings of a thread that collects to it, and others on. One for all threads, while any of them reads."""

    _lock = threading.Lock()
    _readers = 0
    _catcher: Any = None

    @classmethod
    def enter(cls) -> None:
        with cls._lock:
            if cls._readers == 0:
                cls._catcher = warnings.catch_warnings()
                cls._catcher.__enter__()
                # Each time: by default Python shows a warning once for a line of code, and files differ.
                warnings.filterwarnings("always", category=UserWarning, module=r"PIL\.|tifffile|imagecodecs")
                warnings.showwarning = _collecting(warnings.showwarning)
            cls._readers += 1

    @classmethod
    def leave(cls) -> None:
        with cls._lock:
            cls._readers -= 1
            if cls._readers == 0:
                cls._catcher.__exit__(None, None, None)


def _collecting(show: Callable[..., None]) -> Callable[..., None]:
    def shown(message: Warning | str, category: type[Warning], *more: Any, **named: Any) -> None:
        lines = getattr(_here, "lines", None)
        if lines is not None and issubclass(category, UserWarning):
            lines.append(" ".join(str(message).split()))
        elif lines is None or category.__name__ != "DecompressionBombWarning":  # readers have their own limit
            show(message, category, *more, **named)

    return shown


def _keep_log(record: logging.LogRecord) -> bool:
    lines = getattr(_here, "lines", None)
    if lines is None:
        return True
    if record.levelno >= logging.WARNING:
        lines.append(" ".join(record.getMessage().split()))
    return False


for _name in ("tifffile", "PIL.TiffImagePlugin"):
    logging.getLogger(_name).addFilter(_keep_log)
