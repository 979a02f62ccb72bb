"""``liif compare``."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from liif_core import files
from liif_core.cli.evaluate import preset_problems, wanted_scales
from liif_core.cli.subjects import load_subject
from liif_core.data.sources import open_images
from liif_core.distributed import started_by_torchrun
from liif_core.errors import UserError
from liif_core.evaluation.checks import check_set
from liif_core.evaluation.circumstances import Circumstances, warm_up
from liif_core.evaluation.compare import Comparison, compare_methods
from liif_core.evaluation.comparison_page import comparison_page
from liif_core.evaluation.comparison_tables import csv_table, latex_table, markdown_report, terminal_report
from liif_core.evaluation.methods import FILTERS, Method, ModelMethod, PillowMethod
from liif_core.evaluation.result_files import append_results, check_appendable
from liif_core.evaluation.results import Subject, result_line
from liif_core.experiment.schema import FolderSource, PairedFoldersSource
from liif_core.model.device import autocast, pick_device, precision_problems
from liif_core.registry.components import Registry
from liif_core.registry.discovery import discover

_WRITTEN = ("report.html", "report.md", "results.jsonl", "table.csv", "table.tex")


def compare(
    models: tuple[Path, ...],
    hr: Path,
    lr: Path | None,
    name: str | None,
    scales: tuple[str, ...],
    preset: str,
    out: Path,
    results_path: Path | None,
    overwrite: bool,
    ssim: bool,
    precision: str,
    ensemble: str | None,
    device: str | None,
    quiet: bool,
    say: Callable[[str], None],
) -> None:
    """Measure all, print the tables, and write the files; if interrupted, nothing is written."""
    wanted, problems = wanted_scales(scales, [preset], lr)
    if len(set(map(str, models))) < len(models):
        twice = next(model for model in models if models.count(model) > 1)
        problems.append(f"{twice}: is given twice; give each model once")
    if started_by_torchrun():
        problems.append("liif compare: runs in one process; start it without torchrun")
    if len(models) < 2:
        problems.append(f"{models[0]}: expected at least two models to compare; bicubic and lanczos are some")
    problems += preset_problems([preset], "--preset") + precision_problems(precision) + _out_problems(out, overwrite)
    if results_path is not None and os.path.realpath(results_path) == os.path.realpath(out / "results.jsonl"):
        problems.append(f"--results {results_path}: is written to --out already; give another file, or leave it out")
    if problems:
        raise UserError(*problems)
    if results_path is not None:
        check_appendable(results_path)
    target = pick_device(device or "auto")
    autocast(target, precision)
    methods = _methods(models, discover(), target, precision, int(ensemble or 1))
    channels = _channels(methods)
    source = FolderSource(hr.absolute()) if lr is None else PairedFoldersSource(hr.absolute(), lr.absolute())
    images, name = open_images(source, channels=channels), name or hr.name or hr.absolute().name
    unfit = []
    for method in methods:
        try:
            check_set(images, name, channels, wanted, [preset], ssim, method.model)
        except UserError as error:
            unfit += [problem for problem in error.problems if problem not in unfit]
    if unfit:
        raise UserError(*unfit)
    for method in methods:
        if method.model is not None:
            warm_up(method.model, precision)
    circumstances = Circumstances.here(images.files, target, precision)
    found = compare_methods(
        methods, images, name, wanted, preset, circumstances, target,
        channels=channels, ssim=ssim, progress=not quiet,
    )  # fmt: skip
    say(terminal_report(found))
    _write(out, found)
    if results_path is not None:
        append_results(results_path, [row.result for comparison in found for row in comparison.rows])
    say(f"\nwritten to {out}: {', '.join(_WRITTEN)}")


def _methods(
    given: Sequence[Path], registry: Registry, device: torch.device, precision: str, ensemble: int
) -> list[Method]:
    """The models and interpolations, with names that differ. Raises UserError with all that cannot be loaded."""
    methods: list[Method] = []
    problems: list[str] = []
    for model in given:
        if str(model) in FILTERS and not model.exists():
            methods.append(PillowMethod(str(model)))
            continue
        try:
            loaded = load_subject(model, registry, device, ensemble)
            methods.append(ModelMethod(loaded.model, loaded.subject, precision))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
    names = [method.subject.name for method in methods]
    for method, model in zip(methods, given):
        if names.count(method.subject.name) > 1:
            own = method.subject
            method.subject = Subject(str(model), own.description, own.weights, own.parameters, own.ensemble)
    return methods


def _channels(methods: Sequence[Method]) -> int:
    """How many channels all models take; 3 without models."""
    found = {method.model.channels: method.subject.name for method in methods if method.model is not None}
    if len(found) > 1:
        told = ", ".join(f"{name} takes {channels}" for channels, name in found.items())
        raise UserError(f"{told} channels: expected models for images of the same kind; compare them apart")
    return next(iter(found), 3)


def _out_problems(out: Path, overwrite: bool) -> list[str]:
    there = files.nearest_existing(out)
    if not there.is_dir():
        return [f"--out {out}: {'is' if there == out.absolute() else f'{there} is'} not a folder"]
    if not os.access(there, os.W_OK | os.X_OK):
        return [f"--out {out}: cannot be written: no permission to write to {there}"]
    old = [name for name in _WRITTEN if (out / name).exists()]
    if old and not overwrite:
        return [f"--out {out}: {', '.join(old)} already exist; give another folder, or --overwrite"]
    return []


def _write(out: Path, found: Sequence[Comparison]) -> None:
    lines = "".join(result_line(row.result) for comparison in found for row in comparison.rows)
    texts = dict(zip(_WRITTEN, (comparison_page(found), markdown_report(found), lines, csv_table(found),
                                latex_table(found))))  # fmt: skip
    try:
        for name, text in texts.items():
            files.write_text(out / name, text)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror or error})") from None
