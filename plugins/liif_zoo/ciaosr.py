"""CiaoSR (Cao et al., CiaoSR: Continuous Implicit Attention-in-Attention Network for Arbitrary-Scale Image
Super-Resolution, CVPR 2023).

A query blends the codes around it by attention: their weights are a softmax of products of its nearest code with the
codes, which a network changes by their offsets and the cell. Codes are unfolded features, and non-local maps, which
gather similar places of the image at a larger scale, by attention as well.
"""

from collections.abc import Mapping
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from attrs import frozen
from attrs.validators import deep_iterable, ge, gt, in_
from torch import Tensor, nn

from liif_core import Component, Importer, LatentField, Maps, Query, Sites, as_rows, blend, gather, hookimpl, option
from liif_core.nn import expect_conditions, float32_linear, fused_linear, nearest_code
from liif_zoo.ciaosr_attention import SCALES, CrossScaleAttention
from liif_zoo.ciaosr_import import import_official, import_port

_SHIFT = 1e-6  # moves a query that lies exactly between two codes to one side
_SIDES = {1: (0,), 2: (-1, 1), 3: (-1, 0, 1)}

_widths = deep_iterable(ge(1))


# Which codes a query reads


@frozen
class CiaoSamplingOptions:
    local_size: int = option(
        "Codes along each axis that are blended: 2, or 1 for the nearest alone, or 3.", 2, check=in_(tuple(_SIDES))
    )


class CiaoSampling(nn.Module):
    """The nearest code, and the codes nearest to positions around the query. All have the same weight.

    The positions are (1 - cell) / (n - 1) away along an axis of n codes, where LIIF's are 1 / n away.
    """

    reach = 1

    def __init__(self, options: CiaoSamplingOptions):
        super().__init__()
        self.sides = _SIDES[options.local_size]
        self.neighbours = 1 + len(self.sides) ** 2

    def forward(self, query: Query, grid: tuple[int, int]) -> Sites:
        with torch.autocast(query.cell.device.type, enabled=False):
            cells = query.cell.unbind(-1)
            rows, columns = (self._axis(place, cells[axis], grid[axis]) for axis, place in enumerate(query.places))
            pairs = [(rows[0], columns[0]), *product(rows[1:], columns[1:])]
            index = torch.stack([row * grid[1] + column for (row, _), (column, _) in pairs])
            offset = torch.stack(
                [torch.stack(torch.broadcast_tensors(down, across), dim=-1) for (_, down), (_, across) in pairs]
            )
            weight = torch.full(index.shape, 1 / len(pairs), device=index.device)
        return Sites(index, offset, weight)

    def _axis(self, position: Tensor, cell: Tensor, codes: int) -> list[tuple[Tensor, Tensor]]:
        """Index and offset, in feature-cell units, of the nearest code, and of those on all sides of a position."""
        shift = (1 - cell.clamp(0, 2)) / max(1, codes - 1)
        found = []
        for side in (0, *self.sides):
            index, center = nearest_code(position + (side * shift + _SHIFT) if side else position, codes)
            found.append((index, ((position - center) * codes).expand(index.shape)))
        return found


# Colors


@frozen
class CiaoSROptions:
    query: tuple[int, ...] = option(
        "Widths of the hidden layers of the network that computes colors.",
        (256, 256, 256, 256),
        check=_widths,
        quick=(32,),
    )
    key: tuple[int, ...] = option(
        "Widths of the hidden layers of the network that changes keys.",
        (256, 256, 256, 256),
        check=_widths,
        quick=(32,),
    )
    value: tuple[int, ...] = option(
        "Widths of the hidden layers of the network that changes values.",
        (256, 256, 256, 256),
        check=_widths,
        quick=(32,),
    )
    unfold: int = option("Side of the square of features that are joined to a code: 3 or 1.", 3, check=in_((1, 3)))
    scales: tuple[int, ...] = option(
        "Scales of the non-local maps, each 2, 3 or 4; none: no such maps.", (2,), check=deep_iterable(in_(SCALES))
    )
    softmax_scale: float = option("What the products of queries and keys are divided by.", 1.0, check=gt(0))

    def __attrs_post_init__(self) -> None:
        if len(set(self.scales)) < len(self.scales):
            raise ValueError(f"scales: expected each scale once, got {list(self.scales)}")


class CiaoSR(nn.Module):
    """Codes, the query's offsets from them and its cell -> out_channels. The paper adds the bilinear LR image.

    The first neighbour is the query's own code, which the others are compared with (see ``CiaoSampling``); its offset,
    and the weights of the sampling, have no effect. Codes are features that were not unfolded: ``prepare`` does that.
    """

    needs = frozenset({"coordinate", "cell"})
    num_statistics = 0
    scale_dependent = False

    def __init__(
        self,
        options: CiaoSROptions,
        in_channels: int,
        out_channels: int,
        conditions: Mapping[str, int],
        neighbours: int,
    ):
        super().__init__()
        expect_conditions(conditions, coordinate=2, cell=2)
        if neighbours < 2:
            raise ValueError('sampling: expected the nearest code and others to blend, such as use = "ciaosr"')
        self.radius = None if options.scales else options.unfold // 2
        self.size, self.scales, self.softmax_scale = options.unfold, options.scales, options.softmax_scale
        self.unfolded = in_channels * options.unfold**2
        joined = self.unfolded + in_channels * len(options.scales)
        self.key_layers: Any = _mlp(self.unfolded + 4, options.key, self.unfolded)
        self.value_layers: Any = _mlp(joined + 4, options.value, joined)
        self.query_layers: Any = _mlp(joined, options.query, out_channels)
        if options.scales:
            self.attention = CrossScaleAttention(in_channels, options.scales)

    def prepare(self, field: LatentField, image_conditions: Mapping[str, Tensor]) -> Maps:
        """Codes, and the products of the codes with the first layers of both networks that read them."""
        features = field.dense()
        unfolded = F.unfold(features, self.size, padding=self.size // 2).mT.contiguous()
        key, value = self.key_layers[0], self.value_layers[0]
        weight = torch.cat([key.weight[:, : self.unfolded], value.weight[:, : self.unfolded]])
        kernel = weight.unflatten(1, (-1, self.size, self.size))
        entry = F.conv2d(features, kernel, torch.cat([key.bias, value.bias]), padding=self.size // 2)
        maps = {"unfolded": unfolded, "entry": as_rows(entry)}
        if self.scales:
            rows = as_rows(torch.cat([self.attention(features, scale) for scale in self.scales], dim=1))
            of_value = fused_linear(rows, value.weight[:, self.unfolded : -4].contiguous(), None, "none")
            maps["nonlocal"] = rows
            maps["entry"] = maps["entry"] + F.pad(of_value, (len(key.weight), 0))
        return maps

    def decode(self, maps: Maps, sites: Sites, conditions: Mapping[str, Tensor]) -> Tensor:
        codes = gather(maps["unfolded"], sites.index)
        own, near = codes[0], codes[1:]
        key, value = self._changes(maps, sites, conditions)
        products = (own * near * key).sum(-1, dtype=torch.float32)
        joined = torch.cat([near, gather(maps["nonlocal"], sites.index[1:])], dim=-1) if self.scales else near
        hidden = blend(joined * value, torch.softmax(products / self.softmax_scale, dim=0))
        *layers, last = self.query_layers
        for layer in layers:
            hidden = fused_linear(hidden, layer.weight, layer.bias, "relu")
        return float32_linear(hidden, last.weight, last.bias)

    def _changes(self, maps: Maps, sites: Sites, conditions: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What keys and values are multiplied by: (S, B, *Q, width) each, for S neighbours."""
        offset, cell = torch.broadcast_tensors(conditions["coordinate"][1:], conditions["cell"])
        about = torch.cat([offset, cell], dim=-1)
        first = [layers[0].weight[:, -4:] for layers in (self.key_layers, self.value_layers)]
        entry = gather(maps["entry"], sites.index[1:])
        entry = entry + float32_linear(about, torch.cat(first)).to(entry.dtype)
        parts = entry.split([len(weight) for weight in first], dim=-1)
        key, value = (_after_first(layers, part) for layers, part in zip((self.key_layers, self.value_layers), parts))
        return key, value


def _mlp(in_channels: int, hidden: tuple[int, ...], out_channels: int) -> nn.ModuleList:
    widths = [in_channels, *hidden, out_channels]
    return nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))


def _after_first(layers: Any, x: Tensor) -> Tensor:
    """All layers but the first, whose result is ``x``."""
    if len(layers) == 1:
        return x
    x = x.relu()
    for number, layer in enumerate(layers[1:], start=2):
        x = fused_linear(x, layer.weight, layer.bias, "none" if number == len(layers) else "relu")
    return x


def _description(options: CiaoSROptions) -> str:
    return f"CiaoSR {'-'.join(map(str, options.query))}".rstrip()


@hookimpl
def liif_samplings():
    return Component("ciaosr", CiaoSampling, CiaoSamplingOptions)


@hookimpl
def liif_decoders():
    return Component("ciaosr", CiaoSR, CiaoSROptions, _description)


@hookimpl
def liif_importers():
    return [Importer("model", "ciaosr", import_port), Importer("file", "ciaosr", import_official)]
