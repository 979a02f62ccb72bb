"""Confidence intervals of means over images, by bootstrap (Efron, Bootstrap methods, Annals of Statistics, 1979).

Images are drawn with replacement, as many as there are, many times; the interval holds the middle part of the means.
With few images it is too narrow: five images have only 126 different draws.
"""

from collections.abc import Sequence

import numpy as np
from attrs import frozen

RESAMPLES = 10_000
LEVEL = 0.95
_SEED = 0
_AT_ONCE = 1_000_000  # numbers that are drawn at once

Interval = tuple[float, float]


@frozen
class Difference:
    """How much higher the mean of one method is than that of another, over the same images."""

    mean: float
    interval: Interval
    images: int

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.interval[0] > 0 or self.interval[1] < 0


def mean_interval(values: Sequence[float], resamples: int = RESAMPLES, level: float = LEVEL) -> Interval | None:
    """The percentile interval of the mean. None for fewer than two values, and where one is not finite.

    The random numbers have a fixed seed: equal values give equal intervals.
    """
    data = np.asarray(values, np.float64)
    if len(data) < 2 or not np.isfinite(data).all():
        return None
    random = np.random.default_rng(_SEED)
    rows = max(1, _AT_ONCE // len(data))
    means = [
        data[random.integers(0, len(data), (min(rows, resamples - first), len(data)))].mean(1)
        for first in range(0, resamples, rows)
    ]
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(means), (tail, 1 - tail))
    return float(low), float(high)


def paired_difference(
    first: Sequence[float], second: Sequence[float], resamples: int = RESAMPLES, level: float = LEVEL
) -> Difference | None:
    """The mean of ``first - second``, image by image, with its two-sided interval; None as of ``mean_interval``.

    Raises ValueError for another number of values.
    """
    if len(first) != len(second):
        raise ValueError(f"expected a value of each for every image, got {len(first)} and {len(second)}")
    if not np.isfinite([*first, *second]).all():
        return None
    differences = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    interval = mean_interval(list(differences), resamples, level)
    return None if interval is None else Difference(float(differences.mean()), interval, len(differences))
