"""What was saved with this distribution goes on working, and nothing is ambiguous beside liif-core's own."""

import torch

import liif_core
from liif_core.experiment.toml_file import model_from_table
from liif_core.testing import DecoderContract
from liif_core.training.checkpoint import Checkpoint


class TestContract(DecoderContract):
    component = "liif-lte:lte"
    options = {"channels": 8, "hidden": [12, 10]}


def table(use):
    return {
        "encoder": {"use": "edsr", "blocks": 1, "channels": 4},
        "features": {"use": "identity"},
        "sampling": {"use": "local-ensemble"},
        "conditioning": [{"use": "coordinate"}, {"use": "cell"}],
        "decoder": {"use": use, "channels": 8, "hidden": [8]},
        "residual": "bilinear",
    }


def test_every_way_to_name_it_is_the_same_decoder():
    registry, image, rendered = liif_core.discover(), torch.rand(1, 3, 5, 6), []
    for use in ("lte", "liif-core:lte", "liif-lte:lte"):
        torch.manual_seed(0)
        rendered.append(liif_core.build_model(model_from_table(table(use), registry, use)).encode(image).render((9, 8)))
    assert torch.equal(rendered[0], rendered[1]) and torch.equal(rendered[0], rendered[2])


def test_a_checkpoint_that_names_it(tmp_path):
    spec = table("liif-lte:lte")
    model = liif_core.build_model(model_from_table(spec, liif_core.discover(), "it"))
    checkpoint = Checkpoint(model.state_dict(), {"name": "it", "model": spec})
    liif_core.save_checkpoint(tmp_path / "it.safetensors", checkpoint)
    image = torch.rand(1, 3, 5, 6)
    expected = model.encode(image).render((9, 8))
    assert torch.equal(liif_core.load(tmp_path / "it.safetensors").encode(image).render((9, 8)), expected)
