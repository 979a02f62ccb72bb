"""RCAN without its upsampler (Zhang et al., Image Super-Resolution Using Very Deep Residual Channel Attention Networks,
ECCV 2018)."""

import torch
from attrs import frozen
from attrs.validators import ge
from torch import Tensor, nn

from liif_core import Component, Importer, hookimpl, option
from liif_core.importing import check_layers, renamed
from liif_core.nn import fused_conv


@frozen
class RCANOptions:
    """The defaults are the paper's."""

    groups: int = option("Residual groups.", 10, check=ge(1), quick=2)
    blocks: int = option("Residual channel attention blocks of each group.", 20, check=ge(1), quick=2)
    channels: int = option("Channels of every layer, and of the output.", 64, check=ge(1), quick=16)
    reduction: int = option("Factor by which the attention reduces the number of channels.", 16, check=ge(1), quick=4)

    def __attrs_post_init__(self):
        if self.reduction > self.channels:
            raise ValueError(f"reduction: {self.reduction} leaves nothing of {self.channels} channels")


class ChannelAttention(nn.Module):
    """(B, C, h, w) -> (B, C, 1, 1) in (0, 1): the weight of each channel, from the means of all of them."""

    def __init__(self, channels: int, reduction: int):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // reduction, 1)
        self.excite = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu_()).sigmoid()


class Block(nn.Module):
    """x + y * attention(y) for y = conv(relu(conv(x))), 3x3."""

    def __init__(self, channels: int, reduction: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.attention = ChannelAttention(channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        change = self.second(fused_conv(x, self.first, "relu"))
        return torch.addcmul(x, change, self.attention(change))


class Group(nn.Module):
    """x + conv(blocks(x))."""

    def __init__(self, options: RCANOptions):
        super().__init__()
        width = options.channels
        self.blocks = nn.Sequential(*(Block(width, options.reduction) for _ in range(options.blocks)))
        self.tail = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return fused_conv(self.blocks(x), self.tail, plus=x)


class RCAN(nn.Module):
    """Image (B, c, h, w) in [-1, 1] -> features (B, channels, h, w)."""

    multiple_of = 1
    receptive_radius = None  # a channel's mean is taken over the whole image

    def __init__(self, options: RCANOptions, in_channels: int):
        super().__init__()
        width = self.out_channels = options.channels
        self.head = nn.Conv2d(in_channels, width, 3, padding=1)
        self.groups = nn.Sequential(*(Group(options) for _ in range(options.groups)))
        self.tail = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        head = self.head(image)
        return fused_conv(self.groups(head), self.tail, plus=head)


def _import_rcan(arguments: dict, state: dict) -> tuple[dict, dict]:
    """The published RCAN."""
    published = RCANOptions()
    groups, blocks = arguments.get("n_resgroups", published.groups), arguments.get("n_resblocks", published.blocks)
    table = {
        "use": "rcan",
        "groups": groups,
        "blocks": blocks,
        "channels": arguments.get("n_feats", published.channels),
        "reduction": arguments.get("reduction", published.reduction),
    }
    check_layers(max(groups, 1) * max(blocks, 1), state, "RCAN")
    names = {"head.0": "head", f"body.{groups}": "tail"}
    for i in range(groups):
        names[f"body.{i}.body.{blocks}"] = f"groups.{i}.tail"
        for j in range(blocks):
            old, new = f"body.{i}.body.{j}.body", f"groups.{i}.blocks.{j}"
            names |= {f"{old}.0": f"{new}.first", f"{old}.2": f"{new}.second"}
            names |= {f"{old}.3.conv_du.0": f"{new}.attention.squeeze", f"{old}.3.conv_du.2": f"{new}.attention.excite"}
    unused = ("sub_mean.", "add_mean.")  # stored in published checkpoints, but not applied by the published code
    kept = {name: value for name, value in state.items() if not name.startswith(unused)}
    return table, renamed(kept, names, "RCAN")


@hookimpl
def liif_encoders():
    return Component("rcan", RCAN, RCANOptions, lambda o: f"RCAN {o.groups}x{o.blocks}x{o.channels}")


@hookimpl
def liif_importers():
    return Importer("encoder", "rcan", _import_rcan)
