"""CLIT: published outputs, the formula written out, the cascade's grids, contracts, and import."""

import numpy as np
import pytest
import torch
from formulas import Given, random
from reference_outputs import expect_the_same_once_saved, formulas_of, outputs_of

import liif_core
from liif_core import Query
from liif_core.experiment.toml_file import model_from_table
from liif_core.testing import DecoderContract, ModelContract, SamplingContract
from liif_zoo.clit_cascade import CODES_AT_ONCE, CascadeOptions, CLITCascade, stage_grids
from liif_zoo.clit_window import Window, WindowOptions

GRIDS = {"clit": ["x2", "x3.3", "aniso"], "clit-cascade": ["x2", "x3.3", "aniso", "x6.4", "x19.2"]}


class TestWindow(SamplingContract):
    component = "liif-core:window"


class TestSmallWindow(SamplingContract):
    component = "liif-core:window"
    options = {"radius": 1}


class TestCLIT(DecoderContract):
    component = "liif-core:clit"
    options = {"width": 8, "heads": 2, "position_channels": 8, "position_scale": 2, "hidden": [10, 9]}
    neighbours = 9
    conditions = {"cell": 2}


class TestCLITPlain(DecoderContract):
    component = "liif-core:clit"
    options = {"width": 6, "heads": 1, "position_channels": 0, "hidden": []}
    neighbours = 25
    conditions = {}


class TestCascade(ModelContract):
    component = "liif-core:clit-cascade"
    options = {
        "encoder_blocks": 1, "encoder_channels": 6, "radius": 1, "width": 8, "heads": 2, "position_channels": 8,
        "position_scale": 2, "hidden": [10],
    }  # fmt: skip
    expected_failures = {
        "finite": "a cell of 1e-6 is a scale beyond the last stage",
        "gradients": "all scales of these inputs are below 4, where the first stage is alone",
    }


@pytest.fixture(scope="module")
def formulas():
    return formulas_of("clit")


# Published outputs


@pytest.fixture(scope="module", params=list(GRIDS))
def golden(request, shared):
    return outputs_of(shared, request.param)


def test_features(golden):
    path, data = golden
    with torch.no_grad():
        found = liif_core.load(path).encoder(data["inp"] * 2 - 1)
    torch.testing.assert_close(found, data["feat"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("graph", [False, True], ids=["rendered", "as in training"])
def test_published_outputs(golden, graph):
    path, data = golden
    model = liif_core.load(path).requires_grad_(graph)
    with torch.set_grad_enabled(graph):
        picture = model.encode(data["inp"])
        for grid in GRIDS[path.stem]:
            colors = picture.render(tuple(data[f"size_{grid}"].tolist())).detach() * 2 - 1
            torch.testing.assert_close(colors, data[f"out_{grid}"], rtol=0, atol=2e-5)
        colors = model(data["inp"], data["coord_pts"], data["cell_pts"]).detach() * 2 - 1
        torch.testing.assert_close(colors, data["out_pts"], rtol=0, atol=2e-5)


def test_published_sizes_of_stages(shared):
    with np.load(shared / "golden" / "clit-cascade.npz") as data:
        for scale in ("x6.4", "x19.2"):
            target, stages = tuple(data[f"size_{scale}"].tolist()), data[f"stages_{scale}"].tolist()
            grids = stage_grids(tuple(data["inp"].shape[-2:]), target, 3)
            assert [*grids[1:], target] == [tuple(size) for size in stages]


def test_the_same_once_saved_as_ours(golden, registry, tmp_path):
    path, data = golden
    expect_the_same_once_saved(path, data, GRIDS[path.stem], registry, tmp_path)


# The formula


def shaken(model):
    """With weights that make every parameter matter."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(torch.randn_like(parameter) * (0.4 if "position" in name else 0.1))
    return model.eval()


def one_stage(features, radius=1, cell=True, **options):
    torch.manual_seed(0)
    small = {"width": 8, "heads": 2, "position_channels": 8, "position_scale": 2, "hidden": [10, 9]}
    model = liif_core.compose(
        encoder={"use": "edsr", "blocks": 1, "channels": features.shape[1]},
        features="identity",
        sampling={"use": "window", "radius": radius},
        conditioning=["cell"] if cell else [],
        decoder={"use": "clit", **small, **options},
        residual="bilinear",
    )
    model.encoder = Given(features)
    return shaken(model)


def cascade(features=None, **options):
    torch.manual_seed(0)
    small = {
        "encoder_blocks": 1, "encoder_channels": 5, "radius": 1, "width": 8, "heads": 2, "position_channels": 8,
        "position_scale": 2, "hidden": [10],
    }  # fmt: skip
    model = CLITCascade(CascadeOptions(**{**small, **options}), 3)
    if features is not None:
        model.encoder = Given(features)
    return shaken(model)


def expect_equal(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


VARIANTS = [
    {},
    {"radius": 2, "width": 6, "heads": 3},
    {"cell": False, "heads": 1},
    {"position_channels": 0, "hidden": []},
]


@pytest.mark.parametrize("graph", [False, True], ids=["rendered", "as in training"])
@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 1), (5, 6)], ids=str)
def test_written_out(formulas, size, options, graph):
    features, image = random(2, 5, *size), torch.rand(2, 3, *size)
    model = one_stage(features, **options)
    with torch.set_grad_enabled(graph):
        picture = model.encode(image)
        for factors in ((0.7, 0.7), (1, 1), (2, 2), (3.3, 3.3), (6, 6), (0.7, 4.1)):
            target = tuple(max(1, round(side * factor)) for side, factor in zip(size, factors))
            expect_equal(picture.render(target), formulas.decode(model, features, image, target))
        coord = torch.rand(2, 60, 2) * 2.6 - 1.3  # some beyond the border
        cell = torch.tensor([0.3, 0.2])
        expect_equal(picture.query(coord, cell), formulas.answer(model, features, image, coord, cell))


def test_each_query_has_its_cell(formulas):
    features, image, coord = random(2, 5, 4, 5), torch.rand(2, 3, 4, 5), torch.rand(2, 8, 2) * 2 - 1
    model, cells = one_stage(features), torch.rand(8, 2)
    with torch.no_grad():
        found = model(image, coord, cells.expand(2, 8, 2))
        for i, cell in enumerate(cells):
            expect_equal(found[:, i, None], formulas.answer(model, features, image, coord[:, i, None], cell))


@pytest.mark.parametrize("bytes_at_once", [1, 20_000])
def test_small_groups(formulas, monkeypatch, bytes_at_once):
    """One code at a time, and a few: of codes that have different numbers of queries."""
    monkeypatch.setattr("liif_zoo.clit_attention.BYTES_AT_ONCE", bytes_at_once)
    features, image = random(2, 5, 4, 5), torch.rand(2, 3, 4, 5)
    model = one_stage(features)
    with torch.no_grad():
        expect_equal(model.encode(image).render((13, 17)), formulas.decode(model, features, image, (13, 17)))


def gradients(colors, learned):
    return torch.autograd.grad((colors * torch.linspace(0, 1, colors.numel()).view(colors.shape)).sum(), learned)


@pytest.mark.parametrize("scale", [None, 5], ids=["scattered", "a grid"])  # without groups, and with them
@pytest.mark.parametrize("make", [one_stage, cascade])
def test_gradients_are_those_of_the_formula(formulas, make, scale):
    features, image = random(2, 5, 4, 5).requires_grad_(), torch.rand(2, 3, 4, 5)
    model = make(features)
    learned = {"features": features, **{n: p for n, p in model.named_parameters() if not n.startswith("encoder")}}
    if scale:
        target = 4 * scale, 5 * scale
        found, expected = model.encode(image).render(target), formulas.decode(model, features, image, target)
    else:
        coord, cell = torch.rand(2, 30, 2) * 2 - 1, torch.tensor([2 / 20, 2 / 25])
        found = model(image, coord, cell)
        expected = formulas.answer(model, features, image, coord, cell)
    for name, ours, plain in zip(learned, *(gradients(colors, list(learned.values())) for colors in (found, expected))):
        message = lambda text, name=name: f"{name}: {text}"  # noqa: E731
        torch.testing.assert_close(ours, plain, rtol=0, atol=1e-4 * plain.abs().max().item(), msg=message)


def test_positions_are_float32_under_autocast():
    """With a bias that tells apart positions that differ in their third digit alone."""
    model = one_stage(5 * random(1, 5, 1, 1), position_scale=12)
    model.decoder.position.layer.weight.requires_grad_(False).mul_(5)
    coord = 0.2 + torch.rand(1, 40, 2) / 50
    with torch.no_grad():
        picture = model.encode(torch.rand(1, 3, 1, 1))
        expected = picture.query(coord, torch.tensor([0.5, 0.5]))
        with torch.autocast("cpu", torch.bfloat16):
            found = picture.query(coord, torch.tensor([0.5, 0.5]))
    assert 0 < (found - expected).abs().max() < 0.3 * (expected - expected.mean(1)).abs().max()


def test_a_window_at_a_corner():
    """Written down: the upper left code of 2 x 3 as the nearest one."""
    sites = Window(WindowOptions(1))(Query.points(torch.tensor([[[-0.4, -0.9]]]), torch.tensor([0.1, 0.1])), (2, 3))
    inside = [(0, 0), (0, 1), (1, 0), (1, 1)]
    expected = {(dy, dx): 0.25 if (dy, dx) in inside else 0 for dy in (-1, 0, 1) for dx in (-1, 0, 1)}
    assert sites.weight.flatten().tolist() == list(expected.values())
    assert [n for n, weight in zip(sites.index.flatten().tolist(), sites.weight.flatten()) if weight] == [0, 1, 3, 4]
    for (dy, dx), offset in zip(expected, sites.offset.view(9, 2).tolist()):
        assert offset == pytest.approx([(-0.4 + 0.5) * 2 - 2 * dy, (-0.9 + 2 / 3) * 3 - 2 * dx], abs=1e-6)


# The cascade


@pytest.mark.parametrize("graph", [False, True], ids=["rendered", "as in training"])
def test_cascade_written_out(formulas, graph):
    features, image = random(2, 5, 4, 5), torch.rand(2, 3, 4, 5)
    model = cascade(features, stages=3)
    with torch.set_grad_enabled(graph):
        picture = model.encode(image)
        for scale in (0.7, 2, 4, 5, 8, 18):
            target = round(4 * scale), round(5 * scale)
            expect_equal(picture.render(target), formulas.decode(model, features, image, target))
        coord, cell = torch.rand(2, 30, 2) * 2.6 - 1.3, torch.tensor([2 / 36, 2 / 45])
        expect_equal(picture.query(coord, cell), formulas.answer(model, features, image, coord, cell))


def test_cascade_with_other_scales_of_its_axes(formulas):
    """An axis has a grid no larger than the result, and no smaller than the image."""
    features, image = random(1, 5, 4, 5), torch.rand(1, 3, 4, 5)
    model = cascade(features)
    for target, grid in (((12, 30), (12, 20)), ((2, 41), (4, 20)), ((21, 64), (16, 20)), ((18, 5), (16, 5))):
        coord = liif_core.make_coord(target)[None]
        cell = torch.tensor([2 / side for side in target])
        with torch.no_grad():
            expected = formulas.answer(model, features, image, coord, cell, grids=[(4, 5), grid])
            expect_equal(model.encode(image).render(target).flatten(2).mT, expected)


def test_grids_of_whole_scales_are_the_published_ones(formulas):
    for scale in range(1, 65):
        for size in ((1, 3), (7, 5), (48, 48)):
            target = size[0] * scale, size[1] * scale
            assert stage_grids(size, target, 3) == formulas.published_grids(size, scale)


def test_rendered_in_blocks_as_in_one_query(monkeypatch):
    """Blocks of several stages' grids, and chunks in them."""
    image, model = torch.rand(2, 3, 4, 5), cascade(stages=3)
    for target, block, chunk in (((23, 30), 8, None), ((23, 30), 20, 50), ((30, 6), 4, 100), ((70, 83), 32, None)):
        assert block < CODES_AT_ONCE
        monkeypatch.setattr("liif_zoo.clit_cascade.CODES_AT_ONCE", block)
        rows, columns = (liif_core.make_coord((side,))[:, 0] for side in target)
        cell = torch.tensor([2 / side for side in target])
        with torch.no_grad():
            whole = model.encode(image).query(Query.grid(rows, columns, cell)).permute(0, 3, 1, 2)
            colors = model.encode(image).render_grid(rows, columns, cell, chunk_size=chunk)
            torch.testing.assert_close(colors, whole, rtol=0, atol=1e-5)


def test_images_of_a_batch_may_have_different_cells():
    image, coord = torch.rand(3, 3, 4, 5), torch.rand(3, 20, 2) * 2 - 1
    cell = torch.tensor([[2 / 8, 2 / 10], [2 / 36, 2 / 45], [2 / 40, 2 / 5]]).unsqueeze(1)
    model = cascade()
    with torch.no_grad():
        found = model(image, coord, cell)
        for i in range(3):
            expect_equal(found[i, None], model(image[i, None], coord[i, None], cell[i]))


def test_scales_beyond_the_last_stage():
    model = cascade()
    picture = model.encode(torch.rand(1, 3, 4, 5))
    model.check_scale((4, 5), (64, 80))
    said = "scale: a cascade of 2 stages renders up to x16, got x16.2"
    for refused in (
        lambda: model.check_scale((4, 5), (64, 81)),
        lambda: picture.render((64, 81)),
        lambda: picture.query(torch.zeros(1, 3, 2), torch.tensor([2 / 64, 2 / 81])),
        lambda: model.upscale(torch.rand(3, 4, 5), width=81, height=64),
    ):
        with pytest.raises(ValueError, match=said):
            refused()


def test_cells_refused():
    picture = cascade().encode(torch.rand(1, 3, 4, 5))
    with pytest.raises(ValueError, match="cell: .* query one cell per call"):
        picture.query(torch.zeros(1, 2, 2), torch.tensor([[0.2, 0.2], [0.2, 0.1]]))
    with pytest.raises(ValueError, match="cell: expected numbers above 0"):
        picture.query(torch.zeros(1, 2, 2), torch.zeros(2))


# Tiles


def tile_and_whole(model, size, targets):
    """Compares a tile in the middle of an image with the whole, at all positions ``halo`` and more from its cuts."""
    image, halo = torch.rand(1, 3, *size), model.halo
    cut = [(7, size[0] - 5), (6, size[1] - 8)]
    placement = liif_core.TilePlacement(size, cut[0][0], cut[1][0])
    with torch.no_grad():
        whole = model.encode(image)
        tile = model.encode(image[:, :, cut[0][0] : cut[0][1], cut[1][0] : cut[1][1]], placement)
        for target in targets:
            axes = [liif_core.make_coord((side,))[:, 0] for side in target]
            places = [(axis + 1) / 2 * side for axis, side in zip(axes, size)]
            axes = [
                axis[(place >= low + halo) & (place <= high - halo)]
                for axis, place, (low, high) in zip(axes, places, cut)
            ]
            assert min(map(len, axes)) > 0
            cell = torch.tensor([2 / side for side in target])
            found, expected = (picture.render_grid(*axes, cell) for picture in (tile, whole))
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_tiles_are_the_whole_image():
    model = one_stage(random(1, 3, 1, 1), radius=2)
    model.encoder = liif_core.compose(
        encoder={"use": "edsr", "blocks": 1, "channels": 3}, features="identity", sampling="nearest", decoder="mlp"
    ).encoder
    size = 2 * model.halo + 16, 2 * model.halo + 18
    tile_and_whole(model, size, [(2 * size[0], 2 * size[1]), (size[0], 7 * size[1] // 2)])


def test_tiles_of_the_cascade_are_the_whole_image():
    model = cascade(stages=3)
    size = 2 * model.halo + 14, 2 * model.halo + 16
    factors = [(2, 2), (5, 5), (17, 17), (1, 7), (0.6, 5), (1.01, 6)]
    tile_and_whole(model, size, [(round(size[0] * down), round(size[1] * across)) for down, across in factors])


# What is refused


@pytest.mark.parametrize(
    "options, said",
    [
        ({"width": 30}, r"heads: each needs the same part of width \(30\), got 8"),
        ({"position_channels": 6}, "position_channels: expected a multiple of 4, got 6"),
        ({"width": 0}, "width: must be >= 1"),
        ({"heads": 0}, "heads: must be >= 1"),
        ({"hidden": [0]}, "hidden.*must be >= 1"),
        ({"position_scale": -1.0}, "position_scale: must be >= 0"),
    ],
)
def test_options_refused(registry, options, said):
    parts = {
        "encoder": {"use": "edsr"}, "features": {"use": "identity"}, "sampling": {"use": "window"},
        "decoder": {"use": "clit", **options},
    }  # fmt: skip
    with pytest.raises(liif_core.UserError, match=f"^test: model.decoder.{said}"):
        model_from_table(parts, registry, "test")
    with pytest.raises(liif_core.UserError, match=f"^test: model.{said}"):
        model_from_table({"use": "clit-cascade", **options}, registry, "test")


@pytest.mark.parametrize("stages", [1, 0])
def test_a_cascade_has_two_stages_or_more(registry, stages):
    with pytest.raises(liif_core.UserError, match="stages: must be >= 2"):
        model_from_table({"use": "clit-cascade", "stages": stages}, registry, "test")


@pytest.mark.parametrize(
    "parts, said",
    [
        ({"sampling": "local-ensemble"}, r"expected 9, 25, 49, ... neighbours \(sampling 'window'\), got 4"),
        ({"sampling": "nearest"}, "got 1"),
        ({"conditioning": ["coordinate", "cell"]}, "'coordinate' would have no effect"),
    ],
)
def test_parts_refused(parts, said):
    usual = {"encoder": "edsr", "features": "identity", "sampling": "window", "decoder": "clit"}
    with pytest.raises(liif_core.UserError, match=said):
        liif_core.compose({**usual, **parts})


# Import


def checkpoint(tmp_path, stages=1, change=lambda model: None):
    """A small file in the published form; every parameter has other numbers."""
    torch.manual_seed(0)
    width, taps = 8, 9
    shapes = {"conv_ch": (width, 4, 3, 3), "pb_encoder.proj": (2, 8), "encoder.head.0": (4, 3, 3, 3)}
    shapes |= {f"encoder.body.{name}": (4, 4, 3, 3) for name in ("0.body.0", "0.body.2", "1")}
    for i in range(stages):
        shapes |= {f"conv_{part}s.{i}": (width, width, 3, 3) for part in "qkv"}
        shapes |= {f"imnets.{i}.layers.0": (6, taps * width + 2), f"imnets.{i}.layers.2": (3, 6)}
    state = {f"{name}.weight": torch.randn(shape) for name, shape in shapes.items()}
    state |= {f"{name}.bias": torch.randn(shape[0]) for name, shape in shapes.items()}
    position = {"posenc_type": "sinusoid", "posenc_scale": 3, "hidden_dims": 64, "enc_dims": 8, "gamma": 1}
    arguments = {
        "base_dim": width, "head": 2, "r": 1, "imnet_num": stages, "conv_num": stages, "is_cell": True,
        "local_attn": True,
        "encoder_spec": {"name": "edsr-baseline", "args": {"n_resblocks": 1, "n_feats": 4}},
        "pb_spec": {"name": "posenc", "args": position},
        "imnet_spec": {"name": "mlp", "args": {"out_dim": 3, "hidden_list": [6], "act": "gelu"}},
    }  # fmt: skip
    model = {"name": "clit", "args": arguments, "sd": state}
    change(model)
    torch.save({"model": model}, tmp_path / "published.pth")
    return tmp_path / "published.pth", state


@pytest.mark.parametrize("stages", [1, 2])
def test_every_published_number_has_its_place(registry, tmp_path, stages):
    path, state = checkpoint(tmp_path, stages)
    found = liif_core.load_checkpoint(path, registry).state
    del state["pb_encoder.proj.bias"]  # a softmax ignores it
    numbers = [torch.cat([value.flatten() for value in values.values()]).sort().values for values in (found, state)]
    assert torch.equal(*numbers)
    place = "stages.1" if stages == 2 else "decoder.stage"
    number = stages - 1
    assert torch.equal(found[f"{place}.key.weight"], state[f"conv_ks.{number}.weight"])
    assert torch.equal(found[f"{place}.layers.1.bias"], state[f"imnets.{number}.layers.2.bias"])


def test_without_position_bias_and_cell(tmp_path):
    def without(model):
        del model["args"]["pb_spec"]
        model["args"]["is_cell"] = False
        model["sd"]["imnets.0.layers.0.weight"] = torch.randn(6, 72)
        for part in ("weight", "bias"):
            del model["sd"][f"pb_encoder.proj.{part}"]

    model = liif_core.load(checkpoint(tmp_path, change=without)[0])
    assert model.decoder.position is None and not model.decoder.stage.cell
    assert model.upscale(torch.rand(3, 4, 4), 2).shape == (3, 8, 8)


def set_argument(**values):
    return lambda model: model["args"].update(values)


@pytest.mark.parametrize(
    "stages, change, said",
    [
        (1, lambda model: model["sd"].pop("conv_ks.0.bias"), "no weights for decoder.stage.key.bias$"),
        (2, lambda model: model["sd"].pop("conv_qs.1.weight"), "no weights for stages.1.query.weight$"),
        (1, lambda model: model["sd"].pop("pb_encoder.proj.bias"), "'pb_encoder.proj.bias', which is missing"),
        (1, lambda model: model["sd"].update({"conv_ks.1.bias": torch.zeros(8)}), "no parameter for 'conv_ks.1.bias'"),
        (1, set_argument(base_dim=4), "decoder.entry.weight is"),
        (2, set_argument(r=2), r"stages.0.layers.0.weight is \(6, 74\), and the model expects \(6, 202\)"),
        (2, set_argument(conv_num=1), "as many imnets as convolutions, got 2 and 1"),
        (1, set_argument(imnet_num=10**9, conv_num=10**9), "imnet_num is 1000000000"),
        (1, set_argument(local_attn=False), "local_attn = false is not known"),
        (1, set_argument(imnet_spec={"name": "mlp", "args": {"hidden_list": [6]}}), "only an 'mlp' with 'gelu'"),
        (1, set_argument(pb_spec={"name": "rpe", "args": {}}), "position bias 'rpe'.* only 'posenc'"),
    ],
)
def test_import_refuses(registry, tmp_path, stages, change, said):
    path, _ = checkpoint(tmp_path, stages, change)
    with pytest.raises(liif_core.UserError, match=said):
        liif_core.load(path)


def test_import_of_a_cascade_with_another_encoder(registry):
    importer = registry.importer("model", "clit")
    arguments = {
        "encoder_spec": {"name": "rdn"},
        "imnet_num": 2,
        "imnet_spec": {"name": "mlp", "args": {"hidden_list": [6], "act": "gelu"}},
    }
    with pytest.raises(ValueError, match="the encoder of a cascade is EDSR here, got 'rdn'"):
        importer.convert(arguments, {}, lambda spec, part: ({"use": "rdn"}, part))
