"""A small Gaussian splatting model: a model that is not composed of parts.

A convolutional network turns every pixel of the LR image into one Gaussian. The color at a position is the sum of the
colors of the Gaussians around it, weighted by their densities there, divided by the sum of the weights. Each Gaussian
is widened by the extent of the queried pixel, as in Mip-Splatting (Yu et al., CVPR 2024).
"""

import torch
from attrs import frozen
from attrs.validators import ge
from torch import Tensor, nn

from liif_core import (
    Component,
    ContinuousImage,
    ContinuousModel,
    Query,
    TilePlacement,
    as_rows,
    gather,
    hookimpl,
    option,
)

WINDOW = 2  # Gaussians up to so many pixels from the nearest one, in each direction, are summed
SHIFT = 0.5  # pixels: how far a Gaussian may move from the center of its pixel
EXTENT = 0.45  # pixels: standard deviation of a Gaussian before training


@frozen
class SplatOptions:
    width: int = option("Channels of the network.", 32, check=ge(1))
    layers: int = option("3x3 convolutions of the network.", 4, check=ge(2))


class SplatImage(ContinuousImage):
    """The Gaussians of an image, or of a tile of one."""

    num_statistics = 0

    def __init__(self, gaussians: Tensor, placement: TilePlacement):
        self.size = placement.size  # of the whole image
        self.channels = gaussians.shape[1] - 4
        self.device = gaussians.device
        self.grid = gaussians.shape[-2], gaussians.shape[-1]
        self.corner = placement.top, placement.left
        self.rows = as_rows(gaussians)

    def query(self, where: Query | Tensor, cell: Tensor | None = None, statistics: tuple[Tensor, ...] = ()) -> Tensor:
        if not isinstance(where, Query):
            if cell is None:
                raise ValueError("cell: needed with coordinates: the height and width of the queried pixels")
            where = Query.points(where.to(self.device), cell.to(self.device))
        with torch.autocast(self.device.type, enabled=False):
            return self._colors(where.coord, where.cell)

    def _colors(self, coord: Tensor, cell: Tensor) -> Tensor:
        """Coordinates (B or 1, *Q, 2) and cells, broadcastable -> (B, *Q, channels)."""
        size, grid, corner = (coord.new_tensor(pair) for pair in (self.size, self.grid, self.corner))
        position = ((coord.clamp(-1, 1) + 1) * size - 1) / 2  # in pixels: 0 is the center of the first row and column
        nearest = torch.minimum(position.round().clamp(min=0), size - 1) - corner  # rounded in the whole image's pixels
        position = position - corner
        footprint = (cell * size / 2).clamp(max=2).square() / 12  # variance of a pixel of that size, in pixels
        total, weights = coord.new_zeros(()), coord.new_zeros(())
        for down in range(-WINDOW, WINDOW + 1):
            for across in range(-WINDOW, WINDOW + 1):
                pixel = nearest + coord.new_tensor((down, across))
                inside = ((pixel >= 0) & (pixel < grid)).all(-1, keepdim=True)
                row, column = torch.minimum(pixel.clamp(min=0), grid - 1).long().unbind(-1)
                gaussian = gather(self.rows, (row * self.grid[1] + column).unsqueeze(0))[0]
                shift, extent, color = gaussian[..., :2], gaussian[..., 2:4], gaussian[..., 4:]
                distance = (position - pixel - shift).square() / (extent.square() + footprint)
                weight = torch.exp(-distance.sum(-1, keepdim=True) / 2) * inside
                total, weights = total + weight * color, weights + weight
        return total / weights.clamp(min=1e-12)

    def held_bytes(self) -> int:
        return self.rows.nbytes


class Splat(ContinuousModel):
    """Image (B, channels, h, w) in [0, 1] -> a Gaussian for each pixel."""

    multiple_of = 1  # tiles may begin at any pixel
    num_statistics = 0  # a color depends on its own query only

    def __init__(self, options: SplatOptions, channels: int):
        super().__init__()
        self.channels = channels
        self.halo = options.layers + WINDOW + 1  # a query between two pixels may be nearest to either: one more
        widths = [channels, *[options.width] * (options.layers - 1)]
        self.body = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(widths, widths[1:]))
        self.last = nn.Conv2d(options.width, 4 + channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def encode(self, image: Tensor, placement: TilePlacement | None = None) -> SplatImage:
        self.check_image(image)
        hidden = image.float() * 2 - 1
        for layer in self.body:
            hidden = layer(hidden).relu()
        shift, extent, color = self.last(hidden).float().split((2, 2, self.channels), dim=1)
        gaussians = torch.cat([SHIFT * shift.tanh(), EXTENT * (extent.tanh() / 2).exp(), image + color], dim=1)
        return SplatImage(gaussians, placement or TilePlacement((image.shape[-2], image.shape[-1]), 0, 0))


@hookimpl
def liif_models():
    return Component("splat", Splat, SplatOptions, describe=lambda o: f"Gaussian splatting {o.layers}x{o.width}")
