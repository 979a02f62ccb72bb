"""SwinIR without its upsampler (Liang et al., SwinIR: Image Restoration Using Swin Transformer, ICCVW 2021), the
encoder of LTE's best results. Tokens are channels-last, (B, h, w, C), as convolutions and attention read them."""

from typing import Any

import torch
import torch.nn.functional as F
from attrs import frozen
from attrs.validators import ge, gt
from torch import Tensor, nn

from liif_core import Component, Importer, hookimpl, option
from liif_core.importing import check_layers, renamed
from liif_core.nn import fused_linear


@frozen
class SwinIROptions:
    """The defaults are the paper's for classical super-resolution."""

    groups: int = option("Residual groups.", 6, check=ge(1), quick=2)
    blocks: int = option("Swin blocks of each group; every second one has shifted windows.", 6, check=ge(1), quick=2)
    channels: int = option("Channels of a token.", 180, check=ge(1), quick=16)
    heads: int = option("Attention heads; a divisor of channels.", 6, check=ge(1), quick=2)
    window: int = option("Side of an attention window, in pixels; even.", 8, check=ge(2))
    mlp_ratio: float = option("Hidden width of each block's MLP, as a multiple of channels.", 2.0, check=gt(0))
    out_channels: int = option("Channels of the output.", 64, check=ge(1), quick=16)

    def __attrs_post_init__(self):
        if self.channels % self.heads:
            raise ValueError(f"heads: {self.heads} heads cannot share {self.channels} channels evenly")
        if self.window % 2:
            raise ValueError(f"window: must be even, to be shifted by half, got {self.window}")
        if int(self.channels * self.mlp_ratio) < 1:
            raise ValueError(f"mlp_ratio: {self.mlp_ratio} leaves no hidden width for {self.channels} channels")


# Not torchvision's: it does not shift the windows of an image that is one window wide, and published SwinIR does.
class WindowAttention(nn.Module):
    """Tokens (B, h, w, C) -> (B, h, w, C): each attends to those of its own window. h and w are multiples of window."""

    def __init__(self, options: SwinIROptions, shifted: bool):
        super().__init__()
        width = options.channels
        self.heads, self.window, self.shifted = options.heads, options.window, shifted
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.position = nn.Parameter(torch.zeros((2 * self.window - 1) ** 2, self.heads))  # row-major, query minus key

    def forward(self, x: Tensor) -> Tensor:
        """Shifted windows end at the image's edges, where they are halves and quarters.

        Published code shifts the image cyclically instead, and adds -100 to the attention between tokens that are not
        neighbours in the image. Its weight of exp(-100) = 4e-44 rounds to 0, so results are equal. Without these tokens
        the receptive radius is exactly finite, and there is less to compute.
        """
        bias, full, half = self._bias(), self.window, self.window // 2
        if not self.shifted:
            return self._attend(x, bias)
        rows, columns = ([half, side - full, half] for side in x.shape[1:3])
        strips = []
        for strip, high in zip(x.split(rows, dim=1), (half, full, half)):
            pieces, near = zip(strip.split(columns, dim=2), (half, full, half)), bias[:, :high, :, :high]
            attended = [self._attend(piece, near[:, :, :wide, :, :wide]) for piece, wide in pieces if piece.numel()]
            if attended:  # an image one window high has no middle strip
                strips.append(torch.cat(attended, dim=2))
        return torch.cat(strips, dim=1)

    def _bias(self) -> Tensor:
        """(heads, window, window, window, window): relative position bias of query (y, x) and key (y, x)."""
        side, window = 2 * self.window - 1, self.window
        # entry (y, x, i, j) of the unfolded table is for distance (y + i, x + j) - (window - 1); keys run backwards
        table = self.position.view(side, side, self.heads).unfold(0, window, 1).unfold(1, window, 1)
        return table.flip(-2, -1).permute(2, 0, 1, 3, 4)

    def _attend(self, x: Tensor, bias: Tensor) -> Tensor:
        """Attention in windows (high, wide), for ``bias`` (heads, high, wide, high, wide)."""
        batch, height, width, channels = x.shape
        high, wide = bias.shape[1:3]
        down, across, tokens = height // high, width // wide, high * wide
        x = x.view(batch, down, high, across, wide, channels).transpose(2, 3).reshape(-1, tokens, channels)
        joined = fused_linear(x, self.qkv.weight, self.qkv.bias, "none")
        query, key, value = joined.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mask = bias.reshape(1, self.heads, tokens, tokens).to(query.dtype)
        x = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x.transpose(1, 2).reshape(-1, tokens, channels)
        x = fused_linear(x, self.project.weight, self.project.bias, "none")
        x = x.view(batch, down, across, high, wide, channels).transpose(2, 3)
        return x.reshape(batch, height, width, channels)


class Block(nn.Module):
    """Attention, then an MLP for each token, each of the normalized tokens and added to them."""

    def __init__(self, options: SwinIROptions, shifted: bool):
        super().__init__()
        width, hidden = options.channels, int(options.channels * options.mlp_ratio)
        self.attention_norm = nn.LayerNorm(width)
        self.attention = WindowAttention(options, shifted)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp: Any = nn.ModuleList([nn.Linear(width, hidden), nn.Linear(hidden, width)])

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        hidden = self.mlp_norm(x)
        hidden = fused_linear(hidden, self.mlp[0].weight, self.mlp[0].bias, "gelu")
        return x + fused_linear(hidden, self.mlp[1].weight, self.mlp[1].bias, "none")


class Group(nn.Module):
    """x + conv(blocks(x)), 3x3, on tokens (B, h, w, C)."""

    def __init__(self, options: SwinIROptions):
        super().__init__()
        self.blocks = nn.Sequential(*(Block(options, shifted=i % 2 == 1) for i in range(options.blocks)))
        self.tail = nn.Conv2d(options.channels, options.channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.tail(self.blocks(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class SwinIR(nn.Module):
    """Image (B, c, h, w) in [-1, 1], h and w multiples of the window -> features (B, out_channels, h, w)."""

    def __init__(self, options: SwinIROptions, in_channels: int):
        super().__init__()
        width = options.channels
        self.out_channels = options.out_channels
        self.multiple_of = options.window
        self.receptive_radius = _radius(options.groups, options.blocks, options.window)
        self.head = nn.Conv2d(in_channels, width, 3, padding=1)
        self.head_norm = nn.LayerNorm(width)
        self.groups = nn.Sequential(*(Group(options) for _ in range(options.groups)))
        self.norm = nn.LayerNorm(width)
        self.tail = nn.Conv2d(width, width, 3, padding=1)
        self.output = nn.Conv2d(width, options.out_channels, 3, padding=1)
        initialize(self)

    def forward(self, image: Tensor) -> Tensor:
        head = self.head(image)
        tokens = self.norm(self.groups(self.head_norm(head.permute(0, 2, 3, 1))))
        return F.leaky_relu_(self.output(head + self.tail(tokens.permute(0, 3, 1, 2))), 0.01)


def initialize(module: nn.Module) -> None:
    """Initialize the linear layers and the position biases of a module as Swin does."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            nn.init.zeros_(part.bias)
        elif isinstance(part, WindowAttention):
            nn.init.trunc_normal_(part.position, std=0.02)


def _radius(groups: int, blocks: int, window: int) -> int:
    """How many pixels away the image can change a code: the largest distance over the positions in a window.

    It follows the layers from the last to the first, towards smaller indices. Windows and their shifts are symmetric,
    so the distance is the same in all directions.
    """
    furthest = 0
    for place in range(window):
        first = place - 2  # the last two 3x3 convolutions
        for _ in range(groups):
            first -= 1  # and a group's
            for block in reversed(range(blocks)):
                shift = block % 2 * (window // 2)
                first = (first - shift) // window * window + shift  # the first pixel of its window
        furthest = max(furthest, place - (first - 1))  # and the first convolution
    return furthest


_ONLY = {  # other values of these are other networks
    "patch_size": 1, "qkv_bias": True, "qk_scale": None, "ape": False, "patch_norm": True, "img_range": 1,
    "upsampler": "pixelshuffle", "resi_connection": "1conv",
}  # fmt: skip
_UNUSED = {  # of the upsampler or of training, or implied by the parameters' shapes
    "no_upsampling", "upscale", "drop_rate", "attn_drop_rate", "drop_path_rate", "use_checkpoint", "in_chans",
}  # fmt: skip
_LAYERS = {
    "conv_first": "head", "patch_embed.norm": "head_norm", "norm": "norm", "conv_after_body": "tail",
    "conv_before_upsample.0": "output",
}  # fmt: skip
_BLOCK = {
    "norm1": "attention_norm", "attn.qkv": "attention.qkv", "attn.proj": "attention.project",
    "attn.relative_position_bias_table": "attention.position",
    "norm2": "mlp_norm", "mlp.fc1": "mlp.0", "mlp.fc2": "mlp.1",
}  # fmt: skip


def _import_swinir(arguments: dict, state: dict) -> tuple[dict, dict]:
    """The published SwinIR, with the same number of blocks and heads in every group."""
    given = {name: value for name, value in arguments.items() if name not in _UNUSED}
    depths, heads = list(given.pop("depths", [6] * 6)), list(given.pop("num_heads", [6] * 6))
    table = {
        "use": "swinir",
        "groups": len(depths),
        "blocks": depths[0],
        "channels": given.pop("embed_dim", 180),
        "heads": heads[0],
        "window": given.pop("window_size", 8),
        "mlp_ratio": float(given.pop("mlp_ratio", 2)),
    }
    if depths != depths[:1] * len(depths) or heads != heads[:1] * len(depths):
        raise ValueError(f"SwinIR with depths {depths} and num_heads {heads}: only the same in every group is known")
    trained = given.pop("img_size", 48)
    if min(trained if isinstance(trained, (list, tuple)) else [trained]) <= table["window"]:
        raise ValueError(f"SwinIR with img_size = {trained!r}: windows are shifted only if it exceeds window_size")
    for name, value in given.items():
        if name not in _ONLY or value != _ONLY[name]:
            raise ValueError(f"SwinIR with {name} = {value!r} is not known")
    check_layers(sum(depths), state, "SwinIR")
    names = dict(_LAYERS)
    for i, depth in enumerate(depths):
        names[f"layers.{i}.conv"] = f"groups.{i}.tail"
        for j in range(depth):
            old, new = f"layers.{i}.residual_group.blocks.{j}", f"groups.{i}.blocks.{j}"
            names |= {f"{old}.{theirs}": f"{new}.{ours}" for theirs, ours in _BLOCK.items()}
    computed = (".attn_mask", ".relative_position_index")  # stored in published checkpoints; they follow from the sizes
    kept = {name: value for name, value in state.items() if not name.endswith(computed)}
    return table, renamed(kept, names, "SwinIR")


@hookimpl
def liif_encoders():
    return Component("swinir", SwinIR, SwinIROptions, lambda o: f"SwinIR {o.groups}x{o.blocks}x{o.channels}")


@hookimpl
def liif_importers():
    return Importer("encoder", "swinir", _import_swinir)
