"""Training steps of one model on 1, 2, ... processes of this machine, each with one thread.

    python benchmarks/distributed.py [--processes 1 2] [--batch 16] [--steps 6] [--cache IMAGES] [--json FILE]

The model is EDSR-baseline-LIIF, on patches of 48 x 48 with 2,304 queries; the global batch is the same for all numbers
of processes. A step is the gradients and the update. "Exchange" is how much longer it takes than a step whose gradients
are not exchanged, the two in turn; medians. "All-reduce alone" is the sum of as many numbers, without anything beside
it. Efficiency is the time on one process, divided by that on n processes and by n.

``--cache`` measures, on a folder of images, how long a process takes to open them and how much memory it then has of
its own, with and without ``data.cache``.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from train_step import batch_of, made, timed

from liif_core.data.sources import open_images
from liif_core.distributed import Processes, joined
from liif_core.experiment.schema import FolderSource


def measure(processes: Processes, batch: int, steps: int) -> dict[str, float]:
    optimization = made("mlp", processes)
    whole = batch_of(batch)
    own = processes.share(batch)
    part: dict[str, Any] = {name: value[own.start : own.stop] for name, value in whole.items()}
    part["share"] = len(own) / batch
    lesson = optimization._lesson

    def step(exchange: bool) -> None:
        alone = lesson.no_sync() if isinstance(lesson, DistributedDataParallel) and not exchange else nullcontext()
        with alone:
            optimization.gradients(part, seed=0)
        optimization.update(1e-4)

    times: dict[bool, list[float]] = {True: [], False: []}
    step(True)
    for _ in range(steps):
        for exchange in (True, False):
            processes.wait()
            times[exchange].append(timed(partial(step, exchange))[0])
    count = sum(parameter.numel() for parameter in optimization.model.parameters())
    numbers = torch.zeros(count)
    reduce = [timed(lambda: dist.all_reduce(numbers))[0] for _ in range(steps)] if processes.size > 1 else [0.0]
    medians = {exchange: statistics.median(found) for exchange, found in times.items()}
    return {
        "step": medians[True],
        "without": medians[False],
        "reduce": statistics.median(reduce),
        "megabytes": 4 * count / 1e6,
    }


def own_memory() -> float:
    """Megabytes that this process alone has: what it maps from a file, and shares, does not count."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    (found,) = (line for line in lines if line.startswith("Anonymous:"))
    return int(found.split()[1]) / 1000


def opened(folder: Path, cache: Path | None) -> dict[str, float]:
    before = own_memory()
    start = time.perf_counter()
    images = open_images(FolderSource(folder), memory_gb=1000, cache=cache)
    taken = time.perf_counter() - start
    total = sum(int(images.image(i).max()) for i in range(len(images)))  # every pixel is read once
    return {"seconds": taken, "megabytes": own_memory() - before, "images": len(images), "read": total}


def child(*arguments: str, processes: int = 1) -> dict[str, float]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] * (processes > 1)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    line = [sys.executable, *torchrun, __file__, *arguments]
    result = subprocess.run(line, env=environment, capture_output=True, text=True)
    if result.returncode:
        sys.exit(result.stderr)
    return json.loads(result.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", choices=["step", "open"], help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work == "step":
        with joined() as processes:
            found = measure(processes, given.batch, given.steps)
            slowest = processes.together(lambda: found["step"])
            if processes.first:
                print(json.dumps({**found, "step": max(slowest)}))
        return
    if given.work == "open":
        print(json.dumps(opened(given.cache, given.file)))
        return
    found_steps = {}
    for number in given.processes:
        found_steps[number] = child(
            "--work", "step", "--batch", str(given.batch), "--steps", str(given.steps), processes=number
        )
    one = found_steps[given.processes[0]]["step"] * given.processes[0]
    print("| processes | step, s | images/s | efficiency | exchange | all-reduce alone, s | gradients, MB |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for number, found in found_steps.items():
        exchange = (found["step"] - found["without"]) / found["step"]
        rate, efficiency = given.batch / found["step"], one / found["step"] / number
        print(
            f"| {number} | {found['step']:.2f} | {rate:.2f} | {efficiency:.0%} | {exchange:.1%} "
            f"| {found['reduce']:.3f} | {found['megabytes']:.1f} |"
        )
    rows = {}
    if given.cache is not None:
        with tempfile.TemporaryDirectory() as folder:
            kept = ["--work", "open", "--cache", str(given.cache)]
            rows = {
                "decoded by each process": child(*kept),
                "data.cache, first": child(*kept, "--file", folder),
                "data.cache, again": child(*kept, "--file", folder),
            }
        print("\n| images | open, s | own memory, MB |\n|---|---:|---:|")
        for name, row in rows.items():
            print(f"| {name} | {row['seconds']:.2f} | {row['megabytes']:.0f} |")
    if given.json is not None:
        given.json.write_text(json.dumps({"steps": found_steps, "images": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
