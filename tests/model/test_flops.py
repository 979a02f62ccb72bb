"""Counting multiply-adds."""

import torch

from liif_core.model.flops import counter, format_multiply_adds


def test_matrix_products_are_counted():
    with counter() as counted:
        torch.nn.functional.linear(torch.ones(10, 300), torch.ones(500, 300))
    assert format_multiply_adds(counted, 10) == "150,000"


def test_element_wise_operations_are_not_called_zero():
    with counter() as counted:
        torch.ones(10) * torch.ones(10) + 1
    assert format_multiply_adds(counted, 10) == "not counted (only element-wise operations)"
