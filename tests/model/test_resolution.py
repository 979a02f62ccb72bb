"""Encoders and features whose codes are not the image's pixels: half and double resolution, against a plain loop."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parts import Decoder, Doubled, Encoder, Features, FineFeatures, Halves
from reference import small_model
from torch import nn

from liif_core import LatentField, TilePlacement, as_rows, blend, gather
from liif_core.model.composed import ComposedModel
from liif_core.model.tile_plan import TilePlan
from liif_core.model.tiling import render_bands
from liif_core.sizes import Scale, scaled_size


class PlainField(LatentField):
    def __init__(self, features):
        self.features, self.channels = features, features.shape[1]

    def dense(self):
        return self.features


class PlainFeatures(nn.Module):
    radius, channels = 0, 3

    def forward(self, features):
        return PlainField(features)


class MeanOfFour(nn.Module):
    """Half the resolution: a code is the mean of 2 x 2 pixels."""

    multiple_of, receptive_radius, out_channels = 2, 1, 3

    def forward(self, image):
        return nn.functional.avg_pool2d(image, 2)


class FourTimes(nn.Module):
    """Double the resolution: a pixel is 2 x 2 codes, which differ."""

    multiple_of, receptive_radius, out_channels = 1, 0, 3

    def forward(self, image):
        larger = image.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        return larger + torch.arange(larger.shape[3]) % 2 + 2 * (torch.arange(larger.shape[2]) % 2).unsqueeze(1)


class SumDecoder(nn.Module):
    """The code, plus multiples of the query's offset and cell."""

    needs, num_statistics, scale_dependent, radius = frozenset({"coordinate", "cell"}), 0, False, 0

    def prepare(self, field, image_conditions):
        return {"code": as_rows(field.dense())}

    def decode(self, maps, sites, conditions):
        added = (conditions["coordinate"] * torch.tensor([0.1, 0.2])).sum(-1, keepdim=True)
        added = added + (conditions["cell"] * torch.tensor([0.3, 0.4])).sum(-1, keepdim=True)
        return blend(gather(maps["code"], sites.index) + added, sites.weight)


def composed(registry, encoder, features, decoder, sampling="nearest", residual="none"):
    like = small_model(registry, ensemble=sampling == "local-ensemble")
    conditions = dict(zip(like.condition_names, like.conditioning))
    model = ComposedModel(encoder, features, like.sampling, conditions, decoder, residual=residual)
    return model.eval().requires_grad_(False)


def by_loop(encoder, image, size):
    """(3, H, W): every pixel of the output by itself. ``image`` (1, 3, h, w)."""
    _, _, height, width = image.shape
    multiple = encoder.multiple_of
    covered = [math.ceil(side / multiple) * multiple for side in (height, width)]
    rows = [mirrored(i, height) for i in range(covered[0])]
    columns = [mirrored(i, width) for i in range(covered[1])]
    codes = encoder(image[:, :, rows][:, :, :, columns] * 2 - 1)[0]
    grid = codes.shape[1:]
    output = torch.zeros(3, *size)
    for i in range(size[0]):
        for j in range(size[1]):
            added, place = 0.0, []
            for axis, (n, count, side) in enumerate(zip((i, j), size, (height, width))):
                pixel = (n + 0.5) / count * side  # from the image's upper left corner
                at = pixel / covered[axis] * grid[axis]  # the same, in codes
                assert abs(at - round(at)) > 1e-4
                code = min(math.floor(at), grid[axis] - 1)
                cell = side / count / covered[axis] * grid[axis]  # in codes; a feature cell is 2 wide
                added += (0.1, 0.2)[axis] * 2 * (at - code - 0.5) + (0.3, 0.4)[axis] * 2 * cell
                place.append(code)
            output[:, i, j] = codes[:, place[0], place[1]] + added
    return output * 0.5 + 0.5


def mirrored(i, count):
    """The pixel that continues 0 .. count - 1 at i: 0 1 2 1 0 1 ..."""
    while not 0 <= i < count:
        i = -i if i < 0 else 2 * (count - 1) - i
        if count == 1:
            i = 0
    return i


@pytest.mark.parametrize("encoder", [MeanOfFour(), FourTimes()], ids=["half", "double"])
@pytest.mark.parametrize("within", [(1, 1), (1, 2), (4, 6), (5, 7), (3, 8), (41, 36)])
@pytest.mark.parametrize("size", [(16, 32), (32, 16)])  # so that no query lies exactly between two codes
def test_pixel_by_pixel(registry, encoder, within, size):
    model = composed(registry, encoder, PlainFeatures(), SumDecoder())
    image = torch.rand(1, 3, *within, generator=torch.Generator().manual_seed(0))
    found = model.encode(image).render(size)
    assert (found[0] - by_loop(encoder, image, size)).abs().max() < 1e-5


def test_grid_of_the_field(registry):
    for encoder, grid in ((MeanOfFour(), (3, 4)), (FourTimes(), (10, 14))):
        picture = composed(registry, encoder, PlainFeatures(), SumDecoder()).encode(torch.rand(2, 3, 5, 7))
        assert picture.field.grid == grid and picture.size == (5, 7) and picture.field.image.shape == (2, 3, 5, 7)


MODELS = {
    "half": (Halves, Features),
    "double": (Doubled, Features),
    "half, finer features": (Halves, FineFeatures),
    "same, finer features": (Encoder, FineFeatures),
}


def model_of(registry, name, residual):
    torch.manual_seed(0)
    encoder, features = MODELS[name]
    encoder = encoder(None, 3)
    decoder = Decoder(None, 3, 3, 4, {"coordinate": 2, "cell": 2})
    return composed(registry, encoder, features(None, encoder.out_channels), decoder, "local-ensemble", residual)


@pytest.mark.parametrize("name", MODELS)
@given(data=st.data())
@settings(max_examples=20)
def test_tiles_are_exact(registry, name, data):
    model = model_of(registry, name, data.draw(st.sampled_from(["none", "bilinear"]), label="residual"))
    within = data.draw(st.tuples(st.integers(1, 45), st.integers(1, 45)), label="image")
    scale = data.draw(st.sampled_from([0.5, 1.0, 2.0, 2.7]), label="scale")
    tile = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)), label="tile")
    image, size = (
        torch.rand(1, 3, *within, generator=torch.Generator().manual_seed(1)),
        scaled_size(within, Scale.of(scale)),
    )
    expected = model.encode(image).render(size)
    plan = TilePlan(tile, 7, model.halo, 0)
    bands = render_bands(model, lambda rows, columns: image[:, :, rows, columns], within, size, plan)
    assert (torch.cat(list(bands), dim=2) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_a_halo_too_small_is_not_exact(registry, name):
    """The test above can fail."""
    model, image = model_of(registry, name, "none"), torch.rand(1, 3, 40, 40)
    model.encoder.receptive_radius = 0
    plan = TilePlan((10, 10), 40, 2, 0)
    expected = model.encode(image).render((80, 80))
    try:
        bands = list(render_bands(model, lambda rows, columns: image[:, :, rows, columns], (40, 40), (80, 80), plan))
    except (IndexError, RuntimeError):
        return  # a query beyond the codes
    assert (torch.cat(bands, dim=2) - expected).abs().max() > 1e-4


def test_codes_of_a_tile_must_lie_on_the_whole_grid(registry):
    class Odd(MeanOfFour):
        multiple_of = 1  # not what it needs

        def forward(self, image):
            return nn.functional.avg_pool2d(image, 2, ceil_mode=True)

    model = composed(registry, Odd(), PlainFeatures(), SumDecoder())
    with pytest.raises(ValueError, match=r"features: .* raise the encoder's multiple_of"):
        model.encode(torch.rand(1, 3, 5, 6), TilePlacement((15, 18), 3, 0))
