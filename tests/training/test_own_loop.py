"""The trainer's steps in a loop of one's own, and half precision with a gradient scaler."""

import math

import attrs
import pytest
import tiny
import torch

import liif_core
from liif_core import Trainer, UserError, load_experiment
from liif_core.training import optimization
from liif_core.training import trainer as trainer_module
from liif_core.training.optimization import l1_loss


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny.experiment_file(tmp_path_factory.mktemp("own"))


@pytest.fixture
def made(path, registry):
    """Makes a trainer of the tiny experiment: ``made(folder, "train.epochs=1")``."""

    def make(folder=None, *overrides):
        return Trainer.from_experiment(load_experiment(path, registry, overrides=overrides), folder)

    return make


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_loop_of_one_s_own_ends_as_run_does(made, tmp_path):
    whole = made(tmp_path / "run", "train.ema=0.5")
    ended = whole.run()
    mine = made(tmp_path / "mine", "train.ema=0.5")
    while not mine.finished:
        for batch in mine.batches():
            assert mine.step(batch) > 0
        score = mine.validate()
        mine.save()
    assert same(whole.model, mine.model) and same(whole.eval_model, mine.eval_model)
    assert whole.progress == mine.progress and mine.progress.step == ended.steps == 6
    assert ended.best == max(ended.best, score.psnr) and score.dataset == "validation"
    for name in ("last", "best"):
        theirs, ours = (liif_core.load(tmp_path / f / "checkpoints" / f"{name}.safetensors") for f in ("run", "mine"))
        assert same(theirs, ours)


@pytest.mark.parametrize("steps", [1, 3, 4])
def test_saved_in_the_middle_of_an_epoch_and_resumed(made, tmp_path, steps):
    whole = made()
    while not whole.finished:
        for batch in whole.batches():
            whole.step(batch)
    first = made(tmp_path)
    while first.progress.step < steps:
        for batch in first.batches():
            first.step(batch)
            if first.progress.step == steps:
                first.save()
                break
    second = made(tmp_path)
    assert second.resume()
    assert second.progress == first.progress and second.progress.step == steps
    while not second.finished:
        for batch in second.batches():
            second.step(batch)
    assert same(second.model, whole.model)


def test_nothing_to_resume(made, tmp_path):
    assert not made(tmp_path).resume()


def test_the_shapes_that_the_docstring_promises(made):
    trainer = made()
    batch = next(trainer.batches())
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in batch.items()}
    single = torch.float32
    assert shapes == {
        "image": ((4, 3, 8, 8), single), "coord": ((4, 64, 2), single), "cell": ((4, 1, 2), single),
        "target": ((4, 64, 3), single), "index": ((4,), torch.int64),
    }  # fmt: skip
    assert all(batch[name].min() >= 0 and batch[name].max() <= 1 for name in ("image", "target"))


def test_a_step_on_a_batch_of_one_s_own(made):
    """The returned loss is that of the weights before the step, in [-1, 1] space."""
    trainer = made()
    batch = {
        "image": torch.rand(2, 3, 5, 6), "coord": torch.rand(2, 7, 2) * 2 - 1, "cell": torch.full((2, 7, 2), 0.1),
        "target": torch.rand(2, 7, 3),
    }  # fmt: skip
    with torch.no_grad():
        expected = 2 * (trainer.model(batch["image"], batch["coord"], batch["cell"]) - batch["target"]).abs().mean()
    assert trainer.step(batch) == pytest.approx(expected.item(), rel=1e-5)
    assert trainer.progress.step == 1 and trainer.progress.batch == 0
    assert all(trainer.step(batch) > 0 for _ in range(3))
    assert l1_loss(torch.zeros(3), torch.ones(3)) == 2


@pytest.mark.parametrize(
    "change, error, message",
    [
        (lambda b: [b], TypeError, "batch: expected a mapping with the tensors image, coord, cell, target, got list"),
        (lambda b: {"image": b["image"]}, TypeError, "got image"),
        (lambda b: {}, TypeError, "got none"),
        (lambda b: {**b, "coord": b["coord"].numpy()}, TypeError, "batch: expected a mapping with the tensors"),
        (lambda b: {**b, "image": b["image"][:, :1]}, ValueError, r"got image \(4, 1, 8, 8\), coord"),
        (lambda b: {**b, "target": b["target"][:2]}, ValueError, r"expected image \(B, 3, h, w\)"),
        (lambda b: {**b, "cell": b["cell"][:, :0]}, ValueError, r"cell \(4, 0, 2\)"),
        (lambda b: {k: v[:0] for k, v in b.items()}, ValueError, r"image \(0, 3, 8, 8\)"),
    ],
)
def test_batches_of_another_form(made, change, error, message):
    trainer = made()
    batch = next(trainer.batches())
    before = [value.clone() for value in trainer.model.state_dict().values()]
    with pytest.raises(error, match=message):
        trainer.step(change(batch))
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.state_dict().values()))
    assert trainer.progress.step == 0


def test_wrong_arguments(made, path, registry):
    good = made()
    with pytest.raises(TypeError, match=r"model: expected a liif_core.ContinuousModel, got Linear"):
        Trainer(torch.nn.Linear(1, 1), good.experiment, good.images)
    with pytest.raises(TypeError, match=r"experiment: expected a liif_core.Experiment, got PosixPath|WindowsPath"):
        Trainer.from_experiment(path)
    with pytest.raises(TypeError, match="experiment: expected a liif_core.Experiment, got dict"):
        Trainer(good.model, {}, good.images)
    gray = load_experiment(path, registry, overrides=["model.channels=1"])
    with pytest.raises(ValueError, match="model: it has 3 channels, and the experiment's model has 1"):
        Trainer(good.model, gray, good.images)
    with pytest.raises(ValueError, match="device: 'cuda:99' is not on this machine"):
        Trainer(good.model, good.experiment, good.images, device="cuda:99")
    with pytest.raises(ValueError, match="precision: 'fp16' needs a GPU"):
        made(None, "run.precision=fp16")


def test_without_a_folder_or_validation_images(made, tmp_path):
    trainer = made()
    for act in (trainer.save, trainer.resume, trainer.run, lambda: trainer.save_weights("x")):
        with pytest.raises(ValueError, match="folder: this trainer has none"):
            act()
    assert trainer.validate().psnr == trainer.progress.best  # writes nothing
    bare = Trainer(trainer.model, trainer.experiment, trainer.images, folder=tmp_path)
    with pytest.raises(ValueError, match="validation: this trainer has no validation images"):
        bare.validate()
    assert bare.run().best is None and (tmp_path / "checkpoints" / "best.safetensors").exists()


def test_missing_images_and_another_model(made, tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        made(None, "data.images.path=nowhere")
    trainer = made(tmp_path)
    trainer.save()
    with pytest.raises(UserError, match="its weights are not those of this experiment's model"):
        made(tmp_path, "model.encoder.channels=4").resume()


# Half precision with a gradient scaler


@pytest.fixture
def half_on_cpu(monkeypatch):
    """float16 and its gradient scaler on the CPU, which a user is refused because it is slow there."""

    original = optimization.autocast

    def autocast(device, precision):
        return torch.autocast("cpu", torch.float16) if precision == "fp16" else original(device, precision)

    monkeypatch.setattr(optimization, "autocast", autocast)
    monkeypatch.setattr(trainer_module, "autocast", autocast)


FP16 = ("run.precision=fp16", "validate.every=100", "train.clip=1.0")


def test_half_precision_learns(made, half_on_cpu, monkeypatch):
    seen = []
    original = liif_core.ContinuousModel.forward

    def watched(model, *inputs):
        colors = original(model, *inputs)
        seen.append(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None)
        return colors

    monkeypatch.setattr(liif_core.ContinuousModel, "forward", watched)
    trainer = made(None, *FP16, "train.optimizer.lr=5e-3")
    single = made(None, "train.clip=1.0", "train.optimizer.lr=5e-3")
    batch = next(trainer.batches())
    losses = [(trainer.step(batch), single.step(batch)) for _ in range(30)]
    assert set(seen) == {torch.float16, None} and trainer.scaler.is_enabled() and not single.scaler.is_enabled()
    assert all(math.isfinite(half) for half, _ in losses) and losses[-1][0] < 0.8 * losses[0][0]
    assert [half for half, _ in losses] != [full for _, full in losses]
    # scaled gradients are unscaled before they are clipped and applied: else training goes another way altogether
    assert losses[-1][0] == pytest.approx(losses[-1][1], rel=0.05)
    assert all(value.dtype == torch.float32 for value in trainer.model.state_dict().values())


def test_gradients_that_overflow_skip_the_step_and_halve_the_scale(made, half_on_cpu):
    trainer = made(None, *FP16, "train.ema=0.9")
    batch = next(trainer.batches())
    trainer.step(batch)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    scale = trainer.scaler.get_scale()
    hook = next(trainer.model.parameters()).register_hook(lambda gradient: gradient * math.inf)
    loss = trainer.step(batch)
    hook.remove()
    assert math.isfinite(loss) and trainer.progress.step == 2
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    assert trainer.scaler.get_scale() == scale / 2
    trainer.step(batch)
    assert not torch.equal(next(trainer.model.parameters()), next(iter(before.values())))
    assert trainer.scaler.get_scale() == scale / 2


def test_the_scale_is_saved_and_restored(made, half_on_cpu, tmp_path):
    def overflowing(trainer, batch):
        hook = next(trainer.model.parameters()).register_hook(lambda gradient: gradient * math.inf)
        trainer.step(batch)
        hook.remove()

    def rest(trainer):
        while not trainer.finished:
            for batch in trainer.batches():
                trainer.step(batch)

    whole, first = made(None, *FP16), made(tmp_path, *FP16)
    for trainer in (whole, first):
        stream = trainer.batches()
        overflowing(trainer, next(stream))
        trainer.step(next(stream))
        stream.close()
    first.save()
    rest(whole)
    second = made(tmp_path, *FP16)
    fresh = second.scaler.get_scale()
    assert second.resume()
    assert second.scaler.get_scale() == first.scaler.get_scale() == fresh / 2
    rest(second)
    assert same(second.model, whole.model)


def test_the_precision_of_a_resumed_run_may_change(made, half_on_cpu, tmp_path):
    trainer = made(tmp_path, *FP16)
    trainer.save()
    experiment = trainer.experiment
    single = attrs.evolve(experiment, run=attrs.evolve(experiment.run, precision="float32"))
    assert Trainer.from_experiment(single, tmp_path).resume()
    Trainer.from_experiment(single, tmp_path).save()
    assert made(tmp_path, *FP16).resume()
