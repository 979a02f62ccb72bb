"""SRNO (Wei and Zhang, Super-Resolution Neural Operator, CVPR 2023): Galerkin attention over all queries of an image.

Each attention depends on the set of queries only through one matrix per head, a mean over all queries. These means are
the decoder's statistics, so that queries are decoded in chunks with the same result as in one call, in bounded memory.
Once its matrices are known, an attention and the layer after it are one linear layer, the same for all queries.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from attrs import frozen
from attrs.validators import ge
from torch import Tensor, nn

from liif_core import Component, Importer, Known, LatentField, Maps, Sites, as_rows, blend, gather, hookimpl, option
from liif_core.importing import State, renamed, take_encoder, taken
from liif_core.nn import expect_conditions, float32_linear, fused_linear


@frozen
class SRNOOptions:
    width: int = option("Channels of a query in the attention blocks.", 256, check=ge(2), quick=32)
    heads: int = option("Attention heads of each block.", 16, check=ge(1), quick=4)
    blocks: int = option("Attention blocks.", 2, check=ge(1))
    hidden: int = option("Width of the last hidden layer.", 256, check=ge(1), quick=32)

    def __attrs_post_init__(self) -> None:
        check_heads(self.width, self.heads)


class HeadNorm(nn.Module):
    """Layer normalization of each head's part of a linear layer, divided by the unbiased deviation plus 1e-5."""

    def __init__(self, heads: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(heads, 1, width))
        self.bias = nn.Parameter(torch.zeros(heads, 1, width))

    def forward(self, x: Tensor, layer: nn.Linear) -> Tensor:
        """(B, N, in) -> (B, heads, N, d), float32. The mean is subtracted from the layer, not from its outputs."""
        heads, _, width = self.weight.shape
        weight, bias = (part.unflatten(0, (heads, width)) for part in (layer.weight, layer.bias))
        weight, bias = (part - part.mean(1, keepdim=True) for part in (weight, bias))
        centered = fused_linear(x, weight.flatten(0, 1), bias.flatten(), "none").unflatten(-1, (heads, width)).float()
        deviation = torch.linalg.vector_norm(centered, dim=-1, keepdim=True) / (width - 1) ** 0.5
        return torch.addcmul(self.bias, (centered / (deviation + 1e-5)).transpose(1, 2), self.weight)


class GalerkinBlock(nn.Module):
    """x + second(gelu(first(x + attention(x)))), where attention is q times the mean of k^T v; x is (B, N, width)."""

    def __init__(self, width: int, heads: int, norm: Callable[[int, int], nn.Module]):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.key_norm, self.value_norm = (norm(heads, width // heads) for _ in range(2))
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)

    def statistic(self, x: Tensor) -> Tensor:
        """(B, heads, d, d): the mean of k^T v over these queries, in float32."""
        key, value = self.key_norm(x, self.key), self.value_norm(x, self.value)
        with torch.autocast(x.device.type, enabled=False):
            return key.mT @ value / x.shape[1]

    def layer_of(self, statistic: Tensor) -> Tensor:
        """(B, width, width + 1): weight and bias of the one linear layer that equals attention, sum and ``first``."""
        with torch.autocast(statistic.device.type, enabled=False):
            first, heads = self.first.weight.float(), (self.heads, -1)
            attended = (statistic.mT @ self.query.weight.float().unflatten(0, heads)).flatten(1, 2)
            shift = (statistic.mT @ self.query.bias.float().unflatten(0, heads).unsqueeze(-1)).flatten(1)
            through = attended + torch.eye(*first.shape, device=statistic.device)  # the sum with x
            bias = F.linear(shift, first, self.first.bias.float())
            return torch.cat([first @ through, bias.unsqueeze(-1)], dim=-1)

    def forward(self, x: Tensor, layer: Tensor) -> Tensor:
        weight, bias = layer[..., :-1].to(x.dtype).contiguous(), layer[..., -1].to(x.dtype)
        if len(x) == 1:
            hidden = fused_linear(x, weight[0], bias[0].contiguous(), "gelu")
        else:
            hidden = F.gelu(torch.baddbmm(bias.unsqueeze(1), x, weight.mT))
        return x + fused_linear(hidden, self.second.weight, self.second.bias, "none")


class GalerkinBlocks(nn.ModuleList):
    """Attention blocks, one after the other. Each has a statistic, and becomes a linear layer once that is known.

    ``norm(heads, width)`` makes the normalization of keys and of values.
    """

    def __init__(self, count: int, width: int, heads: int, norm: Callable[[int, int], nn.Module]):
        super().__init__(GalerkinBlock(width, heads, norm) for _ in range(count))

    def statistic(self, x: Tensor, known: Known) -> Tensor:
        """Statistic number ``len(known)``, for what enters the first block, (B, N, width)."""
        for block, layer in zip(self, known):
            x = block(x, layer)
        statistic: Tensor = self._block(len(known)).statistic(x)
        return statistic

    def known_with(self, known: Known, statistic: Tensor) -> Known:
        """``known``, the linear layers of the first blocks, and that of the next one."""
        return (*known, self._block(len(known)).layer_of(statistic))

    def forward(self, x: Tensor, known: Known) -> Tensor:
        """What leaves the last block. Missing statistics are computed from ``x``."""
        for number, block in enumerate(self):
            x = block(x, known[number] if number < len(known) else block.layer_of(block.statistic(x)))
        return x

    def _block(self, number: int) -> Any:
        return self[number]


def check_heads(width: int, heads: int) -> None:
    """Raises ValueError for heads that cannot share the channels evenly, two or more for each."""
    if width % heads or width // heads < 2:
        raise ValueError(f"heads: each needs the same part of width ({width}), at least 2, got {heads}")


def published_block(state: State, number: int, heads: int, owner: str) -> State:
    """The queries, keys and values of a published attention block, which are removed from ``state``; with our names.

    Each head has its own q, k and v there, one after the other.
    """
    found = {}
    for part in ("weight", "bias"):
        joined = taken(state, f"conv{number}.qkv_proj.{part}", owner)
        for name, value in zip(("query", "key", "value"), joined.unflatten(0, (heads, 3, -1)).unbind(1)):
            found[f"blocks.{number}.{name}.{part}"] = value.flatten(0, 1)
    return found


class SRNO(nn.Module):
    """Codes, the query's offsets from them and its cell -> out_channels. The paper adds the bilinear LR image."""

    needs = frozenset({"coordinate", "cell"})
    scale_dependent = False
    radius = 0

    def __init__(
        self, options: SRNOOptions, in_channels: int, out_channels: int, conditions: Mapping[str, int], neighbours: int
    ):
        super().__init__()
        expect_conditions(conditions, coordinate=2, cell=2)
        self.num_statistics = options.blocks
        self.neighbours = neighbours
        self.code = nn.Linear(neighbours * in_channels, options.width, bias=False)
        self.condition = nn.Linear(2 * neighbours + 2, options.width)
        self.blocks = GalerkinBlocks(options.blocks, options.width, options.heads, HeadNorm)
        self.first = nn.Linear(options.width, options.hidden)
        self.last = nn.Linear(options.hidden, out_channels)

    def prepare(self, field: LatentField, image_conditions: Mapping[str, Tensor]) -> Maps:
        """The first layer's product with each code as the first, second, ... neighbour: (B, h * w * K, width)."""
        weight = self.code.weight.unflatten(1, (self.neighbours, -1)).transpose(0, 1)  # (K, width, in_channels)
        rows = as_rows(field.linear(weight.flatten(0, 1)))
        return {"code": rows.unflatten(2, (self.neighbours, -1)).flatten(1, 2)}

    def partial_statistic(self, maps: Maps, sites: Sites, conditions: Mapping[str, Tensor], known: Known) -> Tensor:
        return self.blocks.statistic(self._entered(maps, sites, conditions).flatten(1, -2), known)

    def with_statistic(self, known: Known, statistic: Tensor) -> Known:
        """Keeps, of each statistic, the linear layer of its block."""
        return self.blocks.known_with(known, statistic)

    def decode(self, maps: Maps, sites: Sites, conditions: Mapping[str, Tensor], known: Known = ()) -> Tensor:
        entered = self._entered(maps, sites, conditions)
        x = self.blocks(entered.flatten(1, -2), known)
        hidden = fused_linear(x, self.first.weight, self.first.bias, "gelu")
        return float32_linear(hidden, self.last.weight, self.last.bias).unflatten(1, entered.shape[1:-1])

    def _entered(self, maps: Maps, sites: Sites, conditions: Mapping[str, Tensor]) -> Tensor:
        """(B, *Q, width): the first layer of the neighbours' offsets, their codes times their weights, and the cell."""
        own = torch.arange(self.neighbours, device=sites.index.device).view(-1, *[1] * (sites.index.ndim - 1))
        code = blend(gather(maps["code"], sites.index * self.neighbours + own), sites.weight)
        with torch.autocast(code.device.type, enabled=False):
            offset = conditions["coordinate"].movedim(0, -2).flatten(-2)
            cell = conditions["cell"][0].expand(*offset.shape[:-1], 2)
            condition = F.linear(
                torch.cat([offset, cell], dim=-1), self.condition.weight.float(), self.condition.bias.float()
            )
        return code + condition.to(code.dtype)


def _import_srno(arguments: dict, state: dict, encoder: Callable) -> tuple[dict, dict]:
    encoder_table, result, rest = take_encoder(arguments, state, encoder)
    width, heads = arguments.get("width", 256), arguments.get("blocks", 16)  # published as "blocks"
    table = {
        "residual": "bilinear",
        "encoder": encoder_table,
        "features": {"use": "identity"},
        "sampling": {"use": "local-ensemble"},
        "conditioning": [{"use": "coordinate"}, {"use": "cell"}],
        "decoder": {"use": "srno", "width": width, "heads": heads},
    }
    rest = {name: value.flatten(1) if value.ndim == 4 else value for name, value in rest.items()}  # 1x1 convolutions
    entry, bias = (taken(rest, f"conv00.{part}", "SRNO") for part in ("weight", "bias"))
    decoder = {  # eight offsets, the codes, the cell
        "condition.weight": torch.cat([entry[:, :8], entry[:, -2:]], dim=1),
        "condition.bias": bias,
        "code.weight": entry[:, 8:-2],
    }
    names = {"fc1": "first", "fc2": "last"}
    for i in range(2):
        decoder |= published_block(rest, i, heads, "SRNO")
        names |= {f"conv{i}.kln": f"blocks.{i}.key_norm", f"conv{i}.vln": f"blocks.{i}.value_norm"}
        names |= {f"conv{i}.o_proj1": f"blocks.{i}.first", f"conv{i}.o_proj2": f"blocks.{i}.second"}
    decoder |= renamed(rest, names, "SRNO")
    return table, result | {f"decoder.{name}": value for name, value in decoder.items()}


@hookimpl
def liif_decoders():
    return Component("srno", SRNO, SRNOOptions, lambda o: f"SRNO {o.blocks}x{o.width}")


@hookimpl
def liif_importers():
    return Importer("model", "sronet", _import_srno)
