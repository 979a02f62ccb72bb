"""What an experiment needs before its first step: a fresh model, and its images."""

from collections.abc import Callable
from typing import Any

import torch

from liif_core.data.crops import largest_crop
from liif_core.data.degrade import build_degradation
from liif_core.data.sources import ImageSet, MissingData, open_images
from liif_core.errors import UserError
from liif_core.experiment.build import build_model, try_model
from liif_core.experiment.schema import Experiment
from liif_core.model.continuous import ContinuousModel
from liif_core.registry.discovery import discover
from liif_core.training.muon import require_muon
from liif_core.training.start import start_from
from liif_core.training.teacher import load_teacher


def fresh_model(experiment: Experiment, say: Callable[[str], object] = str) -> ContinuousModel:
    """The experiment's model before its first step, on the CPU, after a trial on a small image.

    Its weights are those that the seed gives or, with ``train.start_from``, those of a trained model; ``say`` receives
    lines about which of these fitted.

    Raises UserError where a component or the degradation cannot be built or does not work, the optimizer is not
    available, or a trained model cannot be loaded or does not fit; these mistakes are reported together.
    """
    problems: list[str] = []
    checks: list[Callable[[], object]] = [
        lambda: build_degradation(experiment.data.degradation),
        lambda: load_teacher(experiment.train.teacher, experiment.model.channels),
    ]
    if experiment.train.optimizer.use == "muon":
        checks.append(require_muon)
    for check in checks:
        try:
            check()
        except UserError as error:
            problems += error.problems
    torch.manual_seed(experiment.train.seed)
    try:
        model = build_model(experiment.model)
        with torch.random.fork_rng(devices=[]):  # the trial's random draws are not part of the run
            try_model(model)
    except UserError as error:
        raise UserError(*problems, *error.problems) from error.__cause__
    lines = []
    if experiment.train.start_from is not None:
        try:
            lines = start_from(model, experiment.train.start_from, discover())
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
    for line in lines:
        say(line)
    return model


def open_data(experiment: Experiment) -> tuple[ImageSet, ImageSet | None]:
    """Training and validation images; the mistakes of both are reported together.

    Raises MissingData if all that is wrong is that images are absent, else UserError.
    """
    data, channels = experiment.data, experiment.model.channels
    wanted: list[tuple[Any, dict[str, Any]]] = [
        (data.images, {"smallest": largest_crop(data), "memory_gb": data.memory_gb})
    ]
    if experiment.validate is not None:
        wanted.append((experiment.validate.images, {"memory_gb": data.memory_gb}))
    opened: list[ImageSet] = []
    problems: list[str] = []
    missing = []
    for source, limits in wanted:
        try:
            opened.append(open_images(source, channels=channels, **limits))
        except UserError as error:
            problems += [line for line in error.problems if line not in problems]
            missing.append(isinstance(error, MissingData))
    if problems:  # a fallback profile replaces data that is absent, not data that is broken
        raise (MissingData if all(missing) else UserError)(*problems)
    return opened[0], opened[1] if len(opened) > 1 else None
