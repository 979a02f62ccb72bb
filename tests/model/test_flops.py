"""Counting multiply-adds."""

import pytest
import torch

from liif_core.model.convolution import fused_conv
from liif_core.model.flops import counter, format_multiply_adds
from liif_core.model.linear import fused_linear, onednn_is_faster


def test_matrix_products_are_counted():
    with counter() as counted:
        torch.nn.functional.linear(torch.ones(10, 300), torch.ones(500, 300))
    assert format_multiply_adds(counted, 10) == "150,000"


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("plus", [None, torch.ones(2, 5, 8, 9)])
@pytest.mark.parametrize("gradient", [True, False])
def test_convolutions_are_counted(gradient, plus, bias):
    layer = torch.nn.Conv2d(4, 5, 3, padding=1, bias=bias)
    with counter() as counted, torch.set_grad_enabled(gradient):
        fused_conv(torch.ones(2, 4, 8, 9), layer, "relu", plus)
    assert format_multiply_adds(counted, 1) == f"{2 * 8 * 9 * 5 * 4 * 9:,}"


def test_element_wise_operations_are_not_called_zero():
    with counter() as counted:
        torch.ones(10) * torch.ones(10) + 1
    assert format_multiply_adds(counted, 10) == "not counted (only element-wise operations)"


def test_the_choice_of_a_library_is_not_counted():
    """It is measured by products of its own, at the first layer that is trained."""
    onednn_is_faster.cache_clear()
    x, weight = torch.ones(40, 300), torch.ones(500, 300, requires_grad=True)
    with counter() as counted:
        fused_linear(x, weight, None, "gelu")
    assert format_multiply_adds(counted, 40) == "150,000"
