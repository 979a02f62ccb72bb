"""The models of installed model packs, as checked files on this machine."""

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from liif_core.data.download import fetch
from liif_core.errors import UserError
from liif_core.registry.components import NamedModel, Origin, Registry


def cache_folder() -> Path:
    """The folder for downloads: ``LIIF_HOME``, or ``liif-core`` in the platform's folder for caches."""
    if chosen := os.environ.get("LIIF_HOME"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "liif-core" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "liif-core"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "liif-core"


def find_model(name: str, registry: Registry) -> Path:
    """The checkpoint file of the model that a pack calls ``name`` (or ``distribution:name``), checked.

    A model with a ``url`` is downloaded into ``cache_folder()`` when it is first used; an interrupted download is
    resumed, and processes that start together download it once. Size and SHA-256 are checked at every call.

    Raises UserError: for an unknown name, with the nearest one; for a file that is missing or is not the expected one;
    and for a download that fails, with how to bring the file by hand.
    """
    try:
        model, origin = registry.find_model(name)
    except ValueError as error:
        raise UserError(str(error)) from None
    return _installed(model, origin) if model.file is not None else _downloaded(model)


def _installed(model: NamedModel, origin: Origin) -> Path:
    path = Path(model.file or "")
    where = f"model {model.name!r} of {origin}"
    again = f"install {origin.distribution} again, or report it to its authors"
    try:
        size, sha256 = _size_and_sha256(path)
    except OSError as error:
        raise UserError(f"{where}: {path} cannot be read ({error.strerror}): {again}") from None
    if (size, sha256) != (model.size, model.sha256):
        have, expected = f"{size} bytes, sha256 {sha256}", f"{model.size} bytes, sha256 {model.sha256}"
        raise UserError(f"{where}: {path} is not the expected file ({have}; expected {expected}): {again}")
    return path


def _downloaded(model: NamedModel) -> Path:
    suffix = PurePosixPath(urlsplit(model.url).path).suffix
    suffix = suffix if re.fullmatch(r"\.\w+", suffix, re.ASCII) else ""
    path = cache_folder() / "models" / f"{model.name}-{model.sha256[:12]}{suffix}"
    if _is_right(path, model):  # before the lock: the folder may be read-only
        return path
    try:
        with _locked(path):
            fetch(model.url, path, model.sha256, model.size)
    except UserError as error:
        by_hand = f"or download {model.url} by hand and save it as {path}"
        raise UserError(*error.problems, f"model {model.name!r}: try again, {by_hand}") from None
    return path


def _is_right(path: Path, model: NamedModel) -> bool:
    try:
        return path.stat().st_size == model.size and _size_and_sha256(path) == (model.size, model.sha256)
    except OSError:
        return False


def _size_and_sha256(path: Path) -> tuple[int, str]:
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), sha256


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock on the file ``NAME.lock`` beside ``path``; wait for another process that holds it.

    The operating system releases the lock when a process ends in any way. Raises UserError where the folder cannot be
    written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path.with_name(path.name + ".lock"), "ab")  # noqa: SIM115
    except OSError as error:
        advice = "set LIIF_HOME to a folder that can be written to"
        raise UserError(f"{path.parent}: cannot be written to ({error.strerror}): {advice}") from None
    with file:
        _lock(file.fileno())
        yield


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt
        import time

        while True:
            try:
                return msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            except OSError:
                time.sleep(0.2)
    else:
        import fcntl

        with suppress(OSError):  # a file system without locks, such as some network drives; the hash is checked anyway
            fcntl.flock(descriptor, fcntl.LOCK_EX)
