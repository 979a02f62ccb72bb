"""Training samples: crops at random scales, with query pixels to learn from (section 4 of the LIIF paper).

Every random draw derives from (seed, epoch, sample number), so the samples of an epoch and their order depend neither
on the number of workers nor on where a run was interrupted.
"""

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from liif_core.data.degrade import build_degradation
from liif_core.data.resize import bicubic
from liif_core.errors import UserError
from liif_core.experiment.schema import PairedFoldersSource, TrainingData
from liif_core.model.geometry import cell_of, pixel_centers
from liif_core.sizes import Scale, Size


class Images(Protocol):
    """The images that training and evaluation use; ``liif_core.data.sources.ImageSet`` is one implementation.

    Arrays are uint8, (h, w, channels), with the same number of channels throughout. They may be read-only.
    """

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def sizes(self) -> tuple[Size, ...]: ...  # (h, w) of each

    @property
    def pair_scales(self) -> tuple[int | None, ...]: ...  # paired: HR size / LR size, None if not whole; else empty

    def image(self, i: int) -> np.ndarray: ...

    def low_resolution(self, i: int, scale: Scale) -> np.ndarray | None: ...


def largest_crop(data: TrainingData) -> int:
    """The smallest side, in pixels, of an image that every crop fits in: for ``open_images(smallest=...)``.

    That is the side of the largest HR crop; for paired folders, whose LR images are cropped too, the side of the LR
    patch.
    """
    return data.patch if isinstance(data.images, PairedFoldersSource) else round(data.patch * data.scale[1])


class CropDataset(Dataset[dict[str, Any]]):
    """Training samples: an epoch has ``len(images) * data.repeat`` of them, and sample i is of image i % len(images).

    Indexed with (epoch, i), both from 0. A sample is a dict, where c is the number of channels, p = data.patch and
    N = data.queries:

    - ``image`` (c, p, p) float32 in [0, 1]: the low-resolution patch
    - ``coord`` (N, 2) float32: (y, x) of N pixels of the HR crop, different ones unless it has fewer
    - ``cell`` (1, 2) float32: the size of such a pixel, 2 / side
    - ``target`` (N, c) float32 in [0, 1]: their colors
    - ``index``: i
    - ``unlabelled`` (c, p, p) float32 in [0, 1], where asked for: a patch of the image as it is, of which no larger
      version exists

    Drawn in this order from ``numpy.random.default_rng([seed, epoch, i])``: the scale, uniform in data.scale; the top
    and the left of the crop; three booleans, for the horizontal flip, the vertical flip and the transposition, which
    are drawn but not used where data.augment is off; the N pixels. The HR crop has round(patch * scale) pixels a side.
    The patch is that crop downscaled with Pillow's bicubic filter on uint8, or by ``data.degradation``, which draws
    from ``default_rng([seed, epoch, i, 0, 2])``. Of paired images, the patch is cropped from the LR image, and the HR
    crop is the same area of the HR image, at the pair's own scale; the drawn scale is unused. With data.vary_sizes,
    that area is shrunk by the bicubic filter to round(patch * scale) pixels a side, where the scales of the n images
    are spread evenly over data.scale in their order (the size-varied ground truths of section 4.3 of the LIIF paper).

    Drawn in this order from ``default_rng([seed, epoch, i, 0, 3])``: whether the HR crop is a larger one, shrunk; by
    which factor, uniform from 1 to the smaller of data.pre_shrink and what fits in the image; and, where
    data.channel_shuffle is on, a permutation of the channels, which is applied before the patch is made.
    Drawn from ``default_rng([seed, epoch, i, 0, 4])``: the corner of the unlabelled patch. It is flipped, transposed
    and permuted as the other.

    Images must have at least ``largest_crop(data)`` pixels a side. Raises UserError for pairs without a whole-number
    scale, and for pairs whose HR crops have fewer than N pixels unless data.repeat_queries is on.
    """

    def __init__(self, images: Images, data: TrainingData, seed: int, unlabelled: bool = False):
        problems = []
        for name, scale in zip(images.names, images.pair_scales):
            if scale is None:
                problems.append(f"{name}: the HR image is not a whole number of times as large as its LR image")
            elif data.vary_sizes and data.scale[1] > scale:
                most = f"at most x{scale}, that of its HR image"
                problems.append(f"{name}: data.scale: vary_sizes needs {most}, got x{data.scale[1]:g}")
            elif data.queries > (data.patch * scale) ** 2 and not data.repeat_queries:
                side = data.patch * scale
                most = f"at most {side**2}, as its HR crop has {side}x{side} pixels"
                problems.append(f"{name}: data.queries: expected {most}, got {data.queries}")
        if problems:
            raise UserError(*problems)
        self.images, self.data, self.seed, self.unlabelled = images, data, seed, unlabelled
        self.degrade = build_degradation(data.degradation)

    def __len__(self) -> int:
        return len(self.images.names) * self.data.repeat

    def __getitem__(self, at: tuple[int, int]) -> dict[str, Any]:
        epoch, index = at
        rng = np.random.default_rng([self.seed, epoch, index])

        def stream(number: int) -> np.random.Generator:
            """An independent one: of five numbers the last is not 0, and numpy pads with zeros."""
            return np.random.default_rng([self.seed, epoch, index, 0, number])

        image = self.images.image(i := index % len(self.images.names))
        changes = stream(3)
        shrunk, share = changes.random(2)
        share = share if shrunk < 0.5 else 0.0
        channels = changes.permutation(image.shape[2]) if self.data.channel_shuffle else slice(None)
        if self.images.pair_scales:
            low, high = (part[..., channels] for part in self._paired(i, image, rng))
        else:
            high = self._made(image, share, rng)[..., channels]
            low = self.degrade(high, (self.data.patch, self.data.patch), stream(2))
        flips = rng.random(3) < 0.5
        side = high.shape[0]
        pixels = _drawn(side * side, self.data.queries, rng)
        patches = {"image": low}
        if self.unlabelled:
            patches["unlabelled"] = _crop(image, self.data.patch, stream(4))[..., channels]
        if self.data.augment:
            patches = {name: _augmented(patch, flips) for name, patch in patches.items()}
            high = _augmented(high, flips)
        rows, columns = np.divmod(pixels, side)
        centers = pixel_centers(side).numpy()
        return {
            **{name: _as_tensor(patch) for name, patch in patches.items()},
            "coord": torch.from_numpy(np.stack([centers[rows], centers[columns]], axis=-1)),
            "cell": cell_of((side, side)).reshape(1, 2),
            "target": torch.from_numpy(high[rows, columns]).float() / 255,
            "index": index,
        }

    def _made(self, image: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
        """An HR crop. ``share``: how far it is shrunk, from 0, not at all, to 1, as far as possible."""
        side = round(self.data.patch * rng.uniform(*self.data.scale))
        largest = max(1.0, min(self.data.pre_shrink, min(image.shape[:2]) / side))
        wide = int(side * (1 + share * (largest - 1)))
        crop = _crop(image, wide, rng)
        return crop if wide == side else bicubic(crop, (side, side))

    def _paired(self, i: int, image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A crop of an LR image, and the same area of its HR image."""
        rng.uniform()  # the scale, which is the pair's own
        patch, whole = self.data.patch, self.images.pair_scales[i]
        assert whole is not None  # __init__ refuses others
        given = self.images.low_resolution(i, Scale.of(whole))
        assert given is not None
        top, left = _corner(given, patch, rng)
        high = image[whole * top : whole * (top + patch), whole * left : whole * (left + patch)]
        if self.data.vary_sizes:
            side = round(patch * float(np.linspace(*self.data.scale, len(self.images.names))[i]))
            high = high if side == len(high) else bicubic(high, (side, side))
        return given[top : top + patch, left : left + patch], high


def _drawn(count: int, queries: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers below ``count``: different ones, or each as often as any other, but for a rest that is drawn."""
    whole = np.tile(np.arange(count), queries // count)
    return np.append(whole, rng.choice(count, queries - len(whole), replace=False))


def _crop(image: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    top, left = _corner(image, side, rng)
    return image[top : top + side, left : left + side]


def _corner(image: np.ndarray, side: int, rng: np.random.Generator) -> tuple[int, int]:
    top, left = rng.integers(0, [image.shape[0] - side + 1, image.shape[1] - side + 1])
    return int(top), int(left)


def _as_tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255


def _augmented(image: np.ndarray, flips: np.ndarray) -> np.ndarray:
    """An image (h, w, channels), flipped horizontally, vertically and transposed where ``flips`` are true."""
    image = image[:, ::-1] if flips[0] else image
    image = image[::-1] if flips[1] else image
    return image.transpose(1, 0, 2) if flips[2] else image
