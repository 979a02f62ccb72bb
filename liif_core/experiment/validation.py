"""Tables of TOML -> typed objects. Strict; all problems are reported together, each with its key path."""

import types
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import attrs
import cattrs
from cattrs.errors import (
    AttributeValidationNote,
    ForbiddenExtraKeysError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn, override

from liif_core.errors import UserError, did_you_mean
from liif_core.experiment.layers import join
from liif_core.experiment.schema import SCHEDULES, SOURCES, CompositionSpec, ModelSpec, Schedule, Source, WholeModelSpec
from liif_core.experiment.translation import RENAMED_SOURCES, renamed_component, renamed_key
from liif_core.experiment.values import Problem, describe, exact, literal, refuse
from liif_core.registry.components import Choice, Registry
from liif_core.sizes import Scale


def structure(cls: Any, data: Mapping[str, Any], registry: Registry, where: str, prefix: str = "") -> Any:
    """An object of an attrs class from a table. ``where`` and ``prefix`` begin each problem's key path.

    Raises UserError with one line for every problem.
    """
    try:
        return _converter(registry).structure(data, cls)
    except Exception as error:
        raise UserError(*(f"{where}: {line}" for line in _lines(error, prefix))) from None


def _lines(error: BaseException, path: str) -> list[str]:
    """One line for every leaf of an exception tree, with its key path."""
    if not isinstance(error, BaseExceptionGroup):
        return [f"{line_path}: {message}" if line_path else message for line_path, message in _leaf(error, path)]
    lines = []
    for inner in error.exceptions:
        step = path
        for note in getattr(inner, "__notes__", ()):
            if isinstance(note, AttributeValidationNote):
                step = join(path, note.name)
            elif isinstance(note, IterableValidationNote):
                step = f"{path}[{note.index}]"
        lines += _lines(inner, step)
    return lines


def _leaf(error: BaseException, path: str) -> list[tuple[str, str]]:
    if isinstance(error, ForbiddenExtraKeysError):
        known = [f.name for f in attrs.fields(error.cl)]
        expected = f"; expected one of: {', '.join(known)}" if known else "; it has no options"
        return [
            (
                join(path, key),
                f"this key is now called {new!r}"
                if (new := renamed_key(join(path, key), known))
                else f"unknown key{did_you_mean(key, known) or expected}",
            )
            for key in sorted(error.extra_fields)
        ]
    if isinstance(error, KeyError):
        return [(path, "required, but missing")]
    if isinstance(error, Problem):
        return [(join(path, error.key) if error.key else path, str(error))]
    key, _, rest = str(error.args[0] if error.args else error).partition(": ")
    if rest and key.isidentifier():  # an options class that names its field: "queries: 99 are more than ..."
        return [(join(path, key), rest)]
    return [(path, str(error.args[0] if error.args else type(error).__name__))]


def _converter(registry: Registry) -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=True, forbid_extra_keys=True)
    for kind in (bool, int, float, str, Path, Scale):
        converter.register_structure_hook(kind, exact(kind))
    converter.register_structure_hook_factory(attrs.has, lambda cls: _table_hook(cls, converter, registry))
    factories: list[tuple[tuple[Any, ...], Callable[[Any], Callable[[Any, Any], Any]]]] = [
        ((Literal,), lambda t: lambda value, _: literal(value, t)),
        ((tuple,), lambda t: _array_hook(t, converter)),
        ((Union, types.UnionType), lambda t: _union_hook(t, converter)),
    ]
    for origins, factory in factories:
        converter.register_structure_hook_factory(partial(_has_origin, origins), factory)
    converter.register_structure_hook(Scale, exact(Scale))
    return converter


def _has_origin(origins: tuple[Any, ...], kind: Any) -> bool:
    return get_origin(kind) in origins


def _array_hook(kind: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    inner = get_args(kind)
    open_ended = len(inner) == 2 and inner[1] is ...

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, list):
            refuse(value, "an array")
        if not open_ended and len(value) != len(inner):
            raise Problem(f"expected {len(inner)} values, got {len(value)}")
        items, errors = [], []
        for index, item in enumerate(value):
            try:
                items.append(converter.structure(item, inner[0] if open_ended else inner[index]))
            except Exception as error:
                errors.append(_noted(error, IterableValidationNote("", index, kind)))
        if errors:
            raise ExceptionGroup("array", errors)
        return tuple(items)

    return hook


def _union_hook(kind: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    if kind == ModelSpec:
        return lambda value, _: converter.structure(
            value, WholeModelSpec if isinstance(value, dict) and "use" in value else CompositionSpec
        )
    members = [member for member in get_args(kind) if member is not type(None)]
    if len(members) == 1:
        return lambda value, _: converter.structure(value, members[0])
    tag, classes = ("source", SOURCES) if kind == Source else ("use", SCHEDULES) if kind == Schedule else (None, {})
    if tag is None:
        raise TypeError(f"{kind} is not supported in options; use one type, or that type or None")

    def hook(value: Any, _: Any) -> Any:
        name, rest = _tagged(value, tag)
        if name not in classes:
            if name in RENAMED_SOURCES and RENAMED_SOURCES[name] in classes:
                raise Problem(f"{name!r} is now called {RENAMED_SOURCES[name]!r}", tag)
            raise Problem(f"expected one of {', '.join(classes)}, got {name!r}{did_you_mean(name, classes)}", tag)
        return converter.structure(rest, classes[name])

    return hook


def _tagged(value: Any, tag: str) -> tuple[str, dict[str, Any]]:
    if not isinstance(value, dict):
        refuse(value, f"a table with '{tag}'")
    name = value.get(tag)
    if name is None:
        raise Problem("required, but missing", tag)
    if not isinstance(name, str):
        raise Problem(f"expected a string, got {describe(name)}", tag)
    return str(name), {key: item for key, item in value.items() if key != tag}


def _table_hook(cls: type, converter: cattrs.Converter, registry: Registry) -> Callable[[Any, Any], Any]:
    overrides = {}
    attrs.resolve_types(cls)
    for field in attrs.fields(cls):
        overrides[field.name] = override(struct_hook=_field_hook(field, converter, registry))
    make: Callable[[Any, Any], Any] = make_dict_structure_fn(
        cls,
        converter,
        _cattrs_forbid_extra_keys=True,
        _cattrs_detailed_validation=True,
        **overrides,  # type: ignore[arg-type]
    )

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            refuse(value, "a table")
        if cls is WholeModelSpec:
            return _whole_model(value, converter, registry)
        return make(value, cls)

    return hook


def _whole_model(value: dict[str, Any], converter: cattrs.Converter, registry: Registry) -> WholeModelSpec:
    """``[model] use = "..."``: the options of the model stand in the same table as ``use`` and ``channels``."""
    fields = {field.name: field for field in attrs.fields(WholeModelSpec)}
    parts = [f.name for f in attrs.fields(CompositionSpec) if f.name not in fields and f.name in value]
    if parts:
        raise Problem(f"{', '.join(parts)}: not together with 'use': a model that 'use' names has no such parts")
    channels = value.get("channels", fields["channels"].default)
    rest = {key: item for key, item in value.items() if key != "channels"}
    results, errors = {}, []
    for name, given in (("model", rest), ("channels", channels)):
        try:
            results[name] = _field_hook(fields[name], converter, registry)(given, None)
        except Exception as error:
            errors.append(_noted(error, AttributeValidationNote("", name, int)) if name == "channels" else error)
    if errors:
        raise ExceptionGroup("model", errors)
    return WholeModelSpec(**results)


def _field_hook(
    field: "attrs.Attribute[Any]", converter: cattrs.Converter, registry: Registry
) -> Callable[[Any, Any], Any]:
    def hook(value: Any, _: Any) -> Any:
        result: Any
        kind = field.metadata.get("kind")
        if kind and field.type in (Choice, Choice | None):
            result = _choice(value, kind, converter, registry)
        elif kind:
            result = _conditions(value, converter, registry)
        else:
            assert field.type is not None  # every option has an annotation
            result = converter.structure(value, field.type)
        if field.validator is not None:
            try:
                field.validator(None, field, result)
            except Exception as error:
                message = str(error.args[0]).removeprefix(f"'{field.name}' ")
                is_empty = message == f"Length of '{field.name}' must be >= 1: 0"
                raise Problem("must not be empty" if is_empty else message) from None
        return result

    return hook


def _choice(value: Any, kind: Any, converter: cattrs.Converter, registry: Registry) -> Choice:
    use, rest = _tagged(value, "use")
    try:
        component, origin = registry.find(kind, use)
    except ValueError as error:
        new = renamed_component(kind, use)
        raise Problem(f"{use!r} is now called {new!r}" if new else str(error), "use") from None
    return Choice(kind, use, component, converter.structure(rest, component.options), origin)


def _conditions(value: Any, converter: cattrs.Converter, registry: Registry) -> tuple[Choice, ...]:
    if not isinstance(value, list):
        refuse(value, "an array of tables, [[model.conditioning]]")
    choices, errors = [], []
    for index, item in enumerate(value):
        try:
            choices.append(_choice(item, "conditioning", converter, registry))
        except Exception as error:
            errors.append(_noted(error, IterableValidationNote("", index, tuple)))
    names = [choice.component.name for choice in choices]
    errors += [Problem(f"{name!r} is listed twice") for name in sorted({n for n in names if names.count(n) > 1})]
    if errors:
        raise ExceptionGroup("conditioning", errors)
    return tuple(choices)


def _noted(error: Exception, note: Any) -> Exception:
    error.add_note(note)
    return error
