"""Old names of experiment keys, and the translation of experiments and weights that older versions saved.

This table is the only statement of what was renamed. An experiment inside a checkpoint is translated when it is read;
an experiment file with an old key is refused with the new one.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

RENAMED_KEYS = {  # key path -> new last part
    "data.samples": "queries",
    "train.batch": "batch_size",
    "train.optimizer.rate": "lr",
    "train.schedule.factor": "gamma",
}
RENAMED_SOURCES = {"samples": "skimage"}  # values of ``source``
RENAMED_WEIGHTS = {"srno": {"decoder.told.": "decoder.condition."}}  # decoder -> prefixes of its parameters


def renamed_key(path: str) -> str | None:
    """The new name of the last part of a key path that an older version used; None if it was not renamed."""
    plain = path.rpartition("profiles.")[2].partition(".")[2] if path.startswith("profiles.") else path
    return RENAMED_KEYS.get(plain)


def translate_experiment(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of an experiment that an older version wrote, with the keys and values of this one."""
    return {key: _translated(value, key) for key, value in experiment.items()}


def translate_weights(state: Mapping[str, Tensor], model: Mapping[str, Any]) -> dict[str, Tensor]:
    """A state dict that an older version wrote for the ``[model]`` table, with the parameter names of this one."""
    decoder = model.get("decoder")
    use = decoder.get("use", "") if isinstance(decoder, Mapping) else ""
    prefixes = RENAMED_WEIGHTS.get(str(use).rpartition(":")[2], {})
    result = {}
    for name, value in state.items():
        for old, new in prefixes.items():
            if name.startswith(old):
                name = new + name.removeprefix(old)
        result[name] = value
    return result


def _translated(value: Any, path: str) -> Any:
    if isinstance(value, Mapping):
        result = {}
        for key, item in value.items():
            inner = f"{path}.{key}"
            if key == "source" and item in RENAMED_SOURCES:
                item = RENAMED_SOURCES[item]
            result[RENAMED_KEYS.get(inner, key)] = _translated(item, inner)
        return result
    if isinstance(value, list):
        return [_translated(item, path) for item in value]
    return value
