"""LINF with a flow of the colors of 3 x 3 pixels: a model that answers for whole pixels of a grid.

Patches are those of the grid over the whole image, counted from its upper left pixel: pixel (i, j) is in patch
(i // 3, j // 3). A query tells its pixel by its position and its cell. So each pixel has the color that it has in the
whole picture, whatever part of that is asked for. Where a patch reaches beyond the picture, its coordinates continue;
the published code sets them to 0 there, the middle of the picture.
"""

import math

import torch
from attrs import frozen
from attrs.validators import ge, gt
from torch import Tensor

from liif_core import (
    ContinuousImage,
    ContinuousModel,
    Query,
    Sites,
    Size,
    TilePlacement,
    as_rows,
    blend,
    gather,
    option,
)
from liif_core.nn import on_threads
from liif_paper.edsr import EDSR, EDSROptions
from liif_paper.sampling import NeighbourSampling
from liif_zoo.linf_flow import FlowNetwork, LINFOptions

PATCH = 3  # side of a patch, in pixels
SHRINK = 4  # the image is at most so many times larger than what is rendered
PATCHES_AT_ONCE = 2048  # that are computed in one call on a CPU
DEVICE_PATCHES_AT_ONCE = 1 << 16  # the same on other devices
_NEAR = 0.05  # pixels: how far a point may lie from the center of a pixel
_EARLIER = (
    1e-3  # pixels: positions halfway between two pixels of the grid belong to the later one, in spite of rounding
)


@frozen
class PatchOptions(LINFOptions):
    encoder_blocks: int = option("Residual blocks of the encoder, EDSR.", 16, check=ge(1), quick=2)
    encoder_channels: int = option("Channels of the encoder's layers.", 64, check=ge(1), quick=16)
    encoder_residual_scale: float = option(
        "Factor of each block's output in the encoder, before it is added.", 1.0, check=gt(0)
    )


@frozen(eq=False)
class Pixels:
    """Where positions along one axis lie in their patches; on the CPU, all of one shape."""

    center: Tensor  # coordinate of the patch's center, float32
    place: Tensor  # 0, 1 or 2: which pixel of the patch
    off: Tensor  # distance from the center of a pixel of the grid, in pixels

    @classmethod
    def of(cls, position: Tensor, cell: Tensor) -> "Pixels":
        """``cell``: the size of a pixel along this axis, broadcastable to ``position``."""
        position, cell = (values.detach().cpu().double() for values in (position, cell))
        count = 2 / cell
        whole = torch.where((count - count.round()).abs() < 1e-6 * count, count.round(), count)
        pixel = (position + 1) * whole / 2 - 0.5
        index = (pixel + (0.5 + _EARLIER)).floor()
        middle = (index / PATCH).floor() * PATCH + 1
        off = (pixel - index).abs()
        # pixel centers in the order of operations of published code, since sampling depends on their rounding
        exact = (-1 + 1 / whole).float() + (2 / whole).float() * middle.float()
        beside = (position + (middle - index) * cell).float()
        center = torch.where((off < _NEAR) & (whole == whole.round()), exact, beside)
        return cls(center, (index - middle + 1).long(), off)


class PatchImage(ContinuousImage):
    """The features of an image, or of a tile of one, and the maps that the network made of them."""

    num_statistics = 0

    def __init__(self, model: "LINFPatch", signal: Tensor, placement: TilePlacement):
        self.model, self.signal = model, signal
        self.size = placement.size  # of the whole image
        self.corner = placement.top, placement.left
        self.own: Size = (signal.shape[-2], signal.shape[-1])
        self.channels = model.channels
        self.device = signal.device
        self.features = model.encoder(signal)
        self.maps = model.network.maps(self.features)

    def query(self, where: Query | Tensor, cell: Tensor | None = None, statistics: tuple[Tensor, ...] = ()) -> Tensor:
        """As of ``ContinuousImage``, for pixel grids, and for points at the centers of pixels of such a grid.

        Raises ValueError also for other points, and for pixels more than 4 times as large as those of the image.
        """
        query = self.as_query(where, cell, len(self.signal))
        if query.axes is not None:
            return self.render_grid(*query.axes, query.cell.flatten()).permute(0, 2, 3, 1)
        axes = [Pixels.of(query.coord[..., axis], self._checked(query.cell[..., axis], axis)) for axis in (0, 1)]
        if any(bool((axis.off > _NEAR).any()) for axis in axes):
            raise ValueError(
                "coord: 'linf-patch' renders the pixels of a grid, and no points between them: expected positions "
                "-1 + (i + 1/2) cell, for whole numbers i"
            )
        center = torch.stack([axis.center for axis in axes], dim=-1).to(self.device)
        patches = self._patches(Query.points(center, query.cell))
        place = (axes[0].place * PATCH + axes[1].place).to(self.device).unsqueeze(-1).unsqueeze(-1)
        patches = patches.unflatten(-1, (self.channels, PATCH**2))
        colors = patches.gather(-1, place.expand(*patches.shape[:-1], 1)).squeeze(-1)
        (row, down), (column, across) = (self._along(query.coord[..., axis], axis) for axis in (0, 1))
        index = (row.unsqueeze(1) * self.own[1] + column.unsqueeze(0)).flatten(0, 1)
        weight = (down.unsqueeze(1) * across.unsqueeze(0)).flatten(0, 1)
        return (colors + blend(gather(as_rows(self.signal), index), weight)) * 0.5 + 0.5

    def render_grid(
        self,
        rows: Tensor,
        columns: Tensor,
        cell: Tensor,
        chunk_size: int | None = None,
        statistics: tuple[Tensor, ...] = (),
    ) -> Tensor:
        rows, columns = (axis.to(self.device).float() for axis in (rows, columns))
        down, across = (
            _distinct(Pixels.of(axis, self._checked(size, number)), size)
            for number, (axis, size) in enumerate(zip((rows, columns), cell.flatten()))
        )
        colors = self._pixels(down[0], across[0], cell, chunk_size)
        for dim, (_, index) in ((2, down), (3, across)):
            first, count = int(index[0]), len(index)
            if torch.equal(index, torch.arange(first, first + count)):
                colors = colors.narrow(dim, first, count)
            else:
                colors = colors.index_select(dim, index.to(self.device))
        residual = self.signal
        for dim, axis in ((3, columns), (2, rows)):
            index, weight = self._along(axis, dim - 2)
            shape = [-1, *[1] * (3 - dim)]
            residual = sum(residual.index_select(dim, i) * w.view(shape) for i, w in zip(index, weight))
        return (colors + residual) * 0.5 + 0.5

    def held_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in (self.signal, self.features, *self.maps.values()))

    def _pixels(self, rows: Tensor, columns: Tensor, cell: Tensor, chunk_size: int | None) -> Tensor:
        """All pixels of the patches with these centers: (B, channels, 3 * rows, 3 * columns)."""
        on_cpu = self.device.type == "cpu"
        most = PATCHES_AT_ONCE if on_cpu else DEVICE_PATCHES_AT_ONCE
        if torch.is_grad_enabled():
            most = len(rows) * len(columns)
        most = most if chunk_size is None else min(most, max(1, chunk_size // PATCH**2))
        wide = min(len(columns), most)
        high = max(1, most // wide)
        parts = [(y, x) for y in range(0, len(rows), high) for x in range(0, len(columns), wide)]

        def part(first: tuple[int, int]) -> Tensor:
            down, across = (axis[i : i + n].to(self.device) for axis, i, n in zip((rows, columns), first, (high, wide)))
            patches = self._patches(Query.grid(down, across, cell)).unflatten(-1, (self.channels, PATCH, PATCH))
            laid_out: Tensor = patches.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
            return laid_out

        if len(parts) == 1:
            return part(parts[0])
        result = self.signal.new_empty(len(self.signal), self.channels, PATCH * len(rows), PATCH * len(columns))
        for (y, x), colors in zip(parts, (on_threads if on_cpu else map)(part, parts)):
            result[:, :, PATCH * y :, PATCH * x :][:, :, : colors.shape[2], : colors.shape[3]] = colors
        return result

    def _patches(self, query: Query) -> Tensor:
        """(B, *Q, channels * 9) of patches with their centers at a query: for each channel, row by row."""
        sites = self.model.sampling(query, self.size)
        row = (sites.index // self.size[1] - self.corner[0]).clamp(0, self.own[0] - 1)
        column = (sites.index % self.size[1] - self.corner[1]).clamp(0, self.own[1] - 1)
        cell = torch.stack([query.cell[..., axis] * side for axis, side in enumerate(self.size)], dim=-1)
        sites = Sites(row * self.own[1] + column, sites.offset, sites.weight)
        patches: Tensor = self.model.network(self.maps, sites, sites.offset, cell)
        return patches

    def _along(self, position: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """The two pixels of the image around each position along an axis, and their weights: (2, *shape) each."""
        side = self.size[axis]
        pixel = (((position + 1) * side - 1) / 2).clamp(0, side - 1)
        low = pixel.floor()
        index = torch.stack([low, low + 1]).clamp(max=side - 1).long() - self.corner[axis]
        return index.clamp(0, self.own[axis] - 1), torch.stack([1 - (pixel - low), pixel - low])

    def _checked(self, cell: Tensor, axis: int) -> Tensor:
        """The cell along an axis, on the CPU. Raises ValueError where it is no size, or too large."""
        cell = cell.cpu()
        if not bool((cell > 0).all()):
            raise ValueError(f"cell: expected numbers above 0, got {cell.min().item():g}")
        _check_scale(2 / (float(cell.max()) * self.size[axis]))
        return cell


def _check_scale(scale: float) -> None:
    if scale < 1 / SHRINK * (1 - 1e-5):
        raise ValueError(f"scale: 'linf-patch' shrinks an image up to {SHRINK} times, got x{scale:.4g}")


def _distinct(pixels: Pixels, cell: Tensor) -> tuple[Tensor, Tensor]:
    """The centers of the patches of an axis, each once, and which of their pixels each position is."""
    key = (pixels.center.double() * (100 / cell.double().cpu())).round()  # equal up to rounding
    keys, patch = key.unique(return_inverse=True)
    centers = pixels.center.new_full((len(keys),), math.inf).scatter_reduce(0, patch, pixels.center, "amin")
    return centers, patch * PATCH + pixels.place


class LINFPatch(ContinuousModel):
    """Image (B, channels, h, w) in [0, 1] -> the colors of patches of 3 x 3 pixels, and the bilinear image."""

    multiple_of = 1
    num_statistics = 0

    def __init__(self, options: PatchOptions, channels: int):
        super().__init__()
        self.channels = channels
        encoder = EDSROptions(options.encoder_blocks, options.encoder_channels, options.encoder_residual_scale)
        self.encoder = EDSR(encoder, channels)
        self.sampling = NeighbourSampling((-1, 1))
        self.network = FlowNetwork(
            self.encoder.out_channels,
            options.width,
            options.layers,
            options.flow_layers,
            channels * PATCH**2,
            self.sampling.neighbours,
        )
        # the center of a patch is a pixel away; then the nearest codes, and a convolution
        self.halo = self.encoder.receptive_radius + SHRINK + self.sampling.reach + 2

    def check_scale(self, size: Size, target: Size) -> None:
        for side, wanted in zip(size, target):
            _check_scale(wanted / side)

    def encode(self, image: Tensor, placement: TilePlacement | None = None) -> PatchImage:
        self.check_image(image)
        signal = ((image.float() - 0.5) / 0.5).contiguous(memory_format=torch.channels_last)
        return PatchImage(self, signal, placement or TilePlacement((image.shape[-2], image.shape[-1]), 0, 0))
