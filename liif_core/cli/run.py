"""``liif-run``: from an experiment file to trained weights and a report."""

import time
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from liif_core import files
from liif_core.data.sources import MissingData
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
    to_builtin,
)  # fmt: skip
from liif_core.experiment.translation import translate_experiment
from liif_core.experiment.validation import structure
from liif_core.model.composed_image import ComposedImage
from liif_core.model.continuous import ContinuousModel
from liif_core.model.device import autocast, pick_device
from liif_core.model.flops import counter, format_multiply_adds
from liif_core.model.protocols import Query
from liif_core.registry.components import Registry
from liif_core.registry.discovery import discover
from liif_core.training.checkpoint import load_checkpoint, tensors_sha256
from liif_core.training.setup import fresh_model, open_data
from liif_core.training.state import STATE
from liif_core.training.trainer import Trainer

Say = Callable[[str], None]


def check_experiment(path: Path, profile: str | None, overrides: Iterable[str]) -> str:
    """``--check``: build the model without opening data; returns the resolved TOML, parameters and operations."""
    registry = discover()
    resolved = resolve(read_experiment_file(path), registry, profile, overrides)
    experiment = resolved.experiment
    autocast(pick_device(experiment.run.device), experiment.run.precision)
    lines: list[str] = []
    model = fresh_model(experiment, lines.append)
    return "\n".join([resolved_toml(resolved), *lines, _described(model)])


def run_experiment(
    path: Path, profile: str | None, overrides: Iterable[str], out: Path | None, resume: bool, quiet: bool, say: Say
) -> None:
    """Train, evaluate and report. Raises UserError and Interrupted."""
    started = time.monotonic()
    registry = discover()
    file = read_experiment_file(path)
    resolved = resolve(file, registry, profile, overrides)
    device = pick_device(resolved.experiment.run.device)
    autocast(device, resolved.experiment.run.precision)  # refuses half precision that the device lacks before any work
    notes: list[str] = []
    model = fresh_model(resolved.experiment, notes.append)
    try:
        images, validation = open_data(resolved.experiment)
    except MissingData as missing:
        if profile is not None or file.fallback is None:
            raise
        resolved = _fall_back(file, registry, overrides, missing, say)
        notes = []
        model = fresh_model(resolved.experiment, notes.append)
        images, validation = open_data(resolved.experiment)
    experiment = resolved.experiment
    for note in notes:
        say(note)

    evaluated, skipped = open_sets(experiment.evaluate, model.channels)
    for name, reason in skipped:
        say(f"skipping evaluation on {name}: {reason}")

    folder = _run_folder(out, path.stem, experiment, resume, registry, say)
    files.write_text(folder / "experiment.toml", resolved_toml(resolved))
    name = _name(resolved)
    say(f"{name}: {len(images)} images, {_count(model):,} parameters, on {device}; results go to {folder}")
    trainer = Trainer(model, experiment, images, validation, folder, device, plugins_of(experiment.model), quiet)
    trained = trainer.run(resume)

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
        training=_training(experiment, trained.seconds, len(images)),
        scores=scores,
        note=experiment.note,
        profile=experiment.profile,
        skipped=skipped,
        model_fingerprint=tensors_sha256(best.state),
        data_fingerprints={"training": images.fingerprint, **fingerprints},
        versions=_versions(experiment),
        seconds=round(time.monotonic() - started, 1),
        parameters=_count(model),
        device=str(device),
        trained={"steps": trained.steps, "best_validation_psnr": trained.best, "best_step": trained.best_step},
    )
    files.write_text(folder / "report.json", report.to_json(finished))
    text = report.to_markdown(finished)
    files.write_text(folder / "report.md", text)
    say(f"\n{text}\nwritten: {folder}/report.md, report.json, pictures/, checkpoints/best.safetensors")


def _name(resolved: Resolved) -> str:
    """What reports call the model: the experiment's name, or the model's parts where the name is another model's."""
    experiment = resolved.experiment
    if not resolved.has_own_name:
        return short_description(experiment.model)
    return f"{experiment.name} [{experiment.profile}]" if experiment.profile else experiment.name


def _training(experiment: Experiment, seconds: float, images: int) -> str:
    kind = "photograph" if isinstance(experiment.data.images, SkimageSource) else "image"
    return f"trained {format_duration(seconds)} on {images:,} {kind}{'s' * (images != 1)}"


def _fall_back(
    file: ExperimentFile, registry: Registry, overrides: Iterable[str], missing: MissingData, say: Say
) -> Resolved:
    for line in missing.problems:
        say(f"missing: {line}")
    resolved = resolve(file, registry, file.fallback, overrides)
    say(f"using the profile {file.fallback!r} of {file.path} instead (with --profile NAME, missing data is an error).")
    if resolved.experiment.note:
        say(resolved.experiment.note)
    say("")
    return resolved


def _run_folder(
    out: Path | None, stem: str, experiment: Experiment, resume: bool, registry: Registry, say: Say
) -> Path:
    """The folder of this run. Raises UserError for a folder that holds another run."""
    if out is None:
        base = Path("runs") / (f"{stem}-{experiment.profile}" if experiment.profile else stem)
        numbered = [base, *(base.with_name(f"{base.name}-{i}") for i in range(2, 10_000))]
        first_free = next(i for i, folder in enumerate(numbered) if not folder.exists())
        return numbered[first_free - 1] if resume and first_free else numbered[first_free]
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: expected a folder, and it is a file")
    written = out / "experiment.toml"
    if not written.exists():
        if (out / "checkpoints").exists():
            raise UserError(
                f"--out {out}: has checkpoints but no experiment.toml, so liif-run did not make it; choose another"
            )
        return out
    try:
        other = tomllib.loads(written.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise UserError(f"{written}: cannot be read; choose another --out") from None
    other = _as_written_now(other, registry)
    changed = _differences(_comparable(to_builtin(experiment)), _comparable(other))
    if changed:
        raise UserError(
            f"--out {out}: holds another experiment (it differs in {', '.join(changed[:5])}"
            f"{' and more' if len(changed) > 5 else ''}); choose another folder"
        )
    if not resume and (out / "checkpoints").exists():
        state = "is finished" if (out / "report.json").exists() else f"can go on from {STATE}"
        raise UserError(
            f"--out {out}: holds this experiment already, and it {state}; add --resume, or choose another folder"
        )
    epochs, before = experiment.train.epochs, other.get("train", {}).get("epochs")
    if resume and epochs != before:
        say(f"train.epochs: {epochs}, before {before}; from here the learning rate follows the schedule of {epochs}")
    return out


def _as_written_now(data: dict[str, Any], registry: Registry) -> dict[str, Any]:
    """An experiment as this version writes it, with options that came later at their defaults."""
    translated = translate_experiment(data)
    try:
        read: dict[str, Any] = to_builtin(structure(Experiment, translated, registry, ""))
    except UserError:  # with a plugin that is no longer installed, for instance
        return translated
    return read


def _comparable(data: dict[str, Any]) -> dict[str, Any]:
    """What makes an experiment another one: not where or how long it runs, nor names that are for reports only."""
    kept = {key: value for key, value in data.items() if key not in ("run", "profile", "note")}
    if isinstance(kept.get("train"), dict):
        kept["train"] = {key: value for key, value in kept["train"].items() if key != "epochs"}
    sets = kept.get("evaluate")
    if isinstance(sets, list):
        kept["evaluate"] = [{**item, "name": ""} if isinstance(item, dict) else item for item in sets]
    return kept


def _differences(a: Any, b: Any, path: str = "") -> list[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        return [
            line
            for key in sorted(a.keys() | b.keys())
            for line in _differences(a.get(key), b.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if a == b else [path]


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
