"""Train small models for the same time each, and compare what they have learned and what they cost.

    python benchmarks/candidates.py PHOTOGRAPHS SET5 [--minutes 4] [--only NAME ...] [--threads 2]

PHOTOGRAPHS is a folder of training images, SET5 one with x2/HR, x2/LR and so on. Every model has as many steps as fit
into the time, counted from the time of its own steps, with the settings of experiments/clean_first.toml. PSNR is that
of the protocol 'benchmark'. The cost is that of a 640 x 360 picture at x4, divided by its pixels. The models run one
after the other.
"""

import argparse
import time
from pathlib import Path

import light
import torch

import liif_core
from liif_core import Trainer, UserError

CLEAN = Path(__file__).parents[1] / "experiments" / "clean_first.toml"
BATCHES_TIMED = 12


def trainer(parts: dict[str, object], photographs: Path, epochs: int) -> Trainer:
    registry = liif_core.discover()
    values = [
        *(f"model.{kind}={toml_value(part)}" for kind, part in parts.items()),
        f"data.images={{source='folder', path='{photographs}'}}",
        f"train.epochs={epochs}",
        "data.repeat=1",
        "train.ema=0.99",  # a shorter average, for shorter training
        "run.device='cpu'",
    ]
    return Trainer.from_experiment(liif_core.load_experiment(CLEAN, registry, overrides=values))


def toml_value(part: object) -> str:
    if isinstance(part, dict):
        return "{" + ", ".join(f"{key}={toml_value(value)}" for key, value in part.items()) + "}"
    return str(part).lower() if isinstance(part, bool) else f"'{part}'" if isinstance(part, str) else str(part)


def seconds_per_step(of: Trainer) -> float:
    times = []
    for number, batch in enumerate(of.batches()):
        start = time.perf_counter()
        of.step(batch)
        times.append(time.perf_counter() - start)
        if number == BATCHES_TIMED:
            break
    return sorted(times)[len(times) // 2]


def trained(parts: dict[str, object], photographs: Path, minutes: float) -> tuple[Trainer, int]:
    """A trainer after so many minutes, and the number of steps it took."""
    probe = trainer(parts, photographs, 1)
    steps = minutes * 60 / seconds_per_step(probe)
    of = trainer(parts, photographs, max(1, round(steps / probe.per_epoch)))
    while not of.finished:
        for batch in of.batches():
            of.start_step(batch)
    of.losses.read()
    return of, of.progress.step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("set5", type=Path)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--only", nargs="+", choices=light.MODELS, default=list(light.MODELS))
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(f"{given.threads} threads, {given.minutes:g} minutes of training each\n")
    print("| model | parameters | steps | x2 | x3 | x4 | ms per 1000 LR pixels, x4 |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name in given.only:
        of, steps = trained(light.MODELS[name], given.photographs, given.minutes)
        model = of.eval_model.eval()
        folders = {scale: given.set5 / f"x{scale}" for scale in (2, 3, 4)}
        scores = [
            liif_core.evaluate(model, path / "HR", scale, lr=path / "LR")[0].psnr for scale, path in folders.items()
        ]
        count = sum(parameter.numel() for parameter in model.parameters())
        cells = [f"{count:,}", f"{steps:,}", *(f"{score:.2f}" for score in scores), f"{cost(model):.2f}"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


@torch.inference_mode()
def cost(model: liif_core.ContinuousModel) -> float:
    image = torch.rand(1, 3, 360, 640)
    times = [light.stages(model, image, (1440, 2560))[3] for _ in range(4)]
    return min(times) * 1e6 / image[0, 0].numel()


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None
