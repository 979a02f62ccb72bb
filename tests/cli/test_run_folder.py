"""The folder of a run: whose it is, and what may change when it goes on."""

import json
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import tiny
from click.testing import CliRunner

from liif_core.cli import liif_run
from liif_core.cli.run_folder import new_folder
from liif_core.experiment.toml_file import load_experiment


@pytest.fixture
def folder(tmp_path, monkeypatch):
    tiny.experiment_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*arguments, **options):
    result = CliRunner().invoke(liif_run, [str(argument) for argument in arguments], **options)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def run(*arguments):
    return invoke("tiny.toml", "--quiet", "--out", "out", *arguments)


def test_what_cannot_change_the_weights_may_change_and_is_said(folder):
    assert run().exit_code == 0
    shutil.move(folder / "images", folder / "moved")
    text = (folder / "tiny.toml").read_text().replace('path = "images"', 'path = "moved"')
    (folder / "tiny.toml").write_text(text)
    changes = {
        "train.workers": "1",
        "train.checkpoint_every": "2",
        "train.keep_every": "3",
        "data.memory_gb": "0.5",
        "validate.every": "2",
        "name": "other",
        "evaluate.0.scales": "[2]",
        "train.epochs": "3",
    }
    said = run("--resume", *(part for key, value in changes.items() for part in ("--set", f"{key}={value}")))
    assert said.exit_code == 0, said.output
    for line in (
        "train.workers: 1, before 0", "train.checkpoint_every: 2, before 1", "train.keep_every: 3, before not set",
        "data.memory_gb: 0.5, before 4.0", "validate.every: 2, before 1", "name: 'other', before 'tiny'",
        "evaluate[0].scales: [2], before [2, 2.5]", "train.epochs: 3, before 2; from here the learning rate",
    ):  # fmt: skip
        assert line in said.output
    assert "data.images.path: " in said.output and "moved" in said.output
    assert json.loads((folder / "out" / "report.json").read_text())["trained"]["steps"] == 9
    assert 'name = "other"' in (folder / "out" / "experiment.toml").read_text()


def test_other_changes_are_refused_with_both_values(folder):
    assert run().exit_code == 0
    before = (folder / "out" / "experiment.toml").read_bytes()
    for change, message in {
        "train.seed=5": "train.seed is 5 here, and 0 there",
        "train.ema=0.9": "train.ema is 0.9 here, and not set there",
        "data.scale=[1, 2]": "data.scale is [1.0, 2.0] here, and [1.0, 4.0] there",
        "model.encoder.blocks=2": "model.encoder.blocks is 2 here, and 1 there",
    }.items():
        for check in ([], ["--check"]):
            refused = run("--resume", "--set", change, *check)
            assert refused.exit_code == 2 and message in refused.output, refused.output
    copied = folder / "images" / "picture-1.png"
    copied.write_bytes((folder / "images" / "picture-2.png").read_bytes())
    assert "the training images have changed" in run("--resume", "--set", "name=other").output
    last = folder / "out" / "checkpoints" / "last.training.pt"
    last.write_bytes(last.read_bytes()[:1000])
    assert "damaged" in run("--resume", "--set", "name=other").output
    assert (folder / "out" / "experiment.toml").read_bytes() == before


def test_a_file_that_liif_run_did_not_write_is_kept(folder):
    (folder / "experiment.toml").write_text(tiny.TOML)
    refused = invoke("experiment.toml", "--quiet", "--out", ".")
    assert refused.exit_code == 2 and "that liif-run did not write" in refused.output
    assert (folder / "experiment.toml").read_text() == tiny.TOML


def test_each_run_without_out_has_a_folder_of_its_own(folder, registry):
    experiment = load_experiment("tiny.toml", registry)
    assert [new_folder("tiny", experiment).as_posix() for _ in range(3)] == [
        "runs/tiny", "runs/tiny-2", "runs/tiny-3",
    ]  # fmt: skip
    (folder / "runs" / "tiny-4").symlink_to("nowhere")
    assert new_folder("tiny", experiment).as_posix() == "runs/tiny-5"


@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_a_folder_that_another_process_holds_is_refused(folder, resume):
    holder = subprocess.Popen(
        [sys.executable, "-c", "from pathlib import Path; from liif_core.training.lock import hold; import time\n"
         "with hold(Path('out')): print('held', flush=True); time.sleep(60)"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert holder.stdout.readline() == "held\n"
        refused = run(*resume)
        assert refused.exit_code == 2 and re.search(rf"\b{holder.pid}\b", refused.output), refused.output
        assert sorted(path.name for path in (folder / "out").iterdir()) == ["run.lock"]
    finally:
        holder.kill()
        holder.wait()


@pytest.mark.parametrize("check", [[], ["--check"]])
@pytest.mark.parametrize("out", ["file", "file/run", "x" * 300, "with/checkpoints"])
def test_a_place_that_cannot_be_written_is_named_before_any_work(folder, out, check):
    (folder / "file").write_text("")
    (folder / "with").mkdir()
    (folder / "with" / "checkpoints").write_text("")
    before = sorted(folder.rglob("*"))
    result = invoke("tiny.toml", "--quiet", "--out", out.removesuffix("/checkpoints"), *check)
    assert result.exit_code == 2 and out[:200] in result.output, result.output
    assert sorted(folder.rglob("*")) == before


def test_a_disk_without_room_for_the_checkpoints_is_refused(folder, monkeypatch):
    from liif_core.training import space

    parameters = 4427 // 2  # fewer than there are
    monkeypatch.setattr(space.shutil, "disk_usage", lambda place: SimpleNamespace(free=4 * parameters))
    for check in ([], ["--check"]):
        result = run("--set", "train.keep_every=1", *check)
        assert result.exit_code == 2 and re.search(r"4 checkpoints .* need [\d.]+ kB, .* [\d.]+ kB free", result.output)
    monkeypatch.setattr(space.shutil, "disk_usage", lambda place: SimpleNamespace(free=10**9))
    assert run("--check").exit_code == 0
