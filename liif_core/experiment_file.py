"""TOML <-> Experiment: strict, every problem at once, each with its key path."""

import os
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import attrs
import cattrs
import toml
from cattrs.errors import AttributeValidationNote, ForbiddenExtraKeysError, IterableValidationNote
from cattrs.gen import make_dict_structure_fn, override

from liif_core.errors import UserError, did_you_mean
from liif_core.experiment import SCHEDULES, SOURCES, Experiment, ModelSpec, Schedule, Source
from liif_core.geometry import Scale
from liif_core.registry import Choice, Registry

_TAGS = ("use", "source")  # a table whose tag changes is replaced, not merged: its other keys belong to another class
_FILE_KEYS = ("extends", "fallback", "profiles")  # keys of a file, not of an experiment
_PROFILE_KEYS = ("note", "description")


@attrs.frozen
class ExperimentFile:
    """A TOML file (and the one it extends) as read: nothing is validated but the frame."""

    path: Path
    base: Mapping[str, Any]  # the experiment without a profile
    profiles: Mapping[str, Mapping[str, Any]]
    fallback: str | None
    origins: Mapping[str, str]  # key path -> the file it came from


@attrs.frozen
class Resolved:
    """An experiment and where each of its values came from."""

    experiment: Experiment
    origins: Mapping[str, str]


class _Text(str):
    """A string that remembers the folder that a relative path in it starts from."""

    folder: Path


def read_experiment_file(path: str | Path) -> ExperimentFile:
    """Read a file and the one it ``extends``. Raises UserError for what cannot be read or is no TOML."""
    path = Path(path)
    data = _read_toml(path)
    origins: dict[str, str] = {}
    base: dict[str, Any] = {}
    profiles: dict[str, Any] = {}
    parent = data.pop("extends", None)
    layers = [(path, data)]
    if parent is not None:
        if not isinstance(parent, str):
            raise UserError(f"{path}: extends: expected the path of a TOML file, got {_shown(parent)}")
        inherited = _read_toml(path.parent / parent)
        if "extends" in inherited:
            raise UserError(f"{path}: extends: {parent} extends another file itself; one level is allowed")
        layers.insert(0, (path.parent / parent, inherited))
    fallback = None
    for source, layer in layers:
        offered = layer.pop("profiles", {})
        wrong = [n for n, p in offered.items() if not isinstance(p, dict)] if isinstance(offered, dict) else ["profiles"]
        if wrong:
            raise UserError(f"{source}: profiles.{wrong[0]}: expected a table of overrides")
        profiles = _merged(profiles, offered, source.name, {})
        fallback = layer.pop("fallback", fallback)
        base = _merged(base, layer, source.name, origins)
    if fallback is not None and fallback not in profiles:
        raise UserError(f"{path}: fallback: no profile is named {_shown(fallback)}; {_declared(profiles)}")
    base.setdefault("name", _Text(path.stem))
    return ExperimentFile(path, base, profiles, fallback, origins)


def resolve(file: ExperimentFile, registry: Registry, profile: str | None = None, overrides: Iterable[str] = ()) -> Resolved:
    """The experiment of a file, with a profile and ``key=value`` overrides applied, checked against the plugins.

    Raises UserError with one line for every problem.
    """
    origins = dict(file.origins)
    data: dict[str, Any] = dict(file.base)
    if profile is not None:
        if profile not in file.profiles:
            known = did_you_mean(profile, file.profiles)
            raise UserError(f"{file.path}: no profile is named {profile!r}{known}; {_declared(file.profiles)}")
        changes = {k: v for k, v in file.profiles[profile].items() if k != "description"}
        data = _merged(data, changes, f"profile {profile}", origins)
        data["profile"] = profile
    for text in overrides:
        data = _merged(data, _override(text, data), f"--set {text.partition('=')[0]}", origins)
    return Resolved(_structure(Experiment, data, registry, str(file.path)), origins)


def load_experiment(
    path: str | Path, registry: Registry, profile: str | None = None, overrides: Iterable[str] = ()
) -> Experiment:
    """Read and check an experiment file; nothing is built. Raises UserError with one line for every problem."""
    return resolve(read_experiment_file(path), registry, profile, overrides).experiment


def model_from_table(table: Mapping[str, Any], registry: Registry, where: str) -> ModelSpec:
    """Check a ``[model]`` table, such as a checkpoint carries. ``where`` names its owner in messages."""
    return _structure(ModelSpec, dict(table), registry, where, prefix="model")


def plain(value: Any) -> Any:
    """An experiment, or a part of one, as TOML has it: tables, arrays, strings, numbers. Unset values are left out."""
    if isinstance(value, Choice):
        return {"use": value.use, **plain(value.options)}
    if isinstance(value, Scale):
        return value.plain
    if attrs.has(type(value)):
        tags = {**{cls: {"source": tag} for tag, cls in SOURCES.items()}, **{cls: {"use": tag} for tag, cls in SCHEDULES.items()}}
        fields = {f.name: getattr(value, f.name) for f in attrs.fields(type(value))}
        return {**tags.get(type(value), {}), **{k: plain(v) for k, v in fields.items() if v is not None}}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value if isinstance(value, (bool, int, float)) else str(value)


def to_toml(data: Mapping[str, Any]) -> str:
    """TOML text of plain data. Raises ValueError where the writer cannot say it so that it reads back the same."""
    text = toml.dumps(data)
    try:
        same = tomllib.loads(text) == data
    except tomllib.TOMLDecodeError:
        same = False
    if not same:
        raise ValueError("this experiment cannot be written as TOML that reads back the same")
    return text


def resolved_toml(resolved: Resolved) -> str:
    """The resolved copy for a run folder: valid TOML, headed by where each value that was stated came from."""
    by_origin: dict[str, list[str]] = {}
    for key, origin in sorted(resolved.origins.items()):
        by_origin.setdefault(origin, []).append(key)
    head = ["# A resolved experiment, written by liif-run. What is listed nowhere below is a default."]
    head += [f"# from {origin}: {', '.join(keys)}" for origin, keys in by_origin.items()]
    return "\n".join(line.replace("\r", " ").replace("\n", " ") for line in head) + "\n\n" + to_toml(plain(resolved.experiment))


# Reading and merging


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a TOML file: it is not UTF-8 text") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        return _located(tomllib.loads(text), path.parent.absolute())
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise UserError(f"{path}: not valid TOML: {error}") from None


def _located(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return {key: _located(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_located(item, folder) for item in value]
    if isinstance(value, str):
        value = _Text(value)
        value.folder = folder
    return value


def _merged(base: Any, over: Any, label: str, origins: dict[str, str], path: str = "") -> Any:
    """``over`` laid on ``base``: tables merge, anything else replaces. ``origins`` learns who set what."""
    if isinstance(base, dict) and isinstance(over, dict) and all(base.get(t) == over.get(t, base.get(t)) for t in _TAGS):
        result = dict(base)
        for key, value in over.items():
            result[key] = _merged(result.get(key, {} if isinstance(value, dict) else None), value, label, origins, _join(path, key))
        return result
    for key in [key for key in origins if key == path or key.startswith((path + ".", path + "["))]:
        del origins[key]
    if isinstance(over, dict):
        return {key: _merged({} if isinstance(value, dict) else None, value, label, origins, _join(path, key)) for key, value in over.items()}
    origins[path] = label
    return over


def _override(text: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """``a.b=value`` as nested tables; a whole number steps into an array of tables."""
    key, equals, value = text.partition("=")
    steps = key.strip().split(".")
    if not equals or not all(steps):
        raise UserError(f"--set {text}: expected KEY=VALUE, such as model.decoder.hidden=[64,64]")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    return _nested(steps, _located(parsed, Path.cwd()), data, text)


def _nested(steps: list[str], value: Any, data: Any, text: str) -> Any:
    if not steps:
        return value
    step, rest = steps[0], steps[1:]
    if isinstance(data, list):
        if not (step.isdigit() and int(step) < len(data)):
            raise UserError(f"--set {text}: {step!r}: expected a number from 0 to {len(data) - 1}: this is an array")
        changed = list(data)
        old = changed[int(step)]
        new = _nested(rest, value, old, text)
        changed[int(step)] = _merged(old, new, "", {}) if isinstance(new, dict) else new
        return changed
    return {step: _nested(rest, value, data.get(step) if isinstance(data, dict) else None, text)}


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _declared(profiles: Iterable[str]) -> str:
    return f"declared: {', '.join(profiles) or 'none'}"


# Checking


class _Problem(ValueError):
    """A problem at a key of the table being read; ``key`` is empty for the table itself."""

    def __init__(self, message: str, key: str = ""):
        super().__init__(message)
        self.key = key


def _structure(cls: type, data: Mapping[str, Any], registry: Registry, where: str, prefix: str = "") -> Any:
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
                step = _join(path, note.name)
            elif isinstance(note, IterableValidationNote):
                step = f"{path}[{note.index}]"
        lines += _lines(inner, step)
    return lines


def _leaf(error: BaseException, path: str) -> list[tuple[str, str]]:
    if isinstance(error, ForbiddenExtraKeysError):
        known = [f.name for f in attrs.fields(error.cl)]
        expected = f"; expected one of: {', '.join(known)}" if known else "; it has no options"
        return [(_join(path, key), f"unknown key{did_you_mean(key, known) or expected}") for key in sorted(error.extra_fields)]
    if isinstance(error, KeyError):
        return [(path, "required, but missing")]
    if isinstance(error, _Problem):
        return [(_join(path, error.key) if error.key else path, str(error))]
    key, _, rest = str(error.args[0] if error.args else error).partition(": ")
    if rest and key.isidentifier():  # an options class that names its field: "samples: 99 are more than ..."
        return [(_join(path, key), rest)]
    return [(path, str(error.args[0] if error.args else type(error).__name__))]


def _converter(registry: Registry) -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=True, forbid_extra_keys=True)
    for kind in (bool, int, float, str, Path, Scale):
        converter.register_structure_hook(kind, _exact(kind))
    converter.register_structure_hook_factory(attrs.has, lambda cls: _table_hook(cls, converter, registry))
    converter.register_structure_hook_factory(lambda t: get_origin(t) is Literal, lambda t: lambda value, _: _literal(value, t))
    converter.register_structure_hook_factory(lambda t: get_origin(t) is tuple, lambda t: _array_hook(t, converter))
    converter.register_structure_hook_factory(
        lambda t: get_origin(t) in (Union, types.UnionType), lambda t: _union_hook(t, converter)
    )
    converter.register_structure_hook(Scale, _exact(Scale))
    return converter


_EXPECTED = {bool: "true or false", int: "a whole number", float: "a number", str: "a string", Path: "a path (a string)"}


def _exact(kind: type) -> Callable[[Any, Any], Any]:
    """No coercion but what loses nothing: a whole number may stand for a float, a string for a path."""

    def hook(value: Any, _: Any) -> Any:
        if kind is Scale:
            return Scale.of(value) if isinstance(value, (int, float, list)) else _refuse(value, "a number or a pair of them")
        if kind is float and type(value) is int and abs(value) <= 2**53:
            return float(value)
        if kind is float and type(value) is float and value - value != 0:
            raise _Problem(f"expected a finite number, got {value}")
        if kind in (str, Path) and isinstance(value, str):
            if "\0" in value:
                raise _Problem("must not contain a NUL character")
            return str(value) if kind is str else Path(os.path.abspath(getattr(value, "folder", Path()) / value))
        return value if type(value) is kind else _refuse(value, _EXPECTED[kind])

    return hook


def _refuse(value: Any, expected: str) -> typing.NoReturn:
    raise _Problem(f"expected {expected}, got {_shown(value)}")


def _shown(value: Any) -> str:
    names = {str: "a string", bool: "a boolean", int: "a whole number", float: "a number", list: "an array", dict: "a table"}
    kind = next((name for cls, name in names.items() if isinstance(value, cls) and not (cls is int and value is True)), type(value).__name__)
    if isinstance(value, (dict, list)):
        return kind
    text = repr(str(value)) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return f"{text[:60]} ({kind})"


def _literal(value: Any, kind: Any) -> str:
    allowed = get_args(kind)
    if value not in allowed or not isinstance(value, str):
        near = did_you_mean(value, allowed) if isinstance(value, str) else ""
        raise _Problem(f"expected one of {', '.join(map(repr, allowed))}, got {_shown(value)}{near}")
    return str(value)


def _array_hook(kind: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    inner = get_args(kind)
    open_ended = len(inner) == 2 and inner[1] is ...

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, list):
            _refuse(value, "an array")
        if not open_ended and len(value) != len(inner):
            raise _Problem(f"expected {len(inner)} values, got {len(value)}")
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
    members = [member for member in get_args(kind) if member is not type(None)]
    if len(members) == 1:
        return lambda value, _: converter.structure(value, members[0])
    tag, classes = ("source", SOURCES) if kind == Source else ("use", SCHEDULES) if kind == Schedule else (None, {})
    if tag is None:
        raise TypeError(f"{kind} is not supported in options; use one type, or that type or None")

    def hook(value: Any, _: Any) -> Any:
        name, rest = _tagged(value, tag)
        if name not in classes:
            raise _Problem(f"expected one of {', '.join(classes)}, got {name!r}{did_you_mean(name, classes)}", tag)
        return converter.structure(rest, classes[name])

    return hook


def _tagged(value: Any, tag: str) -> tuple[str, dict[str, Any]]:
    if not isinstance(value, dict):
        _refuse(value, f"a table with '{tag}'")
    name = value.get(tag)
    if name is None:
        raise _Problem("required, but missing", tag)
    if not isinstance(name, str):
        raise _Problem(f"expected a string, got {_shown(name)}", tag)
    return str(name), {key: item for key, item in value.items() if key != tag}


def _table_hook(cls: type, converter: cattrs.Converter, registry: Registry) -> Callable[[Any, Any], Any]:
    overrides = {}
    attrs.resolve_types(cls)
    for field in attrs.fields(cls):
        hook = _field_hook(field, converter, registry)
        overrides[field.name] = override(struct_hook=hook)
    structure = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True, **overrides)

    def hook(value: Any, _: Any) -> Any:
        return structure(value, cls) if isinstance(value, dict) else _refuse(value, "a table")

    return hook


def _field_hook(field: attrs.Attribute, converter: cattrs.Converter, registry: Registry) -> Callable[[Any, Any], Any]:
    def hook(value: Any, _: Any) -> Any:
        kind = field.metadata.get("kind")
        if kind and field.type is Choice:
            result = _choice(value, kind, converter, registry)
        elif kind:
            result = _conditions(value, converter, registry)
        else:
            result = converter.structure(value, field.type)
        if field.validator is not None:
            try:
                field.validator(None, field, result)
            except Exception as error:
                raise _Problem(str(error.args[0]).removeprefix(f"'{field.name}' ")) from None
        return result

    return hook


def _choice(value: Any, kind: Any, converter: cattrs.Converter, registry: Registry) -> Choice:
    use, rest = _tagged(value, "use")
    try:
        component, origin = registry.find(kind, use)
    except ValueError as error:
        raise _Problem(str(error), "use") from None
    return Choice(kind, use, component, converter.structure(rest, component.options), origin)


def _conditions(value: Any, converter: cattrs.Converter, registry: Registry) -> tuple[Choice, ...]:
    if not isinstance(value, list):
        _refuse(value, "an array of tables, [[model.conditioning]]")
    choices, errors = [], []
    for index, item in enumerate(value):
        try:
            choices.append(_choice(item, "conditioning", converter, registry))
        except Exception as error:
            errors.append(_noted(error, IterableValidationNote("", index, tuple)))
    names = [choice.component.name for choice in choices]
    errors += [_Problem(f"{name!r} is listed twice") for name in sorted({n for n in names if names.count(n) > 1})]
    if errors:
        raise ExceptionGroup("conditioning", errors)
    return tuple(choices)


def _noted(error: Exception, note: Any) -> Exception:
    error.add_note(note)
    return error
