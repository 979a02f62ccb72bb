"""Images of an experiment: found, each looked at once, and then given out as uint8 arrays.

Finding comes first (what a source's folders hold, and what belongs together), then decoding every file once.
"""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

import numpy as np
from attrs import field, frozen

from liif_core.data.decoding import MODES, Decoded, decode, decode_all, endings
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
from liif_core.sizes import Scale, Size, format_size, low_resolution_size, scaled_size

_NAMED = 20  # problems named one by one


class MissingData(UserError):
    """The images are not there at all: what was looked for, where, and how to get it."""


@frozen
class _Entry:
    """One image as found, not yet opened."""

    name: str
    path: Path
    low: tuple[tuple[int | None, Path], ...] = ()  # its LR images, each with the scale its folder is named after


@frozen
class _Low:
    """An LR image that came with an HR image."""

    path: Path
    size: Size
    covers: Size  # the part of the HR image, from its top left corner, that it shows


@frozen(eq=False)
class ImageSet:
    """Images that can be read: made by ``open_images``. It can be pickled, and shared with forked processes.

    Arrays are uint8, (h, w, channels). Those held in memory are given out as they are: do not write to them.
    """

    names: tuple[str, ...]  # unique: file names, or paths relative to the folder
    sizes: tuple[Size, ...]  # (h, w) of each image
    pair_scales: tuple[int | None, ...]  # paired folders: HR to LR, None where no whole number fits; else empty
    fingerprint: str  # sha256 over names and decoded pixels, LR included
    _channels: int
    _paths: tuple[Path, ...] = field(repr=False)
    _low: tuple[tuple[_Low, ...], ...] = field(repr=False)
    _held: Mapping[Path, np.ndarray] = field(repr=False)

    def __len__(self) -> int:
        return len(self.names)

    def image(self, i: int) -> np.ndarray:
        """The (HR) image. Raises UserError if its file can no longer be read."""
        return self._read(self._paths[i])

    def low_resolution(self, i: int, scale: Scale) -> np.ndarray | None:
        """The LR image that was given for ``scale``, or None.

        Its size is ``low_resolution_size(sizes[i], scale)``, and it shows the HR image cropped, at the bottom and
        right, to ``scaled_size`` of that. An image that shows another part, or is of another size, is not given.
        """
        size = low_resolution_size(self.sizes[i], scale)
        for low in self._low[i]:
            if low.size == size and low.covers == scaled_size(size, scale):
                return self._read(low.path)
        return None

    def _read(self, path: Path) -> np.ndarray:
        return self._held[path] if path in self._held else decode(path, self._channels)


def open_images(source: Source, channels: int = 3, memory_gb: float = 4.0, smallest: int = 1) -> ImageSet:
    """Find the images of ``source`` and decode each once, so that nothing is wrong with them later.

    ``channels``: 1 (gray) or 3 (RGB), to which 8-bit gray, RGB, palette and black-and-white images are converted.
    ``memory_gb``: decoded images are held, in order, as long as they fit; the others are read again when asked for.
    ``smallest``: the least side an image may have, in pixels; of paired folders, the LR image.

    Raises MissingData if there are no such files, and UserError, with everything that is wrong at once, for files that
    cannot be read or are of another kind, images that are too small, empty folders and pairs that do not match.
    """
    if channels not in MODES:
        raise UserError(f"model.channels: image files give 1 or 3, got {channels}; use other images from Python")
    entries, problems = _FIND[type(source)](source)
    files = [path for entry in entries for path in (entry.path, *(low for _, low in entry.low))]
    read = decode_all(files, channels, memory_gb * 1e9)
    problems += read.problems
    paired = isinstance(source, PairedFoldersSource)
    lows = [_given(entry, read.sizes, problems) for entry in entries]
    for entry, low in zip(entries, lows):
        for path in [given.path for given in low] if paired and low else [entry.path]:
            if path in read.sizes and min(read.sizes[path]) < smallest:
                problems.append(
                    f"{path}: {format_size(read.sizes[path])} pixels are too few: crops of up to {smallest} are taken "
                    "(data.patch, times the highest data.scale for HR images); leave it out, or ask for smaller crops"
                )
    if problems:
        more = len(problems) - _NAMED
        raise UserError(*problems[:_NAMED], *([f"... and {more} more problems"] if more > 0 else []))
    whole = [_whole_scale(read.sizes[entry.path], low[0].size) for entry, low in zip(entries, lows)] if paired else []
    return ImageSet(
        names=tuple(entry.name for entry in entries),
        sizes=tuple(read.sizes[entry.path] for entry in entries),
        pair_scales=tuple(whole),
        fingerprint=_fingerprint(entries, read),
        channels=channels,
        paths=tuple(entry.path for entry in entries),
        low=tuple(lows),
        held=read.held,
    )


# Finding: source -> entries, and what is wrong so far


def _folder(source: FolderSource) -> tuple[list[_Entry], list[str]]:
    problems: list[str] = []
    _require("put the images there, at any depth, or name another folder", source.path)
    found = _find(source.path, problems)
    return [_Entry(name, path) for name, path in found.items()][: source.limit], problems


def _paired_folders(source: PairedFoldersSource) -> tuple[list[_Entry], list[str]]:
    problems: list[str] = []
    _require("expected a folder of HR images and one of as many LR images", source.hr, source.lr)
    return _matched(_find(source.hr, problems), [(None, source.lr)], source.limit, problems), problems


def _skimage(source: SkimageSource) -> tuple[list[_Entry], list[str]]:
    spec = find_spec("skimage")  # found, not imported: importing takes a second, and its own loaders may download
    if spec is None:
        raise MissingData('samples: they come with scikit-image, which is missing; pip install "liif-core[skimage]"')
    found = _find(Path(spec.submodule_search_locations[0]) / "data", [], deep=False)
    known = {_stem(name): path for name, path in found.items()}
    problems = []
    for name in dict.fromkeys(source.names):
        if name not in known:
            near = did_you_mean(name, known) or f"; it has: {', '.join(known)}"
            problems.append(f"samples: scikit-image ships no image named {name!r}{near}")
        elif source.names.count(name) > 1:
            problems.append(f"samples: {name!r} is listed twice")
    return [_Entry(known[name].name, known[name]) for name in dict.fromkeys(source.names) if name in known], problems


def _div2k(source: Div2kSource) -> tuple[list[_Entry], list[str]]:
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
    return [_Entry(files[0][1].name, files[0][1], tuple(files[1:])) for files in whole], problems


def _benchmark(source: BenchmarkSource) -> tuple[list[_Entry], list[str]]:
    problems: list[str] = []
    top = source.path
    hr = _find(top / "HR", problems) if (top / "HR").is_dir() else _find(top, [], deep=False)
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


def _find(folder: Path, problems: list[str], deep: bool = True) -> dict[str, Path]:
    """The images in a folder by their names relative to it, sorted; hidden ones are left out."""
    known, found, errors = endings(), {}, []
    for root, folders, files in os.walk(folder, onerror=errors.append):
        folders[:] = [name for name in folders if deep and not name.startswith(".")]
        for path in (Path(root, name) for name in files if not name.startswith(".")):
            if path.suffix.lower() in known:
                found[path.relative_to(folder).as_posix()] = path
    problems += [f"{error.filename}: cannot be read ({error.strerror})" for error in errors]
    if not found and not errors:
        problems.append(f"{folder}: no image in it; expected files such as .png, .jpg or .webp")
    return dict(sorted(found.items()))


def _stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()


def _matched(
    hr: Mapping[str, Path], folders: Sequence[tuple[int | None, Path]], limit: int | None, problems: list[str]
) -> list[_Entry]:
    """Each HR image with its LR images: by name (x2 at its end or not) if that finds all, else by order."""
    columns, loose = [], []
    for scale, folder in folders:
        lr = _find(folder, problems)
        named = {re.sub(r"x\d+$", "", _stem(name)): path for name, path in lr.items()}
        named |= {_stem(name): path for name, path in lr.items()}
        column = [named.get(_stem(name)) for name in hr]
        if len(hr) != len(lr):
            if hr and lr:
                problems.append(f"{folder}: {len(lr)} LR images for {len(hr)} HR images; expected one for each")
            loose += [_Entry(path.name, path) for path in lr.values() if path not in column]
        elif len(set(column) - {None}) < len(hr):
            column = list(lr.values())
        columns.append((scale, column))
    entries = [
        _Entry(name, path, tuple((scale, column[i]) for scale, column in columns if column[i] is not None))
        for i, (name, path) in enumerate(hr.items())
    ]
    return entries[:limit] + loose  # the loose ones are only looked at: there is a problem already


_FIND = {
    FolderSource: _folder, PairedFoldersSource: _paired_folders, SkimageSource: _skimage, Div2kSource: _div2k,
    BenchmarkSource: _benchmark,
}  # fmt: skip


def _given(entry: _Entry, sizes: Mapping[Path, Size], problems: list[str]) -> tuple[_Low, ...]:
    """The LR images of an entry, checked against its HR image."""
    lows = []
    hr = sizes.get(entry.path)
    for scale, path in entry.low:
        size = sizes.get(path)
        if hr is None or size is None:
            continue
        expected = low_resolution_size(hr, Scale.of(scale)) if scale else size
        if size != expected:
            because = f"as its HR image {entry.path} has {format_size(hr)}"
            problems.append(f"{path}: {format_size(size)} pixels, expected {format_size(expected)}, {because}")
        elif size[0] > hr[0] or size[1] > hr[1]:
            problems.append(
                f"{path}: {format_size(size)} pixels, more than the {format_size(hr)} of its HR image {entry.path}"
            )
        factor = scale or _whole_scale(hr, size)
        lows.append(_Low(path, size, hr if factor is None else (size[0] * factor, size[1] * factor)))
    return tuple(lows)


def _whole_scale(hr: Size, lr: Size) -> int | None:
    """The whole number by which an HR image, cropped to a multiple of it, is larger; None if there is none."""
    factor = hr[0] // lr[0]
    return factor if factor and low_resolution_size(hr, Scale.of(factor)) == lr else None


def _fingerprint(entries: Sequence[_Entry], read: Decoded) -> str:
    total = hashlib.sha256()
    for entry in entries:
        for path in (entry.path, *(low for _, low in entry.low)):
            name = entry.name if path == entry.path else path.name
            total.update(f"{name}\0{read.sizes[path]}\0{read.digests[path]}\n".encode())
    return total.hexdigest()
