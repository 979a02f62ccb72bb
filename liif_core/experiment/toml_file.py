"""Experiment files: TOML -> Experiment, and back."""

import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs
import toml

from liif_core.errors import UserError, did_you_mean, one_line
from liif_core.experiment.layers import merged, override, read_toml
from liif_core.experiment.schema import SCHEDULES, SOURCES, Experiment, ModelSpec, WholeModelSpec
from liif_core.experiment.translation import RENAMED_PROFILES
from liif_core.experiment.validation import structure
from liif_core.experiment.values import describe
from liif_core.registry.components import Choice, Registry
from liif_core.sizes import Scale

RESOLVED = "# A resolved experiment, written by liif-run"  # how the copy in a run folder begins


@attrs.frozen
class ExperimentFile:
    """A TOML file and the one it extends, as read. Only ``extends``, ``profiles`` and ``fallback`` are checked."""

    path: Path
    base: Mapping[str, Any]  # the experiment without a profile
    profiles: Mapping[str, Mapping[str, Any]]
    fallback: str | None
    origins: Mapping[str, str]  # key path -> the file it came from
    named_model: Any  # the [model] table of the file that has the name


@attrs.frozen
class Resolved:
    """An experiment, and the source of each of its values."""

    experiment: Experiment
    origins: Mapping[str, str]
    has_own_name: bool = True  # False where a profile, an override or another file changed the model and kept the name


def read_experiment_file(path: str | Path) -> ExperimentFile:
    """Read a file and the one it ``extends``. Raises UserError for a file that cannot be read or is not TOML."""
    path = Path(path)
    data = read_toml(path)
    origins: dict[str, str] = {}
    base: dict[str, Any] = {}
    profiles: dict[str, Any] = {}
    parent = data.pop("extends", None)
    layers = [(path, data)]
    if parent is not None:
        if not isinstance(parent, str):
            raise UserError(f"{path}: extends: expected the path of a TOML file, got {describe(parent)}")
        parent = os.path.expanduser(parent)
        inherited = read_toml(path.parent / parent)
        if "extends" in inherited:
            raise UserError(f"{path}: extends: {parent} extends another file itself; one level is allowed")
        layers.insert(0, (path.parent / parent, inherited))
    fallback = named_model = None
    for source, layer in layers:
        offered = layer.pop("profiles", {})
        wrong = (
            [n for n, p in offered.items() if not isinstance(p, dict)] if isinstance(offered, dict) else ["profiles"]
        )
        if wrong:
            raise UserError(f"{source}: profiles.{wrong[0]}: expected a table of overrides")
        profiles = merged(profiles, offered, source.name, {})
        fallback = layer.pop("fallback", fallback)
        base = merged(base, layer, source.name, origins)
        if "name" in layer:
            named_model = base.get("model")
    if fallback is not None and not (isinstance(fallback, str) and fallback in profiles):
        raise UserError(f"{path}: fallback: no profile is named {describe(fallback)}; {_declared(profiles)}")
    if "name" not in base:
        base["name"], named_model = one_line(path.stem), base.get("model")
    return ExperimentFile(path, base, profiles, fallback, origins, named_model)


def resolve(
    file: ExperimentFile, registry: Registry, profile: str | None = None, overrides: Iterable[str] = ()
) -> Resolved:
    """The experiment of a file, with a profile and ``key=value`` overrides applied, checked against the plugins.

    Raises UserError with one line for every problem.
    """
    origins = dict(file.origins)
    data: dict[str, Any] = dict(file.base)
    if profile is not None:
        if profile not in file.profiles:
            new = RENAMED_PROFILES.get(profile)
            known = f" (it is now called {new!r})" if new in file.profiles else did_you_mean(profile, file.profiles)
            raise UserError(f"{file.path}: no profile is named {profile!r}{known}; {_declared(file.profiles)}")
        changes = {k: v for k, v in file.profiles[profile].items() if k != "description"}
        data = merged(data, changes, f"profile {profile}", origins)
        data["profile"] = profile
    for text in overrides:
        data = merged(data, override(text, data), f"--set {text.partition('=')[0]}", origins)
    experiment: Experiment = structure(Experiment, data, registry, str(file.path))
    kept = origins.get("name") == file.origins.get("name")
    return Resolved(experiment, origins, not kept or _is_model(file.named_model, experiment.model, registry))


def _is_model(table: Any, model: ModelSpec, registry: Registry) -> bool:
    """Whether a ``[model]`` table says what ``model`` does."""
    try:
        return bool(structure(ModelSpec, table, registry, "") == model)
    except UserError:
        return False


def load_experiment(
    path: str | Path, registry: Registry, profile: str | None = None, overrides: Iterable[str] = ()
) -> Experiment:
    """Read and check an experiment file; nothing is built. Raises UserError with one line for every problem."""
    return resolve(read_experiment_file(path), registry, profile, overrides).experiment


def model_from_table(table: Mapping[str, Any], registry: Registry, where: str) -> ModelSpec:
    """Check a ``[model]`` table, such as a checkpoint carries. ``where`` names its owner in messages."""
    spec: ModelSpec = structure(ModelSpec, dict(table), registry, where, prefix="model")
    return spec


def plugins_of(model: ModelSpec) -> dict[str, str]:
    """The distributions that a model's components come from, with their versions."""
    if isinstance(model, WholeModelSpec):
        chosen = [model.model]
    else:
        chosen = [model.encoder, model.features, model.sampling, *model.conditioning, model.decoder]
    return {choice.origin.distribution: choice.origin.version for choice in chosen}


def plugins_used(experiment: Experiment) -> dict[str, str]:
    """The distributions that the model and the degradation of an experiment come from, with their versions."""
    degradation = experiment.data.degradation
    used = {} if degradation is None else {degradation.origin.distribution: degradation.origin.version}
    return {**plugins_of(experiment.model), **used}


def to_builtin(value: Any) -> Any:
    """An experiment, or a part of one, as TOML has it: tables, arrays, strings, numbers. Unset values are left out."""
    if isinstance(value, Choice):
        return {"use": value.use, **to_builtin(value.options)}
    if isinstance(value, WholeModelSpec):
        return {**to_builtin(value.model), "channels": value.channels}
    if isinstance(value, Scale):
        return value.to_builtin
    if attrs.has(type(value)):
        tags = {
            **{cls: {"source": tag} for tag, cls in SOURCES.items()},
            **{cls: {"use": tag} for tag, cls in SCHEDULES.items()},
        }
        fields = {f.name: getattr(value, f.name) for f in attrs.fields(type(value))}
        return {**tags.get(type(value), {}), **{k: to_builtin(v) for k, v in fields.items() if v is not None}}
    if isinstance(value, Mapping):
        return {str(k): to_builtin(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [to_builtin(item) for item in value]
    return value if isinstance(value, (bool, int, float)) else str(value)


def to_toml(data: Mapping[str, Any]) -> str:
    """TOML text of tables, arrays, strings, numbers and booleans.

    Raises ValueError for data that the writer cannot write so that it reads back equal.
    """
    try:
        text = toml.dumps(data, _Encoder())
        same = tomllib.loads(text) == data
    except Exception:  # the writer raises many kinds of exceptions for values that it cannot write
        same = False
    if not same:
        raise ValueError("this experiment cannot be written as TOML that reads back the same")
    return text


class _Encoder(toml.TomlEncoder):  # type: ignore[type-arg]  # generic in its annotations only
    """Writes strings itself: the library loses backslashes and control characters."""

    def __init__(self) -> None:
        super().__init__()
        self.dump_funcs[str] = _quoted

    def dump_list(self, v: Iterable[Any]) -> str:
        return f"[{', '.join(str(self.dump_value(item)) for item in v)}]"


def _quoted(text: str) -> str:
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text) + '"'


def resolved_toml(resolved: Resolved) -> str:
    """The resolved copy for a run folder: valid TOML, with the source of each value in comments at the top."""
    by_origin: dict[str, list[str]] = {}
    for key, origin in sorted(resolved.origins.items()):
        by_origin.setdefault(origin, []).append(key)
    made = ", ".join(f"{name} {version}" for name, version in sorted(plugins_used(resolved.experiment).items()))
    head = [f"{RESOLVED}. Values that are not listed below are defaults."]
    head += [f"# plugins: {made}"]
    head += [f"# from {origin}: {', '.join(keys)}" for origin, keys in by_origin.items()]
    try:
        return "\n".join(map(one_line, head)) + "\n\n" + to_toml(to_builtin(resolved.experiment))
    except ValueError as error:
        raise UserError(f"{resolved.experiment.name}: {error}") from None


def _declared(profiles: Iterable[str]) -> str:
    return f"declared: {', '.join(profiles) or 'none'}"
