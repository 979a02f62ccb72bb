"""MetaSR (Hu et al., Meta-SR: A Magnification-Arbitrary Network for Super-Resolution, CVPR 2019), in the version that
LIIF is compared with: for each query, a small network computes the matrix that maps its code to a color.

The matrix is linear in the network's hidden layer, and so is the color. ``prepare`` therefore computes the product with
the code once per code, and a query needs one product of two vectors for each output channel. This is exact, and takes
two orders of magnitude fewer operations than computing the matrix.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from attrs import frozen
from attrs.validators import ge
from torch import Tensor, nn

from liif_core import (
    AxisSites,
    Component,
    Importer,
    LatentField,
    Maps,
    Query,
    Sites,
    as_rows,
    blend,
    gather,
    hookimpl,
    option,
)
from liif_core.importing import renamed, take_encoder
from liif_core.nn import expect_conditions, nearest_code

_SHIFT = 1e-6  # moves a corner that lies exactly between two codes to one side


class CornerSampling(nn.Module):
    """The code whose feature cell contains the top left corner of the queried pixel.

    A pixel larger than two feature cells (scales below 1/2) counts as two cells wide, so that ``reach`` is finite.
    """

    neighbours = 1
    reach = 1

    def forward(self, query: Query, grid: tuple[int, int]) -> Sites:
        with torch.autocast(query.cell.device.type, enabled=False):
            (row, down), (column, across) = (
                self._axis(place, query.cell[..., axis], codes)
                for axis, (place, codes) in enumerate(zip(query.places, grid))
            )
            index = row * grid[1] + column
            offset = torch.stack(torch.broadcast_tensors(down, across), dim=-1)
            return Sites(index.unsqueeze(0), offset.unsqueeze(0), torch.ones_like(offset[..., 0]).unsqueeze(0))

    def axes(self, query: Query, grid: tuple[int, int]) -> tuple[AxisSites, AxisSites]:
        assert query.axes is not None
        with torch.autocast(query.cell.device.type, enabled=False):
            rows, columns = (
                AxisSites(*(part.unsqueeze(0) for part in self._axis(axis, cell.to(axis.device), codes)))
                for axis, cell, codes in zip(query.axes, query.cell.flatten(), grid)
            )
        return rows, columns

    def weights(self, rows: AxisSites, columns: AxisSites) -> Tensor:
        return rows.offset.new_ones(1, rows.offset.shape[1], columns.offset.shape[1])

    def _axis(self, place: Tensor, cell: Tensor, codes: int) -> tuple[Tensor, Tensor]:
        """Index and offset of the code along one axis."""
        corner = place - cell.clamp(max=4 / codes) / 2
        index, center = nearest_code(corner + _SHIFT, codes)
        return index, (place - center) * codes


@frozen
class MetaSROptions:
    hidden: int = option(
        "Width of the hidden layer of the network that computes the matrices.", 256, check=ge(1), quick=32
    )


class MetaSR(nn.Module):
    """Codes, the query's offset from them and its cell -> out_channels."""

    needs = frozenset({"coordinate", "cell"})
    num_statistics = 0
    scale_dependent = False
    radius = 0
    block_positions = 8192

    def __init__(
        self,
        options: MetaSROptions,
        in_channels: int,
        out_channels: int,
        conditions: Mapping[str, int],
        neighbours: int,
    ):
        super().__init__()
        expect_conditions(conditions, coordinate=2, cell=2)
        self.sizes = in_channels, out_channels, options.hidden
        self.first = nn.Linear(3, options.hidden)
        self.second = nn.Linear(options.hidden, in_channels * out_channels)

    def prepare(self, field: LatentField, image_conditions: Mapping[str, Tensor]) -> Maps:
        """For each code and output channel, the vector that multiplies the hidden layer, and a bias."""
        codes, channels, hidden = self.sizes
        weight = self.second.weight.view(codes, channels, hidden).permute(1, 2, 0).reshape(-1, codes)
        bias = self.second.bias.view(codes, channels).t()
        return {"product": as_rows(field.linear(torch.cat([weight, bias])))}

    def decode(self, maps: Maps, sites: Sites, conditions: Mapping[str, Tensor]) -> Tensor:
        _, channels, hidden = self.sizes
        product = gather(maps["product"], sites.index)
        weight, bias = product[..., :-channels].unflatten(-1, (channels, hidden)), product[..., -channels:]
        x = (
            self._hidden(conditions["coordinate"], conditions["cell"])
            .to(product.dtype)
            .expand(*product.shape[:-1], hidden)
        )
        return blend((weight @ x.unsqueeze(-1)).squeeze(-1) + bias, sites.weight)

    def decode_block(self, maps: Maps, rows: Tensor, columns: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        _, channels, hidden = self.sizes
        product, cell = maps["product"], conditions["cell"]
        weight, bias = product[..., :-channels].unflatten(-1, (channels, hidden)), product[..., -channels:]
        with torch.autocast(cell.device.type, enabled=False):  # the first layer of ``_hidden``, along each axis
            entry, half = self.first.weight.float(), cell / 2
            down, across = (
                ((offset - half[:, axis, None, None] + 1) / 2).unsqueeze(-1) * entry[:, axis]
                for axis, offset in enumerate((rows, columns))
            )
            down = down + (half[:, :1] * entry[:, 2] + self.first.bias.float())[:, None, None]
            x = F.relu(down[:, :, None, :, None] + across[:, None, :, None])  # (B or 1, h, w, R, C, hidden)
        colors = x.flatten(3, 4).to(product.dtype) @ weight.mT + bias.unsqueeze(3)
        return colors.unflatten(3, (rows.shape[1], columns.shape[1]))

    def _hidden(self, offset: Tensor, cell: Tensor) -> Tensor:
        """(K, B or 1, *Q, hidden). The offset is between the top left corners of the feature cell and of the pixel."""
        with torch.autocast(offset.device.type, enabled=False):
            corner = (offset - cell / 2 + 1) / 2
            height = (cell[..., :1] / 2).expand(*corner.shape[:-1], 1)
            return F.relu(
                F.linear(torch.cat([corner, height], dim=-1), self.first.weight.float(), self.first.bias.float())
            )


def _import_metasr(arguments: dict, state: dict, encoder: Callable) -> tuple[dict, dict]:
    table, result, rest = take_encoder(arguments, state, encoder)
    table = {
        "encoder": table,
        "features": {"use": "unfold", "size": 3},
        "sampling": {"use": "corner"},
        "conditioning": [{"use": "coordinate"}, {"use": "cell"}],
        "decoder": {"use": "metasr"},
    }
    return table, result | renamed(
        rest, {"imnet.layers.0": "decoder.first", "imnet.layers.2": "decoder.second"}, "MetaSR"
    )


@hookimpl
def liif_samplings():
    return Component("corner", lambda options: CornerSampling())


@hookimpl
def liif_decoders():
    return Component("metasr", MetaSR, MetaSROptions, lambda o: f"MetaSR {o.hidden}")


@hookimpl
def liif_importers():
    return Importer("model", "metasr", _import_metasr)
