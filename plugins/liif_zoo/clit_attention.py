"""The attention of CLIT: a query attends to the codes of a window, and a network reads each value times its weight.

Queries are grouped by their nearest code, and the network's first layer is not computed for each of them. Its input is
values times numbers, one number for each value and head, so that the layer is a sum of its products with the values,
times these numbers. The queries of a code share the products.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from attrs import frozen
from attrs.validators import deep_iterable, ge
from torch import Tensor, nn

from liif_core import Maps, Sites, as_rows, option
from liif_core.nn import float32_linear, fused_linear, on_threads

QUERIES_OF_A_CODE = 4  # from so many on average, grouping saves memory where gradients are recorded
BYTES_AT_ONCE = 24 << 20  # of a group's values on a CPU, whose caches these should nearly fit
DEVICE_BYTES_AT_ONCE = 1 << 30  # the same on other devices


@frozen
class CLITOptions:
    width: int = option("Channels of queries, keys and values.", 256, check=ge(1), quick=32)
    heads: int = option("Attention heads, each with the same number of channels.", 8, check=ge(1), quick=4)
    position_channels: int = option(
        "Sines and cosines of offsets, from which attention is biased; a multiple of 4, or 0 for no bias.",
        64,
        check=ge(0),
        quick=16,
    )
    position_scale: float = option("The highest frequency of these is 2^position_scale - 1.", 10.0, check=ge(0))
    hidden: tuple[int, ...] = option(
        "Widths of the hidden layers.", (256, 256, 256, 256), check=deep_iterable(ge(1)), quick=(32, 32)
    )

    def __attrs_post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"heads: each needs the same part of width ({self.width}), got {self.heads}")
        if self.position_channels % 4:
            raise ValueError(f"position_channels: expected a multiple of 4, got {self.position_channels}")


class PositionBias(nn.Module):
    """Offsets along both axes -> what is added to the logits of each head.

    Sines and cosines of an offset, at frequencies from 0 to 2^scale - 1, and a linear layer of these. The published
    layer has a bias, which does not change a softmax.
    """

    frequencies: Tensor

    def __init__(self, channels: int, scale: float, heads: int):
        super().__init__()
        self.register_buffer("frequencies", 2 ** torch.linspace(0, scale, channels // 4) - 1, persistent=False)
        self.layer = nn.Linear(channels, heads, bias=False)

    def forward(self, offset: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets (..., 2) from the middle of a window -> for its rows and its columns, (..., S, heads), float32."""
        with torch.autocast(offset.device.type, enabled=False):
            sines, cosines = self.layer.weight.unflatten(1, (2, 2, -1)).unbind(1)  # each (heads, axis, frequency)
            rows, columns = (
                self._waves(offset[..., axis, None] - 2 * steps, sines[:, axis], cosines[:, axis]) for axis in (0, 1)
            )
        return rows, columns

    def _waves(self, offset: Tensor, sines: Tensor, cosines: Tensor) -> Tensor:
        angle = offset.unsqueeze(-1) * self.frequencies
        return F.linear(torch.cat([angle.sin(), angle.cos()], dim=-1), torch.cat([sines, cosines], dim=-1))


@frozen(eq=False)
class Queries:
    """N queries of an image."""

    index: Tensor  # (N, K) codes that they read; of one outside the grid, the row of zeros after the last code
    offset: Tensor  # (N, 2) from the middle of the window
    first: Tensor  # (N or 1, D) what the first layer adds to its product with the values


@frozen(eq=False)
class Group:
    """Queries of ``n`` codes: up to ``m`` for each."""

    index: Tensor  # (n, K) codes that the queries of each code read
    query: Tensor  # (n, m) numbers of the queries; a code with fewer repeats its last one
    first: Tensor | None  # (n, m) where a query is not repeated; None: none is


class Stage(nn.Module):
    """One stage of CLIT: codes (B, channels, h, w) -> maps; maps and a window of codes for each query -> colors."""

    steps: Tensor

    def __init__(self, channels: int, heads: int, hidden: tuple[int, ...], neighbours: int, cell: bool, out: int):
        super().__init__()
        side = math.isqrt(neighbours)
        if side * side != neighbours or side % 2 == 0 or side < 3:
            raise ValueError(f"expected 9, 25, 49, ... neighbours (sampling 'window'), got {neighbours}")
        self.heads, self.side, self.cell = heads, side, cell
        self.register_buffer("steps", torch.arange(side) - side // 2, persistent=False)
        self.query, self.key, self.value = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(3))
        widths = [neighbours * channels + 2 * cell, *hidden, out]
        self.layers: Any = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))

    def maps(self, codes: Tensor, rows: slice = slice(None), columns: slice = slice(None)) -> Maps:
        """Queries, keys and values of a part of the codes, (B, h * w + 1, channels). The last row is zero."""
        convolutions = {"query": self.query, "key": self.key, "value": self.value}
        return {
            name: F.pad(as_rows(layer(codes)[:, :, rows, columns]), (0, 0, 0, 1))
            for name, layer in convolutions.items()
        }

    def forward(self, maps: Maps, sites: Sites, cell: Tensor | None, position: PositionBias | None) -> Tensor:
        """(B, *Q, out). ``cell``: (b, *Q, 2), or broadcastable to it, in feature-cell units."""
        shape = sites.index.shape[2:]
        outside = maps["value"].shape[1] - 1
        index = sites.index.masked_fill(sites.weight <= 0, outside).flatten(2).permute(1, 2, 0)
        offset = sites.offset[len(sites.offset) // 2].flatten(1, -2)
        first = self._of_cell(cell, shape)
        colors = []
        for image in range(len(maps["value"])):
            own = {name: rows[image] for name, rows in maps.items()}
            queries = Queries(*(part[image if len(part) > 1 else 0] for part in (index, offset, first)))
            colors.append(self._colors(own, queries, position))
        return torch.stack(colors).unflatten(1, shape)

    def _of_cell(self, cell: Tensor | None, shape: torch.Size) -> Tensor:
        """The first layer's bias, and its product with the cell: (b, N or 1, D), float32."""
        layer = self.layers[0]
        with torch.autocast(layer.weight.device.type, enabled=False):
            if cell is None:
                return layer.bias.view(1, 1, -1)
            added = F.linear(cell.to(layer.weight.dtype), layer.weight[:, -2:], layer.bias)
        if added.shape[1:-1].numel() > 1:
            added = added.expand(len(added), *shape, -1)
        return added.flatten(1, -2)

    # One image: maps are (h * w + 1, channels)

    def _colors(self, maps: Mapping[str, Tensor], queries: Queries, position: PositionBias | None) -> Tensor:
        """(N, out)."""
        neighbours, channels = self.side**2, maps["value"].shape[1]
        weight = self.layers[0].weight[:, : neighbours * channels].contiguous()
        values = (BYTES_AT_ONCE if weight.device.type == "cpu" else DEVICE_BYTES_AT_ONCE) // 4
        of_code = neighbours * (4 * channels + len(weight))
        of_query = 3 * neighbours * self.heads + 2 * len(weight)
        groups = list(_groups(queries.index, values, of_code, of_query))
        in_order = on_threads if weight.device.type == "cpu" else map
        if not groups:
            # four times as many: each part reads all of the weight
            parts = torch.arange(len(queries.index), device=weight.device).split(max(1, 4 * values // of_code))
            return torch.cat(
                [*in_order(lambda part: self._rest(self._apart(maps, queries, part, weight, position)), parts)]
            )
        by_head = weight.unflatten(1, (neighbours, self.heads, -1)).permute(2, 1, 3, 0).contiguous()
        colors = [*in_order(lambda group: self._rest(self._together(maps, queries, group, by_head, position)), groups)]
        order = torch.cat([_of_queries(group.query, group.first) for group in groups])
        return torch.cat(colors)[order.argsort()]

    def _apart(
        self, maps: Mapping[str, Tensor], queries: Queries, part: Tensor, weight: Tensor, position: PositionBias | None
    ) -> Tensor:
        """The first layer of each query in ``part`` on its own, (n, D)."""
        index, offset = queries.index[part], queries.offset[part]
        key, value = (_rows(maps[name], index).unflatten(-1, (self.heads, -1)) for name in ("key", "value"))
        query = (_tents(offset).unsqueeze(-1) * _rows(maps["query"], self._near(index))).sum(1)
        logits = (query.unflatten(-1, (1, self.heads, -1)) * key).sum(-1) * key.shape[-1] ** -0.5
        if position is not None:
            rows, columns = position(offset, self.steps)
            logits = logits + (rows.unsqueeze(2) + columns.unsqueeze(1)).flatten(1, 2)
        read = (logits.float().softmax(1).to(value.dtype).unsqueeze(-1) * value).flatten(1)
        return fused_linear(read, weight, None, "none") + _first(queries, part)

    def _together(
        self, maps: Mapping[str, Tensor], queries: Queries, group: Group, weight: Tensor, position: PositionBias | None
    ) -> Tensor:
        """The first layer of the queries of a group, (n, D). ``weight``: (heads, K, width of a head, D)."""
        offset = queries.offset[group.query]
        query = torch.bmm(_tents(offset), _rows(maps["query"], self._near(group.index)))
        query = query.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = (_rows(maps[name], group.index).unflatten(-1, (self.heads, -1)) for name in ("key", "value"))
        logits = query @ key.permute(0, 2, 3, 1) * key.shape[-1] ** -0.5
        if position is not None:
            rows, columns = (bias.permute(0, 3, 1, 2) for bias in position(offset, self.steps))
            logits = logits + (rows.unsqueeze(-1) + columns.unsqueeze(-2)).flatten(-2)
        shares = logits.float().softmax(-1).to(value.dtype)
        value = value.permute(2, 1, 0, 3).contiguous()
        hidden = torch.bmm(shares[:, 0], torch.bmm(value[0], weight[0]).transpose(0, 1))
        for head in range(1, self.heads):
            hidden += torch.bmm(shares[:, head], torch.bmm(value[head], weight[head]).transpose(0, 1))
        return _of_queries(hidden, group.first) + _first(queries, _of_queries(group.query, group.first))

    def _near(self, index: Tensor) -> Tensor:
        """The nine codes in the middle of a window: (..., K) -> (..., 9)."""
        middle = slice(self.side // 2 - 1, self.side // 2 + 2)
        return index.unflatten(-1, (self.side, self.side))[..., middle, middle].flatten(-2)

    def _rest(self, hidden: Tensor) -> Tensor:
        """The colors of a first layer's result."""
        if len(self.layers) == 1:
            return hidden.float()
        hidden = F.gelu(hidden)
        for layer in self.layers[1:-1]:
            hidden = fused_linear(hidden, layer.weight, layer.bias, "gelu")
        return float32_linear(hidden, self.layers[-1].weight, self.layers[-1].bias)


def _groups(index: Tensor, values: int, of_code: int, of_query: int) -> Iterator[Group]:
    """Queries by the code in the middle of their window; nothing where gradients would take more memory, or where
    queries of a code read different windows.

    ``values``: how many a group may take; ``of_code`` and ``of_query``: how many each of its codes and queries takes.
    """
    _, code, counts = torch.unique(index[:, index.shape[1] // 2], return_inverse=True, return_counts=True)
    if torch.is_grad_enabled() and len(counts) * QUERIES_OF_A_CODE > len(index):
        return
    counts, by_count = counts.sort(descending=True, stable=True)  # a group's codes then have about as many queries
    order = by_count.argsort()[code].argsort(stable=True)
    start = counts.cumsum(0) - counts
    window = index[order[start]]
    if not torch.equal(window.repeat_interleave(counts, dim=0), index[order]):
        return
    most, first = counts.tolist(), 0
    while first < len(most):
        part = slice(first, first + max(1, values // (of_code + most[first] * of_query)))
        each = torch.arange(most[first], device=index.device)
        count, first = counts[part].unsqueeze(1), part.stop
        query = order[start[part].unsqueeze(1) + torch.minimum(each, count - 1)]
        yield Group(window[part], query, None if most[part][-1] == most[part][0] else each < count)


def _rows(maps: Tensor, index: Tensor) -> Tensor:
    """(codes, D) at indices of any shape -> (*shape, D)."""
    return maps.index_select(0, index.flatten()).view(*index.shape, -1)


def _of_queries(values: Tensor, first: Tensor | None) -> Tensor:
    """(n, m, ...) of a group -> (queries, ...), each query once."""
    return values.flatten(0, 1) if first is None else values[first]


def _first(queries: Queries, number: Tensor) -> Tensor:
    return queries.first if len(queries.first) == 1 else queries.first[number]


def _tents(offset: Tensor) -> Tensor:
    """Weights (..., 9) of bilinear interpolation of the nine codes around a query, from its offset from the middle."""
    steps = torch.arange(-1, 2, device=offset.device)
    down, across = ((1 - (offset[..., axis, None] - 2 * steps).abs() / 2).clamp(min=0) for axis in (0, 1))
    return (down.unsqueeze(-1) * across.unsqueeze(-2)).flatten(-2)
