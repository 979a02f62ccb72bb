"""Compare ways to run the encoders: eager, in channels-last order, ours, compiled, and in bf16.

    python benchmarks/encoders.py [--size 180 320] [--rounds 5] [--only edsr-baseline rdn] [--threads 1] [--compile]

"Eager" is the published way: contiguous tensors and torch's single operations. "Channels-last" changes the order of the
image alone. "Ours" is what liif-core does: that order, and convolutions with what follows in one kernel. "Compiled" is
``torch.compile`` of the encoder in channels-last order (with ``--compile``; it needs a C++ compiler). bf16 runs where
the hardware has it. Weights are random. Times are minima over the rounds, in which the ways take turns; with
``--threads 1``, of the process, which other processes disturb less. The share is that of the rate of one convolution of
64 to 64 channels on a large image, timed in each round.
"""

import argparse
import platform
import time
from collections.abc import Callable

import torch
from liif_rdn import RDN, RDNOptions
from torch import Tensor, nn

from liif_core.model import convolution
from liif_core.model.device import cpu_has_bf16
from liif_core.model.flops import counter
from liif_paper.edsr import EDSR, EDSROptions
from liif_zoo.rcan import RCAN, RCANOptions
from liif_zoo.swinir import SwinIR, SwinIROptions

ENCODERS: dict[str, Callable[[], nn.Module]] = {
    "edsr-8x48": lambda: EDSR(EDSROptions(blocks=8, channels=48), 3),
    "edsr-baseline": lambda: EDSR(EDSROptions(), 3),
    "rdn": lambda: RDN(RDNOptions(), 3),
    "rcan": lambda: RCAN(RCANOptions(), 3),
    "swinir": lambda: SwinIR(SwinIROptions(), 3),
}


def single(encoder: nn.Module, image: Tensor) -> Tensor:
    """Without fused convolutions."""
    fused, convolution.FUSED = convolution.FUSED, False
    try:
        return encoder(image)
    finally:
        convolution.FUSED = fused


def best(calls: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    seconds = dict.fromkeys(calls, float("inf"))
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            start = clock()
            call()
            seconds[name] = min(seconds[name], clock() - start)
    return seconds


def ways(encoder: nn.Module, image: Tensor, compiled: bool) -> dict[str, Callable[[], object]]:
    ordered = image.contiguous(memory_format=torch.channels_last)
    wide = nn.Conv2d(64, 64, 3, padding=1)
    large = torch.rand(1, 64, 360, 640).contiguous(memory_format=torch.channels_last)
    found: dict[str, Callable[[], object]] = {
        "one convolution": lambda: wide(large),
        "eager": lambda: single(encoder, image),
        "channels-last": lambda: single(encoder, ordered),
        "ours": lambda: encoder(ordered),
    }
    if compiled:
        fast = torch.compile(encoder)
        found["compiled"] = lambda: fast(ordered)
    if cpu_has_bf16():

        def half() -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return encoder(ordered)

        found["bf16"] = half
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=[180, 320], metavar=("H", "W"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=ENCODERS, default=[name for name in ENCODERS if name != "swinir"])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    clock = time.process_time if options.threads == 1 else time.perf_counter
    torch.manual_seed(0)
    image = torch.rand(1, 3, *options.size) * 2 - 1
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}; "
          f"image of {options.size[0]} x {options.size[1]}")  # fmt: skip
    print("| encoder | way | s | GFLOP/s | share of the convolution's rate | times faster than eager |")
    print("|---|---|---:|---:|---:|---:|")
    with torch.inference_mode():
        for name in options.only:
            encoder = ENCODERS[name]().eval()
            with counter() as counted:
                encoder(image)
            operations, one = counted.get_total_flops(), 2 * 9 * 64 * 64 * 360 * 640
            seconds = best(ways(encoder, image, options.compile), options.rounds, clock)
            rate = one / seconds.pop("one convolution")
            for way, taken in seconds.items():
                own = operations / taken
                print(
                    f"| {name} | {way} | {taken:.3f} | {own / 1e9:.0f} | {own / rate:.0%} "
                    f"| {seconds['eager'] / taken:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
