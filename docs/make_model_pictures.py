"""Draw the pictures of the included models: ``python docs/make_model_pictures.py [FOLDER]``.

They show photographs that come with scikit-image, which the models have not seen. The times in the first picture are
measured while it is drawn.
"""

import io
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import skimage.data
import torch
from PIL import Image, ImageDraw, ImageFont

import liif_core

PANEL, GAP, CAPTION = (540, 380), 8, 26  # (width, height) of a panel, and what is around it, in pixels
INK, THREADS = "#2b2b33", 2
SMALL = (230, 172)  # a panel of the picture of limits

Enlarge = Callable[[Image.Image, tuple[int, int]], Image.Image]


def photograph(name: str) -> Image.Image:
    return Image.fromarray(getattr(skimage.data, name)()).convert("RGB")


def bicubic(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize(size, Image.Resampling.BICUBIC)


def by_model(name: str) -> Enlarge:
    model = liif_core.load(name)
    return lambda image, size: model.upscale(image, width=size[0], height=size[1])


def timed(enlarge: Enlarge, image: Image.Image, size: tuple[int, int]) -> tuple[Image.Image, float]:
    enlarge(image.crop((0, 0, 32, 32)), (64, 64))
    start = time.perf_counter()
    large = enlarge(image, size)
    return large, time.perf_counter() - start


def sheet(rows: list[list[tuple[Image.Image, str]]], panel: tuple[int, int]) -> Image.Image:
    """Panels with a caption under each."""
    width, height = panel[0] + GAP, panel[1] + CAPTION
    drawn = Image.new("RGB", (width * len(rows[0]) - GAP, height * len(rows)), "white")
    pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(15)
    for y, row in enumerate(rows):
        for x, (image, caption) in enumerate(row):
            drawn.paste(image, (x * width, y * height))
            pen.text((x * width + 2, y * height + panel[1] + 3), caption, INK, font)
    return drawn


def draw_enlarged(path: Path) -> None:
    """A photograph at x4 and at x11.3, bicubic beside ``clean``; whole enlargements are timed, and a part is shown."""
    photo, rows = photograph("astronaut"), []
    for scale, center in ((4, (222, 128)), (11.3, (212, 116))):
        size = (round(photo.width * scale), round(photo.height * scale))
        left, top = (round(at * scale - side / 2) for at, side in zip(center, PANEL))
        row = []
        for name, enlarge in (("bicubic", bicubic), ("liif-core, model clean", by_model("clean"))):
            large, seconds = timed(enlarge, photo, size)
            part = large.crop((left, top, left + PANEL[0], top + PANEL[1]))
            row.append((part, f"x{scale}, {name}: {seconds:.2g} s for {size[0]} x {size[1]} pixels"))
        rows.append(row)
    sheet(rows, PANEL).save(path)


def draw_photo(path: Path) -> None:
    """A photograph that was shrunk and compressed, enlarged by bicubic interpolation and by both models."""
    rows = []
    for name, box, quality in (("coffee", (210, 60, 440, 232), 40), ("chelsea", (110, 60, 340, 232), 60)):
        low, true = compressed(shrunk(photograph(name), 2), quality), photograph(name)
        ways = {"bicubic": bicubic, "clean": by_model("clean"), "photo": by_model("photo")}
        row = [(enlarge(low, true.size).crop(box), f"x2, JPEG {quality}, {way}") for way, enlarge in ways.items()]
        rows.append([*row, (true.crop(box), "the original")])
    sheet(rows, SMALL).save(path)


def draw_limits(path: Path) -> None:
    """What the models do badly: texture that is lost, small letters, and compression below what was trained on."""
    cases = (
        ("grass", 4, None, "clean", (140, 140, 370, 312), "a texture"),
        ("page", 4, None, "clean", (10, 10, 240, 182), "letters"),
        ("astronaut", 2, 8, "photo", (120, 40, 350, 212), "JPEG 8"),
    )
    rows = []
    for name, scale, quality, model, box, what in cases:
        true = photograph(name)
        low = shrunk(true, scale)
        low = low if quality is None else compressed(low, quality)
        panels = {"bicubic": bicubic(low, true.size), model: by_model(model)(low, true.size), "the original": true}
        rows.append([(image.crop(box), f"{what}, x{scale}, {way}") for way, image in panels.items()])
    sheet(rows, SMALL).save(path)


def shrunk(image: Image.Image, scale: int) -> Image.Image:
    return image.resize((image.width // scale, image.height // scale), Image.Resampling.BICUBIC)


def compressed(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


PICTURES = {"enlarged.png": draw_enlarged, "photo.png": draw_photo, "limits.png": draw_limits}


def main(folder: Path) -> None:
    torch.set_num_threads(min(THREADS, os.cpu_count() or 1))
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        draw(folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "pictures")
