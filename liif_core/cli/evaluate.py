"""``liif evaluate``."""

import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from liif_core.cli.json_file import json_writer
from liif_core.cli.processes import device_of_process
from liif_core.cli.upscale_places import json_problems
from liif_core.data.sources import ImageSet, open_images
from liif_core.distributed import joined, started_by_torchrun
from liif_core.errors import UserError, did_you_mean
from liif_core.evaluation.checks import check_set
from liif_core.evaluation.evaluate import evaluate_set
from liif_core.evaluation.report import Score, results_json, scores_table
from liif_core.experiment.description import short_description
from liif_core.experiment.schema import FolderSource, PairedFoldersSource
from liif_core.model.continuous import ContinuousModel
from liif_core.model.device import autocast, precision_problems
from liif_core.model.ensemble import SelfEnsemble
from liif_core.models.loading import checkpoint_path
from liif_core.presets import PROTOCOLS
from liif_core.registry.discovery import discover
from liif_core.sizes import OutputSize, Scale
from liif_core.training.checkpoint import Checkpoint, OtherVersion, load_checkpoint, model_of, spec_of


def evaluate_checkpoint(
    checkpoint: Path,
    hr: Path,
    lr: Path | None,
    scales: tuple[str, ...],
    protocol: str,
    json_path: Path | None,
    ssim: bool,
    precision: str,
    ensemble: str | None,
    device: str | None,
    quiet: bool,
    say: Callable[[str], None],
) -> None:
    """Measure, print the table, and write the JSON if asked; if interrupted, with the scales that are done."""
    wanted, problems = _parsed(scales)
    if lr is not None and len(scales) > 1:
        problems.append("--lr: goes with a single --scale; run once for each scale")
    if protocol not in PROTOCOLS:
        problems.append(
            f"--protocol {protocol}: expected one of {', '.join(PROTOCOLS)}{did_you_mean(protocol, PROTOCOLS)}"
        )
    problems += precision_problems(precision)
    if json_path is not None:
        problems += json_problems(json_path, [], {str(read): read for read in (checkpoint, hr, lr) if read is not None})
    if problems:
        raise UserError(*problems)
    name = hr.name or hr.absolute().name
    with joined(started_by_torchrun()) as processes:
        write_json = None if json_path is None or not processes.first else json_writer(json_path)
        registry = discover()

        def opened() -> tuple[torch.device, Checkpoint, ContinuousModel, ImageSet]:
            target = device_of_process(device or "auto", processes)
            autocast(target, precision)  # refuses half precision that the device lacks before anything is read
            loaded = load_checkpoint(checkpoint_path(checkpoint, registry), registry)
            model: ContinuousModel = model_of(loaded, registry, str(checkpoint)).to(target).eval()
            source = FolderSource(hr.absolute()) if lr is None else PairedFoldersSource(hr.absolute(), lr.absolute())
            images = open_images(source, channels=model.channels)
            if ensemble is not None:
                model = SelfEnsemble(model, int(ensemble))
            check_set(images, name, model.channels, wanted, protocol, ssim, model)
            return target, loaded, model, images

        target, loaded, model, images = processes.each(opened)
        scores: list[Score] = []
        try:
            for scale in wanted:
                scores += evaluate_set(
                    model, images, name, [scale], protocol,
                    device=target, precision=precision, ssim=ssim, progress=not quiet, processes=processes,
                )  # fmt: skip
        except BaseException:
            if write_json is not None:
                with suppress(UserError):  # the reason to stop is more important
                    write_json(results_json(scores, interrupted=True))
            raise
        if not processes.first:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OtherVersion)  # model_of has warned
            spec = spec_of(loaded, registry, str(checkpoint))
        said = "" if ensemble is None else f", mean of {ensemble} orientations"
        say(scores_table(scores, short_description(spec) + said))
        if write_json is not None:
            write_json(results_json(scores))


def _parsed(scales: tuple[str, ...]) -> tuple[list[Scale], list[str]]:
    """Different scales, in their order, and what is wrong with others."""
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
    return list(wanted), problems
