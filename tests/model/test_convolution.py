"""Convolutions with the operation that follows, against torch's own in double precision."""

import copy

import pytest
import torch
from torch import nn

from liif_core.model import convolution as module
from liif_core.model.convolution import fused_conv

LAYERS = {
    "3x3": {"kernel_size": 3, "padding": 1},
    "1x1": {"kernel_size": 1},
    "no bias": {"kernel_size": 3, "padding": 1, "bias": False},
    "strided, in groups": {"kernel_size": 3, "padding": (1, 2), "stride": 2, "dilation": 2, "groups": 2},
    "same": {"kernel_size": 3, "padding": "same"},
    "mirrored": {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
}


@pytest.mark.parametrize("fusible", [True, False])
@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize("summed", [True, False])
@pytest.mark.parametrize("then", ["none", "relu"])
@pytest.mark.parametrize("kind", LAYERS)
def test_values_and_gradients(monkeypatch, kind, then, summed, gradient, fusible):
    if not fusible:
        monkeypatch.setattr(module, "FUSED", False)
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 6, **LAYERS[kind])
    x = torch.randn(2, 8, 11, 7).contiguous(memory_format=torch.channels_last).requires_grad_()
    exact, given = copy.deepcopy(layer).double(), x.detach().double().requires_grad_()
    plain = exact(given)
    plus = torch.randn(plain.shape) if summed else None
    kept = None if plus is None else plus.clone()
    expected = plain if plus is None else plain + plus.double()
    expected = expected.relu() if then == "relu" else expected
    with torch.set_grad_enabled(gradient):
        result = fused_conv(x, layer, then, plus)
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-5)
    assert plus is None or torch.equal(plus, kept)
    if gradient:
        found = torch.autograd.grad(result.square().sum(), [x, *layer.parameters()])
        wanted = torch.autograd.grad(expected.square().sum(), [given, *exact.parameters()])
        for mine, reference in zip(found, wanted):
            torch.testing.assert_close(mine.double(), reference, rtol=1e-4, atol=1e-4)


def test_changed_weights_are_used():
    layer, x = nn.Conv2d(4, 4, 3, padding=1), torch.randn(1, 4, 6, 6)
    with torch.no_grad():
        for _ in range(2):
            layer.weight.normal_()
            torch.testing.assert_close(fused_conv(x, layer, "relu"), layer(x).relu(), rtol=1e-5, atol=1e-5)


def test_hooks_of_a_layer_are_called():
    layer, seen = nn.Conv2d(4, 4, 3, padding=1), []
    layer.register_forward_hook(lambda *_: seen.append("after"))
    layer.register_forward_pre_hook(lambda *_: seen.append("before"))
    with torch.no_grad():
        fused_conv(torch.randn(1, 4, 6, 6), layer, "relu")
    assert seen == ["before", "after"]


@pytest.mark.parametrize("summed", [True, False])
def test_under_autocast(summed):
    torch.manual_seed(0)
    layer, x = nn.Conv2d(16, 16, 3, padding=1), torch.randn(1, 16, 9, 9)
    plus = torch.randn(1, 16, 9, 9) if summed else None
    with torch.no_grad():
        expected = layer(x) if plus is None else layer(x) + plus
        with torch.autocast("cpu", torch.bfloat16):
            found = fused_conv(x, layer, "none", plus)
    torch.testing.assert_close(found.float(), expected, rtol=2e-2, atol=3e-2)
    assert not torch.equal(found.float(), expected)


@pytest.mark.skipif(not module.FUSED, reason="this build of torch has no oneDNN")
@pytest.mark.parametrize("summed", [True, False])
def test_one_kernel_where_no_gradient_is_recorded(summed):
    layer, x = nn.Conv2d(4, 4, 3, padding=1), torch.randn(1, 4, 6, 6)
    with torch.no_grad(), torch.profiler.profile() as profile:
        fused_conv(x, layer, "relu", x if summed else None)
    names = {event.key for event in profile.key_averages()}
    assert any("mkldnn::_convolution_pointwise" in name for name in names)
    assert not names & {"aten::add", "aten::relu", "aten::relu_"}
