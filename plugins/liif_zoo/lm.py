"""LM-LIIF and LM-LTE (He and Jin, Latent Modulated Function for Computational Optimal Continuous Image Representation,
CVPR 2024): a large network runs once per code, and computes the scales and shifts of a small one, which runs once per
query.

Whatever depends on the code and on the image's cell alone is computed in ``prepare``: the biases, and the parts of the
first layer that read the code and the cell, are included in the shifts that a query gathers.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from attrs import frozen
from attrs.validators import deep_iterable, ge
from torch import Tensor, nn

from liif_core import Component, Importer, LatentField, Maps, Sites, as_rows, blend, gather, hookimpl, option
from liif_core.importing import mlp_names, mlp_widths, renamed, take_encoder
from liif_core.nn import (
    expect_conditions,
    float32_linear,
    fourier_features,
    fused_linear,
    linear,
    phases,
    y_then_x,
)
from liif_zoo.lte import even


class ModulatedMLP(nn.Module):
    """``depth`` layers relu(linear(x) * (1 + scale) + shift), with scales and shifts of the code; then a linear one."""

    def __init__(self, in_width: int, width: int, depth: int, out_channels: int):
        super().__init__()
        self.width = width
        self.layers: Any = nn.ModuleList(nn.Linear(in_width if i == 0 else width, width) for i in range(depth))
        self.last = nn.Linear(width, out_channels)
        self.modulations = 2 * depth * width  # values of a code: all scales, then all shifts

    def settled(self, modulation: Tensor, known: Tensor | None = None) -> Tensor:
        """Modulations (..., modulations) with the biases included: the factors of all layers, then their shifts.

        ``known`` (..., width) is the part of the first layer's product that does not depend on the query.
        """
        scale, shift = (part.unflatten(-1, (-1, self.width)) for part in modulation.chunk(2, dim=-1))
        bias = torch.stack([layer.bias for layer in self.layers])
        if known is not None:
            bias = torch.cat([(known + bias[0]).unsqueeze(-2), bias[1:].expand(*known.shape[:-1], -1, -1)], dim=-2)
        scale = 1 + scale
        return torch.cat([scale.flatten(-2), torch.addcmul(shift, scale, bias).flatten(-2)], dim=-1)

    def forward(self, product: Tensor, settled: Tensor, weight: Tensor) -> Tensor:
        """The first layer's product (K, B, *Q, width), without its known part -> (B, *Q, out_channels), blended."""
        scales, shifts = (part.split(self.width, dim=-1) for part in settled.chunk(2, dim=-1))
        x = torch.addcmul(shifts[0], product, scales[0]).relu_()
        for layer, scale, shift in zip(self.layers[1:], scales[1:], shifts[1:]):
            x = torch.addcmul(shift, F.linear(x, layer.weight), scale).relu_()
        # the last layer is linear, and the weights sum to 1
        return float32_linear(blend(x, weight), self.last.weight, self.last.bias)


@frozen
class LMLIIFOptions:
    width: int = option("Width of the layers that run once per query.", 16, check=ge(1), quick=8)
    depth: int = option("Number of these layers that are modulated.", 6, check=ge(1), quick=3)
    latent: tuple[int, ...] = option(
        "Widths of the hidden layers of the network that runs once per code.",
        (208,),
        check=deep_iterable(ge(1)),
        quick=(32,),
    )


class LMLIIF(nn.Module):
    """Codes, the query's offset from them and, if there is that condition, its cell -> out_channels."""

    needs = frozenset({"coordinate"})
    num_statistics = 0
    radius = 0

    def __init__(
        self,
        options: LMLIIFOptions,
        in_channels: int,
        out_channels: int,
        conditions: Mapping[str, int],
        neighbours: int,
    ):
        super().__init__()
        expect_conditions(conditions, coordinate=2, cell=2)
        self.scale_dependent = "cell" in conditions
        cell = 2 if self.scale_dependent else 0
        self.in_channels = in_channels
        self.render = ModulatedMLP(options.width + 2 + cell, options.width, options.depth, out_channels)
        widths = [in_channels + cell, *options.latent, self.render.modulations + options.width]
        self.latent: Any = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))

    def prepare(self, field: LatentField, image_conditions: Mapping[str, Tensor]) -> Maps:
        first, width = self.latent[0], self.render.width
        x = as_rows(field.linear(first.weight[:, : self.in_channels], first.bias))
        if self.scale_dependent:
            x = x + F.linear(image_conditions["cell"], first.weight[:, self.in_channels :]).unsqueeze(1)
        for layer in self.latent[1:]:
            x = linear(x.relu(), layer.weight, layer.bias)
        code, entry = x[..., -width:], self.render.layers[0].weight
        known = F.linear(code, entry[:, :width])
        if self.scale_dependent:
            known = known + F.linear(image_conditions["cell"], entry[:, -2:]).unsqueeze(1)
        return {"modulation": self.render.settled(x[..., :-width], known)}

    def decode(self, maps: Maps, sites: Sites, conditions: Mapping[str, Tensor]) -> Tensor:
        modulation = gather(maps["modulation"], sites.index)
        width = self.render.width
        with torch.autocast(modulation.device.type, enabled=False):
            product = F.linear(conditions["coordinate"], self.render.layers[0].weight[:, width : width + 2].float())
        return self.render(product.to(modulation.dtype), modulation, sites.weight)


@frozen
class LMLTEOptions:
    width: int = option("Width of the layers that run once per query; even.", 16, check=even, quick=8)
    depth: int = option("Number of these layers that are modulated.", 8, check=ge(1), quick=3)
    latent: tuple[int, ...] = option(
        "Widths of the hidden layers of the network that runs once per code.",
        (288,),
        check=deep_iterable(ge(1)),
        quick=(32,),
    )
    channels: int = option("Channels of a code's coefficients and of its frequencies; even.", 128, check=even, quick=16)


class LMLTE(nn.Module):
    """Codes, the query's offset from them and its cell -> out_channels. The paper adds the bilinear LR image."""

    needs = frozenset({"coordinate", "cell"})
    num_statistics = 0
    scale_dependent = True
    radius = 1  # of the 3x3 convolutions in ``prepare``

    def __init__(
        self, options: LMLTEOptions, in_channels: int, out_channels: int, conditions: Mapping[str, int], neighbours: int
    ):
        super().__init__()
        expect_conditions(conditions, coordinate=2, cell=2)
        self.coefficient = nn.Conv2d(in_channels, options.channels, 3, padding=1)
        self.frequency = nn.Conv2d(in_channels, options.channels, 3, padding=1)  # in pairs (y, x)
        self.phase = nn.Linear(2, options.channels // 2, bias=False)
        self.render = ModulatedMLP(options.width, options.width, options.depth, out_channels)
        self.render_phase = nn.Linear(2, options.width // 2, bias=False)
        widths = [options.channels, *options.latent, self.render.modulations + 2 * options.width]
        self.latent: Any = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))

    def prepare(self, field: LatentField, image_conditions: Mapping[str, Tensor]) -> Maps:
        codes = field.dense()
        assert self.frequency.bias is not None
        frequency = F.conv2d(codes, y_then_x(self.frequency.weight), y_then_x(self.frequency.bias), padding=1)
        phase = phases(image_conditions["cell"], self.phase.weight).unsqueeze(1)
        x = fourier_features(as_rows(self.coefficient(codes)), as_rows(frequency), phase.new_ones(2), phase)
        for layer in self.latent[:-1]:
            x = fused_linear(x, layer.weight, layer.bias, "relu")
        x = linear(x, self.latent[-1].weight, self.latent[-1].bias)
        *modulation, amplitude, frequency = x.split(self.render.width, dim=-1)
        waves = torch.cat([amplitude, y_then_x(frequency, dim=-1)], dim=-1)
        return {"modulation": self.render.settled(torch.cat(modulation, dim=-1)), "waves": waves}

    def decode(self, maps: Maps, sites: Sites, conditions: Mapping[str, Tensor]) -> Tensor:
        modulation, waves = (gather(maps[name], sites.index) for name in ("modulation", "waves"))
        phase = phases(conditions["cell"], self.render_phase.weight)
        amplitude, frequency = waves.chunk(2, dim=-1)
        x = fourier_features(amplitude, frequency, conditions["coordinate"], phase)
        return self.render(F.linear(x, self.render.layers[0].weight), modulation, sites.weight)


def _tables(arguments: dict, encoder: dict, decoder: dict) -> dict:
    """The ``[model]`` table of either decoder. Raises ValueError for variants that are not supported."""
    network = arguments["imnet_spec"]
    if network["name"] != "lmmlp":
        raise ValueError(f"imnet {network['name']!r}: only 'lmmlp' is known")
    for place, name in ((network["args"], "mod_scale"), (network["args"], "mod_shift"), (arguments, "mod_input")):
        if not place.get(name, name != "mod_input"):
            raise ValueError(f"{name} = false: only true is known")
    size = {"width": network["args"]["hidden_dim"], "depth": network["args"]["hidden_depth"]}
    return {
        "channels": network["args"].get("out_dim", 3),
        "encoder": encoder,
        "sampling": {"use": "local-ensemble" if arguments.get("local_ensemble", True) else "nearest"},
        "decoder": {**decoder, **size, "latent": mlp_widths(arguments, "hypernet")},
    }


def _names(state: dict) -> dict[str, str]:
    names = mlp_names(state, "hypernet.layers", "decoder.latent") | mlp_names(
        state, "imnet.layers", "decoder.render.layers"
    )
    rendering = [name for name in names if name.startswith("imnet.")]
    if not rendering:
        raise ValueError("LMF has parameters 'imnet.layers', which are missing")
    return names | {max(rendering, key=lambda name: int(name.rpartition(".")[2])): "decoder.render.last"}


def _import_lm_liif(arguments: dict, state: dict, encoder: Callable) -> tuple[dict, dict]:
    encoder_table, result, rest = take_encoder(arguments, state, encoder)
    table = _tables(arguments, encoder_table, {"use": "lm-liif"})
    table["features"] = {"use": "unfold", "size": 3} if arguments.get("feat_unfold", True) else {"use": "identity"}
    table["conditioning"] = [{"use": "coordinate"}] + ([{"use": "cell"}] if arguments.get("cell_decode", True) else [])
    return table, result | renamed(rest, _names(rest), "LM-LIIF")


def _import_lm_lte(arguments: dict, state: dict, encoder: Callable) -> tuple[dict, dict]:
    if not arguments.get("cell_decode", True):
        raise ValueError("cell_decode = false: only true is known")
    encoder_table, result, rest = take_encoder(arguments, state, encoder)
    table = _tables(arguments, encoder_table, {"use": "lm-lte", "channels": arguments.get("hidden_dim", 256)})
    table |= {"residual": "bilinear", "features": {"use": "identity"}}
    table["conditioning"] = [{"use": "coordinate"}, {"use": "cell"}]
    waves = {"coef": "coefficient", "freq": "frequency", "phase": "phase", "imphase": "render_phase"}
    names = _names(rest) | {published: f"decoder.{ours}" for published, ours in waves.items()}
    return table, result | renamed(rest, names, "LM-LTE")


@hookimpl
def liif_decoders():
    return [
        Component("lm-liif", LMLIIF, LMLIIFOptions, lambda o: f"LM-LIIF {o.depth}x{o.width}"),
        Component("lm-lte", LMLTE, LMLTEOptions, lambda o: f"LM-LTE {o.depth}x{o.width}"),
    ]


@hookimpl
def liif_importers():
    return [Importer("model", "lmliif", _import_lm_liif), Importer("model", "lmlte", _import_lm_lte)]
