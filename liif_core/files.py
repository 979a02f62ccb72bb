"""Files that are either whole or not there."""

import hashlib
import os
import platform
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from liif_core.locks import is_at, try_lock

_POSIX = os.name == "posix"  # Windows neither renames nor removes a file that is open
_START = ".liif-tmp-"
_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
_OURS = re.compile(rf"{re.escape(_START)}[0-9a-f]{{16}}-{_HOST}-\d+(\..*)?", re.DOTALL)
_LONGEST_SUFFIX = 16  # bytes, of a temporary name; a longer one is left out


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success flush it to disk and rename it there.

    If the body raises, the temporary file is removed and ``path`` is left as it was. One that was left by a process
    that was killed is removed when the same ``path`` is written again on the same machine, or by ``remove_stale``.
    Missing parent folders are made. A short suffix is kept, for writers that look at it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, lock = _create(path)
    try:
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        if lock is not None:
            os.close(lock)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write ``data``, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def nearest_existing(path: Path) -> Path:
    """``path``, or of the folders above it the nearest that exists. Raises OSError where none may be looked at."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())


def remove_stale(folder: str | Path) -> None:
    """Remove the temporary files in ``folder`` whose writers, on this machine, no longer run.

    Does nothing where the system or the disk has no file locks, which tell whether a writer runs.
    """
    with suppress(OSError):
        for name in os.listdir(folder):
            if _OURS.fullmatch(name):
                _remove_if_stale(Path(folder, name))


def _create(path: Path) -> tuple[Path, int | None]:
    """A new empty file beside ``path``, and its open descriptor, which is locked as long as the writer runs."""
    target = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= _LONGEST_SUFFIX else ""
    number = 0
    while True:
        # The names do not depend on chance, so that one which was left is found without listing the folder.
        temporary = path.parent / f"{_START}{target}-{_HOST}-{number}{suffix}"
        number += 1
        _remove_if_stale(temporary)
        try:
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            continue
        if not _POSIX:
            os.close(descriptor)
            return temporary, None
        if try_lock(descriptor) is False or not is_at(descriptor, temporary):  # removed before it was locked
            os.close(descriptor)
            continue
        return temporary, descriptor


def _remove_if_stale(temporary: Path) -> None:
    if not _POSIX:
        return
    with suppress(OSError):
        descriptor = os.open(temporary, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode) and try_lock(descriptor) and is_at(descriptor, temporary):
                temporary.unlink()
        finally:
            os.close(descriptor)
