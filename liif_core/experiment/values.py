"""Single values of TOML as the types that an experiment wants, without coercion; and values in words, for messages."""

import os
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from liif_core.errors import did_you_mean
from liif_core.experiment.layers import BACKSLASH
from liif_core.sizes import Scale


class Problem(ValueError):
    """A problem at a key of the table being read; ``key`` is empty for the table itself."""

    def __init__(self, message: str, key: str = ""):
        super().__init__(message)
        self.key = key


# What \\t, \\n, ... in a path on Windows become.
_ESCAPED = {
    "a tab": "\t",
    "a line end": "\n",
    "a carriage return": "\r",
    "a form feed": "\f",
    "a backspace": "\b",
    "an escape": "\x1b",
}
_EXPECTED = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    Path: "a path (a string)",
}


def exact(kind: type) -> Callable[[Any, Any], Any]:
    """No coercion but what loses nothing: a whole number may stand for a float, a string for a path."""

    def hook(value: Any, _: Any) -> Any:
        if kind is Scale:
            return (
                Scale.of(value)
                if isinstance(value, (int, float, list))
                else refuse(value, "a number or a pair of them")
            )
        if kind is float and type(value) is int and abs(value) <= 2**53:
            return float(value)
        if kind is float and type(value) is float and value - value != 0:
            raise Problem(f"expected a finite number, got {value}")
        if kind in (str, Path) and isinstance(value, str):
            if "\0" in value:
                raise Problem("must not contain a NUL character")
            return str(value) if kind is str else _path(value)
        return value if type(value) is kind else refuse(value, _EXPECTED[kind])

    return hook


def _path(value: str) -> Path:
    """Absolute; ``~`` at the start is the home folder."""
    path = Path(os.path.abspath(getattr(value, "folder", Path()) / os.path.expanduser(value)))
    escaped = [name for name, character in _ESCAPED.items() if character in value]
    if escaped and not os.path.exists(path):
        raise Problem(f"no such file or folder, and it contains {' and '.join(escaped)}: {BACKSLASH}")
    return path


def refuse(value: Any, expected: str) -> typing.NoReturn:
    raise Problem(f"expected {expected}, got {describe(value)}")


def describe(value: Any) -> str:
    """A value and its kind, for messages."""
    names = {
        str: "a string",
        bool: "a boolean",
        int: "a whole number",
        float: "a number",
        list: "an array",
        dict: "a table",
    }
    kind = next(
        (name for cls, name in names.items() if isinstance(value, cls) and not (cls is int and value is True)),
        type(value).__name__,
    )
    if isinstance(value, (dict, list)):
        return kind
    try:
        text = (
            repr(str(value))
            if isinstance(value, str)
            else str(value).lower()
            if isinstance(value, bool)
            else str(value)
        )
    except ValueError:  # thousands of digits
        return kind
    return f"{text[:60]} ({kind})"


def literal(value: Any, kind: Any) -> str:
    allowed = get_args(kind)
    if value not in allowed or not isinstance(value, str):
        near = did_you_mean(value, allowed) if isinstance(value, str) else ""
        raise Problem(f"expected one of {', '.join(map(repr, allowed))}, got {describe(value)}{near}")
    return str(value)
