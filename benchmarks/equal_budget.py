"""Train every decoder for any scale under one equal budget, and measure all: the leaderboard of the documentation.

    python benchmarks/equal_budget.py --images FOLDER --hr FOLDER --out runs/equal [--steps 1000] [--batch 8]
        [--queries 288] [--seeds 0 1] [--only lte srno] [--scales 2 2.5 3.3,1.7 4 8] [--preset fair] [--name TEXT]
        [--train-only]
    liif leaderboard runs/equal -o index.html

All have the same encoder (EDSR of 4 blocks and 32 channels), the same images (those of --images), the same crops,
queries, steps, optimizer and learning rate, and all add the bilinear image, which some papers do not; each decoder has
its own size and conditions. (OPE-SR's codes are coefficients, so its encoder has 147 channels. Thera adds the nearest
pixel, as in its paper.) The results are added to OUT/results.jsonl. A run that was interrupted goes on, and what is
done is not done again: call it until it ends. ``--train-only`` leaves measuring, which includes times, for a later call
on an idle machine.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import toml
from decoders import BOTH, MODELS, PLAIN

from liif_core.images import READABLE_SUFFIXES

ENCODER = {"use": "edsr", "blocks": 4, "channels": 32}
DECODERS = MODELS | {"basis": {**PLAIN, "sampling": {"use": "nearest"}, "conditioning": BOTH}}
RESIDUAL = {"thera": "none"}  # others have the bilinear image
OPTIONS = {"thera": {"mean": [0.0]}, "igconv": {"mean": [0.5]}}  # no color but the residual is added to the decoder's
EPOCHS = 10  # and so checkpoints, if there are enough steps
OWN_LOSS = {"linf": 1.0}  # decoders that are trained by a likelihood of their own, and its weight


def experiment(decoder: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """The experiment file of a decoder."""
    images, steps, batch = options.images, options.steps, options.batch
    parts = DECODERS[decoder]
    model = {
        "decoder": {"use": decoder, **OPTIONS.get(decoder, {})},
        **parts,
        "residual": RESIDUAL.get(decoder, "bilinear"),
    }
    model["encoder"] = ENCODER | options_of(parts.get("encoder", {}))
    count = sum(path.suffix.lower() in READABLE_SUFFIXES for path in images.iterdir())
    repeat = max(1, round(steps * batch / EPOCHS / count))
    train: dict[str, Any] = {
        "epochs": max(1, round(steps * batch / (count * repeat))),
        "batch_size": batch,
        "workers": 0,
        "seed": seed,
        "optimizer": {"use": "adam", "lr": 4e-4},
        "schedule": {"use": "cosine", "warmup_steps": 100},
    }
    if decoder in OWN_LOSS:
        train |= {"loss": "none", "own_loss": OWN_LOSS[decoder]}
    return {
        "name": f"{decoder}, seed {seed}",
        "model": model,
        "data": {
            "images": {"source": "folder", "path": str(images.resolve())},
            "scale": [1.0, 4.0],
            "patch": 24,
            "queries": options.queries,
            "repeat": repeat,
        },
        "train": train,
        "run": {"device": "auto"},
    }


def options_of(encoder: dict[str, Any]) -> dict[str, Any]:
    """What a decoder asks of its encoder besides the size, such as channels that it shares out."""
    return {key: value for key, value in encoder.items() if key != "use"}


def liif(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "liif_core", *map(str, arguments)], check=True)


def trained(decoder: str, seed: int, options: argparse.Namespace) -> Path:
    """The checkpoint of a decoder, after its training."""
    folder = options.out / f"{decoder}-{seed}"
    done, weights = folder / "trained", folder / "run" / "checkpoints" / "last.safetensors"
    file = folder / "experiment.toml"
    folder.mkdir(parents=True, exist_ok=True)
    expect(file, toml.dumps(experiment(decoder, seed, options)))
    if not done.exists():
        resume = ["--resume"] if (folder / "run" / "checkpoints").exists() else []
        liif("run", file, "--out", folder / "run", "--quiet", *resume)
        done.touch()
    return weights


def expect(file: Path, text: str) -> None:
    """Write a file, or stop if there is another: budgets that differ are not to be mixed."""
    if not file.exists():
        file.write_text(text)
    elif file.read_text() != text:
        raise SystemExit(f"{file}: was made with other options; give another --out")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of photographs to train on")
    parser.add_argument("--hr", type=Path, required=True, help="folder of photographs to measure on")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=8, help="images of a step")
    parser.add_argument("--queries", type=int, default=288, help="pixels of an image")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", nargs="+", choices=DECODERS, default=list(DECODERS))
    parser.add_argument("--scales", nargs="+", default=["2", "2.5", "3.3,1.7", "4", "8"])
    parser.add_argument("--preset", default="fair")
    parser.add_argument("--name", help="name of the data set that is measured on")
    parser.add_argument("--train-only", action="store_true", help="measure later")
    options = parser.parse_args()
    for seed in options.seeds:
        for decoder in options.only:
            weights = trained(decoder, seed, options)
            if options.train_only:
                continue
            folder = options.out / f"{decoder}-{seed}"
            how = {"hr": str(options.hr.resolve()), "scales": options.scales, "preset": options.preset}
            expect(folder / "measuring.toml", toml.dumps(how))
            measured = folder / "measured"
            if not measured.exists():
                scales = [part for scale in options.scales for part in ("--scale", scale)]
                results = ["--results", options.out / "results.jsonl", "--quiet"]
                results += ["--name", options.name or options.hr.absolute().name]
                liif("evaluate", weights, "--hr", options.hr, *scales, "--preset", options.preset, *results)
                measured.touch()


if __name__ == "__main__":
    main()
