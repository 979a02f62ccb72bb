"""Gradients of blending and of plane waves, against torch's own."""

import math

import pytest
import torch

from liif_core import blend
from liif_core.nn import fourier_features


def gradients(result, tensors):
    torch.manual_seed(1)
    return torch.autograd.grad(result, tensors, torch.randn(result.shape, dtype=result.dtype))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("neighbours", [1, 4])
@pytest.mark.parametrize("of_weight", [True, False])
def test_gradients_of_blend(shared, neighbours, of_weight):
    torch.manual_seed(0)
    values = torch.randn(neighbours, 2, 3, 5, 6).double().requires_grad_()
    weight = torch.rand(neighbours, 1 if shared else 2, 3, 5).double()
    weight = (weight / weight.sum(0)).requires_grad_(of_weight)
    wanted = [values, weight] if of_weight and neighbours > 1 else [values]
    found = gradients(blend(values, weight), wanted)
    for mine, expected in zip(found, gradients((values * weight.unsqueeze(-1)).sum(0), wanted)):
        torch.testing.assert_close(mine, expected)


def test_blend_of_half_precision_sums_in_float32():
    torch.manual_seed(0)
    values, weight = torch.randn(4, 1, 50, 8).bfloat16().requires_grad_(), torch.rand(4, 1, 50)
    result = blend(values, weight)
    torch.testing.assert_close(result, (values.float() * weight.unsqueeze(-1)).sum(0))
    (grad,) = gradients(result, [values])
    assert grad.dtype == torch.bfloat16


def test_blend_keeps_its_weights_alone():
    values, weight = torch.randn(4, 1, 50, 8, requires_grad=True), torch.rand(4, 1, 50)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        blend(values, weight)
    assert kept == [weight.data_ptr()]


@pytest.mark.parametrize("wanted", [(True, True, False, True), (False, False, True, False), (True,) * 4])
def test_gradients_of_plane_waves(wanted):
    torch.manual_seed(0)
    shapes = (4, 2, 5, 8), (4, 2, 5, 8), (4, 1, 5, 2), (1, 1, 1, 4)
    tensors = [torch.randn(shape).requires_grad_(own) for shape, own in zip(shapes, wanted)]
    amplitude, frequency, offset, phase = exact = [t.detach().double().requires_grad_(t.requires_grad) for t in tensors]
    z = frequency[..., :4] * offset[..., :1] + frequency[..., 4:] * offset[..., 1:] + phase
    expected = amplitude * torch.cat([(math.pi * z).cos(), (math.pi * z).sin()], dim=-1)
    result = fourier_features(*tensors)
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-5)
    chosen = [i for i, own in enumerate(wanted) if own]
    found = gradients(result, [tensors[i] for i in chosen])
    torch.manual_seed(1)
    slope = torch.randn(result.shape).double()
    for mine, reference in zip(found, torch.autograd.grad(expected, [exact[i] for i in chosen], slope)):
        torch.testing.assert_close(mine.double(), reference, rtol=1e-4, atol=1e-4)


def test_plane_waves_keep_their_angles():
    amplitude, frequency = (torch.randn(4, 1, 50, 8, requires_grad=True) for _ in range(2))
    phase = torch.randn(4, requires_grad=True)
    numbers = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: numbers.append(t.numel()) or t, lambda t: t):
        fourier_features(amplitude, frequency, torch.randn(4, 1, 50, 2), phase)
    assert sum(numbers) == 4 * 50 * (8 + 4 + 2)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: blend(x, torch.rand(4, 1, 5)),
        lambda x: fourier_features(x, x, torch.rand(4, 1, 5, 2), torch.rand(4)),
    ],
)
def test_gradients_of_gradients_are_refused(call):
    x = torch.rand(4, 1, 5, 8, requires_grad=True)
    (grad,) = torch.autograd.grad(call(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        grad.sum().backward()
