"""TOML files as nested tables, and merging one into another, whatever the keys mean."""

import codecs
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from liif_core.errors import UserError

_TAGS = (
    "use",
    "source",
)  # a table whose tag changes is replaced, not merged: its other keys are options of another component


class Text(str):
    """A string with the folder that a relative path in it starts from."""

    folder: Path


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a file, with strings as ``Text``. Raises UserError for an unreadable or invalid file."""
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")  # Windows editors put a byte order mark first
    except UnicodeDecodeError:
        is_utf16 = content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        kind = "it is UTF-16 text; save it as UTF-8" if is_utf16 else "it is not UTF-8 text"
        raise UserError(f"{path}: not a TOML file: {kind}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if "\0" in text:
        raise UserError(f"{path}: not a TOML file: it has NUL characters; if it is UTF-16 text, save it as UTF-8")
    try:
        tables: dict[str, Any] = _located(tomllib.loads(text), path.parent.absolute())
        return tables
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise UserError(f"{path}: not valid TOML: {error}{_backslash(text, str(error))}") from None


BACKSLASH = """in "...", a backslash begins an escape: write '...' or / in paths"""


def _backslash(text: str, problem: str) -> str:
    """What to do about the line that an error names, if a backslash in it is the trouble."""
    place = re.search(r"at line (\d+)", problem)
    line = text.split("\n")[int(place[1]) - 1 :][:1] if place else text.split("\n")[-1:]
    return f"; {BACKSLASH}" if line and "\\" in line[0] else ""


def _located(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return {key: _located(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_located(item, folder) for item in value]
    if isinstance(value, str):
        value = Text(value)
        value.folder = folder
    return value


def merged(base: Any, over: Any, label: str, origins: dict[str, str], path: str = "") -> Any:
    """``base`` with the values of ``over``: tables are merged, other values replaced.

    ``origins`` maps key paths to the label of the source of each value; it is updated.
    """
    if (
        isinstance(base, dict)
        and isinstance(over, dict)
        and all(base.get(t) == over.get(t, base.get(t)) for t in _TAGS)
    ):
        result = dict(base)
        for key, value in over.items():
            result[key] = merged(
                result.get(key, {} if isinstance(value, dict) else None), value, label, origins, join(path, key)
            )
        return result
    for key in [key for key in origins if key == path or key.startswith((path + ".", path + "["))]:
        del origins[key]
    if isinstance(over, dict):
        return {
            key: merged({} if isinstance(value, dict) else None, value, label, origins, join(path, key))
            for key, value in over.items()
        }
    origins[path] = label
    return over


def override(text: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """``a.b=value`` as nested tables to merge into ``data``; a whole number selects an element of an array.

    Raises UserError for text of another form, and for an element that does not exist.
    """
    key, equals, value = text.partition("=")
    steps = key.strip().split(".")
    if not equals or not all(steps) or len(steps) > 50:
        raise UserError(f"--set {text}: expected KEY=VALUE, such as model.decoder.hidden=[64,64]")
    try:
        read = tomllib.loads(f"value = {value}")
        parsed = read["value"] if len(read) == 1 else value
        located = _located(parsed, Path.cwd())
    except (ValueError, RecursionError) as error:
        if value.lstrip()[:1] in ('"', "{", "[") and '"' in value and "\\" in value:
            raise UserError(f"--set {text}: not valid TOML: {error}; {BACKSLASH}") from None
        located = _located(value, Path.cwd())
    tables: dict[str, Any] = _nested(steps, located, data, text)
    return tables


def _nested(steps: list[str], value: Any, data: Any, text: str) -> Any:
    if not steps:
        return value
    step, rest = steps[0], steps[1:]
    if isinstance(data, list):
        if not (step.isascii() and step.isdigit() and len(step) < 9 and int(step) < len(data)):
            expected = f"expected a number from 0 to {len(data) - 1}" if data else "it has no elements to change"
            raise UserError(f"--set {text}: {step!r}: {expected}: this is an array")
        changed = list(data)
        old = changed[int(step)]
        new = _nested(rest, value, old, text)
        changed[int(step)] = merged(old, new, "", {}) if isinstance(new, dict) else new
        return changed
    return {step: _nested(rest, value, data.get(step) if isinstance(data, dict) else None, text)}


def join(path: str, key: str) -> str:
    """A key path that goes one table deeper."""
    return f"{path}.{key}" if path else key
