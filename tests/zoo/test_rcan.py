"""RCAN: the contract, its layers written out plainly, its size, and the published implementation."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import liif_core
from liif_core.experiment.toml_file import model_from_table
from liif_core.testing import EncoderContract
from liif_zoo.rcan import (
    RCAN,
    ChannelAttention,
    RCANOptions,
    liif_encoders,
    liif_importers,
)


class TestContract(EncoderContract):
    component = liif_encoders()
    options = {"groups": 2, "blocks": 2, "channels": 6, "reduction": 2}


class TestUnevenReduction(EncoderContract):
    component = liif_encoders()
    options = {"groups": 1, "blocks": 3, "channels": 11, "reduction": 4}


def attention(squeeze, excite, x):
    """The weights of an image's channels, (C, h, w) -> C numbers, one number at a time. Each layer: (weight, bias)."""
    means = [sum(x[c].flatten().tolist()) / x[c].numel() for c in range(len(x))]

    def layer(parts, values):
        weight, bias = (part.flatten(1).tolist() if part.ndim > 1 else part.tolist() for part in parts)
        return [sum(w * v for w, v in zip(row, values)) + b for row, b in zip(weight, bias)]

    inside = [max(0.0, value) for value in layer(squeeze, means)]
    return [1 / (1 + math.exp(-value)) for value in layer(excite, inside)]


def test_channel_attention_by_hand():
    torch.manual_seed(0)
    module = ChannelAttention(6, 2)
    layers = [(layer.weight.detach(), layer.bias.detach()) for layer in (module.squeeze, module.excite)]
    images = torch.randn(3, 6, 4, 5) * 3
    with torch.no_grad():
        found = module(images)
    assert found.shape == (3, 6, 1, 1)
    expected = torch.tensor([attention(*layers, image) for image in images])
    torch.testing.assert_close(found[:, :, 0, 0], expected, rtol=0, atol=1e-6)
    assert expected.std() > 0.05  # it does depend on what it sees


def test_output_written_out():
    """Against the paper's figures 2 and 4, in torch's functions only."""
    torch.manual_seed(0)
    model = RCAN(RCANOptions(groups=2, blocks=3, channels=6, reduction=3), in_channels=3)
    state = model.state_dict()

    def layer(name):
        return state[f"{name}.weight"], state[f"{name}.bias"]

    def conv(x, name):
        return F.conv2d(x, *layer(name), padding=1)

    image = torch.rand(1, 3, 7, 9) * 2 - 1
    x = head = conv(image, "head")
    for group in range(2):
        start = x
        for block in range(3):
            name = f"groups.{group}.blocks.{block}"
            change = conv(conv(x, f"{name}.first").relu(), f"{name}.second")
            weights = attention(layer(f"{name}.attention.squeeze"), layer(f"{name}.attention.excite"), change[0])
            x = x + change * torch.tensor(weights).view(1, -1, 1, 1)
        x = start + conv(x, f"groups.{group}.tail")
    expected = head + conv(x, "tail")
    with torch.no_grad():
        torch.testing.assert_close(model(image), expected, rtol=0, atol=1e-5)


def test_a_code_sees_the_whole_image():
    torch.manual_seed(0)
    model = RCAN(RCANOptions(groups=1, blocks=1, channels=8, reduction=2), in_channels=3)
    image = torch.rand(1, 3, 30, 40, requires_grad=True)
    model(image)[0, :, 0, 0].square().sum().backward()
    assert image.grad.abs().amax((0, 1)).gt(0).float().mean() > 0.9  # not where ReLUs are closed
    assert image.grad[..., -1, -1].any()
    assert model.receptive_radius is None and model.multiple_of == 1


@pytest.mark.parametrize("in_channels", [1, 3])
def test_parameter_count_of_the_paper(in_channels):
    with torch.device("meta"):
        model = RCAN(RCANOptions(), in_channels=in_channels)
    conv = 9 * 64 * 64 + 64
    attention = (64 + 1) * 4 + (4 + 1) * 64
    group = 20 * (2 * conv + attention) + conv
    count = sum(p.numel() for p in model.parameters())
    assert count == (9 * in_channels + 1) * 64 + 10 * group + conv
    # with the x4 upsampler, two convolutions to 4 x 64 channels and one to RGB, the paper's 16M
    assert round((count + 2 * (9 * 64 + 1) * 256 + (9 * 64 + 1) * 3) / 1e6) == 16


@pytest.mark.parametrize(
    "options, said",
    [
        ({"groups": 0}, "groups: must be >= 1"),
        ({"blocks": 0}, "blocks: must be >= 1"),
        ({"channels": 0}, "channels: must be >= 1"),
        ({"reduction": 0}, "reduction: must be >= 1"),
        ({"channels": 8}, "reduction: 16 leaves nothing of 8 channels"),
        ({"reduction": 65}, "reduction: 65 leaves nothing of 64 channels"),
    ],
)
def test_options_that_cannot_work(registry, options, said):
    table = {"encoder": {"use": "rcan", **options}, "features": {"use": "identity"}, "sampling": {"use": "nearest"}}
    with pytest.raises(liif_core.UserError) as refused:
        model_from_table({**table, "decoder": {"use": "mlp"}}, registry, "test")
    (problem,) = refused.value.problems
    assert problem.startswith(f"test: model.encoder.{said}")


# Published weights


@pytest.fixture(scope="module")
def golden(shared):
    with np.load(shared / "golden" / "liif-rcan.npz") as stored:
        data = {name: torch.tensor(stored[name]) for name in stored.files}
    return liif_core.load(shared / "golden" / "liif-rcan.pth"), data


def test_equal_to_the_published_implementation(golden):
    model, data = golden
    picture = model.encode(data["inp"])
    torch.testing.assert_close(picture.field.features, data["feat"], rtol=0, atol=1e-5)
    for grid in ("x2", "x3.3", "aniso"):
        size = tuple(data[f"size_{grid}"].tolist())
        torch.testing.assert_close(picture.render(size) * 2 - 1, data[f"out_{grid}"], rtol=0, atol=2e-5)
    colors = picture.query(data["coord_pts"], data["cell_pts"])
    torch.testing.assert_close(colors * 2 - 1, data["out_pts"], rtol=0, atol=2e-5)


def published(groups, blocks):
    """A state dict under the names that published RCAN encoders use, and what each is called here."""
    pairs = {"head.0": "head", f"body.{groups}": "tail"}
    for i in range(groups):
        pairs[f"body.{i}.body.{blocks}"] = f"groups.{i}.tail"
        for j in range(blocks):
            old, new = f"body.{i}.body.{j}.body", f"groups.{i}.blocks.{j}"
            pairs |= {f"{old}.0": f"{new}.first", f"{old}.2": f"{new}.second"}
            pairs |= {f"{old}.3.conv_du.0": f"{new}.attention.squeeze", f"{old}.3.conv_du.2": f"{new}.attention.excite"}
    names = {f"{old}.{part}": f"{new}.{part}" for old, new in pairs.items() for part in ("weight", "bias")}
    return {name: torch.tensor(float(number)) for number, name in enumerate(names)}, names


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ({"n_resgroups": 2, "n_resblocks": 3, "n_feats": 8, "reduction": 4, "no_upsampling": True}, (2, 3, 8, 4)),
        ({"n_resgroups": 1, "scale": 2, "rgb_range": 1}, (1, 20, 64, 16)),
        ({}, (10, 20, 64, 16)),
    ],
)
def test_import_of_published_names(arguments, expected):
    state, names = published(*expected[:2])
    extra = {f"{mean}.{part}": torch.zeros(3) for mean in ("sub_mean", "add_mean") for part in ("weight", "bias")}
    table, converted = liif_importers().convert(arguments, state | extra)
    assert table == {"use": "rcan", **dict(zip(("groups", "blocks", "channels", "reduction"), expected))}
    assert converted == {names[name]: value for name, value in state.items()}
    with torch.device("meta"):
        model = RCAN(RCANOptions(groups=expected[0], blocks=expected[1], channels=4, reduction=2), in_channels=3)
    assert converted.keys() == model.state_dict().keys()


@pytest.mark.parametrize("name", ["body.2.weight", "body.0.body.0.body.1.weight", "tail.0.weight", "means.weight"])
def test_import_refuses_an_unknown_parameter(name):
    state, _ = published(1, 1)
    with pytest.raises(ValueError, match=f"RCAN has no parameter for '{name}'"):
        liif_importers().convert({"n_resgroups": 1, "n_resblocks": 1}, state | {name: torch.zeros(1)})
