"""Decoding a pixel grid along its rows and then along its columns, as a resampling filter does. On a CPU.

This needs colors that are sums of a code's coefficients, each times a function of y and a function of x, and weights
that are products of a weight of the row and a weight of the column. All codes of a row of codes then serve the pixels
between it and the next row in one matrix product, and no colors have to be blended.
"""

from itertools import pairwise

import torch
from attrs import frozen
from torch import Tensor

from liif_core.model.protocols import AxisSites
from liif_core.model.threads import on_threads
from liif_core.shapes import Float
from liif_core.sizes import Size

_BAND = 8  # rows of codes of one piece of work: few enough for its copies to stay in the cache


@frozen(eq=False)
class AxisFilter:
    """One axis of a pixel grid. Its pixels are in groups, each of which reads the same ``sides`` codes in a row.

    Group g reads codes from ``first + g``. Pixels before the first code and beyond the last have groups of their own,
    some codes of which are outside the grid, with taps of 0.
    """

    first: int
    starts: tuple[int, ...]  # the first pixel of each group, and at the end the number of pixels
    taps: Float[Tensor, "b n sides P"]  # the functions at each pixel, times the weight of the code

    @property
    def groups(self) -> int:
        return len(self.starts) - 1

    @property
    def pixels(self) -> int:
        return self.starts[-1]

    @property
    def sides(self) -> int:
        return self.taps.shape[2]

    def padded(self) -> tuple[Float[Tensor, "b groups longest taps"], Tensor]:
        """The taps by group, all groups as long as the longest; and the place of each pixel among all of these.

        In the first group, zeros come first: the places of an integer scale then have no gaps.
        """
        counts = torch.tensor([stop - start for start, stop in pairwise(self.starts)])
        longest = int(counts.max())
        group = torch.arange(self.groups).repeat_interleave(counts)
        place = group * longest + torch.arange(self.pixels) - torch.tensor(self.starts)[group]
        place[: counts[0]] += longest - counts[0]
        taps = self.taps.new_zeros(len(self.taps), self.groups * longest, *self.taps.shape[2:])
        return taps.index_copy_(1, place, self.taps).unflatten(1, (-1, longest)).flatten(-2), place


def axis_filter(
    sites: AxisSites, weights: Float[Tensor, "S n"], functions: Float[Tensor, "b S n P"]
) -> AxisFilter | None:
    """The filter of one axis. None where a pixel's codes are not neighbours, or do not ascend along the axis."""
    sides, pixels = sites.index.shape
    low, high = sites.index.amin(0), sites.index.amax(0)
    start = torch.where(low == 0, high - (sides - 1), low)
    slot = sites.index - start
    if int(slot.min()) < 0 or int(slot.max()) >= sides or (start.diff() < 0).any():
        return None
    own = torch.arange(pixels)
    taps = functions.new_zeros(len(functions), pixels, sides, functions.shape[-1])
    for side in range(sides):  # added up: beyond the last code, a pixel reads it on several sides
        taps[:, own, slot[side]] += functions[:, side] * weights[side].unsqueeze(-1)
    first, last = int(start[0]), int(start[-1])
    starts = torch.searchsorted(start.contiguous(), torch.arange(first, last + 2))
    return AxisFilter(first, tuple(starts.tolist()), taps)


def separable_colors(
    rows: AxisFilter, columns: AxisFilter, coefficients: Float[Tensor, "B codes width"], grid: Size, channels: int
) -> Float[Tensor, "B channels H W"]:
    """The blended colors, float32, in [-1, 1] space. ``grid``: of the codes that ``coefficients`` are of."""
    shape = channels, rows.taps.shape[-1], columns.taps.shape[-1]
    codes = coefficients.unflatten(1, grid).unflatten(-1, shape)
    output = coefficients.new_empty(len(codes), rows.pixels, columns.pixels, channels)
    across, place = columns.padded()
    bands = [(image, first) for image in range(len(codes)) for first in range(0, rows.groups, _BAND)]

    def decode(band: tuple[int, int]) -> None:
        image, first = band
        its_taps = across[image % len(across)]
        _decode_band(rows, columns, codes[image], its_taps, place, output[image], image, first)

    with torch.autocast("cpu", enabled=False):
        for _ in on_threads(decode, bands):
            pass
    return output.permute(0, 3, 1, 2)


def _decode_band(
    rows: AxisFilter,
    columns: AxisFilter,
    codes: Float[Tensor, "h w channels P Q"],
    across: Float[Tensor, "groups longest taps"],
    place: Tensor,
    output: Float[Tensor, "H W channels"],
    image: int,
    first: int,
) -> None:
    """Write the pixels of some groups of rows, from group ``first`` on."""
    height, width, channels, by_row, by_column = codes.shape
    last = min(first + _BAND, rows.groups)
    top, bottom = max(0, rows.first + first), min(height, rows.first + last + rows.sides - 1)
    lines = codes[top:bottom].permute(0, 3, 1, 2, 4).reshape(-1, width * channels * by_column)  # code row and P, rest
    outside = -columns.first if columns.first < 0 else 0
    kept = max(columns.first + columns.groups + columns.sides - 1, width)
    begin, end = int(place[0]), int(place[-1]) + 1
    padded: dict[int, Tensor] = {}  # by number of pixels: a row of codes, and zeros around it
    for group in range(first, last):
        start, stop = rows.starts[group], rows.starts[group + 1]
        count = stop - start
        if not count:
            continue
        code = rows.first + group
        inside = slice(max(0, -code), min(rows.sides, height - code))
        down = rows.taps[image % len(rows.taps), start:stop, inside].flatten(1)
        at = (code + inside.start - top) * by_row
        values = (down @ lines[at : at + down.shape[1]]).view(count, width, channels, by_column)
        if count not in padded:
            padded[count] = values.new_zeros(outside + kept, by_column, channels, count)
        padded[count][outside : outside + width] = values.permute(1, 3, 2, 0)
        size = by_column * channels * count
        windows = padded[count].as_strided(
            (columns.groups, columns.sides * by_column, channels * count),
            (size, channels * count, 1),
            (columns.first + outside) * size,
        )
        colors = torch.bmm(across, windows).view(-1, channels, count)
        colors = colors[begin:end] if end - begin == len(place) else colors.index_select(0, place)
        output[start:stop] = colors.permute(2, 0, 1)
