"""What an experiment needs before its first step: a fresh model, and its images."""

from collections.abc import Callable
from typing import Any

import torch
from attrs import evolve

from liif_core.data.crops import CropDataset, largest_crop
from liif_core.data.degrade import build_degradation
from liif_core.data.sources import BadImages, ImageSet, MissingData, open_images
from liif_core.errors import UserError
from liif_core.evaluation.checks import check_set
from liif_core.evaluation.evaluate import open_sets
from liif_core.experiment.build import build_model, try_model
from liif_core.experiment.schema import Div2kSource, EvaluationSet, Experiment, TrainingData, ValidateSpec
from liif_core.model.continuous import ContinuousModel
from liif_core.registry.discovery import discover
from liif_core.training.muon import require_muon
from liif_core.training.optimization import require_own_loss
from liif_core.training.start import start_from
from liif_core.training.teacher import load_teacher


def fresh_model(experiment: Experiment, say: Callable[[str], object] = str, resumed: bool = False) -> ContinuousModel:
    """The experiment's model before its first step, on the CPU, after a trial on a small image.

    Its weights are those that the seed gives or, with ``train.start_from``, those of a trained model; ``say`` receives
    lines about which of these fitted. With ``resumed``, those of a trained model are not asked for: the state of a run
    has its own.

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
        require_own_loss(model, experiment.train)
    except UserError as error:
        raise UserError(*problems, *error.problems) from error.__cause__
    lines = []
    if experiment.train.start_from is not None and not resumed:
        try:
            lines = start_from(model, experiment.train.start_from, discover())
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
    for line in lines:
        say(line)
    return model


def check_fits(model: ContinuousModel, experiment: Experiment) -> None:
    """Raises TypeError or ValueError where ``model`` cannot be one of ``experiment``, or either is of another kind."""
    if not isinstance(model, ContinuousModel):
        raise TypeError(f"model: expected a liif_core.ContinuousModel, got {type(model).__name__}")
    if not isinstance(experiment, Experiment):
        raise TypeError(f"experiment: expected a liif_core.Experiment, got {type(experiment).__name__}")
    if model.channels != experiment.model.channels:
        raise ValueError(
            f"model: it has {model.channels} channels, and the experiment's model has {experiment.model.channels}"
        )


def open_data(
    experiment: Experiment, check_cache: bool = True, model: ContinuousModel | None = None
) -> tuple[ImageSet, ImageSet | None]:
    """Training and validation images; the mistakes of both are reported together.

    ``check_cache`` says whether pixels in ``data.cache`` are checked for damage.

    Raises MissingData if all that is wrong is that images are absent, else UserError, also for validation images that
    are too small for the scale of ``validate``, and for a scale that ``model`` cannot render.
    """
    data, channels, validate = experiment.data, experiment.model.channels, experiment.validate
    wanted: list[Callable[[], ImageSet]] = [lambda: _training_images(data, channels, check_cache)]
    if validate is not None:
        wanted.append(lambda: _validation_images(validate, channels, data, check_cache, model))
    opened: list[ImageSet] = []
    problems: list[str] = []
    missing = []
    for opens in wanted:
        try:
            opened.append(opens())
        except UserError as error:
            problems += [line for line in error.problems if line not in problems]
            missing.append(isinstance(error, MissingData))
    if problems:  # a fallback profile replaces data that is absent, not data that is broken
        raise (MissingData if all(missing) else UserError)(*problems)
    return opened[0], opened[1] if len(opened) > 1 else None


def _training_images(data: TrainingData, channels: int, check_cache: bool) -> ImageSet:
    try:
        return open_images(
            data.images, channels, data.memory_gb, largest_crop(data), data.skip_bad, data.cache, check_cache
        )
    except BadImages as error:
        advice = "none is left" if data.skip_bad else "data.skip_bad = true leaves such training images out"
        raise UserError(*error.problems, f"data.images: {len(error.problems):,} cannot be used; {advice}") from None


def _validation_images(
    spec: ValidateSpec, channels: int, data: TrainingData, check_cache: bool, model: ContinuousModel | None
) -> ImageSet:
    images = open_images(spec.images, channels, data.memory_gb, cache=data.cache, check_cache=check_cache)
    check_set(images, "validate", channels, [spec.scale], [spec.protocol], ssim=False, model=model)
    return images


def check_data(experiment: Experiment, model: ContinuousModel | None = None) -> list[str]:
    """Check all images of an experiment as a run does; returns lines about those that are not on this machine.

    Nothing is downloaded. Raises UserError with everything that is wrong with those that are.
    """
    here = _without_downloads(experiment)
    lines: list[str] = []
    problems: list[str] = []
    try:
        images, _ = open_data(here, model=model)
        CropDataset(images, here.data, here.train.seed)
        lines += images.notes
    except MissingData as missing:
        lines += [f"not checked: {line}" for line in missing.problems]
    except UserError as error:
        problems += error.problems
    try:
        _, skipped = open_sets(here.evaluate, here.model.channels, model)
        lines += [f"evaluation on {name} would be skipped: {reason}" for name, reason in skipped]
    except UserError as error:
        problems += [line for line in error.problems if line not in problems]
    if problems:
        raise UserError(*problems)
    return lines


def _without_downloads(value: Any) -> Any:
    """The same experiment with sources that download nothing, and no file of decoded images."""
    if isinstance(value, tuple):
        return tuple(_without_downloads(item) for item in value)
    if isinstance(value, Div2kSource):
        return evolve(value, download=False)
    if isinstance(value, TrainingData) and value.cache is not None:
        return _without_downloads(evolve(value, cache=None))
    if isinstance(value, Experiment | TrainingData | ValidateSpec | EvaluationSet):
        fields = ("data", "validate", "evaluate", "images")
        return evolve(
            value, **{name: _without_downloads(getattr(value, name)) for name in fields if hasattr(value, name)}
        )
    return value
