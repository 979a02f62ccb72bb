"""Several methods under one preset: scores, ranks, differences between neighbors in rank, and images to look at."""

import sys
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
import torch
from attrs import define, frozen
from tqdm import tqdm

from liif_core.data.crops import Images
from liif_core.data.resize import bicubic
from liif_core.evaluation.bootstrap import Difference, paired_difference
from liif_core.evaluation.circumstances import Circumstances, multiply_adds
from liif_core.evaluation.measuring import Measured, likeness, score_of
from liif_core.evaluation.memory import peak_memory
from liif_core.evaluation.methods import Method
from liif_core.evaluation.pairs import Pair, as_tensor, pairs
from liif_core.evaluation.results import Result, result_of
from liif_core.evaluation.similarity import besides, warn
from liif_core.presets import PROTOCOLS
from liif_core.sizes import Scale

PICTURED = 3  # images of each scale that are kept to look at


@frozen
class Row:
    """One method, in the order of rank."""

    result: Result
    lead: Difference | None  # over the next in rank; None for the last, and where it cannot be computed


@frozen(eq=False)
class Pictured:
    """An image that methods differ in: (h, w, c) and (H, W, c), uint8."""

    name: str
    low: np.ndarray
    target: np.ndarray
    predictions: Mapping[str, np.ndarray]  # by the name of the method
    psnr: Mapping[str, float]


@frozen(eq=False)
class Comparison:
    """All methods at one scale."""

    scale: Scale
    rows: Sequence[Row]  # by PSNR, the highest first
    pictured: Sequence[Pictured]  # those whose PSNR differs most between methods, the most different first


def compare_methods(
    methods: Sequence[Method],
    images: Images,
    name: str,
    scales: Sequence[Scale],
    preset: str,
    circumstances: Circumstances,
    device: torch.device,
    *,
    channels: int,
    ssim: bool = False,
    progress: bool = True,
) -> list[Comparison]:
    """Measure ``methods``, whose names differ, on a data set that ``check_set`` accepts; a comparison for each scale.

    All see the same LR images. Raises UserError for a model whose output is not finite.
    """
    comparing = _Comparing(methods, images, name, preset, device, channels, ssim)
    total = len(scales) * len(images.names) * len(methods)
    pause = 0.1 if sys.stderr.isatty() else 30  # a log file wants few lines
    with tqdm(total=total, desc=name, unit="image", disable=not progress, file=sys.stderr, mininterval=pause) as bar:
        return [comparing.at(scale, circumstances, bar) for scale in scales]


@define
class _Comparing:
    methods: Sequence[Method]
    images: Images
    name: str
    preset: str
    device: torch.device
    channels: int
    ssim: bool

    def at(self, scale: Scale, circumstances: Circumstances, bar: Any) -> Comparison:
        measured: dict[str, list[Measured]] = {method.subject.name: [] for method in self.methods}
        extra, reasons = besides(self.preset, scale, self.images.sizes, self.channels, self.ssim, self.name)
        warn(reasons)
        pictured: list[Pictured] = []
        for i in range(len(self.images.names)):
            made, shown = self._image(i, scale, extra, bar)
            for method, one in made.items():
                measured[method].append(one)
            pictured = sorted([*pictured, shown], key=_spread, reverse=True)[:PICTURED]
        largest = self._largest(scale)
        results = [
            self._result(method, scale, measured[method.subject.name], circumstances, largest)
            for method in self.methods
        ]
        return Comparison(scale, ranked(results), pictured)

    def _image(self, i: int, scale: Scale, extra: Set[str], bar: Any) -> tuple[dict[str, Measured], Pictured]:
        where = f"{self.name}: {self.images.names[i]} at {scale}"
        ((pair, _),) = pairs(self.images, i, scale, [self.preset])
        baseline, target = as_tensor(bicubic(pair.low, pair.size)), as_tensor(pair.target)
        theirs = likeness(baseline, target, self.preset, scale, extra)
        measured, predictions = {}, {}
        for method in self.methods:
            called = method.subject.name
            made = method.predict(pair.low, pair.size, PROTOCOLS[self.preset], f"{called} on {where}")
            own = likeness(made.image, target, self.preset, scale, extra)
            measured[called] = Measured(own, theirs, pair.given, made.seconds)
            predictions[called] = (made.image[0] * 255).round().byte().permute(1, 2, 0).numpy()
            bar.update()
        decibels = {called: one.model.psnr for called, one in measured.items()}
        return measured, Pictured(self.images.names[i], pair.low, pair.target, predictions, decibels)

    def _largest(self, scale: Scale) -> Pair:
        """That of the largest image, which the peak memory of each model is measured with."""
        sizes = self.images.sizes
        i = max(range(len(sizes)), key=lambda i: sizes[i][0] * sizes[i][1])
        ((pair, _),) = pairs(self.images, i, scale, [self.preset])
        return pair

    def _peak(self, method: Method, pair: Pair) -> int | None:
        """The peak memory of a model, which renders an image once more."""
        if method.model is None:
            return None
        return peak_memory(self.device, lambda: method.predict(pair.low, pair.size, PROTOCOLS[self.preset], self.name))

    def _result(
        self,
        method: Method,
        scale: Scale,
        measured: Sequence[Measured],
        circumstances: Circumstances,
        largest: Pair,
    ) -> Result:
        score = score_of(self.name, self.preset, scale, self.images.names, measured)
        work = None if method.model is None else multiply_adds(method.model, scale)
        if work is not None:
            work *= PROTOCOLS[self.preset].ensemble
        return result_of(score, method.subject, circumstances, work, self._peak(method, largest))


def ranked(results: Sequence[Result]) -> list[Row]:
    """Results on the same images by PSNR, the highest first, each with its lead over the next."""
    ordered = sorted(results, key=lambda result: -result.psnr)
    return [
        Row(result, None if following is None else _lead(result, following))
        for result, following in zip(ordered, [*ordered[1:], None])
    ]


def _lead(first: Result, second: Result) -> Difference | None:
    names = list(first.images)
    values, others = ([one.images[name]["psnr"] for name in names] for one in (first, second))
    return paired_difference(values, others)


def _spread(pictured: Pictured) -> float:
    found = list(pictured.psnr.values())
    return max(found) - min(found) if max(found) > min(found) else 0.0
