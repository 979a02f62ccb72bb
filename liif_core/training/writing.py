"""Files of a run that cannot be written, because the disk is full for instance: one message, with what to do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from liif_core.errors import UserError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what writing ``path`` raises into a UserError that names it. What it held before is there still."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be written: {reason(error)}; {ADVICE}") from None
    except RuntimeError as error:  # what torch.save raises, for a full disk too
        if not re.search("inline_container|StreamWriter|iostream", str(error)):
            raise
        raise UserError(f"{path}: cannot be written; is the disk full? {ADVICE}") from None


ADVICE = "what was saved before is intact: make room, or mend the folder, and go on with --resume"


def reason(error: BaseException) -> str:
    """What the operating system says about a failure, or the first line of the message, in short."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return next(iter(str(error).splitlines()), type(error).__name__)
