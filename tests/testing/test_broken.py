"""The checks for plugin authors: each fails for a plugin that is broken in just that way, and passes for good ones."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from parts import (
    GOOD,
    Attention,
    BlockDecoder,
    CellCondition,
    CellDecoder,
    Conditioning,
    Decoder,
    Degradation,
    Doubled,
    Encoder,
    Features,
    Field,
    FineFeatures,
    GridSampling,
    Halves,
    Model,
    ModelImage,
    Offset,
    Patches,
    Sampling,
    StatisticsDecoder,
    StatisticsImage,
    StatisticsModel,
    WholeImageModel,
    WholeSetDecoder,
    failing,
)
from torch import nn

from liif_core import AxisSites, Component, Query, Sites, TilePlacement, as_rows, blend, gather
from liif_core.testing import CHECKS, ContractWarning, EncoderContract, common
from liif_core.testing.reference import reference_sites
from liif_zoo.basis import Basis, BasisOptions


@pytest.mark.filterwarnings("error::liif_core.testing.ContractWarning")
@pytest.mark.parametrize("build", GOOD, ids=lambda build: build.__name__)
def test_good_ones_pass(build):
    assert failing(GOOD[build], build) == {}


# Broken ones: the named checks fail, and no others

BROKEN = []


def broken(kind, check, *also):
    def note(build):
        BROKEN.append(pytest.param(kind, check, also, build, id=f"{kind}-{check}-{build.__name__}"))
        return build

    return note


@broken("encoder", "contract")
class NoRadius(Encoder):
    receptive_radius = "all"


@broken("encoder", "contract")
class NotAModule:
    def __init__(self, options, in_channels):
        pass


@broken("encoder", "size")
class TwoRows(Encoder):
    """A single row becomes two."""

    def forward(self, image):
        return super().forward(image).repeat_interleave(2 if image.shape[2] == 1 else 1, dim=2)


@broken("encoder", "size", "finite")
class Mirrors(Encoder):
    """torch cannot mirror a side of a single pixel."""

    def forward(self, image):
        return F.conv2d(F.pad(super().forward(image), (1, 1, 1, 1), mode="reflect"), torch.ones(4, 1, 3, 3), groups=4)

    receptive_radius = 3


@broken("encoder", "channels")
class Miscounts(Encoder):
    out_channels = 5


@broken("encoder", "channels")
class OnlyColor(Encoder):
    def __init__(self, options, in_channels):
        super().__init__(options, 3)


@broken("encoder", "size", "finite")
class HalfAPixel(Halves):
    """A pixel alone is not a whole number of codes."""

    multiple_of = 1


@broken("encoder", "size")
class OneRowMore(Halves):
    def forward(self, image):
        features = super().forward(image)
        return F.pad(features, (0, 0, 0, 1)) if image.shape[2] == 6 else features


@broken("encoder", "receptive_radius")
class HalvesAndSeesFurther(Halves):
    receptive_radius = 0


@broken("encoder", "receptive_radius")
class DoublesAndSeesFurther(Doubled):
    receptive_radius = 1


@broken("encoder", "parameters", "state_dict")
class Flat(Encoder):
    def __init__(self, options, in_channels):
        super().__init__(options, in_channels)
        self.first.requires_grad_(False)
        self.weights = [(layer.weight.data, layer.bias.data) for layer in (self.first, self.second)]
        del self.first, self.second

    def forward(self, image):
        (first, one), (second, two) = self.weights
        return F.conv2d(F.conv2d(image, first, one, padding=1).relu(), second, two, padding=1)


@broken("encoder", "receptive_radius")
class SeesFurther(Encoder):
    receptive_radius = 1


@broken("encoder", "receptive_radius")
class SeesFurtherInFloat32(SeesFurther):
    """Gradients in double precision cannot be computed: comparing values has to suffice."""

    def forward(self, image):
        return super().forward(image.float())


@broken("encoder", "receptive_radius")
class SeesEverything(Attention):
    receptive_radius = 2


@broken("encoder", "receptive_radius")
class Deep(nn.Module):
    """Off by one, where the contribution of that pixel is far below rounding errors."""

    multiple_of, receptive_radius, out_channels = 1, 29, 8

    def __init__(self, options, in_channels):
        super().__init__()
        widths = [in_channels, *[8] * 30]
        self.layers = nn.Sequential(*(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(widths, widths[1:])))

    def forward(self, image):
        return self.layers(image)


@broken("encoder", "receptive_radius")
class DeepAndNarrow(Deep):
    """Off by one, on a path that a ReLU blocks."""

    receptive_radius, out_channels = 80, 2

    def __init__(self, options, in_channels):
        nn.Module.__init__(self)
        self.head = nn.Conv2d(in_channels, 2, 3, padding=1)
        self.layers = nn.ModuleList(nn.Conv2d(2, 2, 3, padding=1) for _ in range(80))

    def forward(self, image):
        features = self.head(image)
        for layer in self.layers:
            features = features + layer(features.relu())
        return features


@broken("encoder", "receptive_radius")
class WiderPatches(Patches):
    receptive_radius = 2


@broken("encoder", "deterministic", "batch", "inference_mode", "state_dict", "receptive_radius")
class AlwaysDrops(Encoder):
    def forward(self, image):
        return F.dropout(super().forward(image), 0.5, training=True)


@broken("encoder", "deterministic", "batch")
class Remembers(Encoder):
    """Keeps a value of an earlier image."""

    def __init__(self, options, in_channels):
        super().__init__(options, in_channels)
        self.mean = {}

    def forward(self, image):
        features = super().forward(image)
        if len(image) == 1 and image.shape[2:] == (7, 10):
            self.mean["last"] = image.mean().item()
        return features + self.mean.get("last", 0.0)


@broken("encoder", "leaves_input")
class InPlace(Encoder):
    def forward(self, image):
        return super().forward(image.clamp_(-0.5, 0.5))


@broken("encoder", "batch")
class Mixes(Encoder):
    def forward(self, image):
        features = super().forward(image)
        return features + 0.5 * features.mean(0, keepdim=True)


@broken("encoder", "float32")
class Doubles(Encoder):
    def forward(self, image):
        return super().forward(image).double()


@broken("encoder", "finite")
class Contrast(Encoder):
    receptive_radius = None

    def forward(self, image):
        features = super().forward(image)
        return features / image.std((1, 2, 3), keepdim=True, unbiased=False)


@broken("encoder", "finite")
class OnePixel(Encoder):
    """The standard deviation of a single value is not a number."""

    receptive_radius = None

    def forward(self, image):
        return super().forward(image) / (image.mean(1, keepdim=True).std((2, 3), keepdim=True) + 1e-3)


@broken("encoder", "gradients")
class Unused(Encoder):
    def __init__(self, options, in_channels):
        super().__init__(options, in_channels)
        self.spare = nn.Linear(3, 3)


@broken("encoder", "gradients")
class Detached(Encoder):
    def forward(self, image):
        return self.second(self.first(image).relu().detach())


@broken("encoder", "inference_mode")
class Caches(Encoder):
    """A tensor that is created under inference_mode cannot take part in training."""

    def __init__(self, options, in_channels):
        super().__init__(options, in_channels)
        self.ones = None

    def forward(self, image):
        if self.ones is None:
            self.ones = torch.ones(1, device=image.device)
        return super().forward(image) * self.ones


@broken("encoder", "inference_mode")
class QuickAndWrong(Encoder):
    def forward(self, image):
        return super().forward(image) * (0.9 if torch.is_inference_mode_enabled() else 1)


@broken("encoder", "state_dict")
class Unregistered(Encoder):
    def __init__(self, options, in_channels):
        super().__init__(options, in_channels)
        self.scale = 1 + torch.rand(()).item()

    def forward(self, image):
        return super().forward(image) * self.scale


@broken("features", "size")
class TwoCodes(Features):
    def forward(self, features):
        codes = self.mix(features)
        return Field(features, codes.repeat_interleave(2 if features.shape[3] == 1 else 1, dim=3))


@broken("features", "field")
class OtherFeatures(Features):
    def forward(self, features):
        return Field(features * 2, self.mix(features))


@broken("features", "field")
class FixedImage(Features):
    """A field that does not accept an image."""

    class WithoutImage(Field):
        image = property(lambda self: None)

    def forward(self, features):
        return self.WithoutImage(features, self.mix(features))


@broken("features", "size", "radius")
class WrongGrid(Features):
    """Codes are as many as pixels, and the grid declares twice as many rows."""

    class Taller(Field):
        grid = property(lambda self: (2 * self.features.shape[-2], self.features.shape[-1]))

    def forward(self, features):
        return self.Taller(features, self.mix(features))


@broken("features", "radius")
class NarrowAndFine(FineFeatures):
    radius = 0


@broken("features", "linear")
class ForgetsBias(Features):
    def forward(self, features):
        field = super().forward(features)
        field.linear = lambda weight, bias=None: F.conv2d(field.codes, weight[:, :, None, None])
        return field


@broken("features", "radius")
class Narrow(Features):
    radius = 0


@broken("features", "gradients")
class DetachedFeatures(Features):
    def forward(self, features):
        return Field(features, self.mix(features.detach()))


class Altered(Sampling):
    """Correct sites, then altered."""

    def forward(self, query, grid):
        return Sites(*self.alter(query, grid, super().forward(query, grid)))


@broken("sampling", "shape")
class SmallIndex(Altered):
    def alter(self, query, grid, sites):
        return sites.index.int(), sites.offset, sites.weight


@broken("sampling", "shape")
class OneTooMany(Sampling):
    def forward(self, query, grid):
        return reference_sites(query, grid, 5)


@broken("sampling", "index_range", "offsets", "reach")
class Unclamped(Altered):
    def alter(self, query, grid, sites):
        return torch.where(query.coord[..., 0].abs() > 1, -1, sites.index), sites.offset, sites.weight


@broken("sampling", "reach")
class ShortReach(Sampling):
    reach = 0


@broken("sampling", "weight_sum")
class Loses(Altered):
    def alter(self, query, grid, sites):
        return sites.index, sites.offset, sites.weight * 0.9


@broken("sampling", "weight_sign")
class Sharpens(Altered):
    def alter(self, query, grid, sites):
        return sites.index, sites.offset, 2 * sites.weight - 0.25


@broken("sampling", "offsets")
class CodesAtCorners(Altered):
    def alter(self, query, grid, sites):
        return sites.index, sites.offset + 1, sites.weight


@broken("sampling", "offsets", "differentiable")
class OtherUnits(Altered):
    def alter(self, query, grid, sites):
        return sites.index, sites.offset / torch.tensor(grid), sites.weight


@broken("sampling", "pixel_grid")
class OtherGrids(Altered):
    def alter(self, query, grid, sites):
        flat = torch.full_like(sites.weight, 0.25)
        return sites.index, sites.offset, sites.weight if query.axes is None else flat


@broken("sampling", "grid_axes")
class OtherAxes(GridSampling):
    """Columns are one code to the right of where single queries read."""

    def axes(self, query, grid):
        rows, columns = super().axes(query, grid)
        return rows, AxisSites((columns.index + 1).clamp(max=grid[1] - 1), columns.offset)


@broken("sampling", "grid_axes")
class NoWeights(GridSampling):
    weights = None


@broken("sampling", "grid_axes")
class OtherWeights(GridSampling):
    def weights(self, rows, columns):
        return super().weights(rows, columns) * 0.9


@broken("sampling", "grid_axes")
class OtherAxisWeights(GridSampling):
    def axis_weights(self, sites):
        return torch.full_like(sites.offset, 0.3)


@broken("sampling", "autocast")
class HalfWeights(Altered):
    def alter(self, query, grid, sites):
        distance = sites.offset.detach().square() @ torch.ones(2, 1)
        return sites.index, sites.offset, (-distance.squeeze(-1)).softmax(0)


@broken("sampling", "differentiable")
class DetachedOffsets(Altered):
    def alter(self, query, grid, sites):
        return sites.index, sites.offset.detach(), sites.weight


@broken("conditioning", "width")
class WrongWidth(Conditioning):
    channels = 4


@broken("conditioning", "pixel_grid")
class OtherGrid(Conditioning):
    def forward(self, query, sites, grid):
        return super().forward(query, sites, grid) + len(query.shape)


@broken("conditioning", "autocast")
class Half(Conditioning):
    def forward(self, query, sites, grid):
        return self.layer(sites.offset.repeat(*[1] * (sites.offset.ndim - 1), 2))


@broken("conditioning", "differentiable")
class DetachedCoordinates(Conditioning):
    def forward(self, query, sites, grid):
        return super().forward(query, Sites(sites.index, sites.offset.detach(), sites.weight), grid)


@broken("conditioning", "contract")
class NoScope(Conditioning):
    scope = "everything"


@broken("conditioning", "scope")
class CallsItselfConstant(Conditioning):
    scope = "image"


@broken("conditioning", "scope")
class ManyValues(CellCondition):
    """One value for each query, although they are all the same."""

    def forward(self, query, sites, grid):
        return super().forward(query, sites, grid).expand(*sites.offset.shape[:-1], 2)


@broken("conditioning", "scope", "batch")
class DependsOnSites(CellCondition):
    def forward(self, query, sites, grid):
        return super().forward(query, sites, grid) + sites.weight.max()


@broken("conditioning", "scope")
class CallsItselfOffset(Offset):
    def forward(self, query, sites, grid):
        return sites.offset * 0.5


@broken("conditioning", "finite")
class Root(Conditioning):
    def forward(self, query, sites, grid):
        return super().forward(query, sites, grid) * (1.5 - query.cell.unsqueeze(0)[..., :1]).sqrt()


@broken("decoder", "contract")
class NeedsDepth(Decoder):
    needs = frozenset({"coordinate", "depth"})


@broken("decoder", "contract")
class NoFlag(Decoder):
    scale_dependent = None


@broken("decoder", "contract")
class TextAsNumber(StatisticsDecoder):
    num_statistics = "2"


@broken("decoder", "contract")
class NoMethods(Decoder):
    num_statistics = 1


@broken("decoder", "contract")
class NoKnown(Decoder):
    """Has the methods for statistics, and a ``decode`` that cannot receive them."""

    num_statistics = 1

    def partial_statistic(self, maps, sites, conditions, known):
        return self.decode(maps, sites, conditions).flatten(1, -2).mean(1)

    def with_statistic(self, known, statistic):
        return (*known, statistic)


@broken("decoder", "statistics")
class Sums(StatisticsDecoder):
    """A sum in place of a mean, which parts of different sizes reveal."""

    def partial_statistic(self, maps, sites, conditions, known):
        count = sites.index[0, 0].numel()
        return super().partial_statistic(maps, sites, conditions, tuple(k / 24 for k in known)) * count

    def decode(self, maps, sites, conditions, known=()):
        count = sites.index[0, 0].numel()
        while len(known) < 2:
            statistic = super().partial_statistic(maps, sites, conditions, tuple(k / count for k in known))
            known = (*known, statistic * count)
        return super().decode(maps, sites, conditions, tuple(value / count for value in known))


@broken("decoder", "statistics", "radius")
class OwnSpread(StatisticsDecoder):
    """Ignores a statistic that it is given."""

    def decode(self, maps, sites, conditions, known=()):
        return super().decode(maps, sites, conditions, known[:1])


@broken("decoder", "statistics")
class SharedStatistic(StatisticsDecoder):
    """A statistic without the axis of the batch."""

    def partial_statistic(self, maps, sites, conditions, known):
        return super().partial_statistic(maps, sites, conditions, known).mean(0, keepdim=True)

    def decode(self, maps, sites, conditions, known=()):
        while len(known) < 2:
            known = (*known, super().partial_statistic(maps, sites, conditions, known))
        return super().decode(maps, sites, conditions, known)


@broken("decoder", "statistics")
class ListOfStatistics(StatisticsDecoder):
    def with_statistic(self, known, statistic):
        return [*known, statistic]


@broken("decoder", "contract")
class NegativeRadius(Decoder):
    radius = -1


@broken("decoder", "shape")
class AlwaysColor(Decoder):
    def __init__(self, options, in_channels, out_channels, neighbours, conditions):
        super().__init__(options, in_channels, 3, neighbours, conditions)


@broken("decoder", "pixel_grid")
class DetectsGrids(Decoder):
    def decode(self, maps, sites, conditions):
        return super().decode(maps, sites, conditions) + 0.1 * sites.index.ndim


@broken("decoder", "decode_block")
class MovesRows(BlockDecoder):
    def decode_block(self, maps, rows, columns, conditions):
        return super().decode_block(maps, rows + 0.1, columns, conditions)


@broken("decoder", "decode_block")
class MovesFunctions(Basis):
    """Blocks are right, and decoding axis by axis is not."""

    moved = 0.1

    def __init__(self, options, **sizes):
        super().__init__(BasisOptions(functions=2, latent=(4,), axis=(4,), modulation=4), **sizes)

    def axis_functions(self, axis, offsets, conditions):
        return super().axis_functions(axis, offsets + self.moved, conditions)

    def decode_block(self, maps, rows, columns, conditions):
        self.moved = 0.0
        colors = super().decode_block(maps, rows, columns, conditions)
        self.moved = 0.1
        return colors


@broken("decoder", "decode_block")
class NoBlockSize(BlockDecoder):
    block_positions = None


@broken("decoder", "decode_block")
class BlocksOfAllQueries(BlockDecoder, StatisticsDecoder):
    pass


@broken("decoder", "independent")
class Counts(Decoder):
    """As a softmax over all queries would be."""

    def decode(self, maps, sites, conditions):
        return super().decode(maps, sites, conditions) + 0.1 / sites.index[0, 0].numel()


@broken("decoder", "independent", "radius")
class DeclaresIndependence(WholeSetDecoder):
    num_statistics = 0


@broken("decoder", "prepare")
class LooksAtCell(CellDecoder):
    scale_dependent = False


@broken("decoder", "prepare")
class PreparesAtRandom(Decoder):
    def prepare(self, field, image_conditions):
        return {"code": super().prepare(field, image_conditions)["code"] + torch.rand(1)}


@broken("decoder", "prepare")
class MoreThanTensors(Decoder):
    def prepare(self, field, image_conditions):
        return {**super().prepare(field, image_conditions), "size": field.dense().shape[-2:]}


@broken("decoder", "stateless")
class KeepsMaps(Decoder):
    def prepare(self, field, image_conditions):
        self.maps = super().prepare(field, image_conditions)
        return self.maps

    def decode(self, maps, sites, conditions):
        return super().decode(self.maps, sites, conditions)


@broken("decoder", "radius")
class LooksAround(Decoder):
    def __init__(self, options, in_channels, out_channels, neighbours, conditions):
        super().__init__(options, in_channels, out_channels, neighbours, conditions)
        self.code = nn.Conv2d(in_channels, 16, 3, padding=1)


@broken("decoder", "radius")
class LooksAroundInTheImage(Decoder):
    """Its codes are local, and what it takes of the image is not."""

    def __init__(self, options, in_channels, out_channels, neighbours, conditions):
        super().__init__(options, in_channels, out_channels, neighbours, conditions)
        self.pixels = nn.Conv2d(out_channels, 16, 3, padding=1)

    def prepare(self, field, image_conditions):
        image = F.interpolate(field.image, field.grid)
        return {"code": as_rows(self.code(field.dense()) + self.pixels(image))}


@broken("decoder", "radius")
class LooksAroundWithStatistics(StatisticsDecoder, LooksAround):
    pass


@broken("decoder", "other_resolution")
class SameResolution(Decoder):
    def __init__(self, options, in_channels, out_channels, neighbours, conditions):
        super().__init__(options, in_channels + out_channels, out_channels, neighbours, conditions)

    def prepare(self, field, image_conditions):
        return {"code": as_rows(self.code(torch.cat([field.dense(), field.image], dim=1)))}


@broken("decoder", "parameters", "state_dict")
class PlainList(Decoder):
    """Layers in a list are not registered."""

    def __init__(self, options, in_channels, out_channels, neighbours, conditions):
        super().__init__(options, in_channels, out_channels, neighbours, conditions)
        self.layers = [self.code, self.conditions, self.last]
        del self.code, self.conditions, self.last

    def prepare(self, field, image_conditions):
        return {"code": as_rows(self.layers[0](field.dense()))}

    def decode(self, maps, sites, conditions):
        given = torch.cat([conditions[n].expand_as(conditions["coordinate"]) for n in ("coordinate", "cell")], dim=-1)
        hidden = gather(maps["code"], sites.index) + self.layers[1](given)
        return blend(self.layers[2](hidden.relu()), sites.weight)


@broken("decoder", "gradients")
class Unlearning(Decoder):
    def prepare(self, field, image_conditions):
        return {"code": as_rows(self.code(field.dense().detach()))}


@broken("decoder", "finite")
class Directions(Decoder):
    """There is no direction at the position of a code."""

    def decode(self, maps, sites, conditions):
        offset = conditions["coordinate"]
        return super().decode(maps, sites, {**conditions, "coordinate": offset / offset.norm(dim=-1, keepdim=True)})


@broken("decoder", "batch")
class FirstOnly(Decoder):
    def decode(self, maps, sites, conditions):
        return super().decode({"code": maps["code"][:1].expand_as(maps["code"])}, sites, conditions)


# Whole models


@broken("model", "contract")
class NotAModel(nn.Module):
    channels, multiple_of, halo, num_statistics = 3, 1, 2, 0

    def __init__(self, options, channels):
        super().__init__()


@broken("model", "contract")
class AlwaysThree(Model):
    def __init__(self, options, channels):
        super().__init__(options, channels + 1)


@broken("model", "parameters")
class ModelWithoutParameters(Model):
    def __init__(self, options, channels):
        super().__init__(options, channels)
        weight = self.layer.weight.detach() * 0 + 0.1
        del self.layer
        self.layer = lambda image: F.conv2d(image, weight, padding=1)


class SizeOfTile(ModelImage):
    def __init__(self, codes, tile, num_statistics):
        super().__init__(codes, tile, num_statistics)
        self.size = tuple(codes.shape[-2:])


@broken("model", "tiles")
class TilesAsImages(Model):
    image_class = SizeOfTile


@broken("model", "encode")
class OnlyLarge(Model):
    def encode(self, image, placement=None):
        found = super().encode(image, placement)
        found.size = tuple(max(side, 2) for side in found.size)
        return found


@broken("model", "encode")
class ForgetsStatistics(Model):
    """The image declares something else than its model."""

    def encode(self, image, placement=None):
        found = super().encode(image, placement)
        found.num_statistics = None
        return found


@broken("model", "refusals")
class Lenient(Model):
    def encode(self, image, placement=None):
        return super().encode(image[:, : self.channels], placement)


class NeedsCell(ModelImage):
    def query(self, where, cell=None, statistics=()):
        return self.colors(where if isinstance(where, Query) else Query.points(where, cell))


@broken("model", "refusals")
class OtherError(Model):
    image_class = NeedsCell


class ChannelsFirst(ModelImage):
    def query(self, where, cell=None, statistics=()):
        colors = super().query(where, cell)
        return colors.movedim(-1, 1) if isinstance(where, Query) and where.axes is not None else colors


@broken("model", "shape", "pixel_grid", "chunks", "render", "tiles")
class GridsChannelsFirst(Model):
    image_class = ChannelsFirst


class TransposedGrids(ModelImage):
    def query(self, where, cell=None, statistics=()):
        if isinstance(where, Query) and where.axes is not None:
            where = Query.grid(where.axes[0], where.axes[1].flip(0), where.cell.flatten())
        return super().query(where, cell)


@broken("model", "pixel_grid", "chunks", "render")
class MirrorsGrids(Model):
    image_class = TransposedGrids


class MeanOfQueries(ModelImage):
    def query(self, where, cell=None, statistics=()):
        colors = super().query(where, cell)
        return colors - colors.mean(tuple(range(1, colors.ndim - 1)), keepdim=True)


@broken("model", "independent", "chunks", "render")
class DeclaresIndependentModel(Model):
    image_class = MeanOfQueries


class IgnoresStatistics(StatisticsImage):
    def query(self, where, cell=None, statistics=()):
        return super().query(where, cell)


@broken("model", "chunks", "render")
class WithoutStatistics(StatisticsModel):
    image_class = IgnoresStatistics


class OwnRender(ModelImage):
    def render(self, size, region=None, clamp=False):
        return super().render(size)


@broken("model", "render")
class IgnoresRegion(Model):
    image_class = OwnRender


@broken("model", "stateless", "batch", "halo")
class KeepsTheLastImage(Model):
    """The images of a model share what it encoded last."""

    def encode(self, image, placement=None):
        found = super().encode(image, placement)
        self.level = image.mean().item()
        found.colors = lambda query: ModelImage.colors(found, query) + self.level
        return found


@broken("model", "halo", "tiles")
class ShortHalo(Model):
    halo = 1


@broken("model", "halo", "tiles")
class WholeImageDenied(WholeImageModel):
    halo = 2


@broken("model", "tiles")
class ForgetsWhereTheTileIs(Model):
    def encode(self, image, placement=None):
        return super().encode(image, placement and TilePlacement(placement.size, 0, 0))


class HalfPositions(ModelImage):
    def colors(self, query):
        coord = query.coord @ torch.eye(2)  # under autocast in bfloat16
        return super().colors(Query.points(coord, query.cell))


@broken("model", "autocast")
class HalfPrecisionPositions(Model):
    image_class = HalfPositions


# Degradations


@broken("degradation", "contract")
def no_function(options):
    return "bicubic"


@broken("degradation", "contract")
class ReturnsAList(Degradation):
    def __call__(self, image, size, rng):
        return super().__call__(image, size, rng).tolist()


@broken("degradation", "shape")
class Floats(Degradation):
    def __call__(self, image, size, rng):
        return super().__call__(image, size, rng).astype(np.float32)


@broken("degradation", "shape")
class DropsGray(Degradation):
    def __call__(self, image, size, rng):
        small = super().__call__(image, size, rng)
        return small[..., 0] if small.shape[2] == 1 else small


@broken("degradation", "deterministic", "worker", "alignment")
class OtherGenerator(Degradation):
    def __call__(self, image, size, rng):
        return super().__call__(image, size, np.random.default_rng())


@broken("degradation", "deterministic")
class GlobalGenerator(Degradation):
    def __call__(self, image, size, rng):
        return super().__call__(image, size, rng) + np.uint8(np.random.randint(2))


@broken("degradation", "leaves_input")
class WritesToTheCrop(Degradation):
    def __call__(self, image, size, rng):
        image //= 2
        return super().__call__(image * 2, size, rng)


@broken("degradation", "leaves_input")
class ReturnsTheCrop(Degradation):
    def __call__(self, image, size, rng):
        return image if image.shape[:2] == size else super().__call__(image, size, rng)


@broken("degradation", "alignment")
class TopLeft(Degradation):
    """Takes one pixel of each square, at its corner: shifted by a fraction of a pixel."""

    def __call__(self, image, size, rng):
        rows, columns = (np.arange(n) * whole // n for n, whole in zip(size, image.shape))
        return image[rows][:, columns]


@broken("degradation", "alignment")
class Mirrored(Degradation):
    def __call__(self, image, size, rng):
        return np.ascontiguousarray(super().__call__(image, size, rng)[:, ::-1])


@broken("degradation", "alignment")
class Transposed(Degradation):
    def __call__(self, image, size, rng):
        return super().__call__(np.ascontiguousarray(image.swapaxes(0, 1)), size, rng)


@broken("degradation", "worker")
def closure(options):
    inner = Degradation(options)
    return lambda image, size, rng: inner(image, size, rng)


# What is declared too large is reported, not failed


class WideEncoder(Encoder):
    receptive_radius = 5


class WideHalves(Halves):
    receptive_radius = 3


class WideFeatures(Features):
    radius = 2


class WideSampling(Sampling):
    reach = 3


class WideDecoder(Decoder):
    radius = 1


class WideStatistics(StatisticsDecoder):
    radius = 2


class WideModel(Model):
    halo = 7


class ConstantOfQueries(CellCondition):
    scope = "query"


class PreparesForNothing(Decoder):
    scale_dependent = True


@pytest.mark.parametrize(
    "kind, build, message",
    [
        ("encoder", WideEncoder, "receptive_radius: declared 5, measured 2; tiles overlap more than needed"),
        ("encoder", WideHalves, "receptive_radius: declared 3, measured 1; "),
        ("features", WideFeatures, "radius: declared 2, measured 1; "),
        ("sampling", WideSampling, "reach: declared 3, measured 1; "),
        ("decoder", WideDecoder, "radius: declared 1, measured 0; "),
        ("decoder", WideStatistics, "radius: declared 2, measured 0; "),
        ("model", WideModel, "halo: declared 7, measured 2; "),
        ("conditioning", ConstantOfQueries, "scope: declared 'query', but the result depends on the cell alone; "),
        ("decoder", PreparesForNothing, "scale_dependent: declared True, but maps do not depend on the cell; "),
    ],
)
def test_what_is_declared_too_large_is_reported(kind, build, message):
    with pytest.warns(ContractWarning) as caught:
        assert failing(kind, build) == {}
    (warning,) = caught
    assert str(warning.message).startswith(f"{kind} 'tried': {message}")


def test_what_cannot_be_measured_is_not_reported(recwarn):
    class Casts(WideEncoder):
        def forward(self, image):
            return super().forward(image.float())

    assert failing("encoder", Casts) == {} and not recwarn.list


def test_the_classes_report_too():
    class Wide(EncoderContract):
        component = Component("wide", WideEncoder)

    with pytest.warns(ContractWarning, match="^encoder 'wide': receptive_radius: declared 5, measured 2; "):
        Wide().test_receptive_radius()


@pytest.mark.filterwarnings("ignore:std", "ignore::liif_core.testing.ContractWarning")
@pytest.mark.parametrize("kind, check, also, build", BROKEN)
def test_broken_ones_are_caught(kind, check, also, build):
    found = failing(kind, build)
    assert found.keys() == {check, *also}


def test_every_check_has_a_broken_plugin():
    covered = {next(c for c in CHECKS[kind] if c.__name__ == check) for kind, check, *_ in (p.values for p in BROKEN)}
    covered |= {*common.OPTIONS, common.cuda, common.bf16}  # in test_contracts.py
    assert not {
        f"{kind} {check.__name__}" for kind, checks in CHECKS.items() for check in checks if check not in covered
    }
