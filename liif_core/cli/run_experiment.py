"""``liif-run``: from an experiment file to trained weights and a report."""

import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import torch

from liif_core import files
from liif_core.cli.run_folder import check_experiment_of, check_place, last_folder, new_folder
from liif_core.cli.run_preparing import Prepared, Say, has_state, prepare, versions
from liif_core.data.sources import ImageSet
from liif_core.distributed import Processes, joined
from liif_core.evaluation import report
from liif_core.evaluation.evaluate import evaluate_sets, open_sets
from liif_core.experiment.description import format_duration, full_description, short_description
from liif_core.experiment.schema import Experiment, SkimageSource
from liif_core.experiment.toml_file import (
    Resolved,
    plugins_of,
    read_experiment_file,
    resolve,
    resolved_toml,
)  # fmt: skip
from liif_core.model.composed_image import ComposedImage
from liif_core.model.continuous import ContinuousModel
from liif_core.model.device import autocast, pick_device
from liif_core.model.flops import counter, format_multiply_adds
from liif_core.model.protocols import Query
from liif_core.registry.discovery import discover
from liif_core.training.checkpoint import load_checkpoint, tensors_sha256
from liif_core.training.lock import hold
from liif_core.training.loop import resume_together
from liif_core.training.setup import check_data, fresh_model
from liif_core.training.space import check_space
from liif_core.training.trainer import Trainer
from liif_core.training.writing import writing


def check_experiment(
    path: Path, profile: str | None, overrides: Iterable[str], out: Path | None = None, resume: bool = False
) -> str:
    """``--check``: all that ``run_experiment`` checks before the first step; nothing is downloaded or written.

    Returns the resolved TOML, parameters and operations, and lines about images that are not on this machine. Of
    several processes, the first checks, and the others return nothing.
    """
    with joined() as processes:
        text = processes.on_first(lambda: _checked(path, profile, overrides, out, resume))
        return text if processes.first else ""


def _checked(path: Path, profile: str | None, overrides: Iterable[str], out: Path | None, resume: bool) -> str:
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
    model = fresh_model(experiment, lines.append, has_state(there, resume))
    check_space(folder, model, experiment.train)
    lines += check_data(experiment, model)
    return "\n".join([resolved_toml(resolved), _described(model), *lines])


def run_experiment(
    path: Path, profile: str | None, overrides: Iterable[str], out: Path | None, resume: bool, quiet: bool, say: Say
) -> None:
    """Train, evaluate and report, with all processes of the job. Raises UserError and Interrupted."""
    started = time.monotonic()
    with joined() as processes:
        say = say if processes.first else _silent
        prepared = prepare(path, profile, overrides, out, resume, processes, say)
        folder = prepared.there or processes.on_first(lambda: new_folder(path.stem, prepared.resolved.experiment))
        with ExitStack() as held:
            processes.on_first(lambda: held.enter_context(hold(folder)))
            _run(prepared, folder, resume, quiet, processes, say, started)


def _run(
    prepared: Prepared, folder: Path, resume: bool, quiet: bool, processes: Processes, say: Say, started: float
) -> None:
    resolved, registry, model, device = prepared.resolved, prepared.registry, prepared.model, prepared.device
    experiment, images = resolved.experiment, prepared.images
    for note in (*prepared.notes, *images.notes):
        say(note)
    evaluated, skipped = processes.each(lambda: open_sets(experiment.evaluate, model.channels, model))
    for name, reason in skipped:
        say(f"skipping evaluation on {name}: {reason}")
    processes.agree({"sets to evaluate on": [spec.name for spec, _ in evaluated]})

    def checked() -> list[str]:
        lines = check_experiment_of(folder, experiment, resume, registry)
        for place in (folder, folder / "checkpoints", folder / "pictures"):
            files.remove_stale(place)  # temporary files of a run that was killed
        check_space(folder, model, experiment.train)
        return lines

    for line in processes.on_first(checked):
        say(line)
    plugins = plugins_of(experiment.model)
    trainer = Trainer(model, experiment, images, prepared.validation, folder, device, plugins, quiet, processes)
    if resume:
        resume_together(trainer)  # before the experiment is replaced: a run that cannot go on keeps its own

    def describe() -> None:
        with writing(folder / "experiment.toml"):
            files.write_text(folder / "experiment.toml", resolved_toml(resolved))

    processes.on_first(describe)
    name = _name(resolved)
    where = f"{device}" if processes.size == 1 else f"{processes.size} processes, {device.type}"
    say(f"{name}: {_counted(images)}, {_count(model):,} parameters, on {where}; results go to {folder}")
    for note in trainer.notes:
        say(note)
    trained = trainer.run()

    processes.wait()  # until the first has written the weights
    best = processes.each(lambda: load_checkpoint(folder / "checkpoints" / "best.safetensors", registry))
    model.load_state_dict(best.state)
    scores = evaluate_sets(
        model, evaluated, device=device, precision=experiment.run.precision, out_dir=folder, progress=not quiet,
        processes=processes,
    )  # fmt: skip
    if not processes.first:
        return
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
        versions=versions(experiment),
        seconds=round(time.monotonic() - started, 1),
        parameters=_count(model),
        device=str(device) if processes.size == 1 else f"{device.type}, {processes.size} processes",
        trained={"steps": trained.steps, "best_validation_psnr": trained.best, "best_step": trained.best_step},
    )
    text = report.to_markdown(finished)
    for file_name, content in (("report.json", report.to_json(finished)), ("report.md", text)):
        with writing(folder / file_name):
            files.write_text(folder / file_name, content)
    say(f"\n{text}\nwritten: {folder}/report.md, report.json, pictures/, checkpoints/best.safetensors")


def _silent(_: str) -> None:
    """What processes but the first say."""


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
