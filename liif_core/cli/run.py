"""``liif-run``: from an experiment file to trained weights and a report."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from liif_core import files
from liif_core.cli.processes import require_one_process
from liif_core.cli.run_folder import check_experiment_of, check_place, last_folder, new_folder
from liif_core.data.sources import ImageSet, MissingData
from liif_core.errors import UserError
from liif_core.evaluation import report
from liif_core.evaluation.evaluate import evaluate_sets, open_sets
from liif_core.experiment.description import format_duration, full_description, short_description
from liif_core.experiment.schema import Experiment, SkimageSource
from liif_core.experiment.toml_file import (
    ExperimentFile,
    Resolved,
    plugins_of,
    plugins_used,
    read_experiment_file,
    resolve,
    resolved_toml,
)  # fmt: skip
from liif_core.model.composed_image import ComposedImage
from liif_core.model.continuous import ContinuousModel
from liif_core.model.device import autocast, pick_device
from liif_core.model.flops import counter, format_multiply_adds
from liif_core.model.protocols import Query
from liif_core.registry.components import Registry
from liif_core.registry.discovery import discover
from liif_core.training.checkpoint import load_checkpoint, tensors_sha256
from liif_core.training.lock import check_free, hold
from liif_core.training.setup import check_data, fresh_model, open_data
from liif_core.training.space import check_space
from liif_core.training.state import STATE
from liif_core.training.trainer import Trainer
from liif_core.training.writing import writing

Say = Callable[[str], None]


def check_experiment(
    path: Path, profile: str | None, overrides: Iterable[str], out: Path | None = None, resume: bool = False
) -> str:
    """``--check``: all that ``run_experiment`` checks before the first step; nothing is downloaded or written.

    Returns the resolved TOML, parameters and operations, and lines about images that are not on this machine.
    """
    require_one_process()
    registry = discover()
    resolved = resolve(read_experiment_file(path), registry, profile, overrides)
    experiment = resolved.experiment
    autocast(pick_device(experiment.run.device), experiment.run.precision)
    lines: list[str] = []
    check_place(Path("runs") if out is None else out)
    there = last_folder(path.stem, experiment) if out is None and resume else out
    if there is not None:
        lines += check_experiment_of(there, experiment, resume, registry)
    folder = there or Path("runs")
    model = fresh_model(experiment, lines.append, _has_state(there, resume))
    check_space(folder, model, experiment.train)
    lines += check_data(experiment)
    return "\n".join([resolved_toml(resolved), _described(model), *lines])


def run_experiment(
    path: Path, profile: str | None, overrides: Iterable[str], out: Path | None, resume: bool, quiet: bool, say: Say
) -> None:
    """Train, evaluate and report. Raises UserError and Interrupted."""
    started = time.monotonic()
    require_one_process()
    registry = discover()
    file = read_experiment_file(path)
    resolved = resolve(file, registry, profile, overrides)
    device = pick_device(resolved.experiment.run.device)
    autocast(device, resolved.experiment.run.precision)  # refuses half precision that the device lacks before any work
    check_place(Path("runs") if out is None else out)
    there = last_folder(path.stem, resolved.experiment) if out is None and resume else out
    if there is not None:
        check_free(there)  # before images are read, which may take minutes
    notes: list[str] = []
    model = fresh_model(resolved.experiment, notes.append, _has_state(there, resume))
    try:
        images, validation = open_data(resolved.experiment)
    except MissingData as missing:
        if profile is not None or file.fallback is None or _names_images(overrides):
            raise
        resolved = _fall_back(file, registry, overrides, missing, say)
        notes = []
        there = last_folder(path.stem, resolved.experiment) if out is None and resume else out
        model = fresh_model(resolved.experiment, notes.append, _has_state(there, resume))
        images, validation = open_data(resolved.experiment)
    experiment = resolved.experiment
    for note in (*notes, *images.notes):
        say(note)
    evaluated, skipped = open_sets(experiment.evaluate, model.channels)
    for name, reason in skipped:
        say(f"skipping evaluation on {name}: {reason}")

    folder = new_folder(path.stem, experiment) if there is None else there
    with hold(folder):
        for line in check_experiment_of(folder, experiment, resume, registry):
            say(line)
        for place in (folder, folder / "checkpoints", folder / "pictures"):
            files.remove_stale(place)  # temporary files of a run that was killed
        check_space(folder, model, experiment.train)
        trainer = Trainer(model, experiment, images, validation, folder, device, plugins_of(experiment.model), quiet)
        if resume:
            trainer.resume()  # before the experiment is replaced: a run that cannot go on keeps its own
        with writing(folder / "experiment.toml"):
            files.write_text(folder / "experiment.toml", resolved_toml(resolved))
        name = _name(resolved)
        say(f"{name}: {_counted(images)}, {_count(model):,} parameters, on {device}; results go to {folder}")
        trained = trainer.run()

        best = load_checkpoint(folder / "checkpoints" / "best.safetensors", registry)
        model.load_state_dict(best.state)
        scores = evaluate_sets(
            model, evaluated, device=device, precision=experiment.run.precision, out_dir=folder, progress=not quiet
        )
        fingerprints = {spec.name: opened.fingerprint for spec, opened in evaluated}
        finished = report.Report(
            name=name,
            experiment=experiment.name,
            composition=full_description(experiment.model),
            training=_training(experiment, trained.seconds, images),
            scores=scores,
            note=experiment.note,
            profile=experiment.profile,
            skipped=skipped,
            left_out=images.left_out,
            model_fingerprint=tensors_sha256(best.state),
            data_fingerprints={"training": images.fingerprint, **fingerprints},
            versions=_versions(experiment),
            seconds=round(time.monotonic() - started, 1),
            parameters=_count(model),
            device=str(device),
            trained={"steps": trained.steps, "best_validation_psnr": trained.best, "best_step": trained.best_step},
        )
        text = report.to_markdown(finished)
        for file_name, content in (("report.json", report.to_json(finished)), ("report.md", text)):
            with writing(folder / file_name):
                files.write_text(folder / file_name, content)
    say(f"\n{text}\nwritten: {folder}/report.md, report.json, pictures/, checkpoints/best.safetensors")


def _has_state(folder: Path | None, resume: bool) -> bool:
    """Whether a run goes on from a state, and needs no weights to begin with."""
    return resume and folder is not None and (folder / "checkpoints" / STATE).exists()


def _name(resolved: Resolved) -> str:
    """What reports call the model: the experiment's name, or the model's parts where the name is another model's."""
    experiment = resolved.experiment
    if not resolved.has_own_name:
        return short_description(experiment.model)
    return f"{experiment.name} [{experiment.profile}]" if experiment.profile else experiment.name


def _training(experiment: Experiment, seconds: float, images: ImageSet) -> str:
    kind = "photograph" if isinstance(experiment.data.images, SkimageSource) else "image"
    return f"trained {format_duration(seconds)} on {_counted(images, kind)}"


def _counted(images: ImageSet, kind: str = "image") -> str:
    left_out = f" ({len(images.left_out):,} left out)" if images.left_out else ""
    return f"{len(images):,} {kind}{'s' * (len(images) != 1)}{left_out}"


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


def _versions(experiment: Experiment) -> dict[str, str]:
    import platform

    return {"python": platform.python_version(), "torch": torch.__version__, **plugins_used(experiment)}


def _count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _described(model: ContinuousModel) -> str:
    """Parameters of each part, and multiply-adds per LR pixel and per output pixel, counted on a small image."""
    shares = [f"{name} {_count(part):,}" for name, part in model.named_children() if _count(part)]
    lines = [f"parameters: {_count(model):,}" + (f" ({', '.join(shares)})" if shares else "")]
    side, scale = 16, 4
    image = torch.rand(1, model.channels, side, side)
    with counter() as encoding:
        picture = model.eval().encode(image)
        cell = torch.full((2,), 2 / (side * scale))
        if isinstance(picture, ComposedImage):
            picture.maps(cell.view(1, 1, 1, 2))
    axis = torch.linspace(-0.9, 0.9, side * scale)
    with counter() as decoding:
        picture.query(Query.grid(axis, axis, cell))
    per_code = format_multiply_adds(encoding, side**2)
    per_pixel = format_multiply_adds(decoding, (side * scale) ** 2)
    steps = ("encoder and prepare", "decode") if isinstance(picture, ComposedImage) else ("encode", "query")
    lines.append(f"multiply-adds: {per_code} per LR pixel ({steps[0]}), {per_pixel} per output pixel ({steps[1]})")
    return "\n".join(lines)
