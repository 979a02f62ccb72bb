"""Muon for matrices and AdamW for the rest: against the definition, against torch's AdamW, and resumed exactly."""

import copy

import pytest
import tiny
import torch
from torch import nn

from liif_core import Trainer, UserError, load_experiment
from liif_core.training.muon import MuonAdamW

pytestmark = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="PyTorch before 2.9 has no Muon")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 32, 3), nn.Flatten(), nn.Linear(512, 3)
    )


def give_gradients(network, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_a_step_of_a_matrix_is_nearly_orthogonal(network):
    """A step changes a hidden weight along U V^T of its gradient U S V^T, by a root mean square of 0.2 lr."""
    give_gradients(network)
    weight = network[2].weight
    before, gradient = weight.detach().clone().flatten(1), weight.grad.flatten(1)
    MuonAdamW(network.parameters(), lr=1e-3, other_lr=1e-3).step()
    change = (weight.detach().flatten(1) - before) / (1e-3 * 0.2 * max(before.shape) ** 0.5)
    u, _, v = torch.linalg.svd(gradient, full_matrices=False)
    values = -(u.T @ change @ v.T).diagonal()
    assert (values > 0.6).all() and (values < 1.3).all()
    torch.testing.assert_close(change, -(u * values) @ v, rtol=0, atol=1e-2)


def test_other_parameters_take_steps_of_adamw(network):
    other = copy.deepcopy(network)
    mine = MuonAdamW(network.parameters(), lr=1e-3, other_lr=5e-3, weight_decay=0.1)
    theirs = torch.optim.AdamW(other.parameters(), lr=5e-3, weight_decay=0.1)
    for seed in range(3):
        give_gradients(network, seed)
        give_gradients(other, seed)
        mine.step()
        theirs.step()
    same = [torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters())]
    # the weights (24, 27) and (32, 216) are matrices; biases, and the layer of three colors, are not
    assert same == [False, True, False, True, True, True]


def test_a_schedule_applies_to_both(network):
    optimizer = MuonAdamW(network.parameters(), lr=1e-3, other_lr=1e-3)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = copy.deepcopy(network.state_dict())
    give_gradients(network)
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_saved_state_goes_on_exactly(network):
    optimizer = MuonAdamW(network.parameters(), lr=1e-3, other_lr=1e-3)
    give_gradients(network, 0)
    optimizer.step()
    again = copy.deepcopy(network)
    restored = MuonAdamW(again.parameters(), lr=1e-3, other_lr=1e-3)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for model, its in ((network, optimizer), (again, restored)):
        give_gradients(model, 1)
        its.step()
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters()))


def test_a_resumed_run_ends_with_the_same_weights(tmp_path, registry):
    path = tiny.experiment_file(tmp_path)
    settings = ['train.optimizer={use="muon", lr=2e-3, other_lr=1e-3}', "model.encoder.channels=16"]

    def run(folder, stop_after=None):
        trainer = Trainer.from_experiment(load_experiment(path, registry, overrides=settings), folder)
        if (folder / "checkpoints").is_dir():
            trainer.resume()
        while not trainer.finished:
            for batch in trainer.batches():
                trainer.step(batch)
            trainer.save()
            if stop_after is not None:
                break
        return trainer.model.state_dict()

    whole = run(tmp_path / "whole")
    run(tmp_path / "parts", stop_after=1)
    resumed = run(tmp_path / "parts")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_a_rate_without_effect(tmp_path, registry):
    path = tiny.experiment_file(tmp_path)
    with pytest.raises(UserError, match="other_lr: has no effect with use = 'adam'"):
        load_experiment(path, registry, overrides=["train.optimizer={lr=1e-3, other_lr=1e-3}"])
