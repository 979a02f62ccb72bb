"""Commands that torchrun starts: one run of several processes, whatever happens to one of them."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest
import tiny
import torch
from safetensors.torch import load_file

from liif_core import evaluate, load

QUICK = ["--set", "evaluate=[]", "--quiet"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("torchrun")
    tiny.experiment_file(path)
    return path


@pytest.fixture
def one_thread():
    """As each process has that torchrun starts here: with more, sums are rounded otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def command(processes, *arguments, module="liif_core.cli.run", options=()):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*torchrun, *options, "-m", module, *arguments]


def started(folder, *line, **more):
    own = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    environment = {**own, "OMP_NUM_THREADS": "1", **more}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(line, cwd=folder, env=environment, **streams)


def finished(folder, *line, **more):
    process = started(folder, *line, **more)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def weights(folder, out):
    return load_file(folder / out / "checkpoints" / "last.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_from_beginning_to_end(folder, one_thread):
    code, output = finished(folder, *command(2, "tiny.toml", "--out", "whole"))
    assert code == 0, output
    assert "3,259 parameters, on 2 processes, cpu; results go to whole" in output
    assert output.count("written: whole/report.md") == output.count("epoch 2: validation") == 1
    assert "find_unused_parameters" not in output  # the warning of DistributedDataParallel
    assert not re.search(r'File ".*liif_core', output), output  # a traceback; old TensorBoard prints one of its own
    report = json.loads((folder / "whole" / "report.json").read_text())
    model = load(folder / "whole" / "checkpoints" / "best.safetensors")
    (alone,) = evaluate(model, sorted((folder / "images").iterdir())[:2], 2, "rgb")
    (score,) = (score for score in report["results"] if score["scale"] == 2)
    assert list(score["images"].values()) == pytest.approx(list(alone.images.values()), abs=1e-9)
    assert not list((folder / "whole").rglob("*.lock")) and not list((folder / "whole").rglob(".liif-tmp*"))


def test_a_mistake_is_said_once_and_all_stop(folder):
    began = time.monotonic()
    code, output = finished(folder, *command(2, "tiny.toml", "--out", "never", "--set", "train.epochs=0"))
    assert code == 1 and time.monotonic() - began < 60
    assert output.count("error: tiny.toml: train.epochs: must be >= 1") == 1, output
    assert not (folder / "never").exists()


OTHERWISE = """
import os, sys
sys.argv += ["--set", f"data.images.path='images-{os.environ['RANK']}'"]
from liif_core.cli import liif_run
liif_run()
"""


def test_a_process_that_cannot_read_the_data_is_named(folder):
    (folder / "otherwise.py").write_text(OTHERWISE)
    if not (folder / "images-0").exists():
        (folder / "images-0").symlink_to("images")
    line = command(2, "tiny.toml", "--out", "never")
    code, output = finished(folder, *line[: line.index("-m", 2)], "otherwise.py", *line[line.index("-m", 2) + 2 :])
    assert code == 1
    assert re.search(r"error: rank 1 on \S+: .*images-1", output), output
    assert "error: rank 0" not in output and not (folder / "never").exists()


def worker(process, number):
    """One of the processes that torchrun has started."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
        if len(found) > number:
            return int(found[number])
        time.sleep(0.05)
    raise AssertionError("torchrun started no process")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes by pgrep")
def test_a_killed_process_is_started_again_and_the_weights_are_the_same(folder):
    more = [*QUICK, "--set", "train.epochs=40", "--set", "train.ema=0.9"]
    code, output = finished(folder, *command(2, "tiny.toml", "--out", "unharmed", *more))
    assert code == 0, output
    line = command(2, "tiny.toml", "--out", "harmed", "--resume", *more, options=["--max-restarts", "3"])
    process = started(folder, *line)
    while not (folder / "harmed" / "checkpoints" / "last.training.pt").exists():
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(random.Random(0).random() / 5)
    os.kill(worker(process, 1), signal.SIGKILL)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert same(weights(folder, "harmed"), weights(folder, "unharmed"))
    steps = [json.loads(line)["step"] for line in (folder / "harmed" / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


def test_files_are_shared_with_one_summary(folder):
    (folder / "images" / "broken.png").write_bytes(b"not an image")
    try:
        arguments = ["upscale", "images", "--out-dir", "large", "--scale", "1.5", "--model", "clean"]
        code, output = finished(folder, *command(2, *arguments, "--json", "all.json", module="liif_core"))
    finally:
        (folder / "images" / "broken.png").unlink()
    assert code == 1 and output.count("4 of 5 done; failed: images/broken.png") == 1, output
    results = json.loads((folder / "all.json").read_text())["results"]
    names = ["broken.png", *(f"picture-{i}.png" for i in range(4))]
    assert [result["input"] for result in results] == [f"images/{name}" for name in names]
    assert sorted(path.name for path in (folder / "large").iterdir()) == names[1:]


def test_an_evaluation_is_shared(folder, one_thread):
    arguments = ["evaluate", "clean", "--hr", "images", "--scale", "2", "--scale", "3", "--protocol", "rgb"]
    code, output = finished(folder, *command(2, *arguments, "--json", "scores.json", module="liif_core"))
    assert code == 0 and output.count("| images (4 images)") == 1, output
    found = json.loads((folder / "scores.json").read_text())["results"]
    expected = evaluate(load("clean"), folder / "images", [2, 3], "rgb")
    assert [score["scale"] for score in found] == [2, 3]
    for score, alone in zip(found, expected):
        assert score["images"] == pytest.approx(alone.images, abs=1e-9)


def test_what_is_wrong_with_an_evaluation_is_said_once(folder):
    code, output = finished(
        folder, *command(2, "evaluate", "no.pth", "--hr", "images", "--scale", "2", module="liif_core")
    )
    assert code == 1 and output.count("error: no.pth: cannot be read") == 1 and "error: rank" not in output, output
