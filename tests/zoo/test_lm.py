"""LM-LIIF and LM-LTE against their formulas written out: each code's modulation of all inputs joined, each corner."""

import math

import pytest
import torch
import torch.nn.functional as F
from formulas import Given, expect_colors, expect_gradients, neighbours, random
from reference import mlp, nearest, unfolded
from torch import nn

import liif_core
from liif_core import Component, NoOptions
from liif_core.experiment.toml_file import model_from_table
from liif_core.registry.components import Origin
from liif_zoo.lm import liif_importers

COORDINATE, CELL = {"use": "coordinate"}, {"use": "cell"}


def table(use, conditioning=(COORDINATE, CELL), sampling="local-ensemble", **options):
    return {
        "encoder": {"use": "edsr", "blocks": 1, "channels": 5},
        "features": {"use": "unfold" if use == "lm-liif" else "identity"},
        "sampling": {"use": sampling},
        "conditioning": list(conditioning),
        "decoder": {"use": use, **options},
    }


def composed(registry, features, use, **options):
    """With weights large enough for modulations to matter."""
    torch.manual_seed(0)
    model = liif_core.build_model(model_from_table(table(use, **options), registry, "test"))
    model.encoder = Given(features)
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def layers_of(modules):
    return [(module.weight, module.bias) for module in modules]


def waves(coefficients, frequencies, y, x, phases):
    """Coefficients (..., D) times the cosines, then the sines, of D / 2 angles. Frequencies come in pairs (y, x)."""
    angles = [
        math.pi * (frequencies[..., 2 * i] * y + frequencies[..., 2 * i + 1] * x + phases[..., i])
        for i in range(phases.shape[-1])
    ]
    return coefficients * torch.stack([z.cos() for z in angles] + [z.sin() for z in angles], dim=-1)


def rendered(network, x, modulation):
    """The light network at one code: all scales, then all shifts."""
    depth, width = len(network.layers), network.width
    scales = [modulation[..., i * width : (i + 1) * width] for i in range(depth)]
    shifts = [modulation[..., (depth + i) * width : (depth + i + 1) * width] for i in range(depth)]
    for layer, scale, shift in zip(network.layers, scales, shifts):
        x = ((x @ layer.weight.T + layer.bias) * (1 + scale) + shift).clamp(min=0)
    return x @ network.last.weight.T + network.last.bias


def lm_liif(decoder, features, coord, cell, ensemble, uses_cell):
    """(B, N, out) of features (B, C, h, w), coordinates (B, N, 2) and a cell for each image (B, 2)."""
    size = tuple(features.shape[-2:])
    width = decoder.render.width
    cell = (cell * torch.tensor(size)) if uses_cell else cell[:, :0]
    codes = unfolded(features, 3).movedim(1, -1)
    joined = torch.cat([codes, cell[:, None, None].expand(*codes.shape[:-1], -1)], dim=-1)
    latent = mlp(layers_of(decoder.latent), joined).movedim(-1, 1)
    total = 0
    for place, offset, weight in neighbours(coord, size, ensemble):
        modulation, code = nearest(latent, place).split([latent.shape[1] - width, width], dim=-1)
        x = torch.cat([code, offset, cell.unsqueeze(1).expand(*offset.shape[:-1], -1)], dim=-1)
        total = total + rendered(decoder.render, x, modulation) * weight.unsqueeze(-1)
    return total


def lm_lte(decoder, features, coord, cell, ensemble):
    """As ``lm_liif``."""
    size = tuple(features.shape[-2:])
    width = decoder.render.width
    cell = cell * torch.tensor(size)
    coefficients, frequencies = (
        F.conv2d(features, layer.weight, layer.bias, padding=1).movedim(1, -1)
        for layer in (decoder.coefficient, decoder.frequency)
    )
    phases = (cell @ decoder.phase.weight.T)[:, None, None]
    latent = mlp(layers_of(decoder.latent), waves(coefficients, frequencies, 1, 1, phases)).movedim(-1, 1)
    phases = (cell @ decoder.render_phase.weight.T)[:, None]
    total = 0
    for place, offset, weight in neighbours(coord, size, ensemble):
        code = nearest(latent, place)
        modulation, coefficient, frequency = code.split([code.shape[-1] - 2 * width, width, width], dim=-1)
        x = waves(coefficient, frequency, offset[..., 0], offset[..., 1], phases)
        total = total + rendered(decoder.render, x, modulation) * weight.unsqueeze(-1)
    return total


def answer(model, features, coord, cell):
    ensemble, uses_cell = model.sampling.neighbours == 4, "cell" in model.condition_names
    if hasattr(model.decoder, "phase"):
        return lm_lte(model.decoder, features, coord, cell, ensemble)
    return lm_liif(model.decoder, features, coord, cell, ensemble, uses_cell)


VARIANTS = {
    "lm-liif": {"use": "lm-liif", "width": 6, "depth": 3, "latent": [10]},
    "lm-liif without cell": {"use": "lm-liif", "width": 5, "depth": 2, "latent": [9, 7], "conditioning": [COORDINATE]},
    "lm-liif, nearest": {"use": "lm-liif", "width": 4, "depth": 1, "latent": [], "sampling": "nearest"},
    "lm-lte": {"use": "lm-lte", "width": 6, "depth": 3, "latent": [10], "channels": 8},
    "lm-lte, nearest": {"use": "lm-lte", "width": 4, "depth": 1, "latent": [], "channels": 6, "sampling": "nearest"},
}
SIZES = [(1, 1), (1, 6), (5, 1), (5, 6)]


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


@pytest.mark.parametrize("name", ["phase", "render_phase"])
def test_phases_are_of_single_precision_under_autocast(registry, name):
    """With weights that make an angle of thousands of turns of them."""
    model = composed(registry, random(1, 5, 4, 5), **VARIANTS["lm-lte"])
    getattr(model.decoder.requires_grad_(False), name).weight.mul_(1000)
    picture = model.encode(torch.zeros(1, 3, 4, 5))
    coord, cell = torch.rand(1, 40, 2) * 2 - 1, torch.tensor([0.123, 0.321])
    expected = picture.query(coord, cell)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.encode(torch.zeros(1, 3, 4, 5)).query(coord, cell)
    assert 0 < (found - expected).abs().max() < 0.1 * (expected - expected.mean(1)).abs().max()


def test_without_a_cell_any_scale_is_prepared_for(registry):
    features = random(1, 5, 4, 5)
    model = composed(registry, features, **VARIANTS["lm-liif without cell"])
    assert not model.decoder.scale_dependent
    coord, cells = torch.rand(1, 40, 2) * 2 - 1, torch.rand(1, 40, 2)
    picture = model.encode(torch.zeros(1, 3, 4, 5))
    assert torch.equal(picture.query(coord, cells), picture.query(coord, torch.ones(2)))


def test_parameters_counted_by_hand(registry):
    """With the default options and 64 features."""

    def count(name, in_channels):
        component, _ = registry.find("decoder", name)
        sizes = {"out_channels": 3, "neighbours": 4, "conditions": {"coordinate": 2, "cell": 2}}
        with torch.device("meta"):
            decoder = component.build(component.options(), in_channels=in_channels, **sizes)
        return sum(p.numel() for p in decoder.parameters())

    latent = (64 * 9 + 2 + 1) * 208 + (208 + 1) * (2 * 6 * 16 + 16)
    light = (16 + 2 + 2 + 1) * 16 + 5 * (16 + 1) * 16 + (16 + 1) * 3
    assert count("lm-liif", 64 * 9) == latent + light
    latent = 2 * (64 * 9 + 1) * 128 + 2 * 64 + (128 + 1) * 288 + (288 + 1) * (2 * 8 * 16 + 2 * 16)
    light = 2 * 8 + 8 * (16 + 1) * 16 + (16 + 1) * 3
    assert count("lm-lte", 64) == latent + light


# What is refused


@pytest.mark.parametrize(
    "use, options, said",
    [
        ("lm-lte", {"channels": 7}, "channels: expected an even number from 2.*got 7"),
        ("lm-lte", {"channels": 0}, "channels: expected an even number from 2.*got 0"),
        ("lm-lte", {"width": 5}, "width: expected an even number from 2.*got 5"),
        ("lm-lte", {"depth": 0}, "depth: must be >= 1"),
        ("lm-lte", {"latent": [0]}, "latent: must be >= 1"),
        ("lm-liif", {"width": 0}, "width: must be >= 1"),
        ("lm-liif", {"depth": 0}, "depth: must be >= 1"),
        ("lm-liif", {"latent": [8, 0]}, "latent: must be >= 1"),
    ],
)
def test_options_refused(registry, use, options, said):
    with pytest.raises(liif_core.UserError, match=f"^test: model.decoder.{said}"):
        model_from_table(table(use, **options), registry, "test")


class OtherCondition(nn.Module):
    channels, scope = 3, "query"


@pytest.mark.parametrize(
    "use, conditioning, said",
    [
        ("lm-lte", [COORDINATE], r"decoder 'lm-lte' needs 'cell' \(given: coordinate\).*use = \"cell\""),
        ("lm-liif", [{"use": "liif-core:cell"}], r"decoder 'lm-liif' needs 'coordinate' \(given: cell\)"),
        ("lm-liif", [COORDINATE, {"use": "other:cell"}], "'cell' of width 2; 'cell' is 3 wide$"),
        ("lm-lte", [COORDINATE, {"use": "other:cell"}], "'cell' of width 2; 'cell' is 3 wide$"),
        ("lm-liif", [COORDINATE, {"use": "depth"}], "; 'depth' would have no effect$"),
        ("lm-lte", [COORDINATE, {"use": "liif-core:cell"}, {"use": "depth"}], "; 'depth' would have no effect$"),
    ],
)
def test_conditions_refused(registry, use, conditioning, said):
    components = [Component(name, lambda options: OtherCondition(), NoOptions) for name in ("cell", "depth")]
    other = registry.with_plugin(Origin("other = other", "other", "1.0"), {"conditioning": components})
    with pytest.raises(liif_core.UserError, match=said):
        liif_core.build_model(model_from_table(table(use, conditioning), other, "test"))


# Import

NETWORK = {"out_dim": 3, "hidden_dim": 8, "hidden_depth": 2, "mod_scale": True, "mod_shift": True}
STATE = {f"imnet.layers.{i}.weight": torch.tensor(float(i)) for i in (0, 2, 4)} | {
    f"hypernet.layers.{i}.bias": torch.tensor(10.0 + i) for i in (0, 2)
}


def imported(name, state=STATE, network=None, **arguments):
    (importer,) = [importer for importer in liif_importers() if importer.name == name]
    specs = {
        "encoder_spec": {"name": "e"},
        "imnet_spec": {"name": "lmmlp", "args": NETWORK | (network or {})},
        "hypernet_spec": {"name": "mlp", "args": {"hidden_list": [32]}},
        "mod_input": True,
    }
    return importer.convert(specs | arguments, state, lambda spec, part: ({"use": spec["name"]}, part))


def test_import_of_the_published_variants():
    sizes = {"width": 8, "depth": 2, "latent": [32]}
    for name, kind, more in (("lmliif", "lm-liif", {}), ("lmlte", "lm-lte", {"channels": 256})):
        parts, _ = imported(name)
        assert parts["decoder"] == {"use": kind, **sizes, **more} and parts["channels"] == 3
        assert parts.get("residual", "none") == ("bilinear" if name == "lmlte" else "none")
        assert parts["conditioning"] == [COORDINATE, CELL]
        assert parts["sampling"] == {"use": "local-ensemble"}
        assert imported(name, local_ensemble=False)[0]["sampling"] == {"use": "nearest"}
    assert imported("lmlte", hidden_dim=16)[0]["decoder"]["channels"] == 16
    assert imported("lmliif")[0]["features"] == {"use": "unfold", "size": 3}
    assert imported("lmliif", feat_unfold=False)[0]["features"] == {"use": "identity"}
    assert imported("lmliif", cell_decode=False)[0]["conditioning"] == [COORDINATE]


def test_import_of_published_names():
    names = {
        "imnet.layers.0.weight": "decoder.render.layers.0.weight",
        "imnet.layers.2.weight": "decoder.render.layers.1.weight",
        "imnet.layers.4.weight": "decoder.render.last.weight",
        "hypernet.layers.0.bias": "decoder.latent.0.bias",
        "hypernet.layers.2.bias": "decoder.latent.1.bias",
    }
    assert imported("lmliif")[1] == {ours: STATE[published] for published, ours in names.items()}
    waves = {"coef.bias": "coefficient.bias", "freq.bias": "frequency.bias"}
    waves |= {"phase.weight": "phase.weight", "imphase.weight": "render_phase.weight"}
    names |= {published: f"decoder.{ours}" for published, ours in waves.items()}
    state = STATE | {name: torch.tensor(20.0 + number) for number, name in enumerate(waves)}
    assert imported("lmlte", state)[1] == {ours: state[published] for published, ours in names.items()}


@pytest.mark.parametrize(
    "name, owner, unknown", [("lmliif", "LM-LIIF", "coef.weight"), ("lmlte", "LM-LTE", "conv.weight")]
)
def test_import_refuses_an_unknown_parameter(name, owner, unknown):
    with pytest.raises(ValueError, match=f"{owner} has no parameter for '{unknown}'"):
        imported(name, STATE | {unknown: torch.zeros(1)})


@pytest.mark.parametrize("name", ["lmliif", "lmlte"])
def test_import_refuses_what_is_not_known(name):
    for switch in ("mod_scale", "mod_shift"):
        with pytest.raises(ValueError, match=f"^{switch} = false: only true is known$"):
            imported(name, network={switch: False})
    with pytest.raises(ValueError, match="^mod_input = false: only true is known$"):
        imported(name, mod_input=False)
    with pytest.raises(ValueError, match="^imnet 'mlp': only 'lmmlp' is known$"):
        imported(name, imnet_spec={"name": "mlp", "args": NETWORK})
    with pytest.raises(ValueError, match="^hypernet 'siren': only 'mlp' is known$"):
        imported(name, hypernet_spec={"name": "siren", "args": {}})
    if name == "lmlte":
        with pytest.raises(ValueError, match="^cell_decode = false: only true is known$"):
            imported(name, cell_decode=False)
