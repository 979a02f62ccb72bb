"""Compare rendering with the reference path: the same weights and image, in one run.

    python benchmarks/render.py edsr-baseline-liif.pth [--json FILE] [--sides 128] [--scales 2 4 8] [--rounds 3]

The reference path is LIIF's formula as its published code computes it. For each chunk of 30,000 queries, the features
are unfolded again, codes and their positions are sampled and concatenated with offsets and cells, and the whole MLP
runs for each of the four corners. Both paths also encode the image. Times are minima over the rounds, in which the
paths take turns. The share of the matrix rate is relative to large float32 matrix products, which are timed first. Peak
memory is that of a process that renders once, beyond its memory with the model loaded.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from memory import resident
from torch import Tensor

import liif_core
from liif_core.model.composed import ComposedModel

CHUNK = 30_000


def reference_render(model: ComposedModel, image: Tensor, size: tuple[int, int]) -> Tensor:
    """(1, 3, H, W) in [0, 1] space, by the paper's formula with local ensemble, 3x3 unfolding and cell decoding."""
    features = model.encoder((image - 0.5) / 0.5)
    coord = liif_core.make_coord(size).unsqueeze(0)
    cell = torch.tensor([2 / size[0], 2 / size[1]]).expand_as(coord)
    chunks = range(0, coord.shape[1], CHUNK)
    colors = [reference_query(model, features, coord[:, i : i + CHUNK], cell[:, i : i + CHUNK]) for i in chunks]
    return torch.cat(colors, dim=1).transpose(1, 2).reshape(1, 3, *size) * 0.5 + 0.5


def reference_query(model: ComposedModel, features: Tensor, coord: Tensor, cell: Tensor) -> Tensor:
    batch, channels, height, width = features.shape
    codes = F.unfold(features, 3, padding=1).view(batch, channels * 9, height, width)
    homes = liif_core.make_coord((height, width), flatten=False).permute(2, 0, 1).unsqueeze(0)
    extent = torch.tensor([height, width])
    colors, areas = [], []
    for down in (-1, 1):
        for across in (-1, 1):
            shift = torch.tensor([down / height + 1e-6, across / width + 1e-6])
            corner = (coord + shift).clamp(-1 + 1e-6, 1 - 1e-6).flip(-1).unsqueeze(1)
            code, home = (
                F.grid_sample(maps, corner, mode="nearest", align_corners=False)[:, :, 0].transpose(1, 2)
                for maps in (codes, homes)
            )
            offset = (coord - home) * extent
            x = torch.cat([code, offset, cell * extent], dim=-1)
            for layer in model.decoder.layers[:-1]:
                x = layer(x).relu()
            colors.append(model.decoder.layers[-1](x))
            areas.append((offset[..., 0] * offset[..., 1]).abs() + 1e-9)
    total = sum(areas)
    return sum(color * (area / total).unsqueeze(-1) for color, area in zip(colors, reversed(areas)))


def our_render(model: ComposedModel, image: Tensor, size: tuple[int, int]) -> Tensor:
    return model.encode(image).render(size)


PATHS = {"reference": reference_render, "ours": our_render}


def matrix_rate(side: int = 2048, rounds: int = 8) -> float:
    """Floating-point operations per second of a large float32 matrix product: the best of some rounds."""
    a, b = torch.randn(side, side), torch.randn(side, side)
    return 2 * side**3 / min(timed(lambda: a @ b) for _ in range(rounds))


def decode_operations(model: ComposedModel) -> int:
    """Floating-point operations for each output pixel that remain after the first layer is factored out."""
    first, *rest, last = (layer.weight.shape for layer in model.decoder.layers)
    conditions = first[1] - model.decoder.in_channels
    return 2 * (4 * (conditions * first[0] + sum(a * b for a, b in rest)) + last[0] * last[1])


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak_memory(checkpoint: str, path: str, side: int, scale: float) -> int:
    """Bytes, measured in a process of its own."""
    command = [sys.executable, __file__, checkpoint, "--peak", path, "--sides", str(side), "--scales", str(scale)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak(model: ComposedModel, path: str, side: int, scale: float) -> None:
    PATHS[path](model, torch.rand(1, 3, 8, 8), (8, 8))
    before = resident("VmRSS")
    PATHS[path](model, torch.rand(1, 3, side, side), (round(side * scale),) * 2)
    print(resident("VmHWM") - before)


def measure(model: ComposedModel, checkpoint: str, side: int, scale: float, rounds: int, rate: float) -> dict:
    size = (round(side * scale),) * 2
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    results = {name: path(model, image, size) for name, path in PATHS.items()}  # also a warm-up
    seconds: dict[str, list[float]] = {name: [] for name in PATHS}
    decoding: list[float] = []
    picture = model.encode(image)
    picture.render((8, 8))
    for _ in range(rounds):
        for name, path in PATHS.items():
            seconds[name].append(timed(partial(path, model, image, size)))
        decoding.append(timed(partial(picture.render, size)))
    pixels = size[0] * size[1]
    best = {name: min(values) for name, values in seconds.items()}
    return {
        "side": side,
        "scale": scale,
        "difference": float((results["reference"] - results["ours"]).abs().max()),
        "reference_seconds": best["reference"],
        "ours_seconds": best["ours"],
        "ratio": best["reference"] / best["ours"],
        "ours_megapixels_per_second": pixels / 1e6 / best["ours"],
        "decode_share_of_matrix_rate": pixels * decode_operations(model) / min(decoding) / rate,
        "reference_peak_megabytes": peak_memory(checkpoint, "reference", side, scale) / 1e6,
        "ours_peak_megabytes": peak_memory(checkpoint, "ours", side, scale) / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--sides", type=int, nargs="+", default=[128])
    parser.add_argument("--scales", type=float, nargs="+", default=[2, 4, 8])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak", choices=PATHS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    model = liif_core.load(options.checkpoint)
    with torch.inference_mode():
        if options.peak:
            return print_peak(model, options.peak, options.sides[0], options.scales[0])
        rate = matrix_rate()
        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}; "
              f"large matrix products: {rate / 1e9:.0f} GFLOP/s")  # fmt: skip
        print(
            "| image | scale | reference, s | ours, s | times faster | ours, MP/s | decoder, share of matrix rate "
            "| reference, MB | ours, MB | max difference |"
        )
        print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|")
        rows = []
        for side in options.sides:
            for scale in options.scales:
                row = measure(model, options.checkpoint, side, scale, options.rounds, rate)
                rows.append(row)
                print(
                    f"| {side} x {side} | x{scale:g} | {row['reference_seconds']:.2f} | {row['ours_seconds']:.2f} "
                    f"| {row['ratio']:.2f} | {row['ours_megapixels_per_second']:.3f} "
                    f"| {row['decode_share_of_matrix_rate']:.0%} | {row['reference_peak_megabytes']:.0f} "
                    f"| {row['ours_peak_megabytes']:.0f} | {row['difference']:.1e} |",
                    flush=True,
                )
    if options.json:
        options.json.write_text(
            json.dumps({"matrix_gflops": rate / 1e9, "torch": torch.__version__, "rows": rows}, indent=2)
        )


if __name__ == "__main__":
    main()
