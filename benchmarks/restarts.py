"""Kill processes of a run at random moments, and compare the weights with those of a run that was not interrupted.

    python benchmarks/restarts.py [--times 20] [--seed 0] [--machines]

A run of two processes is started by torchrun; in each round one of them gets SIGKILL, and torchrun starts both again.
With ``--machines``, two torchruns on this machine act as two machines with one process each; one of the two is killed
together with its process, and started again by the script, as a cluster's scheduler would. The model is small, the
images are random. A moment is uniform over the time between the first checkpoint and the end.
"""

import argparse
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import load_file

EXPERIMENT = """
name = "restarts"
[model]
residual = "bilinear"
encoder = { use = "edsr", blocks = 1, channels = 8 }
features = { use = "unfold" }
sampling = { use = "local-ensemble" }
conditioning = [{ use = "coordinate" }, { use = "cell" }]
decoder = { use = "mlp", hidden = [16] }
[data]
images = { source = "folder", path = "images" }
patch = 8
queries = 64
repeat = 4
[train]
epochs = 60
batch_size = 4
ema = 0.99
optimizer = { lr = 1e-3 }
[run]
device = "cpu"
"""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--max-restarts", "3"]
RUN = ["-m", "liif_core.cli.run", "restarts.toml", "--quiet", "--resume", "--out"]
FIRST = Path("run", "checkpoints", "last.training.pt")  # is there from the first checkpoint on
LIMIT = 300  # seconds for a run, with its restarts


def started(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*TORCHRUN, *options, *RUN, "run"]
    with open(folder / "log.txt", "a") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


def workers(parent: int) -> list[int]:
    """The processes that a torchrun has started."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True).stdout
    return [int(number) for number in listed.split()]


def wait_for(path: Path) -> float:
    """Returns when a file appeared, in seconds of ``time.monotonic``."""
    until = time.monotonic() + LIMIT
    while not path.exists():
        if time.monotonic() > until:
            raise SystemExit(f"no {path} after {LIMIT} seconds: see {path.parents[2] / 'log.txt'}")
        time.sleep(0.02)
    return time.monotonic()


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)


def one_torchrun(folder: Path, moment: float | None) -> list[int]:
    """A run by one torchrun, one of whose processes is killed so many seconds after the first checkpoint."""
    job = started(folder, "--standalone", "--nproc-per-node", "2")
    if moment is not None:
        wait_for(folder / FIRST)
        time.sleep(moment)
        if found := workers(job.pid):
            kill(random.choice(found))
    return [job.wait(LIMIT)]


def two_torchruns(folder: Path, moment: float | None) -> list[int]:
    """The same by two torchruns, one of which is killed with its process, and started again."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    options = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", address]
    options += ["--rdzv-id", "restarts", "--local-addr", "127.0.0.1"]
    jobs = [started(folder, *options)]
    time.sleep(1)  # the first has the store of the addresses, as host1 has on a cluster
    jobs.append(started(folder, *options))
    if moment is not None:
        wait_for(folder / FIRST)
        time.sleep(moment)
        if jobs[1].poll() is None:
            found = workers(jobs[1].pid)
            kill(jobs[1].pid)
            for process in found:
                kill(process)
            jobs[1].wait()
            jobs[1] = started(folder, *options)
    return [job.wait(LIMIT) for job in jobs]


def measured(run: Callable[[Path, float | None], list[int]], folder: Path) -> tuple[dict[str, bytes], float]:
    """The weights of a run that is not interrupted, and its seconds from the first checkpoint to the end."""
    with ThreadPoolExecutor(1) as other:
        begun = other.submit(wait_for, folder / FIRST)
        if any(run(folder, None)):
            raise SystemExit(failure(folder))
        expected = weights(folder), time.monotonic() - begun.result()
    clear(folder)
    return expected


def weights(folder: Path) -> dict[str, bytes]:
    file = folder / "run" / "checkpoints" / "last.safetensors"
    return {name: value.numpy().tobytes() for name, value in load_file(file).items()}


def failure(folder: Path) -> str:
    return "NOT the same weights:\n" + (folder / "log.txt").read_text()


def clear(folder: Path) -> None:
    shutil.rmtree(folder / "run", ignore_errors=True)
    (folder / "log.txt").unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--machines", action="store_true")
    given = parser.parse_args()
    random.seed(given.seed)
    run = two_torchruns if given.machines else one_torchrun
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "restarts.toml").write_text(EXPERIMENT)
        (folder / "images").mkdir()
        draw = np.random.default_rng(0)
        for number in range(8):
            Image.fromarray(draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / f"images/{number}.png")
        expected, span = measured(run, folder)
        print(f"not interrupted: {span:.1f} s from the first checkpoint to the end", flush=True)
        good = 0
        for number in range(1, given.times + 1):
            moment = random.uniform(0, span)
            codes = run(folder, moment)
            same = not any(codes) and weights(folder) == expected
            good += same
            print(f"{number}: killed at {moment:.2f} s, {'the same weights' if same else failure(folder)}", flush=True)
            clear(folder)
        print(f"{good} of {given.times} ended with the same weights")


if __name__ == "__main__":
    main()
