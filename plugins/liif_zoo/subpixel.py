"""Sub-pixel convolution (Shi et al., Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
Convolutional Neural Network, CVPR 2016), as at the end of EDSR (Lim et al., Enhanced Deep Residual Networks for Single
Image Super-Resolution, CVPRW 2017): the upsampling of models for one scale, which LIIF's tables compare with.

The image at that scale is computed from the codes, and a query reads its nearest pixel, of two equally near ones the
later: at the scale itself that is EDSR's output, and at other scales nearest-neighbor interpolation of it.
"""

from collections.abc import Mapping

import torch
from attrs import frozen
from attrs.validators import in_
from torch import Tensor, nn

from liif_core import Component, LatentField, Maps, Sites, as_rows, blend, gather, hookimpl, option
from liif_core.nn import expect_conditions

_TIE = 1e-4  # in sub-pixels; more than the rounding of offsets


@frozen
class SubpixelOptions:
    scale: int = option("The scale: 2, 3, 4 or 8.", 2, check=in_((2, 3, 4, 8)))


class Subpixel(nn.Module):
    """Codes and the query's offset from the nearest one -> out_channels."""

    needs = frozenset({"coordinate"})
    num_statistics = 0
    scale_dependent = False
    block_positions = 1 << 16
    radius = 2  # a convolution of the codes, and some of their sub-pixels: less than another code

    def __init__(
        self,
        options: SubpixelOptions,
        in_channels: int,
        out_channels: int,
        conditions: Mapping[str, int],
        neighbours: int,
    ):
        super().__init__()
        expect_conditions(conditions, coordinate=2)
        if neighbours != 1:
            raise ValueError(f"expected sampling of the nearest code, such as 'nearest', got one of {neighbours} codes")
        self.scale = options.scale
        steps = [3] if self.scale == 3 else [2] * (self.scale.bit_length() - 1)
        layers: list[nn.Module] = []
        for step in steps:
            layers += [nn.Conv2d(in_channels, in_channels * step**2, 3, padding=1), nn.PixelShuffle(step)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(in_channels, out_channels, 3, padding=1))

    def prepare(self, field: LatentField, image_conditions: Mapping[str, Tensor]) -> Maps:
        """Of each code, the colors of its ``scale`` x ``scale`` pixels, in rows, the channels of a pixel together."""
        image = self.layers(field.dense())
        squares = image.unflatten(-1, (-1, self.scale)).unflatten(-3, (-1, self.scale))  # (B, c, h, s, w, s)
        return {"colors": as_rows(squares.permute(0, 3, 5, 1, 2, 4).flatten(1, 3))}

    def decode(self, maps: Maps, sites: Sites, conditions: Mapping[str, Tensor]) -> Tensor:
        pixels = maps["colors"].unflatten(-1, (self.scale**2, -1)).flatten(1, 2)
        row, column = (self._place(conditions["coordinate"][..., axis]) for axis in (0, 1))
        which = sites.index * self.scale**2 + row * self.scale + column
        return blend(gather(pixels, which), sites.weight)

    def decode_block(self, maps: Maps, rows: Tensor, columns: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        pixels = maps["colors"].unflatten(-1, (self.scale, self.scale, -1))
        down = torch.arange(len(rows), device=rows.device).view(-1, 1, 1, 1)
        across = torch.arange(len(columns), device=columns.device).view(-1, 1, 1)
        return pixels[:, down, across, self._place(rows)[:, None, :, None], self._place(columns)[:, None, :]]

    def _place(self, offset: Tensor) -> Tensor:
        """The number of the sub-pixel, from 0, that an offset along one axis lies in; a code is from -1 to 1."""
        return ((offset + 1) * (self.scale / 2) + _TIE).floor().clamp(0, self.scale - 1).long()


@hookimpl
def liif_decoders():
    return Component("subpixel", Subpixel, SubpixelOptions, lambda o: f"sub-pixel convolution x{o.scale}")
