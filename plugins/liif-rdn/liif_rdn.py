"""RDN without its upsampler (Zhang et al., Residual Dense Network for Image Super-Resolution, CVPR 2018): the second
encoder of LIIF's tables."""

from typing import Literal

import torch
from attrs import frozen
from attrs.validators import ge, optional
from torch import Tensor, nn

from liif_core import Component, Importer, hookimpl, option
from liif_core.nn import fused_conv

CONFIGURATIONS = {"A": (20, 6, 32), "B": (16, 8, 64)}  # blocks, layers in each, growth


@frozen
class RDNOptions:
    """The defaults are the paper's RDN; blocks, layers and growth replace values of the configuration."""

    configuration: Literal["A", "B"] = option("The paper's A (20 blocks, 6 layers, growth 32) or B (16, 8, 64).", "B")
    blocks: int | None = option("Residual dense blocks, if not the configuration's.", None, check=optional(ge(1)))
    layers: int | None = option("Layers of each block, if not the configuration's.", None, check=optional(ge(1)))
    growth: int | None = option("Channels each layer adds, if not the configuration's.", None, check=optional(ge(1)))
    channels: int = option("Channels between the blocks, and of the output.", 64, check=ge(1))


class DenseBlock(nn.Module):
    """The input of each layer is the block's input and the outputs of all layers before it; a 1x1 convolution of all of
    them is added to the block's input."""

    def __init__(self, channels: int, layers: int, growth: int):
        super().__init__()
        widths = [channels + i * growth for i in range(layers + 1)]
        self.layers = nn.ModuleList(nn.Conv2d(width, growth, 3, padding=1) for width in widths[:-1])
        self.fusion = nn.Conv2d(widths[-1], channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for layer in self.layers:
            seen = torch.cat([seen, fused_conv(seen, layer, "relu")], dim=1)
        return fused_conv(seen, self.fusion, plus=x)


class RDN(nn.Module):
    """Image (B, c, h, w) in [-1, 1] -> features (B, channels, h, w)."""

    multiple_of = 1

    def __init__(self, options: RDNOptions, in_channels: int):
        super().__init__()
        given = (options.blocks, options.layers, options.growth)
        blocks, layers, growth = (n or own for n, own in zip(given, CONFIGURATIONS[options.configuration]))
        width = self.out_channels = options.channels
        self.receptive_radius = blocks * layers + 3  # one pixel for each 3x3 convolution on the longest path
        self.head = nn.Conv2d(in_channels, width, 3, padding=1)
        self.entry = nn.Conv2d(width, width, 3, padding=1)
        self.blocks = nn.ModuleList(DenseBlock(width, layers, growth) for _ in range(blocks))
        self.fusion = nn.Conv2d(blocks * width, width, 1)
        self.tail = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        head = self.head(image)
        x, outputs = self.entry(head), []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        return fused_conv(self.fusion(torch.cat(outputs, dim=1)), self.tail, plus=head)


def _import_rdn(arguments: dict, state: dict) -> tuple[dict, dict]:
    """The published RDN, which names its layers as the paper does."""
    if arguments.get("RDNkSize", 3) != 3:
        raise ValueError(f"RDN with kernels of size {arguments['RDNkSize']}: only 3 is known")
    configuration = arguments.get("RDNconfig", "B")
    table = {"use": "liif-rdn:rdn", "configuration": configuration, "channels": arguments.get("G0", 64)}
    blocks, layers, _ = CONFIGURATIONS[configuration]
    prefixes = {"SFENet1": "head", "SFENet2": "entry", "GFF.0": "fusion", "GFF.1": "tail"}
    for i in range(blocks):
        prefixes[f"RDBs.{i}.LFF"] = f"blocks.{i}.fusion"
        prefixes |= {f"RDBs.{i}.convs.{j}.conv.0": f"blocks.{i}.layers.{j}" for j in range(layers)}
    names = {f"{old}.{part}": f"{new}.{part}" for old, new in prefixes.items() for part in ("weight", "bias")}
    unknown = sorted(state.keys() - names.keys())
    if unknown:
        raise ValueError(f"RDN has no parameter for {unknown[0]!r}")
    return table, {names[name]: value for name, value in state.items()}


def _description(options: RDNOptions) -> str:
    own = CONFIGURATIONS[options.configuration]
    blocks, layers, growth = (n or m for n, m in zip((options.blocks, options.layers, options.growth), own))
    return f"RDN {blocks}x{layers}, growth {growth}"


@hookimpl
def liif_encoders():
    return Component("rdn", RDN, RDNOptions, describe=_description)


@hookimpl
def liif_importers():
    return Importer("encoder", "rdn", _import_rdn)
