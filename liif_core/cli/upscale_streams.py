"""Standard input and output as image files: ``-`` in place of a name."""

import shutil
import sys
from pathlib import Path

from attrs import frozen

from liif_core.cli import streams
from liif_core.errors import UserError


@frozen
class StandIns:
    """The temporary files that stand for standard input and output."""

    source: Path
    target: Path


def read_standard_input(path: Path) -> None:
    """Copy standard input to a file. Raises UserError if it is a terminal or empty."""
    if sys.stdin.isatty():
        raise UserError("-: standard input is a terminal; send an image to it")
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    if not path.stat().st_size:
        raise UserError("-: standard input is empty")


def to_standard_output(path: Path) -> None:
    """Copy a file to standard output. Raises UserError if that is full, or nobody reads it any more."""
    try:
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except OSError as problem:
        streams.silence(sys.stdout)
        raise UserError(f"-o -: standard output cannot be written ({problem.strerror or problem})") from None
