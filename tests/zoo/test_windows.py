"""An image rendered in chunks, tiles and bands equals all queries decoded at once; and how often maps are prepared."""

import math
from types import MappingProxyType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import liif_core
from liif_core import Query
from liif_core.experiment.toml_file import model_from_table
from liif_core.model import composed_image, continuous
from liif_core.model.geometry import chunks_of, region_axes
from liif_core.model.tile_plan import TilePlan, plan_tiles, total_pixels
from liif_core.model.tiling import render_bands
from liif_core.sizes import Scale, scaled_size

EDSR = {"use": "edsr", "blocks": 1, "channels": 8}
RCAN = {"use": "rcan", "groups": 1, "blocks": 1, "channels": 8, "reduction": 2}
DECODERS = {
    "mlp": {"hidden": [12, 10]},
    "metasr": {"hidden": 10},
    "lte": {"channels": 12, "hidden": [10]},
    "srno": {"width": 16, "heads": 4, "hidden": 12},
    "lm-liif": {"width": 6, "depth": 2, "latent": [12]},
    "lm-lte": {"width": 6, "depth": 2, "latent": [12], "channels": 8},
}
ONCE_A_CELL = ["lm-liif", "lm-lte"]


def made(registry, use, encoder=EDSR, cell=MappingProxyType({}), residual="bilinear", **options):
    """A small model. Its random weights make every parameter count."""
    table = {
        "residual": residual,
        "encoder": encoder,
        "features": {"use": "identity" if use == "lte" else "unfold"},
        "sampling": {"use": "corner" if use == "metasr" else "local-ensemble"},
        "conditioning": [{"use": "coordinate"}, {"use": "cell", **cell}],
        "decoder": {"use": f"liif-core:{use}", **DECODERS[use], **options},
    }
    torch.manual_seed(0)
    model = liif_core.build_model(model_from_table(table, registry, "test")).eval().requires_grad_(False)
    for parameter in model.decoder.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.fixture(scope="module")
def models(registry):
    return {use: made(registry, use) for use in DECODERS} | {"three blocks": made(registry, "srno", blocks=3)}


@pytest.fixture
def srno(models):
    return models["srno"]


def picture_of(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def whole_grid(size):
    return Query.grid(*region_axes(size, size, None))


def at_once(model, image, size):
    """All queries in one call of the decoder: while autograd records, queries are not split (tested below)."""
    with torch.enable_grad():
        return model.encode(image).query(whole_grid(size)).permute(0, 3, 1, 2)


def in_bands(model, image, size, cut, region=None):
    """The bands joined, how many pixels were processed, and how many parts of the image were encoded."""
    done, parts = [], []

    def read(rows, columns):
        parts.append((rows, columns))
        return image[:, :, rows, columns]

    bands = render_bands(model, read, tuple(image.shape[-2:]), size, cut, region=region, on_progress=done.append)
    return torch.cat(list(bands), dim=2), sum(done), len(parts)


def expect_same(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * max(1, expected.abs().max().item()))


def pixels(region, within, size):
    """The region of an image of size ``within`` that output pixels (top, left, bottom, right) of ``size`` cover."""
    scale = [own / out for own, out in zip(within, size)] * 2
    return tuple(edge * by for edge, by in zip(region, scale))


class Spy:
    """Calls of a decoder: (method, how many queries)."""

    def __init__(self, decoder, patch):
        self.calls = []
        for name in ("prepare", "decode", "partial_statistic"):
            if hasattr(decoder, name):
                patch.setattr(decoder, name, self._watched(name, getattr(decoder, name)))

    def _watched(self, name, method):
        def call(first, second, *rest):
            self.calls.append((name, None if name == "prepare" else math.prod(second.index.shape[2:])))
            return method(first, second, *rest)

        return call

    def count(self, name):
        return len(self.of(name))

    def of(self, name):
        return [queries for method, queries in self.calls if method == name]


# Any way of splitting

factor = st.one_of(st.sampled_from([0.5, 1.0, 2.0, 3.0]), st.floats(0.3, 5))


@pytest.mark.parametrize("name", [*DECODERS, "three blocks"])
@given(data=st.data())
@settings(max_examples=8)
def test_any_cut_gives_the_whole(models, name, data):
    draw, m = data.draw, models[name]
    side = st.integers(1, 20)
    within = draw(st.tuples(side, side), label="image")
    image = picture_of(draw(st.integers(1, 2), label="batch"), 3, *within)
    size = scaled_size(within, Scale(draw(factor, label="down"), draw(factor, label="across")))
    expected = at_once(m, image, size)

    window = max(1, size[0] * size[1] // draw(st.integers(1, 20), label="chunks"))
    tile = draw(st.tuples(st.integers(4, 20), st.integers(4, 20)), label="tile")
    cut = TilePlan(tile, draw(st.integers(1, 50), label="rows"), m.halo, 0)
    top, left = draw(st.integers(0, size[0] - 1)), draw(st.integers(0, size[1] - 1))
    part = (top, left, draw(st.integers(top + 1, size[0])), draw(st.integers(left + 1, size[1])))
    region, shape = pixels(part, within, size), (part[2] - top, part[3] - left)
    cropped = expected[:, :, top : part[2], left : part[3]]
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(continuous, "QUERY_CHUNK", window)
        patch.setattr(composed_image, "CACHE", draw(st.sampled_from([1, 1 << 16, 1 << 21]), label="cache"))
        patch.setattr("liif_core.model.tiling._CHUNK_VALUES", draw(st.sampled_from([300, 5000]), label="chunk"))
        expect_same(m.encode(image).render(size), expected)
        expect_same(m.encode(image).render(shape, region), cropped)
        expect_same(in_bands(m, image, size, cut)[0], expected)
        expect_same(in_bands(m, image, shape, cut, region)[0], cropped)


def test_without_statistics_a_part_has_other_colors(srno):
    """Colors do depend on all queries: a part decoded without the statistics of the whole is different."""
    image, size = picture_of(1, 3, 9, 11), (20, 31)
    expected = at_once(srno, image, size)
    rows, columns, cell = region_axes(size, size, None)
    with torch.inference_mode():
        picture = srno.encode(image)
        statistics = picture.grid_statistics(rows, columns, cell)
        for down, across in chunks_of(size, 150):
            part = Query.grid(rows[down], columns[across], cell)
            own = expected[:, :, down, across].permute(0, 2, 3, 1)
            expect_same(picture.query(part, statistics=statistics), own)
            assert (picture.query(part) - own).abs().max() > 1e-3
            assert (
                picture.query(part, statistics=statistics[:1]) - own
            ).abs().max() > 1e-4  # the second statistic counts as well


def test_plans_of_a_region_see_the_whole(srno):
    """With less memory, first the image is tiled for its statistics, then the region too; the result is the same."""
    within, size = (60, 70), (120, 105)
    image = picture_of(1, 3, *within)
    expected = at_once(srno, image, size)
    region, shape = pixels((30, 20, 90, 80), within, size), (60, 60)
    parts = []
    for memory in (1 << 30, 2_000_000, 1_000_000):
        cut = plan_tiles(srno, within, shape, region, memory)
        found, done, encoded = in_bands(srno, image, shape, cut, region)
        expect_same(found, expected[:, :, 30:90, 20:80])
        assert done == total_pixels(srno, within, shape, region) == 60 * 60 + 2 * 120 * 105
        parts.append(encoded)
    assert parts == [1 + 1, 2 * 4 + 1, 2 * 12 + 4]  # tiles for the statistics, and of the region


@pytest.mark.parametrize("memory", [1 << 30, 1_000_000])
def test_progress_counts_every_pass(models, memory):
    within, size = (60, 70), (90, 70)
    image = picture_of(1, 3, *within)
    for name, times in (("mlp", 1), ("srno", 3), ("three blocks", 4)):
        m = models[name]
        _, done, encoded = in_bands(m, image, size, plan_tiles(m, within, size, None, memory))
        assert (encoded > 1) == (memory < 1 << 30)
        assert done == total_pixels(m, within, size, None) == times * 90 * 70


@pytest.mark.parametrize("batch", [1, 2])
def test_scattered_points_in_any_order_and_chunks(srno, monkeypatch, batch):
    """Each image has its own points and cells; colors come back in the order of the points."""
    generator = torch.Generator().manual_seed(3)
    coord = torch.rand(batch, 500, 2, generator=generator) * 2.2 - 1.1
    cell = torch.rand(batch, 500, 2, generator=generator) * 0.2
    order = torch.randperm(500, generator=generator)
    image = picture_of(batch, 3, 9, 8)
    expected = srno(image, coord, cell)  # in one call: autograd records
    monkeypatch.setattr(composed_image, "CACHE", 1)
    with torch.inference_mode():
        picture = srno.encode(image)
        expect_same(picture.query(coord, cell), expected)
        expect_same(picture.query(coord[:, order], cell[:, order]), expected[:, order])
        assert (picture.query(coord[:, :128], cell[:, :128]) - expected[:, :128]).abs().max() > 1e-4


def test_an_encoder_that_sees_everything(registry):
    """Where tiles overlap, codes are approximate, and so are the statistics; the image is close to the exact one."""
    m = made(registry, "srno", encoder=RCAN)
    for parameter in m.encoder.parameters():
        parameter.mul_(1.5)  # so that its global average has a visible effect
    within, size, part = (210, 200), (150, 140), (30, 60, 110, 130)
    image = picture_of(1, 3, *within) * torch.linspace(0, 1, within[0]).unsqueeze(1)  # darker above than below
    expected = at_once(m, image, size)
    found, done, _ = in_bands(m, image, size, plan_tiles(m, within, size, None, 1 << 30))
    expect_same(found, expected)
    assert done == total_pixels(m, within, size, None)

    cut = plan_tiles(m, within, size, None, 26_000_000)
    found, _, encoded = in_bands(m, image, size, cut)
    assert cut.overlap > 0 and encoded > 4
    assert 1e-4 < (found - expected).abs().max() < 0.01
    region, shape = pixels(part, within, size), (80, 70)
    cut = plan_tiles(m, within, shape, region, 26_000_000)
    found, _, _ = in_bands(m, image, shape, cut, region)
    assert cut.whole.overlap > 0 and (found - expected[:, :, 30:110, 60:130]).abs().max() < 0.01


def test_where_tiles_overlap_each_query_counts_once(srno, monkeypatch):
    """With exact codes, blended tiles equal the whole: a pixel in two tiles counts once in each statistic."""
    image, size = picture_of(1, 3, 90, 50), (77, 60)
    expected = at_once(srno, image, size)
    monkeypatch.setattr(srno.encoder, "receptive_radius", None)
    found, _, encoded = in_bands(srno, image, size, TilePlan((36, 50), 20, 0, 8))
    assert encoded == 3 * 3
    expect_same(found, expected)


# How many queries a call has


@pytest.mark.parametrize("cache, chunk", [(1, 128), (300 * 16 * 4 * 4, 300)])  # a code has 16 numbers, a query 4 codes
def test_no_call_has_more_than_a_chunk(srno, monkeypatch, cache, chunk):
    """Each of 1200 queries, in chunks that do not divide evenly, is decoded once in each pass."""
    monkeypatch.setattr(composed_image, "CACHE", cache)
    monkeypatch.setattr(continuous, "QUERY_CHUNK", 700)
    image, cut = picture_of(1, 3, 10, 10), TilePlan((10, 10), 40, srno.halo, 0)
    expected = at_once(srno, image, (40, 30))
    ways = [
        lambda: srno.encode(image).render((40, 30)),
        lambda: in_bands(srno, image, (40, 30), cut)[0],
        lambda: srno.encode(image).query(whole_grid((40, 30))).permute(0, 3, 1, 2),
    ]
    for way in ways:
        with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
            spy = Spy(srno.decoder, patch)
            expect_same(way(), expected)
        assert max(spy.of("decode")) == max(spy.of("partial_statistic")) == chunk
        assert sum(spy.of("decode")) == 1200 and sum(spy.of("partial_statistic")) == 2400


def test_training_queries_are_never_split(srno, monkeypatch):
    """The other tests here compare with this: one call of the decoder, and no statistic computed before it."""
    monkeypatch.setattr(composed_image, "CACHE", 1)
    monkeypatch.setattr(continuous, "QUERY_CHUNK", 10)
    spy = Spy(srno.decoder, monkeypatch)
    at_once(srno, picture_of(1, 3, 5, 5), (40, 30))
    srno(picture_of(2, 3, 5, 5), torch.rand(2, 900, 2), torch.ones(2))
    assert spy.of("decode") == [1200, 900] and spy.count("partial_statistic") == 0


def test_regions_of_an_image_share_its_statistics(srno, monkeypatch):
    image = picture_of(1, 3, 8, 8)
    with torch.inference_mode():
        picture = srno.encode(image)
        spy = Spy(srno.decoder, monkeypatch)
        for left in (0, 2, 4):
            picture.render((20, 12), (2.0, left, 7.0, left + 3.0))
        assert spy.of("partial_statistic") == [32 * 32] * 2
        picture.render((10, 6), (2.0, 0.0, 7.0, 3.0))  # at another scale
        assert spy.of("partial_statistic") == [32 * 32] * 2 + [16 * 16] * 2


# Preparing


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(continuous, "QUERY_CHUNK", 150)
    monkeypatch.setattr(composed_image, "CACHE", 1)


@pytest.mark.parametrize("name", [name for name in DECODERS if name not in ONCE_A_CELL])
def test_prepared_once_an_image(models, name, monkeypatch, small_chunks):
    m = models[name]
    monkeypatch.setattr(type(m.decoder), "decode_block", None, raising=False)  # to decode in many chunks
    image, coord = picture_of(1, 3, 10, 8), torch.rand(1, 300, 2) * 2 - 1
    spy = Spy(m.decoder, monkeypatch)
    with torch.inference_mode():
        picture = m.encode(image)
        picture.render((30, 25))
        picture.render((20, 24), (2, 1, 7, 7))
        picture.render((7, 50))
        picture.query(coord, torch.rand(1, 300, 2))
        assert spy.count("prepare") == 1 and spy.count("decode") > 15
        assert (spy.count("partial_statistic") > 30) == (name == "srno")
        in_bands(m, image, (30, 25), TilePlan((10, 8), 7, m.halo, 0))
    assert spy.count("prepare") == 2
    m.train()(image, coord, torch.rand(1, 300, 2))
    m.eval()
    assert spy.count("prepare") == 3


@pytest.mark.parametrize("name", ONCE_A_CELL)
def test_prepared_once_an_image_and_cell(models, name, monkeypatch, small_chunks):
    m = models[name]
    monkeypatch.setattr(type(m.decoder), "decode_block", None)  # to decode in many chunks
    image, coord = picture_of(2, 3, 10, 8), torch.rand(2, 300, 2) * 2 - 1
    spy = Spy(m.decoder, monkeypatch)
    with torch.inference_mode():
        picture = m.encode(image)
        counts = []
        for size in ((30, 25), (30, 25), (20, 16), (20, 16), (30, 25)):
            picture.render(size)
            counts.append(spy.count("prepare"))
        assert counts == [1, 1, 2, 2, 3]  # only the last one is kept
        picture.render((6, 5), (2, 1, 4, 2.6))  # the same cell
        assert spy.count("prepare") == 3 and spy.count("decode") > 30
        in_bands(m, image, (30, 25), TilePlan((10, 8), 7, m.halo, 0))
        assert spy.count("prepare") == 4
    cell = torch.tensor([[[0.1, 0.2]], [[0.3, 0.1]]])  # one for each image, as training draws them
    m.train()(image, coord, cell)
    m.eval()
    assert spy.count("prepare") == 5


@pytest.mark.parametrize("name", ONCE_A_CELL)
def test_one_cell_per_image_and_call(models, name):
    m, image, coord = models[name], picture_of(2, 3, 6, 5), torch.rand(2, 40, 2) * 2 - 1
    picture = m.encode(image)
    one = torch.tensor([0.1, 0.2])
    each = torch.tensor([[[0.1, 0.2]], [[0.3, 0.1]]])
    expect_same(picture.query(coord, one.expand(2, 40, 2)), picture.query(coord, one))
    own = picture.query(coord, each)
    expect_same(picture.query(coord, each.expand(2, 40, 2)), own)
    for i in range(2):  # a batch equals its images alone
        expect_same(m.encode(image[i : i + 1]).query(coord[i : i + 1], each[i]), own[i : i + 1])
    several = one.repeat(2, 40, 1)
    several[1, 7, 0] += 1e-3
    with pytest.raises(ValueError, match="^cell: this decoder prepares an image for one cell at a time; query one"):
        picture.query(coord, several)
    expect_same(picture.query(coord, one), m.encode(image).query(coord, one))  # the refused call left no trace


@pytest.mark.parametrize("name", ONCE_A_CELL)
def test_max_scale_limits_the_cell_given_to_prepare(registry, name, monkeypatch):
    """With ``max_scale = 4``, x8 has the pixel positions of x8 and the cell of x4; x3 does not change."""
    bounded, free = (made(registry, name, cell=cell) for cell in ({"max_scale": 4}, {}))
    within = (5, 6)
    image = picture_of(1, 3, *within)
    prepare, cells = bounded.decoder.prepare, []
    monkeypatch.setattr(bounded.decoder, "prepare", lambda *given: cells.append(given[1]["cell"]) or prepare(*given))
    for scale, limited in (((8, 8), (4, 4)), ((8, 3), (4, 3)), ((3, 2), (3, 2))):
        size = (within[0] * scale[0], within[1] * scale[1])
        found, unbounded = (m.encode(image).render(size) for m in (bounded, free))
        rows, columns, _ = region_axes(size, within, None)
        cell = torch.tensor([2 / (side * by) for side, by in zip(within, limited)])
        expect_same(found, free.encode(image).render_grid(rows, columns, cell))
        assert ((found - unbounded).abs().max() > 1e-3) == (scale != limited)
    expected = torch.tensor([[2 / 4, 2 / 4], [2 / 4, 2 / 3], [2 / 3, 2 / 2]])  # a feature cell is 2
    torch.testing.assert_close(torch.cat(cells), expected, rtol=0, atol=1e-6)
