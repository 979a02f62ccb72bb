"""Measure the peak memory of ``liif upscale``, beyond that of the loaded model.

    python benchmarks/memory.py CHECKPOINT --image W H --size W H --memory 300MB [--json FILE]
    python benchmarks/memory.py CHECKPOINT --inputs [NAME ...] --image W H --size W H --memory 300MB

Creates an image of the given size, renders it in a process of its own as the command does, and prints the peak
resident memory of that process beyond its memory after a first small image was rendered. With --inputs, this is done
for files of several formats, and a table is printed; a file that is refused is rendered with the memory that the
message names.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image


def render_here(checkpoint: str, picture: Path, out: Path, size: list[int], memory: str) -> None:
    from liif_core.cli import liif

    def upscale(source: Path, target: Path, wanted: str) -> int:
        options = ["--size", wanted, "--memory", memory, "--checkpoint", checkpoint, "--overwrite"]
        try:
            liif(["upscale", str(source), "-o", str(target), *options])
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    small = picture.with_name("small.png")
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(small)
    if upscale(small, out.with_name("small-out.png"), "32x32"):
        raise SystemExit("the small image could not be rendered")
    before = resident("VmRSS")
    started = time.perf_counter()
    code = upscale(picture, out, f"{size[0]}x{size[1]}")
    seconds = time.perf_counter() - started
    print(json.dumps({"peak_megabytes": (resident("VmHWM") - before) / 1e6, "seconds": seconds, "code": code}))


def resident(which: str, process: int | str = "self") -> int:
    """Bytes of a process, this one by default: VmRSS now, VmHWM at its peak (Linux)."""
    line = next(line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith(which))
    return int(line.split()[1]) * 1024


def noise(size: list[int], samples: int, deep: bool = False) -> np.ndarray:
    """A smooth random picture (h, w, samples) of width and height ``size``."""
    few = np.random.default_rng(0).integers(0, 256, (32, 32, samples), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(few).resize(tuple(size), Image.Resampling.BICUBIC))
    return pixels.astype(np.uint16) * 257 if deep else pixels


def with_clear_part(pixels: np.ndarray) -> np.ndarray:
    pixels = pixels.copy()
    pixels[100:-100, : pixels.shape[1] // 3, 3] = 0
    return pixels


def tiff(path: Path, pixels: np.ndarray, **options: object) -> None:
    import tifffile

    tifffile.imwrite(path, pixels, photometric="rgb", metadata=None, **options)


# name: (suffix, function of a path and a size)
INPUTS = {
    "TIFF, tiles of 256, deflate": ("tif", lambda p, s: tiff(p, noise(s, 3), tile=(256, 256), compression="zlib")),
    "TIFF, strips of 16 rows, LZW": ("tif", lambda p, s: tiff(p, noise(s, 3), rowsperstrip=16, compression="lzw")),
    "TIFF, one strip": ("tif", lambda p, s: tiff(p, noise(s, 3), rowsperstrip=s[1])),
    "TIFF, one strip, deflate": ("tif", lambda p, s: tiff(p, noise(s, 3), rowsperstrip=s[1], compression="zlib")),
    "TIFF, 16 bits, strips of 16 rows": ("tif", lambda p, s: tiff(p, noise(s, 3, deep=True), rowsperstrip=16)),
    "PNG, RGB": ("png", lambda p, s: Image.fromarray(noise(s, 3)).save(p, compress_level=1)),
    "PNG, RGBA": ("png", lambda p, s: Image.fromarray(noise(s, 4)).save(p, compress_level=1)),
    "PNG, RGBA, a third transparent": (
        "png",
        lambda p, s: Image.fromarray(with_clear_part(noise(s, 4))).save(p, compress_level=1),
    ),
    "JPEG": ("jpg", lambda p, s: Image.fromarray(noise(s, 3)).save(p, quality=90)),
    "JPEG, progressive": ("jpg", lambda p, s: Image.fromarray(noise(s, 3)).save(p, quality=90, progressive=True)),
}


def measured(options: argparse.Namespace, picture: Path, memory: str) -> tuple[dict[str, float], str]:
    """What a process of its own found, and what it printed."""
    sizes = [*map(str, ("--image", *options.image, "--size", *options.size)), "--memory", memory]
    command = [sys.executable, __file__, options.checkpoint, *sizes, "--here", str(picture)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1]), done.stdout + done.stderr


def table_of_inputs(options: argparse.Namespace) -> None:
    print("| input | `--memory` | peak beyond the model | seconds |\n|---|---|---:|---:|")
    for name in options.inputs or INPUTS:
        suffix, make = INPUTS[name]
        with tempfile.TemporaryDirectory() as folder:
            picture = Path(folder) / f"picture.{suffix}"
            child = os.fork()  # so that its memory is given back
            if not child:
                make(picture, options.image)
                os._exit(0)
            os.waitpid(child, 0)
            memory = options.memory
            found, said = measured(options, picture, memory)
            if found["code"]:
                peak = found["peak_megabytes"]
                print(f"| {name} | {memory} | refused, {peak:.0f} MB | {found['seconds']:.0f} |", flush=True)
                print(*(line for line in said.splitlines() if "error:" in line), file=sys.stderr)
                memory = re.search(r"at least (\d+) MB", said)[1] + "MB"
                found, said = measured(options, picture, memory)
            print(f"| {name} | {memory} | {found['peak_megabytes']:.0f} MB | {found['seconds']:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--image", type=int, nargs=2, required=True, metavar=("W", "H"))
    parser.add_argument("--size", type=int, nargs=2, required=True, metavar=("W", "H"))
    parser.add_argument("--memory", default="300MB")
    parser.add_argument("--inputs", nargs="*", choices=INPUTS, help="files of these formats; all if none is named")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        return render_here(
            options.checkpoint, options.here, options.here.with_name("out.png"), options.size, options.memory
        )
    if options.inputs is not None:
        return table_of_inputs(options)
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.png"
        Image.fromarray(noise(options.image, 3)).save(picture)
        found, said = measured(options, picture, options.memory)
    if found["code"]:
        raise SystemExit(said)
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
