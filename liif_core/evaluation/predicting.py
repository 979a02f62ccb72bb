"""What a model predicts under a protocol: its cells, its orientations, its tiles and its rounding.

Protocols that share an LR image share the work: it is encoded once, and what is rendered alike is rendered once.
"""

import time
from collections.abc import Callable
from typing import TypeVar

import torch
from attrs import frozen
from torch import Tensor

from liif_core.errors import UserError
from liif_core.model.continuous import ContinuousImage, ContinuousModel
from liif_core.model.device import autocast
from liif_core.model.ensemble import ENSEMBLES, ROTATIONS, Orientation, mean
from liif_core.model.geometry import region_axes
from liif_core.presets import EvalProtocol
from liif_core.sizes import Size

_LARGEST_TILED = 4  # the scale up to which a protocol's tiles are used
T = TypeVar("T")


@frozen
class Timed:
    """An image (1, c, H, W) float32, and how long it takes to make it alone, in seconds."""

    image: Tensor
    encode: float
    decode: float

    @property
    def seconds(self) -> tuple[float, float]:
        """Of encoding and of decoding."""
        return self.encode, self.decode

    def then(self, change: Callable[[Tensor], Tensor]) -> "Timed":
        """The same times, and the image changed."""
        return Timed(change(self.image), self.encode, self.decode)


def predict(
    model: ContinuousModel, low: Tensor, size: Size, precision: str, protocol: EvalProtocol, where: str
) -> Tensor:
    """An LR image (1, c, h, w) in [0, 1], rendered at ``size``: (1, c, H, W) float32 in [0, 1], on the CPU.

    Raises UserError, which begins with ``where``, for a model whose output is not finite.
    """
    return Predictions(model, low, precision).predict(size, protocol, where).image


class Predictions:
    """What a model predicts for one LR image (1, c, h, w) in [0, 1], on the model's device, under several protocols.

    Keeps what it encoded and rendered for the next protocol.
    """

    def __init__(self, model: ContinuousModel, low: Tensor, precision: str):
        self.model, self.low, self.precision = model, low, precision
        self._upright: tuple[ContinuousImage, float] | None = None
        self._rendered: dict[object, Timed] = {}

    def predict(self, size: Size, protocol: EvalProtocol, where: str) -> Timed:
        """The image at ``size``, in [0, 1], on the CPU. Raises UserError as ``predict`` does."""
        with torch.inference_mode(), autocast(self.low.device, self.precision):
            found = self._predicted(size, protocol).then(lambda image: image.clamp(0, 1).cpu())
        if not found.image.isfinite().all():
            raise UserError(
                f"{where}: the model's output is not finite in {self.precision}: "
                "its training diverged, or fp16 is too narrow for it (use float32 or bf16)"
            )
        return found.then(lambda image: (image * 255).round() / 255) if protocol.rounded else found

    def _predicted(self, size: Size, protocol: EvalProtocol) -> Timed:
        """Not clamped, on the model's device."""
        height, width = self.low.shape[-2:]
        scale = size[0] // height
        tiled = protocol.tiles is not None and max(height, width) > protocol.tiles[0]
        if not tiled or scale > _LARGEST_TILED or size != (height * scale, width * scale):
            return self._whole(size, protocol)
        key = (size, protocol.max_scale, protocol.ensemble, protocol.tiles)
        return self._kept(key, lambda: self._in_tiles(size, scale, protocol))

    def _in_tiles(self, size: Size, scale: int, protocol: EvalProtocol) -> Timed:
        """The mean of tiles that are rendered as images of their own."""
        assert protocol.tiles is not None
        side, overlap = protocol.tiles
        low, encode, decode = self.low, 0.0, 0.0
        total = low.new_zeros(1, low.shape[1], *size)
        count = low.new_zeros(size)
        starts = [_starts(length, side, side - overlap) for length in low.shape[2:]]
        for top in starts[0]:
            for left in starts[1]:
                tile = low[:, :, top : top + side, left : left + side]
                rows, columns = (
                    slice(start * scale, (start + length) * scale)
                    for start, length in zip((top, left), tile.shape[2:])
                )  # fmt: skip
                part = Predictions(self.model, tile, self.precision)
                made = part._whole((tile.shape[2] * scale, tile.shape[3] * scale), protocol)
                total[:, :, rows, columns] += made.image
                count[rows, columns] += 1
                encode, decode = encode + made.encode, decode + made.decode
        return Timed(total / count, encode, decode)

    def _whole(self, size: Size, protocol: EvalProtocol) -> Timed:
        grid = _Grid.of(size, (self.low.shape[2], self.low.shape[3]), protocol.max_scale)
        if protocol.ensemble == 1:
            return self._kept(grid.key, lambda: self._upright_rendered(grid))
        return self._kept((grid.key, protocol.ensemble), lambda: self._averaged(grid, protocol.ensemble))

    def _averaged(self, grid: "_Grid", ensemble: int) -> Timed:
        times = []

        def image(orientation: Orientation) -> Tensor:
            if orientation == ROTATIONS[0]:
                made = self._kept(grid.key, lambda: self._upright_rendered(grid))
            else:
                made = self._turned(grid, orientation)
            times.append((made.encode, made.decode))
            return made.image

        average = mean(image(orientation) for orientation in ENSEMBLES[ensemble])
        return Timed(average, sum(encode for encode, _ in times), sum(decode for _, decode in times))

    def _upright_rendered(self, grid: "_Grid") -> Timed:
        picture, encode = self._encoded_upright()
        image, decode = self._timed(
            lambda: picture.render(grid.size) if grid.plain else picture.render_grid(*grid.arguments)
        )
        return Timed(image, encode, decode)

    def _turned(self, grid: "_Grid", orientation: Orientation) -> Timed:
        picture, encode = self._timed(lambda: self.model.encode(orientation.image(self.low)))
        image, decode = self._timed(lambda: orientation.render(picture, *grid.arguments))
        return Timed(image, encode, decode)

    def _encoded_upright(self) -> tuple[ContinuousImage, float]:
        if self._upright is None:
            self._upright = self._timed(lambda: self.model.encode(self.low))
        return self._upright

    def _kept(self, key: object, make: Callable[[], Timed]) -> Timed:
        if key not in self._rendered:
            self._rendered[key] = make()
        return self._rendered[key]

    def _timed(self, work: Callable[[], T]) -> tuple[T, float]:
        """What ``work`` returns, and its seconds, with those of a GPU."""
        start = _now(self.low.device)
        done = work()
        return done, _now(self.low.device) - start


@frozen(eq=False)
class _Grid:
    """The pixels of a rendered image, and their cell under a protocol."""

    size: Size
    arguments: tuple[Tensor, Tensor, Tensor]  # rows, columns and cell
    plain: bool  # the cell is that of the size

    @classmethod
    def of(cls, size: Size, low: Size, max_scale: float | None) -> "_Grid":
        rows, columns, natural = region_axes(size, low, None)
        cell = natural if max_scale is None else torch.maximum(natural, 2 / (max_scale * torch.tensor(low)))
        return cls(size, (rows, columns, cell), torch.equal(cell, natural))

    @property
    def key(self) -> tuple[float, ...]:
        """The same for what is rendered alike."""
        return (*self.size, *self.arguments[2].tolist())


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def _starts(length: int, side: int, step: int) -> list[int]:
    """Where tiles begin; the last one ends with the image."""
    return [*range(0, length - side, step), max(0, length - side)]
