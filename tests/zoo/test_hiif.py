"""HIIF against its formula written out, and against outputs of the published code."""

import pytest
import torch
from formulas import Given, expect_same, neighbours, random
from reference import centers, nearest
from reference_outputs import expect_the_same_once_saved, formulas_of, outputs_of

import liif_core
from liif_core import Query, UserError
from liif_core.experiment.toml_file import model_from_table
from liif_core.model.tile_plan import TilePlan
from liif_core.model.tiling import render_bands
from liif_core.sizes import Scale, scaled_size
from liif_core.testing import ConditioningContract, DecoderContract
from liif_paper.sampling import NeighbourSampling
from liif_zoo.hiif import Hierarchy, liif_importers

CELL, HIERARCHY = {"use": "cell"}, {"use": "hierarchy"}
GRIDS = ["x2", "x3.3", "aniso"]
SMALL = {"width": 12, "heads": 3, "hidden": 10}


class TestDecoder(DecoderContract):
    component = "liif-core:hiif"
    options = SMALL
    conditions = {"cell": 2, "hierarchy": 12}


class TestOneHead(DecoderContract):
    component = "liif-core:hiif"
    options = {"width": 6, "heads": 1, "hidden": 7}
    out_channels = 1
    conditions = {"cell": 2, "hierarchy": 12}


class TestHierarchy(ConditioningContract):
    component = "liif-core:hierarchy"


@pytest.fixture(scope="module")
def formulas():
    return formulas_of("hiif")


def table(conditioning=(CELL, HIERARCHY), sampling="local-ensemble", residual="bilinear", **options):
    return {
        "residual": residual,
        "encoder": {"use": "edsr", "blocks": 1, "channels": 5},
        "features": {"use": "identity"},
        "sampling": {"use": sampling},
        "conditioning": list(conditioning),
        "decoder": {"use": "hiif", **(options or SMALL)},
    }


def built(registry, **variant):
    """With weights that make every parameter matter, those of the normalizations too."""
    torch.manual_seed(0)
    model = liif_core.build_model(model_from_table(table(**variant), registry, "test")).eval()
    with torch.no_grad():
        for name, parameter in model.decoder.named_parameters():
            parameter.add_(torch.randn_like(parameter) * (0.3 if "norm" in name else 0.1))
    return model


# The formula, a second time: site by site, digit by digit, head by head


def layer(module, x):
    return x @ module.weight.T + module.bias


def gelu(x):
    return x * (1 + torch.erf(x / 2**0.5)) / 2


def normalized(norm, x):
    mean = x.mean(-1, keepdim=True)
    return (x - mean) / ((x - mean).square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias


def attention(block, x):
    heads, width = [], x.shape[-1] // block.heads
    for head in range(block.heads):
        own = slice(head * width, (head + 1) * width)
        query, key, value = (layer(part, x)[..., own] for part in (block.query, block.key, block.value))
        key, value = normalized(block.key_norm, key), normalized(block.value_norm, value)
        heads.append(query @ (key.mT @ value) / x.shape[1])
    return x + layer(block.second, gelu(layer(block.first, torch.cat(heads, dim=-1) + x)))


def digits_of(offset, size):
    """(B, N, 12): each position in binary, one digit after the other."""
    rows = []
    for axis in (0, 1):
        place = offset[..., axis] / 2
        place = torch.where(place > 0, place, 1 / size[axis] - place)
        rest, found = (place - 1e-9).clamp(0, 1).double(), []
        rest = torch.where(rest == 1, 0, rest)  # the digits of 1 are those of 0
        for _ in range(6):
            rest = rest * 2
            found.append((rest >= 1).float())
            rest = rest - found[-1]
        rows.append(torch.stack(found, dim=-1))
    return torch.stack(rows, dim=-1).flatten(-2)


def answer(decoder, features, coord, cell):
    """(B, N, out) of features (B, C, h, w), coordinates and cells (B, N, 2): N are all that are asked for."""
    size = tuple(features.shape[-2:])
    codes = torch.nn.functional.conv2d(features, decoder.codes.weight, decoder.codes.bias, padding=1)
    moved, offsets, _ = zip(*neighbours(coord, size))
    areas = [(offset[..., 0] / 2 * (offset[..., 1] / 2)).abs() + 1e-9 for offset in offsets]
    weights = [area / sum(areas) for area in reversed(areas)]
    weighted = [nearest(codes, place) * weight.unsqueeze(-1) for place, weight in zip(moved, weights)]
    digits = digits_of(offsets[0], size).split(2, dim=-1)
    x = torch.cat([*weighted, cell * torch.tensor(size), digits[0]], dim=-1)
    for number, level in enumerate(decoder.levels):
        x = torch.cat([x, digits[number]], dim=-1) if number else x
        x = layer(level.second, gelu(layer(level.first, normalized(level.norm, x))))
        if number == 0:
            for block in decoder.blocks:
                x = attention(block, x)
    return x


@pytest.mark.parametrize("graph", [False, True], ids=["rendered", "as in training"])
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 6)], ids=str)
def test_written_out(registry, size, graph):
    features = random(2, 5, *size)
    model = built(registry, residual="none")
    model.encoder = Given(features)
    with torch.set_grad_enabled(graph):
        picture = model.encode(torch.zeros(2, 3, *size))
        for scale in (0.7, 1, 2, 3, 3.3, 6, (0.7, 4.1)):
            target = scaled_size(size, Scale.of(scale))
            coord = centers(*target).reshape(1, -1, 2).expand(2, -1, 2)
            cell = torch.tensor([2 / n for n in target]).expand_as(coord)
            expect_same(picture.render(target).flatten(2).mT, answer(model.decoder, features, coord, cell))
        generator = torch.Generator().manual_seed(2)
        coord = torch.rand(2, 60, 2, generator=generator) * 2.6 - 1.3  # some beyond the border
        cell = torch.rand(2, 60, 2, generator=generator)  # each its own
        expect_same(picture.query(coord, cell), answer(model.decoder, features, coord, cell))


@pytest.mark.parametrize("batch", [1, 2])
def test_gradients_are_those_of_the_formula(registry, batch):
    """A batch of two, whose attention is computed in another way than that of one image; and one."""
    features = random(batch, 5, 4, 5).requires_grad_()
    model = built(registry, residual="none")
    model.encoder = Given(features)
    generator = torch.Generator().manual_seed(3)
    coord, cell = (torch.rand(batch, 40, 2, generator=generator) for _ in range(2))
    learned = {"features": features, **dict(model.decoder.named_parameters())}
    colors = model(torch.zeros(batch, 3, 4, 5), coord * 2 - 1, cell) * 2 - 1
    found = torch.autograd.grad(colors.square().sum(), list(learned.values()))
    output = answer(model.decoder, features, coord * 2 - 1, cell)
    expected = torch.autograd.grad(output.square().sum(), list(learned.values()))
    for name, fast, slow in zip(learned, found, expected):
        tolerance = 2e-4 * slow.abs().max().item()
        message = lambda text, name=name: f"{name}: {text}"  # noqa: E731
        torch.testing.assert_close(fast, slow, rtol=0, atol=tolerance, msg=message)
        assert slow.abs().max() > 0, name


@pytest.mark.parametrize("size", [(12, 18), (17, 40)], ids=str)
def test_the_benchmark_decodes_alike(registry, formulas, size):
    model, image = built(registry), torch.rand(2, 3, 6, 9, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = model.encoder(image * 2 - 1)
        ours = model.encode(image).render(size)
        torch.testing.assert_close(formulas.decode(model, features, image, size), ours, rtol=0, atol=1e-5)
        windows = formulas.decode(model, features, image, size, rows=5)
        assert windows.shape == ours.shape and (windows - ours).abs().max() > 1e-4  # these attend to themselves


def hierarchy(y, x, size):
    query = Query.points(torch.tensor([[[y, x]]]), torch.ones(2))
    return Hierarchy()(query, NeighbourSampling((-1, 1))(query, size), size)[0, 0, 0].unflatten(0, (6, 2)).T.tolist()


def test_digits_of_a_position():
    """Of a 1 x 4 grid, whose codes lie at -0.75, -0.25, 0.25 and 0.75: y is before the first code, by a quarter."""
    y, x = hierarchy(-0.5, -0.25 + 0.5 * (1 / 2 + 1 / 16 + 1 / 32 + 1 / 100), (1, 4))
    assert y == [0, 0, 0, 0, 0, 0]  # 1 - -0.25, limited to 1, whose digits are those of 0
    assert x == [1, 0, 0, 1, 1, 0]
    y, x = hierarchy(-1, -0.75, (4, 4))
    assert y == [1, 1, 0, 0, 0, 0]  # 1 / 4 - -0.5
    assert x == [0, 1, 0, 0, 0, 0]  # 1 / 4 - 0


def test_pixels_of_an_even_scale_have_the_digits_of_their_place():
    """At x4, pixels lie at odd eighths of the cell: after three digits, all are 0. Positions are exact for 4 codes."""
    axis = torch.arange(16) / 8 - 1 + 1 / 16
    query = Query.grid(axis, axis, torch.tensor([1 / 8, 1 / 8]))
    digits = Hierarchy()(query, NeighbourSampling((-1, 1))(query, (4, 4)), (4, 4))[0, 0, 2:, 2:]
    assert not digits[..., 6:].any()
    of_y, of_x = (digits[..., axis:6:2] @ torch.tensor([4.0, 2, 1]) for axis in (0, 1))
    assert of_y[:, 0].tolist() == of_x[0].tolist() == [1, 3, 5, 7] * 3 + [1, 3]


def test_the_order_of_queries_means_nothing(registry):
    """And those that are asked for with it do: a query alone has another color."""
    model, generator = built(registry), torch.Generator().manual_seed(4)
    coord, cell = torch.rand(2, 40, 2, generator=generator) * 2 - 1, torch.rand(2, 40, 2, generator=generator)
    order = torch.randperm(40, generator=generator)
    with torch.no_grad():
        picture = model.encode(torch.rand(2, 3, 4, 5, generator=generator))
        together = picture.query(coord, cell)
        shuffled = picture.query(coord[:, order], cell[:, order])
        torch.testing.assert_close(shuffled, together[:, order], rtol=0, atol=1e-5)
        assert (picture.query(coord[:, :1], cell[:, :1]) - together[:, :1]).abs().max() > 1e-3


@torch.no_grad()
def test_tiles_and_chunks_are_parts_of_the_whole(registry, monkeypatch):
    model, image = built(registry), torch.rand(1, 3, 30, 40, generator=torch.Generator().manual_seed(0))
    size, parts = (63, 121), []
    monkeypatch.setattr(type(model.decoder), "queries_at_once", 10**6)
    query = Query.grid(*liif_core.model.geometry.region_axes(size, (30, 40), None))
    expected = model.encode(image).query(query).permute(0, 3, 1, 2)
    monkeypatch.setattr(type(model.decoder), "queries_at_once", 700)

    def read(rows, columns):
        parts.append((rows, columns))
        return image[:, :, rows, columns]

    bands = list(render_bands(model, read, (30, 40), size, TilePlan((10, 20), 20, model.halo, 0)))
    assert len(parts) >= 6 and (slice(0, 30), slice(0, 40)) not in parts
    for found in (torch.cat(bands, dim=2), model.encode(image).render(size)):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_conditions_are_float32_under_autocast(registry):
    """Digits do not change, and colors change no more than rounding of the layers explains."""
    model = built(registry)
    picture = model.encode(torch.rand(1, 3, 5, 6, generator=torch.Generator().manual_seed(0)))
    coord = torch.rand(1, 200, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        expected = picture.query(coord, torch.ones(2))
        with torch.autocast("cpu", torch.bfloat16):
            found = picture.query(coord, torch.ones(2))
    assert 0 < (found - expected).abs().max() < 0.05 * (expected - expected.mean(1)).abs().max()


def test_defaults_are_the_paper_s(registry):
    component, _ = registry.find("decoder", "hiif")
    sizes = {"in_channels": 64, "out_channels": 3, "neighbours": 4, "conditions": {"cell": 2, "hierarchy": 12}}
    with torch.device("meta"):
        decoder = component.build(component.options(), **sizes)

    def level(wide, out):
        return 2 * wide + (wide + 1) * 256 + 257 * out

    block = 257 * 3 * 256 + 2 * 2 * 16 + 2 * 257 * 256
    expected = (9 * 64 + 1) * 256 + level(4 * 256 + 4, 256) + 4 * level(258, 256) + level(258, 3) + 2 * block
    assert sum(p.numel() for p in decoder.parameters()) == expected
    assert (decoder.num_statistics, decoder.blocks[0].heads) == (2, 16)


# The published code


@pytest.fixture(scope="module")
def golden(shared):
    return outputs_of(shared, "hiif")


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


def test_weights_of_the_local_ensemble_would_miss_them(golden):
    """At odd scales, where areas vanish: the published code adds 1e-9 to areas in another unit."""
    path, data = golden
    model = liif_core.load(path)

    def differs():
        colors = model.encode(data["inp"]).render((42, 33))
        return (colors - expected).abs().max()

    expected = model.encode(data["inp"]).render((42, 33))
    sampling = model.sampling.forward
    model.sampling.forward = lambda query, grid: liif_core.Sites(
        (sites := sampling(query, grid)).index, sites.offset * 2, sites.weight
    )
    model.conditioning[1].forward = lambda query, sites, grid: Hierarchy.forward(
        model.conditioning[1], query, sampling(query, grid), grid
    )
    assert differs() > 1e-4  # the areas in feature-cell units, as 'local-ensemble' has them


# Import


def published(width=8, heads=2, channels=3):
    """A state dict under the published names; every number in it is another."""
    shapes = {"freq.weight": (width, channels, 3, 3), "freq.bias": (width,)}
    for n in range(6):
        size, out = (4 * width + 4 if n == 0 else width + 2), (3 if n == 5 else width)
        shapes |= {f"fc_layers.{n}.norm.{part}": (size,) for part in ("weight", "bias")}
        shapes |= {f"fc_layers.{n}.fc1.weight": (256, size), f"fc_layers.{n}.fc1.bias": (256,)}
        shapes |= {f"fc_layers.{n}.fc2.weight": (out, 256), f"fc_layers.{n}.fc2.bias": (out,)}
    for i in range(2):
        shapes |= {f"conv{i}.qkv_proj.weight": (3 * width, width), f"conv{i}.qkv_proj.bias": (3 * width,)}
        for name in ("proj1", "proj2"):
            shapes |= {f"conv{i}.{name}.weight": (width, width), f"conv{i}.{name}.bias": (width,)}
        shapes |= {
            f"conv{i}.{name}.{part}": (width // heads,) for name in ("kln", "vln") for part in ("weight", "bias")
        }
    counts = [torch.Size(shape).numel() for shape in shapes.values()]
    return {name: part.view(shapes[name]) for name, part in zip(shapes, torch.arange(sum(counts)).split(counts))}


def imported(state, **arguments):
    def encoder(spec, part):
        return {"use": spec["name"]}, part

    return liif_importers().convert({"encoder_spec": {"name": "e"}, **arguments}, state, encoder)


def test_import_of_published_names():
    """Each number goes to one place; and the first and last of each head's q, k and v where they belong."""
    state = published(width=8, heads=2)
    parts, new = imported(state, hidden_dim=8, blocks=2)
    assert parts["decoder"] == {"use": "hiif", "width": 8, "heads": 2} and parts["residual"] == "bilinear"
    assert parts["conditioning"] == [{"use": "cell"}, {"use": "hierarchy"}]
    numbers = torch.cat([value.flatten() for value in new.values()]).sort().values
    assert torch.equal(numbers, torch.arange(sum(value.numel() for value in state.values())))
    bias = state["conv1.qkv_proj.bias"].tolist()  # head 0: q, k, v of four channels each, then head 1
    for name, first in (("query", 0), ("key", 4), ("value", 8)):
        expected = [*bias[first : first + 4], *bias[12 + first : 12 + first + 4]]
        assert new[f"decoder.blocks.1.{name}.bias"].tolist() == expected
    assert imported(published(256, 16))[0]["decoder"] == {"use": "hiif", "width": 256, "heads": 16}


@pytest.mark.parametrize("name", ["conv2.proj1.weight", "fc_layers.6.fc1.bias", "coef.weight"])
def test_import_refuses_an_unknown_parameter(name):
    with pytest.raises(ValueError, match=f"HIIF has no parameter for '{name}'"):
        imported(published() | {name: torch.zeros(1)}, hidden_dim=8, blocks=2)


def test_import_refuses_what_is_missing():
    state = published()
    del state["conv1.qkv_proj.bias"]
    with pytest.raises(ValueError, match=r"HIIF has a parameter 'conv1.qkv_proj.bias', which is missing"):
        imported(state, hidden_dim=8, blocks=2)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"fc_layers.3.fc2.bias": torch.zeros(31)}, r"decoder.levels.3.second.bias"),
        ({"fc_layers.3.fc2.bias": None}, r"decoder.levels.3.second.bias"),
        ({"conv0.qkv_proj.weight": torch.zeros(95, 32)}, "cannot be imported as 'hiif'"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(golden, tmp_path, change, said):
    content = torch.load(golden[0], weights_only=True)
    state = {**content["model"]["sd"], **change}
    content["model"]["sd"] = {name: value for name, value in state.items() if value is not None}
    torch.save(content, tmp_path / "changed.pth")
    with pytest.raises(UserError, match=said):
        liif_core.load(tmp_path / "changed.pth")


# What is refused


@pytest.mark.parametrize(
    "options, said",
    [
        ({"width": 30}, r"heads: each needs the same part of width \(30\), at least 2, got 16"),
        ({"width": 8, "heads": 8}, r"heads: each needs the same part of width \(8\), at least 2, got 8"),
        ({"width": 0}, "width: must be >= 2"),
        ({"heads": 0}, "heads: must be >= 1"),
        ({"hidden": 0}, "hidden: must be >= 1"),
    ],
)
def test_options_refused(registry, options, said):
    with pytest.raises(UserError, match=f"^test: model.decoder.{said}"):
        model_from_table(table(**options), registry, "test")


@pytest.mark.parametrize(
    "variant, said",
    [
        ({"conditioning": [CELL]}, r"decoder 'hiif' needs 'hierarchy' \(given: cell\).*use = \"hierarchy\""),
        ({"conditioning": [CELL, HIERARCHY, {"use": "coordinate"}]}, "'coordinate' would have no effect$"),
        ({"sampling": "nearest"}, "sampling: reads 1 codes, expected the 4 of 'local-ensemble'$"),
    ],
)
def test_compositions_refused(registry, variant, said):
    with pytest.raises(UserError, match=said):
        liif_core.build_model(model_from_table(table(**variant), registry, "test"))
