"""A batch on a CPU is computed image by image: the same gradients as those of the whole batch."""

import math

import pytest
import tiny
import torch
from torch import nn

import liif_core
from liif_core import Trainer, load_experiment
from liif_core.training import optimization
from liif_core.training.optimization import l1_loss


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny.experiment_file(tmp_path_factory.mktemp("parts"))


@pytest.fixture
def sizes(monkeypatch):
    """The numbers of images in each call of a model."""
    seen = []
    original = liif_core.ContinuousModel.forward

    def watched(model, image, coord, cell):
        seen.append(len(image))
        return original(model, image, coord, cell)

    monkeypatch.setattr(liif_core.ContinuousModel, "forward", watched)
    return seen


@pytest.mark.parametrize(
    "most, accumulate, expected",
    [(1, 1, [1, 1, 1, 1]), ("two", 1, [2, 2]), (10**6, 1, [4]), (10**6, 4, [1, 1, 1, 1]), ("three", 1, [2, 2])],
)
def test_gradients_are_those_of_the_whole_batch(path, registry, sizes, monkeypatch, most, accumulate, expected):
    trainer = Trainer.from_experiment(load_experiment(path, registry, overrides=[f"train.accumulate={accumulate}"]))
    batch = next(trainer.batches())
    queries = batch["coord"].shape[1]
    monkeypatch.setattr(optimization, "PART_QUERIES", {"two": 2 * queries, "three": 3 * queries}.get(most, most))
    loss = trainer._optimization.gradients(batch, seed=0)
    assert sizes == expected
    found = [parameter.grad.clone() for parameter in trainer.model.parameters()]
    whole = l1_loss(trainer.model(batch["image"], batch["coord"], batch["cell"]), batch["target"])
    gradients = torch.autograd.grad(whole, [*trainer.model.parameters()])
    assert loss == pytest.approx(whole.item(), rel=1e-5)
    for mine, theirs in zip(found, gradients):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-6)


def psnr(a, b):
    return 10 * math.log10(1 / ((a - b).square().mean().item() + 1e-6))


@pytest.mark.parametrize(
    "loss, plain",
    [
        ("l1", lambda a, b: (2 * a - 2 * b).abs().mean()),
        ("l2", lambda a, b: (2 * a - 2 * b).square().mean()),
        ("psnr", lambda a, b: -sum(psnr(x, y) for x, y in zip(a, b)) / len(a)),
    ],
)
def test_the_loss_is_that_of_the_whole_batch(path, registry, loss, plain):
    trainer = Trainer.from_experiment(load_experiment(path, registry, overrides=[f"train.loss={loss}"]))
    batch = next(trainer.batches())
    colors = trainer.model(batch["image"], batch["coord"], batch["cell"])
    assert trainer.step(batch) == pytest.approx(float(plain(colors.detach(), batch["target"])), rel=1e-5)


def test_layers_that_mix_images_keep_the_whole_batch(path, registry, sizes, monkeypatch):
    monkeypatch.setattr(optimization, "PART_QUERIES", 1)
    trainer = Trainer.from_experiment(load_experiment(path, registry))
    trainer.model.encoder = nn.Sequential(trainer.model.encoder, nn.BatchNorm2d(trainer.model.encoder.out_channels))
    trainer.model.encoder.multiple_of = 1
    trainer._optimization.gradients(next(trainer.batches()), seed=0)
    assert sizes == [4]


def test_random_numbers_follow_from_the_seed_alone(path, registry, monkeypatch):
    monkeypatch.setattr(optimization, "PART_QUERIES", 1)
    trainer = Trainer.from_experiment(load_experiment(path, registry))
    trainer.model.features.register_forward_hook(lambda *_: drawn.append(torch.rand(1).item()))
    batch, draws = next(trainer.batches()), []
    for seed in (5, 5, 6):
        drawn = []
        trainer._optimization.gradients(batch, seed)
        draws.append(drawn)
    assert draws[0] == draws[1] != draws[2] and len({*draws[0]}) == 4  # each image has its own
