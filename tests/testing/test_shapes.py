"""The tests check the shapes that annotations state. Users pay nothing for that."""

import subprocess
import sys

import pytest
import torch
from jaxtyping import TypeCheckError

from liif_core.model.composed import ComposedModel
from liif_core.model.gathering import as_rows, blend, gather
from liif_core.model.protocols import Query
from liif_core.testing.reference import ReferenceField


@pytest.mark.parametrize(
    "call",
    [
        lambda: blend(torch.ones(4, 2, 5, 3), torch.ones(4, 2, 6)),
        lambda: blend(torch.ones(4, 2, 5, 3), torch.ones(3, 2, 5)),
        lambda: gather(torch.ones(1, 6, 3), torch.ones(4, 1, 5)),  # float indices
        lambda: as_rows(torch.ones(3, 4, 5)),
        lambda: Query.grid(torch.ones(3, 1), torch.ones(4), torch.ones(2)),
        lambda: ReferenceField(torch.ones(1, 3, 4, 4), torch.ones(2, 3, 4, 4)),
        lambda: ComposedModel.encoded(None, torch.ones(3, 4, 4)),
    ],
)
def test_a_wrong_shape_is_noticed(call):
    with pytest.raises(TypeCheckError):
        call()


def test_right_shapes_pass():
    assert blend(torch.ones(4, 2, 5, 3), torch.ones(4, 1, 5)).shape == (2, 5, 3)
    assert gather(as_rows(torch.ones(1, 6, 3, 3)), torch.zeros(4, 1, 5, dtype=torch.int64)).shape == (4, 1, 5, 6)


def test_a_wrong_result_is_noticed():
    field = ReferenceField(torch.ones(1, 3, 4, 4), torch.ones(1, 3, 4, 4))
    field.features = torch.ones(3, 4, 4)
    with pytest.raises(TypeCheckError, match="return value"):
        field.dense()


def test_users_load_neither_jaxtyping_nor_torch_early():
    code = """
import sys
import liif_core
assert "torch" not in sys.modules and "jaxtyping" not in sys.modules
from torch import Tensor
from liif_core.shapes import Float
import liif_core.model.composed, liif_core.testing, liif_paper.mlp
assert Float[Tensor, "B c h w"] is Tensor and "jaxtyping" not in sys.modules and "beartype" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
