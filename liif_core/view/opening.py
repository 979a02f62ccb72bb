"""The pictures that ``liif view`` is given: a file, or the image files of a folder; and how each is opened."""

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


def image_files(folder: Path) -> dict[str, Path]:
    """The image files in a folder and its subfolders, by their relative paths; hidden ones are left out.

    Raises UserError for a folder without any.
    """
    files = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in READABLE_SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }
    if not files:
        raise UserError(f"{folder}: no image in this folder")
    return files


def entry_or_problem(
    name: str, path: Path, models: Sequence[NamedModel], memory: int, max_pixels: int = MAX_PIXELS
) -> Entry:
    """``entry_of``; where the file cannot be read, an entry that says why."""
    try:
        return entry_of(name, path, models, memory, max_pixels)
    except UserError as error:
        problem = str(error)
    except OSError as error:
        problem = f"{path}: {error.strerror or error}"
    return Entry(name, partial(_fail, problem), (), problem=problem)


def _fail(problem: str) -> Source:
    raise UserError(problem)
