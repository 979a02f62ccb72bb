"""The one kind of exception that is a message to the user."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake the user can mend: shown without a traceback, exit code 2.

    ``problems`` holds one line each (what, where, what was expected, what to do next);
    several mistakes found together are reported together.
    """

    def __init__(self, *problems: str):
        self.problems = tuple(one_line(problem) for problem in problems)
        super().__init__("\n".join(self.problems))


class Interrupted(Exception):
    """The run was asked to stop (SIGINT, SIGTERM) and has left a checkpoint: exit code 130."""


def one_line(text: str) -> str:
    """``text`` with line ends, control characters and the like as escapes: keys and file names may hold anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the nearest known name, or nothing."""
    near = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""
