"""SwinIR: the contract, its attention written out plainly, what one code sees, and the published implementation."""

import json
import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import liif_core
from liif_core.experiment.toml_file import model_from_table
from liif_core.model.tile_plan import TilePlan
from liif_core.model.tiling import render_bands
from liif_core.testing import EncoderContract
from liif_core.testing.case import ContractBroken
from liif_core.testing.encoder import EncoderCase, receptive_radius
from liif_zoo.swinir import (
    SwinIR,
    SwinIROptions,
    WindowAttention,
    liif_encoders,
    liif_importers,
)

SMALL = {"groups": 2, "blocks": 2, "channels": 8, "heads": 2, "window": 4, "out_channels": 6}


class TestContract(EncoderContract):
    component = liif_encoders()
    options = SMALL


class TestOddDepth(EncoderContract):
    component = liif_encoders()
    options = {"groups": 2, "blocks": 3, "channels": 6, "heads": 3, "window": 2, "mlp_ratio": 1.5, "out_channels": 4}


class TestThePapersWindow(EncoderContract):
    component = liif_encoders()
    options = {"groups": 1, "blocks": 2, "channels": 6, "heads": 1, "out_channels": 4}


# Attention


def plain_attention(module, x, shift):
    """Attention of one image's tokens (h, w, C) as published code has it, one window, head and token at a time.

    The image is shifted cyclically, and -100 is added between tokens that were not neighbours before.
    """
    height, width, channels = x.shape
    window, size = module.window, channels // module.heads
    query, key, value = F.linear(x, module.qkv.weight, module.qkv.bias).chunk(3, dim=-1)

    def zone(place, side):
        return 0 if place < side - window else 1 if place < side - shift else 2

    result = torch.zeros_like(x)
    for top in range(0, height, window):
        for left in range(0, width, window):
            places = [(y, x) for y in range(top, top + window) for x in range(left, left + window)]
            rows, columns = ([p[axis] + shift for p in places] for axis in (0, 1))
            own = [row % height for row in rows], [column % width for column in columns]
            for head in range(module.heads):
                part = slice(head * size, (head + 1) * size)
                keys, values = key[own][:, part], value[own][:, part]
                for y, x_ in places:
                    logits = keys @ query[(y + shift) % height, (x_ + shift) % width, part] / size**0.5
                    for number, (row, column) in enumerate(places):
                        distance = (y - row + window - 1) * (2 * window - 1) + x_ - column + window - 1
                        logits[number] += module.position[distance, head]
                        if shift and (zone(y, height), zone(x_, width)) != (zone(row, height), zone(column, width)):
                            logits[number] -= 100
                    place = (y + shift) % height, (x_ + shift) % width
                    result[*place, part] = logits.softmax(0) @ values
    return F.linear(result, module.project.weight, module.project.bias)


def every_parameter_matters(module):
    torch.manual_seed(0)
    for parameter in module.double().requires_grad_(False).parameters():
        parameter.add_(torch.randn_like(parameter) * (0.5 if parameter.ndim > 1 else 0.1))
    return module


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("size", [(4, 4), (4, 8), (12, 4), (8, 12)])  # one window, and one high or wide, among them
def test_attention_written_out(size, shifted):
    options = SwinIROptions(channels=6, heads=2, window=4)
    module = every_parameter_matters(WindowAttention(options, shifted))
    tokens = torch.randn(2, *size, 6, dtype=torch.float64)
    expected = torch.stack([plain_attention(module, image, 2 if shifted else 0) for image in tokens])
    torch.testing.assert_close(module(tokens), expected, rtol=0, atol=1e-12)
    straight = WindowAttention(options, not shifted).double().requires_grad_(False)
    straight.load_state_dict(module.state_dict())
    assert (straight(tokens) - expected).abs().max() > 0.1  # the shift does show, even in a single window


def test_network_written_out():
    """Whole, with an odd number of blocks in each group: the next group starts without a shift again."""
    options = SwinIROptions(groups=2, blocks=3, channels=6, heads=2, window=4, mlp_ratio=1.5, out_channels=5)
    model = every_parameter_matters(SwinIR(options, in_channels=2))
    state = model.state_dict()

    def layer(name):
        return state[f"{name}.weight"], state[f"{name}.bias"]

    def conv(x, name):
        return F.conv2d(x, *layer(name), padding=1)

    def norm(x, name):
        variance, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
        weight, bias = layer(name)
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    def gelu(x):
        return x * (1 + torch.erf(x / 2**0.5)) / 2

    image = torch.rand(1, 2, 4, 8, dtype=torch.float64) * 2 - 1
    head = conv(image, "head")
    x = norm(head[0].permute(1, 2, 0), "head_norm")
    for group in range(2):
        start = x
        for block in range(3):
            name, shift = f"groups.{group}.blocks.{block}", 2 if block == 1 else 0
            attention = model.groups[group].blocks[block].attention
            x = x + plain_attention(attention, norm(x, f"{name}.attention_norm"), shift)
            hidden = gelu(F.linear(norm(x, f"{name}.mlp_norm"), *layer(f"{name}.mlp.0")))
            assert hidden.shape[-1] == 9
            x = x + F.linear(hidden, *layer(f"{name}.mlp.1"))
        x = start + conv(x.permute(2, 0, 1), f"groups.{group}.tail").permute(1, 2, 0)
    x = conv(head + conv(norm(x, "norm").permute(2, 0, 1), "tail"), "output")
    torch.testing.assert_close(model(image), torch.where(x > 0, x, 0.01 * x), rtol=0, atol=1e-10)


def test_under_autocast():
    torch.manual_seed(0)
    model = SwinIR(SwinIROptions(**SMALL), in_channels=3).eval()
    image = torch.rand(1, 3, 8, 12) * 2 - 1
    with torch.no_grad():
        expected = model(image)
        with torch.autocast("cpu", torch.bfloat16):
            found = model(image)
    assert found.dtype == torch.bfloat16 and expected.dtype == torch.float32
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.02 * expected.abs().max().item())


# What one code sees


def radius(groups, blocks, window):
    with torch.device("meta"):
        options = SwinIROptions(groups=groups, blocks=blocks, channels=2, heads=1, window=window)
        return SwinIR(options, in_channels=1).receptive_radius


def test_radius_of_the_paper():
    """By hand: of the places 0 to 7 in a window, 6 sees furthest.

    Three 3x3 convolutions back from it, 3 lies in the shifted window that begins at -4, and each of the other five
    blocks of the group adds half a window: -24. Each other group's convolution and six blocks add 24: -144. The first
    convolution adds one.
    """
    assert radius(groups=6, blocks=6, window=8) == 6 + 24 + 5 * 24 + 1


def test_radius_without_shifts():
    """By hand, one block: three convolutions back from place 2 lies the window before; from place 0, if it is small."""
    assert radius(groups=1, blocks=1, window=8) == 2 + 8 + 1
    assert radius(groups=1, blocks=1, window=2) == 0 + 4 + 1


THIN = {"channels": 4, "heads": 2, "out_channels": 3}
DEPTHS = [
    {"groups": 1, "blocks": 1, "window": 2},
    {"groups": 1, "blocks": 1, "window": 8},
    {"groups": 1, "blocks": 2, "window": 6},
    {"groups": 1, "blocks": 3, "window": 4},
    {"groups": 2, "blocks": 2, "window": 4},
]


@pytest.mark.parametrize("depth", DEPTHS, ids=str)
def test_radius_is_true(depth):
    receptive_radius(EncoderCase(liif_encoders(), SwinIROptions(**depth, **THIN)))


@pytest.mark.parametrize("depth", [*DEPTHS, {"groups": 6, "blocks": 6, "window": 8}], ids=str)
def test_one_less_than_the_radius_is_not_true(depth):
    component, truth = liif_encoders(), radius(**depth)

    def build(options, in_channels):
        module = component.build(options, in_channels=in_channels)
        module.receptive_radius -= 1
        return module

    case = EncoderCase(liif_core.Component("swinir", build, SwinIROptions), SwinIROptions(**depth, **THIN))
    with pytest.raises(ContractBroken, match=f"declared {truth - 1}, but a code depends on values {truth} away"):
        receptive_radius(case)


# In a model


def composed(registry, **options):
    table = {
        "encoder": {"use": "swinir", **options},
        "features": {"use": "unfold"},
        "sampling": {"use": "local-ensemble"},
        "conditioning": [{"use": "coordinate"}, {"use": "cell"}],
        "decoder": {"use": "mlp", "hidden": [16]},
    }
    return model_from_table(table, registry, "test")


def model_of(registry, **options):
    torch.manual_seed(0)
    model = liif_core.build_model(composed(registry, **options)).eval().requires_grad_(False)
    for parameter in model.encoder.groups.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.3 * (parameter.ndim > 1))
    return model


@pytest.mark.parametrize("height, width", [(13, 10), (8, 9), (5, 16)])
def test_sides_that_are_no_multiple(registry, height, width):
    """Mirrored to the right and below, without repeating the border, and cropped."""
    model = model_of(registry, groups=1, blocks=2, channels=6, heads=2, out_channels=4)
    image = torch.rand(2, 3, height, width)
    padded = F.pad(image * 2 - 1, (0, -width % 8, 0, -height % 8), mode="reflect")
    expected = model.encoder(padded)[:, :, :height, :width]
    torch.testing.assert_close(model.encode(image).field.features, expected, rtol=0, atol=1e-5)


def test_tiles_give_the_whole(registry):
    model = model_of(registry, **SMALL)
    image = torch.rand(1, 3, 75, 90)
    expected = model.encode(image).render((150, 200))

    def cut(halo):
        parts = []

        def read(rows, columns):
            parts.append((rows, columns))
            return image[:, :, rows, columns]

        bands = list(render_bands(model, read, (75, 90), (150, 200), TilePlan((20, 25), 60, halo, 0)))
        assert len(parts) == 16 and (slice(0, 75), slice(0, 90)) not in parts
        return (torch.cat(bands, dim=2) - expected).abs().max()

    assert cut(model.halo) <= 1e-5
    model.encoder.receptive_radius -= 8  # what lies at its end matters
    assert cut(model.halo) > 1e-4


@pytest.mark.parametrize(
    "options, said",
    [
        ({"groups": 0}, "groups: must be >= 1"),
        ({"blocks": 0}, "blocks: must be >= 1"),
        ({"window": 0}, "window: must be >= 2"),
        ({"window": 7}, "window: must be even, to be shifted by half, got 7"),
        ({"channels": 64}, "heads: 6 heads cannot share 64 channels evenly"),
        ({"heads": 7}, "heads: 7 heads cannot share 180 channels evenly"),
        ({"mlp_ratio": 0.0}, "mlp_ratio: must be > 0"),
        ({"mlp_ratio": 0.005}, "mlp_ratio: 0.005 leaves no hidden width for 180 channels"),
        ({"out_channels": 0}, "out_channels: must be >= 1"),
    ],
)
def test_options_that_cannot_work(registry, options, said):
    with pytest.raises(liif_core.UserError) as refused:
        composed(registry, **options)
    (problem,) = refused.value.problems
    assert problem.startswith(f"test: model.encoder.{said}")


def test_parameter_count_of_the_paper():
    with torch.device("meta"):
        model = SwinIR(SwinIROptions(), in_channels=3)
    norm, conv = 2 * 180, 9 * 180 * 180 + 180
    attention = (180 + 1) * 3 * 180 + (180 + 1) * 180 + 15 * 15 * 6
    mlp = (180 + 1) * 360 + (360 + 1) * 180
    group = 6 * (2 * norm + attention + mlp) + conv
    expected = (9 * 3 + 1) * 180 + norm + 6 * group + norm + conv + (9 * 180 + 1) * 64
    assert sum(p.numel() for p in model.parameters()) == expected
    assert sum(value.numel() for value in model.state_dict().values()) == expected  # no mask or index is stored
    # with the x2 upsampler, a convolution to 4 x 64 channels and one to RGB, the paper's 11.8M
    assert round((expected + (9 * 64 + 1) * 256 + (9 * 64 + 1) * 3) / 1e6, 1) == 11.8


# Published weights


@pytest.fixture(scope="module")
def golden(shared, tmp_path_factory):
    """The published network's outputs with parameters that anybody can draw."""
    content = torch.load(shared / "golden" / "liif-swinir.pth", weights_only=True)
    for name, shape in json.loads((shared / "golden" / "liif-swinir.json").read_text()).items():
        values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape) * 0.02
        if len(shape) == 1 and name.endswith("weight"):
            values += 1.0
        content["model"]["sd"][name] = torch.tensor(values, dtype=torch.float32)
    path = tmp_path_factory.mktemp("published") / "liif-swinir.pth"
    torch.save(content, path)
    with np.load(shared / "golden" / "liif-swinir.npz") as stored:
        data = {name: torch.tensor(stored[name]) for name in stored.files}
    return liif_core.load(path), data


def test_equal_to_the_published_implementation(golden):
    model, data = golden
    picture = model.encode(data["inp"])
    torch.testing.assert_close(picture.field.features, data["feat"], rtol=0, atol=1e-5)
    for grid in ("x2", "x3.3", "aniso"):
        size = tuple(data[f"size_{grid}"].tolist())
        torch.testing.assert_close(picture.render(size) * 2 - 1, data[f"out_{grid}"], rtol=0, atol=2e-5)
    colors = picture.query(data["coord_pts"], data["cell_pts"])
    torch.testing.assert_close(colors * 2 - 1, data["out_pts"], rtol=0, atol=2e-5)


def test_import_of_published_names():
    """Every parameter of a small network, and the buffers beside them, which are dropped."""
    state, names = {}, {}
    layers = {
        "conv_first": "head", "patch_embed.norm": "head_norm", "norm": "norm", "conv_after_body": "tail",
        "conv_before_upsample.0": "output", "layers.0.conv": "groups.0.tail", "layers.1.conv": "groups.1.tail",
    }  # fmt: skip
    for block in ("0.residual_group.blocks.0", "1.residual_group.blocks.0"):
        ours = f"groups.{block[0]}.blocks.0"
        for old, new in {
            "norm1": "attention_norm", "attn.qkv": "attention.qkv", "attn.proj": "attention.project",
            "norm2": "mlp_norm", "mlp.fc1": "mlp.0", "mlp.fc2": "mlp.1",
        }.items():  # fmt: skip
            layers[f"layers.{block}.{old}"] = f"{ours}.{new}"
        names[f"layers.{block}.attn.relative_position_bias_table"] = f"{ours}.attention.position"
        state |= {f"layers.{block}.attn_mask": None, f"layers.{block}.attn.relative_position_index": None}
    names |= {f"{old}.{part}": f"{new}.{part}" for old, new in layers.items() for part in ("weight", "bias")}
    values = {name: torch.tensor(float(number)) for number, name in enumerate(names)}
    arguments = {
        "embed_dim": 8, "depths": [1, 1], "num_heads": (2, 2), "window_size": 4, "mlp_ratio": 4,
        "img_size": 48, "patch_size": 1, "in_chans": 3, "qkv_bias": True, "ape": False, "resi_connection": "1conv",
        "upsampler": "pixelshuffle", "upscale": 2, "img_range": 1.0, "drop_path_rate": 0.1, "no_upsampling": True,
    }  # fmt: skip
    table, converted = liif_importers().convert(arguments, state | values)
    assert table == {
        "use": "swinir", "groups": 2, "blocks": 1, "channels": 8, "heads": 2, "window": 4, "mlp_ratio": 4.0,
    }  # fmt: skip
    assert converted == {names[name]: value for name, value in values.items()}
    with torch.device("meta"):
        model = SwinIR(SwinIROptions(**{key: value for key, value in table.items() if key != "use"}), in_channels=3)
    assert converted.keys() == model.state_dict().keys()


def test_import_of_no_arguments_is_the_paper():
    table, _ = liif_importers().convert({"no_upsampling": True}, {})
    assert table.pop("use") == "swinir"
    assert SwinIROptions(**table) == SwinIROptions()


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"depths": [6, 6, 4]}, r"depths \[6, 6, 4\] and num_heads"),
        ({"num_heads": [6, 6]}, r"num_heads \[6, 6\]: only the same in every group is known"),
        ({"num_heads": [6, 6, 6, 6, 6, 3]}, "only the same in every group"),
        ({"img_size": 8}, "img_size = 8: windows are shifted only if it exceeds window_size"),
        ({"img_size": [64, 8]}, r"img_size = \[64, 8\]"),
        ({"resi_connection": "3conv"}, "SwinIR with resi_connection = '3conv' is not known"),
        ({"upsampler": "nearest\\+conv"}, "SwinIR with upsampler = "),
        ({"ape": True}, "ape = True"),
        ({"patch_size": 2}, "patch_size = 2"),
        ({"img_range": 255.0}, "img_range = 255.0"),
        ({"gating": True}, "gating = True"),
    ],
)
def test_import_refuses_another_network(arguments, said):
    with pytest.raises(ValueError, match=said):
        liif_importers().convert(arguments, {})


@pytest.mark.parametrize("name", ["layers.6.conv.weight", "mean", "layers.0.residual_group.blocks.6.norm1.weight"])
def test_import_refuses_an_unknown_parameter(name):
    with pytest.raises(ValueError, match=f"SwinIR has no parameter for '{name}'"):
        liif_importers().convert({}, {"conv_first.weight": torch.zeros(1), name: torch.zeros(1)})
