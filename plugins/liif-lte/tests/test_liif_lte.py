"""The contract, the published implementation's outputs, and the formula written out plainly."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from liif_lte import LTE, LTEOptions, liif_decoders, liif_importers

import liif_core
from liif_core import Sites
from liif_core.testing import DecoderContract

SHARED = Path(os.environ.get("LIIF_SHARED", Path(__file__).parent / "../../../../shared"))


class TestContract(DecoderContract):
    component = liif_decoders()
    options = {"channels": 8, "hidden": [12, 10]}


class TestNearestOnly(DecoderContract):
    component = liif_decoders()
    options = {"channels": 8, "hidden": []}
    neighbours = 1


@pytest.fixture(scope="module")
def golden():
    if not (SHARED / "golden" / "lte.npz").is_file():
        pytest.skip(f"the reference outputs are not on this machine (looked in {SHARED}; set LIIF_SHARED)")
    with np.load(SHARED / "golden" / "lte.npz") as stored:
        return {name: torch.tensor(stored[name]) for name in stored.files}


def compare(model, golden):
    picture = model.encode(golden["inp"])
    torch.testing.assert_close(picture.field.features, golden["feat"], rtol=0, atol=1e-5)
    for grid in ("x2", "x3.3", "aniso"):
        size = tuple(golden[f"size_{grid}"].tolist())
        torch.testing.assert_close(picture.render(size) * 2 - 1, golden[f"out_{grid}"], rtol=0, atol=2e-5)
    colours = picture.query(golden["coord_pts"], golden["cell_pts"])
    torch.testing.assert_close(colours * 2 - 1, golden["out_pts"], rtol=0, atol=2e-5)


def test_equal_to_the_published_implementation(golden):
    compare(liif_core.load(SHARED / "golden" / "lte.pth"), golden)


def test_equal_after_liif_import(golden, tmp_path):
    arguments = [str(SHARED / "golden" / "lte.pth"), str(tmp_path / "lte.safetensors")]
    subprocess.run([sys.executable, "-m", "liif_core", "import", *arguments], check=True, capture_output=True)
    compare(liif_core.load(tmp_path / "lte.safetensors"), golden)


def test_one_query_by_hand():
    """One neighbour, one query, a decoder without hidden layers: sums that fit on a line."""
    module = LTE(LTEOptions(channels=4, hidden=()), 3, 1, {"coordinate": 2, "cell": 2}, 1)
    frequency, coefficient = torch.tensor([0.3, -0.2, 0.5, 0.7]), torch.tensor([1.0, 2.0, -1.0, 0.5])
    (y, x), cell = (0.4, -0.9), torch.tensor([0.5, 0.25])
    maps = {"frequency": frequency.view(1, 1, 4), "coefficient": coefficient.view(1, 1, 4)}
    sites = Sites(torch.zeros(1, 1, 1, dtype=torch.int64), torch.tensor([y, x]).view(1, 1, 1, 2), torch.ones(1, 1, 1))
    with torch.no_grad():
        found = module.decode(maps, sites, {"coordinate": sites.offset, "cell": cell.view(1, 1, 1, 2)}).item()
        phase = (module.phase.weight @ cell).tolist()
        angles = [0.3 * y - 0.2 * x + phase[0], 0.5 * y + 0.7 * x + phase[1]]
        waves = [math.cos(math.pi * z) for z in angles] + [math.sin(math.pi * z) for z in angles]
        token = coefficient * torch.tensor(waves)
        assert found == pytest.approx((module.layers[0].weight[0] @ token + module.layers[0].bias[0]).item(), abs=1e-6)


@pytest.mark.parametrize("channels", [0, 7, -2])
def test_half_of_the_channels_are_waves(channels):
    with pytest.raises(ValueError, match="even"):
        LTEOptions(channels=channels)


def test_what_the_importer_cannot_read_it_says():
    arguments = {"encoder_spec": {"name": "x"}, "imnet_spec": {"name": "mlp", "args": {"hidden_list": [8]}}}
    with pytest.raises(ValueError, match="no parameter for 'conv.weight'"):
        liif_importers().convert(arguments, {"conv.weight": None}, lambda spec, state: ({}, {}))
    arguments["imnet_spec"]["name"] = "siren"
    with pytest.raises(ValueError, match="only 'mlp'"):
        liif_importers().convert(arguments, {}, lambda spec, state: ({}, {}))
