"""``liif evaluate``."""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import torch

from liif_core.cli.json_file import json_writer
from liif_core.cli.processes import device_of_process
from liif_core.cli.subjects import Loaded, load_subject
from liif_core.cli.upscale_places import json_problems
from liif_core.data.sources import ImageSet, open_images
from liif_core.distributed import joined, started_by_torchrun
from liif_core.errors import UserError, did_you_mean
from liif_core.evaluation.checks import check_set
from liif_core.evaluation.circumstances import Circumstances, multiply_adds, warm_up
from liif_core.evaluation.evaluate import evaluate_set
from liif_core.evaluation.report import scores_table
from liif_core.evaluation.result_files import append_results, check_appendable
from liif_core.evaluation.results import result_of
from liif_core.evaluation.scores import Score, results_csv, results_json
from liif_core.experiment.schema import FolderSource, PairedFoldersSource
from liif_core.model.device import autocast, precision_problems
from liif_core.presets import ALIASES, PROTOCOLS, own_scales
from liif_core.registry.discovery import discover
from liif_core.sizes import OutputSize, Scale


def evaluate_checkpoint(
    checkpoint: Path,
    hr: Path,
    lr: Path | None,
    name: str | None,
    scales: tuple[str, ...],
    protocols: tuple[str, ...],
    json_path: Path | None,
    csv_path: Path | None,
    results_path: Path | None,
    ssim: bool,
    precision: str,
    ensemble: str | None,
    device: str | None,
    quiet: bool,
    say: Callable[[str], None],
) -> None:
    """Measure, print the tables, and write the files that were asked for.

    If interrupted, JSON and CSV have the scales that are done, and result files, to which each scale is added, too.
    """
    wanted, problems = wanted_scales(scales, protocols, lr)
    problems += preset_problems(protocols, "--protocol")
    problems += precision_problems(precision)
    problems += _place_problems(
        {"--json": json_path, "--csv": csv_path, "--results": results_path},
        {str(read): read for read in (checkpoint, hr, lr) if read is not None},
    )
    if problems:
        raise UserError(*problems)
    if results_path is not None:
        check_appendable(results_path)
    name = name or hr.name or hr.absolute().name
    presets = list({ALIASES.get(preset, preset): preset for preset in protocols}.values())
    with joined(started_by_torchrun()) as processes:
        write_json = None if json_path is None or not processes.first else json_writer(json_path)
        write_csv = None if csv_path is None or not processes.first else json_writer(csv_path, "--csv")
        registry = discover()

        def opened() -> tuple[torch.device, Loaded, ImageSet]:
            target = device_of_process(device or "auto", processes)
            autocast(target, precision)  # refuses half precision that the device lacks before anything is read
            loaded = load_subject(checkpoint, registry, target, int(ensemble or 1))
            source = FolderSource(hr.absolute()) if lr is None else PairedFoldersSource(hr.absolute(), lr.absolute())
            images = open_images(source, channels=loaded.model.channels)
            check_set(images, name, loaded.model.channels, wanted, presets, ssim, loaded.model)
            return target, loaded, images

        target, loaded, images = processes.each(opened)
        model, scores = loaded.model, list[Score]()
        add = _adder(results_path, loaded, images, target, precision) if results_path and processes.first else None
        if results_path is not None:
            warm_up(model, precision)

        def write(interrupted: bool = False) -> None:
            ordered = sorted(scores, key=lambda score: presets.index(score.protocol))
            if write_json is not None:
                write_json(results_json(ordered, interrupted))
            if write_csv is not None:
                write_csv(results_csv(ordered))

        try:
            for scale in wanted:
                found = evaluate_set(
                    model, images, name, [scale], presets,
                    device=target, precision=precision, ssim=ssim, progress=not quiet, processes=processes,
                )  # fmt: skip
                scores += found
                if add is not None:
                    add(found)
        except BaseException:
            with suppress(UserError):  # the reason to stop is more important
                write(interrupted=True)
            raise
        if not processes.first:
            return
        ordered = sorted(scores, key=lambda score: presets.index(score.protocol))
        say(scores_table(ordered, loaded.subject.description))
        write()


def _adder(
    path: Path, loaded: Loaded, images: ImageSet, device: torch.device, precision: str
) -> Callable[[Iterable[Score]], None]:
    """What adds scores to a result file."""
    circumstances = Circumstances.here(images.files, device, precision)

    def add(scores: Iterable[Score]) -> None:
        counted: dict[Scale, float | None] = {}
        results = []
        for score in scores:
            if score.scale not in counted:
                counted[score.scale] = multiply_adds(loaded.model, score.scale)
            work = counted[score.scale]
            several = PROTOCOLS[score.protocol].ensemble
            results.append(result_of(score, loaded.subject, circumstances, None if work is None else work * several))
        append_results(path, results)

    return add


def preset_problems(protocols: Iterable[str], option: str) -> list[str]:
    """A line for each name that no preset has."""
    return [
        f"{option} {name}: expected one of {', '.join(PROTOCOLS)}{did_you_mean(name, PROTOCOLS)}"
        for name in dict.fromkeys(protocols)
        if name not in PROTOCOLS
    ]


def _place_problems(written: dict[str, Path | None], read: dict[str, Path]) -> list[str]:
    """Files to write that are read too, or that are one and the same."""
    problems, seen = [], dict[str, str]()
    for option, path in written.items():
        if path is None:
            continue
        problems += json_problems(path, [], read, option)
        real = os.path.realpath(path)
        if real in seen and real != os.path.realpath(os.devnull):
            problems.append(f"{option} {path}: is the file of {seen[real]} too; give another file's name")
        seen[real] = option
    return problems


def wanted_scales(scales: tuple[str, ...], protocols: Sequence[str], lr: Path | None) -> tuple[list[Scale], list[str]]:
    """Different scales, in their order, and what is wrong with others; without any, those of the protocols' tables."""
    wanted: dict[Scale, None] = {}
    problems = []
    for text in scales:
        try:
            scale = Scale.parse(text)
            OutputSize.of(scale)
        except ValueError as error:
            problems.append(f"--scale {text[:60]}: {str(error).removeprefix('scale: ')}")
        else:
            wanted[scale] = None
    if lr is not None and len(scales) != 1:
        advice = "run once for each scale" if scales else "give the one that its images have"
        problems.append(f"--lr: goes with a single --scale; {advice}")
    elif not scales and all(name in PROTOCOLS for name in protocols):
        try:
            wanted = dict.fromkeys(own_scales(protocols))
        except ValueError as error:
            problems.append(f"--scale: {error}")
    return list(wanted), problems
