"""Continuous models and images: encode once, then ask for colours anywhere.

Trainer, evaluator and renderer see only ``ContinuousModel.encode`` and ``ContinuousImage.query``; the composition of
encoder, features, sampling, conditioning and decoder is one implementation of that pair.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from attrs import evolve, frozen
from torch import Tensor, nn

from liif_core.errors import UserError
from liif_core.experiment import ModelSpec
from liif_core.geometry import Size, mirrored, region_axes, windows
from liif_core.protocols import (
    Conditioning,
    Decoder,
    Encoder,
    Features,
    LatentField,
    Maps,
    Query,
    Sampling,
    Sites,
    as_rows,
    blend,
    gather,
)  # fmt: skip
from liif_core.registry import Choice

CACHE = 2 << 20  # bytes gathered for a block of queries on a CPU: about what its caches hold (benchmarks/README.md)
WINDOW = 1 << 15  # queries in a window on a CPU: what is not decoding is done for all of its blocks at once
DEVICE_WINDOW = 1 << 18  # queries in a window elsewhere


@frozen
class Part:
    """Where an image that is encoded alone lies in a larger one, whose colours it is to answer for."""

    size: Size  # (h, w) of the larger image
    top: int
    left: int


class ContinuousImage(ABC):
    """A batch of images as a function of position. Made by ``ContinuousModel.encode``."""

    size: Size  # (h, w) of the image that was encoded, or of the larger one that it is a part of
    channels: int
    device: torch.device
    pointwise: bool  # False: a query's colour depends on the others asked for at once

    @abstractmethod
    def query(self, where: Query | Tensor, cell: Tensor | None = None) -> Tensor:
        """Colours (B, *Q, channels), float32, [0, 1] space, not clamped.

        ``where`` is a Query, or coordinates (B, N, 2) (y, x) in [-1, 1] with ``cell`` broadcastable to them: the
        height and width of the pixel asked for, in the same units. Points outside are answered from the border.
        """

    def held_bytes(self) -> int:
        """Of memory: the codes, and what was prepared of them; 0 where nobody counts."""
        return 0

    def render(
        self, size: Size, region: tuple[float, float, float, float] | None = None, clamp: bool = False
    ) -> Tensor:
        """The image (B, channels, H, W) at any ``size`` = (H, W), float32, [0, 1] space.

        ``region`` (top, left, bottom, right), in pixels of the encoded image, fractions allowed, renders that part.
        Values may leave [0, 1] a little unless ``clamp``. The result does not depend on how it is cut in windows.
        """
        if min(size) < 1:
            raise ValueError(f"size: expected at least 1 x 1, got {size}")
        colours = self.render_grid(*region_axes(size, self.size, region))
        return colours.clamp_(0, 1) if clamp else colours

    def render_grid(self, rows: Tensor, columns: Tensor, cell: Tensor, window: int | None = None) -> Tensor:
        """Colours (B, channels, H, W) of a pixel grid: ``rows`` (H,), ``columns`` (W,), one ``cell`` (2,).

        ``window``: how many queries are asked for at once; all of them, whatever it says, where they are not pointwise.
        """
        rows, columns, cell = (t.to(self.device) for t in (rows, columns, cell))
        size = len(rows), len(columns)
        limit = window or (WINDOW if self.device.type == "cpu" else DEVICE_WINDOW)
        output = None
        for down, across in windows(size, limit if self.pointwise else size[0] * size[1]):
            colours = self.query(Query.grid(rows[down], columns[across], cell)).permute(0, 3, 1, 2)
            if output is None:
                output = colours.new_empty(*colours.shape[:2], *size)
            output[:, :, down, across] = colours
        return output


class ContinuousModel(nn.Module, ABC):
    """Makes continuous images of images."""

    channels: int  # of the images it takes and gives
    multiple_of: int = 1  # a part's top and left must be multiples of this
    halo: int | None = None  # pixels around a place that its colours depend on; None: the whole image
    pointwise: bool = True  # False: a query's colour depends on the others asked for at once

    @abstractmethod
    def encode(self, image: Tensor, part: Part | None = None) -> ContinuousImage:
        """``image`` (B, channels, h, w) in [0, 1], any size from 1 x 1. Raises ValueError for another shape.

        With ``part``, ``image`` is cut from a larger one; the result has that one's coordinates, and answers, as if it
        had been encoded whole, what lies at least ``halo`` pixels from each cut.
        """

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
        self.conditioning = nn.ModuleList(conditioning.values())
        self.told = tuple(conditioning)  # their names
        self.decoder = decoder

    @property
    def multiple_of(self) -> int:
        return self.encoder.multiple_of

    @property
    def pointwise(self) -> bool:
        return self.decoder.pointwise

    @property
    def halo(self) -> int | None:
        if self.encoder.receptive_radius is None:
            return None
        # one more: a query between two pixels may be nearest to either, and a bilinear residual reads both
        return self.encoder.receptive_radius + self.features.radius + self.decoder.radius + self.sampling.reach + 1

    def encode(self, image: Tensor, part: Part | None = None) -> "ComposedImage":
        if image.ndim != 4 or image.shape[1] != self.channels or 0 in image.shape:
            raise ValueError(f"image: expected (B, {self.channels}, h, w) with no empty side, got {tuple(image.shape)}")
        signal = (image.float() - 0.5) / 0.5
        if part is None:
            return ComposedImage(self, signal, Part(tuple(image.shape[-2:]), 0, 0), self.features(self.encoded(signal)))
        kept, rows, columns = self._unspoilt(part, image.shape[-2], image.shape[-1])
        features = self.encoded(signal)[:, :, rows, columns]
        return ComposedImage(self, signal[:, :, rows, columns], kept, self.features(features))

    def _unspoilt(self, part: Part, height: int, width: int) -> tuple[Part, slice, slice]:
        """The part without the codes at its cuts that would have seen more of a whole image."""
        spoilt = self.encoder.receptive_radius or 0
        top, left = (spoilt if start > 0 else 0 for start in (part.top, part.left))
        bottom = height - (spoilt if part.top + height < part.size[0] else 0)
        right = width - (spoilt if part.left + width < part.size[1] else 0)
        return evolve(part, top=part.top + top, left=part.left + left), slice(top, bottom), slice(left, right)

    def encoded(self, signal: Tensor) -> Tensor:
        """Features (B, C, h, w) of a normalised image (B, channels, h, w) in [-1, 1]: one code for each pixel."""
        height, width = signal.shape[-2:]
        for dim, side in ((2, height), (3, width)):
            wanted = -(-side // self.multiple_of) * self.multiple_of
            if side != wanted:
                signal = signal.index_select(dim, mirrored(side, wanted).to(signal.device))
        return self.encoder(signal.contiguous(memory_format=torch.channels_last))[:, :, :height, :width]


class ComposedImage(ContinuousImage):
    """What ``ComposedModel.encode`` makes. Holds the codes, and what the decoder prepared of them."""

    def __init__(self, model: ComposedModel, signal: Tensor, part: Part, field: LatentField):
        self.model = model
        self.signal = signal
        self.part = part
        self.field = field
        self.size = part.size
        self.channels = model.channels
        self.device = signal.device
        self.pointwise = model.pointwise
        self._prepared: tuple[Any, Maps] | None = None

    def query(self, where: Query | Tensor, cell: Tensor | None = None) -> Tensor:
        query = self._as_query(where, cell)
        model = self.model
        sites = model.sampling(query, self.size)
        told = (condition(query, sites, self.size) for condition in model.conditioning)
        conditions = dict(zip(model.told, told))
        if tuple(self.signal.shape[-2:]) != self.size:  # a part
            sites = evolve(sites, index=self._own_index(sites.index))
        colours = self._decoded(self.maps(query.cell), sites, conditions, query.shape).float()
        if model.residual != "none":
            colours = colours + self._sampled(query)
        return colours * 0.5 + 0.5

    def held_bytes(self) -> int:
        prepared = self._prepared[1].values() if self._prepared else ()
        return sum(tensor.nbytes for tensor in (self.signal, self.field.features, *prepared))

    def _block(self, maps: Maps) -> int:
        """How many queries to decode at once on a CPU."""
        gathered = sum(values.shape[-1] for values in maps.values())
        return max(128, CACHE // (4 * gathered * self.model.sampling.neighbours)) if gathered else WINDOW

    def _decoded(self, maps: Maps, sites: Sites, conditions: dict[str, Tensor], shape: tuple[int, ...]) -> Tensor:
        """Colours (B, *Q, channels) in [-1, 1] space: on a CPU in blocks that its caches hold, where queries allow."""
        decode, block, count = self.model.decoder.decode, self._block(maps), math.prod(shape)
        if self.device.type != "cpu" or not self.pointwise or torch.is_grad_enabled() or count <= block:
            return decode(maps, sites, conditions)
        sites = Sites(_flat(sites.index, shape), _flat(sites.offset, shape), _flat(sites.weight, shape))
        conditions = {name: _flat(values, shape) for name, values in conditions.items()}
        colours = []
        for first in range(0, count, block):
            part = slice(first, first + block)
            own = Sites(sites.index[:, :, part], sites.offset[:, :, part], sites.weight[:, :, part])
            colours.append(decode(maps, own, {name: values[:, :, part] for name, values in conditions.items()}))
        return torch.cat(colours, dim=1).unflatten(1, shape)

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
        if where.ndim < 3 or where.shape[0] not in (1, batch) or where.shape[-1] != 2:
            raise ValueError(f"coord: expected ({batch}, N, 2), got {tuple(where.shape)}")
        return Query.points(where.to(self.device), cell.to(self.device))

    def _own_index(self, index: Tensor) -> Tensor:
        """Indices of pixels of the whole image, as indices of what was encoded here."""
        width, own = self.size[1], self.signal.shape[-1]
        skipped = self.part.top * own + self.part.left
        return index - (index // width * (width - own) + skipped if own != width else skipped)

    def _sampled(self, query: Query) -> Tensor:
        """The normalised LR image, sampled at the query's coordinates: (B, *Q, channels)."""
        if query.axes is None:
            places = query.coord.unbind(-1)
        else:
            places = query.axes[0].view(1, -1, 1), query.axes[1].view(1, 1, -1)
        pick = _nearest if self.model.residual == "nearest" else _linear
        (row, row_weight), (column, column_weight) = (pick(place, side) for place, side in zip(places, self.size))
        index = self._own_index((row.unsqueeze(1) * self.size[1] + column.unsqueeze(0)).flatten(0, 1))
        weight = (row_weight.unsqueeze(1) * column_weight.unsqueeze(0)).flatten(0, 1)
        return blend(gather(as_rows(self.signal), index), weight)


def _flat(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(K, B or 1, *Q, ...), or broadcastable to it, as (K, B or 1, N, ...) for N = prod(Q)."""
    rest = values.shape[2 + len(shape) :]
    return values.expand(*values.shape[:2], *shape, *rest).reshape(*values.shape[:2], -1, *rest)


def _pixel(place: Tensor, count: int) -> Tensor:
    """Coordinates as pixel numbers, fractions between; what lies outside is moved to the border."""
    return (((place + 1) * count - 1) / 2).clamp(0, count - 1)


def _nearest(place: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(1, *shape) index and weight of the pixel nearest to each place along one axis."""
    index = _pixel(place, count).round().long().unsqueeze(0)
    return index, torch.ones_like(index, dtype=torch.float32)


def _linear(place: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(2, *shape) indices and weights of the two pixels around each place along one axis."""
    position = _pixel(place, count)
    low = position.floor()
    index = torch.stack([low, (low + 1).clamp(max=count - 1)]).long()
    return index, torch.stack([1 - (position - low), position - low])


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
        promised = {**contract.__annotations__, **vars(contract)}
        wanted = ", ".join(sorted(name for name in promised if not name.startswith("_")))
        raise UserError(f"{where} breaks its contract: expected a torch module with {wanted}, got {type(module).__name__}")
    return module
