"""TOML tables that show how a component is used. They work when they are pasted into an experiment."""

import types
import typing
from collections.abc import Iterable
from itertools import islice, product
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import attrs

from liif_core.errors import UserError
from liif_core.experiment.toml_file import to_builtin, to_toml
from liif_core.experiment.validation import structure
from liif_core.registry.components import Component, Kind, Registry

_VALUES: dict[type, tuple[Any, ...]] = {
    bool: (False, True),
    int: (1, 2, 3, 4, 8, 16, 32, 64, 0, -1),
    float: (1.0, 0.5, 0.1, 2.0, 0.0, -1.0),
    str: ("a-name",),
    Path: ("a/path",),
}


def example(use: str, component: Component, registry: Registry, quick: bool = False) -> dict[str, Any] | None:
    """A table with ``use`` and every option: its default, or for an option without one, a value that its checks accept.

    ``option("...", example=64)`` gives that value, and ``option("...", 64, quick=8)`` the value for ``quick`` runs of
    seconds. None where no values were found that are accepted together.
    """
    given = {}
    for field in _fields(component.options):
        if quick and "quick" in field.metadata:
            given[field.name] = to_builtin(field.metadata["quick"])
        elif field.default is attrs.NOTHING:
            fitting = (v for v in _candidates(field) if not _refused(component, {field.name: v}, registry, field.name))
            given[field.name] = next(fitting, None)
    if _refused(component, given, registry):
        return None
    return {"use": use, **to_builtin(structure(component.options, given, registry, ""))}


def as_toml(kind: Kind, table: dict[str, Any]) -> str:
    """The table as an experiment file has it."""
    if kind == "model":
        return to_toml({"model": table}).strip()
    parent = "data" if kind == "degradation" else "model"
    text = to_toml({parent: {kind: [table] if kind == "conditioning" else table}})
    return text.removeprefix(f"[{parent}]\n").strip()


def _fields(options: type) -> "tuple[attrs.Attribute[Any], ...]":
    attrs.resolve_types(options)
    return tuple(attrs.fields(options))


def _refused(component: Component, given: dict[str, Any], registry: Registry, key: str = "") -> bool:
    """Whether these options are not accepted; with ``key``, whether that one is not."""
    try:
        structure(component.options, given, registry, "")
    except UserError as error:
        return any(problem.startswith(f": {key}") for problem in error.problems)
    return False


def _candidates(field: "attrs.Attribute[Any]") -> Iterable[Any]:
    return [to_builtin(field.metadata["example"])] if "example" in field.metadata else _values(field.type)


def _values(kind: Any) -> Iterable[Any]:
    """Values of a type, as TOML has them, the likeliest first."""
    inner = [member for member in get_args(kind) if member not in (type(None), ...)]
    if get_origin(kind) is Literal:
        return inner
    if get_origin(kind) in (typing.Union, types.UnionType):
        return [value for member in inner for value in _values(member)]
    if get_origin(kind) is tuple:
        if ... not in get_args(kind):
            return map(list, islice(product(*map(_values, inner)), 1000))
        return [[value] * count for count in (1, 2, 3, 4) for value in _values(inner[0])]
    if attrs.has(kind):
        required = [field for field in _fields(kind) if field.default is attrs.NOTHING]
        choices = islice(product(*map(_candidates, required)), 1000)
        return [{field.name: value for field, value in zip(required, values)} for values in choices]
    return _VALUES.get(kind, ())
