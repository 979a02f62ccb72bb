"""OPE-SR against its formula written out, and against outputs of the published code."""

import math

import pytest
import torch
import torch.nn.functional as F
from formulas import Given, expect_colors, expect_gradients, random
from reference import centers
from reference_outputs import expect_the_same_once_saved, formulas_of, outputs_of

import liif_core
from liif_core import UserError
from liif_core.experiment.toml_file import model_from_table
from liif_core.model.tile_plan import TilePlan
from liif_core.model.tiling import render_bands
from liif_core.testing import DecoderContract, FeaturesContract
from liif_zoo.opesr import basis, liif_importers

COORDINATE, CELL = {"use": "coordinate"}, {"use": "cell"}
GRIDS = ["x2", "x3.3", "aniso"]


OTHER_CODES = {"options_defaults": "the default max_freq needs codes of another width"}


class TestContract(DecoderContract):
    component = "liif-core:opesr"
    in_channels = 147
    conditions = {"coordinate": 2}
    has_parameters = False


class TestOneCodeOfOneColor(DecoderContract):
    component = "liif-core:opesr"
    options = {"max_freq": 2}
    in_channels = 25
    out_channels = 1
    neighbours = 1
    conditions = {"coordinate": 2}
    has_parameters = False
    expected_failures = OTHER_CODES


class TestConstantsOnly(DecoderContract):
    component = "liif-core:opesr"
    options = {"max_freq": 0}
    in_channels = 3
    conditions = {"coordinate": 2}
    has_parameters = False
    expected_failures = OTHER_CODES


class TestProjection(FeaturesContract):
    component = "liif-core:projection"
    options = {"channels": 9}


@pytest.fixture(scope="module")
def formulas():
    return formulas_of("opesr")


def table(max_freq=2, width=None, sampling="local-ensemble", conditioning=(COORDINATE,), channels=3):
    """With ``width``, features of that many channels and the projection; else the encoder gives the coefficients."""
    coefficients = channels * (2 * max_freq + 1) ** 2
    projected = {"use": "projection", "channels": coefficients}
    return {
        "channels": channels,
        "encoder": {"use": "edsr", "blocks": 1, "channels": width or coefficients},
        "features": projected if width else {"use": "identity"},
        "sampling": {"use": sampling},
        "conditioning": list(conditioning),
        "decoder": {"use": "opesr", "max_freq": max_freq},
    }


def built(registry, **variant):
    torch.manual_seed(0)
    return liif_core.build_model(model_from_table(table(**variant), registry, "test")).eval()


# The formula


@pytest.mark.parametrize("graph", [False, True], ids=["rendered", "as in training"])
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 6)], ids=str)
@pytest.mark.parametrize("max_freq", [0, 1, 3])
def test_written_out(registry, formulas, max_freq, size, graph):
    features = random(2, 3 * (2 * max_freq + 1) ** 2, *size)
    model = built(registry, max_freq=max_freq)
    model.encoder = Given(features)
    expect_colors(
        model, features, lambda model, codes, coord, cell: formulas.colors(model.decoder, codes, coord), graph
    )


@pytest.mark.parametrize("graph", [False, True], ids=["rendered", "as in training"])
def test_projection_written_out(registry, formulas, graph):
    features = random(2, 5, 4, 6)
    model = built(registry, width=5)
    model.encoder = Given(features)
    expect_colors(model, features, lambda *given: projected(formulas, *given), graph)


def projected(formulas, model, features, coord, cell):
    layer = model.features.layer
    return formulas.colors(model.decoder, F.conv2d(features, layer.weight, layer.bias, padding=1), coord)


def test_gradients_are_those_of_the_formula(registry, formulas):
    features = random(2, 75, 4, 5).requires_grad_()
    model = built(registry)
    model.encoder = Given(features)
    expect_gradients(model, features, lambda model, codes, coord, cell: formulas.colors(model.decoder, codes, coord))


def test_gradients_of_the_projection(registry, formulas):
    features = random(2, 5, 4, 5)
    model = built(registry, width=5)
    model.encoder = Given(features)
    coord = torch.rand(2, 40, 2, generator=torch.Generator().manual_seed(3)) * 2 - 1
    learned = list(model.features.parameters())
    colors = model(torch.zeros(2, 3, 4, 5), coord, torch.ones(2)) * 2 - 1
    found = torch.autograd.grad(colors.square().sum(), learned)
    expected = torch.autograd.grad(projected(formulas, model, features, coord, None).square().sum(), learned)
    for ours, plain in zip(found, expected):
        torch.testing.assert_close(ours, plain, rtol=0, atol=1e-4 * plain.abs().max().item())


@pytest.mark.parametrize("size", [(12, 15), (13, 31)], ids=str)
def test_the_benchmark_decodes_alike(registry, formulas, size):
    model, image = built(registry, width=5), torch.rand(2, 3, 6, 9, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = formulas.decode(model, model.encoder(image * 2 - 1), image, size, chunk=100)
        torch.testing.assert_close(model.encode(image).render(size), plain, rtol=0, atol=1e-6)


def test_functions_are_orthonormal_over_two_codes():
    """Their period is 4: from -2 to 2, the span of the codes that the four corners can be from."""
    count = 64
    values = basis((torch.arange(count) + 0.5) * (4 / count) - 2, 3)
    torch.testing.assert_close(values.T @ values / count, torch.eye(7), rtol=0, atol=1e-5)


def test_a_series_is_read_in_the_published_order(registry):
    """Color by color, functions of y before functions of x: at the nearest code alone, one coefficient at a time."""
    model = built(registry, max_freq=1, sampling="nearest")
    y, x = 0.4, -0.7
    waves = [lambda t: 1, lambda t: 2**0.5 * math.cos(math.pi * t / 2), lambda t: 2**0.5 * math.sin(math.pi * t / 2)]
    for color in range(3):
        for down in range(3):
            for across in range(3):
                features = torch.zeros(1, 27, 1, 1)
                features[0, color * 9 + down * 3 + across] = 1
                model.encoder = Given(features)
                found = model(torch.zeros(1, 3, 1, 1), torch.tensor([[[y, x]]]), torch.ones(2))[0, 0] * 2 - 1
                expected = torch.zeros(3)
                expected[color] = waves[down](y) * waves[across](x)
                torch.testing.assert_close(found.detach(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(21, 45), (28, 36), (24, 30)], ids=str)
def test_pixel_grids_are_those_of_the_formula(registry, size):
    """Also in the last row and column of an odd scale, where areas vanish."""
    model, features = built(registry), random(1, 75, 7, 9)
    model.encoder = Given(features)
    with torch.enable_grad():
        expected = model.encode(torch.zeros(1, 3, 7, 9)).render(size).detach()
    with torch.no_grad():
        found = model.encode(torch.zeros(1, 3, 7, 9)).render(size)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6 * expected.abs().max().item())


@torch.no_grad()
def test_pixel_grids_are_not_decoded_query_by_query(registry, monkeypatch):
    model = built(registry)

    def fails(*arguments):
        raise AssertionError("decoded query by query")

    monkeypatch.setattr(model.decoder, "decode", fails)
    assert model.encode(torch.rand(1, 3, 7, 9)).render((28, 36)).shape == (1, 3, 28, 36)


def test_cells_have_no_effect(registry):
    picture = built(registry).encode(torch.rand(1, 3, 5, 6))
    coord = torch.rand(1, 40, 2) * 2 - 1
    assert torch.equal(picture.query(coord, torch.rand(1, 40, 2)), picture.query(coord, torch.ones(2)))


def test_functions_are_of_single_precision_under_autocast():
    offset = torch.rand(50) * 4 - 2
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(basis(offset, 3), basis(offset, 3).float()) and basis(offset, 3).dtype == torch.float32
        under = basis(offset, 3)
    assert torch.equal(under, basis(offset, 3))


@pytest.mark.parametrize("width", [None, 4], ids=["OPE-net", "OPE-net-adapt"])
@torch.no_grad()
def test_tiles_are_parts_of_the_whole(registry, width):
    model, image = built(registry, max_freq=1, width=width), torch.rand(1, 3, 30, 40)
    parts = []

    def read(rows, columns):
        parts.append((rows, columns))
        return image[:, :, rows, columns]

    bands = list(render_bands(model, read, (30, 40), (75, 120), TilePlan((10, 20), 20, model.halo, 0)))
    assert len(parts) == 6 and (slice(0, 30), slice(0, 40)) not in parts
    expected = model.encode(image).render((75, 120))
    torch.testing.assert_close(torch.cat(bands, dim=2), expected, rtol=0, atol=1e-5)


def test_it_has_no_parameters(registry):
    assert not list(built(registry).decoder.parameters())
    component, _ = registry.find("decoder", "opesr")
    assert component.options().max_freq == 3 and component.describe(component.options()) == "OPE-SR n=3"


# The published code


@pytest.fixture(scope="module", params=["opesr", "opesr-adapt"])
def golden(request, shared):
    return outputs_of(shared, request.param)


@pytest.mark.parametrize("graph", [False, True], ids=["rendered", "as in training"])
def test_published_outputs(golden, graph):
    path, data = golden
    model = liif_core.load(path).requires_grad_(graph)
    with torch.set_grad_enabled(graph):
        picture = model.encode(data["inp"])
        torch.testing.assert_close(picture.field.features.detach(), data["feat"], rtol=0, atol=1e-5)
        for grid in GRIDS:
            colors = picture.render(tuple(data[f"size_{grid}"].tolist())).detach() * 2 - 1
            torch.testing.assert_close(colors, data[f"out_{grid}"], rtol=0, atol=2e-5)
        points = picture.query(data["coord_pts"], data["cell_pts"]).detach() * 2 - 1
        torch.testing.assert_close(points, data["out_pts"], rtol=0, atol=2e-5)


def test_the_same_once_saved_as_ours(golden, registry, tmp_path):
    path, data = golden
    expect_the_same_once_saved(path, data, GRIDS, registry, tmp_path)


# Import


def published(adapted=False, max_freq=1):
    """A state dict under the published names, with an encoder of one parameter."""
    state = {"srnet.head.0.weight": torch.zeros(2)}
    if adapted:
        for number, color in enumerate("RGB"):
            state[f"adapt_{color}.weight"] = torch.full(((2 * max_freq + 1) ** 2, 2, 3, 3), float(number))
            state[f"adapt_{color}.bias"] = torch.full(((2 * max_freq + 1) ** 2,), 10.0 + number)
    return state


def imported(state, name="OPE-net", max_freq=1, encoder_name="adaptive-edsr-baseline"):
    def encoder(spec, part):
        assert spec == {"name": encoder_name.removeprefix("adaptive-"), "args": {"n_feats": 2}}
        return {"use": "e"}, {"first": part["head.0.weight"]}

    (importer,) = (importer for importer in liif_importers() if importer.name == name)
    arguments = {"max_freq": max_freq, "srnet_spec": {"name": encoder_name, "args": {"n_feats": 2}}}
    return importer.convert(arguments, state, encoder)


def test_import_of_published_names():
    parts, new = imported(published(), encoder_name="rdn")
    assert parts["decoder"] == {"use": "opesr", "max_freq": 1} and parts["features"] == {"use": "identity"}
    assert "residual" not in parts and new.keys() == {"encoder.first"}
    parts, new = imported(published(adapted=True), "OPE-net-adapt")
    assert parts["features"] == {"use": "projection", "channels": 27}
    assert new.keys() == {"encoder.first", "features.layer.weight", "features.layer.bias"}
    assert new["features.layer.bias"].tolist() == [10.0] * 9 + [11.0] * 9 + [12.0] * 9
    assert new["features.layer.weight"][:, 1, 2, 0].tolist() == [0.0] * 9 + [1.0] * 9 + [2.0] * 9


@pytest.mark.parametrize(
    "change, name, said",
    [
        ({"adapt_R.weight": torch.zeros(1)}, "OPE-net", "OPE-SR has no parameter for 'adapt_R.weight'"),
        ({"adapt_G.bias": None}, "OPE-net-adapt", "OPE-SR has a parameter 'adapt_G.bias', which is missing"),
        ({"imnet.weight": torch.zeros(1)}, "OPE-net-adapt", "OPE-SR has no parameter for 'imnet.weight'"),
    ],
)
def test_import_refused(change, name, said):
    state = {**published(adapted=name == "OPE-net-adapt"), **change}
    with pytest.raises(ValueError, match=said):
        imported({key: value for key, value in state.items() if value is not None}, name)


def test_a_file_of_another_size_is_refused(registry, tmp_path):
    """Its encoder gives 5 channels where its series has 27 coefficients."""
    model = built(registry, max_freq=1, width=5)
    names = {"head": "head.0", "blocks.0.first": "body.0.body.0", "blocks.0.second": "body.0.body.2", "tail": "body.1"}
    state = {}
    for name, value in model.encoder.state_dict().items():
        layer, _, part = name.rpartition(".")
        state[f"srnet.{names[layer]}.{part}"] = value
    spec = {"name": "adaptive-edsr-baseline", "args": {"n_resblocks": 1, "n_feats": 5}}
    path = tmp_path / "published.pth"
    torch.save({"model": {"name": "OPE-net", "args": {"max_freq": 1, "srnet_spec": spec}, "sd": state}}, path)
    with pytest.raises(UserError, match=r"max_freq 1 needs codes of 3 x 3\^2 = 27 channels, got 5"):
        liif_core.load(path)


# What is refused


@pytest.mark.parametrize("given, said", [({"max_freq": -1}, "max_freq: must be >= 0"), ({"max_freq": 1.5}, "max_freq")])
def test_options_refused(registry, given, said):
    changed = table()
    changed["decoder"] |= given
    with pytest.raises(UserError, match=f"^test: model.decoder.{said}"):
        model_from_table(changed, registry, "test")


def test_a_condition_that_is_not_used_is_refused(registry):
    with pytest.raises(UserError, match="expected 'coordinate' of width 2; 'cell' would have no effect$"):
        built(registry, conditioning=(COORDINATE, CELL))


def test_codes_of_another_width_are_refused(registry):
    changed = table()
    changed["encoder"]["channels"] = 64
    with pytest.raises(UserError, match=r"'opesr'.*max_freq 2 needs codes of 3 x 5\^2 = 75 channels, got 64: give the"):
        liif_core.build_model(model_from_table(changed, registry, "test"))


def test_gray_images(registry, formulas):
    model, features = built(registry, channels=1), random(1, 25, 4, 5)
    model.encoder = Given(features)
    with torch.no_grad():
        found = model.encode(torch.zeros(1, 1, 4, 5)).render((8, 10))
        expected = formulas.colors(model.decoder, features, centers(8, 10).reshape(1, -1, 2))
    torch.testing.assert_close(found.flatten(2).mT * 2 - 1, expected, rtol=0, atol=1e-5)
