"""Compare small models: parameters, multiply-adds, and the time of each stage of an enlargement.

    python benchmarks/light.py [--size 360 640] [--scales 2 4] [--rounds 3] [--only NAME ...] [--threads 2]

Weights are random. Multiply-adds are those of an enlargement for each LR pixel, without element-wise operations. Times
are minima over the rounds, in which the models take turns: of the encoder, of what is prepared once per code, of the
pixels, and of all together in one round. The share is that of the rate of one convolution of 48 to 48 channels on the
image, timed in each round: how much of the time a model that is only such convolutions would have.
"""

import argparse
import platform
import time
from functools import partial

import torch
from torch import Tensor, nn

import liif_core
from liif_core import ContinuousModel
from liif_core.model.flops import counter

BOTH = [{"use": "coordinate"}, {"use": "cell"}]
EDSR, REP = {"use": "edsr", "blocks": 8, "channels": 48}, {"use": "rep", "folded": True}
BASIS = {"features": {"use": "identity"}, "decoder": {"use": "basis"}, "residual": "bilinear"}
MODELS = {
    "edsr 8x48, lm-liif": {
        "encoder": EDSR, "features": {"use": "unfold"}, "sampling": {"use": "local-ensemble"},
        "decoder": {"use": "lm-liif"},
    },
    "edsr 8x48, lm-liif, nearest": {
        "encoder": EDSR, "features": {"use": "identity"}, "sampling": {"use": "nearest"}, "decoder": {"use": "lm-liif"},
    },
    "rep, basis": {"encoder": REP, "sampling": {"use": "nearest"}, **BASIS},
    "rep, basis, local-ensemble": {"encoder": REP, "sampling": {"use": "local-ensemble"}, **BASIS},
    "rep not folded, basis": {"encoder": {"use": "rep", "folded": False}, "sampling": {"use": "nearest"}, **BASIS},
}  # fmt: skip


def stages(model: ContinuousModel, image: Tensor, size: tuple[int, int]) -> list[float]:
    """Seconds: encoder, preparation, pixels, and their sum."""
    times = [time.perf_counter()]
    picture = model.encode(image)
    times.append(time.perf_counter())
    picture.maps(torch.tensor([[[2 / size[0], 2 / size[1]]]]))
    times.append(time.perf_counter())
    picture.render(size)
    times.append(time.perf_counter())
    parts = [after - before for before, after in zip(times, times[1:])]
    return [*parts, sum(parts)]


def multiply_adds(model: ContinuousModel, image: Tensor, scale: float) -> float:
    """Of each LR pixel, counted on a part of the image."""
    part = image[:, :, :64, :64]
    with counter() as counted:
        model.encode(part).render((round(part.shape[2] * scale), round(part.shape[3] * scale)))
    return counted.get_total_flops() / 2 / part.shape[2:].numel()


@torch.inference_mode()
def compare(names: list[str], size: tuple[int, int], scale: float, rounds: int) -> None:
    image, target = torch.rand(1, 3, *size), (round(size[0] * scale), round(size[1] * scale))
    wide = nn.Conv2d(48, 48, 3, padding=1)
    values = torch.rand(1, 48, *size).contiguous(memory_format=torch.channels_last)
    models = {name: liif_core.compose(conditioning=BOTH, **MODELS[name]).eval() for name in names}
    calls = {name: partial(stages, model, image, target) for name, model in models.items()}
    found: dict[str, list[list[float]]] = {name: [] for name in names}
    fastest = float("inf")
    for number in range(rounds + 1):  # the first one warms up
        start = time.perf_counter()
        wide(values)
        fastest = min(fastest, time.perf_counter() - start) if number else fastest
        for name, call in calls.items():
            seconds = call()
            if number:
                found[name].append(seconds)
    rate = 9 * 48 * 48 * size[0] * size[1] / fastest  # multiply-adds in a second
    for name, model in models.items():
        best = [min(column) * 1000 for column in zip(*found[name])]
        count = sum(parameter.numel() for parameter in model.parameters())
        each = multiply_adds(model, image, scale)
        share = each * size[0] * size[1] / rate / best[3] * 1000
        numbers = " | ".join(f"{value:.0f}" for value in best)
        print(f"| x{scale:g} | {name} | {count:,} | {each:,.0f} | {numbers} | {share:.0%} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(360, 640))
    parser.add_argument("--scales", type=float, nargs="+", default=[2.0, 4.0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    print(f"{given.size[1]} x {given.size[0]} pixels, {torch.get_num_threads()} threads, torch {torch.__version__},")
    print(f"Python {platform.python_version()}\n")
    print("| scale | model | parameters | multiply-adds per LR pixel | encoder, ms | codes | pixels | all | share |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for scale in given.scales:
        compare(given.only, tuple(given.size), scale, given.rounds)


if __name__ == "__main__":
    main()
