"""The encoder with re-parametrised convolutions: its contract, its branches written out, and folded checkpoints."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

import liif_core
from liif_core.experiment.toml_file import model_from_table
from liif_core.testing import EncoderContract
from liif_core.training.checkpoint import model_of
from liif_zoo.rep import Rep, RepConv, RepOptions, fold, main


class TestContract(EncoderContract):
    component = "liif-core:rep"
    options = {"blocks": 2, "channels": 6}


class TestFolded(EncoderContract):
    component = "liif-core:rep"
    options = {"blocks": 1, "channels": 5, "folded": True}


class TestAsWideAsTheImage(EncoderContract):
    component = "liif-core:rep"
    options = {"blocks": 1, "channels": 3, "expand": 3}


def randomized(module):
    """The same module with random parameters, zeros included."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return module


def branches(x, state, name):
    """Each branch of a convolution computed by itself, on an image with zeros around it."""
    weight, bias, point, entry, leave = (
        state[f"{name}.{part}"] for part in ("weight", "bias", "point", "entry", "exit")
    )
    total = F.conv2d(x, weight, bias, padding=1) + F.conv2d(x, point[:, :, None, None])
    total = total + F.conv2d(F.conv2d(x, entry[:, :, None, None]), leave, padding=1)
    scale = state.get(f"{name}.scale")
    return total if scale is None else total + scale.view(1, -1, 1, 1) * x


def written_out(image, state, blocks):
    x = head = branches(image, state, "head")
    for block in range(blocks):
        x = x + branches(branches(x, state, f"blocks.{block}.first").relu(), state, f"blocks.{block}.second")
    return head + branches(x, state, "tail")


@pytest.mark.parametrize("in_channels", [1, 3, 6])
@pytest.mark.parametrize("graph", [False, True], ids=["rendered", "as in training"])
def test_output_written_out_in_branches(in_channels, graph):
    model = randomized(Rep(RepOptions(blocks=2, channels=6, expand=3), in_channels)).train(graph)
    assert ("head.scale" in model.state_dict()) == (in_channels == 6)
    image = torch.rand(2, in_channels, 7, 9) * 2 - 1
    expected = written_out(image, model.state_dict(), 2)
    with torch.set_grad_enabled(graph):
        found = model(image)
    assert found.requires_grad == graph
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def test_gradients_are_those_of_the_branches():
    model = randomized(Rep(RepOptions(blocks=1, channels=4), 3))
    image = torch.rand(1, 3, 6, 5) * 2 - 1
    learned = dict(model.named_parameters())
    found = torch.autograd.grad(model(image).square().sum(), list(learned.values()))
    expected = torch.autograd.grad(written_out(image, learned, 1).square().sum(), list(learned.values()))
    for name, one, other in zip(learned, found, expected):
        assert other.any(), name
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4 * other.abs().max().item(), msg=name)


def test_rendering_follows_the_parameters():
    """Nothing of an earlier rendering is kept."""
    model, image = Rep(RepOptions(blocks=1, channels=4), 3).eval(), torch.rand(1, 3, 6, 5)
    with torch.no_grad():
        model(image)
        randomized(model)
        expected = written_out(image, model.state_dict(), 1)
        torch.testing.assert_close(model(image), expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def test_a_training_step_computes_each_convolution_once():
    """About the multiply-adds of plain convolutions: what kernels cost does not depend on the image."""
    counts = {}
    image = torch.rand(1, 3, 40, 40)
    for folded in (False, True):
        model = Rep(RepOptions(blocks=1, channels=8, folded=folded), 3)
        with FlopCounterMode(display=False) as counter:
            model(image)
        counts[folded] = counter.get_total_flops()
    assert counts[True] == 2 * 40 * 40 * 9 * 8 * (3 + 3 * 8)
    kernels = 2 * 9 * 8 * 16 * (3 + 3 * 8)
    assert counts[False] == counts[True] + kernels


def test_kernels_are_of_single_precision_under_autocast():
    layer = randomized(RepConv(8, 8, 2))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer.kernel(), layer.kernel().float()) and layer.kernel().dtype == torch.float32
        inside = layer.kernel()
    assert torch.equal(inside, layer.kernel())


@pytest.mark.parametrize("blocks, channels, expand, in_channels", [(8, 48, 2, 3), (2, 4, 3, 1)])
def test_parameters_counted_by_hand(blocks, channels, expand, in_channels):
    def count(folded):
        with torch.device("meta"):
            model = Rep(RepOptions(blocks, channels, expand, folded), in_channels)
        return sum(parameter.numel() for parameter in model.parameters())

    convolutions = 2 * blocks + 1
    plain = (9 * in_channels + 1) * channels + convolutions * (9 * channels + 1) * channels
    wide = expand * channels
    more = channels * in_channels + wide * (in_channels + 9 * channels)
    more += convolutions * (channels * channels + channels + wide * 10 * channels)
    assert count(folded=True) == plain
    assert count(folded=False) == plain + more


@pytest.mark.parametrize("folded", [False, True])
def test_blocks_that_are_added_change_nothing_at_first(folded):
    small = randomized(Rep(RepOptions(2, 6, folded=folded), 3))
    large = Rep(RepOptions(4, 6, folded=folded, zero_blocks=True), 3)
    left_out = large.load_state_dict(small.state_dict(), strict=False)
    assert {name.partition(".")[2][0] for name in left_out.missing_keys} == {"2", "3"} and not left_out.unexpected_keys
    image = torch.rand(1, 3, 9, 8)
    torch.testing.assert_close(large(image), small(image), rtol=0, atol=0)
    large(image).square().sum().backward()
    last = large.blocks[3].second
    assert all(value.grad.any() for value in ((last.weight, last.bias) if folded else (last.weight, last.exit)))


@pytest.mark.parametrize("option", ["blocks", "channels", "expand"])
def test_options_that_cannot_work(registry, option):
    table = {"encoder": {"use": "rep", option: 0}, "features": {"use": "identity"}, "sampling": {"use": "nearest"}}
    with pytest.raises(liif_core.UserError, match=f"^test: model.encoder.{option}: must be >= 1"):
        model_from_table({**table, "decoder": {"use": "mlp"}}, registry, "test")


# Folded checkpoints


@pytest.fixture
def trained(registry):
    """A checkpoint, and its model."""
    table = {
        "encoder": {"use": "rep", "blocks": 2, "channels": 6},
        "features": {"use": "identity"},
        "sampling": {"use": "nearest"},
        "decoder": {"use": "mlp", "hidden": [8]},
    }
    model = randomized(liif_core.build_model(model_from_table(table, registry, "test"))).eval()
    return liif_core.Checkpoint(model.state_dict(), {"name": "trained", "model": table}, scale=(1.0, 4.0)), model


def test_a_folded_checkpoint_is_a_model_of_plain_convolutions(registry, trained):
    checkpoint, model = trained
    before = {name: value.clone() for name, value in checkpoint.state.items()}
    folded = fold(checkpoint)
    assert folded.scale == (1.0, 4.0) and folded.experiment["model"]["encoder"] == {
        "use": "rep", "blocks": 2, "channels": 6, "folded": True,
    }  # fmt: skip
    small = model_of(folded, registry, "folded").eval()
    assert all(type(layer) is torch.nn.Conv2d for layer in small.modules() if isinstance(layer, torch.nn.Conv2d))
    image = torch.rand(1, 3, 7, 9)
    with torch.no_grad():
        expected = model.encode(image).render((20, 21))
        torch.testing.assert_close(small.encode(image).render((20, 21)), expected, rtol=0, atol=1e-5)
    assert "folded" not in checkpoint.experiment["model"]["encoder"]
    assert before.keys() == checkpoint.state.keys()
    assert all(torch.equal(value, checkpoint.state[name]) for name, value in before.items())


def test_command(trained, tmp_path):
    checkpoint, model = trained
    source, target = tmp_path / "trained.safetensors", tmp_path / "small.safetensors"
    liif_core.save_checkpoint(source, checkpoint)
    subprocess.run([sys.executable, "-m", "liif_zoo.rep", source, target], check=True)
    image = torch.rand(1, 3, 7, 9)
    with torch.no_grad():
        found, expected = (one.encode(image).render((20, 21)) for one in (liif_core.load(target), model))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert target.stat().st_size < source.stat().st_size / 2


def test_command_refuses(trained, tmp_path, capsys):
    checkpoint, _ = trained
    source, target = tmp_path / "trained.safetensors", tmp_path / "small.safetensors"
    liif_core.save_checkpoint(source, checkpoint)

    def refused(*arguments):
        with pytest.raises(SystemExit) as left:
            main(list(map(str, arguments)))
        assert left.value.code == 2
        return capsys.readouterr().err

    before = source.read_bytes()
    assert "trained.safetensors: already exists; choose another name" in refused(source, source)
    assert source.read_bytes() == before
    assert "cannot be read" in refused(tmp_path / "none.safetensors", target)
    main([str(source), str(target)])
    assert 'expected use = "rep" without folded = true' in refused(target, tmp_path / "again.safetensors")
    other = liif_core.Checkpoint({}, {"model": {"encoder": {"use": "edsr"}}})
    with pytest.raises(liif_core.UserError, match=r"model.encoder: expected .* got \{'use': 'edsr'\}"):
        fold(other)
    assert not (tmp_path / "again.safetensors").exists()
