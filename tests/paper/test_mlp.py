"""The MLP decoder's fast path against LIIF written out plainly."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import answer, centers, small_model

import liif_core
from liif_core import Sites
from liif_core.experiment.toml_file import model_from_table

CONDITIONS = [("coordinate", "cell"), ("coordinate",), ("cell",), ("cell", "coordinate"), ()]


def grid_points(size):
    coord = centers(*size).reshape(1, -1, 2)
    return coord, torch.tensor([2 / size[0], 2 / size[1]]).expand_as(coord)


@pytest.mark.parametrize(
    "unfold, ensemble, conditioning", list(itertools.product([True, False], [True, False], CONDITIONS))
)
def test_every_variant(registry, unfold, ensemble, conditioning):
    model = small_model(registry, unfold=unfold, ensemble=ensemble, conditioning=conditioning)
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(2, 3, 6, 5, generator=generator)
    coord = torch.rand(2, 40, 2, generator=generator) * 2.6 - 1.3  # some beyond the border
    cell = torch.rand(2, 40, 2, generator=generator)  # each its own
    picture = model.encode(image)
    wide = 3 if unfold else 1
    torch.testing.assert_close(picture.query(coord, cell), answer(model, image, coord, cell, wide), rtol=0, atol=1e-5)
    expected = answer(model, image, *grid_points((13, 7)), wide).transpose(1, 2).reshape(2, 3, 13, 7)
    torch.testing.assert_close(picture.render((13, 7)), expected, rtol=0, atol=1e-5)


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_any_options_and_sizes(registry, data):
    draw = data.draw
    unfold = draw(st.booleans(), label="unfold")
    model = small_model(
        registry,
        unfold=unfold,
        ensemble=draw(st.booleans(), label="ensemble"),
        conditioning=draw(st.sampled_from(CONDITIONS), label="conditioning"),
        hidden=draw(st.sampled_from([(), (8,), (16, 8), (4, 4, 4)]), label="hidden"),
        channels=draw(st.sampled_from([1, 3, 5]), label="channels"),
        seed=draw(st.integers(0, 99), label="seed"),
    )
    side = st.integers(1, 6)
    size, target = draw(st.tuples(side, side), label="size"), draw(st.tuples(*[st.integers(1, 20)] * 2), label="target")
    image = torch.rand(draw(st.integers(1, 3)), model.channels, *size, generator=torch.Generator().manual_seed(2))
    expected = answer(model, image, *grid_points(target), 3 if unfold else 1)
    expected = expected.transpose(1, 2).reshape(len(image), model.channels, *target)
    torch.testing.assert_close(model.encode(image).render(target), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [(14, 11), (16, 16), (9, 13), (24, 20)])
def test_whole_number_scales_round_as_published(registry, size, scale):
    """At odd scales queries lie at codes' centers; in the last row and column only rounding then weighs the codes."""
    model = small_model(registry)
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    target = size[0] * scale, size[1] * scale
    expected = answer(model, image, *grid_points(target)).transpose(1, 2).reshape(1, 3, *target)
    torch.testing.assert_close(model.encode(image).render(target), expected, rtol=0, atol=1e-5)


def test_gradients_are_those_of_the_plain_path(registry):
    model = small_model(registry).requires_grad_(True)
    image, coord, cell = torch.rand(1, 3, 4, 5), torch.rand(1, 30, 2) * 2 - 1, torch.rand(1, 30, 2)
    found = []
    for path in (lambda: model(image, coord, cell), lambda: answer(model, image, coord, cell)):
        model.zero_grad()
        path().square().mean().backward()
        found.append([p.grad.clone() for p in model.parameters()])
    for fast, slow in zip(*found, strict=True):
        assert slow.abs().max() > 0  # every parameter takes part
        torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-6)


def test_conditions_stay_float32_under_autocast(registry):
    """Half precision would misplace a query by a fifth of a pixel: the first layer's conditions stay unrounded."""
    component, _ = registry.find("decoder", "mlp")
    decoder = component.build(
        component.options(hidden=()), in_channels=1, out_channels=1, neighbours=1, conditions={"coordinate": 2}
    )
    sites = Sites(torch.zeros(1, 1, 50, dtype=torch.int64), torch.zeros(1, 1, 50, 2), torch.ones(1, 1, 50))
    offset = torch.rand(1, 1, 50, 2)
    maps = {"code": torch.zeros(1, 1, 1)}
    with torch.no_grad():
        expected = decoder.decode(maps, sites, {"coordinate": offset})
        with torch.autocast("cpu", torch.bfloat16):
            found = decoder.decode(maps, sites, {"coordinate": offset})
    assert found.dtype == torch.float32 and torch.equal(found, expected)


@pytest.mark.parametrize("hidden", [(), (8,), (8, 4)])
def test_zero_last_starts_from_nothing(registry, hidden):
    component, _ = registry.find("decoder", "mlp")
    options = component.options(hidden=hidden, zero_last=True)
    decoder = component.build(options, in_channels=5, out_channels=3, neighbours=4, conditions={"cell": 2})
    last = decoder.layers[-1]
    assert not last.weight.any() and not last.bias.any()
    assert len(decoder.layers) == len(hidden) + 1 and decoder.layers[0].in_features == 7


@pytest.mark.parametrize("hidden", [[0], [16, -1]])
def test_widths_out_of_range(registry, hidden):
    component, _ = registry.find("decoder", "mlp")
    with pytest.raises(ValueError, match="must be >= 1"):
        component.options(hidden=tuple(hidden))


# Import


def encoder_stub(spec, state):
    return {"use": "edsr", "blocks": 1, "channels": 4}, state


def imported(registry, state=None, **arguments):
    arguments = {"encoder_spec": {"name": "e"}, "imnet_spec": {"name": "mlp", "args": {"hidden_list": [8]}}} | arguments
    return registry.importer("model", "liif").convert(arguments, state or {}, encoder_stub)


@pytest.mark.parametrize("unfold, ensemble, cell", list(itertools.product([True, False], repeat=3)))
def test_import_of_the_ablations(registry, unfold, ensemble, cell):
    table, _ = imported(registry, feat_unfold=unfold, local_ensemble=ensemble, cell_decode=cell)
    spec = model_from_table(table, registry, "imported")
    assert spec.features.use == ("unfold" if unfold else "identity")
    assert spec.sampling.use == ("local-ensemble" if ensemble else "nearest")
    assert [choice.use for choice in spec.conditioning] == ["coordinate", "cell"][: 1 + cell]


def test_import_defaults_are_the_paper_s(registry):
    table, _ = imported(registry)
    assert table == imported(registry, feat_unfold=True, local_ensemble=True, cell_decode=True)[0]
    assert table["features"] == {"use": "unfold", "size": 3} and table["channels"] == 3


def test_import_renames_layers(registry):
    state = {"imnet.layers.0.weight": 1, "imnet.layers.2.bias": 2, "imnet.layers.8.weight": 3, "encoder.x": 4}
    _, new = imported(registry, state)
    expected = {"decoder.layers.0.weight": 1, "decoder.layers.1.bias": 2, "decoder.layers.4.weight": 3, "encoder.x": 4}
    assert new == expected


def test_import_refuses_what_is_not_liif(registry):
    with pytest.raises(ValueError, match="'coef.weight'"):
        imported(registry, {"coef.weight": 1})
    with pytest.raises(ValueError, match="imnet 'siren'"):
        imported(registry, imnet_spec={"name": "siren", "args": {}})
    with pytest.raises(liif_core.UserError, match="no installed plugin imports the model 'liiif'.*did you mean 'liif'"):
        registry.importer("model", "liiif")
