"""Downloads: resumed after an interruption, verified, and complete or absent."""

import hashlib
import os
import posixpath
import shutil
import stat
import tempfile
import zipfile
import zlib
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from attrs import frozen
from tqdm import tqdm

from liif_core.errors import UserError

_CHUNK = 1 << 18  # bytes read at a time
_TIMEOUT = 30  # seconds without a byte


@frozen
class Archive:
    """A zip file at an official address, and the folder, next to it, for its images."""

    url: str
    folder: str
    size: int  # bytes
    sha256: str

    def by_hand(self, path: Path) -> str:
        """How to get the images without this program, for a message."""
        return f"or unpack {self.url} yourself, so that its images lie in {path / self.folder}"


def _div2k(folder: str, size: int, sha256: str) -> Archive:
    return Archive(f"https://data.vision.ee.ethz.ch/cvl/DIV2K/{folder.replace('/', '_')}.zip", folder, size, sha256)


DIV2K = (
    _div2k("DIV2K_train_HR", 3530603713, "9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335"),
    _div2k("DIV2K_valid_HR", 448993893, "20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc"),
    _div2k("DIV2K_valid_LR_bicubic/X2", 117763600, "60eed9875c697df51204aa579e2a699e1d5215095788a097ff54dd17e2664d57"),
    _div2k("DIV2K_valid_LR_bicubic/X3", 54513392, "04b9a2ed3b4a0715d3924d3ae8514830c3328fac8d30512ce716d6f419e052a3"),
    _div2k("DIV2K_valid_LR_bicubic/X4", 31505881, "a50a5d1c4b88de4e8d300d8fb2b904c52fe93b2b298a4899697760d7cbb6d553"),
)


def fetch_archive(archive: Archive, path: Path) -> None:
    """Download ``archive`` and unpack it into ``path / archive.folder``; the zip file itself is not kept.

    Raises UserError, as ``fetch`` and ``extract_zip`` do.
    """
    file = path / archive.url.rpartition("/")[2]
    fetch(archive.url, file, archive.sha256, archive.size)
    extract_zip(file, path / archive.folder)
    file.unlink()


class _BrokenOff(Exception):
    """The server could not be reached, or the connection ended early."""


def fetch(url: str, target: Path, sha256: str, size: int) -> None:
    """Download the file at ``url``, of ``size`` bytes and with hash ``sha256`` (hexadecimal), to ``target``.

    Nothing is done where ``target`` is that file already. Received data is kept next to it as ``NAME.part``, and a
    later call continues from there (HTTP Range), or starts again where the server does not support that. A broken
    connection is opened again as long as each attempt receives something.

    Raises UserError where there is no connection, the size or the hash differ (the partial file is then removed), or
    there is too little disk space. ``target`` is only replaced by the verified file.
    """
    target = Path(target)
    if target.is_file() and target.stat().st_size == size and _hash(target) == sha256:
        return
    _make_folder(target.parent)
    partial = target.with_name(target.name + ".part")
    have = _size(partial)
    if have > size:  # it cannot be a part of this file
        partial.unlink()
        have = 0
    check_space(target.parent, size - have, f"{url} ({size / 1e9:.2f} GB)")
    while have != size:
        before, problem = have, "the connection ended early"
        try:
            _continue(url, partial, size)
        except _BrokenOff as error:
            problem = str(error)
        except OSError as error:
            raise UserError(f"{partial}: cannot be written ({error.strerror or error})") from error
        have = _size(partial)
        if have != size and have <= before:
            kept = f"; {have} of {size} bytes are kept; try again to continue from there" if have else ""
            raise UserError(f"{url}: could not be fetched ({problem}){kept}")
    found = _hash(partial)
    if found != sha256:
        partial.unlink()
        raise UserError(f"{url}: not the expected file (sha256 {found}, expected {sha256}); removed, try again")
    os.replace(partial, target)


def _continue(url: str, partial: Path, size: int) -> None:
    """Append to ``partial`` what one connection delivers."""
    have = _size(partial)
    request = Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urlopen(request, timeout=_TIMEOUT)
    except HTTPError as error:
        raise _BrokenOff(f"the server returned {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise _BrokenOff(str(getattr(error, "reason", error))) from error
    with response:
        resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        have = have if resumed else 0
        length = response.headers.get("Content-Length")
        if length is not None and int(length) != size - have:
            raise _BrokenOff(f"{size - have} bytes are expected, the server offers {length}: it is another file")
        with (
            open(partial, "ab" if resumed else "wb") as out,
            tqdm(total=size, initial=have, unit="B", unit_scale=True, desc=partial.stem, disable=None) as bar,
        ):
            while have < size and (data := _read(response, min(_CHUNK, size - have))):
                out.write(data)
                have += len(data)
                bar.update(len(data))
            out.flush()
            os.fsync(out.fileno())


def _read(response: BinaryIO, count: int) -> bytes:
    try:
        return response.read(count)
    except (OSError, HTTPException) as error:
        raise _BrokenOff(str(error) or type(error).__name__) from error


def extract_zip(archive: Path, folder: Path) -> None:
    """Unpack a zip archive into ``folder``, without the leading folders that all its files share.

    The files are unpacked into a temporary folder next to it, which is then renamed, so ``folder`` is complete or
    absent. Raises UserError for an archive that is damaged or empty, for members that are links or would lie outside
    ``folder`` (absolute paths, ``..``), for too little disk space, and for a ``folder`` that is not empty.
    """
    archive, folder = Path(archive), Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: already exists; move it away to unpack {archive.name} in its place")
    _make_folder(folder.parent)
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            _check_members(archive, members)
            check_space(folder.parent, sum(member.file_size for member in members), f"unpacking {archive}")
            common = posixpath.commonpath([PurePosixPath(member.filename).parent for member in members])
            with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
                whole = Path(temporary) / folder.name
                for member in tqdm(members, desc=f"unpacking {archive.name}", disable=None, leave=False):
                    path = whole / PurePosixPath(member.filename).relative_to(common)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with opened.open(member) as source, open(path, "wb") as out:
                        shutil.copyfileobj(source, out, _CHUNK)
                os.replace(whole, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{archive}: cannot be unpacked into {folder} ({error})") from error


def _check_members(archive: Path, members: list[zipfile.ZipInfo]) -> None:
    if not members:
        raise UserError(f"{archive}: holds no files")
    for member in members:
        path = PurePosixPath(member.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in member.filename or ":" in path.parts[0]:
            raise UserError(f"{archive}: not unpacked, as {member.filename!r} would lie outside its folder")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise UserError(f"{archive}: not unpacked, as {member.filename!r} is a link")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror})") from error


def check_space(folder: Path, needed: int, what: str) -> None:
    """Raises UserError where fewer than ``needed`` bytes are free on the disk of ``folder``."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        figures = f"{needed / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free"
        raise UserError(f"{folder}: too little disk space for {what}: {figures}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
