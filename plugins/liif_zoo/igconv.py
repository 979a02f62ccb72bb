"""IGConv and IGConv+ (Lee, Yun and Ro, Implicit Grid Convolution for Multi-Scale Image Super-Resolution, arXiv
2408.09674).

A sub-pixel convolution whose kernels are a function of the sub-pixel's place: a network computes the kernel of a place
from the place and the scale, and the color is the product of that kernel and the square of features around a code.
IGConv+ also adds the LR image, read at places that kernels of the same kind compute for each color.

Published models are for whole scales. The place of a sub-pixel is the offset of a query from the nearest code, so here
a query is at any position, at any scale. At scales that are whole or a simple fraction, few kernels are needed, and
they are computed once per image; in other cases each offset needs a kernel of its own, which is slow.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from attrs import frozen
from attrs.validators import ge, in_, min_len, optional
from torch import Tensor, nn

from liif_core import Component, Importer, LatentField, Maps, Sites, as_rows, blend, gather, hookimpl, option
from liif_core.nn import expect_conditions
from liif_zoo.igconv_codes import (
    SomeKernels,
    bilinear,
    chosen,
    codes,
    pixels_first,
    products,
    products_of_blocks,
    room,
    squares,
    taps,
)
from liif_zoo.igconv_import import MEAN, convert
from liif_zoo.igconv_kernels import Kernels, Scale, distinct, lattice, lattice_size, places_in, scale_of

_TABLE = 1 << 24  # numbers of the kernels, and of the colors, that are computed before the queries are known
_FEW = 64  # sub-pixels of a code whose colors are computed beforehand in any case
_SMALLEST_CELL = 0.5  # kernels of scales above 4 are those of other places at scale 4


@frozen
class IGConvOptions:
    waves: int = option(
        "Waves of each row of a kernel; the network reads their cosines and sines.", 32, check=ge(1), quick=16
    )
    width: int = option("Width of the network's hidden layers.", 64, check=ge(1), quick=32)
    depth: int = option("Number of the network's hidden layers.", 4, check=ge(0), quick=2)
    geo_ensemble: bool = option(
        "Take the mean of a kernel over the eight flips and turns of its square (IGConv+).", False
    )
    unfold: int = option(
        "With geo_ensemble, the side of that square: of the features that are joined in a code.",
        3,
        check=in_((1, 3, 5, 7)),
    )
    skip_depth: int | None = option(
        "Number of hidden layers of a second network, for the places at which the LR image is read and added (IGConv+: "
        "2, half of depth); without it, the image is not added.",
        None,
        check=optional(ge(0)),
    )
    mean: tuple[float, ...] = option(
        "Color in [0, 1] that is added: a number for each channel, or one.", MEAN, check=min_len(1)
    )


class IGConvPlus(nn.Module):
    """Codes, the query's offset from the nearest code, and its cell -> out_channels.

    A color in [0, 1] space is y + mean, where y is the product of the code and the kernel of the offset and the cell;
    and, with ``skip_depth``, plus the LR image, read at a place of its own. Of a cell, kernels depend on the mean of
    its height and its width.
    """

    needs = frozenset({"coordinate", "cell"})
    num_statistics = 0
    scale_dependent = True
    radius: int | None = None  # the LR image may be read anywhere
    queries_at_once = 1 << 14
    mean: Tensor

    def __init__(
        self,
        options: IGConvOptions,
        in_channels: int,
        out_channels: int,
        conditions: Mapping[str, int],
        neighbours: int,
    ):
        super().__init__()
        expect_conditions(conditions, coordinate=2, cell=2)
        if len(options.mean) not in (1, out_channels):
            raise ValueError(f"mean: expected one number or {out_channels}, got {len(options.mean)}")
        side = options.unfold if options.geo_ensemble else None
        if side and in_channels % side**2:
            raise ValueError(
                f"unfold: a code joins {side} x {side} features, but its {in_channels} channels are no multiple of "
                f"{side**2}; use the features 'unfold' of that size"
            )
        if options.skip_depth is not None and options.width % 2:
            raise ValueError(f"width: expected an even number, as skip_depth is given, got {options.width}")
        self.channels, self.inputs = out_channels, in_channels
        size = options.waves, options.width
        self.kernels = Kernels(in_channels, out_channels, *size, options.depth, 1, side)
        self.skip = None
        if options.skip_depth is not None:  # how far and a gate, for x and for y, of each color
            self.skip = Kernels(in_channels, 4 * out_channels, *size, options.skip_depth, 2, side)
        self.outputs = out_channels * (1 if self.skip is None else 5)
        self.register_buffer("mean", torch.tensor(options.mean).expand(out_channels).clone(), persistent=False)
        self._kept: tuple[Any, Tensor] | None = None  # kernels depend on no image; these are of the scale of the last

    def prepare(self, field: LatentField, image_conditions: Mapping[str, Tensor]) -> Maps:
        """Features, for any query; and of a whole scale, the colors at all sub-pixels of all codes."""
        maps = squares(field)
        if self.skip is not None:
            size = field.image.shape[-2], field.image.shape[-1]
            if size != tuple(field.grid) or field.image.shape[1] != self.channels:
                raise ValueError(
                    f"skip_depth: expected an image of {self.channels} channels with one code for each pixel, got "
                    f"{tuple(field.image.shape[1:])} and {field.grid[0]} x {field.grid[1]} codes"
                )
            maps["image"] = field.image
        self._kept = None
        scale, device = scale_of(image_conditions["cell"]), field.features.device
        if scale is None or self._numbers_of(scale) > _TABLE:
            return maps
        batch, pixels, count = len(field.features), field.grid[0] * field.grid[1], _count(scale)
        whole = all(axis.denominator == 1 for axis in scale)
        if whole and (count <= _FEW or batch * pixels * count * self.channels <= _TABLE):
            maps["colors"] = self._of_all_codes(field, maps, scale)
        elif count <= 2 * pixels * float(scale[0] * scale[1]) and not torch.is_grad_enabled():
            self._kept = scale, self._table(scale, taps(maps), device)
        return maps

    def decode(self, maps: Maps, sites: Sites, conditions: Mapping[str, Tensor]) -> Tensor:
        cell, colors = conditions["cell"], maps.get("colors")
        with torch.autocast(cell.device.type, enabled=False):
            scale, table = self._known(cell.reshape(-1, 2), colors)
            which = None
            if scale is not None:
                rows, columns = (lattice(axis, cell.device) for axis in scale)
                row, column = places_in(rows, sites.offset[..., 0]), places_in(columns, sites.offset[..., 1])
                which = None if row is None or column is None else row * len(columns) + column
            if which is not None and colors is not None:
                every = colors.unflatten(-1, (-1, self.channels))
                return blend(gather(every.flatten(1, 2), sites.index * every.shape[2] + which), sites.weight)
            if which is not None and table is not None:
                kernels = table.flatten(0, 1)
                numbers = self._products(maps, sites.index, which, len(kernels), kernels.__getitem__)
            else:
                numbers = self._of_any_offsets(maps, sites.index, sites.offset, cell, taps(maps))
            return blend(self._colors(numbers + self._constant(), maps, sites.index, sites.offset), sites.weight)

    def _known(self, cell: Tensor, colors: Tensor | None) -> tuple[Scale | None, Tensor | None]:
        """The scale of cells (n, 2), if colors or kernels of it were computed beforehand, and these kernels."""
        kept = None if torch.is_grad_enabled() else self._kept
        if colors is None and kept is None:
            return None, None
        scale = scale_of(cell)
        if kept is not None and (kept[0] != scale or kept[1].device != cell.device):
            kept = None
        return (None, None) if colors is None and kept is None else (scale, kept[1] if kept else None)

    def _numbers_of(self, scale: Scale) -> int:
        return _count(scale) * self.inputs * self.outputs

    def _kernels(self, offset: Tensor, pixel: Tensor) -> Tensor:
        """(n, inputs, outputs): of the colors in [-1, 1] space, then of the places at which the LR image is read."""
        kernels: Tensor = 2 * self.kernels.at(offset, pixel)
        return kernels if self.skip is None else torch.cat([kernels, self.skip.at(offset, pixel)], dim=-1)

    def _constant(self) -> Tensor:
        """(outputs,): what is added to the products. An image in [-1, 1] space that is added contains the -1."""
        colors = 2 * self.mean - int(self.skip is None)
        return F.pad(colors, [0, self.outputs - self.channels])

    def _table(self, scale: Scale, taps: int, device: torch.device) -> Tensor:
        """(ny, nx, inputs, outputs): all kernels of a scale, in the order of ``pixels_first``."""
        rows, columns = (lattice(axis, device) for axis in scale)
        kernels: Tensor = pixels_first(self._kernels(*_all_of(rows, columns, scale)), taps)
        return kernels.unflatten(0, (len(rows), len(columns)))

    def _of_all_codes(self, field: LatentField, maps: Maps, scale: Scale) -> Tensor:
        """(B, codes, n * channels): the colors of all codes at the n offsets of a scale."""
        pixels, parts = field.grid[0] * field.grid[1], []
        most = _TABLE if self.skip is None else room(field.features.device)
        step = max(1, most // (len(field.features) * pixels * self.outputs))
        index = torch.arange(pixels, device=field.features.device).view(1, 1, -1, 1)
        offset, pixel = _all_of(lattice(scale[0], index.device), lattice(scale[1], index.device), scale)
        for own, its in zip(offset.split(step), pixel.split(step)):
            weight = self._kernels(own, its).transpose(1, 2).flatten(0, 1)
            numbers = as_rows(field.linear(weight, self._constant().repeat(len(own)))).float()
            numbers = numbers.view(1, *numbers.shape[:2], len(own), -1)
            with torch.autocast(index.device.type, enabled=False):
                parts.append(self._colors(numbers, maps, index, own[None, None, None])[0].flatten(2))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)

    def _of_any_offsets(self, maps: Maps, index: Tensor, offset: Tensor, cell: Tensor, taps: int) -> Tensor:
        """(K, B, *Q, outputs): of codes ``index`` and ``offset`` (K, b, *Q, 2), whatever these are."""
        offset, pixel, which = distinct(offset, _pixel(cell).expand(*offset.shape[:-1], 1))

        def kernels(own: slice) -> Tensor:
            return pixels_first(self._kernels(offset[own], pixel[own]), taps)

        return self._products(maps, index, which, len(offset), kernels)

    def _products(self, maps: Maps, index: Tensor, which: Tensor, count: int, kernels: SomeKernels) -> Tensor:
        """(K, B, *Q, outputs): of codes and kernels, (K, b, *Q) each."""
        shape = max(len(index), len(which)), len(maps["tap0"]), *index.shape[2:]
        index, which = (values.expand(shape).transpose(0, 1) for values in (index, which))
        return products(maps, index, which, count, kernels, self.outputs).transpose(0, 1)

    def _colors(self, numbers: Tensor, maps: Maps, index: Tensor, offset: Tensor) -> Tensor:
        """The colors (K, B, *Q, channels) of what the kernels give for the codes ``index`` (K or 1, b, *Q)."""
        if self.skip is None:
            return numbers
        moved, gate = numbers[..., self.channels :].unflatten(-1, (2, 2, self.channels)).unbind(-3)
        place = torch.addcmul(offset.flip(-1).unsqueeze(-1), moved, gate.sigmoid())  # x, y in half pixels
        return numbers[..., : self.channels] + bilinear(maps["image"], index, place)


class IGConv(IGConvPlus):
    """Without the LR image, so that pixel grids can be decoded code by code."""

    radius = 0
    block_positions = 1 << 18

    def decode_block(self, maps: Maps, rows: Tensor, columns: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        cell, colors = conditions["cell"], maps.get("colors")
        with torch.autocast(cell.device.type, enabled=False):
            scale, table = self._known(cell, colors)
            places = None
            if scale is not None:
                row, column = (
                    places_in(lattice(axis, cell.device), offset, filled=True)
                    for axis, offset in zip(scale, (rows, columns))
                )
                places = None if row is None or column is None else (row, column)
            if scale is not None and places is not None and colors is not None:
                return chosen(colors.unflatten(-1, (scale[0].numerator, scale[1].numerator, -1)), *places)
            numbers: Tensor | None
            if places is not None and table is not None:
                numbers = products_of_blocks(maps, *places, table)
                if numbers is not None:
                    return numbers.add_(self._constant())
            dense = codes(maps)
            y, x = rows[:, None, :, None], columns[None, :, None, :]
            offset = torch.stack(torch.broadcast_tensors(y, x), dim=-1)[None, None]
            index = torch.arange(len(rows) * len(columns), device=cell.device).view(1, 1, *dense.shape[1:3], 1, 1)
            own, cell = {"tap0": dense.flatten(1, 2)}, cell.view(1, -1, 1, 1, 1, 1, 2)
            index = index.expand(offset.shape[:-1])
            if places is not None and table is not None:
                kernels = table.flatten(0, 1)
                which = (places[0][:, None, :, None] * table.shape[1] + places[1][None, :, None, :]).expand(index.shape)
                numbers = self._products(own, index, which, len(kernels), kernels.__getitem__)
            else:
                index, offset = (
                    index.expand(1, cell.shape[1], *index.shape[2:]),
                    offset.expand(1, cell.shape[1], *offset.shape[2:]),
                )
                numbers = self._of_any_offsets(own, index, offset, cell, taps(maps))
            return numbers[0] + self._constant()


def _count(scale: Scale) -> int:
    return lattice_size(scale[0]) * lattice_size(scale[1])


def _pixel(cell: Tensor) -> Tensor:
    """(..., 1) of cells (..., 2): all that kernels depend on."""
    return cell.clamp(min=_SMALLEST_CELL).mean(-1, keepdim=True)


def _all_of(rows: Tensor, columns: Tensor, scale: Scale) -> tuple[Tensor, Tensor]:
    """All pairs of offsets (n, 2), and the size of a pixel for each (n, 1)."""
    offset = torch.cartesian_prod(rows, columns)
    pixel = _pixel(rows.new_tensor([[2 / float(axis) for axis in scale]]))
    return offset, pixel.expand(len(offset), -1)


def _decoder(options: IGConvOptions, **sizes: Any) -> IGConvPlus:
    return IGConv(options, **sizes) if options.skip_depth is None else IGConvPlus(options, **sizes)


def _described(options: IGConvOptions) -> str:
    name = "IGConv" if options.skip_depth is None else "IGConv+"
    return f"{name} {options.depth}x{options.width}"


@hookimpl
def liif_decoders():
    return Component("igconv", _decoder, IGConvOptions, _described)


@hookimpl
def liif_importers():
    return Importer("file", "igconv", convert)
