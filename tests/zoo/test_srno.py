"""SRNO against its formula written out: everything joined, all queries at once, one head at a time."""

import pytest
import torch
from formulas import Given, expect_same, neighbours, random
from reference import centers, nearest
from torch import nn

import liif_core
from liif_core import Component, NoOptions
from liif_core.experiment.toml_file import model_from_table
from liif_core.registry.components import Origin
from liif_core.sizes import Scale, scaled_size
from liif_zoo.srno import liif_importers

COORDINATE, CELL = {"use": "coordinate"}, {"use": "cell"}


def table(conditioning=(COORDINATE, CELL), sampling="local-ensemble", **options):
    return {
        "encoder": {"use": "edsr", "blocks": 1, "channels": 5},
        "features": {"use": "identity"},
        "sampling": {"use": sampling},
        "conditioning": list(conditioning),
        "decoder": {"use": "srno", **options},
    }


def composed(registry, features, **options):
    """With weights that make every parameter matter, those of the normalizations too."""
    torch.manual_seed(0)
    model = liif_core.build_model(model_from_table(table(**options), registry, "test"))
    model.encoder = Given(features)
    with torch.no_grad():
        for name, parameter in model.decoder.named_parameters():
            parameter.add_(torch.randn_like(parameter) * (0.3 if "norm" in name else 0.1))
    return model.eval()


def layer(module, x):
    return x @ module.weight.T + module.bias


def gelu(x):
    return x * (1 + torch.erf(x / 2**0.5)) / 2


def normalized(norm, head, x):
    """Over the last axis, by the unbiased deviation."""
    mean = x.mean(-1, keepdim=True)
    deviation = ((x - mean).square().sum(-1, keepdim=True) / (x.shape[-1] - 1)).sqrt()
    return (x - mean) / (deviation + 1e-5) * norm.weight[head, 0] + norm.bias[head, 0]


def galerkin(block, x):
    """(B, N, width) of (B, N, width)."""
    width = x.shape[-1] // block.heads
    heads = []
    for head in range(block.heads):
        own = slice(head * width, (head + 1) * width)
        query, key, value = (layer(part, x)[..., own] for part in (block.query, block.key, block.value))
        key, value = normalized(block.key_norm, head, key), normalized(block.value_norm, head, value)
        heads.append(query @ (key.mT @ value) / x.shape[1])
    return x + layer(block.second, gelu(layer(block.first, torch.cat(heads, dim=-1) + x)))


def answer(decoder, features, coord, cell, ensemble=True):
    """(B, N, out) of features (B, C, h, w), coordinates and cells (B, N, 2): N are all that are asked for."""
    size = tuple(features.shape[-2:])
    moved, offsets, weights = zip(*neighbours(coord, size, ensemble))
    codes = [nearest(features, place) * weight.unsqueeze(-1) for place, weight in zip(moved, weights)]
    joined = torch.cat([*offsets, *codes, cell * torch.tensor(size)], dim=-1)
    weight = decoder.condition.weight
    entry = torch.cat([weight[:, :-2], decoder.code.weight, weight[:, -2:]], dim=1)
    x = joined @ entry.T + decoder.condition.bias
    for block in decoder.blocks:
        x = galerkin(block, x)
    return layer(decoder.last, gelu(layer(decoder.first, x)))


VARIANTS = [
    {"width": 12, "heads": 3, "hidden": 10},
    {"width": 8, "heads": 4, "blocks": 3, "hidden": 6},  # a head of two channels
    {"width": 6, "heads": 1, "blocks": 1, "hidden": 7, "sampling": "nearest"},
]


@pytest.mark.parametrize("graph", [False, True], ids=["rendered", "as in training"])
@pytest.mark.parametrize("options", VARIANTS, ids=lambda options: f"{options['heads']} heads")
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 1), (5, 6)], ids=str)
def test_written_out(registry, size, options, graph):
    features = random(2, 5, *size)
    model = composed(registry, features, **options)
    ensemble = "sampling" not in options
    with torch.set_grad_enabled(graph):
        picture = model.encode(torch.zeros(2, 3, *size))
        for scale in (0.7, 1, 2, 3.3, 6, (0.7, 4.1)):
            target = scaled_size(size, Scale.of(scale))
            coord = centers(*target).reshape(1, -1, 2).expand(2, -1, 2)
            cell = torch.tensor([2 / n for n in target]).expand_as(coord)
            output = answer(model.decoder, features, coord, cell, ensemble)
            expect_same(picture.render(target).flatten(2).mT, output)
        generator = torch.Generator().manual_seed(2)
        coord = torch.rand(2, 60, 2, generator=generator) * 2.6 - 1.3  # some beyond the border
        cell = torch.rand(2, 60, 2, generator=generator)  # each its own
        expect_same(picture.query(coord, cell), answer(model.decoder, features, coord, cell, ensemble))


def test_gradients_are_those_of_the_formula(registry):
    """A batch of two, whose attention is computed in another way than that of one image; and one."""
    for batch in (1, 2):
        features = random(batch, 5, 4, 5).requires_grad_()
        model = composed(registry, features, width=12, heads=3, hidden=10)
        coord, cell = torch.rand(batch, 40, 2) * 2 - 1, torch.rand(batch, 40, 2)
        learned = {"features": features, **dict(model.decoder.named_parameters())}
        colors = model(torch.zeros(batch, 3, 4, 5), coord, cell) * 2 - 1
        found = torch.autograd.grad(colors.square().sum(), list(learned.values()))
        output = answer(model.decoder, features, coord, cell)
        expected = torch.autograd.grad(output.square().sum(), list(learned.values()))
        for name, fast, slow in zip(learned, found, expected):
            tolerance = 1e-4 * slow.abs().max().item()
            message = lambda text, name=name: f"{name}: {text}"  # noqa: E731
            torch.testing.assert_close(fast, slow, rtol=0, atol=tolerance, msg=message)


def test_the_order_of_queries_means_nothing(registry):
    """And those that are asked for with it do: a query alone has another color."""
    features = random(2, 5, 4, 5)
    model = composed(registry, features, width=12, heads=3, hidden=10)
    coord, cell = torch.rand(2, 40, 2) * 2 - 1, torch.rand(2, 40, 2)
    order = torch.randperm(40)
    with torch.no_grad():
        picture = model.encode(torch.zeros(2, 3, 4, 5))
        together = picture.query(coord, cell)
        shuffled = picture.query(coord[:, order], cell[:, order])
        torch.testing.assert_close(shuffled, together[:, order], rtol=0, atol=1e-5)
        assert (picture.query(coord[:, :1], cell[:, :1]) - together[:, :1]).abs().max() > 1e-3


def test_conditions_are_float32_under_autocast(registry):
    """With weights that only see how offsets and cells differ in their third digit."""
    model = composed(registry, random(1, 5, 1, 1), width=12, heads=3, hidden=10)
    layer = model.decoder.requires_grad_(False).condition
    layer.weight.mul_(300)
    layer.bias.copy_(-layer.weight @ torch.full((10,), 0.5))
    picture = model.encode(torch.zeros(1, 3, 1, 1))
    coord, cell = 0.5 + torch.rand(1, 40, 2) / 100, 0.5 + torch.rand(1, 40, 2) / 100
    expected = picture.query(coord, cell)
    with torch.autocast("cpu", torch.bfloat16):
        found = picture.query(coord, cell)
    assert 0 < (found - expected).abs().max() < 0.03 * (expected - expected.mean(1)).abs().max()


def test_defaults_are_the_paper_s(registry):
    with torch.device("meta"):
        component, _ = registry.find("decoder", "srno")
        sizes = {"in_channels": 64, "out_channels": 3, "neighbours": 4, "conditions": {"coordinate": 2, "cell": 2}}
        decoder = component.build(component.options(), **sizes)
    entry = (4 * 2 + 4 * 64 + 2 + 1) * 256
    block = (256 + 1) * 3 * 256 + 2 * 2 * 256 + 2 * (256 + 1) * 256
    assert sum(p.numel() for p in decoder.parameters()) == entry + 2 * block + (256 + 1) * 256 + (256 + 1) * 3
    assert (decoder.num_statistics, decoder.blocks[0].heads) == (2, 16)


# What is refused


@pytest.mark.parametrize(
    "options, said",
    [
        ({"width": 30}, r"heads: each needs the same part of width \(30\), at least 2, got 16"),
        ({"width": 8, "heads": 3}, r"heads: each needs the same part of width \(8\), at least 2, got 3"),
        ({"width": 8, "heads": 8}, r"heads: each needs the same part of width \(8\), at least 2, got 8"),
        ({"width": 0}, "width: must be >= 2"),
        ({"heads": 0}, "heads: must be >= 1"),
        ({"blocks": 0}, "blocks: must be >= 1"),
        ({"hidden": 0}, "hidden: must be >= 1"),
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
        ([COORDINATE], r"decoder 'srno' needs 'cell' \(given: coordinate\).*use = \"cell\""),
        ([], r"needs 'cell', 'coordinate' \(given: none\)"),
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


def published(width=8, heads=2, channels=3):
    """A state dict under the published names; every number in it is another."""
    shapes = {"conv00.weight": (width, 8 + 4 * channels + 2, 1, 1), "conv00.bias": (width,)}
    for i in range(2):
        shapes |= {f"conv{i}.qkv_proj.weight": (3 * width, width, 1, 1), f"conv{i}.qkv_proj.bias": (3 * width,)}
        for name in ("o_proj1", "o_proj2"):
            shapes |= {f"conv{i}.{name}.weight": (width, width, 1, 1), f"conv{i}.{name}.bias": (width,)}
        for name in ("kln", "vln"):
            shapes |= {f"conv{i}.{name}.{part}": (heads, 1, width // heads) for part in ("weight", "bias")}
    shapes |= {"fc1.weight": (256, width, 1, 1), "fc1.bias": (256,), "fc2.weight": (3, 256, 1, 1), "fc2.bias": (3,)}
    counts = [torch.Size(shape).numel() for shape in shapes.values()]
    return {name: part.view(shapes[name]) for name, part in zip(shapes, torch.arange(sum(counts)).split(counts))}


def imported(state, **arguments):
    def encoder(spec, part):
        return {"use": spec["name"]}, part

    return liif_importers().convert({"encoder_spec": {"name": "e"}, **arguments}, state, encoder)


def test_import_of_published_names():
    """Each number goes to one place; and the first and last of each head's q, k and v where they belong."""
    state = published(width=8, heads=2)
    parts, new = imported(state, width=8, blocks=2)
    assert parts["decoder"] == {"use": "srno", "width": 8, "heads": 2} and parts["residual"] == "bilinear"
    numbers = torch.cat([value.flatten() for value in new.values()]).sort().values
    assert torch.equal(numbers, torch.arange(sum(value.numel() for value in state.values())))
    bias = state["conv1.qkv_proj.bias"].tolist()  # head 0: q, k, v of four channels each, then head 1
    for name, first in (("query", 0), ("key", 4), ("value", 8)):
        expected = [*bias[first : first + 4], *bias[12 + first : 12 + first + 4]]
        assert new[f"decoder.blocks.1.{name}.bias"].tolist() == expected
    assert imported(published(256, 16))[0]["decoder"] == {"use": "srno", "width": 256, "heads": 16}


@pytest.mark.parametrize("name", ["conv2.o_proj1.weight", "fc3.bias", "coef.weight"])
def test_import_refuses_an_unknown_parameter(name):
    with pytest.raises(ValueError, match=f"SRNO has no parameter for '{name}'"):
        imported(published() | {name: torch.zeros(1)}, width=8, blocks=2)
