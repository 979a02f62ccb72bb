"""The models of installed model packs, as checked files on this machine."""

import hashlib
import os
import sys
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from liif_core.data.download import fetch
from liif_core.errors import UserError
from liif_core.registry.components import NamedModel, Origin, Registry


def cache_folder() -> Path:
    """Where downloads are kept: ``LIIF_HOME``, or ``liif-core`` in the platform's folder for caches."""
    if chosen := os.environ.get("LIIF_HOME"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "liif-core" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "liif-core"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "liif-core"


def find_model(name: str, registry: Registry) -> Path:
    """The checkpoint of the model that a pack calls ``name`` (or ``distribution:name``): a file, checked.

    A model with a ``url`` is downloaded once into ``cache_folder()``; an interrupted download is resumed. Size and
    SHA-256 are checked at every call.

    Raises UserError: unknown name (with the nearest one), a file that is missing or has another hash, or a failed
    download, with how to bring the file by hand.
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
        size = path.stat().st_size
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{where}: {path} cannot be read ({error.strerror}): {again}") from None
    if (size, sha256) != (model.size, model.sha256):
        have, expected = f"{size} bytes, sha256 {sha256}", f"{model.size} bytes, sha256 {model.sha256}"
        raise UserError(f"{where}: {path} is not the expected file ({have}; expected {expected}): {again}")
    return path


def _downloaded(model: NamedModel) -> Path:
    suffix = PurePosixPath(urlsplit(model.url).path).suffix
    path = cache_folder() / "models" / f"{model.name}-{model.sha256[:12]}{suffix}"
    try:
        fetch(model.url, path, model.sha256, model.size)
    except UserError as error:
        by_hand = f"or download {model.url} by hand and save it as {path}"
        raise UserError(*error.problems, f"model {model.name!r}: try again, {by_hand}") from None
    return path
