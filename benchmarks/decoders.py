"""Compare the decoders: the same encoder and image for all, each with the sizes of its paper and random weights.

    python benchmarks/decoders.py [--size 180 320] [--scales 2 4 8] [--rounds 3] [--only lte srno] [--json FILE]

Measured is everything after the encoder: what is prepared once per image, and all queries. Times are minima over the
rounds; in each round the decoders take turns. Multiply-adds are counted while the whole image is rendered, and divided
by the number of output pixels. Peak memory is that of a process that renders once, beyond its memory once the features
are computed.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch
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
}


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


def operations(model: liif_core.ContinuousModel, image: torch.Tensor, size: tuple[int, int]) -> float:
    """Multiply-adds for each output pixel."""
    picture = model.encode(image)
    with counter() as counted:
        picture.render(size)
    return counted.get_total_flops() / 2 / (size[0] * size[1])


def resident(which: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at its peak (Linux)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return int(line.split()[1]) * 1024


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
        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}; "
              f"image of {options.size[0]} x {options.size[1]}")  # fmt: skip
        models = {name: made(name, image) for name in options.only}
        print("| scale | decoder | parameters | multiply-adds per output pixel | s | MP/s | peak MB |")
        print("|---|---|---:|---:|---:|---:|---:|")
        rows = []
        for scale in options.scales:
            size = at(scale)
            times: dict[str, list[float]] = {name: [] for name in models}
            for _ in range(options.rounds + 1):  # the first is a warm-up
                for name, model in models.items():
                    times[name].append(seconds(model, image, size))
            for name, model in models.items():
                best = min(times[name][1:])
                row = {
                    "scale": scale,
                    "decoder": name,
                    "parameters": sum(p.numel() for p in model.decoder.parameters()),
                    "multiply_adds": operations(model, image, size),
                    "seconds": best,
                    "megapixels_per_second": size[0] * size[1] / 1e6 / best,
                    "peak_megabytes": peak_memory(name, options.size, scale) / 1e6,
                }
                rows.append(row)
                print(
                    f"| x{scale:g} | {name} | {row['parameters']:,} | {row['multiply_adds']:,.0f} | {best:.2f} "
                    f"| {row['megapixels_per_second']:.3f} | {row['peak_megabytes']:.0f} |",
                    flush=True,
                )
    if options.json:
        options.json.write_text(json.dumps({"torch": torch.__version__, "size": options.size, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
