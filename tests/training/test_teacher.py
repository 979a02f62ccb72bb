"""A teacher: its part of the loss, its self-ensemble, exact resume, and mistakes."""

import pytest
import tiny
import torch
from reference import small_model

from liif_core import Trainer, UserError, load_experiment
from liif_core.training.optimization import l1_loss
from liif_core.training.setup import fresh_model
from liif_core.training.teacher import Teacher, load_teacher


@pytest.fixture(scope="module")
def folder(tmp_path_factory, registry):
    """An experiment, and a checkpoint of it after a few steps, which teaches."""
    folder = tmp_path_factory.mktemp("teacher")
    path = tiny.experiment_file(folder)
    trainer = Trainer.from_experiment(load_experiment(path, registry), folder / "taught")
    for batch in trainer.batches():
        trainer.step(batch)
    trainer.save()
    return folder


def trainer_with(folder, registry, out=None, **teacher):
    values = ", ".join(f"{key}={value}" for key, value in teacher.items())
    checkpoint = folder / "taught" / "checkpoints" / "last.safetensors"
    settings = [f'train.teacher={{checkpoint="{checkpoint}", {values}}}', "train.seed=1"]
    return Trainer.from_experiment(load_experiment(folder / "tiny.toml", registry, overrides=settings), out)


@pytest.mark.parametrize("weight", [0.25, 1.0])
def test_the_loss_is_the_weighted_sum(folder, registry, weight):
    trainer = trainer_with(folder, registry, weight=weight)
    batch = next(trainer.batches())
    inputs = [batch[name] for name in ("image", "coord", "cell")]
    optimization = trainer._optimization
    teacher = load_teacher(optimization.spec.teacher, 3).model
    with torch.no_grad():
        colors, taught = optimization.model(*inputs), teacher(*inputs)
    expected = (1 - weight) * l1_loss(colors, batch["target"]) + weight * l1_loss(colors, taught)
    assert (taught - colors).abs().max() > 1e-3
    assert float(optimization.gradients(batch, seed=0)) == pytest.approx(expected.item(), rel=1e-5)
    assert all(parameter.grad is None for parameter in optimization.teacher.model.parameters())


def test_self_ensemble_turns_with_the_image(registry):
    """The mean over all orientations of an image that is turned is that of the image, at the same places of it."""
    teacher = Teacher(small_model(registry).eval(), 1.0, self_ensemble=True)
    generator = torch.Generator().manual_seed(0)
    image, coord = torch.rand(2, 3, 6, 8, generator=generator), torch.rand(2, 9, 2, generator=generator) * 2 - 1
    cell = torch.tensor([0.1, 0.2]).expand(2, 1, 2)
    expected = teacher.colors(image, coord, cell)
    plain = teacher.model(image, coord, cell)
    turned = teacher.colors(image.flip(2).transpose(2, 3), (coord * torch.tensor([-1, 1])).flip(-1), cell.flip(-1))
    torch.testing.assert_close(turned, expected, rtol=0, atol=1e-5)
    assert (expected - plain).abs().max() > 1e-3


def test_self_ensemble_is_the_mean_over_eight(registry):
    model = small_model(registry).eval()
    image, coord, cell = torch.rand(1, 3, 5, 5), torch.rand(1, 4, 2) * 2 - 1, torch.full((1, 1, 2), 0.1)
    found = Teacher(model, 1.0, self_ensemble=True).colors(image, coord, cell)
    total = 0
    for turns in range(4):  # quarter turns, and their mirror images
        for mirror in (False, True):
            turned, place = image.rot90(turns, (2, 3)), coord
            for _ in range(turns):  # counterclockwise: (y, x) -> (-x, y)
                place = torch.stack([-place[..., 1], place[..., 0]], dim=-1)
            if mirror:
                turned, place = turned.flip(3), place * torch.tensor([1.0, -1.0])
            total = total + model(turned, place, cell)
    torch.testing.assert_close(found, total / 8, rtol=0, atol=1e-5)


def test_a_resumed_run_ends_with_the_same_weights(folder, registry, tmp_path):
    def run(out, epochs):
        trainer = trainer_with(folder, registry, out, weight=0.5, self_ensemble="true")
        trainer.resume() if (out / "checkpoints").is_dir() else None
        for _ in range(epochs):
            for batch in trainer.batches():
                trainer.step(batch)
            trainer.save()
        return trainer.model.state_dict()

    whole = run(tmp_path / "whole", 2)
    run(tmp_path / "parts", 1)
    resumed = run(tmp_path / "parts", 1)
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


@pytest.mark.parametrize(
    "table, problem",
    [
        ('{checkpoint="missing.safetensors"}', "train.teacher: .*missing.safetensors"),
        ('{model="no-such-model"}', "train.teacher: no-such-model"),
        ("{weight=0.5}", "expected either checkpoint, a file, or model, a name"),
        ('{checkpoint="a.safetensors", model="b"}', "expected either checkpoint, a file, or model, a name"),
        ('{model="b", weight=2.0}', "weight"),
    ],
)
def test_mistakes(folder, registry, table, problem):
    with pytest.raises(UserError, match=problem):
        Trainer.from_experiment(load_experiment(folder / "tiny.toml", registry, overrides=[f"train.teacher={table}"]))


def test_a_teacher_with_other_channels(folder, registry, tmp_path):
    gray = load_experiment(folder / "tiny.toml", registry, overrides=["model.channels=1"])
    trainer = Trainer.from_experiment(gray, tmp_path / "gray")
    trainer.save()
    table = f'train.teacher={{checkpoint="{tmp_path / "gray" / "checkpoints" / "last.safetensors"}"}}'
    with pytest.raises(UserError, match="has 1 channels, and the model has 3"):
        Trainer.from_experiment(load_experiment(folder / "tiny.toml", registry, overrides=[table]))


def test_mistakes_are_reported_together(folder, registry, monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    mistakes = [
        'train.teacher={checkpoint="missing.safetensors"}',
        'train.optimizer.use="muon"',
        'model.decoder={use="lte", hidden=[8]}',
        "model.conditioning=[]",
    ]
    with pytest.raises(UserError) as caught:
        fresh_model(load_experiment(folder / "tiny.toml", registry, overrides=mistakes))
    text = str(caught.value)
    assert "train.teacher: " in text and "needs PyTorch 2.9 or later" in text
    assert "model.conditioning: decoder 'lte' needs" in text


def test_unlabelled_patches(folder, registry):
    """They are cut from the images as they are; the loss has the teacher's colors of them, and of nothing else."""
    trainer = trainer_with(folder, registry, weight=0.25, crops='"unlabelled"')
    batch = next(trainer.batches())
    for patch, index in zip(batch["unlabelled"], batch["index"].tolist()):
        image = torch.from_numpy(trainer.images.image(index % len(trainer.images)).copy()).permute(2, 0, 1) / 255
        turned = [part for one in (patch, patch.flip(1)) for part in (one, one.transpose(1, 2))]
        turned += [part.flip(2) for part in turned]
        windows = image.unfold(1, 8, 1).unfold(2, 8, 1)  # (c, rows, columns, 8, 8)
        assert any((windows == one[:, None, None]).all(dim=(0, 3, 4)).any() for one in turned)

    optimization = trainer._optimization
    teacher, where = load_teacher(optimization.spec.teacher, 3).model, (batch["coord"], batch["cell"])
    with torch.no_grad():
        colors = optimization.model(batch["image"], *where)
        learned, taught = (model(batch["unlabelled"], *where) for model in (optimization.model, teacher))
    expected = 0.75 * l1_loss(colors, batch["target"]) + 0.25 * l1_loss(learned, taught)
    assert float(optimization.gradients(batch, seed=0)) == pytest.approx(expected.item(), rel=1e-5)


def test_other_samples_do_not_depend_on_unlabelled_patches(folder, registry):
    one, other = (next(trainer_with(folder, registry, crops=crops).batches()) for crops in ('"same"', '"unlabelled"'))
    assert set(other) - set(one) == {"unlabelled"}
    assert all(torch.equal(one[name], other[name]) for name in one)
