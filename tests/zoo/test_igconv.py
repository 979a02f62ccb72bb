"""IGConv and IGConv+ against outputs of the published code, and against their formula written out per query."""

import numpy as np
import pytest
import torch
from formulas import Given, expect_same, random
from reference import centers, unfolded
from reference_outputs import expect_the_same_once_saved, formulas_of, outputs_of

import liif_core
import liif_zoo.igconv
from liif_core import UserError
from liif_core.experiment.toml_file import model_from_table
from liif_core.model.tile_plan import TilePlan
from liif_core.model.tiling import render_bands
from liif_core.sizes import Scale, scaled_size
from liif_core.testing import DecoderContract
from liif_zoo.igconv import IGConv, IGConvOptions, IGConvPlus
from liif_zoo.igconv_codes import products
from liif_zoo.igconv_kernels import distinct, lattice, scale_of

GRIDS = ["x2", "x3", "x4"]
SMALL = {"waves": 4, "width": 6, "depth": 2}
VARIANTS = {
    "igconv": SMALL,
    "geo-ensemble": {**SMALL, "geo_ensemble": True},
    "plus": {**SMALL, "geo_ensemble": True, "skip_depth": 1},
    "linear": {**SMALL, "depth": 0, "skip_depth": 0},
}
each_variant = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
MEAN = [0.4488, 0.4371, 0.4040]


@pytest.fixture(scope="module")
def formulas():
    return formulas_of("igconv")


class TestIGConv(DecoderContract):
    component = "liif-core:igconv"
    options = SMALL


class TestGeoEnsemble(DecoderContract):
    component = "liif-core:igconv"
    options = VARIANTS["geo-ensemble"]
    in_channels = 18
    neighbours = 1


class TestIGConvPlus(DecoderContract):
    component = "liif-core:igconv"
    options = VARIANTS["plus"]
    in_channels = 18


# The published implementation


@pytest.fixture(scope="module", params=["igconv", "igconv-plus"])
def golden(request, shared):
    return outputs_of(shared, request.param)


def size_of(data, grid):
    return tuple(data[f"size_{grid}"].tolist())


@pytest.mark.parametrize("graph", [False, True], ids=["rendered", "as in training"])
def test_equal_to_the_published_implementation(golden, graph):
    path, data = golden
    model = liif_core.load(path).requires_grad_(graph)
    with torch.set_grad_enabled(graph):
        picture = model.encode(data["inp"])
        torch.testing.assert_close(picture.field.features, data["feat"], rtol=0, atol=1e-5)
        for grid in GRIDS:
            colors = picture.render(size_of(data, grid)) * 2 - 1
            torch.testing.assert_close(colors, data[f"out_{grid}"], rtol=0, atol=2e-5)


@pytest.mark.parametrize("grid", GRIDS)
def test_pixels_as_scattered_points(golden, grid):
    path, data = golden
    height, width = size_of(data, grid)
    chosen = torch.randperm(height * width, generator=torch.Generator().manual_seed(0))[:200]
    coord = centers(height, width).view(1, -1, 2)[:, chosen]
    colors = liif_core.load(path)(data["inp"], coord, torch.tensor([2 / height, 2 / width])) * 2 - 1
    torch.testing.assert_close(colors, data[f"out_{grid}"].flatten(2).mT[:, chosen], rtol=0, atol=2e-5)


def test_the_skip_alone(shared):
    """With kernels of zeros and no mean, colors are those of the LR image, read at its own places."""
    path = shared / "golden" / "igconv-plus.pth"
    model = liif_core.load(path)
    for parameter in model.decoder.kernels.layers[-1].parameters():
        parameter.zero_()
    model.decoder.mean.zero_()
    with np.load(path.with_suffix(".npz")) as data:
        picture = model.encode(torch.tensor(data["inp"]))
        for grid in GRIDS:
            expected = torch.tensor(data[f"skip_{grid}"])
            torch.testing.assert_close(picture.render(size_of(data, grid)), expected, rtol=0, atol=1e-5)


def test_the_same_once_saved_as_ours(golden, registry, tmp_path):
    path, data = golden
    expect_the_same_once_saved(path, data, GRIDS, registry, tmp_path)


# The formula


def table(features="unfold", **options):
    return {
        "encoder": {"use": "edsr", "blocks": 1, "channels": 2},
        "features": {"use": features},
        "sampling": {"use": "nearest"},
        "conditioning": [{"use": "coordinate"}, {"use": "cell"}],
        "decoder": {"use": "igconv", **options},
    }


def composed(registry, given=None, features="unfold", **options):
    torch.manual_seed(0)
    model = liif_core.build_model(model_from_table(table(features, **options), registry, "test")).eval()
    with torch.no_grad():
        for name, parameter in model.decoder.named_parameters():
            parameter.mul_(0.5) if "frequency" in name else parameter.add_(torch.randn_like(parameter) * 0.1)
    if given is not None:
        model.encoder = Given(given)
    return model


def answer(formulas, model, features, image, coord, cell):
    """(B, N, 3) in [-1, 1] space."""
    codes = unfolded(features, 3) if model.features.size == 3 else features
    return formulas.colors(model.decoder, codes, image, coord, cell) * 2 - 1


def expect_formula(formulas, model, features, image, scales):
    size, batch = tuple(features.shape[-2:]), len(features)
    picture = model.encode(image)
    for scale in scales:
        target = scaled_size(size, Scale.of(scale))
        coord = centers(*target).reshape(1, -1, 2).expand(batch, -1, 2)
        cell = torch.tensor([2 / n for n in target]).expand_as(coord)
        expected = answer(formulas, model, features, image, coord, cell)
        expect_same(picture.render(target).flatten(2).mT, expected)
    return picture


@pytest.mark.parametrize("graph", [False, True], ids=["rendered", "as in training"])
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 1), (5, 6)], ids=str)
@each_variant
def test_written_out(registry, formulas, options, size, graph):
    features, image = random(2, 2, *size), torch.rand(2, 3, *size)
    model = composed(registry, features, **options)
    with torch.set_grad_enabled(graph):
        scales = (0.7, 1, 2, 3, 3.3, (2, 3), (0.7, 4.1))
        picture = expect_formula(formulas, model, features, image, scales)
        generator = torch.Generator().manual_seed(2)
        coord = torch.rand(2, 60, 2, generator=generator) * 2.6 - 1.3  # some beyond the border
        cell = torch.rand(2, 1, 2, generator=generator).expand_as(coord)  # each image its own
        expect_same(picture.query(coord, cell), answer(formulas, model, features, image, coord, cell))


@pytest.mark.parametrize("size", [(8, 10), (15, 9)], ids=str)
@each_variant
def test_fractional_scales_of_larger_images(registry, formulas, options, size):
    """Whose kernels are computed beforehand, and whose codes repeat."""
    features, image = random(1, 2, *size), torch.rand(1, 3, *size)
    model = composed(registry, features, **options)
    with torch.no_grad():
        expect_formula(formulas, model, features, image, (1.5, 2.5, (2, 1.5), 5 / 3, 3.2, (1, 9)))


@pytest.mark.parametrize("few, most", [(0, 1 << 24), (0, 1 << 9), (0, 0), (1 << 20, 1 << 9)], ids=str)
@pytest.mark.parametrize("name", ["igconv", "plus"])
def test_whatever_is_computed_beforehand(registry, formulas, monkeypatch, name, few, most):
    monkeypatch.setattr(liif_zoo.igconv, "_FEW", few)
    monkeypatch.setattr(liif_zoo.igconv, "_TABLE", most)
    features, image = random(1, 2, 7, 9), torch.rand(1, 3, 7, 9)
    model = composed(registry, features, **VARIANTS[name])
    with torch.no_grad():
        expect_formula(formulas, model, features, image, (2, 3, 2.5, 1.5))


@pytest.mark.parametrize("count, values", [(7, 40), (90, 40), (90, 1 << 22), (3, 1)])
def test_products_in_steps(monkeypatch, count, values):
    """Of few and of many kernels, some of which no query has, in steps of a few numbers."""
    monkeypatch.setattr(liif_zoo.igconv_codes, "VALUES", values)
    monkeypatch.setattr(liif_zoo.igconv_codes, "_LONGEST", 5)
    codes, kernels = random(2, 12, 4), random(count, 4, 3)
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(12, (2, 3, 20), generator=generator)
    which = torch.randint(count, (2, 3, 20), generator=generator).clamp(min=1)
    found = products({"tap0": codes}, index, which, count, kernels.__getitem__, 3)
    for i in range(2):
        expected = torch.einsum("knc,knco->kno", codes[i][index[i]], kernels[which[i]])
        torch.testing.assert_close(found[i], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("values", [1 << 22, 1 << 9])
@pytest.mark.parametrize("name", ["igconv", "plus"])
def test_gradients_are_those_of_the_formula(registry, formulas, monkeypatch, name, values):
    """At scattered points, and at some pixels of a whole scale; in one step, and in many, which are computed twice."""
    monkeypatch.setattr(liif_zoo.igconv_codes, "VALUES", values)
    image = torch.rand(2, 3, 4, 5)
    for whole in (False, True):
        features = random(2, 2, 4, 5).requires_grad_()
        model = composed(registry, features, **VARIANTS[name])
        coord, cell = torch.rand(2, 40, 2) * 2 - 1, torch.tensor([0.31, 0.23])
        if whole:
            coord = centers(12, 15).reshape(-1, 2)[torch.stack([torch.randperm(180)[:40] for _ in range(2)])]
            cell = torch.tensor([2 / 12, 2 / 15])
        learned = {"features": features, **dict(model.decoder.named_parameters())}
        found = torch.autograd.grad((model(image, coord, cell) * 2 - 1).square().sum(), list(learned.values()))
        expected = answer(formulas, model, features, image, coord, cell.expand_as(coord)).square().sum()
        for part, fast, slow in zip(learned, found, torch.autograd.grad(expected, list(learned.values()))):
            tolerance = 1e-4 * slow.abs().max().item() + 1e-6
            message = lambda text, part=part: f"{part}: {text}"  # noqa: E731
            torch.testing.assert_close(fast, slow, rtol=0, atol=tolerance, msg=message)


def test_images_of_a_batch_at_different_whole_scales(registry, formulas):
    features, image = random(3, 2, 6, 6), torch.rand(3, 3, 6, 6)
    model = composed(registry, features, **SMALL)
    sizes = (12, 18, 24)
    generator = torch.Generator().manual_seed(0)
    chosen = [centers(n, n).view(-1, 2)[torch.randperm(n * n, generator=generator)[:100]] for n in sizes]
    coord, cell = torch.stack(chosen), torch.tensor([2 / n for n in sizes]).view(3, 1, 1).expand(3, 1, 2)
    expected = answer(formulas, model, features, image, coord, cell.expand_as(coord))
    expect_same(model(image, coord, cell), expected)


@each_variant
def test_the_benchmark_decodes_alike(registry, formulas, options):
    model, image = composed(registry, **options), torch.rand(2, 3, 6, 9)
    with torch.no_grad():
        for size in ((12, 18), (24, 36), (13, 31)):
            plain = formulas.decode(model, model.encoder(image * 2 - 1), image, size, chunk=100)
            torch.testing.assert_close(model.encode(image).render(size), plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["igconv", "plus"])
@pytest.mark.parametrize("coarse, fine, size", [((13, 3), 13, (6, 9)), ((4, 1), 12, (5, 6)), ((14, 3), 14, (6, 3))])
def test_scales_from_4_share_their_kernels(registry, name, coarse, fine, size):
    """Pixels of x13/3, which the published code does not have, are one in three of those of x13, as of x4 and x12."""
    model, image = composed(registry, **VARIANTS[name]), torch.rand(1, 3, *size)
    p, q = coarse
    with torch.no_grad():
        picture = model.encode(image)
        whole = picture.render((size[0] * fine, size[1] * fine))
        step = fine * q // p
        found = picture.render((size[0] * p // q, size[1] * p // q))
        torch.testing.assert_close(found, whole[:, :, step // 2 :: step, step // 2 :: step], rtol=0, atol=1e-5)


@torch.no_grad()
def test_colors_change_little_with_the_scale(registry):
    """At positions that are those of a whole scale, of cells that are, and that are not quite."""
    model, image = composed(registry, **VARIANTS["plus"]), torch.rand(1, 3, 5, 6)
    picture, coord = model.encode(image), centers(15, 18).view(1, -1, 2)
    exact, near, far = (picture.query(coord, torch.tensor([2 / 15, 2 / 18]) * x) for x in (1, 1 + 1e-4, 1.3))
    assert (near - exact).abs().max() < 1e-3 < (far - exact).abs().max()


@pytest.mark.parametrize("name", ["igconv", "plus"])
@pytest.mark.parametrize("scale", [3, 2.5])
@torch.no_grad()
def test_regions_whose_pixels_are_not_those_of_the_whole(registry, formulas, name, scale):
    features, image = random(1, 2, 8, 10), torch.rand(1, 3, 8, 10)
    model = composed(registry, features, **VARIANTS[name])
    top, left, height, width = 1.3, 2.15, 4, 6
    size = round(height * scale), round(width * scale)
    found = model.encode(image).render(size, region=(top, left, top + height, left + width))
    rows, columns = (
        (first + (torch.arange(n) + 0.5) / scale) * 2 / side - 1
        for first, n, side in ((top, size[0], 8), (left, size[1], 10))
    )
    coord = torch.cartesian_prod(rows, columns).unsqueeze(0)
    cell = torch.tensor([2 / 8, 2 / 10]) / scale
    expected = answer(formulas, model, features, image, coord, cell.expand_as(coord))
    torch.testing.assert_close(found.flatten(2).mT * 2 - 1, expected, rtol=0, atol=2e-5)


@torch.no_grad()
def test_one_pixel_between_those_of_a_whole_scale(registry, formulas):
    """At a code's center, which no pixel of x2 has."""
    features, image = random(1, 2, 3, 3), torch.rand(1, 3, 3, 3)
    model = composed(registry, features, **SMALL)
    found = model.encode(image).render((1, 1), region=(1.25, 1.25, 1.75, 1.75))
    expected = answer(formulas, model, features, image, torch.zeros(1, 1, 2), torch.full((1, 1, 2), 1 / 3))
    expect_same(found.flatten(2).mT, expected)


@torch.no_grad()
def test_pixel_grids_are_not_decoded_query_by_query(registry, monkeypatch):
    model = composed(registry, **SMALL)

    def fails(*arguments):
        raise AssertionError("decoded query by query")

    monkeypatch.setattr(model.decoder, "decode", fails)
    assert model.encode(torch.rand(1, 3, 7, 9)).render((28, 36)).shape == (1, 3, 28, 36)


@pytest.mark.parametrize("name", ["igconv", "plus"])
def test_kernels_are_those_of_the_weights(registry, formulas, name):
    """Those that a decoder keeps are not used once its weights have changed, nor in training."""
    features, image = random(1, 2, 8, 8), torch.rand(1, 3, 8, 8)
    model = composed(registry, features, **VARIANTS[name])
    with torch.no_grad():
        before = model.encode(image).render((20, 20))
        model.decoder.kernels.layers[-1].weight.mul_(2)
        after = expect_formula(formulas, model, features, image, [2.5]).render((20, 20))
    assert (before - after).abs().max() > 0.01
    trained = model.encode(image).render((20, 20))
    assert torch.autograd.grad(trained.sum(), model.decoder.kernels.frequency)[0].abs().max() > 0


@torch.no_grad()
def test_tiles_are_parts_of_the_whole(registry):
    model, image = composed(registry, **VARIANTS["geo-ensemble"]), torch.rand(1, 3, 30, 40)
    for size in ((60, 80), (75, 100)):
        parts = []

        def read(rows, columns, parts=parts):
            parts.append((rows, columns))
            return image[:, :, rows, columns]

        bands = list(render_bands(model, read, (30, 40), size, TilePlan((10, 20), 20, model.halo, 0)))
        assert len(parts) >= 6 and (slice(0, 30), slice(0, 40)) not in parts
        torch.testing.assert_close(torch.cat(bands, dim=2), model.encode(image).render(size), rtol=0, atol=1e-5)


@torch.no_grad()
def test_positions_are_exact_at_a_whole_scale(registry):
    """In a wide image, where coordinates in float32 differ by 1e-4 of a code, and with waves that show it."""
    features = random(1, 2, 1, 3000)
    model = composed(registry, features, **SMALL)
    model.decoder.kernels.frequency.mul_(10)
    found = model.encode(torch.zeros(1, 3, 1, 3000)).render((2, 6000))
    model.encoder = Given(features[..., :40])
    expected = model.encode(torch.zeros(1, 3, 1, 40)).render((2, 80))[..., :70]
    torch.testing.assert_close(found[..., :70], expected, rtol=0, atol=1e-6)
    model.encoder = Given(features[..., -40:])
    expected = model.encode(torch.zeros(1, 3, 1, 40)).render((2, 80))[..., 10:]
    torch.testing.assert_close(found[..., -70:], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["igconv", "plus"])
@torch.no_grad()
def test_kernels_are_of_single_precision_under_autocast(registry, name):
    model, image = composed(registry, random(1, 2, 6, 6), **VARIANTS[name]), torch.rand(1, 3, 6, 6)
    for size in ((12, 12), (15, 15), (23, 17)):
        expected = model.encode(image).render(size)
        with torch.autocast("cpu", torch.bfloat16):
            found = model.encode(image).render(size)
        assert found.dtype == torch.float32
        assert (found - expected).abs().max() < 0.02 * (expected - expected.mean()).abs().max()


def test_codes_need_not_be_unfolded(registry, formulas):
    features, image = random(1, 2, 5, 6), torch.rand(1, 3, 5, 6)
    model = composed(registry, features, "identity", **{**SMALL, "skip_depth": 1})
    with torch.no_grad():
        expect_formula(formulas, model, features, image, (2, 2.5, 3.3))


def test_a_skip_moves_each_color_by_its_own_number(formulas):
    """By hand: a kernel that moves red by 1 pixel to the right, and blue by 2 down, whatever the position."""
    options = IGConvOptions(waves=1, width=2, depth=0, skip_depth=0, mean=(0.0,))
    module = IGConvPlus(options, 1, 3, {"coordinate": 2, "cell": 2}, 1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        module.skip.amplitude.fill_(1)
        module.skip.frequency.zero_()  # cosines are 1, sines are 0; the first group has red, green, blue of x, y
        module.skip.layers[0].weight[0, 0] = 4.0  # times sigmoid(0) / 2: one pixel
        module.skip.layers[0].weight[5, 0] = 8.0
    assert module.skip.layers[0].weight.shape == (12, 1)
    image = torch.rand(1, 3, 6, 5)
    field = Given(torch.ones(1, 1, 6, 5))
    field.dense, field.grid, field.image = lambda: field.features, (6, 5), image
    offset = torch.tensor([0.4, -0.2]).view(1, 1, 1, 2)
    index = torch.tensor([1 * 5 + 2]).view(1, 1, 1)
    sites = liif_core.Sites(index, offset, torch.ones(1, 1, 1))
    conditions = {"coordinate": offset, "cell": torch.tensor([0.7, 0.7]).view(1, 1, 1, 2)}
    with torch.no_grad():
        maps = module.prepare(field, {"cell": torch.tensor([[0.7, 0.7]])})
        found = module.decode(maps, sites, conditions)[0, 0]

    def read(color, y, x):
        own = image[0, color, y : y + 2, x - 1 : x + 1]
        return own[0, 0] * 0.8 * 0.1 + own[0, 1] * 0.8 * 0.9 + own[1, 0] * 0.2 * 0.1 + own[1, 1] * 0.2 * 0.9

    expected = torch.stack([read(0, 1, 3), read(1, 1, 2), read(2, 3, 2)])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_scales_and_their_offsets():
    def scale(y, x):
        return scale_of(torch.tensor([[2 / y, 2 / x]]))

    assert scale(2, 3) == (2, 3) and scale(2.5, 1 / 3) == (5 / 2, scale(1 / 3, 1)[0])
    assert scale(2**0.5, 2) is None and scale(2, 1.0003) is None
    assert scale_of(torch.tensor([[0.5, 0.5], [0.5, 1]])) is None
    assert scale_of(torch.tensor([[0.0, 1.0]])) is None and scale_of(torch.tensor([[float("nan"), 1.0]])) is None
    for p, q in ((1, 1), (2, 1), (5, 1), (5, 2), (3, 2), (7, 3), (1, 2), (2, 3)):
        codes = 12
        position = (torch.arange(codes * p // q) + 0.5) * q / p
        offset = 2 * (position.unsqueeze(1) - torch.arange(codes) - 0.5)
        expected = offset[offset.abs() <= 1 + 1e-6].unique()
        expected = expected[torch.cat([expected.new_ones(1), expected.diff()]) > 1e-4]
        found = lattice(scale(p / q, 1)[0], torch.device("cpu"))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_offsets_that_differ_by_rounding_are_one():
    """Of a grid's pixels, but not of scattered points."""
    grid = torch.tensor([-0.5, 0.5]).repeat(50) + torch.rand(100) * 1e-5
    points = torch.rand(100) * 2 - 1
    offset, pixel, which = distinct(torch.stack([grid, points], dim=-1), torch.full((100, 1), 0.5))
    assert len(offset[:, 0].unique()) == 2 and len(pixel) == 100
    torch.testing.assert_close(offset[which][:, 0], grid, rtol=0, atol=1e-5)
    assert torch.equal(offset[which][:, 1], points)
    crowd = torch.arange(5000) / 2500 - 1
    assert torch.equal(distinct(torch.stack([crowd, crowd], -1), torch.ones(5000, 1))[0][:, 0].unique(), crowd.unique())


# What is refused


def written(tmp_path, change, shared, name="igconv-plus", keep="params_ema"):
    """The published checkpoint with its weights changed."""
    content = torch.load(shared / "golden" / f"{name}.pth", weights_only=True)[keep]
    change(content)
    torch.save({keep: content}, tmp_path / "changed.pth")
    return tmp_path / "changed.pth"


def test_weights_without_averages_are_used_where_there_are_no_others(shared, registry, tmp_path):
    path = written(tmp_path, lambda state: None, shared, keep="params")
    assert liif_core.load(path).decoder.skip is not None


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda state: state.pop("upsample.freq"), "IGConv's 'upsample.' has a parameter 'freq', which is missing"),
        (lambda state: state.pop("upsample.amplitude"), "'upsample.' has a parameter 'amplitude', which is missing"),
        (lambda state: state.pop("skip.convs.phase.weight"), "'phase.weight', which is missing"),
        (lambda state: state.pop("upsample.query_kernel.2.weight"), "'query_kernel.8.weight'"),
        (lambda state: state.pop("body.0.conv2.weight"), "weight"),
        (lambda state: state.pop("conv_first.weight"), "only EDSR ('conv_first', 'body.0.conv1') is known"),
        (lambda state: state.update({"upsample.more": torch.zeros(1)}), "more"),
        (lambda state: state.update({"other.weight": torch.zeros(1)}), "IGConv's EDSR has no parameter for"),
        (lambda state: state.update({"upsample.freq": torch.zeros(144)}), "expected a tensor of 4 dimensions"),
        (lambda state: state.update({"upsample.freq": torch.zeros(144, 31, 1, 1)}), "expected an even number"),
        (lambda state: state.update({"upsample.freq": torch.zeros(140, 32, 1, 1)}), "expected kernels of k x k"),
        (lambda state: state.update({"upsample.amplitude": torch.zeros(144, 32, 3, 1)}), "ends in 1, 1"),
        (lambda state: state.update({"upsample.amplitude": torch.zeros(144, 30, 1, 1)}), "amplitude"),
        (
            lambda state: state.update({"skip.convs.query_kernel.4.weight": torch.zeros(10, 16, 1, 1)}),
            "expected (waves, width, outputs, rows) (16, 32, 12, 144), got (16, 32, 10, 144)",
        ),
        (lambda state: state.update({"skip.convs.query_kernel.4.weight": torch.zeros(12, 15, 1, 1)}), "skip.layers.2"),
    ],
)
def test_bad_checkpoints(shared, tmp_path, change, message):
    with pytest.raises(UserError) as refused:
        liif_core.load(written(tmp_path, change, shared))
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"mean": (0.1, 0.2)}, "mean: expected one number or 3, got 2"),
        ({"geo_ensemble": True, "unfold": 5}, "its 18 channels are no multiple of 25"),
        ({"width": 5, "skip_depth": 1}, "width: expected an even number, as skip_depth is given, got 5"),
    ],
)
def test_unsuitable_options(options, message):
    with pytest.raises(ValueError) as refused:
        IGConv(IGConvOptions(**options), 18, 3, {"coordinate": 2, "cell": 2}, 1)
    assert message in str(refused.value)


def test_several_cells_in_an_image(registry):
    with pytest.raises(ValueError, match="one cell at a time"):
        composed(registry, **SMALL)(torch.rand(1, 3, 4, 4), torch.rand(1, 5, 2), torch.rand(1, 5, 2))
