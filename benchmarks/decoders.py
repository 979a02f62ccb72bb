"""Compare the decoders with each other and with the papers' formulas, with random weights, on the same features.

    python benchmarks/decoders.py [--size 180 320] [--scales 2 4 8] [--rounds 3] [--only lte srno] [--json FILE]

Measured is everything after the encoder: what is prepared once per image, and all queries. "Plain" is the formula of
``formulas.py`` or ``formulas_*.py``, in chunks of 30,000 queries where the published code has such. Times are minima
over the rounds, in which "plain" and "ours" take turns. Multiply-adds are counted while the whole image is rendered,
and divided by the number of output pixels. "Limit" is how many times faster exact float32 could be if all of these ran
at the rate of large matrix products, which is timed first. Peak memory is that of a process that renders once, beyond
its memory once the features are computed.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from formulas import FORMULAS, plain_decode
from memory import resident
from render import matrix_rate
from torch import nn

import liif_core
from liif_core.experiment.toml_file import model_from_table
from liif_core.model.flops import counter

BOTH = [{"use": "coordinate"}, {"use": "cell"}]
ENSEMBLE = {"sampling": {"use": "local-ensemble"}, "conditioning": BOTH}
UNFOLDED, PLAIN = {"features": {"use": "unfold"}}, {"features": {"use": "identity"}}
MODELS = {  # decoder -> the composition of its paper, without the encoder
    "metasr": {"sampling": {"use": "corner"}, "conditioning": BOTH, **UNFOLDED},
    "mlp": {**ENSEMBLE, **UNFOLDED},
    "lte": {**ENSEMBLE, **PLAIN, "residual": "bilinear"},
    "srno": {**ENSEMBLE, **PLAIN, "residual": "bilinear"},
    "lm-liif": {**ENSEMBLE, **UNFOLDED},
    "lm-lte": {**ENSEMBLE, **PLAIN, "residual": "bilinear"},
    "opesr": {"encoder": {"use": "edsr", "channels": 147}, **PLAIN, "sampling": {"use": "local-ensemble"},
              "conditioning": [{"use": "coordinate"}]},
    "linf": {**ENSEMBLE, **PLAIN, "residual": "bilinear"},
    "hiif": {**PLAIN, "sampling": {"use": "local-ensemble"}, "residual": "bilinear",
             "conditioning": [{"use": "cell"}, {"use": "hierarchy"}]},
    "thera": {**PLAIN, "sampling": {"use": "nearest", "ties": "away"}, "conditioning": BOTH},
    "ciaosr": {**PLAIN, "sampling": {"use": "ciaosr"}, "conditioning": BOTH, "residual": "bilinear"},
    "clit": {**PLAIN, "sampling": {"use": "window"}, "conditioning": [{"use": "cell"}], "residual": "bilinear"},
    "igconv": {**UNFOLDED, "sampling": {"use": "nearest"}, "conditioning": BOTH},
}  # fmt: skip


class Given(nn.Module):
    """An encoder that returns features which were computed before."""

    multiple_of, receptive_radius = 1, 0

    def __init__(self, features: torch.Tensor):
        super().__init__()
        self.features = features

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.features


def made(name: str, image: torch.Tensor) -> liif_core.ContinuousModel:
    """The model, with the features of this image in place of its encoder."""
    table = {"encoder": {"use": "edsr"}, "decoder": {"use": name}, **MODELS[name]}
    torch.manual_seed(0)
    model = liif_core.build_model(model_from_table(table, liif_core.discover(), name)).eval()
    model.encoder = Given(model.encoded((image - 0.5) / 0.5))
    return model


def seconds(model: liif_core.ContinuousModel, image: torch.Tensor, size: tuple[int, int]) -> float:
    picture = model.encode(image)
    started = time.perf_counter()
    picture.render(size)
    return time.perf_counter() - started


def plain_seconds(
    name: str, model: liif_core.ContinuousModel, image: torch.Tensor, size: tuple[int, int]
) -> tuple[float, torch.Tensor]:
    features, started = model.encoder.features, time.perf_counter()
    if name in FORMULAS:
        colors = plain_decode(name, model, features, image, size)
    else:
        colors = import_module(f"formulas_{name}").decode(model, features, image, size)
    return time.perf_counter() - started, colors


def operations(model: liif_core.ContinuousModel, image: torch.Tensor, size: tuple[int, int]) -> float:
    """Multiply-adds for each output pixel."""
    picture = model.encode(image)
    with counter() as counted:
        picture.render(size)
    return counted.get_total_flops() / 2 / (size[0] * size[1])


def print_peak(name: str, image: torch.Tensor, size: tuple[int, int]) -> None:
    model = made(name, image)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak, which encoding set
    model.encode(image).render(size)
    print(resident("VmHWM") - before)


def peak_memory(name: str, low: list[int], scale: float) -> int:
    """Bytes, measured in a process of its own."""
    command = [sys.executable, __file__, "--peak", name, "--size", *map(str, low), "--scales", str(scale)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def compared(
    name: str, image: torch.Tensor, size: tuple[int, int], scale: float, rounds: int, rate: float
) -> dict[str, Any]:
    model, plain, ours = made(name, image), [], []
    for _ in range(rounds):
        taken, expected = plain_seconds(name, model, image, size)
        plain.append(taken)
        ours.append(seconds(model, image, size))
    count, pixels = operations(model, image, size), size[0] * size[1]
    difference = (model.encode(image).render(size) - expected).abs().max().item()
    return {
        "scale": scale,
        "decoder": name,
        "multiply_adds": count,
        "plain_seconds": min(plain),
        "seconds": min(ours),
        "times_faster": min(plain) / min(ours),
        "limit": min(plain) / (2 * count * pixels / rate),
        "megapixels_per_second": pixels / 1e6 / min(ours),
        "peak_megabytes": peak_memory(name, list(image.shape[-2:]), scale) / 1e6,
        "max_difference": difference,
    }


def line(row: dict[str, Any]) -> str:
    return (
        f"| x{row['scale']:g} | {row['decoder']} | {row['multiply_adds']:,.0f} | {row['plain_seconds']:.2f} "
        f"| {row['seconds']:.2f} | {row['times_faster']:.1f} | {row['limit']:.1f} "
        f"| {row['megapixels_per_second']:.3f} | {row['peak_megabytes']:.0f} | {row['max_difference']:.1e} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=[180, 320], metavar=("H", "W"))
    parser.add_argument("--scales", type=float, nargs="+", default=[2, 4, 8])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak", choices=MODELS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    image = torch.rand(1, 3, *options.size, generator=torch.Generator().manual_seed(0))

    def at(scale: float) -> tuple[int, int]:
        return liif_core.scaled_size(tuple(options.size), liif_core.Scale.of(scale))

    with torch.inference_mode():
        if options.peak:
            return print_peak(options.peak, image, at(options.scales[0]))
        rate = matrix_rate()
        high, wide = options.size
        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}; "
              f"image of {high} x {wide}; large matrix products: {rate / 1e9:.0f} GFLOP/s")  # fmt: skip
        print("| scale | decoder | multiply-adds per output pixel | plain, s | ours, s | times faster | limit "
              "| ours, MP/s | peak MB | max difference |")  # fmt: skip
        print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|")
        rows = []
        for scale in options.scales:
            for name in options.only:
                rows.append(compared(name, image, at(scale), scale, options.rounds, rate))
                print(line(rows[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"torch": torch.__version__, "size": options.size, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
