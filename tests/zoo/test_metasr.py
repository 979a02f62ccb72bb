"""MetaSR against its formula written out, one whole matrix a query; and which code holds the corner of a pixel."""

from fractions import Fraction

import pytest
import torch
from formulas import Given, expect_same, random
from hypothesis import given
from hypothesis import strategies as st
from reference import centers, mlp, nearest, unfolded
from torch import nn

import liif_core
from liif_core import Component, NoOptions, Query
from liif_core.experiment.toml_file import model_from_table
from liif_core.registry.components import Origin
from liif_core.sizes import Scale, scaled_size
from liif_zoo.metasr import (
    CornerSampling,
    MetaSROptions,
    liif_decoders,
    liif_importers,
)

COORDINATE, CELL = {"use": "coordinate"}, {"use": "cell"}


def table(conditioning=(COORDINATE, CELL), **options):
    return {
        "encoder": {"use": "edsr", "blocks": 1, "channels": 4},
        "features": {"use": "unfold"},
        "sampling": {"use": "corner"},
        "conditioning": list(conditioning),
        "decoder": {"use": "metasr", **options},
    }


def composed(registry, features, **options):
    torch.manual_seed(0)
    model = liif_core.build_model(model_from_table(table(**options), registry, "test"))
    model.encoder = Given(features)
    return model.eval()


def answer(decoder, features, coord, cell):
    """(B, N, out) of features (B, C, h, w), coordinates and cells (B, N, 2)."""
    batch, channels, *size = features.shape
    height = size[0]
    size = torch.tensor(size)
    corner = coord - cell / 2
    inside = (corner + 1e-6).clamp(-1 + 1e-6, 1 - 1e-6)
    code = nearest(unfolded(features, 3), inside)
    code_corners = (centers(*size.tolist()) - 1 / size).permute(2, 0, 1).expand(batch, -1, -1, -1)
    away = (corner - nearest(code_corners, inside)) * (size / 2)
    conditions = torch.cat([away, cell[..., :1] * (height / 2)], dim=-1)
    layers = [(layer.weight, layer.bias) for layer in (decoder.first, decoder.second)]
    matrices = mlp(layers, conditions).unflatten(-1, (9 * channels, -1))  # one for each query
    return (code.unsqueeze(-2) @ matrices).squeeze(-2)


SIZES = [(1, 1), (1, 6), (5, 1), (5, 6)]


@pytest.mark.parametrize("graph", [False, True], ids=["rendered", "as in training"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_written_out(registry, size, graph):
    features = random(2, 4, *size)
    model = composed(registry, features, hidden=12)
    with torch.set_grad_enabled(graph):
        picture = model.encode(torch.zeros(2, 3, *size))
        for scale in (0.7, 1, 2, 3.3, 6, (0.7, 4.1)):
            target = scaled_size(size, Scale.of(scale))
            coord = centers(*target).reshape(1, -1, 2).expand(2, -1, 2)
            output = answer(model.decoder, features, coord, torch.tensor([2 / n for n in target]).expand_as(coord))
            expect_same(picture.render(target).flatten(2).mT, output)
        generator = torch.Generator().manual_seed(2)
        coord = torch.rand(2, 60, 2, generator=generator) * 2.6 - 1.3  # some beyond the border
        cell = torch.rand(2, 60, 2, generator=generator) * 2 / torch.tensor(size)  # each its own
        expect_same(picture.query(coord, cell), answer(model.decoder, features, coord, cell))


def test_gradients_are_those_of_the_formula(registry):
    features = random(1, 4, 4, 5).requires_grad_()
    model = composed(registry, features, hidden=12)
    coord, cell = torch.rand(1, 40, 2) * 2 - 1, torch.rand(1, 40, 2) / 4
    learned = [features, *model.decoder.parameters()]
    found = torch.autograd.grad((model(torch.zeros(1, 3, 4, 5), coord, cell) * 2 - 1).square().sum(), learned)
    expected = torch.autograd.grad(answer(model.decoder, features, coord, cell).square().sum(), learned)
    for fast, slow in zip(found, expected):
        torch.testing.assert_close(fast, slow, rtol=0, atol=1e-4 * slow.abs().max().item())


def test_conditions_are_float32_under_autocast(registry):
    """With weights that only see how offsets and cells differ in their third digit."""
    model = composed(registry, random(1, 4, 1, 1), hidden=12)
    first = model.decoder.requires_grad_(False).first
    first.weight.mul_(300)
    first.bias.copy_(-first.weight @ torch.tensor([0.63, 0.63, 0.25]))  # the middle of the conditions below
    picture = model.encode(torch.zeros(1, 3, 1, 1))
    coord, cell = 0.5 + torch.rand(1, 40, 2) / 100, 0.5 + torch.rand(1, 40, 2) / 100
    expected = picture.query(coord, cell)
    with torch.autocast("cpu", torch.bfloat16):
        found = picture.query(coord, cell)
    assert 0 < (found - expected).abs().max() < 0.03 * (expected - expected.mean(1)).abs().max()


# Corner sampling


def corner_codes(count, codes):
    """For each of ``count`` pixels, the code in whose cell its first edge lies, in whole numbers and fractions."""
    return [int(Fraction(pixel, count) * codes) for pixel in range(count)]


@given(codes=st.tuples(*[st.integers(1, 60)] * 2), data=st.data())
def test_a_pixel_belongs_to_the_code_at_its_corner(codes, data):
    """Exactly, at every scale from 1/2, where edges of pixels and of codes fall together too."""
    target = tuple(data.draw(st.integers(-(-n // 2), 8 * n)) for n in codes)
    rows, columns = (centers(target[0], 1)[:, 0, 0], centers(1, target[1])[0, :, 1])
    sites = CornerSampling()(Query.grid(rows, columns, torch.tensor([2 / n for n in target])), codes)
    down, across = (torch.tensor(corner_codes(n, c)) for n, c in zip(target, codes))
    assert torch.equal(sites.index[0, 0], down[:, None] * codes[1] + across)


@given(
    codes=st.integers(1, 40),
    place=st.floats(-1.5, 1.5, width=32),
    cell=st.one_of(st.floats(0, 2, width=32), st.just(1e-30)),
)
def test_reach_holds_at_any_scale(codes, place, cell):
    """No code is read further from the nearest than ``reach`` says, however large the pixel."""
    module = CornerSampling()
    sites = module(Query.points(torch.tensor([[[place, 0.0]]]), torch.tensor([cell, 0.1])), (codes, 1))
    position = min(max((place + 1) / 2 * codes - 0.5, 0), codes - 1)  # in codes
    assert abs(int(sites.index) - position) <= module.reach + 0.5 + 1e-3
    assert sites.offset[..., 0].item() == pytest.approx((place + 1) * codes - 2 * int(sites.index) - 1, abs=2e-5)


def test_reach_is_no_more_than_needed():
    """A pixel two codes wide whose center lies in a code's first half reads the code before."""
    sites = CornerSampling()(Query.points(torch.full((1, 1, 2), 0.05), torch.tensor([0.4, 0.4])), (10, 10))
    assert divmod(int(sites.index), 10) == (4, 4) and CornerSampling.reach == 1  # the nearest is (5, 5)


# What is refused


@pytest.mark.parametrize("hidden", [0, -1])
def test_options_refused(hidden):
    with pytest.raises(ValueError, match="hidden.*must be >= 1"):
        MetaSROptions(hidden=hidden)


class OtherCondition(nn.Module):
    channels, scope = 3, "query"


@pytest.mark.parametrize(
    "conditioning, said",
    [
        ([COORDINATE], r"decoder 'metasr' needs 'cell' \(given: coordinate\).*use = \"cell\""),
        ([], r"decoder 'metasr' needs 'cell', 'coordinate' \(given: none\)"),
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


def imported(state):
    def encoder(spec, part):
        return {"use": spec["name"]}, part

    return liif_importers().convert({"encoder_spec": {"name": "e"}}, state, encoder)


def test_import_of_published_names():
    state = {"imnet.layers.0.weight": 1, "imnet.layers.0.bias": 2, "imnet.layers.2.weight": 3, "encoder.x": 4}
    parts, new = imported(state)
    assert new == {"decoder.first.weight": 1, "decoder.first.bias": 2, "decoder.second.weight": 3, "encoder.x": 4}
    assert parts == table() | {"encoder": {"use": "e"}, "features": {"use": "unfold", "size": 3}}
    assert liif_decoders().options().hidden == 256  # published code has no other


@pytest.mark.parametrize("name", ["imnet.layers.4.weight", "coef.weight"])
def test_import_refuses_an_unknown_parameter(name):
    with pytest.raises(ValueError, match=f"MetaSR has no parameter for '{name}'"):
        imported({"imnet.layers.0.weight": 1, name: 2})
