"""What a decoder's ``prepare`` reads: the image, the whole image, and conditions of scope "image"."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import small_model
from torch import nn

from liif_core import Query, UserError, as_rows, blend, gather, plan_tiles, render_bands
from liif_core.model.composed import ComposedModel
from liif_core.model.tile_plan import TilePlan


class PlainDecoder(nn.Module):
    """Blends the maps named "code", whose first three channels are colors."""

    needs, num_statistics, scale_dependent, radius = frozenset(), 0, False, 0

    def prepare(self, field, image_conditions):
        return {"code": as_rows(field.dense()[:, :3])}

    def decode(self, maps, sites, conditions):
        return blend(gather(maps["code"], sites.index), sites.weight)


class BlurDecoder(PlainDecoder):
    """The mean of the 3 x 3 pixels around each code, 0 beyond the image."""

    radius = 1

    def prepare(self, field, image_conditions):
        return {"code": as_rows(nn.functional.avg_pool2d(field.image, 3, stride=1, padding=1))}


class ContrastDecoder(PlainDecoder):
    """Pixels less a part of the mean over the whole image."""

    radius = None

    def prepare(self, field, image_conditions):
        return {"code": as_rows(field.image - 0.1 * field.image.mean((2, 3), keepdim=True))}


def with_decoder(registry, decoder, **options):
    model = small_model(registry, **options)
    model.decoder = decoder
    return model.eval().requires_grad_(False)


def in_tiles(model, image, size, plan, **options):
    bands = render_bands(
        model, lambda rows, columns: image[:, :, rows, columns], tuple(image.shape[-2:]), size, plan, **options
    )
    return torch.cat(list(bands), dim=2)


# field.image


def test_the_image_in_pixels(registry):
    """Against a loop over pixels: normalized to [-1, 1], and of the image's size."""
    image = torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    found = with_decoder(registry, BlurDecoder(), ensemble=False).encode(image).render((4, 5))[0]
    for row in range(4):
        for column in range(5):
            around = [
                image[0, :, y, x] * 2 - 1
                for y in range(row - 1, row + 2)
                for x in range(column - 1, column + 2)
                if 0 <= y < 4 and 0 <= x < 5
            ]
            expected = torch.stack(around).sum(0) / 9 * 0.5 + 0.5
            torch.testing.assert_close(found[:, row, column], expected, rtol=0, atol=1e-6)


@given(
    within=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    tile=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    ensemble=st.booleans(),
)
@settings(max_examples=60)
def test_a_decoder_that_samples_the_image_tiles_exactly(registry, within, size, tile, ensemble):
    model = with_decoder(registry, BlurDecoder(), ensemble=ensemble)
    image = torch.rand(1, 3, *within, generator=torch.Generator().manual_seed(1))
    found = in_tiles(model, image, size, TilePlan(tile, 16, model.halo, 0))
    assert (found - model.encode(image).render(size)).abs().max() < 1e-5


def test_a_radius_declared_too_small_is_not_exact(registry):
    """The test above can fail."""
    model = with_decoder(registry, BlurDecoder(), ensemble=False)
    image = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    plan = TilePlan((8, 8), 16, model.halo - 3, 0)  # unfolding and rounding account for two, and are not needed here
    assert (in_tiles(model, image, (40, 40), plan) - model.encode(image).render((40, 40))).abs().max() > 1e-2


# radius None


def test_a_decoder_that_sees_the_whole_image_has_no_halo(registry):
    model = with_decoder(registry, ContrastDecoder())
    assert model.encoder.receptive_radius is not None and model.halo is None


@pytest.mark.parametrize("blocks", [1, 40])  # a receptive radius of 4 pixels, and one larger than what tiles share
def test_its_tiles_overlap_and_are_approximate(registry, blocks):
    model = with_decoder(registry, ContrastDecoder())
    if blocks > 1:
        model.encoder.receptive_radius = 2 * blocks + 2
    yy, xx = torch.meshgrid(torch.linspace(0, 1, 300), torch.linspace(0, 1, 310), indexing="ij")
    image = torch.stack([yy, xx, (yy + xx) / 2])[None]
    exact = model.encode(image).render((300, 310))

    in_one = plan_tiles(model, (300, 310), (300, 310), memory=1 << 30)
    assert (in_one.overlap, in_one.tile) == (0, (300, 310))
    assert (in_tiles(model, image, (300, 310), in_one) - exact).abs().max() < 1e-6

    plan = TilePlan((110, 110), 64, 0, 24)
    found = in_tiles(model, image, (300, 310), plan)
    assert 1e-3 < (found - exact).abs().max() < 0.1  # a tile's mean is not the image's
    step = torch.diff(found - exact, dim=2).abs().max(), torch.diff(found - exact, dim=3).abs().max()
    assert max(step) < 3e-3  # and no seams


def test_the_user_is_warned(registry):
    model = with_decoder(registry, ContrastDecoder())
    image = torch.rand(1, 3, 400, 400)
    needed = plan_tiles(model, (400, 400), (400, 400), memory=1 << 30)
    assert needed.overlap == 0
    memory = next(m for m in range(10_000_000, 1_000_000_000, 1_000_000) if fits(model, m))
    assert plan_tiles(model, (400, 400), (400, 400), memory=memory).overlap > 0
    with pytest.warns(UserWarning, match="approximate"):
        model.upscale(image, scale=1, memory=memory)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.upscale(image, scale=1, memory=1 << 30)


def fits(model, memory):
    try:
        plan_tiles(model, (400, 400), (400, 400), memory=memory)
    except UserError:
        return False
    return True


# scope "image"


class Zoom(nn.Module):
    """The logarithm of each image's magnification."""

    channels, scope = 1, "image"

    def forward(self, query, sites, grid):
        cell = query.cell * torch.tensor(grid) / 2  # in codes
        return -cell.log2().mean(-1, keepdim=True).unsqueeze(0)


class ZoomDecoder(PlainDecoder):
    """Codes times one plus the zoom: done per code, or per query."""

    needs = frozenset({"zoom"})

    def __init__(self, scale_dependent):
        super().__init__()
        self.scale_dependent = scale_dependent
        self.prepared = []

    def prepare(self, field, image_conditions):
        self.prepared.append(dict(image_conditions))
        codes = field.dense()[:, :3]
        if self.scale_dependent:
            codes = codes * (1 + image_conditions["zoom"][:, :, None, None])
        return {"code": as_rows(codes)}

    def decode(self, maps, sites, conditions):
        codes = gather(maps["code"], sites.index)
        return blend(codes if self.scale_dependent else codes * (1 + conditions["zoom"]), sites.weight)


def zoom_model(registry, scale_dependent):
    like = small_model(registry)
    conditions = {"coordinate": like.conditioning[0], "zoom": Zoom()}
    return ComposedModel(like.encoder, like.features, like.sampling, conditions, ZoomDecoder(scale_dependent)).eval()


def test_conditions_of_scope_image_are_given_to_prepare(registry):
    """A condition of any name; one row for all images of a grid, and one for each image whose cells differ."""
    model, image = zoom_model(registry, True), torch.rand(2, 3, 8, 6)
    picture = model.encode(image)
    picture.render((32, 24))
    cells = torch.tensor([[2 / 16, 2 / 12], [2 / 64, 2 / 48]])  # x2 and x8
    picture.query(torch.rand(2, 5, 2), cells.unsqueeze(1))
    first, second = model.decoder.prepared
    assert list(first) == list(second) == ["zoom"]
    torch.testing.assert_close(first["zoom"], torch.tensor([[2.0]]))
    torch.testing.assert_close(second["zoom"], torch.tensor([[1.0], [3.0]]))


def test_nothing_is_given_unless_the_decoder_depends_on_the_scale(registry):
    model = zoom_model(registry, False)
    picture = model.encode(torch.rand(1, 3, 8, 6))
    for size in ((32, 24), (16, 12)):
        picture.render(size)
    assert model.decoder.prepared == [{}]  # once for both sizes


@pytest.mark.parametrize("size", [(16, 12), (20, 30), (7, 5)])
def test_per_code_is_per_query(registry, size):
    """What ``prepare`` computes from an image condition equals what ``decode`` computes from it; in tiles, too."""
    image = torch.rand(1, 3, 21, 17, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = zoom_model(registry, False).encode(image).render(size)
        model = zoom_model(registry, True)
        torch.testing.assert_close(model.encode(image).render(size), expected, rtol=0, atol=1e-5)
        found = in_tiles(model, image, size, TilePlan((6, 5), 8, model.halo, 0))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        part = (3.5, 2, 14, 11.25)
        expected = zoom_model(registry, False).encode(image).render(size, part)
        torch.testing.assert_close(model.encode(image).render(size, part), expected, rtol=0, atol=1e-5)


def test_a_query_of_one_point_has_the_condition_of_its_cell(registry):
    condition = Zoom()(Query.points(torch.zeros(1, 1, 2), torch.tensor([0.5, 0.25])), None, (8, 8))
    assert condition.flatten().tolist() == [-math.log2(2 * 1) / 2]
