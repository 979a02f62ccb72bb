"""The folder of a run: a new one, or that of a run to go on with, whose experiment may differ where it does no harm."""

import os
import stat
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from liif_core.errors import UserError
from liif_core.experiment.schema import Experiment
from liif_core.experiment.toml_file import RESOLVED, to_builtin
from liif_core.experiment.translation import translate_experiment
from liif_core.experiment.validation import structure
from liif_core.experiment.values import describe
from liif_core.files import nearest_existing
from liif_core.registry.components import Registry
from liif_core.training.state import STATE

# What cannot change the weights that a run has made already; of ``train.epochs``, more only add to them.
_FREE_TABLES = ("run", "profile", "note", "name", "evaluate")
_FREE = {
    *("train.epochs", "train.workers", "train.checkpoint_every", "train.keep_every"),
    *("data.memory_gb", "data.cache", "data.skip_bad", "validate.every"),
    # Weights that training began with, and images: the state of the run has a fingerprint of what it was trained on.
    *(f"{table}.images.{key}" for table in ("data", "validate") for key in ("path", "hr", "lr", "download")),
    *("train.start_from.checkpoint", "train.teacher.checkpoint"),
}
_SHOWN = 5  # differences in a message
_MOST_FOLDERS = 10_000


def new_folder(stem: str, experiment: Experiment) -> Path:
    """A folder under runs/ that this process has made: of several that start at once, each has its own."""
    for folder in _numbered(stem, experiment):
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not folder.exists() and not folder.is_symlink():  # runs is a file
                raise UserError(f"{folder.parent}: expected a folder, and it is a file; choose another --out") from None
            continue
        except OSError as error:
            raise UserError(f"{folder}: cannot be made: {error.strerror or error}; choose another --out") from None
        return folder
    raise UserError(f"runs/{stem}: all numbers up to {_MOST_FOLDERS} are taken; choose an --out")


def last_folder(stem: str, experiment: Experiment) -> Path | None:
    """The last folder under runs/ that ``new_folder`` made for this experiment, if there is one."""
    found = None
    for folder in _numbered(stem, experiment):
        if not folder.exists():
            break
        found = folder
    return found


def _numbered(stem: str, experiment: Experiment) -> Iterator[Path]:
    base = Path("runs") / (f"{stem}-{experiment.profile}" if experiment.profile else stem)
    yield base
    for number in range(2, _MOST_FOLDERS):
        yield base.with_name(f"{base.name}-{number}")


def check_place(out: Path) -> None:
    """Raises UserError where ``out`` cannot be the folder of a run: a file, or where nothing can be written."""
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            if not stat.S_ISDIR(out.stat().st_mode):
                raise UserError(f"--out {out}: expected a folder, and it is a file")
        there = nearest_existing(out)
    except OSError as error:  # a name too long, or a folder that may not be entered
        raise UserError(f"--out {out}: cannot be used: {error.strerror or error}") from None
    if not there.is_dir():
        raise UserError(f"--out {out}: cannot be made: {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"--out {out}: cannot be written: no permission to write to {there}, or its disk is read-only")
    checkpoints = out / "checkpoints"
    if checkpoints.exists() and not checkpoints.is_dir():
        raise UserError(f"{checkpoints}: expected a folder, and it is a file; move it away, or choose another --out")


def check_experiment_of(out: Path, experiment: Experiment, resume: bool, registry: Registry) -> list[str]:
    """Lines that say how ``experiment`` differs from the one that the folder holds, where it may.

    Raises UserError for a folder that holds another run, and for one that is there already without ``resume``.
    """
    written = out / "experiment.toml"
    if not written.exists():
        if (out / "checkpoints").exists():
            raise UserError(
                f"--out {out}: has checkpoints but no experiment.toml, so liif-run did not make it; choose another"
            )
        return []
    try:
        text = written.read_text(encoding="utf-8")
        other = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError):
        raise UserError(f"{written}: cannot be read; choose another --out") from None
    if not text.startswith(RESOLVED):
        raise UserError(f"--out {out}: has an experiment.toml that liif-run did not write; choose another folder")
    changed = list(_differences(to_builtin(experiment), _as_written_now(other, registry)))
    trained = (out / "checkpoints").exists()
    refused = [f"{key} is {_shown(new)} here, and {_shown(old)} there" for key, new, old in changed if not _free(key)]
    if refused:
        more = [f"and {len(refused) - _SHOWN} more"] if len(refused) > _SHOWN else []
        raise UserError(
            f"--out {out}: holds another experiment ({'; '.join([*refused[:_SHOWN], *more])}); choose another folder"
        )
    if not resume and trained:
        state = "is finished" if (out / "report.json").exists() else f"can go on from {STATE}"
        raise UserError(
            f"--out {out}: holds this experiment already, and it {state}; add --resume, or choose another folder"
        )
    lines = [f"{key}: {_shown(new)}, before {_shown(old)}" for key, new, old in changed]
    return [
        f"{line}; from here the learning rate follows the schedule of {experiment.train.epochs}"
        if line.startswith("train.epochs: ")
        else line
        for line in lines
    ]


def _free(key: str) -> bool:
    return key in _FREE or key.partition(".")[0].partition("[")[0] in _FREE_TABLES


def _as_written_now(data: dict[str, Any], registry: Registry) -> dict[str, Any]:
    """An experiment as this version writes it, with options that came later at their defaults."""
    translated = translate_experiment(data)
    try:
        read: dict[str, Any] = to_builtin(structure(Experiment, translated, registry, ""))
    except UserError:  # with a plugin that is no longer installed, for instance
        return translated
    return read


def _differences(new: Any, old: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Key, value here and value there of everything that differs."""
    if isinstance(new, dict) and isinstance(old, dict):
        for key in sorted(new.keys() | old.keys()):
            yield from _differences(new.get(key), old.get(key), f"{path}.{key}" if path else key)
    elif _tables(new) and _tables(old) and len(new) == len(old):
        for number, (a, b) in enumerate(zip(new, old)):
            yield from _differences(a, b, f"{path}[{number}]")
    elif new != old:
        yield path, new, old


def _tables(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    if _tables(value):
        return f"{len(value)} tables"
    return str(value)[:60] if isinstance(value, list) else "a table" if isinstance(value, dict) else _plain(value)


def _plain(value: Any) -> str:
    return describe(value).rpartition(" (")[0] if not isinstance(value, str) else repr(value)
