"""The composed model: encoder, features, sampling, conditioning and decoder as one ``ContinuousModel``."""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Literal

import torch
from torch import Tensor, nn

from liif_core.model.composed_image import ComposedImage
from liif_core.model.continuous import ContinuousModel, TilePlacement
from liif_core.model.frame import frame_of, padded, scaled_slice, without_cuts
from liif_core.model.geometry import mirrored
from liif_core.shapes import Float

Residual = Literal["none", "bilinear", "nearest"]


class ComposedModel(ContinuousModel):
    """An encoder, features, a sampling, conditionings and a decoder, put together."""

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
    ):
        super().__init__()
        self.channels = channels
        self.residual = residual
        self.encoder: Any = encoder  # Any: a module that also keeps its contract
        self.features: Any = features
        self.sampling: Any = sampling
        self.conditioning = nn.ModuleList(conditioning.values())
        self.condition_names = tuple(conditioning)
        self.decoder: Any = decoder
        self._codes_per_pixel: tuple[Fraction, Fraction] | None = None

    @property
    def multiple_of(self) -> int:  # type: ignore[override]
        return self.encoder.multiple_of

    @property
    def num_statistics(self) -> int | None:  # type: ignore[override]
        return self.decoder.num_statistics

    @property
    def halo(self) -> int | None:  # type: ignore[override]
        if self.encoder.receptive_radius is None or self.decoder.radius is None:
            return None
        codes = self.features.radius + self.decoder.radius + self.sampling.reach
        unit = 0 if self.codes_per_pixel == (1, 1) else self.multiple_of  # twice: cuts are moved to whole codes
        # one more pixel: a query between two pixels may be nearest to either, and a bilinear residual reads both
        return self.encoder.receptive_radius + math.ceil(codes / min(self.codes_per_pixel)) + 2 * unit + 1

    @property
    def codes_per_pixel(self) -> tuple[Fraction, Fraction]:
        """Latent codes per pixel of the image, down and across: 1 unless the encoder changes resolution."""
        if self._codes_per_pixel is None:
            side = math.lcm(8, self.multiple_of)
            parameter = next(self.parameters(), torch.zeros(0))
            training = self.training
            self.eval()
            with torch.no_grad():
                signal = parameter.new_zeros(1, self.channels, side, side)
                grid = self.features(self.encoded(signal)).grid
            self.train(training)
            self._codes_per_pixel = Fraction(grid[0], side), Fraction(grid[1], side)
        return self._codes_per_pixel

    def encode(self, image: Float[Tensor, "B channels h w"], placement: TilePlacement | None = None) -> ComposedImage:
        if image.ndim != 4 or image.shape[1] != self.channels or 0 in image.shape:
            raise ValueError(f"image: expected (B, {self.channels}, h, w) with no empty side, got {tuple(image.shape)}")
        signal = (image.float() - 0.5) / 0.5
        size = signal.shape[-2], signal.shape[-1]
        tile = TilePlacement(size, 0, 0) if placement is None else placement
        encoded = self.encoded(signal)
        if (encoded.shape[-2], encoded.shape[-1]) == size:
            unit, per_pixel = 1, (Fraction(1), Fraction(1))
        else:
            unit, per_pixel = (
                self.multiple_of,
                tuple(Fraction(codes, padded(side, self.multiple_of)) for codes, side in zip(encoded.shape[-2:], size)),
            )
        if placement is not None:
            margin = -(-(self.encoder.receptive_radius or 0) // unit) * unit
            tile, rows, columns = without_cuts(tile, size, margin, unit)
            encoded = encoded[:, :, scaled_slice(rows, per_pixel[0]), scaled_slice(columns, per_pixel[1])]
            signal = signal[:, :, rows, columns]
        field = self.features(encoded)
        field.image = signal
        return ComposedImage(self, tile, field, frame_of(tile, (signal.shape[-2], signal.shape[-1]), field.grid, unit))

    def encoded(self, signal: Float[Tensor, "B channels h w"]) -> Float[Tensor, "B C y x"]:
        """Features of a normalized image in [-1, 1], which is padded to ``multiple_of`` by mirroring.

        (B, C, h, w) where the encoder keeps the resolution; else at its own, of the padded image.
        """
        height, width = signal.shape[-2:]
        for dim, side in ((2, height), (3, width)):
            wanted = padded(side, self.multiple_of)
            if side != wanted:
                signal = signal.index_select(dim, mirrored(side, wanted).to(signal.device))
        encoded = self.encoder(signal.contiguous(memory_format=torch.channels_last))
        return encoded[:, :, :height, :width] if encoded.shape[-2:] == signal.shape[-2:] else encoded
