"""Compare a training step with the papers' formulas: the same weights and batch, in one run.

    python benchmarks/train_step.py [--batches 4 16] [--rounds 3] [--only mlp lm-liif lte] [--threads 1] [--json FILE]

A step is the forward pass, the loss and all gradients, encoder included, of EDSR-baseline with a decoder of its paper's
size: patches of 48 x 48 and 2,304 queries. "Plain" is the formula of ``formulas.py`` on contiguous tensors, the whole
batch at once, as published training does it; "ours" is the step of ``liif_core.Trainer``. Seconds are of the process
("cpu") or of the wall; both are minima over the rounds, in which the two take turns. The rate of large float32 matrix
products is timed in each round. Operations are counted: those of the fused layers, which the counter does not see in
gradients, follow from those of the forward pass. Peak memory is that of a process of its own that makes two steps,
beyond its memory with model, optimizer and batch.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from formulas import RESIDUAL, plain_forward
from memory import resident

import liif_core
from liif_core.distributed import ALONE, Processes
from liif_core.experiment.schema import TrainSpec
from liif_core.model.flops import counter
from liif_core.training.optimization import Optimization, l1_loss

BOTH = [{"use": "coordinate"}, {"use": "cell"}]
PATCH, QUERIES = 48, 2304
Batch = dict[str, torch.Tensor]


def made(name: str, processes: Processes = ALONE) -> Optimization:
    torch.manual_seed(0)
    model = liif_core.compose(
        encoder={"use": "edsr"},
        features={"use": "unfold" if name in ("mlp", "lm-liif") else "identity"},
        sampling={"use": "local-ensemble"},
        conditioning=BOTH,
        decoder={"use": name},
        residual="bilinear" if name in RESIDUAL else "none",
    )
    return Optimization(model, TrainSpec(epochs=1), "float32", torch.device("cpu"), processes)


def batch_of(count: int) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return {
        "image": torch.rand(count, 3, PATCH, PATCH, generator=generator),
        "coord": torch.rand(count, QUERIES, 2, generator=generator) * 2 - 1,
        "cell": torch.full((count, 1, 2), 2 / (2 * PATCH)),
        "target": torch.rand(count, QUERIES, 3, generator=generator),
    }


def ours(name: str, training: Optimization, batch: Batch) -> float:
    return training.gradients(batch, seed=0)


def plain(name: str, training: Optimization, batch: Batch) -> float:
    training.optimizer.zero_grad(set_to_none=True)
    colors = plain_forward(name, training.model, batch["image"], batch["coord"], batch["cell"][0, 0])
    loss = l1_loss(colors, batch["target"])
    loss.backward()
    return loss.item()


STEPS: dict[str, Callable[[str, Optimization, Batch], float]] = {"plain": plain, "ours": ours}


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the wall, and of this process."""
    wall, own = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - own


def operations(name: str, batch: Batch) -> float:
    """Floating-point operations of our step: three times those of the forward pass."""
    model = made(name).model
    one = {key: value[:1] for key, value in batch.items()}
    with torch.no_grad(), counter() as counted:
        model(one["image"], one["coord"], one["cell"])
    return 3 * counted.get_total_flops() * len(batch["image"])


def gradients(training: Optimization) -> list[torch.Tensor]:
    return [parameter.grad.clone() for parameter in training.model.parameters()]


def few(batch: Batch) -> Batch:
    """256 queries of one image. In many millions of ReLUs, some inputs are so near 0 that rounding changes their sign,
    and with it a gradient; in these, none is."""
    return {key: value[:1] if key == "image" else value[:1, :256] for key, value in batch.items()}


def difference(name: str, batch: Batch) -> float:
    """The norm of the difference of a parameter's gradients, relative to its norm: the largest of all parameters.

    Raises AssertionError above 1e-3.
    """
    found = []
    for step in STEPS.values():
        training = made(name)
        step(name, training, batch)
        found.append(gradients(training))
    worst = max(float((a - b).norm() / a.norm()) for a, b in zip(*found))
    assert worst < 1e-3, f"{name}: gradients differ by {worst:.1e}"
    return worst


def print_peak(name: str, which: str, count: int) -> None:
    training, batch = made(name), batch_of(count)
    before = resident("VmRSS")
    for _ in range(2):
        STEPS[which](name, training, batch)
    print(resident("VmHWM") - before)


def peak_memory(name: str, which: str, count: int) -> int:
    command = [sys.executable, __file__, "--peak", which, "--only", name, "--batches", str(count)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(name: str, count: int, rounds: int) -> dict:
    training, batch = made(name), batch_of(count)
    side = torch.randn(2048, 2048)
    times: dict[str, list[tuple[float, float]]] = {"plain": [], "ours": [], "matrices": []}
    for _ in range(rounds + 1):  # the first is a warm-up
        times["matrices"].append(timed(lambda: side @ side))
        for which, step in STEPS.items():
            times[which].append(timed(lambda step=step: step(name, training, batch)))  # type: ignore[misc]
    (plain_wall, plain_cpu), (ours_wall, ours_cpu), (matrix_wall, matrix_cpu) = (
        tuple(min(values) for values in zip(*times[which][1:])) for which in ("plain", "ours", "matrices")
    )
    count_operations, rate = operations(name, batch), 2 * 2048**3
    return {
        "decoder": name,
        "batch": count,
        "plain_seconds": plain_wall,
        "ours_seconds": ours_wall,
        "plain_cpu_seconds": plain_cpu,
        "ours_cpu_seconds": ours_cpu,
        "ratio_wall": plain_wall / ours_wall,
        "ratio_cpu": plain_cpu / ours_cpu,
        "matrix_gflops": rate / matrix_wall / 1e9,
        "share_of_matrix_rate": (count_operations / ours_cpu) / (rate / matrix_cpu),
        "gradient_difference": difference(name, few(batch)),
        "plain_megabytes": peak_memory(name, "plain", count) / 1e6,
        "ours_megabytes": peak_memory(name, "ours", count) / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--only", nargs="+", default=["mlp", "lm-liif", "lte"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak", choices=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        return print_peak(options.only[0], options.peak, options.batches[0])
    if options.threads:
        torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}")
    print(
        "| decoder | batch | plain, s | ours, s | times faster | in CPU time | share of matrix rate | plain, MB "
        "| ours, MB | gradients differ by |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    rows = []
    for name in options.only:
        for count in options.batches:
            row = measure(name, count, options.rounds)
            rows.append(row)
            print(
                f"| {name} | {count} | {row['plain_seconds']:.2f} | {row['ours_seconds']:.2f} "
                f"| {row['ratio_wall']:.2f} | {row['ratio_cpu']:.2f} | {row['share_of_matrix_rate']:.0%} "
                f"| {row['plain_megabytes']:.0f} | {row['ours_megabytes']:.0f} | {row['gradient_difference']:.0e} |",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps({"torch": torch.__version__, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
