"""Kill processes of a run at random moments, and compare the weights with those of a run that was not interrupted.

    python benchmarks/restarts.py [--times 20] [--seed 0] [--machines]

A run of two processes is started by torchrun; in each round one of them gets SIGKILL, and torchrun starts both again.
With ``--machines``, two torchruns on this machine act as two machines with one process each; one of the two is killed
together with its process, and started again by the script, as a cluster's scheduler would. The model is smaller
still than that of the profile "quick" of experiments/edsr_liif.toml. A moment is uniform over the first nine tenths of
the time between the first checkpoint and the last.
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

from safetensors.torch import load_file

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--max-restarts", "3"]
EXPERIMENT = Path(__file__).resolve().parents[1] / "experiments" / "edsr_liif.toml"
RUN = ["-m", "liif_core.cli.run", str(EXPERIMENT), "--profile", "quick", "--device", "cpu", "--quiet", "--resume"]
SMALLER = [
    "model.encoder={use='edsr',blocks=1,channels=8}", "model.decoder={use='mlp',hidden=[16]}", "data.patch=8",
    "data.images={source='skimage',names=['coffee']}", "data.queries=64", "train.epochs=60", "train.batch_size=4",
    "train.ema=0.99", "validate.every=60", "evaluate=[]",
]  # fmt: skip
STATE = Path("run", "checkpoints", "last.training.pt")  # written with each checkpoint
LIMIT = 300  # seconds for a run, with its restarts


def started(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    changes = [part for change in SMALLER for part in ("--set", change)]
    command = [*TORCHRUN, *options, *RUN, "--out", "run", *changes]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if "--nnodes" in options:
        environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # without it no round succeeds: docs/distributed.md
    with open(folder / "log.txt", "a") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


def ended(jobs: list[subprocess.Popen[bytes]]) -> bool:
    """Wait for the torchruns; whether all ended well, within ``LIMIT``."""
    try:
        codes = [job.wait(LIMIT) for job in jobs]
    except subprocess.TimeoutExpired:
        for job in jobs:
            job.terminate()
        return False
    return not any(codes)


def workers(torchrun: int) -> list[int]:
    """The processes that a torchrun has started."""
    found = subprocess.run(["pgrep", "-P", str(torchrun)], capture_output=True, text=True).stdout
    return [int(number) for number in found.split()]


def wait_for(path: Path) -> float:
    """Returns when a file appeared, in seconds of ``time.time``."""
    until = time.monotonic() + LIMIT
    while not path.exists():
        if time.monotonic() > until:
            raise SystemExit(f"no {path} after {LIMIT} seconds: see {path.parents[2] / 'log.txt'}")
        time.sleep(0.02)
    return time.time()


def one_torchrun(folder: Path, moment: float | None) -> bool:
    """A run by one torchrun, one of whose processes is killed so many seconds after the first checkpoint."""
    job = started(folder, "--standalone", "--nproc-per-node", "2")
    if moment is not None:
        wait_for(folder / STATE)
        time.sleep(moment)
        if found := workers(job.pid):
            os.kill(random.choice(found), signal.SIGKILL)
    return ended([job])


def two_torchruns(folder: Path, moment: float | None) -> bool:
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
        wait_for(folder / STATE)
        time.sleep(moment)
        if jobs[1].poll() is None:
            for process in (jobs[1].pid, *workers(jobs[1].pid)):
                os.kill(process, signal.SIGKILL)
            jobs[1].wait()
            jobs[1] = started(folder, *options)
    return ended(jobs)


def measured(run: Callable[[Path, float | None], bool], folder: Path) -> tuple[dict[str, bytes], float]:
    """The weights of a run that is not interrupted, and its seconds from the first checkpoint to the last."""
    with ThreadPoolExecutor(1) as other:
        begun = other.submit(wait_for, folder / STATE)
        if not run(folder, None):
            raise SystemExit(failure(folder))
        expected = weights(folder), (folder / STATE).stat().st_mtime - begun.result()
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
        expected, span = measured(run, folder)
        print(f"not interrupted: {span:.1f} s from the first checkpoint to the last", flush=True)
        good = 0
        for number in range(1, given.times + 1):
            moment = random.uniform(0, 0.9 * span)
            same = run(folder, moment) and weights(folder) == expected
            good += same
            print(f"{number}: killed at {moment:.2f} s, {'the same weights' if same else failure(folder)}", flush=True)
            clear(folder)
        print(f"{good} of {given.times} ended with the same weights")


if __name__ == "__main__":
    main()
