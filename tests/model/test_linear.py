"""Linear layers, with and without gradients, against torch's own in double precision."""

import logging

import pytest
import torch
import torch.nn.functional as F

from liif_core.model import linear as module
from liif_core.model.linear import float32_linear, fused_linear, linear

AFTER = {"none": lambda x: x, "relu": torch.relu, "gelu": F.gelu}
LARGE, SMALL, WIDE = (300, 96, 64), (7, 5, 3), (2, 150, 64, 80)  # several rows, then in and out


@pytest.fixture(params=[True, False], ids=["onednn", "blas"])
def library(request, monkeypatch):
    if request.param and not module.FUSED:
        pytest.skip("this build of torch has no oneDNN")
    monkeypatch.setattr(module, "onednn_is_faster", lambda: request.param)


def made(shape, bias, dtype=torch.float32):
    torch.manual_seed(0)
    *rows, given, out = shape
    values = torch.randn(*rows, given), torch.randn(out, given), torch.randn(out) if bias else None
    return [None if value is None else value.to(dtype).requires_grad_() for value in values]


@pytest.mark.parametrize("then", AFTER)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [LARGE, SMALL, WIDE])
def test_values_and_gradients(library, shape, bias, then):
    ours, exact = made(shape, bias), made(shape, bias, torch.float64)
    result = fused_linear(*ours, then)
    expected = AFTER[then](F.linear(*exact))
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(fused_linear(*ours, then).double(), expected, rtol=1e-5, atol=1e-4)
    slope = torch.randn(result.shape)
    result.backward(slope)
    expected.backward(slope.double())
    for mine, reference in zip(ours, exact):
        if mine is not None:
            torch.testing.assert_close(mine.grad.double(), reference.grad, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_only_the_gradients_that_are_wanted(library, wanted):
    tensors = [tensor.detach() for tensor in made(LARGE, True)]
    tensors[wanted].requires_grad_()
    fused_linear(*tensors, "relu").sum().backward()
    exact = [tensor.detach().double() for tensor in tensors]
    exact[wanted].requires_grad_()
    F.linear(*exact).relu().sum().backward()
    torch.testing.assert_close(tensors[wanted].grad.double(), exact[wanted].grad, rtol=1e-5, atol=1e-4)


@pytest.mark.skipif(not module.FUSED, reason="this build of torch has no oneDNN")
def test_relu_keeps_no_more_than_inputs_and_result():
    x, weight, bias = made(LARGE, True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        result = fused_linear(x, weight, bias, "relu")
    assert {*kept} == {x.data_ptr(), weight.data_ptr(), result.data_ptr()}


def test_gradients_of_gradients_are_refused(library):
    x, weight, bias = made(LARGE, True)
    (grad,) = torch.autograd.grad(fused_linear(x, weight, bias, "relu").square().sum(), x, create_graph=True)
    if module.FUSED:
        with pytest.raises(RuntimeError, match="differentiate twice"):
            grad.sum().backward()


@pytest.mark.skipif(not module.FUSED, reason="this build of torch has no oneDNN")
@pytest.mark.parametrize("times, faster", [((1.0, 1.0), False), ((1.2, 1.0), False), ((2.0, 1.0), True)])
def test_the_library_changes_only_for_a_clear_gain(monkeypatch, caplog, times, faster):
    """A clock that gives BLAS and oneDNN the times in turn."""
    ticks = iter([t for _ in range(5) for seconds in times for t in (0.0, seconds)])
    monkeypatch.setattr(module, "_clock", lambda: next(ticks))
    with caplog.at_level(logging.INFO, logger=module.__name__):
        assert module.onednn_is_faster.__wrapped__() is faster
    assert f"use {'oneDNN' if faster else 'BLAS'}; GFLOP/s per core: BLAS " in caplog.text


def test_the_measurement_leaves_random_numbers_and_threads_alone():
    threads = torch.get_num_threads()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    module.onednn_is_faster.cache_clear()
    module.onednn_is_faster()
    assert torch.equal(torch.rand(1), expected) and torch.get_num_threads() == threads


@pytest.mark.parametrize("gradient", [True, False])
def test_float32_linear_ignores_autocast(gradient):
    x, weight, bias = made(LARGE, True)
    with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(gradient):
        half, whole = linear(x, weight, bias), float32_linear(x.bfloat16(), weight, bias)
    assert half.dtype == torch.bfloat16 and whole.dtype == torch.float32
    torch.testing.assert_close(whole, F.linear(x.bfloat16().float(), weight, bias), rtol=1e-5, atol=1e-4)
    exact = F.linear(x.bfloat16().double(), weight.bfloat16().double(), bias.double())
    torch.testing.assert_close(half.double(), exact, rtol=2e-2, atol=0.2)


def test_weights_of_any_strides():
    weight = torch.randn(96, 200)[:, 50:146]
    x = torch.randn(300, 96)
    torch.testing.assert_close(linear(x, weight), x @ weight.t(), rtol=1e-5, atol=1e-4)
