"""LTE and LTE+ against their formula written out, one corner and one wave at a time."""

import math

import pytest
import torch
import torch.nn.functional as F
from formulas import Given, expect_same, neighbours, random
from reference import centers, mlp, nearest
from torch import nn

import liif_core
from liif_core import Component, NoOptions, Sites
from liif_core.experiment.toml_file import model_from_table
from liif_core.nn import fourier_features, y_then_x
from liif_core.registry.components import Origin
from liif_core.sizes import Scale, scaled_size
from liif_zoo.lte import LTE, LTEOptions, liif_importers

COORDINATE, CELL = {"use": "coordinate"}, {"use": "cell"}


def table(conditioning=(COORDINATE, CELL), **options):
    return {
        "encoder": {"use": "edsr", "blocks": 1, "channels": 5},
        "features": {"use": "identity"},
        "sampling": {"use": "local-ensemble"},
        "conditioning": list(conditioning),
        "decoder": {"use": "liif-core:lte", **options},
    }


def composed(registry, features, **options):
    torch.manual_seed(0)
    model = liif_core.build_model(model_from_table(table(**options), registry, "test"))
    model.encoder = Given(features)
    return model.eval()


def answer(decoder, features, coord, cell):
    """(B, N, out) of features (B, C, h, w), coordinates and cells (B, N, 2)."""
    size = tuple(features.shape[-2:])
    coefficients = F.conv2d(features, decoder.coefficient.weight, decoder.coefficient.bias, padding=1)
    frequencies = F.conv2d(features, decoder.frequency.weight, decoder.frequency.bias, padding=1)
    phases = (cell * torch.tensor(size)) @ decoder.phase.weight.T
    layers = [(layer.weight, layer.bias) for layer in decoder.layers]
    total = 0
    for place, offset, weight in neighbours(coord, size):
        frequency = nearest(frequencies, place)
        waves = []
        for i in range(phases.shape[-1]):
            along = frequency[..., 2 * i] * offset[..., 0] + frequency[..., 2 * i + 1] * offset[..., 1]
            waves.append(math.pi * (along + phases[..., i]))
        values = torch.stack([z.cos() for z in waves] + [z.sin() for z in waves], dim=-1)
        total = total + mlp(layers, nearest(coefficients, place) * values) * weight.unsqueeze(-1)
    return total


@pytest.mark.parametrize("graph", [False, True], ids=["rendered", "as in training"])
@pytest.mark.parametrize("hidden", [(), (12, 10)], ids=str)
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 1), (5, 6)], ids=str)
def test_written_out(registry, size, hidden, graph):
    features = random(2, 5, *size)
    model = composed(registry, features, channels=8, hidden=list(hidden))
    with torch.set_grad_enabled(graph):
        picture = model.encode(torch.zeros(2, 3, *size))
        for scale in (0.7, 1, 2, 3.3, 6, (0.7, 4.1)):
            target = scaled_size(size, Scale.of(scale))
            coord = centers(*target).reshape(1, -1, 2).expand(2, -1, 2)
            output = answer(model.decoder, features, coord, torch.tensor([2 / n for n in target]).expand_as(coord))
            expect_same(picture.render(target).flatten(2).mT, output)
        generator = torch.Generator().manual_seed(2)
        coord = torch.rand(2, 60, 2, generator=generator) * 2.6 - 1.3  # some beyond the border
        cell = torch.rand(2, 60, 2, generator=generator)  # each its own
        expect_same(picture.query(coord, cell), answer(model.decoder, features, coord, cell))


def test_gradients_are_those_of_the_formula(registry):
    features = random(1, 5, 4, 5).requires_grad_()
    model = composed(registry, features, channels=8, hidden=[12])
    coord, cell = torch.rand(1, 40, 2) * 2 - 1, torch.rand(1, 40, 2)
    learned = [features, *model.decoder.parameters()]
    found = torch.autograd.grad((model(torch.zeros(1, 3, 4, 5), coord, cell) * 2 - 1).square().sum(), learned)
    expected = torch.autograd.grad(answer(model.decoder, features, coord, cell).square().sum(), learned)
    for fast, slow in zip(found, expected):
        torch.testing.assert_close(fast, slow, rtol=0, atol=1e-4 * slow.abs().max().item())


def test_one_query_by_hand():
    """One neighbour, no hidden layer: sums that fit on a line."""
    module = LTE(LTEOptions(channels=4, hidden=()), 3, 1, {"coordinate": 2, "cell": 2}, 1)
    pairs, coefficients = torch.tensor([0.3, -0.2, 0.5, 0.7]), [1.0, 2.0, -1.0, 0.5]
    (y, x), cell = (0.4, -0.9), torch.tensor([0.5, 0.25])
    maps = {"frequency": y_then_x(pairs).view(1, 1, 4), "coefficient": torch.tensor(coefficients).view(1, 1, 4)}
    sites = Sites(torch.zeros(1, 1, 1, dtype=torch.int64), torch.tensor([y, x]).view(1, 1, 1, 2), torch.ones(1, 1, 1))
    with torch.no_grad():
        found = module.decode(maps, sites, {"coordinate": sites.offset, "cell": cell.view(1, 1, 1, 2)}).item()
    one, two = (module.phase.weight.detach() @ cell).tolist()
    one, two = (math.pi * (one + 0.3 * y - 0.2 * x), math.pi * (two + 0.5 * y + 0.7 * x))
    token = [c * w for c, w in zip(coefficients, (math.cos(one), math.cos(two), math.sin(one), math.sin(two)))]
    weights, bias = module.layers[0].weight[0].tolist(), module.layers[0].bias.item()
    assert found == pytest.approx(sum(w * t for w, t in zip(weights, token)) + bias, abs=1e-6)


def test_frequencies_by_axis():
    assert y_then_x(torch.tensor([1, -1, 2, -2, 3, -3])).tolist() == [1, 2, 3, -1, -2, -3]
    rows = torch.arange(24).view(2, 6, 2)
    expected = [[row[0], row[2], row[4], row[1], row[3], row[5]] for row in rows.tolist()]
    assert y_then_x(rows, dim=1).tolist() == expected
    assert torch.equal(y_then_x(rows.mT, dim=-1), torch.tensor(expected).mT)


def test_angles_are_of_single_precision_always():
    """Of maps in half precision too, as autocast makes them: else the angle of a high frequency would be any angle."""
    torch.manual_seed(0)
    amplitude, frequency = torch.rand(50, 8).bfloat16(), (torch.rand(50, 8) * 100).bfloat16()
    offset, phase = torch.rand(50, 2) * 2 - 1, torch.rand(50, 4)
    y, x = frequency.double().chunk(2, dim=-1)
    angle = math.pi * (y * offset[:, :1] + x * offset[:, 1:] + phase)
    expected = amplitude.double() * torch.cat([angle.cos(), angle.sin()], dim=-1)
    with torch.autocast("cpu", torch.bfloat16):
        found = fourier_features(amplitude, frequency, offset, phase)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=5e-4)


def test_the_phase_is_of_single_precision_under_autocast(registry):
    """With weights that make an angle of thousands of turns of it."""
    model = composed(registry, random(1, 5, 4, 5), channels=8, hidden=[16])
    model.decoder.requires_grad_(False).phase.weight.mul_(1000)
    picture = model.encode(torch.zeros(1, 3, 4, 5))
    coord, cell = torch.rand(1, 40, 2) * 2 - 1, torch.rand(1, 40, 2)
    expected = picture.query(coord, cell)
    with torch.autocast("cpu", torch.bfloat16):
        found = picture.query(coord, cell)
    assert 0 < (found - expected).abs().max() < 0.02 * (expected - 0.5).abs().max()


# What is refused


@pytest.mark.parametrize("channels", [0, 1, 7, -2])
def test_channels_are_two_a_wave(registry, channels):
    with pytest.raises(liif_core.UserError, match=f"decoder.channels: expected an even number from 2.*got {channels}"):
        model_from_table(table(channels=channels), registry, "test")


def test_widths_refused(registry):
    with pytest.raises(liif_core.UserError, match="decoder.hidden: must be >= 1"):
        model_from_table(table(hidden=[8, 0]), registry, "test")


class OtherCondition(nn.Module):
    channels, scope = 3, "query"


@pytest.mark.parametrize(
    "conditioning, said",
    [
        ([COORDINATE], r"decoder 'liif-core:lte' needs 'cell' \(given: coordinate\).*use = \"cell\""),
        ([{"use": "liif-core:cell"}], r"needs 'coordinate' \(given: cell\)"),
        ([COORDINATE, {"use": "other:cell"}], "expected 'coordinate' of width 2, 'cell' of width 2; 'cell' is 3 wide$"),
        ([COORDINATE, {"use": "liif-core:cell"}, {"use": "depth"}], "; 'depth' would have no effect$"),
    ],
)
def test_conditions_refused(registry, conditioning, said):
    components = [Component(name, lambda options: OtherCondition(), NoOptions) for name in ("cell", "depth")]
    other = registry.with_plugin(Origin("other = other", "other", "1.0"), {"conditioning": components})
    with pytest.raises(liif_core.UserError, match=said):
        liif_core.build_model(model_from_table(table(conditioning), other, "test"))


# Import

LTE_ARGUMENTS = {"encoder_spec": {"name": "e"}, "imnet_spec": {"name": "mlp", "args": {"hidden_list": [8, 6]}}}
PLUS_ARGUMENTS = {"encoder_spec": {"name": "e"}}


def imported(name, arguments, state):
    (importer,) = [importer for importer in liif_importers() if importer.name == name]
    return importer.convert(arguments, state, lambda spec, part: ({"use": spec["name"]}, part))


@pytest.mark.parametrize(
    "name, arguments, width, hidden, channels",
    [
        ("lte", LTE_ARGUMENTS, 256, [8, 6], 3),
        ("lte", LTE_ARGUMENTS | {"hidden_dim": 32}, 32, [8, 6], 3),
        ("lte-fast", PLUS_ARGUMENTS, 256, [256] * 3, 3),
        ("lte-fast", PLUS_ARGUMENTS | {"hidden_dim": 32, "num_layer": 2, "out_dim": 1}, 32, [32, 32], 1),
    ],
)
def test_import_of_arguments(name, arguments, width, hidden, channels):
    parts, _ = imported(name, arguments, {})
    assert parts["decoder"] == {"use": "lte", "channels": width, "hidden": hidden}
    assert (parts["encoder"], parts["channels"], parts["residual"]) == ({"use": "e"}, channels, "bilinear")
    assert parts["conditioning"] == [COORDINATE, CELL]  # their evaluations tell at most x4; their networks do not


@pytest.mark.parametrize(
    "name, layers, arguments", [("lte", "imnet.layers", LTE_ARGUMENTS), ("lte-fast", "layers", PLUS_ARGUMENTS)]
)
def test_import_of_published_names(name, layers, arguments):
    names = {
        "coef.weight": "decoder.coefficient.weight",
        "coef.bias": "decoder.coefficient.bias",
        "phase.weight": "decoder.phase.weight",
        f"{layers}.0.weight": "decoder.layers.0.weight",
        f"{layers}.4.bias": "decoder.layers.2.bias",
        "encoder.x": "encoder.x",
    }
    state = {published: torch.full((2, 2), float(number)) for number, published in enumerate(names)}
    _, new = imported(name, arguments, state)
    assert new == {ours: state[published] for published, ours in names.items()}


@pytest.mark.parametrize("name, arguments", [("lte", LTE_ARGUMENTS), ("lte-fast", PLUS_ARGUMENTS)])
def test_import_refuses_an_unknown_parameter(name, arguments):
    owner = {"lte": "LTE", "lte-fast": r"LTE\+"}[name]
    for unknown in ("conv.weight", "imnet.layers.1.weight" if name == "lte" else "imnet.layers.0.weight"):
        with pytest.raises(ValueError, match=f"{owner} has no parameter for '{unknown}'"):
            imported(name, arguments, {unknown: torch.zeros(1)})


def test_import_refuses_another_network():
    with pytest.raises(ValueError, match="imnet 'siren': only 'mlp' is known"):
        imported("lte", LTE_ARGUMENTS | {"imnet_spec": {"name": "siren", "args": {}}}, {})
