"""The contract, and the published implementation's outputs."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from liif_rdn import CONFIGURATIONS, RDN, RDNOptions, liif_encoders, liif_importers

import liif_core
from liif_core.testing import EncoderContract

SHARED = Path(os.environ.get("LIIF_SHARED", Path(__file__).parent / "../../../../shared"))


class TestContract(EncoderContract):
    component = liif_encoders()
    options = {"blocks": 2, "layers": 3, "growth": 4, "channels": 6}


class TestDeepContract(EncoderContract):
    component = liif_encoders()
    options = {"configuration": "A", "growth": 2, "channels": 4}  # all 20 x 6 layers of it


@pytest.mark.parametrize("name", ["A", "B"])
def test_configurations(name):
    """3x3 and 1x1 convolutions with biases, counted by hand."""
    blocks, layers, growth = CONFIGURATIONS[name]
    assert (blocks, layers, growth) == {"A": (20, 6, 32), "B": (16, 8, 64)}[name]
    dense = sum((64 + i * growth) * growth * 9 + growth for i in range(layers)) + (64 + layers * growth) * 64 + 64
    ends = 3 * 64 * 9 + 64 + 2 * (64 * 64 * 9 + 64) + blocks * 64 * 64 + 64
    module = RDN(RDNOptions(configuration=name), in_channels=3)
    assert sum(p.numel() for p in module.parameters()) == blocks * dense + ends
    assert module.out_channels == 64 and module.receptive_radius == blocks * layers + 3


def test_an_option_replaces_what_the_configuration_says():
    module = RDN(RDNOptions(configuration="A", layers=2), in_channels=1)
    assert (len(module.blocks), len(module.blocks[0].layers), module.blocks[0].layers[0].out_channels) == (20, 2, 32)


@pytest.fixture(scope="module")
def golden():
    if not (SHARED / "golden" / "liif-rdn.npz").is_file():
        pytest.skip(f"the reference outputs are not on this machine (looked in {SHARED}; set LIIF_SHARED)")
    with np.load(SHARED / "golden" / "liif-rdn.npz") as stored:
        return {name: torch.tensor(stored[name]) for name in stored.files}


def test_equal_to_the_published_implementation(golden):
    model = liif_core.load(SHARED / "golden" / "liif-rdn.pth")
    picture = model.encode(golden["inp"])
    torch.testing.assert_close(model.encoder(golden["inp"] * 2 - 1), golden["feat"], rtol=0, atol=1e-5)
    for grid in ("x2", "x3.3", "aniso"):
        size = tuple(golden[f"size_{grid}"].tolist())
        torch.testing.assert_close(picture.render(size) * 2 - 1, golden[f"out_{grid}"], rtol=0, atol=2e-5)
    colors = picture.query(golden["coord_pts"], golden["cell_pts"])
    torch.testing.assert_close(colors * 2 - 1, golden["out_pts"], rtol=0, atol=2e-5)


def test_what_the_importer_cannot_read_it_says():
    convert = liif_importers().convert
    assert convert({}, {}) == ({"use": "liif-rdn:rdn", "configuration": "B", "channels": 64}, {})
    with pytest.raises(ValueError, match="no parameter for 'head.weight'"):
        convert({"RDNconfig": "A"}, {"head.weight": None, "SFENet1.bias": None})
    with pytest.raises(ValueError, match="kernels of size 5"):
        convert({"RDNkSize": 5}, {})
