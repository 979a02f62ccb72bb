"""The composed model: encoder, features, sampling, conditioning and decoder as one ``ContinuousModel``."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from attrs import evolve
from torch import Tensor, nn

from liif_core.continuous import (
    WINDOW,
    ContinuousImage,
    ContinuousModel,
    Moments,
    Part,
    RunningMean,
)
from liif_core.errors import UserError
from liif_core.experiment import ModelSpec
from liif_core.geometry import mirrored
from liif_core.protocols import (
    Conditioning,
    Decoder,
    Encoder,
    Features,
    LatentField,
    Maps,
    Query,
    Sampling,
    SetDecoder,
    Sites,
    as_rows,
    blend,
    gather,
)  # fmt: skip
from liif_core.registry import Choice
from liif_core.residual import pixels_around

CACHE = 2 << 20  # bytes gathered for a block of queries on a CPU: about what its caches hold (benchmarks/README.md)


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
    def passes(self) -> int | None:
        if self.decoder.pointwise:
            return 0
        return self.decoder.passes if isinstance(self.decoder, SetDecoder) else None

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
        self.passes = model.passes
        self._prepared: tuple[Any, Maps] | None = None

    def query(self, where: Query | Tensor, cell: Tensor | None = None, moments: Moments = ()) -> Tensor:
        query = self._as_query(where, cell)
        maps, blocks = self._asked(query, moments)
        decoder = self.model.decoder
        if self.passes and len(blocks) > 1:
            for _ in range(self.passes - len(moments)):
                maps = decoder.knowing(maps, self._mean(maps, blocks))
        colours = [decoder.decode(maps, sites, conditions) for sites, conditions in blocks]
        colours = (colours[0] if len(blocks) == 1 else torch.cat(colours, dim=1).unflatten(1, query.shape)).float()
        if self.model.residual != "none":
            colours = colours + self._residual(query)
        return colours * 0.5 + 0.5

    def moment(self, query: Query, moments: Moments) -> Tensor:
        return self._mean(*self._asked(query, moments))

    def _mean(self, maps: Maps, blocks: "list[_Block]") -> Tensor:
        """The next moment of the queries in ``blocks``."""
        mean = RunningMean()
        for sites, conditions in blocks:
            part = self.model.decoder.moment(maps, sites, conditions)
            mean.add(part, math.prod(sites.index.shape[2:]))
        return mean.value(like=part)

    def held_bytes(self) -> int:
        prepared = self._prepared[1].values() if self._prepared else ()
        return sum(tensor.nbytes for tensor in (self.signal, self.field.features, *prepared))

    def _block(self, maps: Maps) -> int:
        """How many queries to decode at once on a CPU."""
        gathered = sum(values.shape[-1] for values in maps.values())
        return max(128, CACHE // (4 * gathered * self.model.sampling.neighbours)) if gathered else WINDOW

    def _asked(self, query: Query, moments: Moments) -> "tuple[Maps, list[_Block]]":
        """What the decoder is to be given for a query: on a CPU in blocks that its caches hold, where queries allow."""
        model = self.model
        sites = model.sampling(query, self.size)
        conditions = self._conditions(query, sites)
        if tuple(self.signal.shape[-2:]) != self.size:  # a part
            sites = evolve(sites, index=self._own_index(sites.index))
        maps = self.maps(query.cell)
        block = self._block(maps)
        for mean in moments:
            maps = model.decoder.knowing(maps, mean)
        whole = self.device.type != "cpu" or self.passes is None or torch.is_grad_enabled()
        if whole or math.prod(query.shape) <= block:
            return maps, [(sites, conditions)]
        return maps, list(_blocks(sites, conditions, query.shape, block))

    def _conditions(self, query: Query, sites: Sites) -> dict[str, Tensor]:
        model = self.model
        return {name: told(query, sites, self.size) for name, told in zip(model.told, model.conditioning)}

    def maps(self, cell: Tensor) -> Maps:
        """What the decoder prepares: once per image, or once per image and cell if it is scale dependent.

        ``cell`` (B or 1, *Q or ones, 2). Raises ValueError for several cells in an image, if it is scale dependent.
        """
        scale_dependent = self.model.decoder.scale_dependent
        cell = _one_cell(cell) if scale_dependent else cell
        key = tuple(cell.flatten().tolist()) if scale_dependent else None
        if self._prepared is None or self._prepared[0] != key:
            told = self._told_of_image(cell) if scale_dependent else {}
            self._prepared = key, self.model.decoder.prepare(self.field, told)
        return self._prepared[1]

    def _told_of_image(self, cell: Tensor) -> "_Told":
        """The conditions that are one for all queries of an image, ``cell`` (B or 1, 2) being theirs."""
        places = cell.new_tensor([[-0.4, 0.3], [0.6, 0.1]]).expand(len(cell), 2, 2)
        query = Query.points(places, cell.unsqueeze(1))
        conditions = self._conditions(query, self.model.sampling(query, self.size))
        return _Told({n: v[0, :, 0] for n, v in conditions.items() if v.shape[0] == v.shape[2] == 1})

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

    def _residual(self, query: Query) -> Tensor:
        index, weight = pixels_around(query, self.size, self.model.residual)
        return blend(gather(as_rows(self.signal), self._own_index(index)), weight)


_Block = tuple[Sites, dict[str, Tensor]]  # queries: which codes they read, and what the decoder is told of them


class _Told(dict):
    """Conditions by name, for ``Decoder.prepare``."""

    def __missing__(self, name: str) -> Tensor:
        known = ", ".join(map(repr, self)) or "none"
        raise ValueError(f"the condition {name!r} is not one for all queries of an image, as 'prepare' needs it ({known} is)")


def _one_cell(cell: Tensor) -> Tensor:
    """(B or 1, *Q or ones, 2) -> (B or 1, 2). Raises ValueError where an image has several."""
    cells = cell.reshape(len(cell), -1, 2)
    if (cells != cells[:, :1]).any():
        raise ValueError("cell: this decoder prepares an image for one cell, and is asked for several; ask for one at a time")
    return cells[:, 0]


def _blocks(
    sites: Sites, conditions: Mapping[str, Tensor], shape: tuple[int, ...], block: int
) -> Iterator[_Block]:
    """Queries of ``shape``, flattened, ``block`` at a time."""
    sites = Sites(_flat(sites.index, shape), _flat(sites.offset, shape), _flat(sites.weight, shape))
    conditions = {name: _flat(values, shape) for name, values in conditions.items()}
    for first in range(0, math.prod(shape), block):
        part = slice(first, first + block)
        own = Sites(sites.index[:, :, part], sites.offset[:, :, part], sites.weight[:, :, part])
        yield own, {name: values[:, :, part] for name, values in conditions.items()}


def _flat(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(K, B or 1, *Q, ...), or broadcastable to it, as (K, B or 1, N, ...) for N = prod(Q)."""
    rest = values.shape[2 + len(shape) :]
    return values.expand(*values.shape[:2], *shape, *rest).reshape(*values.shape[:2], -1, *rest)


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
    if isinstance(decoder, SetDecoder) and decoder.pointwise:
        raise UserError(f"model.decoder: {spec.decoder.use!r} of {spec.decoder.origin} is pointwise, and has passes: one is not true")
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


def try_out(model: ContinuousModel) -> None:
    """Ask a new model for a few pixels of a small image, on the CPU. Raises UserError where its parts do not fit."""
    was_training = model.training
    model.eval()  # so that nothing is learned of it, not even a running mean
    with torch.no_grad():
        try:
            picture = model.encode(torch.full((1, model.channels, 4, 5), 0.5))
            colours = picture.render((6, 5))
            points = picture.query(torch.zeros(1, 3, 2), torch.full((1, 1, 2), 0.4))
        except Exception as error:  # a plugin's, or of two that were not made for each other
            raise UserError(f"model: its parts do not work together: {type(error).__name__}: {error}") from error
    model.train(was_training)
    for found, expected in ((colours, (1, model.channels, 6, 5)), (points, (1, 3, model.channels))):
        if tuple(found.shape) != expected:
            raise UserError(f"model: its parts do not work together: expected colours {expected}, got {tuple(found.shape)}")


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
