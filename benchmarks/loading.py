"""How long a batch of training samples takes to load, without workers, from a folder of JPEG files.

    python benchmarks/loading.py [--size 1356 2040] [--images 8] [--batch 16] [--rounds 5]

The images are smooth noise of the size of DIV2K's, which are made first. "Kept" holds decoded images in memory, as
``open_images`` does up to its ``memory_gb`` (4 GB); "decoded again" is for the images beyond that. Seconds are of the
process: divide them by those of a step (``train_step.py``) for the share that loading has.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from liif_core.data.crops import CropDataset
from liif_core.data.loading import batches
from liif_core.data.sources import open_images
from liif_core.experiment.schema import FolderSource, TrainingData


def make_images(folder: Path, count: int, size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    for i in range(count):
        small = Image.fromarray(random.integers(0, 256, (size[0] // 16, size[1] // 16, 3), dtype=np.uint8))
        small.resize(size[::-1], Image.Resampling.BICUBIC).save(folder / f"{i}.jpg", quality=92)


def seconds(dataset: CropDataset, batch: int, rounds: int) -> float:
    """The mean over all batches of as many epochs: crops, and what they cost, are random."""
    started, count = time.process_time(), 0
    for epoch in range(rounds):
        count += sum(1 for _ in batches(dataset, batch, epoch))
    return (time.process_time() - started) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=[1356, 2040], metavar=("H", "W"))
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_images(Path(folder), options.images, tuple(options.size))
        source = FolderSource(path=Path(folder))
        data = TrainingData(images=source, repeat=2 * options.batch // options.images)
        print(f"| images | CPU seconds for a batch of {options.batch} |")
        print("|---|---:|")
        for name, memory in (("kept", 4.0), ("decoded again", 0.0)):
            dataset = CropDataset(open_images(source, memory_gb=memory), data, seed=0)
            print(f"| {name} | {seconds(dataset, options.batch, options.rounds):.3f} |")


if __name__ == "__main__":
    main()
