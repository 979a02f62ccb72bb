"""Bootstrap intervals: against scipy, and against all draws of small sets."""

import itertools
import math

import numpy as np
import pytest

from liif_core.evaluation.bootstrap import mean_interval, paired_difference


def values(count, seed=0):
    return list(np.random.default_rng(seed).normal(30, 3, count))


@pytest.mark.parametrize("count", [5, 14, 100])
@pytest.mark.parametrize("level", [0.95, 0.8])
def test_the_interval_of_the_mean_is_scipys(count, level):
    stats = pytest.importorskip("scipy.stats")
    data = values(count)
    expected = stats.bootstrap(
        (data,), np.mean, n_resamples=50_000, confidence_level=level, method="percentile", rng=np.random.default_rng(7)
    ).confidence_interval
    found = mean_interval(data, 50_000, level)
    spread = np.std(data) / math.sqrt(count)
    assert found == pytest.approx(tuple(expected), abs=0.05 * spread)


def test_the_interval_is_that_of_all_draws():
    """4 ** 4 draws; the quantiles of a discrete distribution are exact where they are inside one of its steps."""
    data = [20.0, 21.0, 25.0, 31.5]
    means = [np.mean(draw) for draw in itertools.product(data, repeat=4)]
    for level in (0.5, 0.9, 0.95):
        expected = np.quantile(means, ((1 - level) / 2, (1 + level) / 2))
        assert mean_interval(data, 200_000, level) == pytest.approx(tuple(expected), abs=0.3)


@pytest.mark.parametrize("count", [6, 30])
def test_the_paired_difference_is_scipys(count):
    stats = pytest.importorskip("scipy.stats")
    first = values(count)
    second = [value - 0.2 + noise / 10 for value, noise in zip(first, values(count, seed=3))]
    expected = stats.bootstrap(
        (first, second), lambda a, b, axis: np.mean(a - b, axis=axis), paired=True, n_resamples=50_000,
        method="percentile", rng=np.random.default_rng(7),
    ).confidence_interval  # fmt: skip
    found = paired_difference(first, second, 50_000)
    assert found.mean == pytest.approx(np.mean(first) - np.mean(second)) and found.images == count
    assert found.interval == pytest.approx(tuple(expected), abs=0.05 * np.std(np.subtract(first, second)))


def test_what_is_significant():
    first = values(20)
    assert paired_difference(first, [value - 0.1 for value in first]).significant  # the same on every image
    assert paired_difference([value - 0.1 for value in first], first).significant
    assert not paired_difference(first, values(20, seed=1)).significant
    assert not paired_difference([1.0, 2.0], [2.0, 1.0]).significant
    assert not paired_difference(first, first).significant


def test_equal_values_give_equal_intervals_at_any_size():
    assert mean_interval(values(8)) == mean_interval(values(8))
    low, high = mean_interval(values(3000), 2000)  # drawn in several parts
    assert low < np.mean(values(3000)) < high
    assert high - low == pytest.approx(2 * 1.96 * np.std(values(3000)) / math.sqrt(3000), rel=0.1)


def test_where_there_is_no_interval():
    assert mean_interval([30.0]) is None and mean_interval([30.0, math.inf]) is None
    assert paired_difference([30.0], [20.0]) is None
    assert paired_difference([30.0, math.inf], [20.0, 20.0]) is None
    assert paired_difference([30.0, math.inf], [20.0, math.inf]) is None
    with pytest.raises(ValueError, match="got 2 and 1"):
        paired_difference([1.0, 2.0], [1.0])
