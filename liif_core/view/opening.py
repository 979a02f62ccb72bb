"""The pictures that ``liif view`` is given: a file, or the image files of a folder; and how each is opened."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from liif_core.errors import UserError
from liif_core.images import MAX_PIXELS, READABLE_SUFFIXES, Source, several, survey
from liif_core.view.gallery import Entry, NamedModel


def entry_of(name: str, path: Path, models: Sequence[NamedModel], memory: int, max_pixels: int = MAX_PIXELS) -> Entry:
    """The entry of a file, of which only the header is read. Of an animation or of pages, the first is shown.

    Raises UserError where the file is no image that is read.
    """
    found = several(path, max_pixels)
    frame: int | None = None
    notes: tuple[str, ...] = ()
    if found is not None:
        frame, notes = found.numbers[0], (f"the file has {len(found.numbers)} {found.what}: the first is shown",)
    opening = survey(path, memory, max_pixels, frame, others=found is not None)
    return Entry(name, opening.open, models, notes)


def image_files(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """The image files in a folder and its subfolders, by their relative paths; hidden ones are left out.

    Also returns messages about subfolders that cannot be read. Raises UserError for a folder without image files.
    """
    unreadable: list[str] = []

    def cannot(problem: OSError) -> None:
        unreadable.append(f"{problem.filename}: cannot be read ({problem.strerror}), and was left out")

    files: list[Path] = []
    for place, subfolders, names in os.walk(folder, onerror=cannot):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        paths = [Path(place, name) for name in names if not name.startswith(".")]
        files += [path for path in paths if path.suffix.lower() in READABLE_SUFFIXES and path.is_file()]
    if not files:
        raise UserError(*unreadable, f"{folder}: no image in this folder")
    return {shown(path.relative_to(folder).as_posix()): path for path in sorted(files)}, unreadable


def shown(name: str) -> str:
    """A name of a file as text that can be sent: bytes that are not UTF-8 are escaped."""
    return name.encode("utf-8", "backslashreplace").decode()


def entry_or_problem(
    name: str, path: Path, models: Sequence[NamedModel], memory: int, max_pixels: int = MAX_PIXELS
) -> Entry:
    """``entry_of``; where the file cannot be read, an entry that says why."""
    try:
        return entry_of(name, path, models, memory, max_pixels)
    except UserError as error:
        problem = shown(str(error))
    except OSError as error:
        problem = shown(f"{path}: {error.strerror or error}")
    return Entry(name, partial(_fail, problem), (), problem=problem)


def _fail(problem: str) -> Source:
    raise UserError(problem)
