"""Composed models: encoder, features, sampling, conditionings and decoder as one ``ContinuousModel``."""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal

import torch
from torch import Tensor, nn

from liif_core.model.composed_image import ComposedImage
from liif_core.model.continuous import ContinuousModel, TilePlacement
from liif_core.model.device import eval_mode
from liif_core.model.frame import frame_of, padded, scaled_slice, without_cuts
from liif_core.model.geometry import mirror_padded
from liif_core.model.protocols import AlignedFeatures, ObjectiveDecoder
from liif_core.shapes import Float

Residual = Literal["none", "bilinear", "nearest"]


class ComposedModel(ContinuousModel):
    """A ``ContinuousModel`` that consists of an encoder, features, a sampling, conditionings and a decoder.

    Each is a module that keeps its contract (see ``liif_core.model.protocols``). ``conditioning`` maps names to
    modules. ``residual`` is the interpolation of the LR image that is added to the decoder's output. The encoder
    receives (image - input_mean) / input_std, for an image in [0, 1]; each has one number, or one for each channel.
    """

    input_mean: Tensor
    input_std: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        features: nn.Module,
        sampling: nn.Module,
        conditioning: Mapping[str, nn.Module],
        decoder: nn.Module,
        *,
        channels: int = 3,
        residual: Residual = "none",
        input_mean: Sequence[float] = (0.5,),
        input_std: Sequence[float] = (0.5,),
    ):
        super().__init__()
        self.channels = channels
        self.residual = residual
        self.encoder: Any = encoder  # Any: type checkers have no name for a module that keeps a contract
        self.features: Any = features
        self.sampling: Any = sampling
        self.conditioning = nn.ModuleList(conditioning.values())
        self.condition_names = tuple(conditioning)
        self.decoder: Any = decoder
        self._renormalized = (tuple(input_mean), tuple(input_std)) != ((0.5,), (0.5,))
        for name, values in (("input_mean", input_mean), ("input_std", input_std)):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)
        self._measured: tuple[Fraction, Fraction] | None = None

    @property
    def multiple_of(self) -> int:  # type: ignore[override]
        of_features = self.features.multiple_of if isinstance(self.features, AlignedFeatures) else 1
        return int(self.encoder.multiple_of * of_features)

    @property
    def has_own_loss(self) -> bool:  # type: ignore[override]
        return isinstance(self.decoder, ObjectiveDecoder)

    @property
    def num_statistics(self) -> int | None:  # type: ignore[override]
        number: int | None = self.decoder.num_statistics
        return number

    @property
    def halo(self) -> int | None:  # type: ignore[override]
        if self._sees_whole_image:
            return None
        of_features, of_field = self._codes_per_pixel()
        radius: int = self.encoder.receptive_radius
        # where codes are not pixels, ``encode`` may remove so many pixels more at each cut
        rounding = 0 if of_features == of_field == 1 else 2 * self.multiple_of
        pixels: Fraction = self.features.radius / of_features + (self.decoder.radius + self.sampling.reach) / of_field
        # one more pixel: a query between two pixels may be nearest to either, and a bilinear residual reads both
        return radius + math.ceil(pixels) + rounding + 1

    @property
    def _sees_whole_image(self) -> bool:
        """Whether a color depends on the image at any distance."""
        return None in (self.encoder.receptive_radius, self.features.radius, self.decoder.radius)

    def _codes_per_pixel(self) -> tuple[Fraction, Fraction]:
        """Codes per pixel, along the axis with fewer, of the encoder's features and of the field; measured once."""
        if self._measured is None:
            side = math.lcm(8, self.multiple_of)
            parameter = next(self.parameters(), torch.zeros(0))
            with eval_mode(self), torch.no_grad():
                features = self.encoder(parameter.new_zeros(1, self.channels, side, side))
                grid = self.features(features).grid
            self._measured = Fraction(min(features.shape[-2:]), side), Fraction(min(grid), side)
        return self._measured

    def encode(self, image: Float[Tensor, "B channels h w"], placement: TilePlacement | None = None) -> ComposedImage:
        self.check_image(image)
        signal = (image.float() - 0.5) / 0.5
        size = signal.shape[-2], signal.shape[-1]
        tile = TilePlacement(size, 0, 0) if placement is None else placement
        encoded, unit = self._encoded(signal)
        if placement is not None:
            # where the halo is None, tiles are approximate at their cuts, and nothing is gained by removing these
            margin = 0 if self._sees_whole_image else padded(self.encoder.receptive_radius, unit)
            per_pixel = [Fraction(codes, padded(side, unit)) for codes, side in zip(encoded.shape[-2:], size)]
            tile, rows, columns = without_cuts(tile, size, margin, unit)
            encoded = encoded[:, :, scaled_slice(rows, per_pixel[0]), scaled_slice(columns, per_pixel[1])]
            signal = signal[:, :, rows, columns]
        field = self.features(encoded)
        field.image = signal
        return ComposedImage(self, tile, field, frame_of(tile, (signal.shape[-2], signal.shape[-1]), field.grid, unit))

    def encoded(self, signal: Float[Tensor, "B channels h w"]) -> Float[Tensor, "B C y x"]:
        """Features of an image in [-1, 1], which is padded to the encoder's ``multiple_of`` by mirroring.

        (B, C, h, w) where the encoder keeps the resolution; else features of the padded image.
        """
        return self._encoded(signal)[0]

    def _encoded(self, signal: Float[Tensor, "B channels h w"]) -> tuple[Float[Tensor, "B C y x"], int]:
        """``encoded``, and the multiple, in pixels, that the sides of the area it covers are padded to."""
        height, width = signal.shape[-2:]
        signal = mirror_padded(signal, self.encoder.multiple_of)
        encoded = self.encoder(_channels_last(self._normalized(signal)))
        if encoded.shape[-2:] == signal.shape[-2:]:
            return encoded[:, :, :height, :width], 1
        return encoded, int(self.encoder.multiple_of)

    def _normalized(self, signal: Tensor) -> Tensor:
        """An image in [-1, 1] as the encoder receives it."""
        if not self._renormalized:
            return signal
        return (signal * 0.5 + (0.5 - self.input_mean)) / self.input_std


def _channels_last(signal: Tensor) -> Tensor:
    """In channels-last order, with the usual strides.

    Torch keeps an odd stride of a batch of one, such as that of an array (h, w, 3), and oneDNN's convolutions then take
    twice as long.
    """
    ordered = signal.contiguous(memory_format=torch.channels_last)
    return ordered if ordered.stride(0) == ordered[0].numel() else ordered.clone(memory_format=torch.channels_last)
