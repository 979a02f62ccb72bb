"""The images of an experiment: found, decoded once to check them, and then available as uint8 arrays."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from attrs import field, frozen

from liif_core.data.cache import decode_cached
from liif_core.data.decoding import CHANNELS, Decoded, Stamp, decode, decode_in_memory, sha256, stamp
from liif_core.data.finding import Entry, MissingData, find
from liif_core.errors import UserError
from liif_core.experiment.schema import PairedFoldersSource, Source
from liif_core.sizes import Scale, Size, format_size, low_resolution_size, scaled_size

__all__ = ["ImageSet", "MissingData", "open_images"]


class BadImages(UserError):
    """Images that cannot be used, and nothing else that is wrong."""


@frozen
class _Low:
    """An LR image of an HR image."""

    path: Path
    size: Size
    covers: Size  # the part of the HR image, from its top left corner, that it shows


@frozen(eq=False)
class ImageSet:
    """Images that can be read; ``open_images`` returns one. It can be pickled, and shared with forked processes.

    Arrays are uint8, (h, w, channels). They are shared with the set where it keeps them in memory: do not write to
    them.
    """

    names: tuple[str, ...]  # unique: file names, or paths relative to the folder
    sizes: tuple[Size, ...]  # (h, w) of each image
    pair_scales: tuple[int | None, ...]  # of paired folders: HR size / LR size, None if not whole; else empty
    fingerprint: str  # sha256 over names and decoded pixels, LR included
    _channels: int
    _paths: tuple[Path, ...] = field(repr=False)
    _low: tuple[tuple[_Low, ...], ...] = field(repr=False)
    _held: Mapping[Path, np.ndarray] = field(repr=False)
    _digests: Mapping[Path, str] = field(repr=False)
    _stamps: Mapping[Path, Stamp] = field(repr=False)
    left_out: tuple[str, ...] = ()  # a line for each image that ``skip_bad`` left out

    def __len__(self) -> int:
        return len(self.names)

    def image(self, i: int) -> np.ndarray:
        """The (HR) image. Raises UserError if its file can no longer be read, or was replaced."""
        return self._read(self._paths[i])

    def low_resolution(self, i: int, scale: Scale) -> np.ndarray | None:
        """The LR image that came with the source for ``scale``, or None.

        Its size is ``low_resolution_size(sizes[i], scale)``, and it shows the HR image cropped, at the bottom and
        right, to ``scaled_size`` of that. LR images of another part or size are not returned.
        """
        size = low_resolution_size(self.sizes[i], scale)
        for low in self._low[i]:
            if low.size == size and low.covers == scaled_size(size, scale):
                return self._read(low.path)
        return None

    def _read(self, path: Path) -> np.ndarray:
        if path in self._held:
            return self._held[path]
        before = stamp(path)
        pixels = decode(path, self._channels)
        if before != self._stamps[path] and sha256(pixels) != self._digests[path]:
            raise UserError(f"{path}: was changed or replaced while it was in use; put it back, or start again")
        return pixels

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of all images, those of LR images included."""
        return tuple(dict.fromkeys((*self._paths, *(low.path for lows in self._low for low in lows))))

    @property
    def notes(self) -> list[str]:
        """Lines about images that were left out, for the user."""
        count = len(self.left_out)
        head = f"data.skip_bad: {count:,} of {count + len(self):,} images are left out:"
        return [head, *(f"    {line}" for line in self.left_out)] if count else []


def open_images(
    source: Source,
    channels: int = 3,
    memory_gb: float = 4.0,
    smallest: int = 1,
    skip_bad: bool = False,
    cache: Path | None = None,
    check_cache: bool = True,
) -> ImageSet:
    """Find the images of ``source``, and decode each once, so that all problems are found at the start.

    ``channels``: 1 (gray) or 3 (RGB), to which 8-bit gray, RGB, palette and black-and-white images are converted.
    ``memory_gb``: decoded images are kept, in order, as long as they fit; the others are read again for each use.
    ``smallest``: the smallest side that an image may have, in pixels; of paired folders, that an LR image may have.
    ``skip_bad``: leave out images, and pairs, that cannot be read, are of another kind, too small, or do not match;
    ``ImageSet.left_out`` then says which and why.
    ``cache``: a folder for a file with the decoded images, which is mapped into memory instead of ``memory_gb``, and
    used again as long as no image changes. ``check_cache`` says whether its pixels are checked for damage.

    Raises MissingData if there are no such files, and UserError, with all problems at once, for files that cannot be
    read or are of another kind, images that are too small, empty folders and pairs that do not match.
    """
    if channels not in CHANNELS:
        raise UserError(f"model.channels: image files have 1 or 3, got {channels}; for other images, train from Python")
    entries, problems = find(source)
    files = [path for entry in entries for path in (entry.path, *(low for _, low in entry.low))]
    if cache is None or not files:
        read = decode_in_memory(files, channels, memory_gb * 1e9)
    else:
        read = decode_cached(list(dict.fromkeys(files)), channels, cache, check_cache)
    paired = isinstance(source, PairedFoldersSource)
    good: list[tuple[Entry, tuple[_Low, ...]]] = []
    bad: list[str] = []
    for entry in entries:
        wrong = [line for path in (entry.path, *(p for _, p in entry.low)) for line in read.problems.get(path, ())]
        low = _given(entry, read.sizes, wrong)
        for path in [given.path for given in low] if paired and low else [entry.path]:
            if path in read.sizes and min(read.sizes[path]) < smallest:
                wrong.append(
                    f"{path}: {format_size(read.sizes[path])} pixels are too few for crops of up to {smallest} "
                    "(data.patch, times the highest data.scale for HR images); leave it out, or use smaller crops"
                )
        bad += wrong
        if not wrong:
            good.append((entry, low))
    if problems or (bad and not (skip_bad and good)):
        raise (BadImages if bad and not problems else UserError)(*problems, *bad)
    whole = [_whole_scale(read.sizes[entry.path], low[0].size) for entry, low in good] if paired else []
    return ImageSet(
        names=tuple(entry.name for entry, _ in good),
        sizes=tuple(read.sizes[entry.path] for entry, _ in good),
        pair_scales=tuple(whole),
        fingerprint=_fingerprint([entry for entry, _ in good], read),
        channels=channels,
        paths=tuple(entry.path for entry, _ in good),
        low=tuple(low for _, low in good),
        held=read.held,
        digests=read.digests,
        stamps=read.stamps,
        left_out=tuple(bad),
    )


def _given(entry: Entry, sizes: Mapping[Path, Size], problems: list[str]) -> tuple[_Low, ...]:
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


def _fingerprint(entries: Sequence[Entry], read: Decoded) -> str:
    total = hashlib.sha256()
    for entry in entries:
        for path in (entry.path, *(low for _, low in entry.low)):
            name = entry.name if path == entry.path else path.name
            line = f"{name}\0{read.sizes[path]}\0{read.digests[path]}\n"
            total.update(line.encode(errors="surrogateescape"))  # file names may hold bytes that are no UTF-8
    return total.hexdigest()
