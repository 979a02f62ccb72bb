"""Images in memory, for tests of evaluation."""

import numpy as np
from attrs import field, frozen

QUIET = {"device": "cpu", "progress": False}


@frozen
class Fake:
    """Images in memory: all that ``evaluate_set`` may use of an ImageSet."""

    arrays: tuple
    low: dict = field(factory=dict)  # (i, scale) -> LR
    pair_scales: tuple = ()

    @property
    def names(self):
        return tuple(f"image-{i}" for i in range(len(self.arrays)))

    @property
    def sizes(self):
        return tuple(array.shape[:2] for array in self.arrays)

    def __len__(self):
        return len(self.arrays)

    def image(self, i):
        return self.arrays[i]

    def low_resolution(self, i, scale):
        return self.low.get((i, scale))


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
