"""HIIF (Jiang et al., HIIF: Hierarchical Encoding based Implicit Image Function for Continuous Super-resolution,
CVPR 2025).

A query's position within a feature cell is written in binary. Its digits, from coarse to fine, enter a network level by
level. After the first level there is attention over all queries of the image, as in SRNO. It depends on the set of
queries only through one matrix per head and block, a mean over all queries: these means are the decoder's statistics.
The published code attends to windows of rows when it evaluates, which changes the result; this decoder attends to all.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from attrs import frozen
from attrs.validators import ge
from torch import Tensor, nn

from liif_core import (
    Component,
    Importer,
    Known,
    LatentField,
    Maps,
    Query,
    Sites,
    as_rows,
    blend,
    gather,
    hookimpl,
    option,
)
from liif_core.importing import renamed, take_encoder
from liif_core.nn import expect_conditions, float32_linear, fused_linear, linear
from liif_zoo.srno import GalerkinBlocks, check_heads, published_block

LEVELS = 6  # binary digits of a position
CORNERS = 4  # codes that a query reads
BLOCKS = 2  # of attention, after the first level
_SMALLEST_AREA = 1e-9
_SMALLEST_VARIANCE = 1e-5
_STEP = 1e-9  # is subtracted from positions before their digits are taken


class Hierarchy(nn.Module):
    """Six binary digits of the query's position between the codes around it, from coarse to fine, each for y and x.

    Positions are counted from the first code that the sampling gives, of which one cell is 1. Before the first code of
    an image, and at a code's own position, they are continued as the published code does: 1 / h - position. They are in
    float32 and depend on its rounding, because many pixels lie exactly where a digit changes.
    """

    channels = 2 * LEVELS
    scope = "query"

    def forward(self, query: Query, sites: Sites, grid: tuple[int, int]) -> Tensor:
        with torch.autocast(sites.offset.device.type, enabled=False):
            offset = sites.offset[:1].detach() / 2
            place = torch.stack(
                [torch.where(part > 0, part, 1 / codes - part) for part, codes in zip(offset.unbind(-1), grid)], dim=-1
            )
            place = (place - _STEP).clamp(0, 1)
            return torch.cat([(place * 2 ** (level + 1)).floor().remainder(2) for level in range(LEVELS)], dim=-1)


@frozen
class HIIFOptions:
    width: int = option("Channels of the codes and of a query between the levels.", 256, check=ge(2), quick=32)
    heads: int = option("Attention heads of each block.", 16, check=ge(1), quick=4)
    hidden: int = option("Width of the hidden layer of each level.", 256, check=ge(1), quick=32)

    def __attrs_post_init__(self) -> None:
        check_heads(self.width, self.heads)


class SharedHeadNorm(nn.Module):
    """Layer normalization of each head's part of a linear layer, with the same weights for all heads."""

    def __init__(self, heads: int, width: int):
        super().__init__()
        self.heads = heads
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, layer: nn.Linear) -> Tensor:
        """(B, N, in) -> (B, heads, N, d), float32. The mean is subtracted from the layer, not from its outputs."""
        width = len(self.weight)
        weight, bias = (part.unflatten(0, (self.heads, width)) for part in (layer.weight, layer.bias))
        weight, bias = (part - part.mean(1, keepdim=True) for part in (weight, bias))
        centered = linear(x, weight.flatten(0, 1), bias.flatten()).unflatten(-1, (-1, width)).float()
        variance = torch.linalg.vector_norm(centered, dim=-1, keepdim=True).square() / width
        scaled = centered * (variance + _SMALLEST_VARIANCE).rsqrt()
        return torch.addcmul(self.bias, scaled, self.weight).transpose(1, 2)


class Level(nn.Module):
    """second(gelu(first(norm(x)))); the second layer in float32 where it computes colors."""

    def __init__(self, in_channels: int, hidden: int, out_channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(in_channels)
        self.first = nn.Linear(in_channels, hidden)
        self.second = nn.Linear(hidden, out_channels)

    def forward(self, x: Tensor, digits: Tensor, last: bool) -> Tensor:
        """x (B, N, width) and digits (B, N, 2) -> (B, N, out_channels)."""
        x = self.norm(torch.cat([x.float(), digits], dim=-1))
        hidden = fused_linear(x, self.first.weight, self.first.bias, "gelu")
        layer = float32_linear if last else linear
        return layer(hidden, self.second.weight, self.second.bias)


class HIIF(nn.Module):
    """Codes, the query's cell and its binary digits -> out_channels. The paper adds the bilinear LR image.

    It computes the weights of the four codes itself, from their offsets: they are those of 'local-ensemble', but where
    all areas vanish, at the center of a code.
    """

    needs = frozenset({"cell", "hierarchy"})
    num_statistics = BLOCKS
    scale_dependent = False
    radius = 1
    queries_at_once = 1024

    def __init__(
        self, options: HIIFOptions, in_channels: int, out_channels: int, conditions: Mapping[str, int], neighbours: int
    ):
        super().__init__()
        expect_conditions(conditions, cell=2, hierarchy=2 * LEVELS)
        if neighbours != CORNERS:
            raise ValueError(f"sampling: reads {neighbours} codes, expected the {CORNERS} of 'local-ensemble'")
        width = options.width
        self.codes = nn.Conv2d(in_channels, width, 3, padding=1)
        sizes = [CORNERS * width + 4, *[width + 2] * (LEVELS - 1)]
        outputs = [*[width] * (LEVELS - 1), out_channels]
        self.levels: Any = nn.ModuleList(Level(size, options.hidden, out) for size, out in zip(sizes, outputs))
        self.blocks = GalerkinBlocks(BLOCKS, width, options.heads, SharedHeadNorm)

    def prepare(self, field: LatentField, image_conditions: Mapping[str, Tensor]) -> Maps:
        """The first layer's product with each code as the first, second, ... corner, and each code's moments.

        The moments are the mean of a code and the sum of squares of its deviations from that.
        """
        codes = self.codes(field.dense())
        level = self.levels[0]
        weight = (level.first.weight * level.norm.weight)[:, :-4].unflatten(1, (CORNERS, -1))
        weight = weight.transpose(0, 1).flatten(0, 1)  # (4 * hidden, width)
        products = as_rows(F.conv2d(codes, weight[:, :, None, None].to(codes.dtype)))
        numbers = as_rows(codes).float()
        mean = numbers.mean(-1, keepdim=True)
        moments = torch.cat([mean, (numbers - mean).square().sum(-1, keepdim=True)], dim=-1)
        return {"product": products.unflatten(2, (CORNERS, -1)).flatten(1, 2), "moments": moments}

    def partial_statistic(self, maps: Maps, sites: Sites, conditions: Mapping[str, Tensor], known: Known) -> Tensor:
        return self.blocks.statistic(self._entered(maps, sites, conditions).flatten(1, -2), known)

    def with_statistic(self, known: Known, statistic: Tensor) -> Known:
        """Keeps, of each statistic, the linear layer of its block."""
        return self.blocks.known_with(known, statistic)

    def decode(self, maps: Maps, sites: Sites, conditions: Mapping[str, Tensor], known: Known = ()) -> Tensor:
        entered = self._entered(maps, sites, conditions)
        x = self.blocks(entered.flatten(1, -2), known)
        digits = conditions["hierarchy"][0].expand(*entered.shape[:-1], 2 * LEVELS).flatten(1, -2).split(2, dim=-1)
        for level, its_digits in zip(self.levels[1:], digits[1:]):
            x = level(x, its_digits, last=level is self.levels[-1])
        return x.unflatten(1, entered.shape[1:-1])

    def _entered(self, maps: Maps, sites: Sites, conditions: Mapping[str, Tensor]) -> Tensor:
        """(B, *Q, width): the first level, of the neighbours' codes times their weights, the cell and two digits.

        Its normalization is applied to the linear layer: mean and deviation follow from the moments of the codes.
        """
        level = self.levels[0]
        own = torch.arange(CORNERS, device=sites.index.device).view(-1, *[1] * (sites.index.ndim - 1))
        with torch.autocast(sites.offset.device.type, enabled=False):
            area = sites.offset.prod(-1).abs() / 4 + _SMALLEST_AREA
            weight = area.flip(0) / area.sum(0)
            moments = gather(maps["moments"], sites.index)
            shape = moments.shape[1:-1]
            rest = [conditions["cell"][0].expand(*shape, 2), conditions["hierarchy"][0][..., :2].expand(*shape, 2)]
            mean, factor = self._moments(moments, weight, torch.cat(rest, dim=-1))
            of_rest = level.first.weight[:, -4:] * level.norm.weight[-4:]
            of_mean = -F.linear(level.norm.weight, level.first.weight)
            bias = F.linear(level.norm.bias, level.first.weight, level.first.bias)
            product = _blended(maps["product"], sites.index * CORNERS + own, weight * factor.squeeze(-1))
            rest = torch.cat([*(part * factor for part in (*rest, mean)), torch.ones_like(mean)], dim=-1)
            by = torch.cat([of_rest, of_mean.unsqueeze(1), bias.unsqueeze(1)], dim=1)
            inner = torch.addmm(product.flatten(0, -2).float(), rest.flatten(0, -2), by.t())
            hidden = F.gelu(inner).unflatten(0, shape)
        return linear(hidden, level.second.weight, level.second.bias)

    def _moments(self, of_codes: Tensor, weight: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
        """(B, *Q, 1) each: mean, and 1 / standard deviation, of the vector that the first level normalizes."""
        width, size = self.codes.out_channels, self.levels[0].norm.normalized_shape[0]
        means, squares = of_codes[..., 0] * weight, of_codes[..., 1] * weight.square()
        mean = (means.sum(0) * width + rest.sum(-1)) / size
        squares = squares.sum(0) + width * (means - mean).square().sum(0) + (rest - mean.unsqueeze(-1)).square().sum(-1)
        return mean.unsqueeze(-1), (squares / size + self.levels[0].norm.eps).rsqrt().unsqueeze(-1)


def _blended(rows: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """``blend(gather(rows, index), weight)``. Without gradients, in one pass over what is gathered."""
    if torch.is_grad_enabled() or rows.dtype != torch.float32:
        return blend(gather(rows, index), weight)
    batch, codes, width = rows.shape
    first = torch.arange(0, batch * codes, codes, device=index.device).view(1, batch, *[1] * (index.ndim - 2))
    index, weight = torch.broadcast_tensors(index + first, weight)
    bags, weights = (part.flatten(1).t().contiguous() for part in (index, weight))
    summed = F.embedding_bag(bags, rows.reshape(-1, width), per_sample_weights=weights, mode="sum")
    return summed.unflatten(0, index.shape[1:])


def _import_hiif(arguments: dict, state: dict, encoder: Callable) -> tuple[dict, dict]:
    encoder_table, result, rest = take_encoder(arguments, state, encoder)
    width, heads = arguments.get("hidden_dim", 256), arguments.get("blocks", 16)  # published as "blocks"
    decoder: dict[str, Tensor] = {}
    names = {"freq": "codes"}
    for i in range(BLOCKS):
        decoder |= published_block(rest, i, heads, "HIIF")
        names |= {f"conv{i}.kln": f"blocks.{i}.key_norm", f"conv{i}.vln": f"blocks.{i}.value_norm"}
        names |= {f"conv{i}.proj1": f"blocks.{i}.first", f"conv{i}.proj2": f"blocks.{i}.second"}
    for n in range(LEVELS):
        names |= {f"fc_layers.{n}.{part}": f"levels.{n}.{ours}" for part, ours in _LAYERS.items()}
    decoder |= renamed(rest, names, "HIIF")
    table = {
        "residual": "bilinear",
        "encoder": encoder_table,
        "features": {"use": "identity"},
        "sampling": {"use": "local-ensemble"},
        "conditioning": [{"use": "cell"}, {"use": "hierarchy"}],
        "decoder": {"use": "hiif", "width": width, "heads": heads},
    }
    return table, result | {f"decoder.{name}": value for name, value in decoder.items()}


_LAYERS = {"norm": "norm", "fc1": "first", "fc2": "second"}


@hookimpl
def liif_conditionings():
    return Component("hierarchy", lambda options: Hierarchy())


@hookimpl
def liif_decoders():
    return Component("hiif", HIIF, HIIFOptions, lambda o: f"HIIF {o.width}")


@hookimpl
def liif_importers():
    return Importer("model", "hiif", _import_hiif)
