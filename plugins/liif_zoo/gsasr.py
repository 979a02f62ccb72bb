"""GSASR (Chen et al., Generalized and Efficient 2D Gaussian Splatting for Arbitrary-Scale Super-Resolution, ICCV 2025).

A network turns every pixel of the LR image, and the scale, into 16 Gaussians; the image is their sum. Gaussians have a
mean, two widths, a correlation and a color with an opacity; there is no background, and the sum is not normalized. The
"enhanced" models, which were released after the paper, have rotary embeddings and more convolutions.
"""

import torch
from attrs import frozen
from attrs.validators import deep_iterable, ge, gt
from torch import Tensor, nn

from liif_core import (
    Component,
    ContinuousImage,
    ContinuousModel,
    Importer,
    Query,
    Size,
    TilePlacement,
    hookimpl,
    option,
)
from liif_core.nn import fused_conv, mirror_padded
from liif_core.shapes import Float
from liif_paper.edsr import ResidualBlock
from liif_zoo.gsasr_import import convert
from liif_zoo.gsasr_network import UP, GaussianNetwork, Read, Shape, Variant
from liif_zoo.gsasr_splatting import Mixture

NARROWER = 1.2  # by which the widths of the network are divided
_ROUNDING = 5e-7  # of a scale that was computed from a cell in float32, relative


@frozen
class GSASROptions:
    """The sizes of published checkpoints follow from their parameters."""

    variant: Variant = option("Variant: 'paper', or 'enhanced' for the models that were released later.", "paper")
    encoder_blocks: int = option("Residual blocks of the encoder, which is EDSR.", 16, check=ge(1), quick=2)
    encoder_width: int = option("Channels of the encoder.", 64, check=ge(1), quick=16)
    width: int = option("Channels of the network that makes the Gaussians.", 192, check=ge(1), quick=16)
    heads: int = option("Heads of each attention; they divide the width.", 6, check=ge(1), quick=2)
    window: int = option("Side of the windows of attention, in pixels of the LR image.", 12, check=ge(2), quick=4)
    hidden: int = option("Width of the perceptrons within layers.", 192, check=ge(1), quick=16)
    cross: tuple[int, ...] = option(
        "Layers of each block in which Gaussians attend to the image.", (2,), check=deep_iterable(ge(1)), quick=(1,)
    )
    attention: tuple[int, ...] = option(
        "Layers of each block in which they attend to each other.", (6,) * 6, check=deep_iterable(ge(1)), quick=(2,)
    )
    dmax: float = option(
        "Where a Gaussian is cut off along each axis, as a part of half the image; training of the published models "
        "used 0.5, and their evaluation 0.1.",
        0.1,
        check=gt(0),
    )


class Encoder(nn.Module):
    """EDSR whose last convolution is not added to its first: so the published models were trained."""

    def __init__(self, options: GSASROptions, in_channels: int):
        super().__init__()
        width = options.encoder_width
        self.head = nn.Conv2d(in_channels, width, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(width, 1.0) for _ in range(options.encoder_blocks)))
        self.tail = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        return fused_conv(self.blocks(self.head(image)), self.tail)


class GSASRImage(ContinuousImage):
    """What ``GSASR.encode`` returns: what the Gaussians are made from, and those of the last scale."""

    num_statistics = 0

    def __init__(self, model: "GSASR", features: Tensor, placement: TilePlacement):
        self.model, self.features, self.placement = model, features, placement
        self.size, self.channels, self.device = placement.size, model.channels, features.device
        self.padded = model.padded(placement.size)  # of the whole image
        self._read: Read = model.network.read(features)
        self._kept: tuple[object, Mixture] | None = None  # the scales, whether for gradients, and the Gaussians

    def query(self, where: Query | Tensor, cell: Tensor | None = None, statistics: tuple[Tensor, ...] = ()) -> Tensor:
        query = self.as_query(where, cell, len(self.features))
        mixture = self._mixture(self._scales(query))
        places = [self._pixels(place, axis) for axis, place in enumerate(query.places)]
        with torch.autocast(self.device.type, enabled=False):
            ascending = query.axes is not None and all((axis.diff() >= 0).all() for axis in query.axes)
            if ascending:
                return mixture.at_grid(places[0].flatten(), places[1].flatten())
            points = torch.stack(torch.broadcast_tensors(*places), dim=-1).flatten(1, -2)
            return mixture.at_points(points.expand(len(self.features), -1, -1)).unflatten(1, query.shape)

    def render_grid(
        self,
        rows: Tensor,
        columns: Tensor,
        cell: Tensor,
        chunk_size: int | None = None,
        statistics: tuple[Tensor, ...] = (),
    ) -> Tensor:
        """As of ``ContinuousImage``; in one call of ``query``, which divides the grid itself."""
        return super().render_grid(rows, columns, cell, chunk_size or max(1, len(rows) * len(columns)), statistics)

    def gaussians(self, scales: list[float]) -> Tensor:
        """(B, y, x, 6 + channels) for a scale for each image, raw: two widths, correlation, opacity, color, shift."""
        inverse = torch.tensor([[1 / scale] for scale in scales], device=self.device)
        height, width = self.features.shape[-2:]
        numbers: Tensor = self.model.network(self._read, inverse, (height, width))
        return numbers

    def held_bytes(self) -> int:
        read = sum(part.nbytes for block in self._read for layer in block for part in layer)
        kept = self._kept[1] if self._kept else None
        return self.features.nbytes + read + (kept.values.nbytes + kept.reach.nbytes if kept else 0)

    def _pixels(self, place: Tensor, axis: int) -> Tensor:
        """A coordinate in LR pixels. Outside of the image that is padded to whole windows, the nearest place inside."""
        return ((place + 1) * (self.size[axis] / 2)).clamp(0, self.padded[axis])

    def _scales(self, query: Query) -> list[float]:
        """The scale of each image. Raises ValueError where there are several, or another one for each axis."""
        cell = query.cell if query.known_cell is None else query.known_cell
        cells = cell.reshape(len(cell), -1, 2)
        if cells.shape[1] > 1 and (cells != cells[:, :1]).any():
            raise ValueError("cell: GSASR makes Gaussians for one scale at a time; query one cell per image and call")
        height, width = self.size
        scales = []
        for down, across in cells[:, 0].double().cpu().tolist():
            if not (down > 0 and across > 0):
                raise ValueError(f"cell: expected a height and a width above 0, got {down:g} and {across:g}")
            scales.append(_one_scale(2 / (down * height), 2 / (across * width), self.size))
        return scales * len(self.features) if len(scales) == 1 else scales

    def _mixture(self, scales: list[float]) -> Mixture:
        key = scales, torch.is_grad_enabled()
        if self._kept is None or self._kept[0] != key:
            numbers = self.gaussians(scales)
            with torch.autocast(self.device.type, enabled=False):
                self._kept = key, self._placed(numbers.float(), scales)
        return self._kept[1]

    def _placed(self, numbers: Float[Tensor, "B y x numbers"], scales: list[float]) -> Mixture:
        """Gaussians in LR pixels of the whole image.

        Published code renders the padded image at whole sizes, so that its pixels are a little larger than 1 / scale.
        Widths and the cut are numbers of those pixels.
        """
        rendered = [[max(1, int(scale * side * (1 + _ROUNDING))) for side in self.padded] for scale in scales]
        pitch = numbers.new_tensor([[side / n for side, n in zip(self.padded, sizes)] for sizes in rendered])
        width_unit = pitch * numbers.new_tensor(scales).unsqueeze(1) / NARROWER
        cut = pitch * numbers.new_tensor(rendered).sub(1) * (self.model.dmax / 2)
        width, correlation, opacity, color, shift = numbers.split((2, 1, 1, self.channels, 2), dim=-1)
        grid = torch.stack(
            torch.meshgrid(*(torch.arange(n, device=self.device) for n in numbers.shape[1:3]), indexing="ij"), dim=-1
        )
        corner = numbers.new_tensor((self.placement.top, self.placement.left))
        mean = (grid + 0.5 + shift.flip(-1)) / UP + corner
        return Mixture.of(
            mean.flatten(1, 2),
            (0.99999 * width.sigmoid() + 1e-6).flatten(1, 2) * width_unit.unsqueeze(1),
            (0.999999 * correlation.tanh()).flatten(1),
            (color.sigmoid() * opacity.sigmoid()).flatten(1, 2),
            cut,
        )


def _one_scale(vertical: float, horizontal: float, size: Size) -> float:
    """The scale of both axes. They may differ as far as rounding to whole pixels makes them. Raises ValueError."""
    if abs(vertical - horizontal) >= (1 + _ROUNDING) / min(size):
        raise ValueError(
            f"GSASR renders one scale for both axes, but {vertical:.4g} vertically and {horizontal:.4g} horizontally "
            "were asked for"
        )
    return (vertical + horizontal) / 2


class GSASR(ContinuousModel):
    """Image (B, channels, h, w) in [0, 1] -> 16 Gaussians for each pixel and scale."""

    halo = None  # windows at opposite borders meet
    num_statistics = 0

    def __init__(self, options: GSASROptions, channels: int):
        super().__init__()
        if options.width % options.heads:
            raise ValueError(f"heads: expected a divisor of the width, {options.width}, got {options.heads}")
        if options.variant == "enhanced" and options.width // options.heads % 2:
            raise ValueError(
                f"width: the enhanced variant turns pairs of channels: expected an even number for each of the "
                f"{options.heads} heads, got {options.width // options.heads}"
            )
        self.channels, self.multiple_of, self.dmax = channels, options.window, options.dmax
        self.encoder = Encoder(options, channels)
        shape = Shape(
            options.variant, options.width, options.heads, options.window, options.hidden, options.cross,
            options.attention,
        )  # fmt: skip
        self.network = GaussianNetwork(shape, options.encoder_width, channels)

    def padded(self, size: Size) -> Size:
        """The size of an image that is padded to whole windows."""
        height, width = (side + -side % self.multiple_of for side in size)
        return height, width

    def encode(self, image: Tensor, placement: TilePlacement | None = None) -> GSASRImage:
        self.check_image(image)
        size = image.shape[-2], image.shape[-1]
        codes = self.encoder(mirror_padded(image.float(), self.multiple_of))
        return GSASRImage(self, codes, placement or TilePlacement(size, 0, 0))

    def check_scale(self, size: Size, target: Size) -> None:
        _one_scale(target[0] / size[0], target[1] / size[1], size)


@hookimpl
def liif_models():
    def describe(options: GSASROptions) -> str:
        name = "GSASR" if options.variant == "paper" else "GSASR enhanced"
        return f"{name} {options.width}, EDSR {options.encoder_blocks}x{options.encoder_width}"

    return Component("gsasr", GSASR, GSASROptions, describe)


@hookimpl
def liif_importers():
    return Importer("file", "gsasr", convert)
