"""The cascade of CLIT: stages that read the features at the image's size, at 4 times, at 16 times that size, and so on.

Each stage is asked at the final positions, and adds its colors to 0.75 times those of the stage before. The number of
stages and the sizes of their grids follow from the size of the result. The published code divides a whole number, the
scale, into 4, 4, ... and a rest, and a stage's grid is the image times the parts before its own. The rule here is the
same for whole numbers, and also holds for fractions and for each axis by itself: stage j has a grid of 4^j times the
image, but along an axis not more codes than the result has pixels, and not fewer than the image has. The last stage is
the first from whose grid the result is at most 4 times larger along both axes.
"""

from typing import Any

import torch
from attrs import frozen
from attrs.validators import ge, gt
from torch import Tensor, nn

from liif_core import (
    ContinuousImage,
    ContinuousModel,
    Maps,
    Query,
    Size,
    TilePlacement,
    as_rows,
    blend,
    gather,
    make_coord,
    option,
)
from liif_paper.edsr import EDSR, EDSROptions
from liif_zoo.clit_attention import CLITOptions, PositionBias, Stage
from liif_zoo.clit_window import window_axis, window_sites

SCALE = 4  # of the result, seen from the grid of the last stage: at most
KEPT = 0.75  # of the colors of the stage before
CODES_AT_ONCE = 128  # side of the part of a stage's grid that is prepared at once, where a pixel grid is rendered
DEVICE_CODES_AT_ONCE = 512  # the same on other devices than a CPU


@frozen
class CascadeOptions(CLITOptions):
    stages: int = option("Number of stages; the largest scale is 4 to this power.", 2, check=ge(2))
    encoder_blocks: int = option("Residual blocks of the encoder, EDSR.", 16, check=ge(1), quick=2)
    encoder_channels: int = option("Channels of the encoder's layers.", 64, check=ge(1), quick=16)
    encoder_residual_scale: float = option(
        "Factor of each block's output in the encoder, before it is added.", 1.0, check=gt(0)
    )
    radius: int = option(
        "Codes on each side of the nearest one that a query attends to, along each axis.", 3, check=ge(1)
    )
    cell: bool = option("Tell each stage's network the size of the queried pixel.", True)


def stage_grids(size: Size, target: Size, most: int) -> list[Size]:
    """The grid of each stage for an image of ``size`` at ``target``. Raises ValueError for more than ``most``."""
    grids, factor = [size], SCALE
    while any(side * factor < wanted for side, wanted in zip(size, target)):
        grids.append((_grid_side(size[0], target[0], factor), _grid_side(size[1], target[1], factor)))
        factor *= SCALE
        if len(grids) > most:
            largest = max(wanted / side for side, wanted in zip(size, target))
            raise ValueError(f"scale: a cascade of {most} stages renders up to x{SCALE**most}, got x{largest:.6g}")
    return grids


def _grid_side(side: int, wanted: int, factor: int) -> int:
    return max(side, min(side * factor, wanted))


Box = tuple[slice, slice]  # rows and columns of a stage's grid


class CascadeImage(ContinuousImage):
    """The features of an image, or of a tile of one, and the maps that the stages made of them last."""

    num_statistics = 0

    def __init__(self, model: "CLITCascade", signal: Tensor, codes: Tensor, placement: TilePlacement):
        self.model, self.signal, self.codes = model, signal, codes
        self.size = placement.size  # of the whole image
        self.corner = placement.top, placement.left
        self.own: Size = (signal.shape[-2], signal.shape[-1])
        self.channels = model.channels
        self.device = signal.device
        self._kept: dict[int, tuple[Size, Box, Maps]] = {}  # by the number of the stage

    def query(self, where: Query | Tensor, cell: Tensor | None = None, statistics: tuple[Tensor, ...] = ()) -> Tensor:
        """As of ``ContinuousImage``. All queries of an image have the same cell, of which its stages' grids follow.

        Raises ValueError also for an image with several cells, and for a scale beyond the last stage.
        """
        query = self.as_query(where, cell, len(self.codes))
        grids = [self._grids(target) for target in _targets(query)]
        if all(other == grids[0] for other in grids):
            return self._colors(query, grids[0], None)
        places = query.coord
        each = [
            self._colors(Query.points(places[min(i, len(places) - 1)][None], query.cell[i, None]), own, i)
            for i, own in enumerate(grids)
        ]
        return torch.cat(each)

    def render_grid(
        self,
        rows: Tensor,
        columns: Tensor,
        cell: Tensor,
        chunk_size: int | None = None,
        statistics: tuple[Tensor, ...] = (),
    ) -> Tensor:
        grids = self._grids(_target(*cell.tolist()))
        if len(grids) == 1:
            return super().render_grid(rows, columns, cell, chunk_size)
        side = CODES_AT_ONCE if self.device.type == "cpu" else DEVICE_CODES_AT_ONCE
        bands = []
        for down in _parts(rows, grids[-1][0], side):
            blocks = []
            for across in _parts(columns, grids[-1][1], side):
                for number, grid in list(enumerate(grids))[1:]:  # for all queries of the block
                    self._maps(number, grid, self._box((down, across), grid), None)
                blocks.append(super().render_grid(down, across, cell, chunk_size))
            bands.append(torch.cat(blocks, dim=3))
        return torch.cat(bands, dim=2)

    def held_bytes(self) -> int:
        prepared = [tensor for _, _, maps in self._kept.values() for tensor in maps.values()]
        return sum(tensor.nbytes for tensor in (self.signal, self.codes, *prepared))

    def _grids(self, target: Size) -> list[Size]:
        return stage_grids(self.size, target, len(self.model.stages))

    def _colors(self, query: Query, grids: list[Size], image: int | None) -> Tensor:
        """Colors (B, *Q, channels) of all images, or of one."""
        total: Tensor | None = None
        for number, grid in enumerate(grids):
            box = self._box(query.places, grid)
            maps, corner, part = self._maps(number, grid, box, image)
            axes = [window_axis(place, side, self.model.radius) for place, side in zip(query.places, grid)]
            sites = window_sites(axes[0], axes[1], grid, corner, part)
            cell = None
            if self.model.cell:  # by axis: the sizes in a tensor would have to be copied to the device
                cell = torch.stack([query.cell[..., axis] * side for axis, side in enumerate(grid)], dim=-1)
            colors = self.model.stages[number](maps, sites, cell, self.model.position)
            total = colors if total is None else colors + KEPT * total
        assert total is not None
        return (total.float() + self._residual(query, image)) * 0.5 + 0.5

    def _residual(self, query: Query, image: int | None) -> Tensor:
        """The bilinear LR image; positions outside it are moved to its border."""
        (row, down), (column, across) = (
            _around(_pixels(place, side).clamp(0, side - 1) - first, own)
            for place, side, first, own in zip(query.places, self.size, self.corner, self.own)
        )
        index = (row.unsqueeze(1) * self.own[1] + column.unsqueeze(0)).flatten(0, 1)
        weight = (down.unsqueeze(1) * across.unsqueeze(0)).flatten(0, 1)
        return blend(gather(as_rows(_of(self.signal, image)), index), weight)

    def _box(self, places: tuple[Tensor, Tensor], grid: Size) -> Box:
        """The codes of a stage's grid that queries read."""
        box = []
        for place, side in zip(places, grid):
            codes, _ = window_axis(torch.stack([place.amin(), place.amax()]), side, self.model.radius)
            box.append(slice(max(0, int(codes.min())), min(side, int(codes.max()) + 1)))
        return box[0], box[1]

    def _maps(self, number: int, grid: Size, box: Box, image: int | None) -> tuple[Maps, Size, Size]:
        """Maps of a stage, and the corner and the size of the part of its grid that they are of."""
        if number == 0:
            box = (
                slice(self.corner[0], self.corner[0] + self.own[0]),
                slice(self.corner[1], self.corner[1] + self.own[1]),
            )
        kept_grid, kept_box, maps = self._kept.get(number, (None, box, {}))
        if kept_grid == grid and all(has.start <= at.start and at.stop <= has.stop for has, at in zip(kept_box, box)):
            box = kept_box
            maps = {name: _of(rows, image) for name, rows in maps.items()}
        elif number == 0 or image is None:
            maps = self._made(number, grid, box, self.codes)
            self._kept[number] = grid, box, maps
            maps = {name: _of(rows, image) for name, rows in maps.items()}
        else:
            maps = self._made(number, grid, box, _of(self.codes, image))
        return maps, (box[0].start, box[1].start), (box[0].stop - box[0].start, box[1].stop - box[1].start)

    def _made(self, number: int, grid: Size, box: Box, codes: Tensor) -> Maps:
        stage = self.model.stages[number]
        if number == 0:
            return stage.maps(codes)
        around = [slice(max(0, part.start - 1), min(side, part.stop + 1)) for part, side in zip(box, grid)]
        for axis, part in enumerate(around):
            centers = make_coord((grid[axis],))[part, 0].to(codes.device)
            codes = _resampled(codes, axis + 2, _pixels(centers, self.size[axis]) - self.corner[axis])
        inner = [slice(own.start - all.start, own.stop - all.start) for own, all in zip(box, around)]
        return stage.maps(codes.contiguous(memory_format=torch.channels_last), *inner)


class CLITCascade(ContinuousModel):
    """Image (B, channels, h, w) in [0, 1] -> EDSR's features, which stages of attention read on ever larger grids.

    The sizes of the grids depend on the cell: all queries of an image have the same. Where a batch has several, images
    are computed one by one. Scales are at most 4 to the power of ``stages``.
    """

    multiple_of = 1
    num_statistics = 0

    def __init__(self, options: CascadeOptions, channels: int):
        super().__init__()
        self.channels = channels
        self.radius, self.cell = options.radius, options.cell
        encoder = EDSROptions(options.encoder_blocks, options.encoder_channels, options.encoder_residual_scale)
        self.encoder = EDSR(encoder, channels)
        # three convolutions or fewer and bilinear resampling; a query between two codes may be nearest to either
        self.halo = self.encoder.receptive_radius + options.radius + 3
        width, heads = options.width, options.heads
        self.entry = nn.Conv2d(options.encoder_channels, width, 3, padding=1)
        self.position = (
            PositionBias(options.position_channels, options.position_scale, heads)
            if options.position_channels
            else None
        )
        self.stages: Any = nn.ModuleList(
            Stage(width, heads, options.hidden, (2 * options.radius + 1) ** 2, options.cell, channels)
            for _ in range(options.stages)
        )

    def check_scale(self, size: Size, target: Size) -> None:
        stage_grids(size, target, len(self.stages))

    def encode(self, image: Tensor, placement: TilePlacement | None = None) -> CascadeImage:
        self.check_image(image)
        signal = ((image.float() - 0.5) / 0.5).contiguous(memory_format=torch.channels_last)
        codes = self.entry(self.encoder(signal))
        return CascadeImage(self, signal, codes, placement or TilePlacement((image.shape[-2], image.shape[-1]), 0, 0))


def _targets(query: Query) -> list[Size]:
    """The size of the whole picture that each image's cell belongs to. Raises ValueError for an image with several."""
    cells = query.cell if query.known_cell is None else query.known_cell
    cells = cells.reshape(len(cells), -1, 2)
    if cells.shape[1] > 1 and bool((cells != cells[:, :1]).any()):
        raise ValueError("cell: the grids of a cascade depend on it; query one cell per call")
    return [_target(*cell) for cell in cells[:, 0].tolist()]


def _target(high: float, wide: float) -> Size:
    if min(high, wide) <= 0:
        raise ValueError(f"cell: expected numbers above 0, got ({high}, {wide})")
    return max(1, round(2 / high)), max(1, round(2 / wide))


def _of(values: Tensor, image: int | None) -> Tensor:
    return values if image is None else values[image, None]


def _parts(axis: Tensor, codes: int, most: int) -> tuple[Tensor, ...]:
    """Positions along an axis in parts that lie within about ``most`` codes each."""
    span = float(axis[-1] - axis[0]) / 2 * codes
    return axis.chunk(max(1, round(span / most)))


def _pixels(place: Tensor, count: int) -> Tensor:
    """Coordinates as fractional numbers of pixels."""
    return ((place + 1) * count - 1) / 2


def _around(position: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The two pixels around each position, and their weights, (2, *shape). One outside has weight 0."""
    low = position.floor()
    index = torch.stack([low, low + 1])
    weight = torch.stack([1 - (position - low), position - low]) * ((index >= 0) & (index < count))
    return index.clamp(0, count - 1).long(), weight


def _resampled(codes: Tensor, dim: int, position: Tensor) -> Tensor:
    """Linear interpolation along one axis of (B, C, h, w); codes outside are zero."""
    with torch.autocast(codes.device.type, enabled=False):
        (low, high), weight = _around(position, codes.shape[dim])
        shape = [-1, *[1] * (3 - dim)]
        parts = (codes.float().index_select(dim, index) * own.view(shape) for index, own in zip((low, high), weight))
        return torch.add(*parts)
