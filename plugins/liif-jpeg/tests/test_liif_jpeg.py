"""The contract, and the effect of the quality."""

import numpy as np
import pytest
from liif_jpeg import Jpeg, JpegOptions, liif_degradations

from liif_core import bicubic
from liif_core.testing import DegradationContract


class TestContract(DegradationContract):
    component = liif_degradations()


@pytest.fixture
def picture():
    random = np.random.default_rng(0)
    return np.kron(random.integers(0, 256, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)


def error(picture, low, high, seed=0):
    small = Jpeg(JpegOptions((low, high)))(picture, (32, 32), np.random.default_rng(seed))
    return np.abs(small.astype(float) - bicubic(picture, (32, 32))).mean()


def test_lower_quality_is_further_from_bicubic(picture):
    errors = [error(picture, quality, quality) for quality in (5, 30, 60, 100)]
    assert errors == sorted(errors, reverse=True) and errors[0] > 2 * errors[-1] > 0


def test_the_quality_is_drawn_from_the_generator(picture):
    assert error(picture, 5, 100, seed=1) == error(picture, 5, 100, seed=1)
    assert len({error(picture, 5, 100, seed) for seed in range(8)}) > 4


def test_gray(picture):
    small = Jpeg(JpegOptions())(picture[..., :1], (20, 24), np.random.default_rng(0))
    assert small.shape == (20, 24, 1) and small.dtype == np.uint8


@pytest.mark.parametrize("quality", [(0, 10), (50, 40), (50, 101)])
def test_a_quality_that_is_none(quality):
    with pytest.raises(ValueError, match="quality: expected 1 <= lowest"):
        JpegOptions(quality)
