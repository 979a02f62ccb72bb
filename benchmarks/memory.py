"""Measure the peak memory of ``liif upscale``, beyond that of the loaded model.

    python benchmarks/memory.py CHECKPOINT --image W H --size W H --memory 300MB [--json FILE]

Creates an image of the given size, renders it in a process of its own as the command does, and prints the peak
resident memory of that process beyond its memory after a first small image was rendered.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image


def render_here(checkpoint: str, picture: Path, out: Path, size: list[int], memory: str) -> None:
    from liif_core.cli import liif

    def upscale(source: Path, target: Path, wanted: str) -> None:
        try:
            liif(
                [
                    "upscale",
                    str(source),
                    "-o",
                    str(target),
                    "--size",
                    wanted,
                    "--memory",
                    memory,
                    "--checkpoint",
                    checkpoint,
                ]
            )
        except SystemExit as stop:
            if stop.code:
                raise

    small = picture.with_name("small.png")
    Image.open(picture).crop((0, 0, 16, 16)).save(small)
    upscale(small, out.with_name("small-out.png"), "32x32")
    before = resident("VmRSS")
    started = time.perf_counter()
    upscale(picture, out, f"{size[0]}x{size[1]}")
    seconds = time.perf_counter() - started
    print(json.dumps({"peak_megabytes": (resident("VmHWM") - before) / 1e6, "seconds": seconds}))


def resident(which: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at its peak (Linux)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return int(line.split()[1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--image", type=int, nargs=2, required=True, metavar=("W", "H"))
    parser.add_argument("--size", type=int, nargs=2, required=True, metavar=("W", "H"))
    parser.add_argument("--memory", default="300MB")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        return render_here(
            options.checkpoint, options.here, options.here.with_name("out.png"), options.size, options.memory
        )
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.png"
        noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).resize(tuple(options.image), Image.Resampling.BICUBIC).save(picture)
        arguments = [*sys.argv[1:], "--here", str(picture)]
        done = subprocess.run([sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    megapixels = options.size[0] * options.size[1] / 1e6
    print(
        f"{options.image[0]} x {options.image[1]} to {options.size[0]} x {options.size[1]} ({megapixels:.0f} MP), "
        f"--memory {options.memory}: peak {found['peak_megabytes']:.0f} MB beyond the model, {found['seconds']:.0f} s"
    )
    if options.json:
        options.json.write_text(
            json.dumps({**vars(options), **found, "json": None, "here": None}, indent=2, default=str)
        )


if __name__ == "__main__":
    main()
