"""Locks on open files. The operating system ends them with the process that holds them, however it ends."""

import os
import sys
import time
from pathlib import Path

_PAUSE = 0.2  # seconds between two tries

if sys.platform == "win32":
    import msvcrt

    _UNREAD = 1 << 20  # the place of the locked byte, beyond what is read: on Windows, locked bytes cannot be read

    def try_lock(descriptor: int) -> bool | None:
        """True if this process has the lock now, False if another has it, None where the disk has no locks."""
        place = os.lseek(descriptor, 0, os.SEEK_CUR)
        os.lseek(descriptor, _UNREAD, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, place, os.SEEK_SET)
        return True

else:
    import errno
    import fcntl

    _NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)

    def try_lock(descriptor: int) -> bool | None:
        """True if this process has the lock now, False if another has it, None where the disk has no locks."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return None
        return True


def lock(descriptor: int) -> None:
    """Lock a file, waiting for another process that holds it. Does nothing where the disk has no locks."""
    while try_lock(descriptor) is False:
        time.sleep(_PAUSE)


def is_at(descriptor: int, path: Path) -> bool:
    """Whether ``path`` still is the open file, which its last holder may have removed."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except OSError:
        return False
