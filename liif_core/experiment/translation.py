"""Old names of experiment keys, and the translation of experiments and weights that older versions saved.

This module is the only statement of what was renamed. An experiment inside a checkpoint is translated when it is read;
an experiment file with an old key is refused with the new one.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

RENAMED_KEYS = {  # key path -> new last part
    "data.samples": "queries",
    "train.batch": "batch_size",
    "train.optimizer.rate": "lr",
    "train.schedule.factor": "gamma",
}
RENAMED_SOURCES = {"samples": "skimage"}  # values of ``source``
RENAMED_PROFILES = {"samples": "quick"}  # of the experiments that come with liif-core
RENAMED_COMPONENTS = {"features": {"plain": "identity"}}  # kind -> names of components, which come with liif-core
RENAMED_WEIGHTS = {"srno": {"decoder.told.": "decoder.condition."}}  # decoder -> prefixes of its parameters

_SOURCES = ("data.images", "validate.images", "evaluate.images")  # tables that have a ``source``
_OWNERS = ("", "liif-core")  # of renamed components, as ``use = "owner:name"`` gives them
_Value = TypeVar("_Value")


def renamed_key(path: str, known: Iterable[str]) -> str | None:
    """The new name of the last part of a key path that an older version used; None if it was not renamed.

    ``known`` are the keys of the table that it is in: a new name that is not among them is of no help.
    """
    new = RENAMED_KEYS.get(path)
    return new if new is not None and new in known else None


def renamed_component(kind: str, use: str) -> str | None:
    """The new name of a component that an older version used; None if it was not renamed."""
    owner, _, name = use.rpartition(":")
    return RENAMED_COMPONENTS.get(kind, {}).get(name) if owner in _OWNERS else None


def translate_experiment(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of an experiment that an older version wrote, with the keys and values of this one.

    Experiments of this version, and whatever is no experiment, are returned as they are.
    """
    return {key: _translated(value, key) for key, value in experiment.items()}


def translate_weights(state: Mapping[str, _Value], model: Mapping[str, Any]) -> dict[str, _Value]:
    """A state dict that an older version wrote for the ``[model]`` table, with the parameter names of this one."""
    decoder = model.get("decoder")
    use = decoder.get("use") if isinstance(decoder, Mapping) else None
    owner, _, name = str(use).rpartition(":")
    prefixes = RENAMED_WEIGHTS.get(name, {}) if owner in _OWNERS else {}
    return {_renamed(name, prefixes): value for name, value in state.items()}


def _renamed(name: str, prefixes: Mapping[str, str]) -> str:
    for old, new in prefixes.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _translated(value: Any, path: str) -> Any:
    if isinstance(value, Mapping):
        result = {RENAMED_KEYS.get(f"{path}.{key}", key): _translated(v, f"{path}.{key}") for key, v in value.items()}
        source = result.get("source")
        if path in _SOURCES and isinstance(source, str):
            result["source"] = RENAMED_SOURCES.get(source, source)
        use = result.get("use")
        if path.startswith("model.") and isinstance(use, str):
            result["use"] = renamed_component(path.removeprefix("model."), use) or use
        return result
    if isinstance(value, list):
        return [_translated(item, path) for item in value]
    return value
