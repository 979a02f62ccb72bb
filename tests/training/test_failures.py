"""What goes wrong around a training: a full disk, a killed loader, changed images, damaged states."""

import io
import json
import multiprocessing
import os
import signal
import sys
import time

import pytest
import tiny
import torch
from PIL import Image

from liif_core import Trainer, UserError, discover, load_experiment
from liif_core.data.crops import CropDataset
from liif_core.data.loading import batches
from liif_core.data.sources import open_images
from liif_core.errors import Interrupted
from liif_core.evaluation.evaluate import NotWritten
from liif_core.training import progress_bar
from liif_core.training.state import STATE

resource = pytest.importorskip("resource")


@pytest.fixture
def folder(tmp_path):
    tiny.experiment_file(tmp_path)
    return tmp_path


def trainer(folder, *overrides, out="out"):
    experiment = load_experiment(folder / "tiny.toml", discover(), overrides=overrides)
    return Trainer.from_experiment(experiment, folder / out)


@pytest.fixture
def limited():
    """A function that limits the size of files, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size or before[0], before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_pictures_that_cannot_be_written_cost_no_weights(folder, limited):
    tiny.photographs(folder / "images", size=(400, 420))
    weights = 4 * sum(value.numel() for value in trainer(folder).model.parameters())
    run = trainer(folder)
    limited(max(150_000, 8 * weights))
    with pytest.warns(NotWritten, match="validation.png: cannot be written: File too large"):
        run.run()
    assert (folder / "out" / "checkpoints" / "last.safetensors").exists()
    assert not (folder / "out" / "pictures" / "validation.png").exists()


def test_a_full_disk_keeps_the_last_checkpoint_and_resuming_gives_the_same_weights(folder, limited):
    whole = trainer(folder, out="whole")
    whole.run()
    run = trainer(folder, "train.epochs=1")
    run.run()
    kept = {path.name: path.read_bytes() for path in (folder / "out" / "checkpoints").iterdir()}
    full = trainer(folder)
    limited(8_000)  # the log fits, and checkpoints do not
    with pytest.raises(UserError, match=r"checkpoints.*: cannot be written: .*make room.*--resume"):
        full.run(resume=True)
    assert {path.name: path.read_bytes() for path in (folder / "out" / "checkpoints").iterdir()} == kept
    limited(None)
    trainer(folder).run(resume=True)
    for name, value in whole.model.state_dict().items():
        resumed = trainer(folder)
        resumed.resume()
        assert torch.equal(resumed.model.state_dict()[name], value)
        break


def test_a_checkpoint_folder_that_is_a_file(folder):
    (folder / "out").mkdir()
    (folder / "out" / "checkpoints").write_text("")
    with pytest.raises(UserError, match="checkpoints.*: cannot be written"):
        trainer(folder).run()


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-2000]),
    "text": lambda path: path.write_bytes(b"not a state"),
    "list": lambda path: torch.save([1], path),
    "no progress": lambda path: change(path, progress=None),
    "no weights": lambda path: change(path, model=None),
    "weights": lambda path: change(path, model=5),
    "optimizer": lambda path: change(path, optimizer={"state": 1}),
    **{
        f"{name} {value!r}": lambda path, name=name, value=value: progress(path, name, value)
        for name, value in [
            ("epoch", -1), ("epoch", 1.5), ("epoch", "1"), ("epoch", None), ("batch", 10**6), ("step", True),
            ("best", "x"), ("best", float("nan")), ("best_step", -2), ("seconds", []), ("other", 1),
        ]
    },
}  # fmt: skip


def change(path, **values):
    torch.save({**torch.load(path, weights_only=True), **values}, path)


def progress(path, name, value):
    change(path, progress={**torch.load(path, weights_only=True)["progress"], name: value})


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_state_says_what_to_do(folder, how):
    run = trainer(folder)
    run.save()
    run.save_weights("epoch-3")
    run.save_weights("epoch-20")
    DAMAGE[how](folder / "out" / "checkpoints" / STATE)
    with pytest.raises(UserError, match=r"damaged, .*epoch-20.safetensors: start a new run from them.*start_from"):
        trainer(folder).resume()


def test_other_validation_images_are_refused(folder):
    trainer(folder, "train.epochs=1").run()
    tiny.photographs(folder / "others", count=1)
    Image.new("RGB", (48, 48)).save(folder / "others" / "picture-0.png")
    changed = trainer(folder, f"validate.images.path='{folder / 'others'}'")
    with pytest.raises(UserError, match="the images of validate changed since"):
        changed.resume()


def test_an_image_that_is_replaced_is_named_and_the_steps_so_far_are_kept(folder):
    run = trainer(folder, "data.memory_gb=0", "train.epochs=50")
    original, where = run._step, folder / "images" / "picture-2.png"

    def step(batch):
        original(batch)
        if run.progress.step == 4:
            Image.new("RGB", (48, 56)).save(where)

    run._step = step
    with pytest.raises(UserError, match=r"picture-2.png: was changed or replaced"):
        run.run()
    state = torch.load(folder / "out" / "checkpoints" / STATE, weights_only=True)
    assert state["progress"]["step"] >= 5


def test_a_killed_loader_names_the_remedy(folder):
    experiment = load_experiment(folder / "tiny.toml", discover(), overrides=["data.repeat=200"])
    dataset = CropDataset(open_images(experiment.data.images), experiment.data, 0)
    stream = batches(dataset, 4, epoch=0, workers=1)
    next(stream)
    for worker in multiprocessing.active_children():
        os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(UserError, match=r"train.workers = 1: .*fewer train.workers.*/dev/shm"):
        for _ in stream:
            pass


@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_is_closed_stops_with_a_checkpoint_unless_ignored(folder, monkeypatch, ignored):
    run = trainer(folder)
    original = run._step

    def step(batch):
        original(batch)
        if run.progress.step == 2:
            signal.raise_signal(signal.SIGHUP)

    monkeypatch.setattr(run, "_step", step)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        if ignored:
            assert run.run().steps == 6
        else:
            with pytest.raises(Interrupted, match="SIGHUP after step 3"):
                run.run()
            assert (folder / "out" / "checkpoints" / STATE).exists()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_log_has_the_time_and_the_speed(folder):
    trainer(folder).run()
    entries = [json.loads(line) for line in (folder / "out" / "metrics.jsonl").open()]
    assert all(time.strptime(entry["time"], "%Y-%m-%dT%H:%M:%S+00:00") for entry in entries)
    assert all(entry["images_per_second"] > 0 for entry in entries if "loss" in entry)


def test_a_log_file_gets_few_lines(folder, monkeypatch):
    """On a clock that runs 10 s a step."""
    clock = iter(range(0, 10**6, 10))
    monkeypatch.setattr(progress_bar.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    run = trainer(folder)
    run.quiet, run.per_epoch = False, 500
    with progress_bar.shown(run) as bar:
        bar.set_description("epoch 1/2", refresh=False)
        bar.set_postfix(loss="0.1234", refresh=False)
        for _ in range(1000):
            bar.update()
    lines = sys.stderr.getvalue().splitlines()
    assert 50 < len(lines) <= 100 and not any("\r" in line for line in lines)
    assert lines[0].startswith("epoch 1/2: step 10 of 1,000, loss 0.1234, ")
