"""Time rendering alone, beside two busy processes, and beside a second rendering.

    python benchmarks/busy.py [CHECKPOINT] [--size 90 160] [--scale 3] [--rounds 5] [--spin]

Without CHECKPOINT, a model of 8 blocks of 48 channels with LM-LIIF and random weights. Times are medians over the
rounds, in a process of its own that has rendered once before. --spin leaves OpenMP's wait at its default; commands
shorten it (see liif_core/cli/environment.py).
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

BUSY = "while True: pass"
TABLE = {
    "encoder": {"use": "edsr", "blocks": 8, "channels": 48},
    "features": "unfold",
    "sampling": "local-ensemble",
    "conditioning": ["coordinate", "cell"],
    "decoder": "lm-liif",
}


def render(options: argparse.Namespace) -> None:
    """Render ``options.rounds`` times and print the median; without rounds, render until the process is ended."""
    import torch

    import liif_core

    torch.manual_seed(0)
    model = liif_core.load(options.checkpoint) if options.checkpoint else liif_core.compose(**TABLE)
    image = torch.rand(1, 3, *options.size)
    size = liif_core.scaled_size(tuple(options.size), liif_core.Scale.of(options.scale))
    times = []
    with torch.inference_mode():
        model.eval().encode(image).render(size)
        print("ready", flush=True)
        while not options.rounds or len(times) < options.rounds:
            started = time.perf_counter()
            model.encode(image).render(size)
            times.append(time.perf_counter() - started)
    print(statistics.median(times))


@contextlib.contextmanager
def running(*commands: list[str]) -> Iterator[list[subprocess.Popen]]:
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, nargs="?")
    parser.add_argument("--size", type=int, nargs=2, default=[90, 160], metavar=("H", "W"))
    parser.add_argument("--scale", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--spin", action="store_true")
    parser.add_argument("--render", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.render:
        return render(options)
    if not options.spin:
        from liif_core.cli.environment import wait_briefly

        wait_briefly(os.environ)
    arguments = sys.argv[1:]
    command = [sys.executable, __file__, *arguments, "--render"]
    endless = [*command, "--rounds", "0"]

    def seconds() -> float:
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])

    alone = seconds()
    with running(*[[sys.executable, "-c", BUSY]] * 2):
        busy = seconds()
    with running(endless) as (second,):
        assert second.stdout is not None
        second.stdout.readline()  # until it renders
        beside = seconds()
    print("| model | alone, s | beside two busy processes | beside a second rendering |")
    print("|---|---:|---:|---:|")
    name = options.checkpoint.stem if options.checkpoint else "EDSR 8 x 48, LM-LIIF"
    print(f"| {name} | {alone:.3f} | x{busy / alone:.1f} | x{beside / alone:.1f} |")


if __name__ == "__main__":
    main()
