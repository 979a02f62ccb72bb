"""Training samples: crops of random scale, and pixels asked of them (section 4 of the LIIF paper).

Every random draw derives from (seed, epoch, sample number), so what an epoch holds, and in which order, depends neither
on the number of workers nor on where a run was interrupted.
"""

import multiprocessing
import signal
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from liif_core.data.degrade import build_degradation
from liif_core.errors import UserError
from liif_core.experiment.schema import PairedFoldersSource, TrainingData
from liif_core.model.geometry import cell_of, pixel_centers
from liif_core.sizes import Scale, Size


class Images(Protocol):
    """What training and evaluation need of images: ``liif_core.data.sources.ImageSet`` has it, and so may any object.

    Arrays are uint8, (h, w, channels), with the same number of channels throughout.
    """

    names: tuple[str, ...]
    sizes: tuple[Size, ...]  # (h, w) of each
    pair_scales: tuple[int | None, ...]  # empty, or each image's whole-number scale to its own LR image

    def image(self, i: int) -> np.ndarray: ...

    def low_resolution(self, i: int, scale: Scale) -> np.ndarray | None: ...


def largest_crop(data: TrainingData) -> int:
    """The least side of an image that every crop fits in, in pixels: for ``open_images(smallest=...)``.

    That is the side of the largest HR crop; for paired folders, where LR images are cropped too, the LR patch.
    """
    return data.patch if isinstance(data.images, PairedFoldersSource) else round(data.patch * data.scale[1])


class CropDataset(Dataset):
    """Samples of ``images``: an epoch has ``len(images) * data.repeat``; sample i is of image i % len(images).

    Indexed with (epoch, i), both from 0. A sample is a dict; c channels, p = data.patch, N = data.queries:

    - ``image`` (c, p, p) float32 in [0, 1]: the low-resolution patch
    - ``coord`` (N, 2) float32: (y, x) of N different pixels of the HR crop
    - ``cell`` (1, 2) float32: the size of such a pixel, 2 / side
    - ``target`` (N, c) float32 in [0, 1]: their colors
    - ``index``: i

    Drawn in this order from ``numpy.random.default_rng([seed, epoch, i])``: the scale, uniform in data.scale; the top
    and the left of the crop; three coins, for the horizontal flip, the vertical flip and the transposition, which are
    tossed but not used where data.augment is off; the N pixels. The HR crop has round(patch * scale) pixels a side,
    and the patch is that crop made smaller with Pillow's bicubic filter on uint8, or by ``data.degradation``, which
    draws from ``default_rng([seed, epoch, i, 0, 2])``. Of paired images, the patch is cropped from the LR image, and the
    HR crop is what belongs to it, at the pair's own scale; the drawn one is unused.

    Images must be at least ``largest_crop(data)`` a side. Raises UserError for pairs without a whole-number scale, or
    whose HR crops have fewer than N pixels.
    """

    def __init__(self, images: Images, data: TrainingData, seed: int):
        problems = []
        for name, scale in zip(images.names, images.pair_scales):
            if scale is None:
                problems.append(f"{name}: the HR image is not a whole number of times as large as its LR image")
            elif data.queries > (data.patch * scale) ** 2:
                size = f"{data.patch * scale}x{data.patch * scale}"
                problems.append(f"{name}: data.queries: {data.queries} are more than the pixels of its HR crop, {size}")
        if problems:
            raise UserError(*problems)
        self.images, self.data, self.seed = images, data, seed
        self.degrade = build_degradation(data.degradation)

    def __len__(self) -> int:
        return len(self.images.names) * self.data.repeat

    def __getitem__(self, at: tuple[int, int]) -> dict[str, Any]:
        epoch, index = at
        rng = np.random.default_rng([self.seed, epoch, index])
        # Five numbers, the last not 0, make a stream of its own: numpy pads with zeros.
        own = np.random.default_rng([self.seed, epoch, index, 0, 2])
        low, high = self._crops(index % len(self.images.names), rng, own)
        flips = rng.random(3) < 0.5
        side = high.shape[0]
        pixels = rng.choice(side * side, self.data.queries, replace=False)
        if self.data.augment:
            low, high = _augmented(low, flips), _augmented(high, flips)
        rows, columns = np.divmod(pixels, side)
        centers = pixel_centers(side).numpy()
        return {
            "image": torch.from_numpy(np.ascontiguousarray(low.transpose(2, 0, 1))).float() / 255,
            "coord": torch.from_numpy(np.stack([centers[rows], centers[columns]], axis=-1)),
            "cell": cell_of((side, side)).reshape(1, 2),
            "target": torch.from_numpy(high[rows, columns]).float() / 255,
            "index": index,
        }

    def _crops(self, i: int, rng: np.random.Generator, own: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The LR patch and the HR crop, uint8; the degradation draws from its ``own`` generator."""
        patch, scale = self.data.patch, rng.uniform(*self.data.scale)
        image = self.images.image(i)
        if not self.images.pair_scales:
            side = round(patch * scale)
            top, left = _corner(image, side, rng)
            crop = image[top : top + side, left : left + side]
            return self.degrade(crop, (patch, patch), own), crop
        whole = self.images.pair_scales[i]
        given = self.images.low_resolution(i, Scale.of(whole))
        top, left = _corner(given, patch, rng)
        low = given[top : top + patch, left : left + patch]
        return low, image[whole * top : whole * (top + patch), whole * left : whole * (left + patch)]


def _corner(image: np.ndarray, side: int, rng: np.random.Generator) -> tuple[int, int]:
    top, left = rng.integers(0, [image.shape[0] - side + 1, image.shape[1] - side + 1])
    return int(top), int(left)


def _augmented(image: np.ndarray, flips: np.ndarray) -> np.ndarray:
    """(h, w, channels) mirrored left to right, then upside down, then transposed, as the three ``flips`` say."""
    image = image[:, ::-1] if flips[0] else image
    image = image[::-1] if flips[1] else image
    return image.transpose(1, 0, 2) if flips[2] else image


def batches_per_epoch(dataset: CropDataset, batch: int) -> int:
    """How many batches an epoch has; the last may be smaller."""
    return -(-len(dataset) // batch)


def batches(
    dataset: CropDataset,
    batch: int,
    epoch: int,
    first: int = 0,
    workers: int = 0,
    device: torch.device | None = None,
) -> Iterator[dict[str, torch.Tensor]]:
    """An epoch's batches, from number ``first`` on, on ``device``: what a sample has, stacked, ``index`` (B,) int64.

    The order is a permutation that (seed, epoch) determine; what comes before ``first`` is not loaded. ``workers``
    processes load ahead; 0 loads here. Closing the iterator ends them.
    """
    # Four numbers, the last not 0, make a stream that no sample's three give: numpy pads with zeros.
    order = np.random.default_rng([dataset.seed, epoch, 0, 1]).permutation(len(dataset)).tolist()
    parts = _Parts(dataset, epoch, [order[at : at + batch] for at in range(first * batch, len(order), batch)])
    cuda = device is not None and device.type == "cuda"
    if workers == 0 or len(parts) == 0:
        loaded = (parts[k] for k in range(len(parts)))
    else:
        loader = DataLoader(
            parts,
            batch_size=None,  # a part is a batch already
            num_workers=min(workers, len(parts)),
            multiprocessing_context="fork" if "fork" in multiprocessing.get_all_start_methods() else None,
            worker_init_fn=_start_worker,
            generator=torch.Generator(),  # its own: a DataLoader draws from it, and the run's must not move
            pin_memory=cuda,
        )
        loaded = iter(loader)
    try:
        for samples in loaded:
            if isinstance(samples, UserError):
                raise samples
            yield samples if device is None else {k: v.to(device, non_blocking=cuda) for k, v in samples.items()}
    finally:
        del loaded  # its workers end with it


class _Parts(Dataset):
    """A data set whose items are batches."""

    def __init__(self, dataset: CropDataset, epoch: int, parts: list[list[int]]):
        self.dataset, self.epoch, self.parts = dataset, epoch, parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, k: int) -> dict[str, torch.Tensor] | UserError:
        try:
            return default_collate([self.dataset[self.epoch, index] for index in self.parts[k]])
        except UserError as error:  # raised in a worker, its message would get the worker's traceback added
            return error


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)  # there are as many workers as the user wants busy cores
    # Ctrl-C goes to every process of a terminal; the main one decides, and needs its batches until it stops.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
