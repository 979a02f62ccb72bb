"""Training samples: crops at random scales, with query pixels to learn from (section 4 of the LIIF paper).

Every random draw derives from (seed, epoch, sample number), so the samples of an epoch and their order depend neither
on the number of workers nor on where a run was interrupted.
"""

import multiprocessing
import re
import signal
import threading
from collections.abc import Generator, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from liif_core.data.degrade import build_degradation
from liif_core.data.resize import bicubic
from liif_core.errors import UserError
from liif_core.experiment.schema import PairedFoldersSource, TrainingData
from liif_core.model.device import moved
from liif_core.model.geometry import cell_of, pixel_centers
from liif_core.sizes import Scale, Size

# What torch says where a worker process was killed, or where memory, /dev/shm or the number of open files ran out.
_NO_ROOM = (
    r"(?i)worker.*(killed|exited unexpectedly)|shared memory|/torch_|No space left|allocate memory|Bus error|ancdata"
    r"|Too many open files|unable to (open|write|mmap|resize)"
)


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
    crop is the same area of the HR image, at the pair's own scale; the drawn scale is unused.

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


def batches_per_epoch(dataset: CropDataset, batch: int) -> int:
    """The number of batches of an epoch; the last may be smaller."""
    return -(-len(dataset) // batch)


def batches(
    dataset: CropDataset,
    batch: int,
    epoch: int,
    first: int = 0,
    workers: int = 0,
    device: torch.device | None = None,
) -> Generator[dict[str, torch.Tensor], None, None]:
    """The batches of an epoch, from number ``first`` on, on ``device``: samples stacked, ``index`` (B,) int64.

    The order is a permutation determined by (seed, epoch); batches before ``first`` are not loaded. ``workers``
    processes load ahead; with 0, this process loads. Closing the iterator ends them.
    """
    # Four numbers, the last not 0, give a stream that no sample has: numpy pads with zeros.
    order = np.random.default_rng([dataset.seed, epoch, 0, 1]).permutation(len(dataset)).tolist()
    parts = _Parts(dataset, epoch, [order[at : at + batch] for at in range(first * batch, len(order), batch)])
    cuda = device is not None and device.type == "cuda"
    if workers == 0 or len(parts) == 0:
        loaded: Iterator[dict[str, torch.Tensor] | UserError] = (parts[k] for k in range(len(parts)))
    else:
        loader: DataLoader[Any] = DataLoader(
            parts,
            batch_size=None,  # an item is a batch already
            num_workers=min(workers, len(parts)),
            multiprocessing_context="fork" if "fork" in multiprocessing.get_all_start_methods() else None,
            worker_init_fn=_start_worker,
            generator=torch.Generator(),  # a DataLoader draws from it, which must not affect the run's own
            pin_memory=cuda,
        )
        loaded = _loaded(loader, workers)
    try:
        for samples in loaded:
            if isinstance(samples, UserError):
                raise samples
            yield samples if device is None else {name: _sent(value, device) for name, value in samples.items()}
    finally:
        del loaded  # this ends its workers


def _loaded(loader: "DataLoader[Any]", workers: int) -> Iterator[dict[str, torch.Tensor] | UserError]:
    """What worker processes load. Raises UserError where the system ends one, or has no memory or files for them."""
    try:
        yield from _quietly_iterated(loader)
    except (RuntimeError, OSError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not re.search(_NO_ROOM, str(error)):
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = lines[-1 if lines[0].startswith("Caught ") else 0]  # else it begins with a worker's traceback
        raise UserError(
            f"train.workers = {workers}: loading training data failed: {reason[:200]}; a process that loads data is "
            "ended by the system when memory or /dev/shm runs out: use fewer train.workers (0: none), a smaller "
            "train.batch_size, or give it more memory or a larger /dev/shm (docker run --shm-size), and --resume"
        ) from None


def _quietly_iterated(loader: "DataLoader[Any]") -> Iterator[Any]:
    """An iterator of a loader, which notices by itself, within seconds, that a worker process has ended.

    torch also raises that from a signal handler: anywhere, in the middle of an optimizer step for instance. The handler
    is taken away, so that the weights stay whole.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    try:
        return iter(loader)
    finally:
        if before is not None:  # None: set by another language
            signal.signal(signal.SIGCHLD, before)


class _Parts(Dataset[dict[str, torch.Tensor] | UserError]):
    """A data set whose items are batches."""

    def __init__(self, dataset: CropDataset, epoch: int, parts: list[list[int]]):
        self.dataset, self.epoch, self.parts = dataset, epoch, parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, k: int) -> dict[str, torch.Tensor] | UserError:
        try:
            batch: dict[str, torch.Tensor] = default_collate([self.dataset[self.epoch, i] for i in self.parts[k]])
            return batch
        except UserError as error:  # if it were raised, the worker's traceback would be added to its message
            return error


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)  # one core per worker
    # Ctrl-C goes to every process of a terminal; the main one decides, and uses its batches until it stops.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):  # as does the end of the terminal
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _sent(value: Tensor, device: torch.device) -> Tensor:
    """``value`` on ``device``. What a loader pinned is nobody else's, so that it is copied without waiting."""
    pinned = device.type == "cuda" and value.is_pinned()
    return value.to(device, non_blocking=True) if pinned else moved(value, device)
