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

from liif_core import Component, Importer, LatentField, Maps, Sites, as_rows, gather, hookimpl, option
from liif_core.importing import mlp_names, mlp_widths, renamed, take_encoder
from liif_core.nn import (
    expect_conditions,
    fourier_block,
    fourier_features,
    fused_linear,
    linear,
    phases,
    y_then_x,
)
from liif_zoo.lte import even
from liif_zoo.modulated import ModulatedMLP, narrow_precision


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
    block_positions = 32768

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
        """Of each code: its modulations, then what the first layer's product has from the code and the cell."""
        modulations, width = self.render.modulations, self.render.width
        *hidden, last = ((layer.weight, layer.bias) for layer in self.latent)
        entry = self.render.layers[0].weight
        known = entry[:, :width] @ last[0][modulations:], entry[:, :width] @ last[1][modulations:]
        folded = self.render.folded(last[0][:modulations], last[1][:modulations])
        first, *others = *hidden, tuple(torch.cat(parts) for parts in zip(folded, known))
        numbers = as_rows(field.linear(first[0][:, : self.in_channels], first[1]))
        if self.scale_dependent:
            numbers += self._of_cell(image_conditions["cell"], first[0])
        for weight, bias in others:
            numbers = linear(numbers.relu_(), weight, bias)
        if self.scale_dependent:
            numbers[..., modulations:] += self._of_cell(image_conditions["cell"], entry)
        return {"numbers": numbers}

    def decode(self, maps: Maps, sites: Sites, conditions: Mapping[str, Tensor]) -> Tensor:
        numbers = gather(maps["numbers"], sites.index)
        modulation, known = numbers.split([self.render.modulations, self.render.width], dim=-1)
        with torch.autocast(numbers.device.type, enabled=False):
            product = F.linear(conditions["coordinate"], self._entry_of_offset()) + known
        return self.render(product, modulation, sites.weight)

    def decode_block(self, maps: Maps, rows: Tensor, columns: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        modulation, known = maps["numbers"].split([self.render.modulations, self.render.width], dim=-1)
        factors, shifts = (part[..., : self.render.width].unsqueeze(3) for part in modulation.chunk(2, dim=-1))
        with torch.autocast(known.device.type, enabled=False):
            y, x = self._entry_of_offset().unbind(1)
            down = torch.addcmul(shifts, known.unsqueeze(3) + (rows.unsqueeze(-1) * y).unsqueeze(1), factors)
            across = columns.unsqueeze(-1) * x * factors
            hidden = (down.unsqueeze(4) + across.unsqueeze(3)).relu_()
        return self.render.of_blocks(hidden, modulation, first=1)

    def _of_cell(self, cell: Tensor, weight: Tensor) -> Tensor:
        """(B or 1, 1, D), float32: the part of a linear layer that reads the cell, its last two inputs."""
        with torch.autocast(cell.device.type, enabled=False):
            return F.linear(cell, weight[:, -2:].float()).unsqueeze(1)

    def _entry_of_offset(self) -> Tensor:
        """(width, 2), float32: the part of the first layer that reads the offset."""
        width = self.render.width
        return self.render.layers[0].weight[:, width : width + 2].float()


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
    block_positions = 65536
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
        last, modulations = self.latent[-1], self.render.modulations
        folded = self.render.folded(last.weight[:modulations], last.bias[:modulations])
        amplitude, wave = (
            slice(modulations + i * self.render.width, modulations + (i + 1) * self.render.width) for i in (0, 1)
        )
        weight, bias = (
            torch.cat([own, values[amplitude], y_then_x(values[wave])])
            for own, values in zip(folded, (last.weight, last.bias))
        )
        return {"numbers": linear(x, weight, bias)}

    def decode(self, maps: Maps, sites: Sites, conditions: Mapping[str, Tensor]) -> Tensor:
        modulation, amplitude, frequency = self._parts(gather(maps["numbers"], sites.index))
        phase = phases(conditions["cell"], self.render_phase.weight)
        x = fourier_features(amplitude, frequency, conditions["coordinate"], phase)
        with narrow_precision(x.device):
            product = F.linear(x, self.render.layers[0].weight)
        return self.render(product, modulation, sites.weight)

    def decode_block(self, maps: Maps, rows: Tensor, columns: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        modulation, amplitude, frequency = self._parts(maps["numbers"])
        phase = phases(conditions["cell"], self.render_phase.weight)
        return self.render.of_blocks(fourier_block(amplitude, frequency, rows, columns, phase), modulation, first=0)

    def _parts(self, numbers: Tensor) -> tuple[Tensor, ...]:
        """A code's modulations, and the amplitudes and frequencies of its waves, all of y before all of x."""
        width = self.render.width
        return numbers.split([self.render.modulations, width, width], dim=-1)


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
