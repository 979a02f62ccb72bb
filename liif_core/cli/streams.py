"""Standard output and error that cannot stop a command: closed, full, or without a character of a file's name."""

import errno
import io
import os
import sys
from contextlib import suppress
from typing import TextIO

_problem = ""


def prepare() -> None:
    """Open closed standard streams on the null device, and show characters that a stream lacks as escapes.

    Otherwise the next file that is opened would take the number of the closed stream, and what is printed would go
    into that file.
    """
    global _problem
    _problem = ""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            _to_null(number)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def echo(text: str, err: bool = False) -> None:
    """Print a line to standard output or error. Where that fails, all that follows is dropped; see ``lost``."""
    global _problem
    stream = sys.stderr if err else sys.stdout
    try:
        print(text, file=stream, flush=True)  # click.echo would send UTF-8 to streams that are ASCII
    except (OSError, ValueError) as problem:
        if not err and getattr(problem, "errno", None) != errno.EPIPE:  # a reader that has seen enough is no problem
            _problem = getattr(problem, "strerror", None) or str(problem)
        silence(stream)


def lost() -> str:
    """Why standard output was not printed, or nothing. That its reader closed it is no reason."""
    return _problem


def silence(stream: TextIO) -> None:
    """Let the stream write to the null device, also what it still holds, which Python would try again at the end."""
    with suppress(OSError, ValueError):
        _to_null(stream.fileno())


def _to_null(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)
