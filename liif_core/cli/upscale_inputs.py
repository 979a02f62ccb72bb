"""The files that INPUTs of ``liif upscale`` name, and what is passed over."""

import errno
import glob
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from attrs import Factory, frozen

from liif_core.cli.upscale_marks import source_digest, source_of
from liif_core.images import READABLE_SUFFIXES

FileKey = tuple[int, int]  # the device and the number of a file: the same for all of its names

_STANDARD_INPUT = re.compile(r"-|/dev/stdin|/dev/fd/0|/proc/self/fd/0")
_NAMES_SHOWN = 5

OTHERS = "not of a format that is read"
HIDDEN = "hidden"
OUTPUTS = "outputs of liif upscale"
LINKS = "links to folders, which are not followed"
SPECIAL = "neither files nor folders"


@frozen
class Found:
    """The files of one INPUT with their names below the output folder, the names of what was passed over by reason,
    and messages about folders that cannot be read."""

    text: str
    files: list[tuple[Path, Path]] = Factory(list)
    passed: dict[str, list[str]] = Factory(dict)
    unreadable: list[str] = Factory(list)

    def said(self) -> str:
        """What was passed over, in one line; empty if nothing was."""
        parts = []
        for reason, names in self.passed.items():
            shown = ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")
            parts.append(f"{len(names)} {reason} ({shown})")
        return f"{self.text}: passed over {'; '.join(parts)}" if parts else ""


def file_key(path: str | Path) -> FileKey | None:
    """What is the same for all names of a file; None if there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def is_standard_input(text: str) -> bool:
    """Whether an INPUT is ``-`` or another name of standard input."""
    return _STANDARD_INPUT.fullmatch(text) is not None


def find(text: str, output: Path | None, out_dir: Path | None, problems: list[str]) -> Found:
    """The files of an INPUT that is a file, a folder or a pattern.

    Of a folder, these are the files with a suffix of a format that is read, below its subfolders too. Hidden files and
    folders, linked folders, and outputs of ``liif upscale`` from files of the same folder are passed over.
    What is wrong with the INPUT is added to ``problems``.
    """
    outputs = {key for place in (output, out_dir) if place is not None and (key := file_key(place)) is not None}
    found = Found(text)
    try:
        mode = os.stat(text).st_mode
    except FileNotFoundError:
        _match(found, outputs)
        if not found.files:
            problems.append(f"{text}: no such file, and no file of this pattern")
        return found
    except (OSError, ValueError) as problem:
        problems.append(f"{text}: {getattr(problem, 'strerror', None) or problem}")
        return found
    if stat.S_ISDIR(mode):
        _walk(found, outputs)
        if not found.files:
            problems += found.unreadable
            said = found.said().removeprefix(f"{text}: ")
            problems.append(f"{text}: no image in this folder" + (f"; {said}" if said else ""))
    elif stat.S_ISREG(mode):
        found.files.append((Path(text), Path(Path(text).name)))
    else:
        problems.append(f"{text}: a pipe or a device, which is not read; use - to read standard input")
    return found


def _match(found: Found, outputs: set[FileKey]) -> None:
    for name in sorted(glob.glob(found.text, recursive=True)):
        path = Path(name)
        if not path.is_file():
            found.passed.setdefault("folders" if path.is_dir() else SPECIAL, []).append(name)
        elif outputs & {file_key(path), *map(file_key, path.parents)}:
            found.passed.setdefault(OUTPUTS, []).append(name)
        else:
            found.files.append((path, Path(path.name)))


def _walk(found: Found, outputs: set[FileKey]) -> None:
    root = Path(found.text)

    def cannot(problem: OSError) -> None:
        found.unreadable.append(f"{problem.filename}: cannot be read ({problem.strerror}), and was left out")

    listed = []
    for folder, subfolders, names in os.walk(root, onerror=cannot):
        reasons = {name: _reason_for_folder(Path(folder, name), outputs) for name in sorted(subfolders)}
        subfolders[:] = [name for name, reason in reasons.items() if not reason]
        for name in sorted(names):
            try:
                reasons[name] = _reason_for_file(Path(folder, name), outputs)
            except OSError as problem:
                cannot(problem)
            else:
                listed += [] if reasons[name] else [Path(folder, name)]
        for name, reason in reasons.items():
            if reason:
                found.passed.setdefault(reason, []).append(str(Path(folder, name).relative_to(root)))
    made = set(_outputs_of_each_other(listed))
    for path in listed:
        if path in made:
            found.passed.setdefault(OUTPUTS, []).append(str(path.relative_to(root)))
        else:
            found.files.append((path, path.relative_to(root)))


def _reason_for_folder(path: Path, outputs: set[FileKey]) -> str:
    if path.name.startswith("."):
        return HIDDEN
    if os.path.islink(path):
        return LINKS
    return OUTPUTS if file_key(path) in outputs else ""


def _reason_for_file(path: Path, outputs: set[FileKey]) -> str:
    """Raises OSError where the folder lets its names be seen, and no more."""
    if path.name.startswith("."):
        return HIDDEN
    if path.suffix.lower() not in READABLE_SUFFIXES:
        return OTHERS
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return SPECIAL  # a link to nothing
    except OSError as problem:
        if problem.errno == errno.ELOOP:
            return SPECIAL
        raise
    if (found.st_dev, found.st_ino) in outputs:
        return OUTPUTS
    return "" if stat.S_ISREG(found.st_mode) else SPECIAL


def _outputs_of_each_other(paths: list[Path]) -> Iterator[Path]:
    """Those of the files that ``liif upscale`` made of others of them."""
    digests = {source_digest(path): path for path in paths}
    for path in paths:
        source = digests.get(source_of(path))
        if source is not None and source != path:
            yield path
