"""The checks of a degradation: HR crop -> LR patch."""

import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from liif_core.data.resize import bicubic
from liif_core.sizes import Size
from liif_core.testing.case import Case, Check, Tensors, fail
from liif_core.testing.common import OPTIONS

SIZES: tuple[tuple[Size, Size], ...] = (  # of crops and patches
    ((24, 24), (24, 24)), ((24, 30), (12, 15)), ((37, 29), (16, 13)), ((40, 24), (10, 6)), ((48, 48), (6, 6)),
    ((3, 4), (3, 4)), ((8, 8), (1, 1)),
)  # fmt: skip
SHIFT = 0.1  # LR pixels: the largest shift that noise and rounding explain


class DegradationCase(Case):
    """A degradation of uint8 images (H, W, c), for c = 1 and 3."""

    kind = "degradation"

    def build(self, seed: int = 0) -> Any:
        """The function itself: a degradation is no module."""
        return self.component.build(self.options)

    def inputs(self, batch: int = 2, seed: int = 0) -> Tensors:
        return {}

    def outputs(self, module: Any, inputs: Tensors) -> Tensors:
        return {}


def crop(size: Size, channels: int = 3, seed: int = 0) -> np.ndarray:
    """A random image (H, W, channels), uint8: smooth, with some noise."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (3, 4, channels), dtype=np.uint8)
    rows, columns = (np.arange(side) * count // side for side, count in zip(size, coarse.shape))
    noise = generator.integers(-20, 21, (*size, channels))
    image: np.ndarray = (coarse[rows][:, columns] + noise).clip(0, 255).astype(np.uint8)
    return image


def contract(case: DegradationCase) -> None:
    """``build`` returns a function of an HR crop, a size (h, w) and a random generator."""
    function = case.build()
    if not callable(function):
        fail(f"build returned {type(function).__name__}; expected a function")
    result = _applied(function, crop((20, 20)), (8, 8))
    if not isinstance(result, np.ndarray):
        fail(f"the function returned {type(result).__name__}; expected a numpy array")


def _applied(function: Callable[..., Any], image: np.ndarray, size: Size, seed: int = 0) -> Any:
    return function(image.copy(), size, np.random.default_rng(seed))


def shape(case: DegradationCase) -> None:
    """The patch is uint8 of shape (h, w, c), at every scale from 1, in gray and in color."""
    function = case.build()
    for size, wanted in SIZES:
        for channels in (1, 3):
            result = _applied(function, crop(size, channels), wanted)
            expected = (*wanted, channels)
            if result.dtype != np.uint8 or result.shape != expected:
                words = f"a crop {(*size, channels)} and size {wanted}"
                fail(f"{words}: expected uint8 {expected}, got {result.dtype} {result.shape}")


def deterministic(case: DegradationCase) -> None:
    """The patch depends on the crop, the size and the state of ``rng`` only, not on other random generators."""
    function, image = case.build(), crop((24, 30))
    expected = [_applied(function, image, (12, 15), seed) for seed in range(3)]
    for number in range(3):
        with _seeded(number):
            found = [_applied(function, image, (12, 15), seed) for seed in (2, 1, 0)]
        if not all(np.array_equal(*pair) for pair in zip(found, expected[::-1])):
            fail("two calls with random generators of the same state returned different patches")


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global random generators, and restore them afterwards."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def leaves_input(case: DegradationCase) -> None:
    """The crop is not modified, and the patch does not share its memory: the crop is the target of training."""
    function = case.build()
    for size in ((24, 30), (12, 15)):
        image = crop((24, 30))
        before = image.copy()
        result = function(image, size, np.random.default_rng(0))
        if not np.array_equal(image, before):
            fail(f"a crop of 24 x 30 was modified for size {size}")
        if np.shares_memory(result, image):
            fail(f"the patch of size {size} shares the memory of the crop; return a copy")


def alignment(case: DegradationCase) -> None:
    """The patch covers the same area as the crop: brightness ramps are not shifted, mirrored or transposed.

    The mean over several random draws, and over ramps in both directions, is compared with bicubic downscaling.
    """
    function = case.build()
    for axis, words in ((0, "down"), (1, "to the right")):
        for side, small in ((96, 48), (96, 24)):
            slope = 192 / small
            ramp = np.linspace(32, 224, side).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
            up = np.broadcast_to(ramp, (side, side, 3)).round().astype(np.uint8)
            shifts = []
            for seed in range(8):
                differences = [
                    _middle(_applied(function, image, (small, small), seed)) - _middle(bicubic(image, (small, small)))
                    for image in (up, np.ascontiguousarray(np.flip(up, axis)))
                ]
                shifts.append((differences[1] - differences[0]).mean() / (2 * slope))
                contrast = differences[0] - differences[1]
                profile = contrast.mean(axis=(1 - axis, 2))
                tilt = abs(profile[-1] - profile[0]) / (2 * slope * (len(profile) - 1))
                if tilt > 0.5:
                    fail(f"a brightness ramp that rises {words} does not rise like that in the patch")
            if abs(np.mean(shifts)) > SHIFT:
                fail(f"the patch is shifted by {np.mean(shifts):.2f} LR pixels {words} at scale {side / small:g}")


def _middle(patch: np.ndarray) -> np.ndarray:
    """The patch without its border, as numbers."""
    border = len(patch) // 8
    return patch[border:-border, border:-border].astype(np.float64)


def worker(case: DegradationCase) -> None:
    """The function can be pickled, as worker processes of the data loader require on macOS and Windows."""
    function, image = case.build(), crop((24, 30))
    try:
        copy = pickle.loads(pickle.dumps(function))
    except Exception as error:  # pickle raises errors of many types
        fail(f"cannot be pickled: {error}; return a module-level function or an object of a module-level class")
    patches = []
    for each in (copy, function):
        with _seeded(0):
            patches.append(_applied(each, image, (12, 15)))
    if not np.array_equal(*patches):
        fail("a pickled copy returns another patch")


CHECKS: tuple[Check, ...] = (*OPTIONS, contract, shape, deterministic, leaves_input, alignment, worker)
