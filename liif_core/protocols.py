"""The contracts: what an encoder, features, sampling, conditioning and decoder promise each other.

Symbols in shapes: B images, K neighbours, C channels, (h, w) the grid of latent codes, and Q the shape of a
query: (N,) for scattered points, (H, W) for a window of a pixel grid.

Coordinates, cells, offsets and weights are float32, under autocast too. Offsets and cells that decoders see are in
feature-cell units: multiplied by (h, w), so that one feature cell is 2.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from attrs import frozen
from torch import Tensor


@frozen(eq=False)
class Query:
    """Where colours are asked for. Make one with ``points`` or ``grid``."""

    cell: Tensor  # (B or 1, *Q or ones, 2): each queried pixel's height and width
    _coord: Tensor | None
    axes: tuple[Tensor, Tensor] | None  # rows (H,) and columns (W,) of a pixel grid

    @classmethod
    def points(cls, coord: Tensor, cell: Tensor) -> "Query":
        """Scattered points: ``coord`` (B, N, 2), or a grid (B, H, W, 2); ``cell`` broadcastable to it from the right.

        Raises ValueError for shapes that do not fit.
        """
        if coord.ndim < 3 or coord.shape[-1] != 2:
            raise ValueError(f"coord: expected (B, N, 2), got {tuple(coord.shape)}")
        fits = 0 < cell.ndim <= coord.ndim
        if not fits or any(have not in (1, want) for have, want in zip(cell.shape[::-1], coord.shape[::-1])):
            raise ValueError(f"cell: expected a shape that broadcasts to {tuple(coord.shape)}, got {tuple(cell.shape)}")
        cell = cell.float().reshape(*[1] * (coord.ndim - cell.ndim), *cell.shape)
        return cls(cell=cell.expand(*cell.shape[:-1], 2), coord=coord.float(), axes=None)

    @classmethod
    def grid(cls, rows: Tensor, columns: Tensor, cell: Tensor) -> "Query":
        """A window of a pixel grid: ``rows`` (H,), ``columns`` (W,), one ``cell`` (2,); the same for every image."""
        return cls(cell=cell.float().reshape(1, 1, 1, 2), coord=None, axes=(rows.float(), columns.float()))

    @property
    def coord(self) -> Tensor:
        """(B or 1, *Q, 2) coordinates (y, x)."""
        if self.axes is None:
            return self._coord
        return torch.stack(torch.meshgrid(*self.axes, indexing="ij"), dim=-1).unsqueeze(0)

    @property
    def shape(self) -> tuple[int, ...]:
        """Q: (N,) or (H, W)."""
        if self.axes is None:
            return tuple(self._coord.shape[1:-1])
        return len(self.axes[0]), len(self.axes[1])


@frozen(eq=False)
class Sites:
    """Which latent codes a query reads."""

    index: Tensor  # (K, B or 1, *Q) int64: row * w + column in the feature map
    offset: Tensor  # (K, B or 1, *Q, 2) float32: query minus code, feature-cell units
    weight: Tensor  # (K, B or 1, *Q) float32: sums to 1 over K


class LatentField(ABC):
    """The latent codes an image was encoded to, as a decoder may want them."""

    features: Tensor  # (B, C, h, w): the encoder's own output
    channels: int  # of one code, as ``dense`` gives it

    @abstractmethod
    def dense(self) -> Tensor:
        """(B, channels, h, w): every code written out."""

    def linear(self, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """(B, D, h, w): a linear layer, ``weight`` (D, channels), applied to every code.

        Fields whose codes overlap override this to leave ``dense`` unmade.
        """
        return F.conv2d(self.dense(), weight[:, :, None, None], bias)


Maps = Mapping[str, Tensor]  # what a decoder prepared: tensors (B, ..., width); only that decoder looks inside


@runtime_checkable
class Encoder(Protocol):
    """A module: image (B, c, h, w) in [-1, 1] -> (B, out_channels, h, w)."""

    out_channels: int
    multiple_of: int  # image sides it needs; the framework pads by mirroring, and crops
    receptive_radius: int | None  # input pixels, in each direction, that one code can see; None: the whole image


@runtime_checkable
class Features(Protocol):
    """A module: features (B, C, h, w) -> LatentField."""

    channels: int  # of the LatentField
    radius: int  # neighbouring codes, in each direction, that one code of the field is made from


@runtime_checkable
class Sampling(Protocol):
    """A module: (query, grid = (h, w)) -> Sites."""

    neighbours: int  # K
    reach: int  # codes away from the nearest, in each direction, that a query may read


@runtime_checkable
class Conditioning(Protocol):
    """A module: (query, sites, grid) -> (K, B or 1, *Q, channels), or broadcastable to it, float32.

    What looks at the cell alone comes as (1, B or 1, *ones, channels) where the query has one cell: it is then known of
    the whole image, and told to decoders that are ``scale_dependent`` before any query.
    """

    channels: int


@runtime_checkable
class Decoder(Protocol):
    """A module: latent codes and conditions -> colours. It blends the K neighbours itself."""

    needs: frozenset[str]  # conditions it asks for by name
    pointwise: bool  # False: a query's colour depends on the other queries of the same call
    scale_dependent: bool  # True: ``prepare`` looks at what it is told, and an image can be asked for one cell at a time
    radius: int  # codes, in each direction, that ``prepare`` looks at around each

    def prepare(self, field: LatentField, told: Mapping[str, Tensor]) -> Maps:
        """Everything that is per code and not per query; called once per image (and cell, if scale dependent).

        ``told``: by name, the conditions (B or 1, channels) that are known of the whole image; none unless
        ``scale_dependent``.
        """

    def decode(self, maps: Maps, sites: Sites, conditions: Mapping[str, Tensor]) -> Tensor:
        """(B, *Q, out_channels), in [-1, 1] space."""


@runtime_checkable
class SetDecoder(Decoder, Protocol):
    """A decoder that is not pointwise, but needs of all queries no more than a few means over them.

    A set of any size can then be decoded in windows, exactly: ``passes`` times over all windows, each time for a mean,
    and once more for the colours. ``decode`` with maps that do not know the means takes its queries for the whole set.
    """

    passes: int  # how many means there are; each may depend on those before it

    def moment(self, maps: Maps, sites: Sites, conditions: Mapping[str, Tensor]) -> Tensor:
        """(B, ...): the first mean that ``maps`` do not know, over these queries alone."""

    def knowing(self, maps: Maps, mean: Tensor) -> Maps:
        """``maps`` with one more mean, over the whole set, and what can be made of it once."""


def as_rows(maps: Tensor) -> Tensor:
    """(B, D, h, w) -> (B, h * w, D), the layout ``gather`` reads; free where the map is channels-last."""
    return maps.permute(0, 2, 3, 1).reshape(maps.shape[0], -1, maps.shape[1])


def gather(rows: Tensor, index: Tensor) -> Tensor:
    """(B, h * w, D) at (K, B or 1, *Q) -> (K, B, *Q, D)."""
    batch, codes, width = rows.shape
    index = index.expand(index.shape[0], batch, *index.shape[2:])
    if batch > 1:
        first = torch.arange(0, batch * codes, codes, device=index.device)
        index = index + first.view(1, batch, *[1] * (index.ndim - 2))
    return rows.reshape(-1, width).index_select(0, index.reshape(-1)).reshape(*index.shape, width)


def blend(values: Tensor, weight: Tensor) -> Tensor:
    """The weighted sum over the K neighbours: (K, B, *Q, D) and (K, B or 1, *Q) -> (B, *Q, D)."""
    if len(values) == 1:
        return values[0]  # a single weight is 1
    weight = weight.unsqueeze(-1).to(values.dtype)
    result = values[0] * weight[0]
    for value, its in zip(values[1:], weight[1:]):  # one by one: no second tensor as large as all of them
        result = torch.addcmul(result, value, its)
    return result
