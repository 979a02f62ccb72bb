"""Feature unfolding (LIIF, section 3): each latent code is joined with its neighbours, 3x3 in the paper."""

import torch.nn.functional as F
from attrs import frozen
from attrs.validators import in_
from torch import Tensor, nn

from liif_core import Component, LatentField, NoOptions, hookimpl, option


@frozen
class UnfoldOptions:
    size: int = option("Side of the square of codes that are joined; odd.", 3, check=in_((1, 3, 5, 7)))


class UnfoldedField(LatentField):
    """Codes joined with their neighbours, zero beyond the border; channel order: feature, then row, then column."""

    def __init__(self, features: Tensor, size: int):
        self.features = features
        self.size = size
        self.channels = features.shape[1] * size * size

    def dense(self) -> Tensor:
        if self.size == 1:
            return self.features
        batch, _, height, width = self.features.shape
        return F.unfold(self.features, self.size, padding=self.size // 2).view(batch, self.channels, height, width)

    def linear(self, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        kernel = weight.reshape(len(weight), -1, self.size, self.size)
        return F.conv2d(self.features, kernel, bias, padding=self.size // 2)


class Unfold(nn.Module):
    """Features (B, C, h, w) -> a field of C * size * size channels."""

    def __init__(self, options: UnfoldOptions, in_channels: int):
        super().__init__()
        self.size = options.size
        self.radius = options.size // 2
        self.channels = in_channels * options.size**2

    def forward(self, features: Tensor) -> UnfoldedField:
        return UnfoldedField(features, self.size)


@hookimpl
def liif_features():
    return [
        Component("unfold", Unfold, UnfoldOptions, lambda o: f"unfold {o.size}x{o.size}"),
        Component("identity", lambda options, in_channels: Unfold(UnfoldOptions(size=1), in_channels), NoOptions),
    ]
