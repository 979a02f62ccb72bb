"""Thera (Becker et al., Thera: Aliasing-Free Arbitrary-Scale Super-Resolution with Neural Heat Fields, arXiv
2311.17643).

A latent code is a sum of sine waves, whose frequencies all codes share. Under the heat equation each wave decays at a
rate that its frequency gives. The time for which that is applied follows from the size of the queried pixel, and so
frequencies that such pixels cannot show are removed: no network is evaluated for a query.
"""

import math
from collections.abc import Mapping
from itertools import product

import torch
from attrs import frozen
from attrs.validators import ge, min_len
from torch import Tensor, nn

from liif_core import Component, Importer, LatentField, Maps, Sites, as_rows, blend, gather, hookimpl, option
from liif_core.nn import expect_conditions, float32_linear
from liif_zoo.thera_features import ConvNeXt, ConvNeXtOptions, Swin, SwinOptions
from liif_zoo.thera_import import MEAN, convert

HIGHEST = 16 * math.pi  # frequency before training, in radians per feature cell
DIFFUSIVITY = 0.0597  # before training
_SNAP = 5e-4  # offsets, in half feature cells, that differ by less from those of a whole scale differ by rounding
_STRIP = 1 << 19  # values of waves that are computed at once on a CPU, about the size of its caches
_DEVICE_STRIP = 1 << 25  # the same on other devices


@frozen
class TheraOptions:
    waves: int = option("Sine waves of a code.", 32, check=ge(1))
    mean: tuple[float, ...] = option(
        "Color in [0, 1] that is added to the waves and to the nearest pixel: a number for each channel, or one.",
        MEAN,
        check=min_len(1),
    )


class Thera(nn.Module):
    """Codes, the query's offset from them and its cell -> out_channels.

    For a position r from the code, in feature cells, each channel is the sum of m sin(r w + p) exp(-|w|^2 k t) over the
    waves, plus 2 mean, plus the pixel at the code. A linear layer of the code gives m and p. The time t is the square
    of the height of the queried pixel in feature cells; its width has no effect.
    """

    needs = frozenset({"coordinate", "cell"})
    num_statistics = 0
    scale_dependent = False
    radius = 0
    block_positions = 1 << 17  # a block is divided further
    mean: Tensor

    def __init__(
        self, options: TheraOptions, in_channels: int, out_channels: int, conditions: Mapping[str, int], neighbours: int
    ):
        super().__init__()
        expect_conditions(conditions, coordinate=2, cell=2)
        if len(options.mean) not in (1, out_channels):
            raise ValueError(f"mean: expected one number or {out_channels}, got {len(options.mean)}")
        self.channels, self.waves = out_channels, options.waves
        self.queries_at_once = max(128, (1 << 18) // options.waves)
        # m of every wave, its channels side by side, and then p of every wave
        self.code = nn.Linear(in_channels, (out_channels + 1) * options.waves)
        angle, distance = 2 * math.pi * torch.rand(options.waves), HIGHEST * torch.rand(options.waves).sqrt()
        self.frequency = nn.Parameter(torch.stack([angle.sin(), angle.cos()]) * distance)  # (y, x), uniform in a disc
        self.diffusivity = nn.Parameter(torch.tensor(DIFFUSIVITY))
        mean = torch.tensor(options.mean).expand(out_channels).clone()
        self.register_buffer("mean", mean.view(1, -1, 1, 1), persistent=False)

    def prepare(self, field: LatentField, image_conditions: Mapping[str, Tensor]) -> Maps:
        """The linear layer is applied later, to the codes that are read: it makes 2,048 numbers of one of 64."""
        size = field.image.shape[-2], field.image.shape[-1]
        if size != tuple(field.grid):
            raise ValueError(
                f"Thera adds the pixel at each code: expected one code for each pixel of the {size[0]} x {size[1]} "
                f"image, got {field.grid[0]} x {field.grid[1]} codes"
            )
        return {"code": as_rows(field.dense()), "pixel": as_rows(field.image + 2 * self.mean)}

    def decode(self, maps: Maps, sites: Sites, conditions: Mapping[str, Tensor]) -> Tensor:
        with torch.autocast(sites.offset.device.type, enabled=False):
            amplitude, phase = self._read(maps["code"], sites.index)
            angle = self._angle(conditions["coordinate"]) + phase
            waves = angle.sin() * self._decay(conditions["cell"])
            return blend(_weighted(amplitude, waves) + gather(maps["pixel"], sites.index), sites.weight)

    def own_loss(self, maps: Maps, sites: Sites, conditions: Mapping[str, Tensor], target: Tensor) -> Tensor:
        """The mean of |d color / d r| of the waves before they decay, which keeps them from being needlessly high."""
        with torch.autocast(sites.offset.device.type, enabled=False):
            amplitude, phase = self._read(maps["code"], sites.index)
            waves = (self._angle(conditions["coordinate"]) + phase).cos()
            slopes = [_weighted(amplitude, waves * along) for along in self.frequency.float()]
            return torch.stack(slopes).abs().mean()

    def decode_block(self, maps: Maps, rows: Tensor, columns: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        """sin(a + b) = sin a cos b + cos a sin b, so that queries need no sine, and codes a matrix product."""
        cell = conditions["cell"]
        if len(cell) > 1:  # of each image
            images = [{name: values[i : i + 1] for name, values in maps.items()} for i in range(len(cell))]
            cells = [{"cell": cell[i : i + 1]} for i in range(len(cell))]
            return torch.cat([self.decode_block(own, rows, columns, its) for own, its in zip(images, cells)])
        with torch.autocast(rows.device.type, enabled=False):
            decay = self._decay(cell[0])
            down, across = _of_whole_scale(rows, cell[0, 0]), _of_whole_scale(columns, cell[0, 1])
            if down is not None and across is not None:
                colors = self._equal_codes(maps["code"], down, across, decay)
            else:
                colors = self._any_codes(maps["code"], rows, columns, decay)
            return colors.add_(maps["pixel"][:, :, :, None, None])

    def _equal_codes(self, codes: Tensor, rows: Tensor, columns: Tensor, decay: Tensor) -> Tensor:
        """(B, h, w, R, C, channels): the waves of codes with equal offsets ``rows`` (R,) and ``columns`` (C,)."""
        y, x = (along[:, None, None] / 2 for along in self.frequency.float())
        angle = (y * rows.unsqueeze(1) + x * columns).flatten(1)
        table = (torch.cat([angle.sin(), angle.cos()]) * decay.repeat(2).unsqueeze(1)).mT
        parts = []
        for strip in codes.flatten(0, 2).split(self._strip(codes, 1)):
            amplitude, phase = self._columns(strip)
            waves = torch.cat([amplitude * phase.cos().unsqueeze(1), amplitude * phase.sin().unsqueeze(1)])
            parts.append((table @ waves.flatten(1)).unflatten(1, (self.channels, -1)))
        colors = torch.cat(parts, dim=-1)
        return colors.view(len(rows), len(columns), self.channels, *codes.shape[:3]).permute(3, 4, 5, 0, 1, 2)

    def _any_codes(self, codes: Tensor, rows: Tensor, columns: Tensor, decay: Tensor) -> Tensor:
        """The same for codes of other offsets, ``rows`` (h, R) and ``columns`` (w, C), a row of codes at a time."""
        y, x = self.frequency.float() / 2
        angle = rows.unsqueeze(-1) * y
        tables = torch.cat([angle.cos(), angle.sin()], dim=-1) * decay.repeat(2)  # (h, R, 2 * waves)
        angle = x[:, None, None] * columns.mT
        sine, cosine = angle.sin(), angle.cos()  # (waves, C, w)
        colors = rows.new_empty(*codes.shape[:2], rows.shape[1], self.channels, columns.shape[1], codes.shape[2])
        for image, down in product(range(len(codes)), range(len(rows))):
            step = self._strip(codes, columns.shape[1])
            for first in range(0, codes.shape[2], step):
                strip = slice(first, first + step)
                amplitude, phase = self._columns(codes[image, down, strip])
                own_sine, own_cosine = phase.sin().unsqueeze(1), phase.cos().unsqueeze(1)
                waves = amplitude.new_empty(2, self.waves, self.channels, columns.shape[1], phase.shape[1])
                of_column = torch.addcmul(own_sine * cosine[..., strip], own_cosine, sine[..., strip])
                torch.mul(amplitude.unsqueeze(2), of_column.unsqueeze(1), out=waves[0])
                of_column = torch.addcmul(own_cosine * cosine[..., strip], own_sine, sine[..., strip], value=-1)
                torch.mul(amplitude.unsqueeze(2), of_column.unsqueeze(1), out=waves[1])
                row = tables[down] @ waves.flatten(0, 1).flatten(1)
                colors[image, down, ..., strip] = row.view(len(row), *waves.shape[2:])
        return colors.permute(0, 1, 5, 2, 4, 3)

    def _strip(self, codes: Tensor, positions: int) -> int:
        """How many codes are decoded together, at so many positions each."""
        values = _STRIP if codes.device.type == "cpu" else _DEVICE_STRIP
        return max(1, values // (2 * (self.channels + 1) * self.waves * positions))

    def _columns(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Amplitudes (waves, channels, n) and phases (waves, n) of codes (n, C): long rows are fast to compute with."""
        assert self.code.bias is not None
        numbers = torch.addmm(self.code.bias.float().unsqueeze(1), self.code.weight.float(), codes.float().mT)
        amplitude, phase = numbers.split([self.channels * self.waves, self.waves])
        return amplitude.unflatten(0, (self.waves, self.channels)), phase

    def _read(self, codes: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Amplitudes (K, B, *Q, waves, channels) and phases (K, B, *Q, waves) of the codes at ``index``."""
        if index[:, 0].numel() < codes.shape[1]:
            numbers = float32_linear(gather(codes, index), self.code.weight, self.code.bias)
        else:
            numbers = gather(float32_linear(codes, self.code.weight, self.code.bias), index)
        amplitude, phase = numbers.split([self.channels * self.waves, self.waves], dim=-1)
        return amplitude.unflatten(-1, (self.waves, self.channels)), phase

    def _angle(self, offset: Tensor) -> Tensor:
        """r w of offsets (..., 2), which are in half feature cells: (..., waves)."""
        y, x = self.frequency.float() / 2
        return torch.addcmul(offset[..., :1] * y, offset[..., 1:], x)

    def _decay(self, cell: Tensor) -> Tensor:
        """(..., waves) of cells (..., 2)."""
        time = (cell[..., :1] / 2).square()
        return torch.exp(-self.frequency.float().square().sum(0) * self.diffusivity.float() * time)


def _weighted(amplitude: Tensor, waves: Tensor) -> Tensor:
    """(..., channels): sums over the waves."""
    return (waves.unsqueeze(-2) @ amplitude).squeeze(-2)


def _of_whole_scale(offsets: Tensor, cell: Tensor) -> Tensor | None:
    """The offsets (R,) that all codes (n, R) have where the image is enlarged R times; None where they do not.

    The given ones differ from each other by the rounding of coordinates; the result is free of that.
    """
    count = offsets.shape[1]
    exact = (2 * torch.arange(count, device=offsets.device) + 1) / count - 1
    equal = ((offsets - exact).abs() < _SNAP).all() & ((cell * count - 2).abs() < 1e-5)
    return exact if equal else None


@hookimpl
def liif_features():
    return [
        Component("convnext", ConvNeXt, ConvNeXtOptions, lambda o: f"ConvNeXt {len(o.widths)}x{max(o.widths)}"),
        Component("swin", Swin, SwinOptions, lambda o: f"Swin {'-'.join(map(str, o.blocks))}x{o.channels}"),
    ]


@hookimpl
def liif_decoders():
    return Component("thera", Thera, TheraOptions, lambda o: f"Thera {o.waves}")


@hookimpl
def liif_importers():
    return Importer("file", "thera", convert)
