"""Feature unfolding: the codes as the paper joins them, and the convolution that never joins them."""

import pytest
import torch
from reference import small_model, unfolded


def field_of(registry, name, features, **options):
    component, _ = registry.find("features", name)
    module = component.build(component.options(**options), in_channels=features.shape[1])
    return module, module(features)


@pytest.mark.parametrize("size", [1, 3, 5, 7])
@pytest.mark.parametrize("shape", [(2, 3, 6, 5), (1, 1, 1, 1), (1, 4, 1, 7), (2, 2, 9, 2)])
def test_dense_is_the_neighbourhood(registry, size, shape):
    features = torch.rand(shape)
    module, field = field_of(registry, "unfold", features, size=size)
    expected = unfolded(features, size)
    assert module.channels == field.channels == expected.shape[1]
    assert module.radius == size // 2
    torch.testing.assert_close(field.dense(), expected, rtol=0, atol=0)
    assert field.features is features


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name, size", [("identity", 1), ("unfold", 1), ("unfold", 3), ("unfold", 5)])
def test_linear_is_a_linear_layer_on_dense_codes(registry, name, size, bias):
    features = torch.randn(2, 6, 5, 4)
    _, field = field_of(registry, name, features, **({"size": size} if name == "unfold" else {}))
    weight, shift = torch.randn(7, field.channels), torch.randn(7) if bias else None
    expected = torch.einsum("dc,bchw->bdhw", weight, unfolded(features, size))
    if bias:
        expected = expected + shift[:, None, None]
    torch.testing.assert_close(field.linear(weight, shift), expected, rtol=1e-5, atol=1e-5)


def test_identity_leaves_codes_as_they_are(registry):
    features = torch.rand(2, 3, 4, 5)
    module, field = field_of(registry, "identity", features)
    assert (module.channels, module.radius) == (3, 0)
    assert torch.equal(field.dense(), features)


def test_linear_materialises_nothing(registry, monkeypatch):
    """The fast path of a whole render makes no unfolded map."""
    model = small_model(registry)
    picture = model.encode(torch.rand(1, 3, 6, 5))

    def forbidden(*args, **kwargs):
        raise AssertionError("the unfolded map was made")

    monkeypatch.setattr(type(picture.field), "dense", forbidden)
    monkeypatch.setattr(torch.nn.functional, "unfold", forbidden)
    assert picture.render((9, 8)).shape == (1, 3, 9, 8)


@pytest.mark.parametrize("size", [0, 2, 4, 9, -3])
def test_an_even_or_large_square_is_refused(registry, size):
    component, _ = registry.find("features", "unfold")
    with pytest.raises(ValueError):
        component.options(size=size)
