"""EDSR without its upsampler (Lim et al., Enhanced Deep Residual Networks for Single Image Super-Resolution, CVPRW
2017): the encoder of most LIIF results."""

from attrs import frozen
from attrs.validators import ge, gt
from torch import Tensor, nn

from liif_core import Component, Importer, hookimpl, option
from liif_core.importing import check_layers, renamed
from liif_core.nn import fused_conv


@frozen
class EDSROptions:
    """The defaults are EDSR-baseline; the full EDSR has 32 blocks, 256 channels and residual_scale 0.1."""

    blocks: int = option("Residual blocks.", 16, check=ge(1), quick=2)
    channels: int = option("Channels of every layer, and of the output.", 64, check=ge(1), quick=16)
    residual_scale: float = option("Factor of each block's output before it is added.", 1.0, check=gt(0))


class ResidualBlock(nn.Module):
    """x + scale * conv(relu(conv(x))), 3x3."""

    def __init__(self, channels: int, scale: float):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        hidden = fused_conv(x, self.first, "relu")
        if self.scale == 1:
            return fused_conv(hidden, self.second, plus=x)
        return x + self.second(hidden) * self.scale


class EDSR(nn.Module):
    """Image (B, c, h, w) in [-1, 1] -> features (B, channels, h, w)."""

    multiple_of = 1

    def __init__(self, options: EDSROptions, in_channels: int):
        super().__init__()
        width = options.channels
        self.out_channels = width
        self.receptive_radius = 2 * options.blocks + 2  # one pixel for each 3x3 convolution on the longest path
        self.head = nn.Conv2d(in_channels, width, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(width, options.residual_scale) for _ in range(options.blocks)))
        self.tail = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        head = self.head(image)
        return fused_conv(self.blocks(head), self.tail, plus=head)


def _import_edsr(arguments: dict, state: dict, *, published: EDSROptions) -> tuple[dict, dict]:
    blocks = arguments.get("n_resblocks", published.blocks)
    table = {
        "use": "edsr",
        "blocks": blocks,
        "channels": arguments.get("n_feats", published.channels),
        "residual_scale": float(arguments.get("res_scale", published.residual_scale)),
    }
    check_layers(blocks, state, "EDSR")
    names = {"head.0": "head", f"body.{blocks}": "tail"}
    for i in range(blocks):
        names |= {f"body.{i}.body.0": f"blocks.{i}.first", f"body.{i}.body.2": f"blocks.{i}.second"}
    unused = ("sub_mean.", "add_mean.")  # stored in published checkpoints, but not applied by the published code
    kept = {name: value for name, value in state.items() if not name.startswith(unused)}
    return table, renamed(kept, names, "EDSR")


@hookimpl
def liif_encoders():
    return Component("edsr", EDSR, EDSROptions, lambda o: f"EDSR {o.blocks}x{o.channels}")


@hookimpl
def liif_importers():
    def importer(name: str, published: EDSROptions) -> Importer:
        return Importer("encoder", name, lambda arguments, state: _import_edsr(arguments, state, published=published))

    return [
        importer("edsr-baseline", EDSROptions()),
        importer("edsr", EDSROptions(blocks=32, channels=256, residual_scale=0.1)),
    ]
