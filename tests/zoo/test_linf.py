"""LINF: published outputs, the formula and its likelihood, patches, contracts, and import."""

import math

import pytest
import torch
from formulas import Given, random
from reference_outputs import expect_the_same_once_saved, formulas_of, outputs_of

import liif_core
from liif_core import Query, UserError
from liif_core.experiment.toml_file import model_from_table
from liif_core.model.ensemble import SelfEnsemble
from liif_core.model.tile_plan import TilePlan
from liif_core.model.tiling import render_bands
from liif_core.testing import DecoderContract
from liif_core.testing.running import Contract
from liif_core.testing.whole_model import CHECKS, ModelCase
from liif_zoo.linf_flow import Flow
from liif_zoo.linf_patch import LINFPatch, PatchOptions

GRIDS = ["x2", "x3.3", "aniso"]
SMALL = {"width": 8, "layers": 2, "flow_layers": 3}


class TestDecoder(DecoderContract):
    component = "liif-core:linf"
    options = SMALL


class TestGray(DecoderContract):
    component = "liif-core:linf"
    options = {"width": 6, "layers": 1, "flow_layers": 1}
    out_channels = 1
    neighbours = 1


class GridCase(ModelCase):
    """As of ``ModelCase``, with points at the centers of pixels of a grid."""

    def inputs(self, batch=2, seed=0):
        generator = torch.Generator().manual_seed(seed)
        sizes = [[(20, 31), (14, 12), (41, 36)][i % 3] for i in range(batch)]
        points = [_centers(size)[torch.randperm(math.prod(size), generator=generator)[:23]] for size in sizes]
        cell = torch.tensor([[[2 / side for side in size]] for size in sizes])
        return {"image": self.image(self.size, batch, seed), "coord": torch.stack(points), "cell": cell}

    def extremes(self):
        return [
            (f"a {size} image of {value:g} at {target}",
             {"image": torch.full((1, self.channels, *size), value), "coord": _centers(target)[None],
              "cell": torch.tensor([[[2 / side for side in target]]])})
            for size, target in (((1, 1), (7, 5)), ((1, 3), (1, 1)), ((7, 10), (2, 200)))
            for value in (0.0, 0.5, 1.0)
        ]  # fmt: skip


class GridContract(Contract, case=GridCase, checks=CHECKS):
    channels = 3


class TestPatchModel(GridContract):
    component = "liif-core:linf-patch"
    options = {"encoder_blocks": 1, "encoder_channels": 6, **SMALL}
    expected_failures = dict.fromkeys(("encode", "pixel_grid", "halo", "autocast"), "points between pixels are refused")


def _centers(size):
    return liif_core.make_coord(size)


@pytest.fixture(scope="module")
def formulas():
    return formulas_of("linf")


def shaken(model):
    """With weights that make every parameter matter."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    return model.eval()


def pixelwise(features=None, channels=3, **options):
    torch.manual_seed(0)
    model = liif_core.compose(
        encoder={"use": "edsr", "blocks": 1, "channels": 5 if features is None else features.shape[1]},
        features="identity",
        sampling="local-ensemble",
        conditioning=["coordinate", "cell"],
        decoder={"use": "linf", **SMALL, **options},
        residual="bilinear",
        channels=channels,
    )
    if features is not None:
        model.encoder = Given(features)
    return shaken(model)


def patchwise(features=None, channels=3, **options):
    torch.manual_seed(0)
    small = {"encoder_blocks": 1, "encoder_channels": 5, **SMALL}
    model = LINFPatch(PatchOptions(**{**small, **options}), channels)
    if features is not None:
        model.encoder = Given(features)
    return shaken(model)


def expect_equal(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * max(1, expected.abs().max().item()))


# Published outputs


@pytest.fixture(scope="module", params=["linf", "linf-patch"])
def golden(request, shared):
    return outputs_of(shared, request.param)


@pytest.mark.parametrize("graph", [False, True], ids=["rendered", "as in training"])
def test_published_outputs(golden, graph):
    path, data = golden
    model = liif_core.load(path).requires_grad_(graph)
    with torch.set_grad_enabled(graph):
        torch.testing.assert_close(model.encoder(data["inp"] * 2 - 1).detach(), data["feat"], rtol=0, atol=1e-5)
        picture = model.encode(data["inp"])
        for grid in GRIDS:
            colors = picture.render(tuple(data[f"size_{grid}"].tolist())).detach() * 2 - 1
            torch.testing.assert_close(colors, data[f"out_{grid}"], rtol=0, atol=2e-5)
        if "out_pts" in data:
            colors = picture.query(data["coord_pts"], data["cell_pts"]).detach() * 2 - 1
            torch.testing.assert_close(colors, data["out_pts"], rtol=0, atol=2e-5)


def test_published_edge(golden):
    """28 x 22: the last row's and the last column's patches are half outside, where published coordinates are 0."""
    path, data = golden
    if "edge_out" not in data:
        pytest.skip("of the model of patches only")
    size = tuple(data["edge_size"].tolist())
    with torch.no_grad():
        difference = (liif_core.load(path).encode(data["inp"]).render(size) * 2 - 1 - data["edge_out"]).abs()
    assert [side % 3 for side in size] == [1, 1]
    assert difference[:, :, :-1, :-1].max() <= 2e-5
    assert difference[:, :, -1].mean() > 0.1 and difference[:, :, :, -1].mean() > 0.1


def test_the_same_once_saved_as_ours(golden, registry, tmp_path):
    path, data = golden
    expect_the_same_once_saved(path, data, GRIDS, registry, tmp_path)


# The formula


@pytest.mark.parametrize("graph", [False, True], ids=["rendered", "as in training"])
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 6)], ids=str)
@pytest.mark.parametrize("make", [pixelwise, patchwise])
def test_written_out(formulas, make, size, graph):
    features, image = random(2, 5, *size), torch.rand(2, 3, *size)
    model = make(features)
    with torch.set_grad_enabled(graph):
        picture = model.encode(image)
        for factors in ((0.7, 0.7), (1, 1), (2, 2), (3, 3), (3.3, 3.3), (6, 6), (0.7, 4.1)):
            target = tuple(max(1, round(side * factor)) for side, factor in zip(size, factors))
            expect_equal(picture.render(target), formulas.decode(model, features, image, target))


@pytest.mark.parametrize("graph", [False, True], ids=["rendered", "as in training"])
def test_scattered_points_written_out(formulas, graph):
    features, image = random(2, 5, 4, 5), torch.rand(2, 3, 4, 5)
    model = pixelwise(features)
    network = model.decoder.network
    coord, cell = torch.rand(2, 60, 2) * 2.6 - 1.3, torch.rand(2, 60, 2)  # some beyond the border, each its own cell
    with torch.set_grad_enabled(graph):
        maps = network.coefficient(features), network.frequency(features)
        expected = formulas.colors(network, maps, coord, cell) + formulas.residual(image * 2 - 1, coord)
        expect_equal(model(image, coord, cell) * 2 - 1, expected)


@pytest.mark.parametrize("make", [pixelwise, patchwise])
def test_gradients_are_those_of_the_formula(formulas, make):
    features, image, target = random(2, 5, 4, 5).requires_grad_(), torch.rand(2, 3, 4, 5), (9, 13)
    model = make(features)
    learned = {"features": features, **{n: p for n, p in model.named_parameters() if not n.startswith("encoder")}}
    coord, cell = _centers(target).expand(2, -1, -1), torch.tensor([2 / side for side in target])
    expected = formulas.decode(model, features, image, target)
    slow = torch.autograd.grad((expected * random(2, 3, *target)).sum(), list(learned.values()))
    for found in (model.encode(image).render(target), model(image, coord, cell).mT.unflatten(2, target)):
        fast = torch.autograd.grad((found * random(2, 3, *target)).sum(), list(learned.values()))
        for name, ours, plain in zip(learned, fast, slow):
            message = lambda text, name=name: f"{name}: {text}"  # noqa: E731
            torch.testing.assert_close(ours, plain, rtol=0, atol=1e-4 * plain.abs().max().item(), msg=message)
            assert plain.abs().max() > 0, name


@pytest.mark.parametrize("make", [pixelwise, patchwise])
def test_the_inverse_follows_the_weights(formulas, make):
    """After an image was rendered, and after one was encoded without gradients and is queried with them."""
    features, image = random(1, 5, 4, 5), torch.rand(1, 3, 4, 5)
    model = make(features)
    with torch.no_grad():
        picture = model.encode(image)
        before = picture.render((8, 10))
        for name, parameter in model.named_parameters():
            if ".flow." in name:
                parameter.add_(torch.randn_like(parameter) * 0.05)
        expected = formulas.decode(model, features, image, (8, 10))
        assert (expected - before).abs().max() > 1e-2
        expect_equal(model.encode(image).render((8, 10)), expected)
    expect_equal(picture.render((8, 10)), expected)


@pytest.mark.parametrize("make", [pixelwise, patchwise])
def test_encoded_with_gradients_and_rendered_without(formulas, make):
    features, image = random(1, 5, 4, 5), torch.rand(1, 3, 4, 5)
    model = make(features)
    picture = model.encode(image)
    with torch.no_grad():
        expect_equal(picture.render((8, 10)), formulas.decode(model, features, image, (8, 10)))


@pytest.mark.parametrize("make", [pixelwise, patchwise])
def test_a_singular_matrix(make):
    model = make()
    with torch.no_grad():
        (model.decoder if make is pixelwise else model).network.flow.linears[1].weight.zero_()
        with pytest.raises(ValueError, match="flow: matrix 1 is singular, so that the flow cannot be inverted"):
            model.encode(torch.rand(1, 3, 4, 4)).render((8, 8))


def test_inverses_are_as_exact_as_float32_allows():
    """Of badly conditioned matrices, whose inverses in float32 would be wrong by much more."""
    torch.manual_seed(0)
    flow = Flow(1, 27)
    with torch.no_grad():
        u, _, v = torch.linalg.svd(torch.randn(27, 27))
        flow.linears[0].weight.copy_(u * torch.logspace(0, -5, 27) @ v)
        expected = torch.linalg.inv(flow.linears[0].weight.double()).float()
        found = flow.inverse()[0, :, :-1]
    assert torch.equal(found, expected)
    assert (torch.linalg.inv(flow.linears[0].weight) - expected).norm() > 1e-4 * expected.norm()


@pytest.mark.parametrize("make", [pixelwise, patchwise])
def test_positions_and_the_flow_are_float32_under_autocast(make):
    """In a wide image, where half precision would move positions by several pixels."""
    model, image = make(), torch.rand(1, 3, 1, 3000)
    coord = _centers((1, 6000))[None, 4000:4400]
    cell = torch.tensor([2.0, 2 / 6000])
    with torch.no_grad():
        expected = model(image, coord, cell)
        with torch.autocast("cpu", torch.bfloat16):
            found = model(image, coord, cell)
    assert found.dtype == torch.float32
    assert 0 < (found - expected).square().mean().sqrt() < 0.1 * expected.std()


def test_defaults_are_the_paper_s(registry):
    component, _ = registry.find("decoder", "linf")
    sizes = {"in_channels": 64, "out_channels": 3, "neighbours": 4, "conditions": {"coordinate": 2, "cell": 2}}
    with torch.device("meta"):
        decoder = component.build(component.options(), **sizes)
    layers = 1025 * 256 + 2 * 257 * 256 + 257 * 60
    assert sum(p.numel() for p in decoder.parameters()) == 2 * 577 * 256 + 2 * 128 + layers + 11 * 12
    assert component.options() == type(component.options())(256, 3, 10)


# The likelihood


@pytest.mark.parametrize("size", [1, 3, 27])
def test_the_likelihood_is_that_of_the_inverse_and_its_jacobian(formulas, size):
    """p(x) of x = g(z) is N(z) / |det dg/dz|; g is the formula that renders, and torch differentiates it."""
    torch.manual_seed(0)
    flow, given = Flow(4, size).double(), torch.randn(5, 2 * 4 * size, dtype=torch.float64)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    normal = torch.distributions.Normal(0.0, 1.0)
    float32 = Flow(4, size)
    float32.load_state_dict(flow.state_dict())
    for one in given:
        z = torch.randn(size, dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(lambda z, one=one: formulas.inverted(flow, one, z), z)
        expected = torch.linalg.slogdet(jacobian).logabsdet - normal.log_prob(z).sum()
        colors = formulas.inverted(flow, one, z).detach()
        found = float32.surprise(colors[None].float(), one[None].float())
        assert found.item() == pytest.approx(expected.item(), rel=1e-3, abs=1e-3)


def test_likelihoods_sum_to_one():
    """Of a flow of one channel, over a fine grid of its values."""
    torch.manual_seed(0)
    flow = Flow(3, 1)
    x, given = torch.linspace(-60, 60, 200_001).unsqueeze(1), torch.randn(1, 6)
    with torch.no_grad():
        flow.linears[2].bias.add_(0.3)
        density = (-flow.surprise(x, given.expand(len(x), -1))).exp()
    assert density.sum().item() * 120 / 200_000 == pytest.approx(1, abs=1e-3)
    assert density.max() > 0.1


def test_the_color_at_temperature_0_maps_to_zeros():
    torch.manual_seed(0)
    flow, given = shaken(Flow(4, 3)), torch.randn(7, 24)
    with torch.no_grad():
        color = flow.mode(given, flow.inverse())
        lowest = flow.surprise(color, given)
        for step in torch.eye(3):  # the middle of a normal distribution: any step has a smaller likelihood
            assert (flow.surprise(color + 0.1 * step, given) > lowest).all()
            assert (flow.surprise(color - 0.1 * step, given) > lowest).all()


@pytest.mark.parametrize("residual", ["bilinear", "none"])
def test_own_loss_is_the_mean_over_queries(formulas, residual):
    features, image = random(2, 5, 4, 5), torch.rand(2, 3, 4, 5)
    model = pixelwise(features)
    model.residual = residual
    network = model.decoder.network
    coord, cell, target = torch.rand(2, 6, 2) * 2 - 1, torch.rand(2, 6, 2), torch.rand(2, 6, 3)
    with torch.no_grad():
        maps = network.coefficient(features), network.frequency(features)
        given = formulas.conditions(network, maps, coord, cell).flatten(0, 1)
        wanted = target * 2 - 1
        if residual == "bilinear":
            wanted = wanted - formulas.residual(image * 2 - 1, coord)
        total = 0.0
        for one, color in zip(given, wanted.flatten(0, 1)):
            z = torch.zeros(3)
            for _ in range(2):  # the map is linear in z: one step of Newton finds it
                jacobian = torch.autograd.functional.jacobian(
                    lambda z, one=one: formulas.inverted(network.flow, one, z), z
                )
                z = z + torch.linalg.solve(jacobian, color - formulas.inverted(network.flow, one, z))
            total += (
                torch.linalg.slogdet(jacobian).logabsdet.item() + (z.square() + math.log(2 * math.pi)).sum().item() / 2
            )
        found = model.encode(image).own_loss(coord, cell, target)
    assert model.has_own_loss and found.shape == ()
    assert found.item() == pytest.approx(total / 12, rel=1e-4)


def test_training_by_likelihood_moves_the_likeliest_color_to_the_true_one():
    torch.manual_seed(0)
    model = pixelwise().train()
    image = torch.rand(1, 3, 6, 6)
    coord, cell = _centers((12, 12))[None, ::2], torch.tensor([2 / 12, 2 / 12])
    target = 0.5 + 0.3 * torch.sin(5 * coord.sum(-1, keepdim=True) + torch.arange(3))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses, errors = [], []
    for _ in range(25):
        picture = model.encode(image)
        loss = picture.own_loss(coord, cell, target)
        with torch.no_grad():
            errors.append((picture.query(coord, cell) - target).abs().mean().item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 2 and errors[-1] < 0.6 * errors[0], (losses, errors)


def test_patches_have_no_objective():
    """Training draws single pixels, and the flow is one of whole patches."""
    assert not patchwise().has_own_loss


# Patches


@pytest.mark.parametrize("target", [(9, 12), (10, 12), (9, 13), (11, 14), (10, 13), (1, 2), (4, 2)], ids=str)
def test_the_published_edge_is_the_only_difference(formulas, target):
    """It is there where a single row or column of the last patches is in the picture."""
    features, image = random(1, 5, 4, 5), torch.rand(1, 3, 4, 5)
    model = patchwise(features)
    with torch.no_grad():
        ours = model.encode(image).render(target)
        published = formulas.decode_patches(model, features, image, target, published_edge=True)
    differs = (ours - published).abs().amax((0, 1)) > 1e-4
    expected = torch.zeros(target, dtype=torch.bool)
    expected[-1] |= target[0] % 3 == 1
    expected[:, -1] |= target[1] % 3 == 1
    assert torch.equal(differs, expected)


def test_patches_are_colors_of_one_query():
    """A change of the network for one position changes 3 x 3 pixels, which begin at multiples of 3."""
    model, image = patchwise(), torch.rand(1, 3, 6, 7)
    with torch.no_grad():
        picture = model.encode(image)
        before = picture.render((18, 21))
        picture.maps["waves"] = picture.maps["waves"].clone()
        picture.maps["waves"][:, 3 * 7 + 3] += 1  # a code, whose four neighbours around it are queried
        changed = (picture.render((18, 21)) - before).abs().amax((0, 1)) > 1e-6
    blocks = changed.unflatten(0, (-1, 3)).unflatten(2, (-1, 3)).transpose(1, 2)
    assert changed.any() and not changed.all()
    assert torch.equal(blocks.flatten(2).any(-1), blocks.flatten(2).all(-1))


@pytest.mark.parametrize("target", [(18, 21), (20, 50), (5, 6), (3, 7)], ids=str)
@pytest.mark.parametrize("graph", [False, True], ids=["rendered", "as in training"])
def test_points_at_pixels_have_their_colors(target, graph):
    model, image = patchwise(), torch.rand(2, 3, 6, 7)
    coord, cell = _centers(target).expand(2, -1, -1), torch.tensor([2 / side for side in target])
    with torch.set_grad_enabled(graph):
        picture = model.encode(image)
        whole = picture.render(target).flatten(2).mT
        expect_equal(picture.query(coord, cell), whole)
        some = torch.randperm(math.prod(target))[:9]
        expect_equal(picture.query(Query.points(coord[:1, some], cell)), whole[:, some])


def test_images_of_a_batch_may_have_different_cells():
    model, image, sizes = patchwise(), torch.rand(2, 3, 6, 7), [(12, 14), (20, 25)]
    coord = torch.stack([_centers(size)[torch.randperm(math.prod(size))[:30]] for size in sizes])
    cell = torch.tensor([[[2 / side for side in size]] for size in sizes])
    with torch.no_grad():
        found = model(image, coord, cell)
        for i in range(2):
            expect_equal(found[i, None], model(image[i, None], coord[i, None], cell[i]))


@pytest.mark.parametrize("most", [1, 7, 10**6])
def test_parts_of_a_grid_are_parts_of_the_whole(monkeypatch, most):
    """Chunks of patches, chunks that the caller asks for, and grids that begin within a patch or skip pixels."""
    model, image, target = patchwise(), torch.rand(2, 3, 6, 7), (14, 16)
    rows, columns = (_centers((side,))[:, 0] for side in target)
    cell = torch.tensor([2 / side for side in target])
    with torch.no_grad():
        picture = model.encode(image)
        whole = picture.render(target)
        monkeypatch.setattr("liif_zoo.linf_patch.PATCHES_AT_ONCE", most)
        expect_equal(picture.render_grid(rows, columns, cell), whole)
        expect_equal(picture.render_grid(rows, columns, cell, chunk_size=9 * 5), whole)
        for down, across in (
            (slice(1, 9), slice(2, 3)),
            (slice(5, 14, 4), slice(15, 16)),
            (slice(13, 14), slice(0, 16)),
        ):
            part = picture.query(Query.grid(rows[down], columns[across], cell)).permute(0, 3, 1, 2)
            expect_equal(part, whole[:, :, down, across])
        backwards = picture.render_grid(rows.flip(0), columns, cell)
        expect_equal(backwards, whole.flip(2))


def test_regions_are_parts_of_the_whole():
    model, image = patchwise(), torch.rand(1, 3, 10, 12)
    with torch.no_grad():
        picture = model.encode(image)
        whole = picture.render((40, 30))
        for region in ((0, 0, 10, 12), (1, 2, 4, 8), (2.5, 0.4, 9.75, 8.8)):
            top, left, bottom, right = (round(v * f) for v, f in zip(region, (4, 2.5, 4, 2.5)))
            part = picture.render((bottom - top, right - left), region)
            torch.testing.assert_close(part, whole[:, :, top:bottom, left:right], rtol=0, atol=1e-5)


def test_a_region_between_the_pixels_is_the_grid_moved():
    """By half a pixel and less: then each pixel of the region has its own place, from the whole image's corner."""
    model, image = patchwise(), torch.rand(1, 3, 10, 12)
    rows, columns = (_centers((side,))[:, 0] for side in (30, 36))
    cell = torch.tensor([2 / 30, 2 / 36])
    with torch.no_grad():
        picture = model.encode(image)
        for shift in (0.3, -0.3, 0.5):
            moved = rows + shift * cell[0]
            together = picture.render_grid(moved, columns, cell)
            for chunk in (slice(0, 4), slice(4, 30)):
                expect_equal(picture.render_grid(moved[chunk], columns, cell), together[:, :, chunk])
            assert together.isfinite().all() and (together - picture.render((30, 36))).abs().max() > 1e-3


def test_points_between_pixels_are_refused():
    picture = patchwise().encode(torch.rand(1, 3, 6, 7))
    said = "coord: 'linf-patch' renders the pixels of a grid, and no points between them"
    coord, cell = _centers((12, 14))[None], torch.tensor([2 / 12, 2 / 14])
    picture.query(coord, cell)
    for wrong in (coord + 0.1 * cell, coord[:, :5] - 0.5 * cell, torch.rand(1, 97, 2) * 2 - 1):
        with pytest.raises(ValueError, match=said):
            picture.query(wrong, cell)


def test_scales_refused():
    model = patchwise()
    picture = model.encode(torch.rand(1, 3, 8, 12))
    model.check_scale((8, 12), (2, 300))
    assert picture.render((2, 3)).shape == (1, 3, 2, 3)
    said = "scale: 'linf-patch' shrinks an image up to 4 times, got x0.125"
    for refused in (
        lambda: model.check_scale((8, 12), (1, 12)),
        lambda: picture.render((1, 12)),
        lambda: picture.query(torch.zeros(1, 1, 2), torch.tensor([2.0, 2 / 13])),
        lambda: model.upscale(torch.rand(3, 8, 12), width=12, height=1),
    ):
        with pytest.raises(ValueError, match=said):
            refused()
    with pytest.raises(ValueError, match="cell: expected numbers above 0, got -0.2"):
        picture.query(torch.zeros(1, 1, 2), torch.tensor([0.2, -0.2]))


@pytest.mark.parametrize("channels", [1, 3])
def test_an_ensemble_of_orientations(channels):
    """Turned images have patches that begin at their own corner."""
    model, image = patchwise(channels=channels), torch.rand(1, channels, 6, 7)
    with torch.no_grad():
        found = SelfEnsemble(model, 4).encode(image).render((20, 23))
        expected = [
            model.encode(image.rot90(k, (2, 3))).render((20, 23) if k % 2 == 0 else (23, 20)).rot90(-k, (2, 3))
            for k in range(4)
        ]
    torch.testing.assert_close(found, torch.stack(expected).mean(0), rtol=0, atol=1e-4)


# Tiles


@pytest.mark.parametrize("make", [pixelwise, patchwise])
@pytest.mark.parametrize("target", [(60, 80), (101, 133), (21, 27), (8, 140)], ids=str)
@torch.no_grad()
def test_tiles_are_the_whole_image(make, target):
    model, image, parts = make(), torch.rand(1, 3, 30, 40), []
    whole = model.encode(image).render(target)

    def read(rows, columns):
        parts.append((rows, columns))
        return image[:, :, rows, columns]

    bands = list(render_bands(model, read, (30, 40), target, TilePlan((8, 12), 11, model.halo, 0)))
    assert len(parts) >= 6 and any(rows.stop - rows.start < 30 for rows, _ in parts)
    torch.testing.assert_close(torch.cat(bands, dim=2), whole, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_tile_of_a_region_in_the_middle():
    """Where tiles have cuts on all sides, for the smallest scale and a large one."""
    model = patchwise()
    halo = model.halo
    size = 2 * halo + 14, 2 * halo + 17
    image = torch.rand(1, 3, *size)
    whole, tile = model.encode(image), None
    cut = (5, 4, 5 + 2 * halo + 5, 4 + 2 * halo + 6)
    tile = model.encode(image[:, :, cut[0] : cut[2], cut[1] : cut[3]], liif_core.TilePlacement(size, cut[0], cut[1]))
    for factor in (0.25, 1, 3.3):
        target = tuple(math.ceil(side * factor) for side in size)
        axes = []
        for side, own, first, last in zip(target, size, cut[:2], cut[2:]):
            axis = _centers((side,))[:, 0]
            place = (axis + 1) / 2 * own
            axes.append(axis[(place >= first + halo) & (place <= last - halo)])
        cell = torch.tensor([2 / side for side in target])
        assert min(map(len, axes)) > 0
        found, expected = (picture.render_grid(*axes, cell) for picture in (tile, whole))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


# What is refused


@pytest.mark.parametrize(
    "options, said",
    [
        ({"width": 7}, "width: expected an even number from 2, got 7"),
        ({"layers": 0}, "layers: must be >= 1"),
        ({"flow_layers": 0}, "flow_layers: must be >= 1"),
    ],
)
def test_options_refused(registry, options, said):
    parts = {
        "encoder": {"use": "edsr"}, "features": {"use": "identity"}, "sampling": {"use": "local-ensemble"},
        "decoder": {"use": "linf", **options},
    }  # fmt: skip
    with pytest.raises(UserError, match=f"^test: model.decoder.{said}"):
        model_from_table(parts, registry, "test")
    with pytest.raises(UserError, match=f"^test: model.{said}"):
        model_from_table({"use": "linf-patch", **options}, registry, "test")


@pytest.mark.parametrize(
    "conditioning, said",
    [(["coordinate"], "decoder 'linf' needs 'cell'"), (["cell"], "decoder 'linf' needs 'coordinate'")],
)
def test_conditions_refused(conditioning, said):
    parts = {"encoder": "edsr", "features": "identity", "sampling": "local-ensemble", "decoder": "linf"}
    with pytest.raises(UserError, match=said):
        liif_core.compose({**parts, "conditioning": conditioning})


# Import


def checkpoint(tmp_path, name="linf", change=lambda model: None):
    """A small file in the published form; every parameter has other numbers."""
    torch.manual_seed(0)
    width, size = 6, 27 if name == "linf-patch" else 3
    shapes = {"coef": (width, 4, 3, 3), "freq": (width, 4, 3, 3), "encoder.head.0": (4, 3, 3, 3)}
    shapes |= {f"encoder.body.{part}": (4, 4, 3, 3) for part in ("0.body.0", "0.body.2", "1")}
    shapes |= {"layers.0": (width, 4 * width, 1, 1), "layers.2": (2 * 2 * size, width, 1, 1)}
    state = {f"{key}.weight": torch.randn(shape) for key, shape in shapes.items()}
    state |= {f"{key}.bias": torch.randn(shape[0]) for key, shape in shapes.items()}
    state["phase.weight"] = torch.randn(width // 2, 2)
    for layer in ("linears.0", "linears.1", "last"):
        state |= {f"imnet.{layer}._weight": torch.randn(size, size), f"imnet.{layer}.bias": torch.randn(size)}
    arguments = {
        "encoder_spec": {"name": "edsr-baseline", "args": {"n_resblocks": 1, "n_feats": 4, "no_upsampling": True}},
        "imnet_spec": {"name": "flow", "args": {"name": "flow"}},
        "flow_layers": 2, "num_layer": 1, "hidden_dim": width,
    }  # fmt: skip
    model = {"name": name, "args": arguments | ({"patch_size": 3} if name == "linf-patch" else {}), "sd": state}
    change(model)
    torch.save({"model": model}, tmp_path / "published.pth")
    return tmp_path / "published.pth", state


@pytest.mark.parametrize("name, ours", [("linf", "decoder.network"), ("linf-patch", "network")])
def test_every_published_number_has_its_place(registry, tmp_path, name, ours):
    path, state = checkpoint(tmp_path, name)
    found = liif_core.load_checkpoint(path, registry).state
    numbers = [torch.cat([value.flatten() for value in values.values()]).sort().values for values in (found, state)]
    assert torch.equal(*numbers)
    assert torch.equal(found[f"{ours}.flow.linears.2.weight"], state["imnet.last._weight"])
    assert torch.equal(found[f"{ours}.flow.linears.1.bias"], state["imnet.linears.1.bias"])
    assert torch.equal(found[f"{ours}.layers.0.weight"], state["layers.0.weight"].flatten(1))
    assert liif_core.load(path).upscale(torch.rand(3, 4, 4), 2).shape == (3, 8, 8)


def set_argument(**values):
    return lambda model: model["args"].update(values)


@pytest.mark.parametrize("name, ours", [("linf", "decoder.network"), ("linf-patch", "network")])
@pytest.mark.parametrize(
    "change, said",
    [
        (lambda model: model["sd"].pop("imnet.last._weight"), "no weights for {ours}.flow.linears.2.weight$"),
        (lambda model: model["sd"].pop("phase.weight"), "no weights for {ours}.phase.weight$"),
        (
            lambda model: model["sd"].update({"imnet.linears.2.bias": torch.zeros(3)}),
            "LINF has no parameter for 'imnet",
        ),
        (
            lambda model: model["sd"].update({"imnet.last.bias": torch.zeros(4)}),
            "{ours}.flow.linears.2.bias is \\(4,\\)",
        ),
        (set_argument(hidden_dim=8), "{ours}.coefficient.weight is"),
        (set_argument(num_layer=2), "no weights for {ours}.layers.2"),
        (set_argument(flow_layers=10**9), "flow_layers is 1000000000|LINF of 1,000,000,001 layers or more"),
        (set_argument(imnet_spec={"name": "mlp", "args": {}}), "imnet 'mlp': only 'flow' is known"),
    ],
)
def test_import_refuses(tmp_path, name, ours, change, said):
    path, _ = checkpoint(tmp_path, name, change)
    with pytest.raises(UserError, match=said.format(ours=ours)):
        liif_core.load(path)


def test_import_of_other_patches(registry, tmp_path):
    path, _ = checkpoint(tmp_path, "linf-patch", set_argument(patch_size=5))
    with pytest.raises(UserError, match="patch_size: only patches of 3 x 3 pixels are known, got 5"):
        liif_core.load(path)
    importer = registry.importer("model", "linf-patch")
    arguments = {"encoder_spec": {"name": "rrdb"}, "imnet_spec": {"name": "flow"}}
    with pytest.raises(ValueError, match="the encoder of 'linf-patch' is EDSR here, got 'rrdb'"):
        importer.convert(arguments, {}, lambda spec, part: ({"use": "rrdb"}, part))
