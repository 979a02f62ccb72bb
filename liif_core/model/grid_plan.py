"""Which pixels of a grid read each latent code, along rows and along columns.

Where an image is enlarged, each code is read by a block of neighboring pixels: a range of rows times a range of
columns. Blocks of neighboring codes overlap, as a pixel reads several codes.
"""

from bisect import bisect_left, bisect_right
from itertools import pairwise

import torch
from attrs import evolve, frozen
from torch import Tensor

from liif_core.model.device import moved
from liif_core.model.protocols import AxisSites


@frozen(eq=False)
class AxisPlan:
    """One axis of a pixel grid. Codes are counted from ``first``, the first one that is read."""

    sites: AxisSites
    first: int  # row (or column) in the grid of codes
    place: Tensor  # (S, n) int64: which of the positions of its code each pixel is
    offset: Tensor  # (codes, R) float32: from each code to the pixels that read it; 0 beyond the last one
    counts: tuple[int, ...]  # for each code, how many pixels read it
    spans: tuple[tuple[tuple[int, int], ...], ...]  # for each side and code: the pixels whose code it is, start and end
    breaks: tuple[tuple[int, ...], ...]  # for each side: codes that give other places, or another number, than the last

    @property
    def codes(self) -> int:
        return len(self.counts)

    @property
    def pixels(self) -> int:
        return self.sites.index.shape[1]

    @property
    def sides(self) -> int:
        return len(self.spans)

    def longest(self, start: int, stop: int) -> int:
        """The largest number of pixels that read one of these codes."""
        return max(self.counts[start:stop])

    def span(self, side: int, start: int, stop: int) -> tuple[int, int]:
        """The pixels whose code on this side is one of these."""
        return self.spans[side][start][0], self.spans[side][stop - 1][1]

    def runs(self, side: int, start: int, stop: int) -> list[tuple[int, int]]:
        """These codes in ranges: all codes of a range give the same positions, in a row, to pixels on this side.

        Codes that give none are left out.
        """
        breaks = self.breaks[side]
        inner = breaks[bisect_right(breaks, start) : bisect_left(breaks, stop)]
        spans = self.spans[side]
        return [(a, b) for a, b in pairwise([start, *inner, stop]) if spans[a][0] < spans[a][1]]

    def places(self, side: int, code: int) -> tuple[int, int]:
        """The positions that a code gives to pixels on this side: from the first up to the last plus 1."""
        first = min(spans[code][0] for spans in self.spans if spans[code][0] < spans[code][1])
        start, stop = self.spans[side][code]
        return start - first, stop - first

    def around(self, start: int, stop: int) -> tuple[int, int]:
        """The pixels from the first to the last that read one of these codes."""
        spans = [span for span in (self.span(side, start, stop) for side in range(self.sides)) if span[0] < span[1]]
        return (min(begin for begin, _ in spans), max(end for _, end in spans)) if spans else (0, 0)

    def part(self, start: int, stop: int) -> AxisSites:
        """The sites of some pixels."""
        return AxisSites(self.sites.index[:, start:stop], self.sites.offset[:, start:stop])

    def to(self, device: torch.device) -> "AxisPlan":
        """The same plan with its tensors on a device."""
        sites = AxisSites(moved(self.sites.index, device), moved(self.sites.offset, device))
        place, offset = moved(self.place, device), moved(self.offset, device)
        return evolve(self, sites=sites, place=place, offset=offset)


def plan_axis(sites: AxisSites) -> AxisPlan | None:
    """The plan of one axis, from sites on the CPU; None where the codes are not in ascending order."""
    sides, pixels = sites.index.shape
    if (sites.index.diff(dim=1) < 0).any():
        return None
    first = int(sites.index.min())
    index = sites.index - first
    codes = torch.arange(int(index.max()) + 1)
    starts = torch.stack([torch.searchsorted(side, codes) for side in index.contiguous()])
    stops = torch.stack([torch.searchsorted(side, codes, right=True) for side in index.contiguous()])
    read = starts < stops
    begin = starts.where(read, pixels).amin(0)
    counts = (stops.where(read, 0).amax(0) - begin).clamp(min=0)  # 0 for a code that no pixel reads
    place = torch.arange(pixels) - begin[index]
    offset = torch.zeros(len(codes), max(1, int(counts.max())))
    for side in range(sides):  # a pixel that reads a code on two sides, at a border, has the same offset on both
        offset[index[side], place[side]] = sites.offset[side]
    spans = tuple(tuple(zip(*pair)) for pair in zip(starts.tolist(), stops.tolist()))
    changes = torch.stack([(stops - starts).diff(dim=1), (starts - begin).where(read, 0).diff(dim=1)]).any(0)
    breaks = tuple(tuple((side.nonzero().flatten() + 1).tolist()) for side in changes)
    return AxisPlan(sites, first, place, offset, tuple(counts.tolist()), spans, breaks)
