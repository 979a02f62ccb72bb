"""A small encoder whose convolutions are re-parametrised: sums of branches in training, one 3x3 convolution each when
rendering.

The layers are those of EDSR without its upsampler (Lim et al., CVPRW 2017). The branches follow ECBSR (Zhang et al.,
Edge-oriented Convolution Block for Real-time Super Resolution on Mobile Devices, ACM MM 2021) and SPAN (Wan et al.,
Swift Parameter-free Attention Network, CVPRW 2024), with two differences. Their kernels are added instead of their
results, so that a training step computes each convolution once; without batch normalization this is the same function.
And a branch of two convolutions has no bias between them, so that borders are padded with zeros as one convolution pads
them.

``fold`` converts a trained checkpoint to plain convolutions; as a command:

    python -m liif_zoo.rep trained.safetensors small.safetensors
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from attrs import evolve, frozen
from attrs.validators import ge
from torch import Tensor, nn

from liif_core import Component, UserError, hookimpl, option
from liif_core.nn import fused_conv

if TYPE_CHECKING:
    from liif_core import Checkpoint

PARTS = ("weight", "point", "scale", "entry", "exit")  # parameters that ``folded_kernel`` takes


@frozen
class RepOptions:
    blocks: int = option("Residual blocks.", 8, check=ge(1), quick=2)
    channels: int = option("Channels of every layer, and of the output.", 48, check=ge(1), quick=16)
    expand: int = option("Width of the branch of two convolutions, as a multiple of channels.", 2, check=ge(1))
    folded: bool = option("Plain 3x3 convolutions without branches, for checkpoints that were folded.", False)
    zero_blocks: bool = option(
        "New blocks return their input: the second convolution of each begins with zeros. So blocks can be added to a "
        "trained encoder (train.start_from) without a change of its features.",
        False,
    )


class RepConv(nn.Conv2d):
    """A 3x3 convolution whose kernel is a sum: 3x3; 1x1; a scale of each channel; 1x1, then 3x3.

    The scales are there if input and output have equally many channels. Scales and the 1x1 branch begin as zeros.
    """

    def __init__(self, in_channels: int, out_channels: int, expand: int):
        super().__init__(in_channels, out_channels, 3, padding=1)
        wide = expand * out_channels
        self.point = nn.Parameter(torch.zeros(out_channels, in_channels))
        self.scale = nn.Parameter(torch.zeros(out_channels)) if in_channels == out_channels else None
        self.entry = nn.Parameter(torch.empty(wide, in_channels).uniform_(-1, 1) / in_channels**0.5)
        self.exit = nn.Parameter(torch.empty(out_channels, wide, 3, 3).uniform_(-1, 1) / (9 * wide) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel(), self.bias, 1, 1)

    def kernel(self) -> Tensor:
        return folded_kernel(self.weight, self.point, self.scale, self.entry, self.exit)

    def plain(self) -> nn.Conv2d:
        """The plain convolution that this is; it cannot be trained."""
        with torch.device("meta"):
            layer = nn.Conv2d(self.in_channels, self.out_channels, 3, padding=1)
        layer.weight, layer.bias = (nn.Parameter(value, requires_grad=False) for value in (self.kernel(), self.bias))
        return layer


def folded_kernel(weight: Tensor, point: Tensor, scale: Tensor | None, entry: Tensor, exit: Tensor) -> Tensor:
    """The kernel (out, in, 3, 3) of all branches together, in the type of the parameters under autocast too."""
    with torch.autocast(weight.device.type, enabled=False):
        center = point if scale is None else point + scale.diag()
        return weight + torch.einsum("omyx,mi->oiyx", exit, entry) + F.pad(center[:, :, None, None], (1, 1, 1, 1))


def _fast(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer itself, or where no gradient is recorded, a plain one that ``fused_conv`` runs in one kernel."""
    return layer.plain() if isinstance(layer, RepConv) and not torch.is_grad_enabled() else layer


class Block(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, first: nn.Conv2d, second: nn.Conv2d):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return fused_conv(fused_conv(x, _fast(self.first), "relu"), _fast(self.second), plus=x)


class Rep(nn.Module):
    """Residual blocks of two re-parametrised 3x3 convolutions: image (B, c, h, w) in [-1, 1] -> (B, channels, h, w).

    Trained as sums of branches, rendered as plain convolutions. `python -m liif_zoo.rep IN OUT` folds the branches of a
    checkpoint, so that it holds plain convolutions only.
    """

    multiple_of = 1

    def __init__(self, options: RepOptions, in_channels: int):
        super().__init__()
        width = self.out_channels = options.channels
        self.receptive_radius = 2 * options.blocks + 2  # one pixel for each 3x3 convolution on the longest path

        def conv(inputs: int) -> nn.Conv2d:
            return nn.Conv2d(inputs, width, 3, padding=1) if options.folded else RepConv(inputs, width, options.expand)

        self.head = conv(in_channels)
        self.blocks = nn.Sequential(*(Block(conv(width), conv(width)) for _ in range(options.blocks)))
        self.tail = conv(width)
        if options.zero_blocks:
            for block in self.blocks:
                for name, value in block.second.named_parameters():
                    if name != "entry":  # the exit alone decides that the branch is 0, and the entry gets gradients
                        nn.init.zeros_(value)

    def forward(self, image: Tensor) -> Tensor:
        head = fused_conv(image, _fast(self.head))
        return fused_conv(self.blocks(head), _fast(self.tail), plus=head)


def fold(checkpoint: "Checkpoint") -> "Checkpoint":
    """A checkpoint with the encoder ``rep``, with plain convolutions in place of branches (``folded = true``).

    Its colors are the same up to rounding. Raises UserError where the encoder is another one, or is folded already.
    """
    model = checkpoint.experiment["model"]
    encoder = model.get("encoder", {})
    if str(encoder.get("use")).rpartition(":")[2] != "rep" or encoder.get("folded"):
        raise UserError(f'model.encoder: expected use = "rep" without folded = true, got {dict(encoder)}')
    state = dict(checkpoint.state)
    names = [name.removesuffix("entry") for name in state if name.startswith("encoder.") and name.endswith(".entry")]
    for name in names:
        parts = (state.pop(f"{name}{part}", None) for part in PARTS)
        kernel = folded_kernel(*(part if part is None else part.double() for part in parts))
        state[f"{name}weight"] = kernel.to(checkpoint.state[f"{name}weight"].dtype)
    experiment = {**checkpoint.experiment, "model": {**model, "encoder": {**encoder, "folded": True}}}
    return evolve(checkpoint, state=state, experiment=experiment)


def main(arguments: Sequence[str] | None = None) -> None:
    """``python -m liif_zoo.rep IN OUT``."""
    from liif_core import load_checkpoint, save_checkpoint  # here: they need most of liif_core, and rendering does not

    parser = argparse.ArgumentParser(prog="python -m liif_zoo.rep", description="Fold the branches of a checkpoint.")
    parser.add_argument("source", help="checkpoint of a model with the encoder 'rep' (.safetensors)")
    parser.add_argument("target", type=Path, help="file to write (.safetensors); it must not exist")
    given = parser.parse_args(arguments)
    try:
        if given.target.exists():
            raise UserError(f"{given.target}: already exists; choose another name")
        save_checkpoint(given.target, fold(load_checkpoint(given.source)))
    except (UserError, OSError) as error:
        parser.error(str(error))


@hookimpl
def liif_encoders():
    return Component("rep", Rep, RepOptions, lambda o: f"Rep {o.blocks}x{o.channels}")


if __name__ == "__main__":
    main()
