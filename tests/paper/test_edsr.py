"""EDSR: its size, what one code sees, its options and the names its published weights go by."""

import pytest
import torch

import liif_core
from liif_core.experiment.toml_file import model_from_table


def encoder(registry, in_channels=3, **options):
    component, _ = registry.find("encoder", "edsr")
    return component.build(component.options(**options), in_channels=in_channels)


def parameters(blocks, width, in_channels):
    """3x3 convolutions with bias: one in, two a block, one out."""
    return (9 * in_channels + 1) * width + (2 * blocks + 1) * (9 * width + 1) * width


@pytest.mark.parametrize("blocks, width", [(16, 64), (32, 256), (1, 4)])
@pytest.mark.parametrize("in_channels", [1, 3, 5])
def test_parameter_count(registry, blocks, width, in_channels):
    with torch.device("meta"):
        model = encoder(registry, in_channels, blocks=blocks, channels=width)
    assert sum(p.numel() for p in model.parameters()) == parameters(blocks, width, in_channels)


def test_full_edsr_is_the_paper_s_43_million():
    """The paper's table 1 counts 43M: with the x4 upsampler, two convolutions to 4 x 256 channels and one to RGB."""
    upsampler = 2 * (9 * 256 + 1) * 4 * 256 + (9 * 256 + 1) * 3
    assert round((parameters(32, 256, 3) + upsampler) / 1e6, 1) == 43.1


def test_defaults_are_the_baseline(registry):
    component, _ = registry.find("encoder", "edsr")
    options = component.options()
    assert (options.blocks, options.channels, options.residual_scale) == (16, 64, 1.0)


def test_output_written_out(registry):
    """Against the paper's figure 3 and section 3.2, in torch's functions only."""
    torch.manual_seed(0)
    model = encoder(registry, blocks=2, channels=6, residual_scale=0.1)
    state = model.state_dict()

    def conv(x, name):
        return torch.nn.functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)

    image = torch.rand(2, 3, 7, 9) * 2 - 1
    x = head = conv(image, "head")
    for block in range(2):
        x = x + 0.1 * conv(conv(x, f"blocks.{block}.first").relu(), f"blocks.{block}.second")
    expected = head + conv(x, "tail")
    with torch.no_grad():
        torch.testing.assert_close(model(image), expected, rtol=0, atol=1e-6)
        assert model(image).shape == (2, model.out_channels, 7, 9)


@pytest.mark.parametrize("blocks", [1, 3])
def test_receptive_radius_is_true_and_tight(registry, blocks):
    """Found by what the gradient of one code reaches: everything within the radius, nothing beyond."""
    torch.manual_seed(0)
    model = encoder(registry, blocks=blocks, channels=8).double()
    radius = model.receptive_radius
    side = 2 * radius + 9
    image = torch.rand(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    middle = side // 2
    model(image)[0, :, middle, middle].square().sum().backward()
    reached = image.grad[0].abs().sum(0).nonzero() - middle
    assert reached.abs().max().item() == radius


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (7, 2)])
def test_any_size_from_one_pixel(registry, size):
    model = encoder(registry, blocks=1, channels=4)
    assert model.multiple_of == 1
    assert model(torch.zeros(1, 3, *size)).shape == (1, 4, *size)


@pytest.mark.parametrize("option", ["blocks = 0", "channels = 0", "residual_scale = 0.0", "residual_scale = -1"])
def test_options_out_of_range(registry, option):
    key, value = option.split(" = ")
    table = base_table()
    table["encoder"][key] = float(value) if "scale" in key else int(value)
    with pytest.raises(liif_core.UserError) as refused:
        model_from_table(table, registry, "test")
    assert len(refused.value.problems) == 1
    assert refused.value.problems[0].startswith(f"test: model.encoder.{key}: must be ")


def base_table():
    return {
        "encoder": {"use": "edsr"},
        "features": {"use": "identity"},
        "sampling": {"use": "nearest"},
        "decoder": {"use": "mlp"},
    }


# Published weights


def published(blocks, width, extra=()):
    """A state dict under the names that published EDSR encoders use."""
    names = [f"body.{block}.body.{layer}" for block in range(blocks) for layer in (0, 2)]
    state = {"head.0.weight": torch.rand(width, 3, 3, 3), "head.0.bias": torch.rand(width)}
    for name in [*names, f"body.{blocks}"]:
        state |= {f"{name}.weight": torch.rand(width, width, 3, 3), f"{name}.bias": torch.rand(width)}
    return state | {name: torch.zeros(3) for name in extra}


@pytest.mark.parametrize(
    "name, arguments, expected",
    [
        ("edsr-baseline", {}, (16, 64, 1.0)),
        ("edsr", {}, (32, 256, 0.1)),
        ("edsr-baseline", {"n_resblocks": 2, "n_feats": 8, "no_upsampling": True}, (2, 8, 1.0)),
        ("edsr", {"n_resblocks": 3, "n_feats": 4, "res_scale": 0.2}, (3, 4, 0.2)),
        ("edsr-baseline", {"n_resblocks": 1, "n_feats": 4, "res_scale": 1}, (1, 4, 1.0)),
    ],
)
def test_import_of_published_names(registry, name, arguments, expected):
    blocks, width, scale = expected
    small = min(width, 8)  # the table is what says the width; the state's shapes are checked later
    table, state = registry.importer("encoder", name).convert(arguments, published(blocks, small))
    assert table == {"use": "edsr", "blocks": blocks, "channels": width, "residual_scale": scale}
    with torch.device("meta"):
        model = encoder(registry, blocks=blocks, channels=small)
    assert {n: v.shape for n, v in model.state_dict().items()} == {n: v.shape for n, v in state.items()}


def test_import_keeps_each_tensor_at_its_place(registry):
    old = published(2, 4)
    _, new = registry.importer("encoder", "edsr-baseline").convert({"n_resblocks": 2, "n_feats": 4}, old)
    pairs = {
        "head.0": "head",
        "body.0.body.0": "blocks.0.first",
        "body.0.body.2": "blocks.0.second",
        "body.1.body.0": "blocks.1.first",
        "body.1.body.2": "blocks.1.second",
        "body.2": "tail",
    }
    assert len(new) == 2 * len(pairs) == len(old)
    for before, after in pairs.items():
        for part in ("weight", "bias"):
            assert torch.equal(new[f"{after}.{part}"], old[f"{before}.{part}"])


def test_import_ignores_the_mean_shifts(registry):
    extra = ["sub_mean.weight", "sub_mean.bias", "add_mean.weight", "add_mean.bias"]
    _, state = registry.importer("encoder", "edsr").convert({"n_resblocks": 1, "n_feats": 4}, published(1, 4, extra))
    assert not [name for name in state if "mean" in name]


def test_import_refuses_an_unknown_parameter(registry):
    with pytest.raises(ValueError, match="'body.0.gate.weight'"):
        arguments = {"n_resblocks": 1, "n_feats": 4}
        registry.importer("encoder", "edsr").convert(arguments, published(1, 4, ["body.0.gate.weight"]))
