"""The cell's largest scale, against the published evaluation's own formula."""

import pytest
import torch

from liif_core import Query, UserError
from liif_core.experiment.toml_file import model_from_table

GRID = (5, 8)


@pytest.fixture
def condition(registry):
    """The condition ``cell`` at one magnification for each axis."""

    def compute(scale, **options):
        component, _ = registry.find("conditioning", "cell")
        module = component.build(component.options(**options))
        cell = torch.tensor([2 / (size * s) for size, s in zip(GRID, scale)])
        return module(Query.points(torch.zeros(1, 3, 2), cell), None, GRID).expand(1, 1, 3, 2)[0, 0, 0]

    return compute


@pytest.mark.parametrize("scale", [(1, 1), (2.5, 4), (4, 4.001), (6, 6), (30, 3), (0.5, 100)])
def test_max_scale(condition, scale):
    """cell * max(s / max_scale, 1) along each axis."""
    for max_scale in (4.0, 1.0, 2.5):
        expected = [2 / s * max(s / max_scale, 1) for s in scale]
        torch.testing.assert_close(condition(scale, max_scale=max_scale), torch.tensor(expected), rtol=1e-6, atol=0)


@pytest.mark.parametrize("scale", [(1, 1), (30, 3), (1000, 1000)])
def test_off_by_default(condition, scale):
    torch.testing.assert_close(condition(scale), torch.tensor([2 / s for s in scale]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("value", [0, -4, True, "4"])
def test_bad_values_are_refused(registry, value):
    table = {"encoder": {"use": "edsr"}, "features": {"use": "identity"}, "sampling": {"use": "nearest"}}
    table |= {"decoder": {"use": "mlp"}, "conditioning": [{"use": "cell", "max_scale": value}]}
    with pytest.raises(UserError, match=r"t: model.conditioning\[0\].max_scale"):
        model_from_table(table, registry, "t")
