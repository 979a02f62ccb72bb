"""The exceptions that are messages to the user."""

from collections.abc import Iterable
from difflib import get_close_matches

_LONGEST = 8000  # characters of a problem: names out of damaged files can be of any length


class UserError(ValueError):
    """A mistake that the user can correct. The command line shows it without a traceback, with exit code 2.

    ``problems`` holds one line for each mistake: what, where, what was expected, what to do next.
    """

    def __init__(self, *problems: str):
        self.problems = tuple(one_line(cut(problem, _LONGEST)) for problem in problems)
        super().__init__("\n".join(self.problems))


class Interrupted(Exception):
    """A run was stopped by a signal after it wrote a checkpoint. Exit code 130."""


def one_line(text: str) -> str:
    """``text`` on one line: line ends and control characters, which names of keys and files may hold, are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def cut(text: object, most: int = 120) -> str:
    """``text``, such as a name out of a file, as messages quote it: only its beginning, if it is long."""
    whole = str(text)
    return whole if len(whole) <= most else f"{whole[:most]}... ({len(whole):,} characters)"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the nearest known name, or nothing. Case, "-" and "_" make no difference."""
    folded = {_folded(each): each for each in known}
    near = [folded[each] for each in get_close_matches(_folded(name), list(folded), n=1, cutoff=0.6)]
    return f" (did you mean {near[0]!r}?)" if near else ""


def _folded(name: str) -> str:
    return name.casefold().replace("_", "-")
