"""The networks between encoder and decoder in Thera (arXiv 2311.17643): ConvNeXt blocks in Thera Plus (Liu et al., A
ConvNet for the 2020s, CVPR 2022), and SwinIR's groups (Liang et al., ICCVW 2021) in Thera Pro.

Tokens are channels-last, (B, h, w, C).
"""

import torch.nn.functional as F
from attrs import frozen
from attrs.validators import deep_iterable, ge, gt, min_len
from torch import Tensor, nn

from liif_core import LatentField, option
from liif_core.nn import fused_linear, mirror_padded
from liif_zoo.swinir import SwinIROptions, WindowAttention, initialize


class RefinedField(LatentField):
    """The encoder's features, and the codes that a network made of them."""

    def __init__(self, features: Tensor, codes: Tensor):
        self.features, self.codes = features, codes
        self.channels = codes.shape[1]

    def dense(self) -> Tensor:
        return self.codes


def tanh_mlp(x: Tensor, first: nn.Linear, second: nn.Linear) -> Tensor:
    """A layer, the tanh approximation of GELU, and another layer."""
    hidden = F.gelu(fused_linear(x, first.weight, first.bias, "none"), approximate="tanh")
    return fused_linear(hidden, second.weight, second.bias, "none")


# Thera Plus


@frozen
class ConvNeXtOptions:
    """The defaults are Thera Plus."""

    widths: tuple[int, ...] = option(
        "Channels of each block; where they change, a layer comes before the block.",
        (*(64,) * 6, *(96,) * 7, *(128,) * 3),
        check=[min_len(1), deep_iterable(ge(1))],
        quick=(16, 16),
    )


class Projection(nn.Module):
    """Tokens (B, h, w, in) -> (B, h, w, out)."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.norm = nn.LayerNorm(before, eps=1e-6)
        self.layer = nn.Linear(before, after)

    def forward(self, x: Tensor) -> Tensor:
        return fused_linear(self.norm(x), self.layer.weight, self.layer.bias, "none")


class ConvNeXtBlock(nn.Module):
    """A 3x3 convolution of each channel, then an MLP for each token, added to the tokens."""

    def __init__(self, width: int):
        super().__init__()
        self.spatial = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.first, self.second = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.spatial(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + tanh_mlp(self.norm(hidden), self.first, self.second)


class ConvNeXt(nn.Module):
    """Features (B, C, h, w) -> a field of as many channels as the last block has."""

    def __init__(self, options: ConvNeXtOptions, in_channels: int):
        super().__init__()
        self.radius, self.channels = len(options.widths), options.widths[-1]
        layers: list[nn.Module] = []
        for before, width in zip((in_channels, *options.widths), options.widths):
            layers += [Projection(before, width)] if before != width else []
            layers.append(ConvNeXtBlock(width))
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> RefinedField:
        return RefinedField(features, self.layers(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


# Thera Pro


@frozen
class SwinOptions:
    """The defaults are Thera Pro."""

    blocks: tuple[int, ...] = option(
        "Swin blocks of each group; every second one has shifted windows.",
        (7, 6),
        check=[min_len(1), deep_iterable(ge(1))],
        quick=(2,),
    )
    channels: int = option("Channels of a token.", 180, check=ge(1), quick=16)
    heads: int = option("Attention heads; a divisor of channels.", 6, check=ge(1), quick=2)
    window: int = option("Side of an attention window, in codes; even.", 8, check=ge(2))
    mlp_ratio: float = option("Hidden width of each block's MLP, as a multiple of channels.", 2.0, check=gt(0))
    out_channels: int = option("Channels of the output.", 64, check=ge(1), quick=16)

    def __attrs_post_init__(self) -> None:
        self.of_block  # noqa: B018 - checks how the options fit each other

    @property
    def of_block(self) -> SwinIROptions:
        return SwinIROptions(channels=self.channels, heads=self.heads, window=self.window, mlp_ratio=self.mlp_ratio)


class SwinBlock(nn.Module):
    """Attention, then an MLP for each token, each of the normalized tokens and added to them."""

    def __init__(self, options: SwinIROptions, shifted: bool):
        super().__init__()
        width, hidden = options.channels, int(options.channels * options.mlp_ratio)
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = WindowAttention(options, shifted)
        self.first, self.second = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + tanh_mlp(self.mlp_norm(x), self.first, self.second)


class SwinGroup(nn.Module):
    """x + conv(blocks(x)), 3x3, on tokens."""

    def __init__(self, options: SwinIROptions, blocks: int):
        super().__init__()
        self.blocks = nn.Sequential(*(SwinBlock(options, shifted=i % 2 == 1) for i in range(blocks)))
        self.tail = nn.Conv2d(options.channels, options.channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.tail(self.blocks(x).permute(0, 3, 1, 2))
        return x + added.permute(0, 2, 3, 1)


class Swin(nn.Module):
    """Features (B, C, h, w) -> a field of ``out_channels``. They are padded to whole windows by mirroring."""

    radius = None

    def __init__(self, options: SwinOptions, in_channels: int):
        super().__init__()
        width = options.channels
        self.channels, self.multiple_of = options.out_channels, options.window
        self.head = nn.Conv2d(in_channels, width, 3, padding=1)
        self.head_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.groups = nn.Sequential(*(SwinGroup(options.of_block, blocks) for blocks in options.blocks))
        self.tail = nn.Conv2d(width, width, 3, padding=1)
        self.output = nn.Conv2d(width, options.out_channels, 3, padding=1)
        initialize(self)

    def forward(self, features: Tensor) -> RefinedField:
        height, width = features.shape[-2:]
        head = self.head(mirror_padded(features, self.multiple_of))
        tokens = self.norm(self.groups(self.head_norm(head.permute(0, 2, 3, 1))))
        codes = F.leaky_relu(self.output(head + self.tail(tokens.permute(0, 3, 1, 2))), 0.01)
        return RefinedField(features, codes[:, :, :height, :width])
