"""The images of a source, found: which files its folders hold, and which belong together. Nothing is opened."""

import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

from attrs import frozen

from liif_core.data.decoding import image_suffixes
from liif_core.data.download import DIV2K, fetch_archive
from liif_core.errors import UserError, did_you_mean
from liif_core.experiment.schema import (
    BenchmarkSource,
    Div2kSource,
    FolderSource,
    PairedFoldersSource,
    SkimageSource,
    Source,
)


class MissingData(UserError):
    """There are no images where they were expected. The message says which, where, and how to get them."""


class LeftOut(UserWarning):
    """Something in a folder of images is not used."""


@frozen
class Entry:
    """One image as found, not yet opened."""

    name: str
    path: Path
    low: tuple[tuple[int | None, Path], ...] = ()  # its LR images, each with the scale in the name of its folder


def find(source: Source) -> tuple[list[Entry], list[str]]:
    """The images of a source, and what is wrong with it. Raises MissingData where there is nothing to find."""
    return _FIND[type(source)](source)


def _folder(source: FolderSource) -> tuple[list[Entry], list[str]]:
    problems: list[str] = []
    _require("put the images there, at any depth, or name another folder", source.path)
    found = _find(source.path, problems)
    return [Entry(_in_utf8(name), path) for name, path in found.items()][: source.limit], problems


def _paired_folders(source: PairedFoldersSource) -> tuple[list[Entry], list[str]]:
    problems: list[str] = []
    _require("expected a folder of HR images and one of as many LR images", source.hr, source.lr)
    return _matched(_find(source.hr, problems), [(None, source.lr)], source.limit, problems), problems


def _skimage(source: SkimageSource) -> tuple[list[Entry], list[str]]:
    spec = find_spec("skimage")  # not imported: that takes a second, and its own loaders may download
    if spec is None or not spec.submodule_search_locations:
        raise MissingData(
            'skimage: these images come with scikit-image, which is not installed; pip install "liif-core[skimage]"'
        )
    found = _find(Path(spec.submodule_search_locations[0]) / "data", [], recursive=False)
    known = {_stem(name): path for name, path in found.items()}
    problems = []
    for name in dict.fromkeys(source.names):
        if name not in known:
            near = did_you_mean(name, known) or f"; it has: {', '.join(known)}"
            problems.append(f"skimage: scikit-image ships no image named {name!r}{near}")
        elif source.names.count(name) > 1:
            problems.append(f"skimage: {name!r} is listed twice")
    return [Entry(known[name].name, known[name]) for name in dict.fromkeys(source.names) if name in known], problems


def _div2k(source: Div2kSource) -> tuple[list[Entry], list[str]]:
    problems: list[str] = []
    archives = [archive for archive in DIV2K if archive.folder.startswith(f"DIV2K_{source.split}")]
    for archive in archives:
        if not _filled(source.path / archive.folder):
            missing = f"{source.path / archive.folder}: no such folder, or nothing in it"
            if source.download:
                try:
                    fetch_archive(archive, source.path)
                except UserError as error:
                    raise MissingData(missing, *error.problems, archive.by_hand(source.path)) from error
            elif archive.folder.endswith("HR"):  # LR images are made where they are not given
                fetch = f"to fetch it ({archive.size / 1e9:.1f} GB), set download = true in that source"
                example = "--set data.images.download=true for the training images"
                raise MissingData(missing, f"{fetch} ({example})", archive.by_hand(source.path))
    numbers = [f"{i:04d}" for i in (range(1, 801) if source.split == "train" else range(801, 901))][: source.limit]
    images: dict[str, list[tuple[int | None, Path]]] = {number: [] for number in numbers}
    for folder in (source.path / archive.folder for archive in archives):
        scale = int(folder.name[1:]) if folder.name.startswith("X") else None
        absent = []
        for number in numbers if _filled(folder) else ():
            file = folder / f"{number}{'' if scale is None else f'x{scale}'}.png"
            if file.exists():
                images[number].append((scale, file))
            else:
                absent.append(file.name)
        if absent:
            some = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
            problems.append(f"{folder}: {len(absent)} of {len(numbers)} images are missing ({some}); unpack it again")
    whole = [files for files in images.values() if files and files[0][0] is None]
    return [Entry(files[0][1].name, files[0][1], tuple(files[1:])) for files in whole], problems


def _benchmark(source: BenchmarkSource) -> tuple[list[Entry], list[str]]:
    problems: list[str] = []
    top = source.path
    hr = _find(top / "HR", problems) if (top / "HR").is_dir() else _find(top, [], recursive=False)
    if not hr and not problems:
        raise MissingData(
            f"{top}: no HR folder, and no images",
            "Set5, Set14, B100 and Urban100 have no official address: get them from a place you trust, and lay out",
            f"{top / 'HR'}/NAME.png; beside it {top / 'LR_bicubic'}/X2/NAMEx2.png, and so for X3, X4, ..., or "
            f"{top / 'LR'}/NAME.png for a single scale; LR images that are not given are made by bicubic",
        )
    base = next((top / name for name in ("LR_bicubic", "LR") if (top / name).is_dir()), None)
    folders: list[tuple[int | None, Path]] = []
    if base is not None:
        named = (folder for folder in base.iterdir() if re.fullmatch(r"[xX][1-9]\d*", folder.name))
        folders = sorted((int(folder.name[1:]), folder) for folder in named) or [(None, base)]
    return _matched(hr, folders, source.limit, problems), problems


def _require(how: str, *folders: Path) -> None:
    absent = [f"{folder}: no such folder" for folder in folders if not folder.exists()]
    if absent:
        raise MissingData(*absent, how)


def _filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _find(folder: Path, problems: list[str], recursive: bool = True) -> dict[str, Path]:
    """The images in a folder by their paths relative to it, sorted; hidden files and folders are left out.

    Links to folders are followed, to each folder once, and not to one that holds this one.
    """
    known, count = image_suffixes(), len(problems)
    found: dict[str, Path] = {}
    above = {_identity(parent) for parent in folder.resolve().parents if os.path.exists(parent)}
    seen: set[tuple[int, int]] = set()
    here, links = [folder], list[Path]()
    while here or links:
        current = here.pop() if here else links.pop(0)  # folders before links, so that names do not depend on links
        try:
            identity = _identity(current)
            if identity in seen:
                continue
            if identity in above:
                warnings.warn(f"{current}: left out: a link to a folder that it is in itself", LeftOut, stacklevel=2)
                continue
            seen.add(identity)
            with os.scandir(current) as entries:
                inside = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda e: e.name)
        except OSError as error:
            problems.append(f"{current}: cannot be read ({error.strerror})")
            continue
        for entry in inside:
            path = current / entry.name
            if _is_folder(entry):
                if recursive:
                    (links if entry.is_symlink() else here).append(path)
            elif path.suffix.lower() in known:
                found[path.relative_to(folder).as_posix()] = path
    if not found and len(problems) == count:
        problems.append(f"{folder}: no image in it; expected files such as .png, .jpg or .webp")
    return dict(sorted(found.items()))


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, for instance
        return False


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _in_utf8(name: str) -> str:
    """A name for reports, in which bytes that are no UTF-8 are written as \\xe9."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()


def _matched(
    hr: Mapping[str, Path], folders: Sequence[tuple[int | None, Path]], limit: int | None, problems: list[str]
) -> list[Entry]:
    """Each HR image with its LR images: matched by name (with or without x2 at its end) if that finds all, else by
    order."""
    columns, unmatched = [], []
    for scale, folder in folders:
        lr = _find(folder, problems)
        named = {re.sub(r"x\d+$", "", _stem(name)): path for name, path in lr.items()}
        named |= {_stem(name): path for name, path in lr.items()}
        column = [named.get(_stem(name)) for name in hr]
        if len(hr) != len(lr):
            if hr and lr:
                problems.append(f"{folder}: {len(lr)} LR images for {len(hr)} HR images; expected one for each")
            unmatched += [Entry(_in_utf8(path.name), path) for path in lr.values() if path not in column]
        elif len(set(column) - {None}) < len(hr):
            column = list(lr.values())
        columns.append((scale, column))
    entries = [
        Entry(_in_utf8(name), path, tuple((scale, low) for scale, column in columns if (low := column[i]) is not None))
        for i, (name, path) in enumerate(hr.items())
    ]
    return entries[:limit] + unmatched  # unmatched ones are only checked: there is a problem already


_FIND: dict[type, Callable[[Any], tuple[list[Entry], list[str]]]] = {
    FolderSource: _folder, PairedFoldersSource: _paired_folders, SkimageSource: _skimage, Div2kSource: _div2k,
    BenchmarkSource: _benchmark,
}  # fmt: skip
