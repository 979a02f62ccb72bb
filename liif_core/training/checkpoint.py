"""Checkpoints: safetensors files with weights and their experiment; published .pth files are read, too."""

import hashlib
import json
import tomllib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from attrs import evolve, frozen
from torch import Tensor

from liif_core import files
from liif_core.errors import UserError
from liif_core.experiment.build import build_model
from liif_core.experiment.schema import ModelSpec
from liif_core.experiment.toml_file import model_from_table, plugins_of, to_toml
from liif_core.experiment.translation import translate_experiment, translate_weights
from liif_core.model.continuous import ContinuousModel
from liif_core.registry.components import Origin, Registry
from liif_core.registry.discovery import discover

FORMAT = "liif-core checkpoint"
FORMAT_VERSION = 2  # what is written
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
    files.write_bytes(path, safetensors.torch.save(state, metadata))


def load_checkpoint(path: str | Path, registry: Registry | None = None) -> Checkpoint:
    """Read a liif-core checkpoint (format 1 or 2), or a published .pth through the importers of plugins.

    The result has the keys and parameter names of this version, whichever version wrote the file. ``registry`` is by
    default that of the installed plugins.

    Raises UserError for a file that is missing or damaged, of another format, or with parts that no plugin imports.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if start[8:9] == b"{":
        return _load_ours(path)
    return _load_published(path, registry or discover())


def model_of(checkpoint: Checkpoint, registry: Registry, where: str) -> ContinuousModel:
    """The model of a checkpoint, on the CPU. Raises UserError where its weights do not fit its model table.

    Warns (OtherVersion) where a plugin has another version than it was saved with.
    """
    spec = spec_of(checkpoint, registry, where)
    model = build_model(spec)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in checkpoint.state.items()}
    problems = [f"{where}: no weights for {name}" for name in sorted(expected.keys() - found.keys())]
    problems += [f"{where}: the model has no place for {name}" for name in sorted(found.keys() - expected.keys())]
    problems += [
        f"{where}: {name} is {found[name]}, and the model expects {expected[name]}"
        for name in sorted(expected.keys() & found.keys())
        if expected[name] != found[name]
    ]
    if problems:
        rest = [f"{where}: and {len(problems) - 5} more such problems"] if len(problems) > 6 else problems[5:]
        raise UserError(*problems[:5], *rest)
    model.load_state_dict(checkpoint.state)
    model.trained_scale = checkpoint.scale
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
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: damaged, or not a safetensors file: {error}") from None
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path}: a safetensors file, but not a liif-core checkpoint (its metadata has no 'format')")
    version = metadata.get("format_version")
    if version not in READABLE_VERSIONS:
        raise UserError(
            f"{path}: checkpoint format {version}; this liif-core reads {' and '.join(READABLE_VERSIONS)}: "
            "install a newer one"
        )
    if metadata.get("sha256") != tensors_sha256(state):
        raise UserError(f"{path}: damaged: the weights do not have the SHA-256 that they were saved with")
    try:
        experiment = tomllib.loads(metadata["experiment"])
        known = json.loads(metadata["known"])
        scale = known["scale"] and tuple(known["scale"])
        if not isinstance(experiment["model"], dict):
            raise TypeError("model is no table")
        if version == "1":
            experiment = translate_experiment(experiment)
            state = translate_weights(state, experiment["model"])
        return Checkpoint(state, experiment, scale, known["step"], known["best"], known["plugins"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged: its metadata cannot be read ({type(error).__name__}: {error})") from None


def _load_published(path: Path, registry: Registry) -> Checkpoint:
    try:
        published = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch does not document what torch.load raises for a file that it cannot read
        # torch's message advises to load it unsafely; what is wrong follows the name of its reader
        reason = str(error).rpartition("WeightsUnpickler error: ")[2].strip().split("\n")[0] or type(error).__name__
        raise UserError(f"{path}: neither a safetensors checkpoint nor a .pth that loads safely: {reason}") from None
    try:
        name, arguments, state = (published["model"][key] for key in ("name", "args", "sd"))
    except (KeyError, TypeError, IndexError):
        raise UserError(f"{path}: not a published checkpoint: expected {{'model': {{'name', 'args', 'sd'}}}}") from None

    def encoder(spec: Mapping[str, Any], part: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Any]]:
        return registry.importer("encoder", spec["name"]).convert(spec.get("args", {}), part)

    try:
        table, state = registry.importer("model", name).convert(arguments, state, encoder)
    except UserError as error:
        raise UserError(*(f"{path}: {line}" for line in error.problems)) from None
    except Exception as error:  # of a plugin
        raise UserError(f"{path}: cannot be imported as {name!r}: {type(error).__name__}: {error}") from None
    odd = sorted(str(key) for key, value in state.items() if not (isinstance(key, str) and isinstance(value, Tensor)))
    if odd:
        raise UserError(f"{path}: not a published checkpoint: {odd[0]} is no tensor")
    return Checkpoint(state, {"name": path.stem, "model": table})
