"""Compare the time of ``liif evaluate`` with several presets with the encoding and decoding that they need.

    python benchmarks/evaluate_presets.py edsr-baseline-liif.pth Set5/x2/HR [--rounds 2]
        [--scales 2 3 4 6 8] [--presets benchmark lte thera gsasr fair]

"Needed" is the time to encode each different LR image once, and to render each different image once: presets differ in
LR (Pillow's bicubic or MATLAB's), cell, orientations and tiles. Nothing else is done then: LR images are made before.
"Evaluate" is the command without the start of Python and the imports, which take a few seconds: reading the checkpoint
and the images, LR images, PSNR of model and bicubic, and tables. "One by one" is a command for each preset. Times are
minima over the rounds, in which the ways take turns. The goal is a ratio of at most 1.3.
"""

import argparse
import time
from pathlib import Path

import torch

import liif_core
from liif_core.cli.evaluate import evaluate_checkpoint
from liif_core.data.sources import ImageSet, open_images
from liif_core.evaluation.pairs import as_tensor, pairs
from liif_core.experiment.schema import FolderSource
from liif_core.model.continuous import ContinuousModel
from liif_core.model.ensemble import ENSEMBLES, ROTATIONS
from liif_core.model.geometry import region_axes
from liif_core.presets import PROTOCOLS
from liif_core.sizes import Scale, Size

Work = list[tuple[torch.Tensor, Size, list[float | None], int]]


def needed(images: ImageSet, scales: list[Scale], presets: list[str]) -> Work:
    """(LR image, size, largest scales of cells, orientations) of each different LR image."""
    work: Work = []
    for i in range(len(images)):
        for scale in scales:
            for pair, users in pairs(images, i, scale, presets):
                if any(PROTOCOLS[name].tiles for name in users):
                    raise SystemExit("presets with tiles render parts of images twice, which this does not count")
                limits = {PROTOCOLS[name].max_scale for name in users}
                cells = dict.fromkeys(None if limit is None or scale.y <= limit else limit for limit in limits)
                turns = max(PROTOCOLS[name].ensemble for name in users)
                work.append((as_tensor(pair.low), pair.size, list(cells), turns))
    return work


@torch.inference_mode()
def encode_and_decode(model: ContinuousModel, work: Work) -> None:
    for low, size, limits, turns in work:
        rows, columns, cell = region_axes(size, (low.shape[2], low.shape[3]), None)
        for turn in ENSEMBLES[turns] if turns > 1 else ROTATIONS[:1]:
            picture = model.encode(turn.image(low))
            for limit in limits if turn == ROTATIONS[0] else [None]:
                least = cell if limit is None else 2 / (limit * torch.tensor(low.shape[-2:]))
                turn.render(picture, rows, columns, torch.maximum(cell, least))


def evaluate(checkpoint: Path, hr: Path, scales: list[str], presets: list[str]) -> None:
    evaluate_checkpoint(
        checkpoint, hr, None, None, tuple(scales), tuple(presets), None, None, None, False, "float32", None, "cpu",
        True, lambda text: None,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("hr", type=Path)
    parser.add_argument("--scales", nargs="+", default=["2", "3", "4", "6", "8"])
    parser.add_argument("--presets", nargs="+", default=["benchmark", "lte", "thera", "gsasr", "fair"])
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    model = liif_core.load(options.checkpoint)
    images = open_images(FolderSource(options.hr.absolute()))
    work = needed(images, [Scale.parse(text) for text in options.scales], options.presets)
    encode_and_decode(model, work[:1])
    best = dict.fromkeys(("needed", "evaluate", "one by one"), float("inf"))
    for _ in range(options.rounds):
        for name in best:
            start = time.perf_counter()
            if name == "needed":
                encode_and_decode(model, work)
            elif name == "evaluate":
                evaluate(options.checkpoint, options.hr, options.scales, options.presets)
            else:
                for preset in options.presets:
                    evaluate(options.checkpoint, options.hr, options.scales, [preset])
            best[name] = min(best[name], time.perf_counter() - start)
    print(f"{len(images)} images, scales {' '.join(options.scales)}, presets {' '.join(options.presets)}")
    for name, seconds in best.items():
        print(f"{name}: {seconds:.1f} s, {seconds / best['needed']:.2f} times what is needed")


if __name__ == "__main__":
    main()
