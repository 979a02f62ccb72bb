"""TOML tables that show how a component is used, and that work when they are pasted."""

import types
import typing
from collections.abc import Iterable
from itertools import islice, product
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import attrs

from liif_core.errors import UserError
from liif_core.experiment_file import plain, to_toml
from liif_core.registry import Component, Kind, Registry
from liif_core.structure import structure

_VALUES: dict[type, tuple[Any, ...]] = {
    bool: (False, True),
    int: (1, 2, 3, 4, 8, 16, 32, 64, 0, -1),
    float: (1.0, 0.5, 0.1, 2.0, 0.0, -1.0),
    str: ("a-name",),
    Path: ("a/path",),
}


def example(use: str, component: Component, registry: Registry, quick: bool = False) -> dict[str, Any] | None:
    """A table with ``use`` and every option: defaults, and for what has none, a value that its checks accept.

    An option may name its own: ``option("...", example=64)``, or for ``quick`` runs of seconds,
    ``option("...", 64, quick=8)``. None where no values are found that are accepted together.
    """
    given = {}
    for field in _fields(component.options):
        if quick and "quick" in field.metadata:
            given[field.name] = plain(field.metadata["quick"])
        elif field.default is attrs.NOTHING:
            fitting = (v for v in _candidates(field) if not _refused(component, {field.name: v}, registry, field.name))
            given[field.name] = next(fitting, None)
    if _refused(component, given, registry):
        return None
    return {"use": use, **plain(structure(component.options, given, registry, ""))}


def as_toml(kind: Kind, table: dict[str, Any]) -> str:
    """The table as an experiment file has it, beside others of ``[model]``."""
    text = to_toml({"model": {kind: [table] if kind == "conditioning" else table}})
    return text.removeprefix("[model]\n").strip()


def _fields(options: type) -> tuple[attrs.Attribute, ...]:
    attrs.resolve_types(options)
    return attrs.fields(options)


def _refused(component: Component, given: dict[str, Any], registry: Registry, key: str = "") -> bool:
    """Whether these options, or only what is said of one of them, are not accepted."""
    try:
        structure(component.options, given, registry, "")
    except UserError as error:
        return any(problem.startswith(f": {key}") for problem in error.problems)
    return False


def _candidates(field: attrs.Attribute) -> Iterable[Any]:
    return [plain(field.metadata["example"])] if "example" in field.metadata else _values(field.type)


def _values(kind: Any) -> Iterable[Any]:
    """Values of a type, as TOML has them, likely ones first."""
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
