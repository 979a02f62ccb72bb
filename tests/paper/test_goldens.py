"""Equal to the published implementation: outputs and training, from reference files made with it."""

import numpy as np
import pytest
import torch

import liif_core
from liif_core.training.checkpoint import model_of

NAMES = ["liif", "liif-no-ensemble", "liif-no-unfold", "liif-no-cell", "liif-plain", "liif-edsr"]


@pytest.fixture(scope="module", params=NAMES)
def golden(request, shared):
    folder = shared / "golden"
    model = liif_core.load(folder / f"{request.param}.pth")
    with np.load(folder / f"{request.param}.npz") as stored:
        data = {name: stored[name] for name in stored.files}
    return model, model.encode(torch.tensor(data["inp"])), data


def network_output(colors):
    """From [0, 1] space to what the network itself put out."""
    return colors.numpy() * 2 - 1


def test_features(golden):
    _, picture, data = golden
    np.testing.assert_allclose(picture.field.features.numpy(), data["feat"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("grid", ["x2", "x3.3", "aniso"])
def test_grids(golden, grid):
    _, picture, data = golden
    size = tuple(int(n) for n in data[f"size_{grid}"])
    np.testing.assert_allclose(network_output(picture.render(size)), data[f"out_{grid}"], rtol=0, atol=2e-5)


def test_scattered_points(golden):
    model, picture, data = golden
    points = torch.tensor(data["coord_pts"]), torch.tensor(data["cell_pts"])
    np.testing.assert_allclose(network_output(picture.query(*points)), data["out_pts"], rtol=0, atol=2e-5)
    in_one_call = model(torch.tensor(data["inp"]), *points)
    np.testing.assert_allclose(network_output(in_one_call), data["out_pts"], rtol=0, atol=2e-5)


def test_training(shared, registry):
    """Six steps of Adam from the published weights: the same losses, and the same network afterwards."""
    folder = shared / "golden"
    checkpoint = liif_core.load_checkpoint(folder / "liif.pth", registry)
    model = model_of(checkpoint, registry, "liif.pth").train()
    with np.load(folder / "train-liif.npz") as stored:
        data = {name: torch.tensor(stored[name]) for name in stored.files}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def batch(step):
        return (data[f"{name}{step}"] for name in ("inp", "coord", "cell", "gt"))

    losses = []
    for step in range(6):
        image, coord, cell, truth = batch(step)
        # the published loss is taken in [-1, 1] space, where differences are twice as large
        loss = 2 * (model(image, coord, cell) - truth).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    np.testing.assert_allclose(losses, data["losses"].numpy(), rtol=0, atol=1e-5)

    image, coord, cell, _ = batch(0)
    with torch.no_grad():
        final = model(image, coord, cell)
    np.testing.assert_allclose(network_output(final), data["final_pred0"].numpy(), rtol=0, atol=1e-4)


def test_published_weights_load(shared):
    """The published EDSR-baseline-LIIF: the paper's architecture, and what its authors' model says of a picture."""
    path = shared / "checkpoints" / "edsr-baseline-liif.pth"
    if not path.is_file():
        pytest.skip(f"no {path}")
    model = liif_core.load(path)
    encoder, decoder = model.encoder, model.decoder
    assert (len(encoder.blocks), encoder.out_channels) == (16, 64)
    assert [layer.in_features for layer in decoder.layers] == [64 * 9 + 2 + 2, 256, 256, 256, 256]
    gray = model.encode(torch.full((1, 3, 8, 8), 0.5)).render((16, 16))
    assert (gray - 0.5).abs().max() < 0.05  # a flat picture stays flat
