"""Thera against the published implementation's output, and against its formula written out per query."""

import json
import math
import pickle
import re
import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from formulas import Given, expect_same, random
from reference import centers
from reference_outputs import ROOT, expect_the_same_once_saved, formulas_of, module_at, outputs_of, stored

import liif_core
import liif_zoo.swinir
from liif_core import UserError
from liif_core.experiment.toml_file import model_from_table
from liif_core.model.tile_plan import TilePlan
from liif_core.model.tiling import render_bands
from liif_core.registry.components import Origin
from liif_core.registry.discovery import add_plugin
from liif_core.sizes import Scale, scaled_size
from liif_core.testing import DecoderContract, FeaturesContract
from liif_core.training.checkpoint import model_of
from liif_zoo.swinir import SwinIR, SwinIROptions
from liif_zoo.thera import Thera, TheraOptions
from liif_zoo.thera_features import ConvNeXt, ConvNeXtOptions, Swin, SwinOptions

GRIDS = ["x2", "x3.3", "aniso"]
SWIN = {"blocks": [2, 1], "channels": 8, "heads": 2, "window": 4, "out_channels": 6}


formulas = formulas_of("thera")


# The published implementation


@pytest.fixture(scope="module", params=["thera-air", "thera-plus", "thera-pro"])
def golden(request, shared):
    return outputs_of(shared, request.param, ".pkl")


def expect_published(model, data, graph=False):
    """All stored outputs; ``raw`` is the field alone."""
    model.requires_grad_(graph)
    mean = torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1)
    with torch.set_grad_enabled(graph):
        picture = model.encode(data["inp"])
        torch.testing.assert_close(picture.field.features, data["feat"], rtol=0, atol=1e-5)
        torch.testing.assert_close(picture.field.dense(), data["code"], rtol=0, atol=1e-5)
        for grid in GRIDS:
            size = tuple(data[f"size_{grid}"].tolist())
            colors = picture.render(size)
            torch.testing.assert_close(colors * 2 - 1, data[f"out_{grid}"], rtol=0, atol=2e-5)
            model.decoder.mean.zero_()
            blank, picture.field.image = picture.field.image, torch.zeros_like(data["inp"])
            picture._prepared = None
            torch.testing.assert_close(picture.render(size) * 2 - 1, data[f"raw_{grid}"], rtol=0, atol=2e-5)
            model.decoder.mean.copy_(mean)
            picture.field.image, picture._prepared = blank, None
        colors = picture.query(data["coord_pts"], data["cell_pts"])
        torch.testing.assert_close(colors * 2 - 1, data["out_pts"], rtol=0, atol=2e-5)


@pytest.mark.parametrize("graph", [False, True], ids=["rendered", "as in training"])
def test_equal_to_the_published_implementation(golden, graph):
    path, data = golden
    expect_published(liif_core.load(path), data, graph)


def test_the_same_once_saved_as_ours(golden, registry, tmp_path):
    path, data = golden
    expect_the_same_once_saved(path, data, GRIDS, registry, tmp_path)


def test_rdn_pro_at_its_full_size(shared, registry, tmp_path):
    rdn = ROOT / "plugins" / "liif-rdn" / "liif_rdn.py"
    if not any(origin.distribution == "liif-rdn" for _, origin in registry.components["encoder"]):
        if not rdn.exists():
            pytest.skip("liif-rdn, whose encoder this model has, is not installed")
        registry = add_plugin(registry, module_at(rdn), Origin("rdn = liif_rdn", "liif-rdn", "0.1.0"))
    content = json.loads((shared / "golden" / "thera-rdn-pro.json").read_text())
    flat = {}
    for name, shape in content["parameters"].items():
        values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
        filled = {
            "kernel": lambda v=values, s=shape: 0.8 * v / np.sqrt(np.prod(s[:-1])),
            "components": lambda v=values: 4 * v,
            "k": lambda: np.float64(0.06),
            "scale": lambda v=values: 1 + 0.1 * v,
        }.get(name.rpartition("/")[2], lambda v=values: 0.1 * v)()
        flat[name] = np.asarray(filled * (0.1 if "out_conv" in name else 1), np.float32)
    path = tmp_path / "thera-rdn-pro.pkl"
    path.write_bytes(pickled(flat, backbone=content["backbone"], size=content["size"]))
    model = model_of(liif_core.load_checkpoint(path, registry), registry, "test").eval()
    expect_published(model, stored(shared / "golden" / "thera-rdn-pro.npz"))


# The formula


def table(**decoder):
    return {
        "encoder": {"use": "edsr", "blocks": 1, "channels": 5},
        "features": {"use": "identity"},
        "sampling": {"use": "nearest", "ties": "away"},
        "conditioning": [{"use": "coordinate"}, {"use": "cell"}],
        "decoder": {"use": "thera", **decoder},
    }


def composed(registry, given=None, waves=7, **parts):
    """With waves of a moderate frequency, whose angles rounding changes little, and of every decay."""
    torch.manual_seed(0)
    model = liif_core.build_model(model_from_table({**table(waves=waves), **parts}, registry, "test")).eval()
    if given is not None:
        model.encoder = Given(given)
    with torch.no_grad():
        model.decoder.frequency.mul_(0.15)
        model.decoder.diffusivity.mul_(3)
    return model


def answer(model, features, image, coord, cell):
    """(B, N, 3) in [-1, 1] space."""
    numbers = formulas.numbers_of(model.decoder, features)
    return formulas.colors(model.decoder, numbers, image, coord, cell) * 2 - 1


@pytest.mark.parametrize("graph", [False, True], ids=["rendered", "as in training"])
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 1), (5, 6)], ids=str)
def test_written_out(registry, size, graph):
    features, image = random(2, 5, *size), torch.rand(2, 3, *size)
    model = composed(registry, features)
    with torch.set_grad_enabled(graph):
        picture = model.encode(image)
        for scale in (0.7, 1, 2, 3, 3.3, 6, (0.7, 4.1), (2, 3), (4, 1.5)):
            target = scaled_size(size, Scale.of(scale))
            coord = centers(*target).reshape(1, -1, 2).expand(2, -1, 2)
            output = answer(model, features, image, coord, torch.tensor([2 / n for n in target]).expand_as(coord))
            expect_same(picture.render(target).flatten(2).mT, output)
            plain = formulas.decode(model, features, image, target, chunk=50)
            torch.testing.assert_close(plain, picture.render(target), rtol=0, atol=2e-5)
        generator = torch.Generator().manual_seed(2)
        coord = torch.rand(2, 60, 2, generator=generator) * 2.6 - 1.3  # some beyond the border
        cell = torch.rand(2, 60, 2, generator=generator)  # each its own
        expect_same(picture.query(coord, cell), answer(model, features, image, coord, cell))


def test_gradients_are_those_of_the_formula(registry):
    """With fewer queries than codes, and with more."""
    for count in (11, 40):
        features, image = random(2, 5, 4, 5).requires_grad_(), torch.rand(2, 3, 4, 5)
        model = composed(registry, features)
        coord, cell = torch.rand(2, count, 2) * 2 - 1, torch.rand(2, count, 2)
        learned = {"features": features, **dict(model.decoder.named_parameters())}
        found = torch.autograd.grad((model(image, coord, cell) * 2 - 1).square().sum(), list(learned.values()))
        expected = answer(model, features, image, coord, cell).square().sum()
        for name, fast, slow in zip(learned, found, torch.autograd.grad(expected, list(learned.values()))):
            tolerance = 1e-4 * slow.abs().max().item()
            message = lambda text, name=name: f"{name}: {text}"  # noqa: E731
            torch.testing.assert_close(fast, slow, rtol=0, atol=tolerance, msg=message)


def test_own_loss_is_the_mean_slope_of_the_field_at_time_0(registry):
    """By automatic differentiation of the formula, whose positions are coordinates: a feature cell is 2 / h by 2 / w.

    So are its gradients in what is learned.
    """
    features, image = random(2, 5, 4, 5).requires_grad_(), torch.rand(2, 3, 4, 5)
    model = composed(registry, features)
    coord, target = (torch.rand(2, 40, 2) * 1.9 - 0.95).requires_grad_(), torch.rand(2, 40, 3)
    numbers = formulas.numbers_of(model.decoder, features)
    colors = formulas.field(model.decoder, numbers, coord, torch.zeros(2, 40, 2))
    slopes = [torch.autograd.grad(colors[..., c].sum(), coord, create_graph=True)[0] for c in range(3)]
    expected = (torch.stack(slopes) * torch.tensor([2 / 4, 2 / 5])).abs().mean()
    assert model.has_own_loss
    found = model.encode(image).own_loss(coord.detach(), torch.rand(2, 40, 2), target)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    learned = [features, model.decoder.code.weight, model.decoder.code.bias, model.decoder.frequency]
    for fast, slow in zip(torch.autograd.grad(found, learned), torch.autograd.grad(expected, learned)):
        torch.testing.assert_close(fast, slow, rtol=0, atol=1e-4 * slow.abs().max().item())


def test_one_query_by_hand():
    """One code, one wave, one channel: numbers that fit on a line."""
    module = Thera(TheraOptions(waves=1, mean=(0.3,)), 2, 1, {"coordinate": 2, "cell": 2}, 1)
    with torch.no_grad():
        module.code.weight.copy_(torch.tensor([[0.5, -1.0], [2.0, 0.25]]))
        module.code.bias.copy_(torch.tensor([0.1, -0.2]))
        module.frequency.copy_(torch.tensor([[1.5], [-2.0]]))
        module.diffusivity.fill_(0.4)
    amplitude, phase = 0.5 * 0.6 - 0.7 + 0.1, 2 * 0.6 + 0.25 * 0.7 - 0.2
    offset, cell = (0.8, -0.6), (0.5, 1.2)  # half feature cells
    angle = 0.4 * 1.5 + 0.3 * 2 + phase
    expected = amplitude * math.sin(angle) * math.exp(-(1.5**2 + 2**2) * 0.4 * 0.25**2) + 2 * 0.3 - 0.9
    field = Given(torch.tensor([0.6, 0.7]).view(1, 2, 1, 1))
    field.dense, field.grid, field.image = lambda: field.features, (1, 1), torch.full((1, 1, 1, 1), -0.9)
    offsets = torch.tensor(offset).view(1, 1, 1, 2)
    sites = liif_core.Sites(torch.zeros(1, 1, 1, dtype=torch.int64), offsets, torch.ones(1, 1, 1))
    conditions = {"coordinate": offsets, "cell": torch.tensor(cell).view(1, 1, 1, 2)}
    with torch.no_grad():
        found = module.decode(module.prepare(field, {}), sites, conditions).item()
    assert found == pytest.approx(expected, abs=1e-6)


def test_blocks_of_images_with_a_cell_each(registry):
    decoder, codes = composed(registry).decoder, {"code": random(2, 2, 3, 5), "pixel": random(2, 2, 3, 3)}
    rows, columns, cell = torch.rand(2, 4) * 2 - 1, torch.rand(3, 2) * 2 - 1, torch.tensor([[0.5, 1.0], [0.9, 0.1]])
    with torch.no_grad():
        both = decoder.decode_block(codes, rows, columns, {"cell": cell})
        assert both.shape == (2, 2, 3, 4, 2, 3)
        for i in range(2):
            own = {name: values[i : i + 1] for name, values in codes.items()}
            alone = decoder.decode_block(own, rows, columns, {"cell": cell[i : i + 1]})
            torch.testing.assert_close(both[i : i + 1], alone, rtol=0, atol=1e-6)


def test_at_a_whole_scale_positions_are_exact(registry):
    """High waves in a wide image: coordinates in float32 are off by 1e-4 of a feature cell, and colors by more."""
    features, image = random(1, 5, 1, 600), torch.rand(1, 3, 1, 600)
    model, exact = (composed(registry, given) for given in (features, features.double()))
    with torch.no_grad():
        model.decoder.frequency.mul_(6)
        model.decoder.diffusivity.zero_()
        exact.double().decoder.load_state_dict(model.decoder.state_dict())
        columns = (2 * torch.arange(2400) + 1).double() / 2400 - 1
        coord = torch.stack([torch.zeros_like(columns), columns], dim=-1)[None]
        cell = torch.tensor([2, 2 / 2400]).double().expand_as(coord)
        expected = answer(exact, features.double(), image.double(), coord, cell).float()
        picture = model.encode(image)
        torch.testing.assert_close(picture.render((1, 2400))[:, :, 0].mT * 2 - 1, expected, rtol=0, atol=5e-6)
        assert (picture.query(coord, cell) * 2 - 1 - expected).abs().max() > 2e-5


def test_positions_and_waves_are_of_single_precision_under_autocast(registry):
    features = random(1, 5, 4, 5).bfloat16().float()
    model = composed(registry, features)
    coord, cell = torch.rand(1, 40, 2) * 2 - 1, torch.rand(1, 40, 2)
    with torch.no_grad():
        expected = model(torch.zeros(1, 3, 4, 5), coord, cell), model.encode(torch.zeros(1, 3, 4, 5)).render((13, 17))
        with torch.autocast("cpu", torch.bfloat16):
            found = model(torch.zeros(1, 3, 4, 5), coord, cell), model.encode(torch.zeros(1, 3, 4, 5)).render((13, 17))
    for ours, wanted in zip(found, expected):
        assert ours.dtype == torch.float32 and torch.equal(ours, wanted)


def test_frequencies_fill_a_disc():
    torch.manual_seed(0)
    decoder = Thera(TheraOptions(waves=20000), 1, 3, {"coordinate": 2, "cell": 2}, 1)
    radius = decoder.frequency.detach().norm(dim=0) / (16 * math.pi)
    assert radius.max() <= 1 and decoder.diffusivity.item() == pytest.approx(0.0597)
    for part in (0.25, 0.5, 0.75):  # a circle has its share of the area
        assert (radius < part).float().mean().item() == pytest.approx(part**2, abs=0.02)
    assert decoder.frequency.mean(1).abs().max() < 0.02 * 16 * math.pi


# Between encoder and decoder


def test_convnext_written_out():
    torch.manual_seed(0)
    network = ConvNeXt(ConvNeXtOptions(widths=(4, 6, 6)), in_channels=4).double().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.2)
    state = network.state_dict()
    features = torch.randn(2, 4, 3, 5, dtype=torch.float64)

    def pointwise(x, name):
        return torch.einsum("oc,bchw->bohw", state[f"{name}.weight"], x) + state[f"{name}.bias"][:, None, None]

    def norm(x, name):
        x = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-6).sqrt()
        return x * state[f"{name}.weight"][:, None, None] + state[f"{name}.bias"][:, None, None]

    x = features
    for i, kind in enumerate("bpbb"):  # blocks, and a projection from four channels to six
        name = f"layers.{i}"
        if kind == "p":
            x = pointwise(norm(x, f"{name}.norm"), f"{name}.layer")
            continue
        kernel = state[f"{name}.spatial.weight"]
        padded = F.pad(x, (1, 1, 1, 1))
        y = sum(
            padded[:, :, a : a + 3, b : b + 5] * kernel[:, 0, a, b][:, None, None] for a in range(3) for b in range(3)
        )
        y = pointwise(norm(y, f"{name}.norm"), f"{name}.first")
        y = y * (1 + torch.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3))) / 2
        x = x + pointwise(y, f"{name}.second")
    field = network(features)
    assert field.features is features and network.channels == 6 and network.radius == 3
    torch.testing.assert_close(field.dense(), x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (7, 9), (4, 8)], ids=str)
def test_swin_is_swinir_with_another_activation(size, monkeypatch):
    """On features padded by mirroring, as often as it takes."""
    torch.manual_seed(0)
    options = {"channels": 8, "heads": 2, "window": 4, "out_channels": 6}
    network = Swin(SwinOptions(blocks=(2, 2), **options), in_channels=3).double().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.2)
    known = SwinIR(SwinIROptions(groups=2, blocks=2, **options), in_channels=3).double().requires_grad_(False)
    names = {name: name.replace(".first.", ".mlp.0.").replace(".second.", ".mlp.1.") for name in network.state_dict()}
    known.load_state_dict({names[name]: value for name, value in network.state_dict().items()})

    def plain(x, weight, bias, then):
        x = F.linear(x, weight, bias)
        return x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2 if then == "gelu" else x

    monkeypatch.setattr(liif_zoo.swinir, "fused_linear", plain)
    features = torch.randn(2, 3, *size, dtype=torch.float64)
    missing = [(0, 0), (0, 0), *((0, -side % 4) for side in size)]
    expected = known(torch.tensor(np.pad(features.numpy(), missing, mode="reflect")))[:, :, : size[0], : size[1]]
    torch.testing.assert_close(network(features).dense(), expected, rtol=0, atol=1e-10)


def test_groups_of_different_depth():
    network = Swin(SwinOptions(**SWIN | {"blocks": (3, 1)}), in_channels=3)
    shifts = [[block.attention.shifted for block in group.blocks] for group in network.groups]
    assert shifts == [[False, True, False], [False]]
    assert (network.radius, network.multiple_of, network.channels) == (None, 4, 6)


PLUS = {"use": "convnext", "widths": [5, 5, 6, 6]}


@pytest.mark.parametrize("features", [{"use": "identity"}, PLUS], ids=["air", "plus"])
def test_tiles_are_exact(registry, features):
    model = composed(registry, features=features)
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.mul_(2)  # so that what lies further away matters
        image = torch.rand(1, 3, 40, 51)
        for size in ((80, 102), (93, 170)):
            expected = model.encode(image).render(size)
            plan = TilePlan((13, 17), 30, model.halo, 0)
            bands = list(render_bands(model, lambda rows, cols: image[:, :, rows, cols], (40, 51), size, plan))
            torch.testing.assert_close(torch.cat(bands, dim=2), expected, rtol=0, atol=1e-5)
    assert model.halo == 4 + 1 + (4 if features is PLUS else 0)


def test_swin_sees_the_whole_image(registry):
    model = composed(registry, features={"use": "swin", **SWIN})
    assert model.halo is None and model.multiple_of == 4
    model.encode(torch.rand(1, 3, 5, 6)).render((9, 9))


# Contracts


class TestTheraContract(DecoderContract):
    component = "liif-core:thera"
    options = {"waves": 6}
    neighbours = 1


class TestTheraOfSeveralCodes(DecoderContract):
    component = "liif-core:thera"
    options = {"waves": 5, "mean": [0.4]}


class TestConvNeXt(FeaturesContract):
    component = "liif-core:convnext"
    options = {"widths": [4, 6, 5]}


class TestSwin(FeaturesContract):
    component = "liif-core:swin"
    options = SWIN


# Checkpoints


def pickled(flat, **more):
    """As published, of parameters by their path."""
    tree = {}
    for name, value in flat.items():
        *path, last = name.split("/")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return pickle.dumps({"model": tree, **more}, protocol=4)


def published(tail="air", waves=5, width=4):
    """Parameters of a small model of one block, by their path."""
    shapes = {"k": (), "components": (2, waves), "encoder/head/layers_0/kernel": (3, 3, 3, width)}
    shapes |= {f"encoder/body/layers_0/body/layers_{j}/kernel": (3, 3, width, width) for j in (0, 2)}
    shapes["encoder/body/layers_1/kernel"] = (3, 3, width, width)
    if tail == "plus":
        shapes |= {
            "refine/layers_0/LayerNorm_0/scale": (width,), "refine/layers_0/Conv_0/kernel": (1, 1, width, 6),
            "refine/layers_1/residual/layers_1/scale": (6,), "refine/layers_1/residual/layers_2/kernel": (1, 1, 6, 24),
            "refine/layers_1/residual/layers_4/kernel": (1, 1, 24, 6),
        }  # fmt: skip
        width = 6
    shapes["out_conv/kernel"] = (1, 1, width, 4 * waves)
    for name in list(shapes):
        layer, _, last = name.rpartition("/")
        if last in ("kernel", "scale"):
            shapes[f"{layer}/bias"] = shapes[name][-1:]
    if tail == "plus":
        shapes["refine/layers_1/residual/layers_0/kernel"] = (3, 3, 1, 6)
    generator = np.random.default_rng(0)
    return {
        f"params/{name}": np.asarray(generator.standard_normal(shape), np.float32) for name, shape in shapes.items()
    }


def loaded(flat, registry, tmp_path, **more):
    path = tmp_path / "small.pkl"
    path.write_bytes(pickled(flat, **more))
    return model_of(liif_core.load_checkpoint(path, registry), registry, "test")


def refused(flat, registry, tmp_path, **more):
    with pytest.raises(UserError) as error:
        loaded(flat, registry, tmp_path, **more)
    assert len(error.value.problems) == 1
    return error.value.problems[0]


@pytest.mark.parametrize("tail", ["air", "plus"])
def test_what_a_checkpoint_is_follows_from_its_parameters(registry, tmp_path, tail):
    """Those that the published trainer writes do not state it."""
    image = torch.rand(1, 3, 5, 6)
    flat = published(tail)
    stated = loaded(flat, registry, tmp_path, backbone="edsr-baseline", size=tail)
    unstated = loaded(flat, registry, tmp_path)
    with torch.no_grad():
        pictures = [model.encode(image).render((11, 13)) for model in (stated, unstated)]
    assert torch.equal(*pictures)
    assert stated.decoder.diffusivity.item() == flat["params/k"] and stated.decoder.waves == 5
    kernel = torch.tensor(flat["params/encoder/head/layers_0/kernel"])
    assert torch.equal(stated.encoder.head.weight, kernel.permute(3, 2, 0, 1))
    image[:] = torch.tensor([0.4488, 0.4371, 0.4040]).view(3, 1, 1)  # the mean, which the encoder receives as zeros
    assert stated._normalized(image * 2 - 1).abs().max() < 1e-6
    deviation = math.sqrt(0.25 + 1e-5)
    torch.testing.assert_close(stated._normalized((image + deviation) * 2 - 1), torch.ones_like(image))


@pytest.mark.parametrize(
    "name",
    [
        "params/k", "params/components", "params/out_conv/bias", "params/encoder/head/layers_0/kernel",
        "params/encoder/body/layers_1/bias", "params/encoder/body/layers_0/body/layers_2/kernel",
        "params/refine/layers_0/LayerNorm_0/scale", "params/refine/layers_1/residual/layers_4/kernel",
    ],
)  # fmt: skip
def test_a_missing_parameter_is_named(registry, tmp_path, name):
    flat = published("plus")
    del flat[name]
    message = refused(flat, registry, tmp_path, backbone="edsr-baseline", size="plus")
    assert f"Thera has a parameter '{name}', which is missing" in message


@pytest.mark.parametrize(
    "changed, more, said",
    [
        ({"params/extra/kernel": np.zeros(3)}, {}, "Thera has no parameter for 'params/extra/kernel'"),
        ({"params/extra": "text"}, {}, "params/extra: expected an array of numbers, got str"),
        ({"params/k": np.zeros(2)}, {}, r"params/k: expected an array of 0 dimensions, got the shape \(2,\)"),
        ({"params/components": np.zeros((2, 6))}, {}, r"components \(2, 6\) and 20 numbers do not fit"),
        ({"params/components": np.zeros((3, 5))}, {}, r"components \(3, 5\) and 20 numbers do not fit"),
        ({"params/out_conv/kernel": np.zeros((3, 3, 4, 20))}, {}, "expected a kernel of 1 x 1, got 3 x 3"),
        ({"params/out_conv/kernel": np.zeros((1, 1, 9, 20))}, {}, r"decoder.code.weight"),
        ({"params/encoder/head/layers_0/kernel": np.zeros((3, 3, 1, 4))}, {}, r"encoder.head.weight"),
        ({"params/k": np.array(np.nan)}, {}, "decoder.diffusivity"),
        ({}, {"backbone": "swin"}, "backbone 'swin': only 'edsr-baseline' and 'rdn' are known"),
        ({}, {"size": "huge"}, "size 'huge': only 'air', 'plus' and 'pro' are known"),
        ({}, {"size": "pro"}, "Thera of size 'pro' has the parameters of 'air'"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(registry, tmp_path, changed, more, said):
    message = refused(published() | changed, registry, tmp_path, **more)
    assert re.search(said, message), message


def test_other_pickles_are_not_taken_for_thera(registry, tmp_path):
    path = tmp_path / "other.pkl"
    path.write_bytes(pickle.dumps({"model": {"params": {"weight": np.zeros(3)}}}, protocol=4))
    with pytest.raises(UserError, match="not a published checkpoint"):
        liif_core.load_checkpoint(path, registry)


# What is refused


@pytest.mark.parametrize(
    "parts, said",
    [
        ({"decoder": {"use": "thera", "waves": 0}}, "decoder.waves: must be >= 1"),
        ({"features": {"use": "convnext", "widths": []}}, "features.widths: "),
        ({"features": {"use": "swin", "blocks": [2, 0]}}, "features.blocks: must be >= 1"),
        ({"features": {"use": "swin", "heads": 7}}, "features.heads: 7 heads cannot share 180 channels evenly"),
        ({"features": {"use": "swin", "window": 7}}, "features.window: must be even"),
    ],
)
def test_options_refused(registry, parts, said):
    with pytest.raises(UserError, match=f"^test: model.{said}"):
        model_from_table({**table(), **parts}, registry, "test")


def test_means_refused(registry):
    with pytest.raises(UserError, match="mean: expected one number or 1, got 3"):
        liif_core.build_model(model_from_table({**table(), "channels": 1}, registry, "test"))
    with pytest.raises(UserError, match="'cell'"):
        liif_core.build_model(model_from_table({**table(), "conditioning": [{"use": "coordinate"}]}, registry, "test"))


def test_codes_are_pixels(registry):
    model = composed(registry, random(1, 5, 8, 10))
    with pytest.raises(ValueError, match="one code for each pixel of the 4 x 5 image, got 8 x 10 codes"):
        model.encoder.multiple_of = 1
        model.encode(torch.zeros(1, 3, 4, 5)).render((8, 8))
