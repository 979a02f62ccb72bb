"""The formulas that benchmarks compare with give the colors and gradients of our decoders."""

from pathlib import Path

import pytest
import torch
from reference_outputs import module_at

import liif_core

FILE = Path(__file__).parents[2] / "benchmarks" / "formulas.py"
SMALL = {  # decoder -> features, and sizes that keep the test fast
    "mlp": ("unfold", {"hidden": [12, 10]}),
    "metasr": ("unfold", {"hidden": 12}),
    "lte": ("identity", {"channels": 8, "hidden": [12, 10]}),
    "lm-liif": ("unfold", {"width": 4, "depth": 3, "latent": [12, 10]}),
    "lm-lte": ("identity", {"width": 4, "depth": 3, "latent": [12], "channels": 8}),
    "srno": ("identity", {"width": 12, "heads": 3, "hidden": 10}),
}


@pytest.fixture(scope="module")
def formulas():
    return module_at(FILE)


def made(formulas, name):
    torch.manual_seed(0)
    features, options = SMALL[name]
    model = liif_core.compose(
        encoder={"use": "edsr", "blocks": 1, "channels": 4},
        features={"use": features},
        sampling={"use": "corner" if name == "metasr" else "local-ensemble"},
        conditioning=[{"use": "coordinate"}, {"use": "cell"}],
        decoder={"use": name, **options},
        residual="bilinear" if name in formulas.RESIDUAL else "none",
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


@pytest.mark.parametrize("name", SMALL)
def test_rendered(formulas, name):
    assert SMALL.keys() == formulas.FORMULAS.keys()
    model, image = made(formulas, name).eval(), torch.rand(2, 3, 6, 9)
    with torch.no_grad():
        features = model.encoder(image * 2 - 1)
        for size in ((12, 18), (17, 40)):
            ours = model.encode(image).render(size)
            plain = formulas.plain_decode(name, model, features, image, size, chunk=100)
            torch.testing.assert_close(plain, ours, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_trained(formulas, name):
    model, image, coord = made(formulas, name), torch.rand(2, 3, 6, 9), torch.rand(2, 40, 2) * 2 - 1
    target, cell = torch.rand(2, 40, 3), torch.tensor([0.1, 0.07])
    losses, gradients = [], []
    for forward in (lambda: model(image, coord, cell), lambda: formulas.plain_forward(name, model, image, coord, cell)):
        losses.append((forward() - target).square().mean())
        gradients.append(torch.autograd.grad(losses[-1], [*model.parameters()]))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=0)
    for ours, plain in zip(*gradients):
        torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-5)
