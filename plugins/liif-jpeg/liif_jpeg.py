"""A degradation: bicubic downscaling, then JPEG compression at a random quality."""

import io

import numpy as np
from attrs import frozen
from PIL import Image

from liif_core import Component, bicubic, hookimpl, option


@frozen
class JpegOptions:
    quality: tuple[int, int] = option("Lowest and highest JPEG quality, from 1 to 100.", (30, 95))

    def __attrs_post_init__(self) -> None:
        low, high = self.quality
        if not 1 <= low <= high <= 100:
            raise ValueError(f"quality: expected 1 <= lowest <= highest <= 100, got {list(self.quality)}")


class Jpeg:
    """HR crop (H, W, c) uint8 -> LR patch (h, w, c) uint8, for c = 1 or 3."""

    def __init__(self, options: JpegOptions):
        self.quality = options.quality

    def __call__(self, image: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        low, high = self.quality
        small = bicubic(image, size)
        file = io.BytesIO()
        picture = Image.fromarray(small[..., 0] if small.shape[2] == 1 else small)
        picture.save(file, "JPEG", quality=int(rng.integers(low, high + 1)))
        return np.asarray(Image.open(file)).reshape(small.shape)


@hookimpl
def liif_degradations():
    return Component("jpeg", Jpeg, JpegOptions)
