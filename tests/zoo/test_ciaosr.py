"""CiaoSR: reference outputs, its formula written out, the codes that it reads, its blocks, and its importers."""

import pytest
import torch
from formulas import SCALES, Given, expect_same, random
from reference_outputs import ROOT, expect_the_same_once_saved, formulas_of, module_at, outputs_of
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import liif_core
import liif_zoo.ciaosr_attention as attention_module
from liif_core import Query, Scale, load_experiment, make_coord
from liif_core.data.crops import CropDataset
from liif_core.data.loading import batches
from liif_core.data.sources import open_images
from liif_core.experiment.schema import MultiStep
from liif_core.registry.components import Origin
from liif_core.sizes import scaled_size
from liif_core.testing import DecoderContract, SamplingContract
from liif_core.training.checkpoint import model_of
from liif_core.training.optimization import l1_loss

EXPERIMENT = ROOT / "experiments" / "edsr_ciaosr.toml"
MEAN = [0.4488, 0.4371, 0.4040]
GRIDS = ["x2", "x3.3", "aniso"]


@pytest.fixture(scope="module")
def plain():
    """The plain formulas."""
    return formulas_of("ciaosr")


# Reference outputs


@pytest.fixture(scope="module", params=["ciaosr", "ciaosr-mm"])
def golden(request, shared):
    return outputs_of(shared, request.param)


def test_golden_features(golden):
    path, data = golden
    model = liif_core.load(path)
    features = model.encode(data["inp"]).field.features
    torch.testing.assert_close(features, data["feat"], rtol=0, atol=1e-5)
    if "nonlocal" in data:
        torch.testing.assert_close(model.decoder.attention(features, 2), data["nonlocal"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("graph", [False, True], ids=["rendered", "as in training"])
def test_golden_grids(golden, plain, graph):
    path, data = golden
    model = liif_core.load(path).requires_grad_(graph)
    with torch.set_grad_enabled(graph):
        picture = model.encode(data["inp"])
        for grid in GRIDS:
            size = tuple(data[f"size_{grid}"].tolist())
            for colors in (picture.render(size), plain.decode(model, picture.field.features, data["inp"], size, 500)):
                torch.testing.assert_close(colors.detach() * 2 - 1, data[f"out_{grid}"], rtol=0, atol=2e-5)


def test_golden_saved_as_ours(golden, registry, tmp_path):
    path, data = golden
    expect_the_same_once_saved(path, data, GRIDS, registry, tmp_path)


# The formula


def composed(features=None, local_size=2, encoder=None, channels=5, **options):
    """A small model whose every parameter matters. ``features`` replace what its encoder gives."""
    torch.manual_seed(0)
    small = {"query": [10, 8], "key": [9, 7], "value": [6]} | options
    model = liif_core.compose(
        encoder=encoder or {"use": "edsr", "blocks": 1, "channels": channels},
        features="identity",
        sampling={"use": "ciaosr", "local_size": local_size},
        conditioning=["coordinate", "cell"],
        decoder={"use": "ciaosr", **small},
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        if model.decoder.scales:
            model.decoder.attention.smallest_norm.fill_(0.5)  # above some norms, below others
    if features is not None:
        model.encoder = Given(features)
    return model.eval()


VARIANTS = [
    {},
    {"scales": [3, 4], "softmax_scale": 2.5},
    {"unfold": 1, "scales": [2], "key": [], "value": [], "query": []},
    {"scales": [], "local_size": 3},
    {"local_size": 1},
]


CASES = [(size, options) for size in ((5, 6), (1, 6)) for options in VARIANTS]
CASES += [(size, {"scales": [2, 4]}) for size in ((1, 1), (5, 1))]


@pytest.mark.parametrize("graph", [False, True], ids=["rendered", "as in training"])
@pytest.mark.parametrize("size, options", CASES, ids=str)
def test_written_out(plain, size, options, graph):
    features = random(2, 5, *size)
    model, local_size = composed(features, **options), options.get("local_size", 2)
    with torch.set_grad_enabled(graph):
        picture, codes = model.encode(torch.zeros(2, 3, *size)), plain.prepared(model.decoder, features)
        for scale in SCALES:
            target = scaled_size(size, Scale.of(scale))
            coord = make_coord(target).expand(2, -1, 2)
            cell = torch.tensor([2 / n for n in target]).expand_as(coord)
            output = plain.decoded(model.decoder, codes, coord, cell, local_size)
            expect_same(picture.render(target).flatten(2).mT, output)
        generator = torch.Generator().manual_seed(2)
        coord = torch.rand(2, 60, 2, generator=generator) * 2.6 - 1.3  # some beyond the border
        cell = torch.rand(2, 60, 2, generator=generator)  # each its own
        expect_same(picture.query(coord, cell), plain.decoded(model.decoder, codes, coord, cell, local_size))
        output = plain.decoded(model.decoder, codes, coord, cell[:, :1].expand(coord.shape), local_size)
        expect_same(picture.query(coord, cell[:, :1]), output)  # each image its own


@pytest.mark.parametrize("blocks", [False, True], ids=["in one", "in blocks, computed again"])
def test_gradients_are_those_of_the_formula(plain, monkeypatch, blocks):
    if blocks:
        monkeypatch.setattr(attention_module, "_AT_ONCE", 1)
        monkeypatch.setattr(attention_module, "_FEWEST", 20)
        monkeypatch.setattr(attention_module, "_KEPT", 0)
    features = random(2, 5, 7, 6).requires_grad_()
    model = composed(features, scales=[2, 3])
    coord, cell = torch.rand(2, 40, 2) * 2 - 1, torch.rand(2, 40, 2)
    learned = {"features": features, **dict(model.decoder.named_parameters())}
    colors = model(torch.zeros(2, 3, 7, 6), coord, cell) * 2 - 1
    found = torch.autograd.grad(colors.square().sum(), list(learned.values()))
    output = plain.decoded(model.decoder, plain.prepared(model.decoder, features), coord, cell)
    expected = torch.autograd.grad(output.square().sum(), list(learned.values()))
    for name, fast, slow in zip(learned, found, expected):
        tolerance = 1e-4 * slow.abs().max().item()
        torch.testing.assert_close(fast, slow, rtol=0, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}")


def test_a_map_by_hand():
    """One code at scale 2: its attention weight is 1, and the map is its own values through the convolution."""
    model = composed(channels=1).requires_grad_(False)
    attention = model.decoder.attention
    features = torch.tensor([[0.3, -0.8], [0.5, 1.1]])[None, None]
    (conv, slope), down = attention.value, attention.down["2"]
    values = features * conv.weight.item() + conv.bias.item()
    values = torch.where(values > 0, values, values * slope.weight.item())[0, 0]
    larger = torch.zeros(6, 6)  # 4 x 4, and a border of zeros
    for row in range(2):
        for column in range(2):  # the patch of the only key, 2 x 2 inside zeros, is added at each position
            larger[1 + 2 * row : 3 + 2 * row, 1 + 2 * column : 3 + 2 * column] = values
    expected = torch.tensor(
        [
            [(larger[2 * r : 2 * r + 3, 2 * c : 2 * c + 3] * down.weight[0, 0]).sum() + down.bias[0] for c in range(2)]
            for r in range(2)
        ]
    )
    torch.testing.assert_close(attention(features, 2)[0, 0], expected / 6)


def test_under_autocast():
    """Attention, positions and colors are computed in float32."""
    model = composed(random(1, 5, 6, 7)).requires_grad_(False)
    coord, cell = torch.rand(1, 40, 2) * 2 - 1, torch.rand(1, 40, 2)
    expected = model(torch.zeros(1, 3, 6, 7), coord, cell)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(torch.zeros(1, 3, 6, 7), coord, cell)
    assert 0 < (found - expected).abs().max() < 0.05 * (expected - 0.5).abs().max()


# Bounded memory


class Largest(TorchDispatchMode):
    """Records the largest number of elements of any result."""

    found = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        sizes = [value.untyped_storage().nbytes() // 4 for value in tree_leaves(result) if torch.is_tensor(value)]
        self.found = max([self.found, *sizes])
        return result


@pytest.mark.parametrize("size", [(14, 15), (1, 50), (33, 2)], ids=str)
@pytest.mark.parametrize("scale", [2, 3])
def test_maps_in_blocks_are_the_same(monkeypatch, plain, scale, size):
    attention = composed(channels=4, scales=[scale]).decoder.attention.requires_grad_(False)
    features = random(3, 4, *size)
    whole = attention(features, scale)
    torch.testing.assert_close(whole, plain.non_local(attention, features, scale), rtol=0, atol=1e-5)
    for at_once, fewest in ((1, 9), (1, 40), (5_000, 1)):
        monkeypatch.setattr(attention_module, "_AT_ONCE", at_once)
        monkeypatch.setattr(attention_module, "_FEWEST", fewest)
        torch.testing.assert_close(attention(features, scale), whole, rtol=0, atol=1e-5)


def test_the_attention_matrix_is_never_whole(monkeypatch):
    """Of 1,640 x 420 numbers at scale 2, in rendering, in training, and kept between the two passes of training."""
    attention = composed(channels=4).decoder.attention
    features, matrix = random(1, 4, 40, 41), 40 * 42 * 420

    def largest():
        with Largest() as mode:
            attention(features, 2).sum().backward()
        return mode.found

    assert largest() >= matrix
    monkeypatch.setattr(attention_module, "_AT_ONCE", 1 << 14)
    monkeypatch.setattr(attention_module, "_FEWEST", 1)
    monkeypatch.setattr(attention_module, "_KEPT", 0)
    assert largest() < matrix / 10
    kept = {}

    def keep(value):
        kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes() // 4
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        result = attention(features, 2)
    assert 0 < sum(kept.values()) < matrix / 4 and result.requires_grad


# The codes that queries read


def sites(coord, cell, grid, local_size=2):
    component, _ = liif_core.discover().find("sampling", "ciaosr")
    return component.build(component.options(local_size))(Query.points(coord, cell), grid)


def test_sites_are_the_nearest_codes():
    """The query's own first; then those of the corners, (1 - cell) / (n - 1) away, in the order of LIIF's."""
    coord, cell, grid = torch.rand(2, 200, 2) * 2.4 - 1.2, torch.rand(2, 200, 2), (5, 8)
    found = sites(coord, cell, grid)
    assert found.index.shape == (5, 2, 200)
    centers = make_coord(grid, flatten=False)
    for k, (down, across) in enumerate([(0, 0), (-1, -1), (-1, 1), (1, -1), (1, 1)]):
        side = torch.tensor([down, across])
        place = coord + side * (1 - cell) / (torch.tensor(grid) - 1)
        row, column = (
            (place[..., i, None] - axis).abs().argmin(-1) for i, axis in enumerate((centers[:, 0, 0], centers[0, :, 1]))
        )
        assert torch.equal(found.index[k], row * grid[1] + column)


def test_sites_at_twice_the_size_are_those_of_the_local_ensemble(registry):
    component, _ = registry.find("sampling", "local-ensemble")
    grid = (6, 9)
    query = Query.grid(*(liif_core.make_coord((2 * n,)).flatten() for n in grid), torch.tensor([1 / n for n in grid]))
    found = sites(query.coord.flatten(1, 2), torch.tensor([1 / n for n in grid]), grid)
    assert torch.equal(found.index[1:], component.build(component.options())(query, grid).index.flatten(2))


def test_sites_of_one_code_and_of_large_cells():
    coord = torch.rand(1, 50, 2) * 2 - 1
    for cell in (1e-6, 0.5, 2.0, 100.0):
        assert sites(coord, torch.tensor([cell, cell]), (1, 1)).index.eq(0).all()
        found = sites(coord, torch.tensor([cell, cell]), (1, 2), local_size=3)
        assert found.index.shape == (10, 1, 50) and found.offset.isfinite().all() and found.index.max() <= 1


# Tiles


def test_tiles_where_there_are_no_maps():
    model = composed(scales=[]).requires_grad_(False)
    assert model.halo == 4 + 1 + 1 + 1  # the encoder, unfolding, the sampling, and one
    image = torch.rand(1, 3, 70, 50)
    with torch.no_grad():
        whole = model.encode(image).render((140, 100))
        plan = liif_core.plan_tiles(model, (70, 50), (140, 100), memory=900_000)
        assert plan.tile < (70, 50) and not plan.overlap
        bands = liif_core.render_bands(
            model, lambda rows, columns: image[:, :, rows, columns], (70, 50), (140, 100), plan
        )
        torch.testing.assert_close(torch.cat(list(bands), dim=2), whole, rtol=0, atol=1e-5)


def test_maps_are_of_the_whole_image():
    """The published code computes them in windows of 48 x 48: there, a far corner would not matter."""
    model = composed().requires_grad_(False)
    assert model.halo is None
    image = torch.rand(1, 3, 60, 52)
    before = model.encode(image).render((60, 52))
    image[:, :, :6, :6] = torch.rand(1, 3, 6, 6)
    assert (model.encode(image).render((60, 52)) - before)[:, :, 52:, 48:].abs().max() > 1e-6


# Contracts


class TestSampling(SamplingContract):
    component = "liif-core:ciaosr"


class TestSamplingOfNine(SamplingContract):
    component = "liif-core:ciaosr"
    options = {"local_size": 3}


class TestDecoder(DecoderContract):
    component = "liif-core:ciaosr"
    options = {"query": [9], "key": [8, 7], "value": [10]}
    neighbours = 5


class TestDecoderOfSeveralMaps(DecoderContract):
    component = "liif-core:ciaosr"
    options = {"query": [9], "key": [], "value": [], "scales": [3, 4], "unfold": 1}
    neighbours = 10


class TestDecoderWithoutMaps(DecoderContract):
    component = "liif-core:ciaosr"
    options = {"query": [], "key": [8], "value": [10], "scales": []}
    neighbours = 5


def test_defaults_are_the_paper_s(registry):
    component, _ = registry.find("decoder", "ciaosr")
    sizes = {"in_channels": 64, "out_channels": 3, "neighbours": 5, "conditions": {"coordinate": 2, "cell": 2}}
    with torch.device("meta"):
        decoder = component.build(component.options(), **sizes)

    def network(*widths):
        return sum((a + 1) * b for a, b in zip(widths, widths[1:]))

    hidden = (256, 256, 256, 256)
    expected = network(640, *hidden, 3) + network(580, *hidden, 576) + network(644, *hidden, 640)
    expected += 2 * (65 * 32 + 1) + (65 * 64 + 1) + (9 * 64 + 1) * 64
    assert sum(parameter.numel() for parameter in decoder.parameters()) == expected
    assert decoder.radius is None and decoder.num_statistics == 0


# Published checkpoints


def official_names(model):
    """Our names -> those of mmediting."""
    names = {"decoder.attention.smallest_norm": "cs_attn.escape_NaN", "encoder.head": "conv_first"}
    if hasattr(model.encoder, "fusion"):
        names = {"encoder.head": "sfe1", "encoder.entry": "sfe2", "encoder.fusion": "gff.0", "encoder.tail": "gff.1"}
        names |= {"decoder.attention.smallest_norm": "cs_attn.escape_NaN"}
        for i, block in enumerate(model.encoder.blocks):
            names[f"encoder.blocks.{i}.fusion"] = f"rdbs.{i}.lff"
            names |= {f"encoder.blocks.{i}.layers.{j}": f"rdbs.{i}.layers.{j}.conv" for j in range(len(block.layers))}
    else:
        names["encoder.tail"] = "conv_after_body"
        for i in range(len(model.encoder.blocks)):
            names |= {f"encoder.blocks.{i}.first": f"body.{i}.conv1", f"encoder.blocks.{i}.second": f"body.{i}.conv2"}
    for ours, theirs in (("query", "imnet_q"), ("key", "imnet_k"), ("value", "imnet_v")):
        names |= {f"decoder.{ours}_layers.{i}": f"{theirs}.layers.{2 * i}" for i in range(5)}
    for ours, theirs in (("query", "conv_match_1"), ("key", "conv_match_2"), ("value", "conv_assembly")):
        names |= {f"decoder.attention.{ours}.{i}": f"cs_attn.{theirs}.{i}" for i in (0, 1)}
    return names | {f"decoder.attention.down.{s}": f"cs_attn.down{f'x{s}' if s > 2 else ''}" for s in (2, 3, 4)}


def official(model):
    """A state dict as mmediting saves it. Its colors are those of images in [0, 1], half of ours."""
    names, state = official_names(model), {}
    last = f"decoder.query_layers.{len(model.decoder.query_layers) - 1}."
    for name, value in model.state_dict().items():
        layer, _, part = name.rpartition(".")
        published = names.get(name) or f"{names[layer]}.{part}"
        state[f"generator.{published}"] = value.clone() * (0.5 if name.startswith(last) else 1)
    if 2 not in model.decoder.scales:  # it is stored without being used
        channels = model.encoder.out_channels
        state["generator.cs_attn.down.weight"] = torch.ones(channels, channels, 3, 3)
        state["generator.cs_attn.down.bias"] = torch.ones(channels)
    return state


def saved(path, state):
    torch.save({"meta": {"epoch": 1}, "state_dict": state}, path)
    return path


@pytest.fixture(scope="module")
def rdn():
    """The plugin with the encoder RDN, which need not be installed."""
    return module_at(ROOT / "plugins" / "liif-rdn" / "liif_rdn.py")


@pytest.fixture(scope="module")
def with_rdn(registry, rdn):
    if "rdn" in registry.names("encoder"):
        return registry
    return registry.with_plugin(Origin("rdn = liif_rdn", "liif-rdn", "1.0"), {"encoder": [rdn.liif_encoders()]})


@pytest.mark.parametrize("encoder", ["edsr", "rdn"])
@pytest.mark.parametrize("options", [{}, {"scales": [3, 4]}, {"scales": [2, 3], "unfold": 1}], ids=str)
def test_official_checkpoint(tmp_path, plain, rdn, with_rdn, encoder, options):
    """Images less the mean are not divided before the encoder, and the image is added to the network's colors."""
    given = rdn.RDN(rdn.RDNOptions(blocks=3, layers=2, growth=4, channels=5), 3) if encoder == "rdn" else None
    model = composed(encoder=given, **options)
    path = saved(tmp_path / "official.pth", official(model))
    loaded = model_of(liif_core.load_checkpoint(path, with_rdn), with_rdn, "test").eval().requires_grad_(False)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    image = torch.rand(1, 3, 6, 7)
    features = model.encoder(image - torch.tensor(MEAN).view(3, 1, 1))
    expected = plain.decode(model, features, image, (11, 15)).detach()
    torch.testing.assert_close(loaded.encode(image).render((11, 15)), expected, rtol=0, atol=1e-5)


def without(name):
    return lambda state: state.pop(f"generator.{name}")


def with_shape(name, *shape):
    return lambda state: state.update({f"generator.{name}": torch.zeros(shape)})


@pytest.mark.parametrize(
    "change, said",
    [
        (without("imnet_q.layers.0.weight"), "CiaoSR has a parameter 'imnet_q.layers.0.weight', which is missing"),
        (without("imnet_k.layers.0.weight"), "CiaoSR has a parameter 'imnet_k.layers.0.weight', which is missing"),
        (without("imnet_v.layers.0.weight"), "CiaoSR has a parameter 'imnet_v.layers.0.weight', which is missing"),
        (without("cs_attn.escape_NaN"), "decoder.attention.smallest_norm"),
        (without("cs_attn.down.weight"), "do not fit features of 5 channels and non-local maps of the scales \\[\\]"),
        (without("conv_first.weight"), "CiaoSR's encoder: only EDSR \\('conv_first'\\) and RDN \\('sfe1'\\) are known"),
        (without("body.0.conv2.bias"), "encoder.blocks.0.second.bias"),
        (with_shape("body.0.conv3.bias", 5), "CiaoSR's EDSR has no parameter for 'body.0.conv3.bias'"),
        (with_shape("cs_attn.down.bias", 6), "decoder.attention.down.2.bias"),
        (with_shape("imnet_k.layers.0.weight", 9, 48), "imnet_k reads 48 numbers and imnet_v 54, which do not fit"),
        (with_shape("imnet_k.layers.0.weight", 9), "'imnet_k.layers.0.weight' has 2 axes; this one has the shape"),
        (with_shape("cs_attn.up.weight", 6), "CiaoSR has no parameter for 'cs_attn.up.weight'"),
    ],
)
def test_official_checkpoint_refused(tmp_path, change, said):
    state = official(composed())
    change(state)
    with pytest.raises(liif_core.UserError, match=said):
        liif_core.load(saved(tmp_path / "wrong.pth", state))


ARGUMENTS = {
    "encoder": {"name": "edsr-baseline", "args": {"n_resblocks": 1, "n_feats": 5, "no_upsampling": True}},
    "imnet_q": {"name": "mlp", "args": {"out_dim": 3, "hidden_list": [10, 8]}},
    "imnet_k": {"name": "mlp", "args": {"hidden_list": [9, 7]}},
    "imnet_v": {"name": "mlp", "args": {"hidden_list": [6]}},
}


def port(model):
    """A state dict in LIIF's envelope."""
    state = {name.removeprefix("generator."): value for name, value in official(model).items()}
    last = f"imnet_q.layers.{2 * len(model.decoder.query_layers) - 2}."
    state = {name: value * (2 if name.startswith(last) else 1) for name, value in state.items()}
    renamed = {"conv_first": "head.0", "body.0.conv1": "body.0.body.0", "body.0.conv2": "body.0.body.2"}
    renamed["conv_after_body"] = "body.1"
    for name in list(state):
        layer, _, part = name.rpartition(".")
        if layer in renamed:
            state[f"encoder.{renamed[layer]}.{part}"] = state.pop(name)
    return state


@pytest.mark.parametrize(
    "options, given",
    [
        ({}, {}),
        ({"scales": [4, 3], "softmax_scale": 2.0}, {"multi_scale": [4, 3], "softmax_scale": 2}),
        (
            {"scales": [], "unfold": 1, "local_size": 3},
            {"non_local_attn": False, "feat_unfold": False, "local_size": 3},
        ),
    ],
    ids=str,
)
def test_port_s_checkpoint(tmp_path, options, given):
    model = composed(**options)
    state = port(model)
    if not model.decoder.scales:
        state = {name: value for name, value in state.items() if not name.startswith("cs_attn")}
    content = {"model": {"name": "ciaosr", "args": ARGUMENTS | given, "sd": state}}
    torch.save(content, tmp_path / "port.pth")
    loaded = liif_core.load(tmp_path / "port.pth")
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    assert loaded.residual == "bilinear" and loaded.decoder.scales == model.decoder.scales
    assert loaded.sampling.neighbours == 1 + given.get("local_size", 2) ** 2
    assert loaded.decoder.softmax_scale == options.get("softmax_scale", 1)
    coord, cell, image = torch.rand(1, 20, 2), torch.rand(1, 20, 2), torch.rand(1, 3, 5, 6)
    model.residual = "bilinear"
    assert torch.equal(loaded(image, coord, cell), model(image, coord, cell))


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"imnet_k": {"name": "siren", "args": {}}}, "imnet_k 'siren': only 'mlp' is known"),
        ({"local_size": 5}, "local_size: must be in"),
        ({"multi_scale": [5]}, "scales"),
        ({"multi_scale": [3]}, "down.3"),
        ({"softmax_scale": 0}, "softmax_scale: must be > 0"),
    ],
)
def test_port_s_checkpoint_refused(tmp_path, arguments, said):
    content = {"model": {"name": "ciaosr", "args": ARGUMENTS | arguments, "sd": port(composed())}}
    torch.save(content, tmp_path / "wrong.pth")
    with pytest.raises(liif_core.UserError, match=said):
        liif_core.load(tmp_path / "wrong.pth")


# What is refused


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"decoder": {"use": "ciaosr", "scales": [2, 2]}}, "scales: expected each scale once, got \\[2, 2\\]"),
        ({"decoder": {"use": "ciaosr", "scales": [5]}}, "scales: must be in"),
        ({"decoder": {"use": "ciaosr", "unfold": 5}}, "unfold: must be in"),
        ({"decoder": {"use": "ciaosr", "key": [0]}}, "key: must be >= 1"),
        ({"sampling": {"use": "ciaosr", "local_size": 4}}, "local_size: must be in"),
        ({"sampling": "nearest"}, 'expected the nearest code and others to blend, such as use = "ciaosr"'),
        ({"conditioning": ["coordinate"]}, "needs 'cell'"),
    ],
)
def test_refused(changes, said):
    parts = {
        "encoder": {"use": "edsr", "blocks": 1, "channels": 4},
        "features": "identity",
        "sampling": "ciaosr",
        "conditioning": ["coordinate", "cell"],
        "decoder": "ciaosr",
    }
    with pytest.raises(ValueError, match=said):
        liif_core.compose(**parts | changes)


# The experiment


def test_protocol_of_the_paper(registry):
    """A million steps of 8 times 16 crops, halved at 200,000, 400,000, 600,000 and 800,000."""
    found = load_experiment(EXPERIMENT, registry)
    train, data, per_epoch = found.train, found.data, 800 * 20 // 128
    assert (train.epochs * per_epoch, train.batch_size) == (1_000_000, 8 * 16)
    assert train.schedule == MultiStep(tuple(n // per_epoch for n in (200_000, 400_000, 600_000, 800_000)), 0.5)
    assert (train.optimizer.use, train.optimizer.lr, train.loss) == ("adam", 1e-4, "l1")
    assert (data.patch, data.queries, data.scale, data.repeat) == (48, 2304, (1.0, 4.0), 20)
    assert list(found.model.input_mean) == MEAN and set(found.model.input_std) == {1.0}


def test_the_loss_falls_in_the_quick_profile(registry):
    changes = ["data.images={source='skimage', names=['astronaut']}", "data.queries=144", "train.batch_size=4"]
    experiment = load_experiment(EXPERIMENT, registry, profile="quick", overrides=changes)
    torch.manual_seed(0)
    model = liif_core.build_model(experiment.model).train()
    images = open_images(experiment.data.images)
    batch = next(batches(CropDataset(images, experiment.data, 0), 4, epoch=0))
    optimizer = torch.optim.Adam(model.parameters(), lr=experiment.train.optimizer.lr)
    losses = []
    for _ in range(12):
        loss = l1_loss(model(batch["image"], batch["coord"], batch["cell"]), batch["target"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert max(losses[-3:]) < 0.9 * losses[0], losses
