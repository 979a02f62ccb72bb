"""Equal to the published implementations of MetaSR, LTE, LTE+, SRNO, LM-LIIF and LM-LTE, from files made with them."""

import pytest
import torch
from reference_outputs import expect_the_same_once_saved, outputs_of

import liif_core

GRIDS = ["x2", "x3.3", "aniso"]


@pytest.fixture(scope="module", params=["metasr", "lte", "lte-fast", "sronet", "lmliif", "lmlte"])
def golden(request, shared):
    return outputs_of(shared, request.param)


def output(colors):
    """From [0, 1] space to what the network itself put out."""
    return colors * 2 - 1


def test_features(golden):
    path, data = golden
    found = liif_core.load(path).encode(data["inp"]).field.features
    torch.testing.assert_close(found, data["feat"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("graph", [False, True], ids=["rendered", "as in training"])  # two ways through the decoders
def test_grids(golden, graph):
    path, data = golden
    model = liif_core.load(path).requires_grad_(graph)
    with torch.set_grad_enabled(graph):
        picture = model.encode(data["inp"])
        for grid in GRIDS:
            colors = output(picture.render(tuple(data[f"size_{grid}"].tolist()))).detach()
            torch.testing.assert_close(colors, data[f"out_{grid}"], rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ["metasr", "lte"])  # the others were asked for grids alone
def test_scattered_points(shared, name):
    path, data = outputs_of(shared, name)
    colors = liif_core.load(path)(data["inp"], data["coord_pts"], data["cell_pts"])
    torch.testing.assert_close(output(colors), data["out_pts"], rtol=0, atol=2e-5)


def test_the_same_once_saved_as_ours(golden, registry, tmp_path):
    path, data = golden
    expect_the_same_once_saved(path, data, GRIDS, registry, tmp_path)


def as_they_are(frequencies):
    return frequencies


def halves_to_pairs(frequencies):
    """(D, ...), all of y and then all of x: a pair (y, x) for each wave."""
    half = len(frequencies) // 2
    return torch.stack([frequencies[i // 2 + half * (i % 2)] for i in range(2 * half)])


@pytest.mark.parametrize(
    "name, its_own, the_other", [("lte", as_they_are, halves_to_pairs), ("lte-fast", halves_to_pairs, as_they_are)]
)
def test_frequencies_have_an_order(shared, name, its_own, the_other):
    """LTE's come in pairs and LTE+'s in halves; read as the other's, they give another picture."""
    path, data = outputs_of(shared, name)
    published = torch.load(path, weights_only=True)["model"]["sd"]
    model = liif_core.load(path)

    def difference(order):
        for part in ("weight", "bias"):
            getattr(model.decoder.frequency, part).copy_(order(published[f"freq.{part}"]))
        return (output(model.encode(data["inp"]).render((28, 22))) - data["out_x2"]).abs().max()

    assert difference(its_own) <= 2e-5 and difference(the_other) > 0.01
