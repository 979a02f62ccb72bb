"""Checkpoints: safetensors files with weights and their experiment; published .pth files are read, too."""

import hashlib
import json
import math
import stat
import tomllib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor

from liif_core import files
from liif_core.errors import UserError, cut
from liif_core.experiment.schema import ModelSpec
from liif_core.experiment.toml_file import model_from_table, plugins_of, to_toml
from liif_core.experiment.translation import translate_experiment, translate_weights
from liif_core.model.continuous import ContinuousModel
from liif_core.registry.components import Origin, Registry
from liif_core.registry.discovery import discover
from liif_core.training.container import check_digest, container_bytes, read_container
from liif_core.training.conversion import convert_published
from liif_core.training.fitting import build_fitting, check_finite

FORMAT = "liif-core checkpoint"
FORMAT_VERSION = 2  # what is written
_DEEPEST = 32  # nested tables and lists in an experiment
READABLE_VERSIONS = ("1", "2")  # 1: other names of experiment keys and parameters, which are translated


class OtherVersion(UserWarning):
    """A checkpoint was saved with other versions of plugins than those that are installed."""


@frozen(eq=False)
class Checkpoint:
    """Weights, and what is known about them.

    ``state`` maps parameter names to tensors. ``experiment`` has the tables of an experiment file, at least ``model``.
    """

    state: Mapping[str, Tensor]
    experiment: Mapping[str, Any]
    scale: tuple[float, float] | None = None  # the range it was trained on
    step: int | None = None
    best: float | None = None  # PSNR at the validation that chose it
    plugins: Mapping[str, str] = {}  # distribution -> version


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a .safetensors file, whole or not at all; missing parent folders are made.

    Equal checkpoints give equal bytes. The file holds the SHA-256 of all its bytes, and of its tensors alone.

    Raises OSError where that fails, and ValueError for an experiment that TOML cannot hold.
    """
    # cloned: safetensors refuses tensors that share memory, such as tied weights
    state = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in checkpoint.state.items()
    }
    known = {
        "scale": checkpoint.scale,
        "step": checkpoint.step,
        "best": checkpoint.best,
        "plugins": dict(checkpoint.plugins),
    }
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "experiment": to_toml(checkpoint.experiment),
        "sha256": tensors_sha256(state),
        "known": json.dumps(known),
    }
    files.write_bytes(path, container_bytes(state, metadata))


def load_checkpoint(path: str | Path, registry: Registry | None = None) -> Checkpoint:
    """Read a liif-core checkpoint (format 1 or 2), or a published one through the importers of plugins.

    A published checkpoint is a .pth, a pickle of NumPy arrays, or a folder of such files. Code in it is not run.

    The result has the keys and parameter names of this version, whichever version wrote the file. ``registry`` is by
    default that of the installed plugins.

    Raises UserError for a file that is missing or damaged, of another format, with parts that no plugin imports, or
    with weights that are NaN or infinite.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # reading a pipe would wait for ever
            raise UserError(f"{path}: cannot be read: expected a file, and it is a pipe or a device")
        start = b""
        if stat.S_ISREG(mode):
            with open(path, "rb") as file:
                start = file.read(16)
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if start[8:9] == b"{":
        return _load_ours(path)
    table, state = convert_published(path, registry or discover())
    return Checkpoint(state, {"name": path.stem, "model": table})


def model_of(checkpoint: Checkpoint, registry: Registry, where: str) -> ContinuousModel:
    """The model of a checkpoint, on the CPU. Raises UserError where its weights do not fit its model table.

    Warns (OtherVersion) where a plugin has another version than it was saved with.
    """
    spec = spec_of(checkpoint, registry, where)
    model = build_fitting(spec, checkpoint.state, where)
    model.trained_scale = checkpoint.scale
    model.loaded_from = where
    return model


def spec_of(checkpoint: Checkpoint, registry: Registry, where: str) -> ModelSpec:
    """The checked ``[model]`` table of a checkpoint. Raises and warns as ``model_of`` does."""
    saved = dict(sorted(checkpoint.plugins.items()))
    try:
        spec = model_from_table(checkpoint.experiment["model"], _preferring(registry, saved), where)
    except UserError as error:
        here = {origin.distribution for offered in registry.components.values() for _, origin in offered}
        gone = [f"{name} {version}" for name, version in saved.items() if name not in here]
        lines = [f"{where}: saved with {name}, which has no working plugin here: install it" for name in gone]
        raise UserError(*error.problems, *lines) from None
    used = plugins_of(spec)
    for name, version in saved.items():
        if used.get(name) != version:
            now = used.get(name) or ", ".join(f"{other} {used[other]}" for other in sorted(used))
            warnings.warn(f"{where}: saved with {name} {version}, and read with {now}", OtherVersion, stacklevel=3)
    return spec


def _preferring(registry: Registry, distributions: Mapping[str, str]) -> Registry:
    """Where several distributions offer a name, only those that the checkpoint was saved with."""

    def kept(offered: tuple[tuple[Any, Origin], ...]) -> tuple[tuple[Any, Origin], ...]:
        saved = {component.name for component, origin in offered if origin.distribution in distributions}
        return tuple((c, o) for c, o in offered if o.distribution in distributions or c.name not in saved)

    return evolve(registry, components={kind: kept(offered) for kind, offered in registry.components.items()})


def tensors_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values, in order of name, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _load_ours(path: Path) -> Checkpoint:
    state, metadata = read_container(path)
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path}: a safetensors file, but not a liif-core checkpoint (its metadata has no 'format')")
    version = metadata.get("format_version")
    if version not in READABLE_VERSIONS:
        raise UserError(
            f"{path}: checkpoint format {cut(version)}; this liif-core reads {' and '.join(READABLE_VERSIONS)}: "
            "install a newer one"
        )
    if not check_digest(path, metadata) and metadata.get("sha256") != tensors_sha256(state):
        raise UserError(f"{path}: damaged: the weights do not have the SHA-256 that they were saved with")
    try:
        experiment = tomllib.loads(metadata["experiment"])
        if not isinstance(experiment["model"], dict):
            raise TypeError("model is no table")
        if _is_deep(experiment):
            raise ValueError("tables are nested too deeply")
        known = _known(metadata["known"])
        if version == "1":
            experiment = translate_experiment(experiment)
            state = translate_weights(state, experiment["model"])
    except (KeyError, TypeError, ValueError, RecursionError, OverflowError) as error:
        reason = f"{type(error).__name__}: {cut(error, 300)}"
        raise UserError(f"{path}: damaged: its metadata cannot be read ({reason})") from None
    check_finite(state, str(path))
    return Checkpoint(state, experiment, **known)


def _known(text: str) -> dict[str, Any]:
    """The entry "known" of the metadata, checked. Raises KeyError, TypeError or ValueError."""
    known = json.loads(text)
    scale, step, best, plugins = (known[name] for name in ("scale", "step", "best", "plugins"))
    if scale is not None:
        if not (isinstance(scale, list) and len(scale) == 2 and all(map(_is_number, scale))):
            raise ValueError(f"scale: expected two numbers, got {cut(scale)}")
        if not 0 < scale[0] <= scale[1] < math.inf:
            raise ValueError(f"scale: expected two positive numbers in order, got {cut(scale)}")
        scale = tuple(map(float, scale))
    if step is not None and not (isinstance(step, int) and not isinstance(step, bool) and step >= 0):
        raise ValueError(f"step: expected a whole number from 0, got {cut(step)}")
    if best is not None and not (_is_number(best) and not math.isnan(best)):
        raise ValueError(f"best: expected a number, got {cut(best)}")
    if not (isinstance(plugins, dict) and all(isinstance(version, str) for version in plugins.values())):
        raise ValueError(f"plugins: expected versions by name, got {cut(plugins)}")
    return {"scale": scale, "step": step, "best": best, "plugins": plugins}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_deep(value: Any) -> bool:
    """Whether tables and lists are nested more deeply than those of any experiment."""
    level = [value]
    for _ in range(_DEEPEST):
        inner = [part.values() if isinstance(part, dict) else part for part in level if isinstance(part, (dict, list))]
        level = [value for values in inner for value in values]
    return bool(level)
