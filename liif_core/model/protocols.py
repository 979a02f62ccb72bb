"""The contracts, version 3, of encoder, features, sampling, conditioning and decoder.

Symbols in shapes: ``B`` images; ``K`` neighbours; ``C`` channels; ``h w`` the grid of latent codes; ``Q`` the shape of
a query: (N,) for scattered points, (H, W) for a part of a pixel grid. Where ``B`` may also be 1, the axis is ``b``:
all images then share the values.

Coordinates are (y, x) in [-1, 1]; -1 and 1 are the outer edges of the image. Coordinates, cells, offsets and weights
are float32, under autocast too. Offsets and cells that decoders see are in feature-cell units: multiplied by (h, w), so
that the side of one feature cell is 2.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal, Protocol, runtime_checkable

import torch.nn.functional as F
from attrs import frozen
from torch import Tensor

from liif_core.model.query import Query as Query
from liif_core.shapes import Float, Int
from liif_core.sizes import Size


@frozen(eq=False)
class Sites:
    """The latent codes that a query reads."""

    index: Int[Tensor, "K b *Q"]  # row * w + column in the grid of codes
    offset: Float[Tensor, "K b *Q 2"]  # query minus code, feature-cell units
    weight: Float[Tensor, "K b *Q"]  # sums to 1 over K


@frozen(eq=False)
class AxisSites:
    """The latent codes that the rows (or the columns) of a pixel grid read: on ``S`` sides of each of ``n`` rows."""

    index: Int[Tensor, "S n"]  # row (or column) in the grid of codes; does not decrease along n
    offset: Float[Tensor, "S n"]  # query minus code, feature-cell units


class LatentField(ABC):
    """The latent codes of an image, as a decoder reads them: all written out, or through a linear layer."""

    features: Float[Tensor, "B C h w"]  # the encoder's output
    channels: int  # of one code, as ``dense`` returns it
    image: Float[Tensor, "B c y x"]  # the normalized LR image in [-1, 1]; set by the framework before ``prepare``

    @property
    def grid(self) -> Size:
        """(h, w) of the grid of codes. It differs from the image's size where the encoder changes resolution."""
        return self.features.shape[-2], self.features.shape[-1]

    @abstractmethod
    def dense(self) -> Float[Tensor, "B channels h w"]:
        """All codes."""

    def linear(self, weight: Float[Tensor, "D channels"], bias: Float[Tensor, " D"] | None = None) -> Tensor:
        """A linear layer applied to every code: (B, D, h, w).

        Fields whose codes share values, such as unfolded ones, override this, so that ``dense`` is not computed.
        """
        return F.conv2d(self.dense(), weight[:, :, None, None], bias)


Maps = Mapping[str, Tensor]  # the result of a decoder's ``prepare``: tensors (B, ..., width), read by its ``decode``
Known = tuple[Tensor, ...]  # what a decoder computed from its completed statistics, one tensor for each


@runtime_checkable
class Encoder(Protocol):
    """A module: image (B, c, h, w) in [-1, 1] -> features (B, out_channels, h, w).

    Another resolution is allowed if ``multiple_of`` times it is whole: (B, out_channels, h / 2, w / 2) with
    ``multiple_of = 2``, for instance, or (B, out_channels, 2 h, 2 w).
    """

    out_channels: int
    multiple_of: int  # what both sides of its input must be multiples of; the framework pads images by mirroring
    receptive_radius: int | None  # how many pixels away the image can change a code; None: the whole image


@runtime_checkable
class Features(Protocol):
    """A module: features (B, C, h, w) -> LatentField."""

    channels: int  # of the LatentField
    radius: int | None  # how many codes away the features can change a code of the field; None: the whole image


@runtime_checkable
class AlignedFeatures(Features, Protocol):
    """Features whose result depends on where their input begins, such as attention within windows.

    Tiles then begin at multiples of ``multiple_of`` codes. Features pad their input themselves.
    """

    multiple_of: int


@runtime_checkable
class Sampling(Protocol):
    """A module: (query, grid = (h, w)) -> Sites.

    A neighbour outside the grid has the index of any code, and the weight 0.
    """

    neighbours: int  # K
    reach: int  # how many codes away from the nearest one a query may read, along each axis


@runtime_checkable
class GridSampling(Sampling, Protocol):
    """A sampling that reads, at a pixel grid, each row's codes in each column's codes.

    Neighbour k is the code on side ``k // T`` of a row and on side ``k % T`` of a column, where T is the number of
    sides of a column. Where a decoder is a ``BlockDecoder``, pixel grids are then decoded code by code.
    """

    def axes(self, query: Query, grid: Size) -> tuple[AxisSites, AxisSites]:
        """The codes that the rows and that the columns of a pixel grid read; ``query.axes`` is not None."""
        ...

    def weights(self, rows: AxisSites, columns: AxisSites) -> Float[Tensor, "K H W"]:
        """The weight of each neighbour of each pixel. Weights of a pixel sum to 1 over K."""
        ...


@runtime_checkable
class SeparableSampling(GridSampling, Protocol):
    """A grid sampling whose weights are products of a weight of the row and a weight of the column."""

    def axis_weights(self, sites: AxisSites) -> Float[Tensor, "S n"]:
        """The weight of each side of each row (or column); NaN for rows whose pixels have other weights."""
        ...


@runtime_checkable
class Conditioning(Protocol):
    """A module: (query, sites, grid) -> (K, B or 1, *Q, channels), or broadcastable to it, float32.

    ``scope`` declares what the result depends on. "query": anything. "offset": the result is ``sites.offset`` itself.
    "image": the query's cell alone, so that all queries of an image with the same cell have the same value. Conditions
    of scope "image" are given to ``Decoder.prepare`` if the decoder is ``scale_dependent``.
    """

    channels: int
    scope: Literal["query", "offset", "image"]


@runtime_checkable
class Decoder(Protocol):
    """A module: latent codes and conditions -> colors. It blends the K neighbours itself.

    ``num_statistics`` declares how colors depend on other queries of the image. 0: not at all. A number above 0:
    through that many means over all queries; the decoder is then a ``GlobalDecoder``. None: in some other way, so that
    all queries must be decoded in one call.
    """

    needs: frozenset[str]  # names of the conditions without which it cannot be built
    num_statistics: int | None
    scale_dependent: bool  # True: ``prepare`` uses the image conditions, and all queries of a call share one cell
    radius: int | None  # how many codes away ``prepare`` looks from each code; None: the whole image

    def prepare(self, field: LatentField, image_conditions: Mapping[str, Tensor]) -> Maps:
        """Whatever is computed per code instead of per query. Called once per image (and cell, if ``scale_dependent``).

        ``image_conditions``: the conditions of scope "image", by name, each (B or 1, channels); empty unless
        ``scale_dependent``.
        """
        ...

    def decode(self, maps: Maps, sites: Sites, conditions: Mapping[str, Tensor]) -> Tensor:
        """(B, *Q, out_channels), in [-1, 1] space."""
        ...


@runtime_checkable
class GlobalDecoder(Decoder, Protocol):
    """A decoder whose colors depend on all queries of an image through ``num_statistics`` means over them.

    The framework decodes such queries in chunks, with the same result as in one call: it goes over all chunks once for
    each statistic, and once more for the colors. A statistic may depend on those before it.
    """

    num_statistics: int

    def partial_statistic(
        self, maps: Maps, sites: Sites, conditions: Mapping[str, Tensor], known: Known
    ) -> Float[Tensor, "B ..."]:
        """The mean over these queries of statistic number ``len(known)``."""
        ...

    def with_statistic(self, known: Known, statistic: Float[Tensor, "B ..."]) -> Known:
        """``known`` and one more tensor, computed from a completed statistic, the mean over all queries."""
        ...

    def decode(self, maps: Maps, sites: Sites, conditions: Mapping[str, Tensor], known: Known = ()) -> Tensor:
        """(B, *Q, out_channels), in [-1, 1] space. Missing statistics are computed from the given queries."""
        ...


@runtime_checkable
class ChunkingDecoder(Decoder, Protocol):
    """A decoder that divides the queries of a call itself, for instance by the codes that they read."""

    queries_at_once: int  # about how many queries one call of ``decode`` has on a CPU


@runtime_checkable
class ObjectiveDecoder(Decoder, Protocol):
    """A decoder with a training objective of its own, which ``[train] own_loss`` adds to the loss."""

    def own_loss(
        self,
        maps: Maps,
        sites: Sites,
        conditions: Mapping[str, Tensor],
        target: Float[Tensor, "B *Q out_channels"],
    ) -> Float[Tensor, ""]:
        """The mean over queries of what is minimized. ``target``: what ``decode`` should return for these queries."""
        ...


@runtime_checkable
class BlockDecoder(Decoder, Protocol):
    """A decoder that can also decode a code at a block of positions: all rows times all columns.

    Codes are then not gathered for each query, and what depends on the row or on the column alone is computed once per
    row or column. The framework uses ``decode_block`` for pixel grids, where the sampling is a ``GridSampling`` and all
    conditions have the scope "offset" or "image". ``num_statistics`` is 0, and all maps are (B, h * w, width).
    """

    block_positions: int  # about how many positions one call should have on a CPU, so that its values stay in the cache

    def decode_block(
        self, maps: Maps, rows: Float[Tensor, "h R"], columns: Float[Tensor, "w C"], conditions: Mapping[str, Tensor]
    ) -> Float[Tensor, "B h w R C out_channels"]:
        """The colors of a rectangle of codes, in [-1, 1] space, not blended.

        ``maps``: those of the rectangle, (B, h, w, width). ``rows`` and ``columns``: offsets of the positions from each
        code, in feature-cell units. ``conditions``: those of scope "image", by name, each (B or 1, channels).
        """
        ...


@runtime_checkable
class SeparableDecoder(BlockDecoder, Protocol):
    """A block decoder whose colors are sums of coefficients, each times a function of y and a function of x.

    Its only map is "coefficient", (B, h * w, out_channels * P * Q), float32: color by color, and for each color by
    function of y. With a ``SeparableSampling``, a CPU decodes pixel grids along one axis and then along the other.
    """

    def axis_functions(
        self, axis: int, offsets: Float[Tensor, "*n"], conditions: Mapping[str, Tensor]
    ) -> Float[Tensor, "b *n P"]:
        """The functions of y (axis 0) or of x at offsets in feature-cell units.

        ``conditions``: those of scope "image", by name, each (B or 1, channels).
        """
        ...
