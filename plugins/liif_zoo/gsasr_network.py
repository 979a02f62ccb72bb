"""The network of GSASR between its encoder and its Gaussians: attention within windows, and upsampling to 4 x 4.

Each window of ``w`` x ``w`` latent codes has ``w`` x ``w`` tokens. Tokens begin as learned vectors, read the codes of
their window by cross-attention and each other by self-attention, and are told the scale in every layer. A pixel shuffle
then turns each token into 16 Gaussians.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from liif_core.nn import fused_conv, fused_linear
from liif_core.shapes import Float

Variant = Literal["paper", "enhanced"]

UP = 4  # Gaussians for each code along each axis
GEOMETRY = 6  # numbers of a Gaussian besides its color: two widths, correlation, opacity, and two of its mean

_EPSILON = 1e-5
_FIRST_OPACITY = -2.8  # before its sigmoid, at the start of training: with 0, the sum of all Gaussians would be about 4
_POSITIONS = 8192  # Gaussians that are computed at once on a CPU where no gradient is recorded; elsewhere 16 times that


class Shape(NamedTuple):
    """The sizes of the network."""

    variant: Variant
    channels: int
    heads: int
    window: int
    hidden: int  # of the perceptrons within layers
    cross_blocks: tuple[int, ...]  # layers of each block with cross-attention
    self_blocks: tuple[int, ...]  # and with self-attention


def to_windows(image: Float[Tensor, "B C h w"], window: int) -> Float[Tensor, "B windows tokens C"]:
    """An image as the tokens of its windows, row by row; its sides are multiples of ``window``."""
    parts = image.unflatten(3, (-1, window)).unflatten(2, (-1, window))
    return parts.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(1, 2)


def to_image(tokens: Float[Tensor, "B windows tokens C"], window: int, height: int) -> Float[Tensor, "B C h w"]:
    """The inverse of ``to_windows``, for an image of ``height`` rows of tokens."""
    parts = tokens.unflatten(2, (window, window)).unflatten(1, (height // window, -1))
    return parts.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def _two_layers(x: Tensor, layers: Any) -> Tensor:
    hidden = fused_linear(x, layers[0].weight, layers[0].bias, "relu")
    return fused_linear(hidden, layers[1].weight, layers[1].bias, "none")


class Perceptron(nn.Module):
    """x + second(relu(first(norm(x))))."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels, _EPSILON)
        self.layers = nn.ModuleList([nn.Linear(channels, hidden), nn.Linear(hidden, channels)])

    def forward(self, x: Tensor) -> Tensor:
        return x + _two_layers(self.norm(x), self.layers)


class Attention(nn.Module):
    """Attention of the tokens of a window to vectors of the same window.

    In the paper's models, a learned number is added for each pair of places; in the enhanced ones, queries and keys are
    turned by angles that grow with their places (rotary embedding). ``index`` is stored, since published checkpoints
    hold a table of their own, which differs from the usual one where queries and keys come from different images.
    """

    def __init__(self, shape: Shape):
        super().__init__()
        width, self.heads, side = shape.channels, shape.heads, shape.window
        self.query, self.key, self.value, self.project = (nn.Linear(width, width) for _ in range(4))
        self.turns = shape.variant == "enhanced"
        place = torch.arange(side)
        if self.turns:
            columns, rows = place.repeat(side).float(), place.repeat_interleave(side).float()
            self.register_buffer("columns", columns)
            self.register_buffer("rows", rows)
            angle = 0.1 ** (torch.arange(width // self.heads // 2) / max(1, width // self.heads // 4))
            self.frequency = nn.Parameter(angle.expand(2, self.heads, -1).clone())  # of columns, and of rows
        else:
            step = place.unsqueeze(1) - place + side - 1  # of a query from a key, along one axis
            index = step.view(side, 1, side, 1) * (2 * side - 1) + step.view(1, side, 1, side)
            self.register_buffer("index", index.reshape(side**2, side**2))
            self.bias = nn.Parameter(torch.zeros((2 * side - 1) ** 2, self.heads))
            nn.init.trunc_normal_(self.bias, std=0.02)

    def keys_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._turned(self._heads(self.key, x)), self._heads(self.value, x)

    def forward(self, x: Tensor, keys_and_values: tuple[Tensor, Tensor]) -> Tensor:
        query, mask = self._turned(self._heads(self.query, x)), None
        if not self.turns:
            mask = self.bias[self.index].permute(2, 0, 1).to(query.dtype)
        result = F.scaled_dot_product_attention(query, *keys_and_values, attn_mask=mask)
        return fused_linear(result.transpose(1, 2).flatten(2), self.project.weight, self.project.bias, "none").view_as(
            x
        )

    def _heads(self, layer: nn.Linear, x: Tensor) -> Tensor:
        """(B, windows, tokens, C) -> (B * windows, heads, tokens, C / heads)."""
        result = fused_linear(x, layer.weight, layer.bias, "none").flatten(0, 1)
        return result.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _turned(self, x: Tensor) -> Tensor:
        if not self.turns:
            return x
        with torch.autocast(x.device.type, enabled=False):
            places = torch.stack([self.columns, self.rows], dim=1)
            angle = torch.einsum("pa,ahi->hpi", places, self.frequency.float())
            even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
            sine, cosine = angle.sin(), angle.cos()
            turned = torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], dim=-1).flatten(-2)
        return turned.to(x.dtype)


class Layer(nn.Module):
    """What layers with cross-attention and with self-attention share: the scale, attention, and two perceptrons.

    ``scale`` and ``scale_output`` are what is left of an attention to the scale's vector alone: with one vector to
    attend to, all tokens get the same.
    """

    def __init__(self, shape: Shape):
        super().__init__()
        width = shape.channels
        self.scale, self.scale_output = nn.Linear(width, width), nn.Linear(width, width)
        self.after_scale = Perceptron(width, shape.hidden)
        self.norm = nn.LayerNorm(width, _EPSILON)
        self.attention = Attention(shape)
        self.after_attention = Perceptron(width, shape.hidden)
        self.window = shape.window

    def scaled(self, x: Tensor, scale: Float[Tensor, "B C"]) -> Tensor:
        return self.after_scale(x + self.scale_output(self.scale(scale))[:, None, None])


class CrossLayer(Layer):
    """Tokens attend to the codes of their window, in every second layer to the window half a side further."""

    def read(self, features: Float[Tensor, "B C h w"], number: int) -> tuple[Tensor, Tensor]:
        """The keys and values of the codes, which depend on the image alone."""
        if number % 2:
            features = features.roll((-(self.window // 2),) * 2, (2, 3))
        return self.attention.keys_and_values(to_windows(features, self.window))

    def forward(self, x: Tensor, scale: Tensor, position: Tensor, read: tuple[Tensor, Tensor]) -> Tensor:
        x = self.scaled(x, scale)
        return self.after_attention(x + self.attention(self.norm(x) + position, read))


class SelfLayer(Layer):
    """Tokens attend to each other, in every second layer within windows half a side further.

    Those windows go on at the opposite border, and nothing is masked there: so the published models were trained.
    """

    def forward(self, x: Tensor, scale: Tensor, number: int, height: int) -> Tensor:
        x = self.scaled(x, scale)
        normed, shift = self.norm(x), self.window // 2 if number % 2 else 0
        if shift:
            normed = to_windows(to_image(normed, self.window, height).roll((-shift, -shift), (2, 3)), self.window)
        found = self.attention(normed, self.attention.keys_and_values(normed))
        if shift:
            found = to_windows(to_image(found, self.window, height).roll((shift, shift), (2, 3)), self.window)
        return self.after_attention(x + found)


class Block(nn.Module):
    """x + mlp(layers(norm(x))); the enhanced models convolve the tokens, as an image, before the sum."""

    def __init__(self, shape: Shape, layer: type[Layer], count: int):
        super().__init__()
        width, self.window = shape.channels, shape.window
        self.norm = nn.LayerNorm(width, _EPSILON)
        self.layers: Any = nn.ModuleList(layer(shape) for _ in range(count))
        self.mlp = nn.ModuleList([nn.Linear(width, width), nn.Linear(width, width)])
        self.conv = nn.Conv2d(width, width, 3, padding=1) if shape.variant == "enhanced" else None

    def added(self, x: Tensor, y: Tensor, height: int) -> Tensor:
        y = _two_layers(y, self.mlp)
        return x + (y if self.conv is None else convolved(y, self.conv, self.window, height))


def convolved(tokens: Tensor, layer: nn.Conv2d, window: int, height: int) -> Tensor:
    return to_windows(fused_conv(to_image(tokens, window, height).contiguous(), layer), window)


Read = list[list[tuple[Tensor, Tensor]]]  # keys and values of each layer of each block with cross-attention


class GaussianNetwork(nn.Module):
    """Codes (B, in_channels, h, w), their sides multiples of the window -> the numbers of 4 h x 4 w Gaussians."""

    def __init__(self, shape: Shape, in_channels: int, channels: int):
        super().__init__()
        width, self.window = shape.channels, shape.window
        self.seeds = nn.Parameter(torch.randn(shape.window**2, width) * 0.02)
        self.position = nn.Parameter(torch.randn(shape.window**2, width) * 0.02)
        self.features = nn.ModuleList(nn.Conv2d(n, width, 3, padding=1) for n in (in_channels, width))
        self.scale = nn.ModuleList([nn.Linear(1, 4 * width), nn.Linear(4 * width, width)])
        self.cross_blocks: Any = nn.ModuleList(Block(shape, CrossLayer, count) for count in shape.cross_blocks)
        self.self_blocks: Any = nn.ModuleList(Block(shape, SelfLayer, count) for count in shape.self_blocks)
        self.final = nn.Conv2d(width, width, 3, padding=1) if shape.variant == "enhanced" else None
        self.up: Any = nn.ModuleList(nn.Conv2d(width, 4 * width, 3, padding=1) for _ in range(2))
        self.heads: Any = nn.ModuleList(
            nn.ModuleList(nn.Linear(a, b) for a, b in ((width, width), (width, 4 * width), (4 * width, numbers)))
            for numbers in (2, 1, 1, channels, 2)
        )
        nn.init.constant_(self.heads[2][2].bias, _FIRST_OPACITY)

    def read(self, features: Float[Tensor, "B in_channels h w"]) -> Read:
        """What the tokens read of the codes; it depends on the image alone."""
        first, second = self.features
        codes = fused_conv(fused_conv(features, first, "relu"), second)
        return [[layer.read(codes, number) for number, layer in enumerate(block.layers)] for block in self.cross_blocks]

    def forward(
        self, read: Read, inverse_scale: Float[Tensor, "B 1"], size: tuple[int, int]
    ) -> Float[Tensor, "B y x numbers"]:
        """Of each Gaussian two widths, correlation, opacity, color, and the shift (x, y) of its mean, all raw."""
        batch, (height, width) = len(inverse_scale), size
        scale = _two_layers(inverse_scale, self.scale)
        tokens = self.seeds.expand(batch, height * width // self.window**2, -1, -1)
        for block, known in zip(self.cross_blocks, read):
            y = block.norm(tokens)
            for layer, own in zip(block.layers, known):
                y = layer(y, scale, self.position, own)
            tokens = block.added(tokens, y, height)
        first = tokens
        for block in self.self_blocks:
            y = block.norm(tokens)
            for number, layer in enumerate(block.layers):
                y = layer(y, scale, number, height)
            tokens = block.added(tokens, y, height)
        tokens = first + (tokens if self.final is None else convolved(tokens, self.final, self.window, height))
        image = to_image(tokens, self.window, height).contiguous()
        return self._gaussians(F.pixel_shuffle(fused_conv(image, self.up[0]), 2))

    def _gaussians(self, image: Float[Tensor, "B C h w"]) -> Tensor:
        """The second upsampling and the perceptrons, which have many values for each Gaussian, in bands of rows."""
        height, width = image.shape[-2:]
        at_once = _POSITIONS if image.device.type == "cpu" else 16 * _POSITIONS
        rows = height if torch.is_grad_enabled() else max(1, at_once // (4 * width * len(image)))
        image = F.pad(image, (1, 1, 1, 1))
        bands = [self._band(image[:, :, top : top + rows + 2]) for top in range(0, height, rows)]
        return bands[0] if len(bands) == 1 else torch.cat(bands, dim=1)

    def _band(self, rows: Tensor) -> Tensor:
        hidden = F.pixel_shuffle(F.conv2d(rows, self.up[1].weight, self.up[1].bias), 2).permute(0, 2, 3, 1).contiguous()
        return torch.cat([self._numbers(hidden, head) for head in self.heads], dim=-1)

    def _numbers(self, hidden: Tensor, head: Sequence[Any]) -> Tensor:
        for layer in (head[0], head[1]):
            hidden = fused_linear(hidden, layer.weight, layer.bias, "relu")
        return fused_linear(hidden, head[2].weight, head[2].bias, "none").float()
