"""Continuous models and images: encode once, then ask for colours anywhere.

Trainer, evaluator and renderer see only ``ContinuousModel.encode`` and ``ContinuousImage.query``; the composition of
encoder, features, sampling, conditioning and decoder is one implementation of that pair.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from liif_core.errors import UserError
from liif_core.experiment import ModelSpec
from liif_core.geometry import Size, mirrored, region_axes, windows
from liif_core.protocols import Conditioning, Decoder, Encoder, Features, LatentField, Maps, Query, Sampling
from liif_core.registry import Choice

WINDOW = 1024  # queries decoded at once on a CPU: about what its caches hold (benchmarks/README.md)
DEVICE_WINDOW = 1 << 18  # queries decoded at once elsewhere


class ContinuousImage(ABC):
    """A batch of images as a function of position. Made by ``ContinuousModel.encode``."""

    size: Size  # (h, w) of the image that was encoded
    channels: int
    device: torch.device
    pointwise: bool  # False: a query's colour depends on the others asked for at once

    @abstractmethod
    def query(self, where: Query | Tensor, cell: Tensor | None = None) -> Tensor:
        """Colours (B, *Q, channels), float32, [0, 1] space, not clamped.

        ``where`` is a Query, or coordinates (B, N, 2) (y, x) in [-1, 1] with ``cell`` broadcastable to them: the
        height and width of the pixel asked for, in the same units. Points outside are answered from the border.
        """

    def render(
        self, size: Size, region: tuple[float, float, float, float] | None = None, clamp: bool = False
    ) -> Tensor:
        """The image (B, channels, H, W) at any ``size`` = (H, W), float32, [0, 1] space.

        ``region`` (top, left, bottom, right), in pixels of the encoded image, fractions allowed, renders that part.
        Values may leave [0, 1] a little unless ``clamp``. The result does not depend on how it is cut in windows.
        """
        if min(size) < 1:
            raise ValueError(f"size: expected at least 1 x 1, got {size}")
        rows, columns, cell = (t.to(self.device) for t in region_axes(size, self.size, region))
        limit = WINDOW if self.device.type == "cpu" else DEVICE_WINDOW
        output = None
        for down, across in windows(size, limit if self.pointwise else size[0] * size[1]):
            colours = self.query(Query.grid(rows[down], columns[across], cell)).permute(0, 3, 1, 2)
            if output is None:
                output = colours.new_empty(*colours.shape[:2], *size)
            output[:, :, down, across] = colours
        return output.clamp_(0, 1) if clamp else output


class ContinuousModel(nn.Module, ABC):
    """Makes continuous images of images."""

    channels: int  # of the images it takes and gives

    @abstractmethod
    def encode(self, image: Tensor) -> ContinuousImage:
        """``image`` (B, channels, h, w) in [0, 1], any size from 1 x 1. Raises ValueError for another shape."""

    def forward(self, image: Tensor, coord: Tensor, cell: Tensor) -> Tensor:
        """``encode`` and ``query`` in one call, as training uses it: (B, N, channels)."""
        return self.encode(image).query(coord, cell)


class ComposedModel(ContinuousModel):
    """An encoder, features, sampling, conditionings and a decoder, put together."""

    def __init__(
        self,
        encoder: nn.Module,
        features: nn.Module,
        sampling: nn.Module,
        conditioning: Mapping[str, nn.Module],
        decoder: nn.Module,
        *,
        channels: int = 3,
        residual: str = "none",
    ):
        super().__init__()
        self.channels = channels
        self.residual = residual
        self.encoder = encoder
        self.features = features
        self.sampling = sampling
        self.conditioning = nn.ModuleDict(conditioning)
        self.decoder = decoder

    def encode(self, image: Tensor) -> "ComposedImage":
        if image.ndim != 4 or image.shape[1] != self.channels or 0 in image.shape:
            raise ValueError(f"image: expected (B, {self.channels}, h, w) with no empty side, got {tuple(image.shape)}")
        signal = (image.float() - 0.5) / 0.5
        return ComposedImage(self, signal, self.latent_field(signal))

    def latent_field(self, signal: Tensor) -> LatentField:
        """The codes of a normalised image (B, channels, h, w) in [-1, 1]: one for each of its pixels."""
        height, width = signal.shape[-2:]
        padded = [-(-n // self.encoder.multiple_of) * self.encoder.multiple_of for n in (height, width)]
        fitted = signal
        for dim, (side, wanted) in enumerate(zip((height, width), padded), start=2):
            if side != wanted:
                fitted = fitted.index_select(dim, mirrored(side, wanted).to(signal.device))
        features = self.encoder(fitted.contiguous(memory_format=torch.channels_last))
        return self.features(features[:, :, :height, :width])


class ComposedImage(ContinuousImage):
    """What ``ComposedModel.encode`` makes. Holds the codes, and what the decoder prepared of them."""

    def __init__(self, model: ComposedModel, signal: Tensor, field: LatentField):
        self.model = model
        self.signal = signal
        self.field = field
        self.size = tuple(signal.shape[-2:])
        self.channels = model.channels
        self.device = signal.device
        self.pointwise = model.decoder.pointwise
        self._prepared: tuple[Any, Maps] | None = None

    def query(self, where: Query | Tensor, cell: Tensor | None = None) -> Tensor:
        query = self._as_query(where, cell)
        model = self.model
        sites = model.sampling(query, self.size)
        conditions = {name: condition(query, sites, self.size) for name, condition in model.conditioning.items()}
        colours = model.decoder.decode(self.maps(query.cell), sites, conditions).float()
        if model.residual != "none":
            colours = colours + self._sampled(query.coord)
        return colours * 0.5 + 0.5

    def maps(self, cell: Tensor) -> Maps:
        """What the decoder prepares: once per image, or once per image and cell if it is scale dependent."""
        key = tuple(cell.reshape(-1).tolist()) if self.model.decoder.scale_dependent else None
        if self._prepared is None or self._prepared[0] != key:
            self._prepared = key, self.model.decoder.prepare(self.field, cell)
        return self._prepared[1]

    def _as_query(self, where: Query | Tensor, cell: Tensor | None) -> Query:
        if isinstance(where, Query):
            return where
        if cell is None:
            raise ValueError("cell: needed with coordinates: the height and width of the pixels asked for")
        batch = len(self.signal)
        if where.ndim < 3 or where.shape[-1] != 2 or where.shape[0] not in (1, batch):
            raise ValueError(f"coord: expected ({batch}, N, 2), got {tuple(where.shape)}")
        return Query.points(where.to(self.device), cell.to(self.device))

    def _sampled(self, coord: Tensor) -> Tensor:
        """The normalised LR image at the query's coordinates: (B, *Q, channels)."""
        batch = len(self.signal)
        flat = coord.reshape(len(coord), -1, 1, 2).flip(-1).expand(batch, -1, 1, 2)
        values = F.grid_sample(self.signal, flat, self.model.residual, "border", align_corners=False)
        return values[..., 0].transpose(1, 2).reshape(batch, *coord.shape[1:-1], self.channels)


def build_model(spec: ModelSpec) -> ComposedModel:
    """The model of a checked ``[model]`` table, with fresh weights, on the CPU.

    Raises UserError where a component does not keep its contract, or the parts do not fit.
    """
    encoder = _built(spec.encoder, Encoder, in_channels=spec.channels)
    features = _built(spec.features, Features, in_channels=encoder.out_channels)
    sampling = _built(spec.sampling, Sampling)
    conditioning = {choice.component.name: _built(choice, Conditioning) for choice in spec.conditioning}
    decoder = _built(
        spec.decoder,
        Decoder,
        in_channels=features.channels,
        out_channels=spec.channels,
        neighbours=sampling.neighbours,
        conditions={name: condition.channels for name, condition in conditioning.items()},
    )
    missing = sorted(decoder.needs - conditioning.keys())
    if missing:
        have = ", ".join(conditioning) or "none"
        raise UserError(
            f"model.conditioning: decoder {spec.decoder.use!r} needs {', '.join(map(repr, missing))} (given: {have}): "
            f'add [[model.conditioning]] use = "{missing[0]}"'
        )
    return ComposedModel(
        encoder, features, sampling, conditioning, decoder, channels=spec.channels, residual=spec.residual
    )


def _built(choice: Choice, contract: type[Protocol], **sizes: Any) -> nn.Module:
    where = f"model.{choice.kind}: {choice.use!r} of {choice.origin}"
    try:
        module = choice.build(**sizes)
    except Exception as error:
        raise UserError(f"{where} could not be built: {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module) or not isinstance(module, contract):
        wanted = ", ".join(sorted(contract.__protocol_attrs__))
        raise UserError(f"{where} breaks its contract: expected a torch module with {wanted}, got {type(module).__name__}")
    return module
