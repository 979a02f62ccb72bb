"""A run folder belongs to one process at a time: a lock that ends with the process, however it ends."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from liif_core.errors import UserError
from liif_core.locks import is_at, try_lock

LOCK = "run.lock"  # in the run folder, while a process writes to it
_TRIES, _PAUSE = 10, 0.1  # a holder writes who it is right after it has the lock
_held: dict[Path, int] = {}  # the folders of this process, with their open files


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold ``folder``, which is made if need be, against other processes; this one may hold it again meanwhile.

    The operating system ends the lock with the process, so that one that was killed leaves nothing in the way. Raises
    UserError where another process holds it, with its number, host and start, and where nothing can be written there.
    """
    place = folder.absolute()
    if place in _held:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _locked(folder / LOCK)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror or error}; choose another --out") from None
    if file is None:
        raise UserError(f"{folder}: {_holder(folder)}; wait for it, stop it, or choose another --out")
    _held[place] = file
    try:
        yield
    finally:
        if _held.pop(place, None) is not None:
            with suppress(OSError):
                (folder / LOCK).unlink()  # before it is unlocked: another process may lock a new one at once
            os.close(file)


def check_free(folder: Path) -> None:
    """Raises UserError where another process holds ``folder``. Writes nothing where there is no lock."""
    if (folder / LOCK).exists():
        with hold(folder):
            pass


def _locked(path: Path) -> int | None:
    """An open file with the lock on it, in which stands who holds it; None where another process has it."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if try_lock(file) is False:
                os.close(file)
                return None
            if is_at(file, path):  # else its last holder removed it meanwhile
                os.truncate(file, 0)
                me = {"process": os.getpid(), "host": socket.gethostname(), "started": datetime.now().isoformat()[:19]}
                os.write(file, json.dumps(me).encode())
                return file
        except OSError:
            os.close(file)
            raise
        os.close(file)


def _forget() -> None:
    """In a forked process, such as one that loads data: it must not keep the lock of a parent that was killed."""
    while _held:
        with suppress(OSError):
            os.close(_held.popitem()[1])


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _holder(folder: Path) -> str:
    for _ in range(_TRIES):
        time.sleep(_PAUSE)
        try:
            who = json.loads((folder / LOCK).read_text(encoding="utf-8"))
            return f"process {who['process']} on {who['host']} holds this run since {who['started'].replace('T', ' ')}"
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue
    return "another process holds this run"
