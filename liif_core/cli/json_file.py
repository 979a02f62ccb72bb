"""The file of ``--json``, or of another option: checked before the work, written at its end."""

import errno
import os
import re
import stat
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from liif_core import files
from liif_core.errors import UserError

_READER_SECONDS = 5.0  # to wait for somebody to read a named pipe
_DESCRIPTOR = re.compile(r"/dev/fd/(\d+)|/proc/(?:self|thread-self)/fd/(\d+)|/dev/(stdin|stdout|stderr)")
_STANDARD = {"stdin": 0, "stdout": 1, "stderr": 2}


def json_writer(path: Path, option: str = "--json") -> Callable[[str], None]:
    """Check that ``path`` can be written, and return what writes a text to it, which raises UserError where it fails.

    ``option`` is what messages call it.

    A file, or the file that a link points to, is replaced as a whole. Pipes, devices and open files of this process
    (/dev/stdout, /proc/self/fd/N, /dev/fd/N, and ``-`` for standard output) are written to, and not replaced.
    Raises UserError.
    """
    try:
        write = _writer(path)
    except OSError as problem:
        raise UserError(_cannot(path, problem, option)) from None

    def write_or_say(text: str) -> None:
        try:
            write(text)
        except OSError as problem:
            raise UserError(_cannot(path, problem, option)) from None

    return write_or_say


def is_standard_output(path: Path) -> bool:
    """Whether what is written to ``path`` goes where standard output goes."""
    if str(path) == "-":
        return True
    try:
        return os.path.samestat(os.stat(path), os.fstat(1)) and str(path) != os.devnull
    except OSError:
        return False


def _cannot(path: Path, problem: OSError, option: str) -> str:
    reasons = {errno.EISDIR: "it is a folder; give a file's name", errno.ENXIO: "no process reads this pipe"}
    return f"{option} {path}: cannot be written ({reasons.get(problem.errno or 0) or problem.strerror or problem})"


def _writer(path: Path) -> Callable[[str], None]:
    if is_standard_output(path):
        return partial(_into, os.dup(1))
    if match := _DESCRIPTOR.fullmatch(str(path)):
        number = int(match[1] or match[2] or _STANDARD[match[3]])
        return partial(_into, os.dup(number))
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        real = Path(os.path.realpath(path))
        return partial(files.write_text, _in_folder(real))
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        return partial(_into, _open_special(path))
    real = Path(os.path.realpath(path))
    if os.access(real.parent, os.W_OK | os.X_OK):
        return partial(files.write_text, real)
    descriptor = os.open(real, os.O_WRONLY)  # its folder takes no new file, but perhaps it may be written itself
    return partial(_over, descriptor)


def _in_folder(path: Path) -> Path:
    """``path`` if a file of this name can be made. Raises OSError."""
    folder = path.parent
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{folder} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"{folder} may not be written to")
    return path


def _open_special(path: Path) -> int:
    """A pipe or a device, open for writing; a pipe that nobody reads is refused after some seconds."""
    end = time.monotonic() + _READER_SECONDS
    while True:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | getattr(os, "O_NOCTTY", 0))
            break
        except OSError as problem:
            if problem.errno != errno.ENXIO or time.monotonic() > end:
                raise
            time.sleep(0.05)
    os.set_blocking(descriptor, True)
    return descriptor


def _into(descriptor: int, text: str) -> None:
    data = memoryview(text.encode())
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    finally:
        os.close(descriptor)


def _over(descriptor: int, text: str) -> None:
    os.ftruncate(descriptor, 0)
    _into(descriptor, text)
