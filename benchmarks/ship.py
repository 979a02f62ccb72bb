"""Write a trained model and its card to where the included models are: NAME.safetensors and NAME.json.

    python benchmarks/ship.py NAME CHECKPOINT SET5 [--jpeg 40 75]

CHECKPOINT is the result of experiments/NAME.toml. Its branches are folded, and paths of this machine, of images and of
the weights that it began with, are replaced by those of the experiment file. PSNR on Set5 (a folder with x2/HR, x2/LR
and so on) is measured with what was written. The other fields of the card are kept.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import models
from attrs import evolve

import liif_core
import liif_zoo.trained
from liif_core.experiment.toml_file import read_experiment_file
from liif_zoo.rep import fold

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
SCALES = [1.5, 2, 2.5, 3, 4, 6, 8]
JPEG_SCALES = [2, 4]


def shipped(checkpoint: liif_core.Checkpoint, name: str) -> liif_core.Checkpoint:
    """The checkpoint with plain convolutions, and without paths of this machine and things to evaluate."""
    if not checkpoint.experiment["model"]["encoder"].get("folded"):
        checkpoint = fold(checkpoint)
    kept: dict[str, Any] = {key: checkpoint.experiment[key] for key in ("name", "model", "data", "train")}
    for table, key in (("data", "images"), ("train", "start_from")):
        if key in kept[table]:
            kept[table] = {**kept[table], key: as_written(name, table, key)}
    return evolve(checkpoint, experiment=kept)


def as_written(name: str, table: str, key: str) -> dict[str, Any]:
    """What the experiment file says, with relative paths as they are in it."""
    found = read_experiment_file(EXPERIMENTS / f"{name}.toml").base[table][key]
    return {name: str(value) if isinstance(value, str) else value for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("set5", type=Path)
    parser.add_argument("--jpeg", type=int, nargs="*", default=[])
    given = parser.parse_args()
    file = liif_zoo.trained.FOLDER / f"{given.name}.safetensors"
    liif_core.save_checkpoint(file, shipped(liif_core.load_checkpoint(given.checkpoint), given.name))
    scores = {f"Set5 x{s:g}": models.psnr(str(file), given.set5, s, None, 2) for s in SCALES}
    for quality in given.jpeg:
        scores |= {
            f"Set5 x{s:g} JPEG {quality}": models.psnr(str(file), given.set5, s, quality, 2) for s in JPEG_SCALES
        }
    data, card = file.read_bytes(), file.with_suffix(".json")
    known = json.loads(card.read_text(encoding="utf-8")) if card.exists() else {}
    known |= {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    known["scores"] = {name: round(value, 2) for name, value in scores.items() if value is not None}
    card.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    print(card.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
