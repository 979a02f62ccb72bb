"""GSASR against the published implementation's output, and against a loop over its Gaussians."""

import re

import pytest
import torch
from reference_outputs import expect_the_same_once_saved, formulas_of, outputs_of
from torch import nn

import liif_core
from liif_core import Query, TilePlacement, UserError
from liif_core.model.tile_plan import TilePlan
from liif_core.model.tiling import render_bands
from liif_core.sizes import Scale, scaled_size
from liif_core.testing import ModelContract
from liif_zoo import gsasr_tiles
from liif_zoo.gsasr import GSASR, GSASROptions

GRIDS = ["x2", "x2.5", "x4"]
SMALL = {"encoder_blocks": 1, "encoder_width": 4, "width": 8, "heads": 2, "window": 4, "hidden": 6}
LAYERS = {"cross": [2], "attention": [2, 1]}


formulas = formulas_of("gsasr")


class TestPaper(ModelContract):
    component = "liif-core:gsasr"
    options = {**SMALL, **LAYERS}


class TestEnhanced(ModelContract):
    component = "liif-core:gsasr"
    options = {**SMALL, **LAYERS, "variant": "enhanced", "dmax": 0.5}


# The published implementation


@pytest.fixture(scope="module", params=["gsasr", "gsasr-rope"])
def golden(request, shared):
    return outputs_of(shared, request.param, "")


def close(found, expected, tolerance=2e-5):
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("graph", [False, True], ids=["rendered", "as in training"])
def test_equal_to_the_published_implementation(golden, graph):
    path, data = golden
    model = liif_core.load(path).requires_grad_(graph)
    assert model.dmax == pytest.approx(data["dmax"].item())
    with torch.set_grad_enabled(graph):
        picture = model.encode(data["inp"])
        close(picture.features, data["feat"], 1e-5)
        for grid in GRIDS:
            colors = picture.render(tuple(data[f"size_{grid}"].tolist()))
            close(colors * 2 - 1, data[f"out_{grid}"])
        numbers = formulas.gaussians(model, picture.features, 2.0)
        close(picture.gaussians([2.0, 2.0]).flatten(1, 2)[..., :-2], data["gaussians_x2"][..., :-2], 1e-5)
        close(numbers, data["gaussians_x2"], 1e-5)
        model.dmax = data["wide_dmax"].item()
        wide = model.encode(data["inp"]).render(tuple(data["wide_size"].tolist()))
        close(wide * 2 - 1, data["wide_out"])


@pytest.mark.parametrize("scattered", [False, True])
def test_a_scale_at_which_published_pixels_are_larger(golden, scattered):
    """The padded image, 16 x 12, is rendered at 52 x 39 for the scale 3.3."""
    path, data = golden
    scale, size = data["floor_scale"].item(), data["floor_size"].tolist()
    axes = [
        (torch.arange(count) + 0.5) * padded / int(scale * padded) / side * 2 - 1
        for count, padded, side in zip(size, (16, 12), (14, 10))
    ]
    query = Query.grid(*axes, torch.tensor([2 / (scale * 14), 2 / (scale * 10)]))
    if scattered:
        query = Query.points(query.coord.flatten(1, 2).expand(2, -1, -1), query.cell.flatten(1, 2))
    colors = liif_core.load(path).encode(data["inp"]).query(query)
    close(colors.reshape(2, *size, 3).permute(0, 3, 1, 2) * 2 - 1, data["floor_out"])


def test_the_same_once_saved_as_ours(golden, registry, tmp_path):
    path, data = golden
    expect_the_same_once_saved(path, data, GRIDS, registry, tmp_path)


def test_the_published_table_of_places_is_kept(shared):
    """It is not the usual one, in layers that attend to the image."""
    path = shared / "golden" / "gsasr"
    published = torch.load(path / "decoder.pth", weights_only=True)["params_ema"]
    model = liif_core.load(path)
    name = "window_crossattn_blocks.0.blocks.1.window_cross_attn.relative_position_index"
    layer = model.network.cross_blocks[0].layers[1].attention
    assert torch.equal(layer.index, published[name])
    usual = model.network.self_blocks[0].layers[1].attention.index
    assert not torch.equal(layer.index, usual)
    name = "gs_selfattn_blocks.0.blocks.1.gs_self_attn.relative_position_index"
    assert torch.equal(GSASR(GSASROptions(**SMALL), 3).network.self_blocks[0].layers[1].attention.index, usual)
    assert torch.equal(usual, published[name])


# A loop over the Gaussians


class Numbers(nn.Module):
    """In place of the network: Gaussians that do not depend on the image, one set for each scale that is asked for."""

    def __init__(self, *sets):
        super().__init__()
        self.sets = nn.ParameterList(nn.Parameter(one) for one in sets)

    def read(self, features):
        return []

    def forward(self, read, inverse_scale, size):
        return torch.stack(list(self.sets))


def model_of(*sets, **options):
    torch.manual_seed(0)
    made = GSASR(GSASROptions(**{**SMALL, **options}), channels=sets[0].shape[-1] - 6)
    made.network = Numbers(*sets)
    return made


def numbers(height, width, channels=3, spread=1.0, seed=0):
    """Raw numbers of Gaussians of many widths and correlations, for an image of that size, padded."""
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(4 * height, 4 * width, 6 + channels, generator=generator)


def placed(raw):
    """With means, as the formula has them."""
    down, across = raw.shape[:2]
    y, x = torch.meshgrid(torch.arange(down), torch.arange(across), indexing="ij")
    mean = torch.stack([(x + 0.5 + raw[..., -2]) / across, (y + 0.5 + raw[..., -1]) / down], dim=-1)
    return torch.cat([raw[..., :-2], mean], dim=-1).flatten(0, 1)


@pytest.mark.parametrize("spread, tolerance", [(0.6, 1e-5), (1.5, 5e-4)])  # narrow ones feel where float32 rounds them
@pytest.mark.parametrize(
    "size, window, scale, dmax",
    [
        ((8, 12), 4, 2, 0.1),  # the cut is narrower than most Gaussians
        ((8, 12), 4, 3, 0.5),
        ((8, 8), 4, 2.5, 3.0),  # no cut
        ((7, 10), 4, 2, 0.5),  # padded to 8 x 12
        ((8, 8), 8, 0.5, 0.7),  # downscaled
        ((4, 4), 4, 11, 0.4),
    ],
)
def test_equal_to_a_loop_over_the_gaussians(size, window, scale, dmax, spread, tolerance):
    padded = tuple(side + -side % window for side in size)
    sets = [numbers(*padded, spread=spread), numbers(*padded, spread=spread, seed=1)]
    model = model_of(*sets, window=window, dmax=dmax)
    target = scaled_size(size, Scale.of(scale))
    whole = tuple(round(scale * side) for side in padded)
    expected = torch.stack([formulas.splat(placed(one.double()), whole, scale, dmax).float() for one in sets])
    picture = model.encode(torch.rand(2, 3, *size))
    with torch.no_grad():
        close(picture.render(target), expected[:, :, : target[0], : target[1]], tolerance)
        coord = liif_core.make_coord(target)[torch.randperm(target[0] * target[1])]
        points = picture.query(coord.expand(2, -1, -1), torch.tensor([2 / n for n in target]))
        row, column = (((coord + 1) * torch.tensor(target) - 1) / 2).round().long().unbind(-1)
        close(points, expected[:, :, row, column].transpose(1, 2), tolerance)


def test_the_whole_formula_by_the_network():
    torch.manual_seed(0)
    model = GSASR(GSASROptions(**SMALL, variant="enhanced", dmax=0.5), 3).eval()
    image = torch.rand(2, 3, 7, 5)
    with torch.no_grad():
        picture = model.encode(image)
        close(picture.render((14, 10)), formulas.decode(model, picture.features, image, (14, 10)), 1e-5)


@pytest.mark.parametrize("scattered", [False, True])
def test_gradients_are_those_of_the_loop(scattered):
    """The loop's are computed in double precision, of every number of every Gaussian."""
    raw = numbers(4, 8, spread=0.6)
    model = model_of(raw, dmax=0.6)
    picture = model.encode(torch.rand(1, 3, 4, 8))
    query = Query.grid(*(liif_core.make_coord((n,)).flatten() for n in (12, 24)), torch.tensor([2 / 12, 2 / 24]))
    if scattered:
        query = Query.points(query.coord.flatten(1, 2), query.cell.flatten(1, 2))
    weight = torch.randn(3, 12, 24)
    (picture.query(query).reshape(12, 24, 3).permute(2, 0, 1) * weight).sum().backward()
    given = raw.double().requires_grad_()
    (formulas.splat(placed(given), (12, 24), 3.0, 0.6) * weight).sum().backward()
    found = model.network.sets[0].grad
    assert (given.grad.abs().amax((0, 1)) > 0.1).all()
    torch.testing.assert_close(found, given.grad.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("scattered", [False, True])
def test_the_same_in_small_batches(monkeypatch, scattered, backward):
    """However tiles, lists and batches are cut, colors and gradients stay the same."""
    sets = [numbers(8, 12), numbers(8, 12, seed=1)]
    query = Query.grid(torch.linspace(-0.9, 1, 13), torch.linspace(-1, 0.9, 29), torch.tensor([1 / 8, 1 / 12]))
    if scattered:
        query = Query.points(torch.rand(2, 99, 2) * 2 - 1, torch.tensor([1 / 8, 1 / 12]))
    results = []
    for values, pairs, tile in ((1 << 20, 1 << 20, 3.0), (200, 100, 0.7), (5000, 2000, 5.0)):
        for name, number in (("_VALUES", values), ("_PAIRS", pairs), ("_TILE", tile)):
            monkeypatch.setattr(gsasr_tiles, name, number)
        model = model_of(*sets, dmax=0.6)
        colors = model.encode(torch.rand(2, 3, 8, 12)).query(query)
        if backward:
            colors.square().sum().backward()
        results.append(torch.stack([one.grad for one in model.network.sets]) if backward else colors.detach())
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-4, atol=1e-4 if backward else 1e-5)


def test_each_image_has_its_own_scale():
    """One cell for each image: the network is told each scale, and the cut is that of each."""
    torch.manual_seed(0)
    model = GSASR(GSASROptions(**SMALL, dmax=0.5), 3).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    image, coord = torch.rand(2, 3, 8, 12), torch.rand(2, 50, 2) * 2 - 1
    cell = torch.tensor([[[1 / 8, 1 / 12]], [[2 / 37, 2 / 55.5]]])
    with torch.no_grad():
        together = model.encode(image).query(coord, cell)
        for i in range(2):
            close(together[i : i + 1], model.encode(image[i : i + 1]).query(coord[i : i + 1], cell[i : i + 1]), 1e-5)
        swapped = model.encode(image).query(coord, cell.flip(0))
        assert (swapped - together).abs().max() > 1e-3


def test_a_tile_has_its_gaussians_where_the_whole_image_has_them():
    raw = numbers(24, 24, spread=0.5)
    top, left, bottom, right = 4, 8, 20, 24
    part = raw[4 * top : 4 * bottom, 4 * left : 4 * right]
    image = torch.rand(1, 3, 24, 24)
    rows, columns = (liif_core.make_coord((48,)).flatten() for _ in range(2))
    # pixels at least 6 LR pixels from each cut: a Gaussian of the widest reaches 5
    query = Query.grid(rows[2 * 10 : 2 * 14], columns[2 * 14 :], torch.tensor([1 / 24, 1 / 24]))
    with torch.no_grad():
        whole = model_of(raw, dmax=0.8).encode(image).query(query)
        tile = image[:, :, top:bottom, left:right]
        found = model_of(part, dmax=0.8).encode(tile, TilePlacement((24, 24), top, left)).query(query)
    assert whole.std() > 0.1
    close(found, whole, 1e-5)


def test_tiles_are_about_as_good_as_the_whole_image():
    """They are approximate, since attention meets other windows at their borders."""
    torch.manual_seed(0)
    model = GSASR(GSASROptions(**SMALL, dmax=0.5), 3).eval().requires_grad_(False)
    image = torch.rand(1, 3, 60, 64)
    whole = model.encode(image).render((120, 128))
    plan = TilePlan(tile=(32, 36), rows=50, halo=0, overlap=8)
    bands = render_bands(model, lambda rows, columns: image[:, :, rows, columns], (60, 64), (120, 128), plan)
    difference = (torch.cat(list(bands), dim=2) - whole).abs().max()
    assert 0 < difference < 0.1 * whole.std()


def test_work_grows_with_positions_and_gaussians():
    """Per position, as many Gaussians are computed in a large image as in a small one."""
    found = []
    for side in (16, 48):
        model = model_of(numbers(side, side), window=16, dmax=100.0)
        with torch.no_grad():
            mixture = model.encode(torch.rand(1, 3, side, side))._mixture([2.0])
        rows = (torch.arange(2 * side) + 0.5) / 2
        for positions in (gsasr_tiles.Grid(rows, rows, 1), gsasr_tiles.Points(side * torch.rand(1, 4 * side**2, 2))):
            bands = gsasr_tiles.bands(positions, mixture.values[..., :2].detach(), mixture.reach)
            size = positions.groups[0] * positions.groups[1]
            found.append(sum(gaussian.numel() for band in bands for _, gaussian, _ in band) * size / (4 * side**2))
    per_position = 16 * 11**2  # of all within 5 LR pixels and half a pixel
    assert max(found) < 1.7 * per_position and found[2] < 1.6 * found[0] and found[3] < 1.6 * found[1]


def test_few_points_of_a_large_image_take_few_values():
    """Not all Gaussians at once: the points are far from each other."""
    positions = gsasr_tiles.Points(200 * torch.rand(1, 5, 2))
    mean = 200 * torch.rand(1, 16 * 200**2, 2)
    bands = gsasr_tiles.bands(positions, mean, torch.full_like(mean, 2.0))
    assert sum(gaussian.numel() for band in bands for _, gaussian, _ in band) < 5 * 16 * 9**2


# What is asked for and given


def test_any_size_and_any_channels():
    for size, channels in (((1, 1), 3), ((1, 9), 1), ((5, 2), 4)):
        picture = GSASR(GSASROptions(**SMALL), channels).eval().encode(torch.rand(2, channels, *size))
        assert picture.features.shape[-2:] == tuple(-(-side // 4) * 4 for side in size)
        assert picture.render(tuple(3 * side for side in size)).isfinite().all()


def test_gaussians_are_made_once_for_a_scale():
    model, made = GSASR(GSASROptions(**SMALL), 3).eval(), []
    model.network.register_forward_hook(lambda *_: made.append(1))
    with torch.no_grad():
        picture = model.encode(torch.rand(1, 3, 8, 8))
        before = picture.held_bytes()
        picture.render((16, 16))
        picture.query(torch.zeros(1, 5, 2), torch.tensor([1 / 8, 1 / 8]))
        assert len(made) == 1 and picture.held_bytes() > before > 0
        picture.render((24, 24))
    picture.render((24, 24)).sum().backward()  # those made without gradients are not used
    assert len(made) == 3 and model.network.seeds.grad.any()


def test_a_little_more_than_one_scale():
    """Whole sizes at one scale have two, by rounding; all else is refused, in one sentence that names both."""
    model = GSASR(GSASROptions(**SMALL), 3).eval()
    picture = model.encode(torch.rand(1, 3, 14, 10))
    for size in ((46, 33), (47, 33), (14, 10), (5, 4)):
        model.check_scale((14, 10), size)
        assert picture.render(size).shape[-2:] == size
    sentence = "GSASR renders one scale for both axes, but 2 vertically and 3 horizontally were asked for"
    for refused in (
        lambda: model.check_scale((14, 10), (28, 30)),
        lambda: picture.render((28, 30)),
        lambda: picture.query(torch.zeros(1, 1, 2), torch.tensor([2 / 28, 2 / 30])),
        lambda: model.upscale(torch.rand(3, 14, 10), width=30, height=28),
    ):
        with pytest.raises(ValueError, match=sentence):
            refused()


def test_query_refuses():
    picture = GSASR(GSASROptions(**SMALL), 3).eval().encode(torch.rand(1, 3, 8, 8))
    coord = torch.zeros(1, 2, 2)
    with pytest.raises(ValueError, match="one scale at a time"):
        picture.query(coord, torch.tensor([[[0.1, 0.1], [0.2, 0.2]]]))
    with pytest.raises(ValueError, match="above 0"):
        picture.query(coord, torch.tensor([0.0, 0.1]))


@pytest.mark.parametrize(
    "options, said",
    [
        ({"heads": 3}, "heads: expected a divisor of the width, 8, got 3"),
        ({"width": 6, "variant": "enhanced"}, "expected an even number for each of the 2 heads, got 3"),
    ],
)
def test_options_refused(options, said):
    with pytest.raises(ValueError, match=said):
        GSASR(GSASROptions(**{**SMALL, **options}), 3)


# Published checkpoints


@pytest.fixture
def folder(shared, tmp_path):
    """Makes a folder of a published checkpoint with a change: ``folder(name, file, change of its parameters)``."""

    def make(name="gsasr", file="decoder.pth", change=lambda state: None):
        for part in ("encoder.pth", "decoder.pth"):
            content = torch.load(shared / "golden" / name / part, weights_only=True)
            if part == file:
                change(content["params_ema"])
            torch.save(content, tmp_path / part)
        return tmp_path

    return make


@pytest.mark.parametrize("file", ["encoder.pth", "decoder.pth"])
def test_a_missing_file(folder, file):
    path = folder()
    (path / file).unlink()
    with pytest.raises(UserError, match=rf"a folder with encoder.pth and decoder.pth; {re.escape(file)} is missing"):
        liif_core.load(path)


def test_averaged_weights_are_used(folder, registry):
    path = folder(change=lambda state: state.update(gs_embedding=state["gs_embedding"] + 1))
    found, last = (liif_core.load_checkpoint(path, registry).state, torch.load(path / "decoder.pth", weights_only=True))
    assert torch.equal(found["network.seeds"], last["params"]["gs_embedding"] + 1)
    for part in ("encoder.pth", "decoder.pth"):
        content = torch.load(path / part, weights_only=True)
        del content["params_ema"]
        torch.save(content, path / part)
    found = liif_core.load_checkpoint(path, registry).state
    assert torch.equal(found["network.seeds"], last["params"]["gs_embedding"])


CROSS, SELF = "window_crossattn_blocks.0", "gs_selfattn_blocks.1"
INDEX = f"{SELF}.blocks.0.gs_self_attn.relative_position_index"


@pytest.mark.parametrize(
    "name, file, change, said",
    [
        ("gsasr", "decoder.pth", lambda state: state.pop("UPNet.2.bias"), "'UPNet.2.bias', which is missing"),
        ("gsasr", "decoder.pth", lambda state: state.pop(f"{SELF}.blocks.1.norm2.weight"), "norm2.weight', which is"),
        ("gsasr-rope", "decoder.pth", lambda state: state.pop("conv_final.weight"), "'conv_final.weight', which is"),
        ("gsasr-rope", "decoder.pth", lambda state: state.pop(f"{CROSS}.conv.bias"), "conv.bias', which is missing"),
        ("gsasr", "decoder.pth", lambda state: state.update(extra=torch.zeros(1)), "has no parameter for 'extra'"),
        ("gsasr", "encoder.pth", lambda state: state.update(extra=torch.zeros(1)), "has no parameter for 'extra'"),
        ("gsasr", "encoder.pth", lambda state: state.pop("conv_first.weight"), "expected an EDSR"),
        ("gsasr", "encoder.pth", lambda state: state.pop("body.1.conv2.bias"), "'body.1.conv2.bias', which is missing"),
        (
            "gsasr", "decoder.pth", lambda state: state.update({"UPNet.0.weight": torch.zeros(96, 24)}),
            r"UPNet.0.weight: expected 4 dimensions, got the shape \(96, 24\)",
        ),
        (
            "gsasr", "decoder.pth", lambda state: state.update({"UPNet.0.weight": torch.zeros(96, 24, 5, 5)}),
            r"network.up.0.weight is \(96, 24, 5, 5\), and the model expects \(96, 24, 3, 3\)",
        ),
        (
            "gsasr", "decoder.pth", lambda state: state.update(gs_embedding=torch.zeros(15, 24)),
            "expected the tokens of a square window, of one shape",
        ),
        ("gsasr", "decoder.pth", lambda state: state[INDEX].add_(1000), "expected whole numbers from 0 to 48"),
        (
            "gsasr", "decoder.pth", lambda state: state.update({INDEX: torch.zeros(9, 9).long()}),
            "expected 16 x 16, as gs_embedding has 16 tokens, got 9 x 9",
        ),
        (
            "gsasr", "decoder.pth", lambda state: state.update({"img_feat_proj.0.weight": torch.zeros(24, 8, 3, 3)}),
            "expected 16 input channels, as many as encoder.pth has, got 8",
        ),
        ("gsasr", "decoder.pth", lambda state: state.update(gs_embedding="no"), "expected a tensor, got str"),
    ],
)  # fmt: skip
def test_import_refuses(folder, name, file, change, said):
    with pytest.raises(UserError, match=said):
        liif_core.load(folder(name, file, change))


def test_other_folders_are_left_to_others(registry):
    (importer,) = [item for item, _ in registry.importers if (item.part, item.name) == ("file", "gsasr")]
    for content in (1, {}, {"model": {}}, {"encoder.pth": {"params": {"a": torch.zeros(1)}}}, {"x.pth": {}}):
        assert importer.convert(content, None) is None
