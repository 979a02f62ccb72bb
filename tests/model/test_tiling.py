"""However an image is divided into tiles, the result is the same."""

import doctest

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parts import StatisticsDecoder
from reference import small_model
from torch import nn

from liif_core import UserError, as_rows, blend, gather
from liif_core.model import composed_image, continuous
from liif_core.model.tile_plan import TilePlan, default_memory, plan_tiles, total_pixels
from liif_core.model.tiling import _extents, render_bands
from liif_core.sizes import Scale, scaled_size


class Blocks(nn.Module):
    """An encoder as window encoders are: sides in multiples of 4, and each code sees its own 4 x 4 block only."""

    multiple_of = 4
    out_channels = 8
    receptive_radius = 3

    def __init__(self, channels=3):
        super().__init__()
        self.mix = nn.Conv2d(channels, 8, 1)

    def forward(self, image):
        features = self.mix(image)
        batch, channels, height, width = features.shape
        assert height % 4 == 0 and width % 4 == 0
        mean = features.reshape(batch, channels, height // 4, 4, width // 4, 4).mean((3, 5), keepdim=True)
        return (features.reshape(batch, channels, height // 4, 4, width // 4, 4) + mean).reshape(features.shape)


class Everything(nn.Module):
    """An encoder that sees the whole image, a little."""

    multiple_of = 1
    out_channels = 4
    receptive_radius = None

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, image):
        return self.conv(image) * (1 + 0.01 * image.mean((1, 2, 3), keepdim=True))


def joined(m, image, size, cut, region=None, **options):
    seen = []

    def read(rows, columns):
        seen.append((rows, columns))
        return image[:, :, rows, columns]

    counted = []
    bands = list(
        render_bands(m, read, tuple(image.shape[-2:]), size, cut, region=region, on_progress=counted.append, **options)
    )
    result = torch.cat(bands, dim=2)
    assert result.shape == (len(image), m.channels, *size)
    assert sum(counted) == total_pixels(m, tuple(image.shape[-2:]), size, region)
    return result, bands, seen


@pytest.fixture(scope="module")
def models(registry):
    made = [
        small_model(registry, residual=residual, ensemble=ensemble)
        for residual, ensemble in (("bilinear", True), ("nearest", False))
    ]
    blocks = small_model(registry)
    torch.manual_seed(0)
    blocks.encoder = Blocks()
    decoder, _ = registry.find("decoder", "mlp")
    blocks.decoder = decoder.build(
        decoder.options(hidden=(16,)),
        in_channels=72,
        out_channels=3,
        neighbours=4,
        conditions={"coordinate": 2, "cell": 2},
    )
    of_all = small_model(registry, residual="bilinear")
    of_all.decoder = StatisticsDecoder(None, 36, 3, 4, {"coordinate": 2, "cell": 2})
    return [*made, blocks.eval().requires_grad_(False), of_all.eval().requires_grad_(False)]


factor = st.one_of(st.sampled_from([0.5, 1.0, 2.0, 3.0, 4.0]), st.floats(0.3, 6))


@given(data=st.data())
@settings(max_examples=25)
def test_any_cut_gives_the_whole(models, data):
    draw = data.draw
    m = draw(st.sampled_from(models), label="model")
    within = draw(st.tuples(st.integers(1, 30), st.integers(1, 30)), label="image")
    image = torch.rand(
        draw(st.integers(1, 2)), 3, *within, generator=torch.Generator().manual_seed(draw(st.integers(0, 9)))
    )
    size = scaled_size(within, Scale(draw(factor, label="down"), draw(factor, label="across")))
    expected = m.encode(image).render(size)
    tile = draw(st.tuples(st.integers(1, 20), st.integers(1, 20)), label="tile")
    cut = TilePlan(tile, draw(st.integers(1, 50), label="rows"), m.halo, 0)
    with pytest.MonkeyPatch.context() as patch:
        chunk = draw(st.integers(1, 3000), label="query chunk")
        patch.setattr(continuous, "QUERY_CHUNK", chunk)
        patch.setattr(composed_image, "CACHE", draw(st.sampled_from([1, 1 << 16, 1 << 21]), label="cache"))
        patch.setattr(
            "liif_core.model.tiling._CHUNK_VALUES", draw(st.sampled_from([1, 300, 5000]), label="values per chunk")
        )
        found, _, _ = joined(m, image, size, cut)
        assert (found - expected).abs().max() <= 1e-5
        assert (m.encode(image).render(size) - expected).abs().max() <= 1e-5

        # a region whose edges lie between output pixels, cut from the larger render
        top, left = draw(st.integers(0, size[0] - 1)), draw(st.integers(0, size[1] - 1))
        bottom, right = draw(st.integers(top + 1, size[0])), draw(st.integers(left + 1, size[1]))
        down, across = within[0] / size[0], within[1] / size[1]
        region = (top * down, left * across, bottom * down, right * across)
        part, _, _ = joined(m, image, (bottom - top, right - left), cut, region)
        assert (part - expected[:, :, top:bottom, left:right]).abs().max() <= 1e-5


def test_published_weights_tile_exactly(shared):
    import liif_core

    m = liif_core.load(shared / "checkpoints" / "edsr-baseline-liif.pth")
    assert m.halo == 2 * 16 + 2 + 1 + 1 + 1
    image = torch.rand(1, 3, 90, 100, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = m.encode(image).render((135, 150))
    found, _, seen = joined(m, image, (135, 150), TilePlan((40, 50), 32, m.halo, 0))
    assert len(seen) == 6
    assert (found - expected).abs().max() <= 1e-5


def test_a_radius_declared_too_small_is_not_exact(models, monkeypatch):
    """The tests above can fail: what the halo holds does matter."""
    image = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    m = models[0]
    expected = m.encode(image).render((80, 80))
    monkeypatch.setattr(m.encoder, "receptive_radius", m.encoder.receptive_radius - 3)
    found, _, _ = joined(m, image, (80, 80), TilePlan((16, 16), 32, m.halo, 0))
    assert (found - expected).abs().max() > 1e-4


def test_an_encoder_that_sees_everything(registry):
    m = small_model(registry)
    m.encoder = Everything()
    m = m.eval().requires_grad_(False)
    assert m.halo is None
    image = torch.rand(1, 3, 160, 150, generator=torch.Generator().manual_seed(0))
    exact = m.encode(image).render((240, 300))

    roomy = plan_tiles(m, (160, 150), (240, 300), None, 1 << 30)
    assert roomy.overlap == 0
    found, _, seen = joined(m, image, (240, 300), roomy)
    assert (found - exact).abs().max() <= 1e-6 and len(seen) == 1
    part, _, seen = joined(
        m, image, (24, 30), plan_tiles(m, (160, 150), (24, 30), (16, 15, 32, 30), 1 << 30), (16, 15, 32, 30)
    )
    assert (part - exact[:, :, 24:48, 30:60]).abs().max() < 1e-5 and seen == [(slice(0, 160), slice(0, 150))]

    cut = TilePlan((96, 100), 64, 0, 24)
    found, _, seen = joined(m, image, (240, 300), cut)
    assert len(seen) == 4
    assert 0 < (found - exact).abs().max() < 0.02  # approximate, and no seams:
    steps = (found - exact).diff(dim=2).abs().max(), (found - exact).diff(dim=3).abs().max()
    assert max(steps) < 2e-3


@given(st.integers(1, 300), st.integers(1, 700), st.integers(1, 80), st.sampled_from([0, 5, 20]))
def test_extents_cover_every_pixel_once(side, count, tile, overlap):
    from liif_core.model.geometry import pixel_centers

    axis = pixel_centers(count)
    tile = max(tile, 4 * overlap)
    total, own = torch.zeros(count), torch.zeros(count)
    for extent in _extents(axis, side, tile, overlap):
        own[extent.own] += 1
        assert 0 <= extent.start < extent.stop <= side and extent.stop - extent.start <= tile
        total[extent.first : extent.last] += 1 if extent.weight is None else extent.weight
    assert torch.allclose(total, torch.ones(count), atol=1e-5)
    assert torch.equal(own, torch.ones(count))


def test_bands_are_as_tall_as_planned(models):
    image = torch.rand(1, 3, 30, 20)
    _, bands, seen = joined(models[0], image, (95, 40), TilePlan((30, 20), 16, models[0].halo, 0))
    assert [band.shape[2] for band in bands] == [16, 16, 16, 16, 16, 15] and len(seen) == 1  # encoded once


def test_the_example_of_the_documentation(models):
    """The docstring of ``plan_tiles``, run as it is written."""
    names = {"model": models[0], "torch": torch, "plan_tiles": plan_tiles, "render_bands": render_bands}
    example = doctest.DocTestParser().get_doctest(plan_tiles.__doc__, names, "plan_tiles", None, 0)
    assert doctest.DocTestRunner().run(example) == (0, 5)


def test_plans_have_defaults(models):
    plan = plan_tiles(models[0], (40, 50), (160, 200))
    assert plan == TilePlan((40, 50), 160, models[0].halo, 0)
    assert total_pixels(models[0], (40, 50), (160, 200)) == 160 * 200


def test_planning_leaves_every_module_in_its_mode(models):
    m = models[0].train()
    m.decoder.eval()
    plan_tiles(m, (40, 50), (160, 200))
    assert m.training and m.encoder.training and not m.decoder.training
    m.eval()


def test_plans_keep_to_the_memory(models):
    m = models[0]
    small = plan_tiles(m, (4000, 5000), (16000, 20000), None, 100_000_000)
    large = plan_tiles(m, (4000, 5000), (16000, 20000), None, 400_000_000)
    assert 1 < small.tile[0] * small.tile[1] < large.tile[0] * large.tile[1] < 4000 * 5000
    assert small.rows * 20000 * 3 * 4 <= 25_000_000 and small.overlap == 0
    assert plan_tiles(m, (40, 50), (160, 200), None, 100_000_000) == TilePlan((40, 50), 160, m.halo, 0)
    assert plan_tiles(m, (4000, 5000), (100, 100), (10, 10, 20.5, 20.5), 100_000_000).tile == (11, 11)
    with pytest.raises(UserError, match=r"memory: 0 MB are too few for this model; at least \d+ MB"):
        plan_tiles(m, (400, 400), (800, 800), None, 10_000)
    assert default_memory(torch.device("cpu")) >= 1 << 28


def test_a_query_chunk_too_large_for_the_gpu_is_halved(models, monkeypatch):
    """What torch raises when a GPU is full, raised here by hand."""
    asked = []
    original = continuous.ContinuousImage.render_grid

    def full(self, rows, columns, cell, chunk_size=None, statistics=()):
        asked.append(chunk_size)
        if chunk_size is None or chunk_size > 2000:
            raise torch.cuda.OutOfMemoryError("full")
        return original(self, rows, columns, cell, chunk_size)

    monkeypatch.setattr(continuous.ContinuousImage, "render_grid", full)
    image = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    found, _, _ = joined(models[0], image, (80, 90), TilePlan((20, 20), 80, models[0].halo, 0))
    assert asked == [None, 3600, 1800]
    monkeypatch.undo()
    assert (found - models[0].encode(image).render((80, 90))).abs().max() <= 1e-6

    monkeypatch.setattr(
        continuous.ContinuousImage, "render_grid", lambda *a: (_ for _ in ()).throw(torch.cuda.OutOfMemoryError())
    )
    with pytest.raises(UserError, match="use a smaller memory limit"):
        joined(models[0], image, (80, 90), TilePlan((20, 20), 80, models[0].halo, 0))


class Symmetric(nn.Module):
    """A decoder that flipping and transposing leave alone: codes blended with a term even in, and the same for, both
    offsets."""

    needs, num_statistics, scale_dependent, radius = frozenset(), 0, False, 0

    def prepare(self, field, image_conditions):
        return {"code": as_rows(field.dense())}

    def decode(self, maps, sites, conditions):
        bend = conditions["coordinate"].square().sum(-1, keepdim=True) + conditions["cell"].sum(-1, keepdim=True)
        return blend(gather(maps["code"], sites.index) * (1 + 0.1 * bend), sites.weight)


@given(
    within=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    residual=st.sampled_from(["none", "bilinear"]),
)
@settings(max_examples=60)
def test_geometry_commutes_with_flips_and_transposition(registry, within, size, residual):
    """Away from places where two codes tie, which the published 1e-6 moves to one side."""
    m = small_model(registry, unfold=False, residual=residual)
    m.encoder, m.decoder = nn.Identity(), Symmetric()
    m.encoder.multiple_of, m.encoder.receptive_radius = 1, 0
    image = torch.rand(1, 3, *within, generator=torch.Generator().manual_seed(1))
    straight = m.encode(image).render(size)
    assert torch.allclose(m.encode(image.mT).render(size[::-1]).mT, straight, atol=2e-5)
    if any(2 * n % side == 0 for n, side in zip(size, within)):
        return  # queries may lie half-way between codes, or at one
    for dims in ((2,), (3,), (2, 3)):
        flipped = m.encode(image.flip(dims)).render(size).flip(dims)
        assert torch.allclose(flipped, straight, atol=1e-3)


class Relative(Symmetric):
    """A decoder whose colors depend on all queries of a call."""

    num_statistics = None

    def decode(self, maps, sites, conditions):
        colors = super().decode(maps, sites, conditions)
        return colors - colors.flatten(1, -2).mean(1).reshape(len(colors), *[1] * (colors.ndim - 2), -1)


def test_a_decoder_that_needs_all_queries_in_one_call_is_never_tiled(registry, monkeypatch):
    m = small_model(registry, unfold=False)
    m.encoder, m.decoder = nn.Identity(), Relative()
    m.encoder.multiple_of, m.encoder.receptive_radius = 1, 0
    image = torch.rand(1, 3, 20, 30, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr("liif_core.model.tiling._CHUNK_VALUES", 100)
    found, bands, _ = joined(m, image, (50, 70), plan_tiles(m, (20, 30), (50, 70), None, 100_000_000))
    assert len(bands) == 1 and torch.allclose(found, m.encode(image).render((50, 70)), atol=1e-6)
    with pytest.raises(UserError, match="cannot be cut"):
        plan_tiles(m, (20, 30), (5000, 7000), None, 100_000_000)


def test_colors_that_depend_on_all_queries_need_the_statistics(models):
    """The cuts above are not equal by chance: tile by tile, each as if it were all, gives another picture."""
    m = models[-1]
    image = torch.rand(1, 3, 16, 18, generator=torch.Generator().manual_seed(0))
    whole = m.encode(image).render((32, 36))
    halves = [m.encode(image).render_grid(rows, columns, cell) for rows, columns, cell in _halves((16, 18), (32, 36))]
    assert (torch.cat(halves, dim=2) - whole).abs().max() > 1e-2


def _halves(within, size):
    from liif_core.model.geometry import region_axes

    rows, columns, cell = region_axes(size, within, None)
    return [(rows[: size[0] // 2], columns, cell), (rows[size[0] // 2 :], columns, cell)]


def test_a_region_that_depends_on_the_whole(models):
    """A small region is planned for itself, and the passes over the whole image for all of it, within the memory."""
    m, within, size, region = models[-1], (1000, 1200), (100, 100), (10, 10, 60, 60)
    cut = plan_tiles(m, within, size, region, 40_000_000)
    assert cut.tile == (51, 51) and cut.whole.whole is None
    assert cut.whole == plan_tiles(m, within, (2000, 2400), None, 40_000_000) and cut.whole.tile[0] < 1000
    assert total_pixels(m, within, size, region) == 100 * 100 + 2 * 2000 * 2400
    assert plan_tiles(models[0], within, size, region, 40_000_000).whole is None
