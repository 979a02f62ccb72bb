"""Evaluation of a model, and of bicubic interpolation beside it, on data sets at several scales."""

import math
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path

import attrs
import torch
from attrs import define, field
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from liif_core.data.crops import Images
from liif_core.data.resize import bicubic
from liif_core.data.sources import ImageSet, MissingData, open_images
from liif_core.distributed import ALONE, Processes
from liif_core.errors import UserError
from liif_core.evaluation.checks import check_set
from liif_core.evaluation.measuring import Measured, likeness, score_of
from liif_core.evaluation.pairs import as_tensor, pairs
from liif_core.evaluation.predicting import Predictions
from liif_core.evaluation.report import comparison_picture
from liif_core.evaluation.scores import Score
from liif_core.evaluation.similarity import besides, warn
from liif_core.experiment.schema import EvaluationSet
from liif_core.files import replacing
from liif_core.model.continuous import ContinuousModel
from liif_core.model.device import moved
from liif_core.presets import PROTOCOLS
from liif_core.sizes import Scale


class NotWritten(UserWarning):
    """A picture beside the results could not be written."""


def evaluate_sets(
    model: ContinuousModel,
    opened: Sequence[tuple[EvaluationSet, ImageSet]],
    *,
    device: torch.device | str,
    precision: str = "float32",
    progress: bool = True,
    out_dir: Path | None = None,
    processes: Processes = ALONE,
) -> list[Score]:
    """The scores of a model on all evaluation sets of an experiment, opened by ``open_sets``.

    The model is on ``device``, and is put in evaluation mode. With ``out_dir``, a comparison picture of each set is
    written to ``out_dir/pictures/NAME.png``.
    """
    scores: list[Score] = []
    for spec, images in opened:
        link, shown = f"pictures/{_file_stem(spec.name)}.png", _usual_scale(spec.scales)
        found = evaluate_set(
            model, images, spec.name, spec.scales, spec.protocol, device=device, precision=precision, ssim=spec.ssim,
            progress=progress, picture=out_dir and out_dir / link, picture_scale=shown, processes=processes,
        )  # fmt: skip
        there = out_dir is not None and (out_dir / link).exists()
        scores += [attrs.evolve(score, picture=link) if there and score.scale == shown else score for score in found]
    return scores


def open_sets(
    sets: Sequence[EvaluationSet], channels: int, model: ContinuousModel | None = None
) -> tuple[list[tuple[EvaluationSet, ImageSet]], list[tuple[str, str]]]:
    """The sets whose images are on this machine, opened and checked, and the others as (name, reason).

    Raises UserError with everything that is wrong at once: names that are not unique (reports and pictures go by
    them), files that cannot be read, images that do not fit the set's scales and protocol, SSIM without scikit-image.
    """
    opened, skipped, problems = [], [], []
    stems = [_file_stem(spec.name).casefold() for spec in sets]
    for spec, stem in zip(sets, stems):
        try:
            if stems.count(stem) > 1:
                raise UserError(f"evaluate: {spec.name!r}: each set needs a name of its own, in letters and digits")
            images = open_images(spec.images, channels=channels)
            check_set(images, spec.name, channels, spec.scales, [spec.protocol], spec.ssim, model)
            opened.append((spec, images))
        except MissingData as missing:
            skipped.append((spec.name, "; ".join(missing.problems)))
        except UserError as error:
            problems += [line for line in error.problems if line not in problems]
    if problems:
        raise UserError(*problems)
    return opened, skipped


def evaluate_set(
    model: ContinuousModel,
    images: Images,
    name: str,
    scales: Sequence[Scale],
    protocol: str | Sequence[str],
    *,
    device: torch.device | str,
    precision: str = "float32",
    ssim: bool = False,
    only_psnr: bool = False,
    progress: bool = True,
    picture: Path | None = None,
    picture_scale: Scale | None = None,
    before_picture: Callable[[Sequence[Score]], None] | None = None,
    processes: Processes = ALONE,
) -> list[Score]:
    """One dataset: a score for each scale, in their order. ``name`` is what reports and messages call it.

    ``protocol`` is a name, or several, whose scores follow each other. Those that have the same LR images share what
    is encoded, and what is rendered alike.

    LR images are those that come with the dataset for a scale, else the protocol's bicubic on uint8 of HR, cropped so
    that sizes match. Predictions are clamped, and rounded if the protocol says so; bicubic's are uint8, as PIL makes
    them. The model is on ``device``, and is put in evaluation mode.

    Besides PSNR, SSIM is measured with ``ssim``, and what the protocol measures where it can; with ``only_psnr``,
    neither.

    ``picture``: where to write a comparison picture, of the image that bicubic has the lowest PSNR for under the first
    protocol, at ``picture_scale``, one of ``scales``; by default the one nearest to 4. ``before_picture`` is called
    with the scores before it is written. Where that fails, a warning (NotWritten) says so.

    ``processes``: those that call this together. Each measures its share of the images, all return the scores of all
    images, and the first writes the picture.

    Raises UserError, before anything is computed, for images too small for a scale and protocol and for LR images of
    another scale; and later for a model whose output is not finite. Warns (NotMeasured) of SSIM or LPIPS that a
    protocol measures where it can, and that cannot be.
    """
    scales = list(dict.fromkeys(scales))
    protocols = [protocol] if isinstance(protocol, str) else list(dict.fromkeys(protocol))
    picture_scale = picture_scale or _usual_scale(scales)
    check_set(images, name, model.channels, scales, protocols, ssim, model)
    model.eval()
    extra = {} if only_psnr else _besides(images, name, model.channels, scales, protocols, ssim, processes)
    measuring = _Measuring(model, images, name, torch.device(device), precision, protocols, extra, picture_scale)
    own = processes.share(len(images.names))
    pause = 0.1 if sys.stderr.isatty() else 30  # a log file wants few lines
    total, shows = len(own) * len(scales), progress and processes.first
    with tqdm(total=total, desc=name, unit="image", disable=not shows, file=sys.stderr, mininterval=pause) as bar:
        parts = processes.together(lambda: [measuring.measure(i, scales, bar.update) for i in own])
    measured = {
        (protocol, scale): [image[protocol, scale] for part in parts for image in part]
        for protocol in protocols
        for scale in scales
    }
    scores = [score_of(name, *which, images.names, found) for which, found in measured.items()]
    if before_picture is not None:
        before_picture(scores)
    if picture is not None and processes.first:
        shown = measured[protocols[0], picture_scale]
        worst = min(range(len(images.names)), key=lambda i: shown[i].bicubic.psnr)
        try:
            with replacing(picture) as temporary:
                measuring.picture(worst, shown[worst]).save(temporary)
        except OSError as error:
            warnings.warn(f"{picture}: cannot be written: {error.strerror or error}", NotWritten, stacklevel=2)
    return scores


def _besides(
    images: Images,
    name: str,
    channels: int,
    scales: Sequence[Scale],
    protocols: Sequence[str],
    ssim: bool,
    processes: Processes,
) -> dict[tuple[str, Scale], frozenset[str]]:
    """What all processes can measure besides PSNR; the first warns of what is left out."""
    which = [(protocol, scale) for protocol in protocols for scale in scales]
    parts = processes.together(
        lambda: [besides(protocol, scale, images.sizes, channels, ssim, name) for protocol, scale in which]
    )
    if processes.first:
        warn(reason for part in parts for _, reasons in part for reason in reasons)
    return {key: frozenset.intersection(*(part[i][0] for part in parts)) for i, key in enumerate(which)}


@define
class _Measuring:
    """What is measured, and how; keeps what ``picture`` shows of the image that bicubic has the lowest PSNR for."""

    model: ContinuousModel
    images: Images
    name: str
    device: torch.device
    precision: str
    protocols: Sequence[str]
    besides: Mapping[tuple[str, Scale], Set[str]]  # what is measured besides PSNR
    picture_scale: Scale
    _lowest: float = field(default=math.inf, init=False)
    _kept: tuple[int, list[Tensor]] | None = field(default=None, init=False)

    def measure(self, i: int, scales: Sequence[Scale], then: Callable[[], object]) -> dict[tuple[str, Scale], Measured]:
        """Image i under each protocol and at each scale; calls ``then`` after each scale."""
        found = {}
        for scale in scales:
            for protocol, measured, views in self._at(i, scale, self.protocols):
                found[protocol, scale] = measured
                shown = protocol == self.protocols[0] and scale == self.picture_scale
                if shown and measured.bicubic.psnr < self._lowest:
                    self._lowest, self._kept = measured.bicubic.psnr, (i, views)
            then()
        return found

    def picture(self, i: int, measured: Measured) -> Image.Image:
        """Image i at ``picture_scale``."""
        if self._kept is None or self._kept[0] != i:  # another process measured it
            ((_, _, views),) = self._at(i, self.picture_scale, self.protocols[:1])
            self._kept = i, views
        low_view, baseline, prediction, target_view = self._kept[1]
        decibels = measured.bicubic.psnr, measured.model.psnr
        return comparison_picture(low_view, baseline, prediction, target_view, decibels=decibels)

    def _at(self, i: int, scale: Scale, protocols: Sequence[str]) -> Iterator[tuple[str, Measured, list[Tensor]]]:
        """(protocol, what is measured, [LR, bicubic's image, the model's and HR]) of image i at a scale."""
        where = f"{self.name}: {self.images.names[i]} at {scale}"
        for pair, users in pairs(self.images, i, scale, protocols):
            low, baseline, target = map(as_tensor, (pair.low, bicubic(pair.low, pair.size), pair.target))
            predictions = Predictions(self.model, moved(low, self.device), self.precision)
            for protocol in users:
                made = predictions.predict(pair.size, PROTOCOLS[protocol], where)
                extra = self.besides.get((protocol, scale), frozenset())
                own, theirs = (likeness(image, target, protocol, scale, extra) for image in (made.image, baseline))
                measured = Measured(own, theirs, pair.given, made.seconds)
                yield protocol, measured, [low, baseline, made.image, target]


def _usual_scale(scales: Sequence[Scale]) -> Scale:
    """The scale nearest to 4."""
    return min(scales, key=lambda scale: abs(math.log(scale.y * scale.x / 16)))


def _file_stem(name: str) -> str:
    """A file name for any dataset name; the same for names that differ in punctuation only."""
    return re.sub(r"\W+", "-", name).strip("-") or "set"
