"""A pixel grid that is decoded code by code has the colors that its pixels have as scattered queries."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import liif_core
from liif_core import Query, TilePlacement
from liif_core.experiment.toml_file import model_from_table
from liif_core.model import composed_image
from liif_core.model.geometry import region_axes
from liif_core.model.grid_plan import plan_axis
from liif_core.model.protocols import AxisSites

BOTH = [{"use": "coordinate"}, {"use": "cell"}]
MODELS = {
    "lm-liif": {"features": {"use": "unfold"}, "decoder": {"use": "lm-liif", "latent": [24]}},
    "lm-liif-nearest": {
        "features": {"use": "unfold"}, "sampling": {"use": "nearest"}, "conditioning": BOTH[:1],
        "decoder": {"use": "lm-liif", "width": 6, "depth": 2, "latent": []},
    },
    "lm-lte": {"decoder": {"use": "lm-lte", "latent": [24], "channels": 16}, "residual": "bilinear"},
    "lte": {"decoder": {"use": "lte", "channels": 12, "hidden": [10, 10]}, "residual": "nearest"},
    "metasr": {"features": {"use": "unfold"}, "sampling": {"use": "corner"}, "decoder": {"use": "metasr", "hidden": 9}},
    "basis": {"sampling": {"use": "nearest"}, "decoder": {"use": "basis", "latent": [12], "axis": [6]}},
}  # fmt: skip


@pytest.fixture(scope="module")
def models(registry):
    return {name: made(registry, name) for name in MODELS}


def made(registry, name):
    table = {"features": {"use": "identity"}, "sampling": {"use": "local-ensemble"}, "conditioning": BOTH}
    encoder = {"use": "edsr", "blocks": 1, "channels": 5}
    torch.manual_seed(0)
    return liif_core.build_model(model_from_table({**table, "encoder": encoder, **MODELS[name]}, registry, name)).eval()


def random(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def as_points(picture, rows, columns, cell):
    """The colors of a pixel grid, as those of scattered queries."""
    coord = torch.cartesian_prod(rows, columns)[None]
    return picture.query(coord, cell).unflatten(1, (len(rows), len(columns))).permute(0, 3, 1, 2)


def expect_blocks(model, monkeypatch):
    """From here on, the model cannot decode query by query."""

    def fails(*arguments):
        raise AssertionError("decoded query by query")

    monkeypatch.setattr(model.decoder, "decode", fails)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_whole_scales_use_blocks(models, name, monkeypatch):
    model, image = models[name], random(2, 3, 7, 9)
    picture = model.encode(image)
    for scale in (2, 4):
        rows, columns, cell = region_axes((7 * scale, 9 * scale), (7, 9), None)
        expected = as_points(picture, rows, columns, cell)
        with monkeypatch.context() as patch:
            expect_blocks(model, patch)
            found = picture.render((7 * scale, 9 * scale))
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_size_and_region(models, name, data):
    height, width = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)), label="image")
    size = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 40)), label="size")
    edges = [
        sorted(data.draw(st.lists(st.floats(-0.5, side + 0.5), min_size=2, max_size=2))) for side in (height, width)
    ]
    region = None
    if all(stop - start > 0.1 for start, stop in edges) and data.draw(st.booleans(), label="a region"):
        region = edges[0][0], edges[1][0], edges[0][1], edges[1][1]
    with torch.no_grad():
        picture = models[name].encode(random(1, 3, height, width))
        found = picture.render(size, region)
        expected = as_points(picture, *region_axes(size, (height, width), region))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_tiles_use_blocks(models, name, monkeypatch):
    model, image = models[name], random(1, 3, 23, 20)
    expected = model.encode(image).render((69, 50))
    expect_blocks(model, monkeypatch)
    rows, columns, cell = region_axes((69, 50), (23, 20), None)
    tile = model.encode(image[:, :, 4:], TilePlacement((23, 20), top=4, left=0))
    inside = (rows + 1) / 2 * 23 > 4 + model.halo
    assert inside.any()
    torch.testing.assert_close(tile.render_grid(rows[inside], columns, cell), expected[:, :, inside], rtol=0, atol=2e-5)


@torch.no_grad()
def test_rows_in_any_order(models):
    """A grid whose rows are not in ascending order is decoded query by query."""
    picture = models["lm-liif"].encode(random(1, 3, 5, 6))
    rows, columns, cell = region_axes((20, 24), (5, 6), None)
    found = picture.render_grid(rows.flip(0), columns, cell)
    torch.testing.assert_close(found, picture.render_grid(rows, columns, cell).flip(2), rtol=0, atol=2e-5)


def test_gradients(models):
    """Where gradients are recorded, they reach the image and the weights."""
    model, image = models["lte"], random(1, 3, 5, 6).requires_grad_()
    model.encode(image).render((10, 12)).sum().backward()
    assert image.grad is not None and image.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in model.decoder.parameters())
    model.zero_grad()


@torch.no_grad()
def test_few_positions_in_a_block(models, monkeypatch):
    """The number of positions that are decoded at once does not change the result."""
    model = models["lm-lte"]
    picture = model.encode(random(1, 3, 11, 13))
    expected = picture.render((33, 52))
    for positions in (1, 100, 700):
        monkeypatch.setattr(model.decoder, "block_positions", positions)
        torch.testing.assert_close(picture.render((33, 52)), expected, rtol=0, atol=1e-6)


@given(data=st.data())
@settings(deadline=None)
def test_plan_of_an_axis(data):
    """Each pixel's place in the block of its code has its offset, and all pixels of a code are within its range."""
    pixels, sides = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 3))
    first = torch.tensor(sorted(data.draw(st.lists(st.integers(0, 9), min_size=pixels, max_size=pixels))))
    index = (first + torch.arange(sides).unsqueeze(1)).clamp(0, 9)
    position = torch.arange(pixels) * 0.37
    plan = plan_axis(AxisSites(index, position - index * 2.0))
    for side in range(sides):
        for pixel in range(pixels):
            code = int(index[side, pixel]) - plan.first
            place = int(plan.place[side, pixel])
            assert 0 <= place < plan.counts[code]
            assert plan.offset[code, place] == position[pixel] - index[side, pixel] * 2.0
            start, stop = plan.span(side, code, code + 1)
            assert start <= pixel < stop
    for code in range(plan.codes):
        read = [pixel for pixel in range(pixels) if (index[:, pixel] == code + plan.first).any()]
        assert plan.around(code, code + 1) == ((read[0], read[-1] + 1) if read else (0, 0))
        assert plan.counts[code] == len(read)
    for side in range(sides):
        start = data.draw(st.integers(0, plan.codes - 1))
        stop = data.draw(st.integers(start + 1, plan.codes))
        covered = []
        for run in plan.runs(side, start, stop):
            first, last = plan.places(side, run[0])
            for code in range(*run):
                read = [pixel for pixel in range(pixels) if index[side, pixel] == code + plan.first]
                assert [int(plan.place[side, pixel]) for pixel in read] == list(range(first, last)) != []
                covered += read
        assert covered == list(range(*plan.span(side, start, stop)))


def test_equal_codes_of_an_axis_are_one_run(registry):
    """Inside the image, at a whole scale; at 1.5, each code differs from the last."""
    component, _ = registry.find("sampling", "local-ensemble")
    sampling = component.build(component.options())
    whole = [(0, 1), (1, 5), (5, 6)]
    for scale, runs in ((1.5, [(i, i + 1) for i in range(6)]), (2, whole), (4, whole)):
        rows, _, cell = region_axes((round(6 * scale), 1), (6, 1), None)
        plan = plan_axis(sampling.axes(Query.grid(rows, torch.zeros(1), cell), (6, 1))[0])
        assert plan.runs(0, 0, 6) == runs


@pytest.mark.parametrize("residual", ["nearest", "bilinear"])
@torch.no_grad()
def test_residual_in_bands(registry, monkeypatch, residual):
    """The number of pixels whose residual is computed at once does not change the result."""
    table = {"features": {"use": "identity"}, "sampling": {"use": "nearest"}, "residual": residual}
    table |= {"encoder": {"use": "edsr", "blocks": 1, "channels": 4}, "conditioning": BOTH}
    decoder = {"use": "basis", "zero_last": True, "latent": [4]}
    model = liif_core.build_model(model_from_table({**table, "decoder": decoder}, registry, "test"))
    image = random(2, 3, 7, 9)
    mode = {"nearest": {"mode": "nearest-exact"}, "bilinear": {"mode": "bilinear", "align_corners": False}}[residual]
    expected = torch.nn.functional.interpolate(image, (21, 27), **mode)
    for pixels in (1, 100, 1 << 15):
        monkeypatch.setattr(composed_image, "RESIDUAL_PIXELS", pixels)
        torch.testing.assert_close(model.encode(image).render((21, 27)), expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_conditions_of_another_scope(models, registry, monkeypatch):
    """A condition that depends on the query in another way is computed for each query."""
    model = made(registry, "lm-liif")
    picture = model.encode(random(1, 3, 5, 6))
    expected = picture.render((20, 24))
    monkeypatch.setattr(type(model.conditioning[0]), "scope", "query")
    monkeypatch.setattr(type(model.decoder), "decode_block", None)
    torch.testing.assert_close(picture.render((20, 24)), expected, rtol=0, atol=2e-5)


@torch.no_grad()
def test_queries_as_a_grid(models):
    """``query`` of a pixel grid gives the same colors as ``render_grid``."""
    picture = models["metasr"].encode(random(1, 3, 5, 6))
    rows, columns, cell = region_axes((20, 24), (5, 6), None)
    found = picture.query(Query.grid(rows, columns, cell)).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, picture.render_grid(rows, columns, cell), rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("scale", [2, 4])
@torch.no_grad()
def test_half_precision(models, name, scale, monkeypatch):
    """Under autocast to bf16, blocks are as close to float32 as scattered queries are, and colors are float32."""
    model, image, size = models[name], random(1, 3, 7, 9), (7 * scale, 9 * scale)
    expected = model.encode(image).render(size)
    with torch.autocast("cpu", torch.bfloat16):
        picture = model.encode(image)
        points = as_points(picture, *region_axes(size, (7, 9), None))
        expect_blocks(model, monkeypatch)
        found = picture.render(size)
    assert found.dtype == torch.float32
    assert (found - expected).square().mean() <= 1.5 * (points - expected).square().mean()
