"""Evaluation of a model, and of bicubic interpolation beside it, on data sets at several scales."""

import math
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs
import numpy as np
import torch
from attrs import define, field, frozen
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from liif_core.data.crops import Images
from liif_core.data.matlab_resize import matlab_bicubic
from liif_core.data.resize import bicubic
from liif_core.data.sources import ImageSet, MissingData, open_images
from liif_core.distributed import ALONE, Processes
from liif_core.errors import UserError
from liif_core.evaluation import metrics
from liif_core.evaluation.checks import check_set
from liif_core.evaluation.predicting import predict
from liif_core.evaluation.report import Score, comparison_picture
from liif_core.experiment.schema import EvaluationSet
from liif_core.files import replacing
from liif_core.model.continuous import ContinuousModel
from liif_core.model.device import moved
from liif_core.presets import PROTOCOLS, EvalProtocol
from liif_core.sizes import Scale, Size, low_resolution_size, scaled_size


class NotWritten(UserWarning):
    """A picture beside the results could not be written."""


@frozen
class _Measured:
    """One image at one scale."""

    psnr: float
    bicubic_psnr: float
    ssim: float | None
    bicubic_ssim: float | None
    given: bool  # its LR image was; else it was made


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
            check_set(images, spec.name, channels, spec.scales, spec.protocol, spec.ssim, model)
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
    protocol: str,
    *,
    device: torch.device | str,
    precision: str = "float32",
    ssim: bool = False,
    progress: bool = True,
    picture: Path | None = None,
    picture_scale: Scale | None = None,
    before_picture: Callable[[Sequence[Score]], None] | None = None,
    processes: Processes = ALONE,
) -> list[Score]:
    """One dataset: a score for each scale, in their order. ``name`` is what reports and messages call it.

    LR images are those that come with the dataset for a scale, else the protocol's bicubic on uint8 of HR, cropped so
    that sizes match. Predictions are clamped, and rounded if the protocol says so; bicubic's are uint8, as PIL makes
    them. The model is on ``device``,
    and is put in evaluation mode.

    ``picture``: where to write a comparison picture, of the image that bicubic has the lowest PSNR for, at
    ``picture_scale``, one of ``scales``; by default the one nearest to 4. ``before_picture`` is called with the scores
    before it is written. Where that fails, a warning (NotWritten) says so.

    ``processes``: those that call this together. Each measures its share of the images, all return the scores of all
    images, and the first writes the picture.

    Raises UserError, before anything is computed, for images too small for a scale and protocol and for LR images of
    another scale; and later for a model whose output is not finite.
    """
    scales = list(dict.fromkeys(scales))
    picture_scale = picture_scale or _usual_scale(scales)
    check_set(images, name, model.channels, scales, protocol, ssim, model)
    model.eval()
    measuring = _Measuring(model, images, name, torch.device(device), precision, protocol, ssim, picture_scale)
    own = processes.share(len(images.names))
    pause = 0.1 if sys.stderr.isatty() else 30  # a log file wants few lines
    total, shows = len(own) * len(scales), progress and processes.first
    with tqdm(total=total, desc=name, unit="image", disable=not shows, file=sys.stderr, mininterval=pause) as bar:
        parts = processes.together(lambda: [measuring.measure(i, scales, bar.update) for i in own])
    measured = {scale: [image[scale] for part in parts for image in part] for scale in scales}
    scores = [_score(name, protocol, scale, images.names, measured[scale]) for scale in scales]
    if before_picture is not None:
        before_picture(scores)
    if picture is not None and processes.first:
        worst = min(range(len(images.names)), key=lambda i: measured[picture_scale][i].bicubic_psnr)
        try:
            with replacing(picture) as temporary:
                measuring.picture(worst, measured[picture_scale][worst]).save(temporary)
        except OSError as error:
            warnings.warn(f"{picture}: cannot be written: {error.strerror or error}", NotWritten, stacklevel=2)
    return scores


@define
class _Measuring:
    """What is measured, and how; keeps what ``picture`` shows of the image that bicubic has the lowest PSNR for."""

    model: ContinuousModel
    images: Images
    name: str
    device: torch.device
    precision: str
    protocol: str
    ssim: bool
    picture_scale: Scale
    _lowest: float = field(default=math.inf, init=False)
    _kept: tuple[int, list[Tensor]] | None = field(default=None, init=False)

    def measure(self, i: int, scales: Sequence[Scale], then: Callable[[], object]) -> dict[Scale, _Measured]:
        """Image i at each scale; calls ``then`` after each."""
        found = {}
        for scale, low, target, given in _pairs(self.images, i, scales, PROTOCOLS[self.protocol]):
            views = self._views(i, scale, low, target)
            found[scale] = _measure(views[2], views[1], views[3], self.protocol, scale, self.ssim, given)
            if scale == self.picture_scale and found[scale].bicubic_psnr < self._lowest:
                self._lowest, self._kept = found[scale].bicubic_psnr, (i, views)
            then()
        return found

    def picture(self, i: int, measured: _Measured) -> Image.Image:
        """Image i at ``picture_scale``."""
        if self._kept is None or self._kept[0] != i:  # another process measured it
            ((scale, low, target, _),) = _pairs(self.images, i, [self.picture_scale], PROTOCOLS[self.protocol])
            self._kept = i, self._views(i, scale, low, target)
        low_view, baseline, prediction, target_view = self._kept[1]
        decibels = measured.bicubic_psnr, measured.psnr
        return comparison_picture(low_view, baseline, prediction, target_view, decibels=decibels)

    def _views(self, i: int, scale: Scale, low: np.ndarray, target: np.ndarray) -> list[Tensor]:
        """LR, bicubic's image, the model's and HR."""
        size: Size = (target.shape[0], target.shape[1])
        low_view, baseline, target_view = (_as_tensor(image) for image in (low, bicubic(low, size), target))
        where = f"{self.name}: {self.images.names[i]} at {scale}"
        prediction = predict(
            self.model, moved(low_view, self.device), size, self.precision, PROTOCOLS[self.protocol], where
        )
        return [low_view, baseline, prediction, target_view]


def _pairs(
    images: Images, i: int, scales: Sequence[Scale], protocol: EvalProtocol
) -> Iterator[tuple[Scale, np.ndarray, np.ndarray, bool]]:
    """(scale, LR, the part of HR that it shows, whether LR was given) for one image at each scale."""
    image = images.image(i)
    resized = {"pillow": bicubic, "matlab": matlab_bicubic}[protocol.low]
    for scale in scales:
        low = images.low_resolution(i, scale)
        size = low_resolution_size(image.shape[:2], scale) if low is None else low.shape[:2]
        height, width = scaled_size(size, scale)
        target = image[:height, :width]
        yield scale, resized(target, size) if low is None else low, target, low is not None


def _measure(
    prediction: Tensor, baseline: Tensor, target: Tensor, protocol: str, scale: Scale, ssim: bool, given: bool
) -> _Measured:
    return _Measured(
        psnr=metrics.psnr(prediction, target, protocol, scale),
        bicubic_psnr=metrics.psnr(baseline, target, protocol, scale),
        ssim=metrics.ssim(prediction, target, protocol, scale) if ssim else None,
        bicubic_ssim=metrics.ssim(baseline, target, protocol, scale) if ssim else None,
        given=given,
    )


def _score(name: str, protocol: str, scale: Scale, names: Sequence[str], measured: Sequence[_Measured]) -> Score:
    def mean(field: str) -> float:
        values = [float(getattr(result, field)) for result in measured]
        return sum(values) / len(values)

    has_ssim = all(result.ssim is not None for result in measured)

    return Score(
        dataset=name,
        protocol=protocol,
        scale=scale,
        psnr=mean("psnr"),
        images={image: result.psnr for image, result in zip(names, measured)},
        bicubic_psnr=mean("bicubic_psnr"),
        bicubic_images={image: result.bicubic_psnr for image, result in zip(names, measured)},
        ssim=mean("ssim") if has_ssim else None,
        bicubic_ssim=mean("bicubic_ssim") if has_ssim else None,
        given_low=sum(result.given for result in measured),
    )


def _as_tensor(image: np.ndarray) -> Tensor:
    """(h, w, c) uint8 -> (1, c, h, w) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).unsqueeze(0).float() / 255


def _usual_scale(scales: Sequence[Scale]) -> Scale:
    """The scale nearest to 4."""
    return min(scales, key=lambda scale: abs(math.log(scale.y * scale.x / 16)))


def _file_stem(name: str) -> str:
    """A file name for any dataset name; the same for names that differ in punctuation only."""
    return re.sub(r"\W+", "-", name).strip("-") or "set"
