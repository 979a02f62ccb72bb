"""The user's cache of downloaded models: where a file is kept, whether it is the right one, and locks."""

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from liif_core.errors import UserError
from liif_core.locks import lock
from liif_core.registry.named_models import NamedModel


def cache_folder() -> Path:
    """The folder for downloads: ``LIIF_HOME``, or ``liif-core`` in the platform's folder for caches."""
    if chosen := os.environ.get("LIIF_HOME"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "liif-core" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "liif-core"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "liif-core"


def path_of(model: NamedModel) -> Path:
    """The file of a model: that of its distribution, or where a download is kept, which may not exist yet."""
    if model.file is not None:
        return Path(model.file)
    suffix = PurePosixPath(model.member or urlsplit(model.url).path).suffix
    suffix = suffix if re.fullmatch(r"\.\w+", suffix, re.ASCII) else ""
    return cache_folder() / "models" / f"{model.name}-{model.sha256[:12]}{suffix}"


def difference(path: Path, model: NamedModel) -> str:
    """How the file differs from the expected one, in words; nothing where it is the right one. Raises OSError."""
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
    if (size, sha256) == (model.size, model.sha256):
        return ""
    return f"{size} bytes, sha256 {sha256}; expected {expected(model)}"


def expected(model: NamedModel) -> str:
    """Size and hash of the right file, in words."""
    return f"{model.size} bytes, sha256 {model.sha256}"


@contextmanager
def locked(path: Path) -> Iterator[None]:
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
        lock(file.fileno())  # where the disk has no locks, the hash is checked anyway
        yield
