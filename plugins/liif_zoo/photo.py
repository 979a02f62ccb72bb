"""A degradation like that of everyday photographs: JPEG compression, noise, slight blur, before or after shrinking."""

import io

import numpy as np
from attrs import frozen
from attrs.validators import and_, ge, le
from PIL import Image

from liif_core import Component, bicubic, hookimpl, option

_PROBABILITY = and_(ge(0), le(1))
_BLOCK = 16  # pixels: a JPEG file of 4:2:0 consists of blocks of this size
_SUBSAMPLING = {"4:4:4": 0, "4:2:0": 2}  # the numbers that Pillow gives them


@frozen
class PhotoOptions:
    clean: float = option("Share of the patches that are only shrunk, by the bicubic filter.", 0.1, check=_PROBABILITY)
    before: float = option(
        "Probability of blur, of noise, and of each compression, to come before shrinking.", 0.3, check=_PROBABILITY
    )
    blur: float = option("Probability of Gaussian blur.", 0.3, check=_PROBABILITY)
    blur_sigma: tuple[float, float] = option(
        "Lowest and highest standard deviation of the blur, in pixels of the patch.", (0.2, 0.8)
    )
    noise: float = option("Probability of noise.", 0.3, check=_PROBABILITY)
    noise_sigma: tuple[float, float] = option(
        "Lowest and highest standard deviation of the noise, in 0..255; of shot noise, where the image is white.",
        (1.0, 10.0),
    )
    shot: float = option(
        "Probability that noise is shot noise, whose variance is proportional to the brightness.",
        0.5, check=_PROBABILITY,
    )  # fmt: skip
    jpeg: float = option("Probability of JPEG compression.", 0.9, check=_PROBABILITY)
    twice: float = option("Probability that a compressed patch is compressed again.", 0.2, check=_PROBABILITY)
    quality: tuple[int, int] = option("Lowest and highest JPEG quality, from 1 to 100.", (30, 95))
    subsampled: float = option("Probability of 4:2:0 chroma; otherwise it is 4:4:4.", 0.7, check=_PROBABILITY)

    def __attrs_post_init__(self) -> None:
        low, high = self.quality
        problems = []
        if not 1 <= low <= high <= 100:
            problems.append(f"quality: expected 1 <= lowest <= highest <= 100, got {low, high}")
        for name, (low, high) in (("blur_sigma", self.blur_sigma), ("noise_sigma", self.noise_sigma)):
            if not 0 <= low <= high:
                problems.append(f"{name}: expected 0 <= lowest <= highest, got {low, high}")
        if problems:
            raise ValueError("; ".join(problems))


class Photo:
    """HR crop (H, W, c) uint8 -> LR patch (h, w, c) uint8: the bicubic filter, blur, noise and JPEG compression.

    Each is drawn on its own, and whether it comes before or after shrinking. Blur precedes noise, and noise
    compression. The blocks of JPEG begin anywhere, as in a crop of a larger picture; half of all second compressions
    have the blocks of the first.
    """

    def __init__(self, options: PhotoOptions):
        self.options = options

    def __call__(self, image: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        if rng.random() < self.options.clean:
            return bicubic(image, size)
        steps = self._steps(rng, image.shape[0] / size[0])
        for step in steps[True]:
            image = step(image, rng)
        image = bicubic(image, size)
        for step in steps[False]:
            image = step(image, rng)
        return image

    def _steps(self, rng: np.random.Generator, scale: float):
        """What is done before shrinking (True) and after it (False), in order."""
        options, steps = self.options, {True: [], False: []}
        if rng.random() < options.blur:
            early, sigma = rng.random() < options.before, rng.uniform(*options.blur_sigma)
            steps[early].append(_Blur(sigma * scale if early else sigma))
        if rng.random() < options.noise:
            early, shot = rng.random(2) < (options.before, options.shot)
            steps[bool(early)].append(_Noise(rng.uniform(*options.noise_sigma), bool(shot)))
        if rng.random() < options.jpeg:
            corner = rng.integers(0, _BLOCK, 2)
            for again in range(1 + (rng.random() < options.twice)):
                if again and rng.random() < 0.5:
                    corner = rng.integers(0, _BLOCK, 2)
                early, subsampled = rng.random(2) < (options.before, options.subsampled)
                quality = int(rng.integers(options.quality[0], options.quality[1] + 1))
                steps[bool(early)].append(_Jpeg(quality, "4:2:0" if subsampled else "4:4:4", tuple(corner)))
        return steps


@frozen
class _Blur:
    """Gaussian blur of an image that continues as its mirror image beyond its border."""

    sigma: float  # pixels

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        reach = int(np.ceil(3 * self.sigma))
        if reach == 0:
            return image
        weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / self.sigma) ** 2)
        weights /= weights.sum()
        blurred = image.astype(np.float64)
        for axis in (0, 1):
            padding = [(reach, reach) if each == axis else (0, 0) for each in range(3)]
            padded = np.pad(blurred, padding, "symmetric")
            length = image.shape[axis]
            shifted = (padded.take(range(i, i + length), axis) for i in range(len(weights)))
            blurred = sum(weight * each for weight, each in zip(weights, shifted))
        return _whole(blurred)


@frozen
class _Noise:
    """Noise, independent in each pixel and channel."""

    sigma: float  # in 0..255
    shot: bool

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        strength = self.sigma * np.sqrt(image / 255) if self.shot else self.sigma
        return _whole(image + strength * rng.standard_normal(image.shape))


@frozen
class _Jpeg:
    """JPEG compression, with ``corner`` more rows and columns before the image's own."""

    quality: int
    subsampling: str
    corner: tuple[int, int]

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        (top, left), (height, width) = self.corner, image.shape[:2]
        padded = np.pad(image, [(top, 0), (left, 0), (0, 0)], "symmetric")
        gray, file = image.shape[2] == 1, io.BytesIO()
        sampling = {} if gray else {"subsampling": _SUBSAMPLING[self.subsampling]}
        Image.fromarray(padded[..., 0] if gray else padded).save(file, "JPEG", quality=self.quality, **sampling)
        decoded = np.asarray(Image.open(file)).reshape(padded.shape)
        return decoded[top : top + height, left : left + width].copy()


def _whole(values: np.ndarray) -> np.ndarray:
    return values.round().clip(0, 255).astype(np.uint8)


@hookimpl
def liif_degradations():
    return Component("photo", Photo, PhotoOptions)
