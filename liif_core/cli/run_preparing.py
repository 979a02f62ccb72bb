"""What ``liif-run`` does before it has a folder: the experiment, the device, the model and the images."""

import platform
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from attrs import frozen

from liif_core.cli.processes import device_of_process
from liif_core.cli.run_folder import check_place, last_folder
from liif_core.data.sources import ImageSet, MissingData
from liif_core.distributed import Processes
from liif_core.errors import UserError
from liif_core.experiment.schema import Experiment
from liif_core.experiment.toml_file import (
    ExperimentFile,
    Resolved,
    plugins_used,
    read_experiment_file,
    resolve,
    to_builtin,
)  # fmt: skip
from liif_core.model.continuous import ContinuousModel
from liif_core.model.device import autocast
from liif_core.registry.components import Registry
from liif_core.registry.discovery import discover
from liif_core.training.lock import check_free
from liif_core.training.setup import fresh_model, open_data
from liif_core.training.state import STATE

Say = Callable[[str], None]

_PLACES = ("path", "hr", "lr")  # of images, which may be elsewhere on another machine


@frozen
class Prepared:
    """What a run needs before its folder."""

    resolved: Resolved
    registry: Registry
    there: Path | None  # the folder, where it is known already
    device: torch.device
    model: ContinuousModel
    images: ImageSet
    validation: ImageSet | None
    notes: list[str]


def prepare(
    path: Path,
    profile: str | None,
    overrides: Iterable[str],
    out: Path | None,
    resume: bool,
    processes: Processes,
    say: Say,
) -> Prepared:
    """All that can be wrong with an experiment is found here, by each process. Raises UserError."""
    notes: list[str] = []

    def before_images() -> tuple[ExperimentFile, Registry, Resolved, torch.device]:
        registry = discover()
        file = read_experiment_file(path)
        resolved = resolve(file, registry, profile, overrides)
        device = device_of_process(resolved.experiment.run.device, processes)
        autocast(device, resolved.experiment.run.precision)  # refuses half precision that the device lacks
        check_place(Path("runs") if out is None else out)
        return file, registry, resolved, device

    def fresh(resolved: Resolved) -> tuple[Path | None, ContinuousModel]:
        there = last_folder(path.stem, resolved.experiment) if out is None and resume else out
        if there is not None and processes.first:
            check_free(there)  # before images are read, which may take minutes
        return there, fresh_model(resolved.experiment, notes.append, has_state(there, resume))

    file, registry, resolved, device = processes.each(before_images)
    values = {
        key: value for key, value in _values(resolved.experiment).items() if key.rpartition(".")[2] not in _PLACES
    }
    processes.agree({**values, **versions(resolved.experiment)})
    there, model = processes.each(lambda: fresh(resolved))
    try:
        images, validation = _open_data(resolved.experiment, model, processes)
    except MissingData as missing:
        if profile is not None or file.fallback is None or _names_images(overrides):
            raise
        resolved = _fall_back(file, registry, overrides, missing, say)
        notes.clear()
        there, model = processes.each(lambda: fresh(resolved))
        images, validation = _open_data(resolved.experiment, model, processes)
    processes.agree({"the training images": images.fingerprint})
    return Prepared(resolved, registry, there, device, model, images, validation, notes)


def _open_data(
    experiment: Experiment, model: ContinuousModel, processes: Processes
) -> tuple[ImageSet, ImageSet | None]:
    """The images. Where they are decoded into a file, one process of each machine makes and checks it."""
    makes = experiment.data.cache is None or processes.local_rank == 0
    opened = processes.each(lambda: open_data(experiment, model=model) if makes else None)
    return processes.each(lambda: opened or open_data(experiment, check_cache=False, model=model))


def has_state(folder: Path | None, resume: bool) -> bool:
    """Whether a run goes on from a state, and needs no weights to begin with."""
    return resume and folder is not None and (folder / "checkpoints" / STATE).exists()


def versions(experiment: Experiment) -> dict[str, str]:
    return {"python": platform.python_version(), "torch": torch.__version__, **plugins_used(experiment)}


def _names_images(overrides: Iterable[str]) -> bool:
    """Whether --set says where images are: then they are wanted, and no others."""
    keys = [text.partition("=")[0].strip() for text in overrides]
    return any(key.startswith(("data.images", "validate.images")) or key in ("data", "validate") for key in keys)


def _fall_back(
    file: ExperimentFile, registry: Registry, overrides: Iterable[str], missing: MissingData, say: Say
) -> Resolved:
    try:
        resolved = resolve(file, registry, file.fallback, overrides)
    except UserError as error:
        where = f"the fallback profile {file.fallback!r}, which is used where data is missing, does not take --set"
        raise UserError(*missing.problems, *(f"{where}: {line}" for line in error.problems)) from None
    for line in missing.problems:
        say(f"missing: {line}")
    say(f"using the profile {file.fallback!r} of {file.path} instead (with --profile NAME, missing data is an error).")
    if resolved.experiment.note:
        say(resolved.experiment.note)
    say("")
    return resolved


def _values(value: Any, path: str = "") -> dict[str, object]:
    """The values of an experiment by their keys, such as train.epochs."""
    if path == "":
        value = to_builtin(value)
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if not items:
        return {path: value}
    return {key: each for name, part in items for key, each in _values(part, f"{path}.{name}".strip(".")).items()}
