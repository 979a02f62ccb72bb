"""The decoder of separable functions against its formula written out, for each corner, function and color."""

import math

import pytest
import torch
import torch.nn.functional as F
from formulas import Given, expect_colors, expect_gradients, expect_same, neighbours, random
from reference import centers, nearest, unfolded
from torch import nn

import liif_core
from liif_core import Component, NoOptions
from liif_core.experiment.toml_file import model_from_table
from liif_core.registry.components import Origin
from liif_core.testing import DecoderContract

COORDINATE, CELL = {"use": "coordinate"}, {"use": "cell"}
SMALL = {"functions": 3, "latent": [7], "axis": [6], "modulation": 5}


class TestContract(DecoderContract):
    component = "liif-core:basis"
    options = SMALL


class TestWithoutCell(DecoderContract):
    component = "liif-core:basis"
    options = {"functions": 2, "latent": [9, 7], "axis": [6, 5]}
    conditions = {"coordinate": 2}


class TestLinear(DecoderContract):
    component = "liif-core:basis"
    options = {"functions": 1, "latent": [], "axis": [], "modulation": 3}
    neighbours = 1


def table(conditioning=(COORDINATE, CELL), sampling="local-ensemble", field="identity", residual="none", **options):
    return {
        "residual": residual,
        "encoder": {"use": "edsr", "blocks": 1, "channels": 5},
        "features": {"use": field},
        "sampling": {"use": sampling},
        "conditioning": list(conditioning),
        "decoder": {"use": "basis", **options},
    }


def composed(registry, features, **variant):
    """With weights large enough for the cell to matter."""
    torch.manual_seed(0)
    model = liif_core.build_model(model_from_table(table(**variant), registry, "test"))
    model.encoder = Given(features)
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.eval()


def functions(decoder, offset, cell):
    """All functions of an axis (..., P) at offsets (...)."""
    x = torch.stack([offset, *([cell.expand_as(offset)] if decoder.scale_dependent else [])], dim=-1)
    for layer in decoder.functions.layers[:-1]:
        x = F.gelu(x @ layer.weight.T + layer.bias)
    last = decoder.functions.layers[-1]
    learned = x @ last.weight.T + last.bias
    return torch.stack(
        [torch.cos(math.pi * p * (offset + 1) / 2) + learned[..., p] for p in range(learned.shape[-1])], dim=-1
    )


def answer(model, features, coord, cell):
    """(B, N, 3) of features (B, C, h, w), coordinates (B, N, 2) and a cell for each image (B, 2)."""
    decoder, size = model.decoder, tuple(features.shape[-2:])
    cell = cell * torch.tensor(size)
    codes = unfolded(features, 3) if model.features.channels > features.shape[1] else features
    x = codes.movedim(1, -1)
    for number, layer in enumerate(decoder.latent):
        x = (x if number == 0 else x.clamp(min=0)) @ layer.weight.T + layer.bias
        if number == 0 and decoder.scale_dependent:
            change = (cell @ decoder.entry.weight.T + decoder.entry.bias).clamp(min=0)
            change = (change @ decoder.modulation.weight.T + decoder.modulation.bias)[:, None, None]
            factor, shift = change[..., : x.shape[-1]], change[..., x.shape[-1] :]
            x = x * (1 + factor) + shift
    coefficients, count = x.movedim(-1, 1), decoder.functions.layers[-1].out_features
    total = 0
    for place, offset, weight in neighbours(coord, size, model.sampling.neighbours == 4):
        own = nearest(coefficients, place)
        down, across = (functions(decoder, offset[..., axis], cell[:, axis, None]) for axis in (0, 1))
        colors = [
            sum(
                own[..., (color * count + p) * count + q] * down[..., p] * across[..., q]
                for p in range(count)
                for q in range(count)
            )
            for color in range(3)
        ]
        total = total + torch.stack(colors, dim=-1) * weight.unsqueeze(-1)
    return total


VARIANTS = {
    "local-ensemble": SMALL,
    "nearest": {**SMALL, "sampling": "nearest"},
    "unfolded": {**SMALL, "field": "unfold", "latent": [6, 5]},
    "without cell": {**SMALL, "conditioning": [COORDINATE]},
    "linear": {**SMALL, "latent": [], "axis": [], "sampling": "nearest"},
    "of one function": {**SMALL, "functions": 1},
}
SIZES = [(1, 1), (1, 6), (5, 6)]


@pytest.mark.parametrize("graph", [False, True], ids=["rendered", "as in training"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_written_out(registry, size, variant, graph):
    features = random(2, 5, *size)
    expect_colors(composed(registry, features, **VARIANTS[variant]), features, answer, graph)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_are_those_of_the_formula(registry, variant):
    features = random(2, 5, 4, 5).requires_grad_()
    expect_gradients(composed(registry, features, **VARIANTS[variant]), features, answer)


@pytest.mark.parametrize("sampling", ["nearest", "local-ensemble"])
@torch.no_grad()
def test_pixel_grids_are_decoded_in_blocks(registry, monkeypatch, sampling):
    features = random(1, 5, 4, 5)
    model = composed(registry, features, **SMALL, sampling=sampling)

    def fails(*arguments):
        raise AssertionError("decoded query by query")

    monkeypatch.setattr(model.decoder, "decode", fails)
    coord, cell = centers(12, 15).reshape(1, -1, 2), torch.tensor([[2 / 12, 2 / 15]])
    found = model.encode(torch.zeros(1, 3, 4, 5)).render((12, 15))
    expect_same(found.flatten(2).mT, answer(model, features, coord, cell))


def test_an_integer_scale_can_have_any_pattern_of_pixels(registry):
    """At x4, the four functions of an axis are independent at the four pixels of a code: no detail is out of reach."""
    torch.manual_seed(0)
    component, _ = registry.find("decoder", "basis")
    sizes = {"in_channels": 4, "out_channels": 3, "neighbours": 1, "conditions": {"coordinate": 2, "cell": 2}}
    decoder = component.build(component.options(), **sizes)
    with torch.no_grad():
        values = decoder.functions(torch.tensor([-0.75, -0.25, 0.25, 0.75]), torch.tensor(0.5))
    assert torch.linalg.svdvals(values)[-1] > 0.5


@pytest.mark.parametrize("conditioning", [[COORDINATE], [COORDINATE, CELL]], ids=["without cell", "with cell"])
def test_zero_last_starts_from_the_residual(registry, conditioning):
    torch.manual_seed(0)
    changed = table(conditioning, residual="bilinear", zero_last=True, latent=[6])
    model = liif_core.build_model(model_from_table(changed, registry, "test"))
    image = torch.rand(1, 3, 5, 6)
    with torch.no_grad():
        found = model.encode(image).render((10, 12))
    expected = F.interpolate(image, (10, 12), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_without_a_cell_any_scale_is_prepared_for(registry):
    model = composed(registry, random(1, 5, 4, 5), **VARIANTS["without cell"])
    assert not model.decoder.scale_dependent
    coord, cells = torch.rand(1, 40, 2) * 2 - 1, torch.rand(1, 40, 2)
    picture = model.encode(torch.zeros(1, 3, 4, 5))
    assert torch.equal(picture.query(coord, cells), picture.query(coord, torch.ones(2)))


def test_functions_are_of_single_precision_under_autocast(registry):
    model = composed(registry, random(1, 5, 4, 5), **SMALL)
    offset, cell = torch.rand(50) * 4 - 2, torch.rand(50)
    expected = model.decoder.functions(offset, cell)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.decoder.functions(offset, cell), expected)


def test_parameters_counted_by_hand(registry):
    """With the default options and 48 features."""
    component, _ = registry.find("decoder", "basis")

    def count(**conditions):
        sizes = {"in_channels": 48, "out_channels": 3, "neighbours": 1, "conditions": conditions}
        with torch.device("meta"):
            decoder = component.build(component.options(), **sizes)
        return sum(parameter.numel() for parameter in decoder.parameters())

    latent = 49 * 128 + 129 * (3 * 4 * 4)
    axis = 33 * 32 + 33 * 4
    assert count(coordinate=2) == latent + 2 * 32 + axis
    assert count(coordinate=2, cell=2) == latent + 3 * 32 + axis + 3 * 32 + 33 * 2 * 128


# What is refused


@pytest.mark.parametrize(
    "options, said",
    [
        ({"functions": 0}, "functions: must be >= 1"),
        ({"latent": [8, 0]}, "latent: must be >= 1"),
        ({"axis": [0]}, "axis: must be >= 1"),
        ({"modulation": 0}, "modulation: must be >= 1"),
    ],
)
def test_options_refused(registry, options, said):
    with pytest.raises(liif_core.UserError, match=f"^test: model.decoder.{said}"):
        model_from_table(table(**options), registry, "test")


class OtherCondition(nn.Module):
    channels, scope = 3, "query"


@pytest.mark.parametrize(
    "conditioning, said",
    [
        ([CELL], r"decoder 'basis' needs 'coordinate' \(given: cell\)"),
        ([COORDINATE, {"use": "depth"}], "; 'depth' would have no effect$"),
    ],
)
def test_conditions_refused(registry, conditioning, said):
    depth = Component("depth", lambda options: OtherCondition(), NoOptions)
    other = registry.with_plugin(Origin("other = other", "other", "1.0"), {"conditioning": [depth]})
    with pytest.raises(liif_core.UserError, match=said):
        liif_core.build_model(model_from_table(table(conditioning), other, "test"))
