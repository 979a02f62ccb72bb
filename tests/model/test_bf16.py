"""bf16 on a CPU, which torch emulates where the hardware lacks it: colors, positions, training, and tiles."""

import math

import pytest
import tiny
import torch

import liif_core
from liif_core import Trainer, load_experiment
from liif_core.model import device as device_module
from liif_core.model import linear as linear_module

DECODERS = {
    "mlp": ("unfold", {"hidden": [64, 64]}),
    "lte": ("identity", {"channels": 32, "hidden": [64, 64]}),
    "srno": ("identity", {"width": 64, "heads": 4, "hidden": 64}),
    "lm-liif": ("unfold", {"width": 8, "depth": 3, "latent": [32]}),
    "lm-lte": ("identity", {"width": 8, "depth": 3, "latent": [32], "channels": 16}),
    "metasr": ("unfold", {"hidden": 32}),
    "basis": ("identity", {"latent": [64, 64]}),
}


LR = "train.optimizer.lr=5e-3"


@pytest.fixture(autouse=True)
def has_bf16(monkeypatch):
    monkeypatch.setattr(device_module, "cpu_has_bf16", lambda: True)


@pytest.fixture(params=[True, False], ids=["onednn", "torch"])
def kernels(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(linear_module, "has_bf16_kernels", lambda: False)


def made(name):
    features, options = DECODERS[name]
    torch.manual_seed(0)
    return liif_core.compose(
        encoder={"use": "edsr", "blocks": 2, "channels": 16},
        features={"use": features},
        sampling={"use": "corner" if name == "metasr" else "local-ensemble"},
        conditioning=[{"use": "coordinate"}, {"use": "cell"}],
        decoder={"use": name, **options},
    ).eval()


@pytest.mark.parametrize("name", DECODERS)
def test_colors_are_close_to_those_of_float32(kernels, name):
    model, image = made(name), torch.rand(1, 3, 12, 14)
    whole, half = (model.upscale(image, 2.5, precision=precision).detach() for precision in ("float32", "bf16"))
    assert half.shape == whole.shape and not torch.equal(half, whole)
    assert -10 * math.log10((half - whole).square().mean()) > 50  # dB


def test_positions_stay_float32():
    """Of 1,700 columns: in bf16, neighbors would have the same position."""
    model = made("mlp")
    seen = []
    model.conditioning[0].register_forward_hook(lambda module, inputs, output: seen.append(output))
    for precision in ("float32", "bf16"):
        model.upscale(torch.rand(1, 3, 2, 1000), 1.7, precision=precision)
    assert len(seen) % 2 == 0 and len(seen) > 0
    for whole, half in zip(seen[: len(seen) // 2], seen[len(seen) // 2 :]):
        assert half.dtype == torch.float32 and torch.equal(half, whole)


def test_tiles_are_those_of_the_whole_image(monkeypatch):
    model, image, encoded = made("mlp"), torch.rand(1, 3, 60, 60), []
    original = type(model).encode
    monkeypatch.setattr(type(model), "encode", lambda *given: encoded.append(given[1].shape) or original(*given))
    with torch.inference_mode():
        whole = model.upscale(image, 2, precision="bf16")
        tiled = model.upscale(image, 2, precision="bf16", memory="2MB")
    assert len(encoded) > 2
    torch.testing.assert_close(tiled, whole, rtol=0, atol=2e-2)


def test_training_learns(registry, tmp_path):
    path = tiny.experiment_file(tmp_path)
    both = [
        Trainer.from_experiment(load_experiment(path, registry, overrides=(f"run.precision={precision}", LR)))
        for precision in ("float32", "bf16")
    ]
    batch = next(both[0].batches())
    losses = [[trainer.step(batch) for trainer in both] for _ in range(20)]
    assert losses[-1][1] < 0.8 * losses[0][1]
    assert losses[-1][1] == pytest.approx(losses[-1][0], rel=0.05) and losses[0][0] != losses[0][1]
    assert all(value.dtype == torch.float32 for value in both[1].model.state_dict().values())
