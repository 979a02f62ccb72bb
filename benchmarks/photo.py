"""Compare models on compressed photographs: mean PSNR of random crops, against bicubic interpolation.

    python benchmarks/photo.py [FOLDER] [--models clean photo] [--scales 2 4] [--qualities 40 60 75] [--crops 12]
                               [--seeds 0 1] [--side 320]

FOLDER has photographs that the models were not trained on; without it, those that come with scikit-image are used. Each
crop is shrunk by Pillow's bicubic filter and compressed by JPEG, with 4:2:0 chroma for even numbers of a crop and 4:4:4
for odd ones. "none" is without compression. PSNR is that of the protocol 'benchmark'.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import liif_core

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")


def photographs(folder: Path | None) -> list[Image.Image]:
    if folder is not None:
        return [Image.open(path).convert("RGB") for path in sorted(folder.iterdir())]
    import skimage.data

    return [Image.fromarray(getattr(skimage.data, name)()).convert("RGB") for name in PHOTOGRAPHS]


def crop(image: Image.Image, side: int, rng: np.random.Generator) -> Image.Image:
    width, height = (min(side, whole) // 4 * 4 for whole in image.size)
    left, top = rng.integers(0, [image.width - width + 1, image.height - height + 1])
    return image.crop((left, top, left + width, top + height))


def low_resolution(image: Image.Image, scale: int, quality: int | None, subsampling: int) -> Image.Image:
    low = image.resize((image.width // scale, image.height // scale), Image.Resampling.BICUBIC)
    if quality is None:
        return low
    file = io.BytesIO()
    low.save(file, "JPEG", quality=quality, subsampling=subsampling)
    return Image.open(file).convert("RGB")


def psnr(large: Image.Image, true: Image.Image, scale: int) -> float:
    a, b = (torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255 for image in (large, true))
    return liif_core.psnr(a, b, protocol="benchmark", scale=scale)


def by_model(name: str) -> Callable[[Image.Image, Image.Image], Image.Image]:
    model = liif_core.load(name)
    return lambda low, true: model.upscale(low, width=true.width, height=true.height)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--models", nargs="+", default=["clean", "photo"])
    parser.add_argument("--scales", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--qualities", type=int, nargs="*", default=[40, 60, 75])
    parser.add_argument("--crops", type=int, default=12)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--side", type=int, default=320)
    given = parser.parse_args()
    ways = {"bicubic": lambda low, true: low.resize(true.size, Image.Resampling.BICUBIC)}
    ways |= {name: by_model(name) for name in given.models}
    images = photographs(given.folder)
    print(f"{given.crops} crops of {given.side} x {given.side} pixels\n")
    print(f"| seed | scale | JPEG quality | {' | '.join(ways)} |\n|---:|---:|---:|{'---:|' * len(ways)}")
    for seed in given.seeds:
        rng = np.random.default_rng(seed)
        crops = [crop(images[int(rng.integers(len(images)))], given.side, rng) for _ in range(given.crops)]
        for scale in given.scales:
            for quality in (None, *given.qualities):
                cells = []
                for enlarge in ways.values():
                    pairs = [(low_resolution(one, scale, quality, 2 - 2 * (i % 2)), one) for i, one in enumerate(crops)]
                    cells.append(np.mean([psnr(enlarge(low, true), true, scale) for low, true in pairs]))
                print(f"| {seed} | x{scale} | {quality or 'none'} | {' | '.join(f'{cell:.2f}' for cell in cells)} |")


if __name__ == "__main__":
    main()
