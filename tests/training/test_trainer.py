import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
import safetensors.torch
import tiny
import torch

from liif_core import UserError, build_model, load, load_experiment
from liif_core.data.sources import open_images
from liif_core.errors import Interrupted
from liif_core.experiment.schema import Constant, Cosine, MultiStep
from liif_core.training.trainer import Trainer, rate_factor


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("train")
    tiny.experiment_file(path)
    return path


def trainer(folder, out, registry, *overrides, device="cpu"):
    experiment = load_experiment(folder / "tiny.toml", registry, overrides=overrides)
    torch.manual_seed(experiment.train.seed)
    model = build_model(experiment.model)
    images = open_images(experiment.data.images)
    validation = open_images(experiment.validate.images) if experiment.validate else None
    return Trainer(model, experiment, images, validation, out, torch.device(device), {}, quiet=True)


def weights(out, name="last"):
    return safetensors.torch.load_file(out / "checkpoints" / f"{name}.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def stop_after(steps, how):
    """A trainer step that, after so many, stops the process the given way."""
    original = Trainer._step

    def step(self, batch):
        loss = original(self, batch)
        if self.progress.step + 1 == steps:
            if how == "kill":
                raise MemoryError("as if killed")
            signal.raise_signal(how)
        return loss

    return step


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("steps, how", [(2, signal.SIGTERM), (3, signal.SIGINT), (4, "kill"), (5, signal.SIGTERM)])
def test_interrupted_and_resumed_ends_with_identical_weights(
    folder, tmp_path, registry, monkeypatch, workers, steps, how
):
    extra = [
        f"train.workers={workers}",
        "train.ema=0.9",
        "train.clip=0.5",
        'train.schedule={use="cosine", warmup_steps=2}',
    ]
    whole = trainer(folder, tmp_path / "whole", registry, "train.ema=0.9", "train.clip=0.5", extra[-1])
    assert whole.run().steps == 6  # 2 epochs of 4 images, 3 times over, in batches of 4

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", stop_after(steps, how))
        with pytest.raises((Interrupted, MemoryError)):
            trainer(folder, tmp_path / "cut", registry, *extra).run()
    trainer(folder, tmp_path / "cut", registry, *extra).run(resume=True)

    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert same(weights(tmp_path / "whole", "best"), weights(tmp_path / "cut", "best"))
    logs = [[json.loads(line) for line in (tmp_path / name / "metrics.jsonl").open()] for name in ("whole", "cut")]
    steps_logged = [[(entry["step"], "psnr" in entry) for entry in log] for log in logs]
    assert steps_logged[0] == steps_logged[1]


def test_interrupted_while_validating(folder, tmp_path, registry, monkeypatch):
    whole = trainer(folder, tmp_path / "whole", registry)
    whole.run()
    import liif_core.training.validation as module

    original = module.evaluate_set

    def interrupting(*args, **kwargs):
        signal.raise_signal(signal.SIGINT)
        return original(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(module, "evaluate_set", interrupting)
        with pytest.raises(Interrupted, match="SIGINT.*--resume"):
            trainer(folder, tmp_path / "cut", registry).run()
    resumed = trainer(folder, tmp_path / "cut", registry)
    resumed.run(resume=True)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert whole.progress == resumed.progress


def test_a_killed_process_resumes(folder, tmp_path):
    """The real thing: SIGKILL somewhere in the second epoch or later, then --resume, against an uninterrupted run."""
    command = [
        sys.executable,
        "-m",
        "liif_core",
        "run",
        str(folder / "tiny.toml"),
        "--quiet",
        "--set",
        "train.epochs=12",
    ]
    command += ["--set", "validate.every=12", "--set", "evaluate=[]"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "--out", str(tmp_path / "whole")], check=True, env=environment, capture_output=True)
    cut = subprocess.Popen([*command, "--out", str(tmp_path / "cut")], env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "cut" / "checkpoints" / "last.training.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    cut.kill()
    cut.wait()
    assert not (tmp_path / "cut" / "report.json").exists()
    subprocess.run(
        [*command, "--out", str(tmp_path / "cut"), "--resume"], check=True, env=environment, capture_output=True
    )
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


def test_loss_falls_and_everything_is_left_in_the_folder(folder, tmp_path, registry):
    run = trainer(
        folder,
        tmp_path,
        registry,
        "train.epochs=12",
        "train.keep_every=6",
        "train.optimizer.lr=5e-3",
        "validate.every=4",
    )
    trained = run.run()
    entries = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    losses = [entry["loss"] for entry in entries if "loss" in entry]
    assert sum(losses[-6:]) < 0.8 * sum(losses[:6])
    assert trained.best == max(entry["psnr"] for entry in entries if "psnr" in entry)
    assert (tmp_path / "curves.png").stat().st_size > 5000
    assert (tmp_path / "pictures" / "validation.png").exists()
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {
        "last.safetensors", "best.safetensors", "last.training.pt", "epoch-6.safetensors", "epoch-12.safetensors"
    }  # fmt: skip
    model = load(tmp_path / "checkpoints" / "best.safetensors")  # a checkpoint is enough
    assert model.encode(torch.rand(1, 3, 5, 7)).render((11, 9)).shape == (1, 3, 11, 9)


def test_accumulation_changes_nothing_but_memory(folder, tmp_path, registry):
    trainer(folder, tmp_path / "one", registry, "train.epochs=1").run()
    trainer(folder, tmp_path / "two", registry, "train.epochs=1", "train.accumulate=2").run()
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.allclose(one[name], two[name], atol=2e-5) for name in one)


def test_average_of_weights_is_what_is_saved(folder, tmp_path, registry):
    run = trainer(folder, tmp_path, registry, "train.epochs=1", "train.ema=0.75")
    start = {name: value.clone() for name, value in run.model.state_dict().items()}
    history = []
    original = run._step
    run._step = lambda batch: (
        original(batch),
        history.append({n: v.clone() for n, v in run.model.state_dict().items()}),
    )[0]
    run.run()
    for name, value in weights(tmp_path).items():
        expected = start[name]
        for state in history:
            expected = 0.75 * expected + 0.25 * state[name]
        assert torch.allclose(value, expected, atol=1e-6)


def test_a_loss_that_is_not_finite_stops_with_the_samples_named(folder, tmp_path, registry):
    explode = 'train.schedule={use="multi-step", milestones=[1], gamma=1e34}'  # good for an epoch, then not
    with pytest.raises(UserError, match=r"loss is (nan|inf) at step 4 \(epoch 2, samples \[\d+, .*last.safetensors"):
        trainer(folder, tmp_path, registry, explode).run()
    assert all(torch.isfinite(value).all() for name in ("best", "last") for value in weights(tmp_path, name).values())


def test_weights_that_are_not_finite_are_never_saved(folder, tmp_path, registry, monkeypatch):
    run = trainer(folder, tmp_path, registry, "train.epochs=3", "validate.every=3")
    original = run._step

    def poisoned(batch):
        loss = original(batch)
        if run.progress.step == 5:  # the last of the second epoch
            next(run.model.parameters()).data.fill_(float("nan"))
        return loss

    run._step = poisoned
    with pytest.raises(UserError, match=r"weights are not finite .* the last good checkpoint is .*last.safetensors"):
        run.run()
    assert all(torch.isfinite(value).all() for value in weights(tmp_path).values())


def test_resuming_needs_the_same_images(folder, tmp_path, registry):
    trainer(folder, tmp_path / "out", registry, "train.epochs=1").run()
    changed = trainer(folder, tmp_path / "out", registry, "train.epochs=1", "data.images.limit=2")
    with pytest.raises(UserError, match="images have changed"):
        changed.run(resume=True)


def test_a_damaged_state_is_named(folder, tmp_path, registry):
    trainer(folder, tmp_path, registry, "train.epochs=1").run()
    path = tmp_path / "checkpoints" / "last.training.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="last.training.pt: damaged"):
        trainer(folder, tmp_path, registry, "train.epochs=1").run(resume=True)


def rates(scheduler_class, steps, **options):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = scheduler_class(optimizer, **options)
    result = []
    for _ in range(steps):
        result.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return result


def test_schedules_are_those_of_torch():
    multi = [rate_factor(MultiStep((2, 5), 0.5), step, 1, 8) for step in range(8)]
    assert multi == pytest.approx(rates(torch.optim.lr_scheduler.MultiStepLR, 8, milestones=[2, 5], gamma=0.5))
    assert [rate_factor(MultiStep((2,)), step, 10, 4) for step in (19, 20)] == [1, 0.5]
    cosine = [rate_factor(Cosine(0.1), step, 5, 4) for step in range(20)]
    assert cosine == pytest.approx(rates(torch.optim.lr_scheduler.CosineAnnealingLR, 20, T_max=20, eta_min=0.1))
    warm = [rate_factor(Constant(warmup_steps=4), step, 1, 10) for step in range(6)]
    assert warm == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])
    risen = [rate_factor(Constant(warmup_steps=4, warmup_from=0.5), step, 1, 10) for step in range(6)]
    assert risen == pytest.approx([0.6, 0.7, 0.8, 0.9, 1, 1])
    assert all(0 < rate_factor(Cosine(warmup_steps=3), step, 2, 5) <= 1 for step in range(10))
    assert math.isclose(rate_factor(Cosine(), 10, 2, 5), 0, abs_tol=1e-12)


def test_half_precision_on_a_gpu_trains(folder, tmp_path, registry, gpu):
    trainer(folder, tmp_path, registry, "run.precision=bf16", "train.epochs=4", device=gpu).run()
    assert all(torch.isfinite(value).all() for value in weights(tmp_path).values())
