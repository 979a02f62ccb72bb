"""``liif upscale``: files in, files out; one bad file does not stop the others."""

import glob
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import evolve, frozen
from torch import Tensor
from tqdm import tqdm

from liif_core import files
from liif_core.checkpoint import load_checkpoint, model_of
from liif_core.cli import DONE, MISTAKE, PARTLY
from liif_core.device import autocast, pick_device
from liif_core.errors import UserError
from liif_core.geometry import Scale, Size, scaled_size
from liif_core.images import (
    MAX_PIXELS, Encoding, Picture, check_output, fill_transparent, from_planes, header, open_writer, read_image, to_planes,
)  # fmt: skip
from liif_core.model import ContinuousModel
from liif_core.plugins import discover
from liif_core.render import Region, default_memory, plan, render_bands

Say = Callable[[str], None]

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_READABLE = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".pbm")
_FORMATS = ("png", "jpg", "webp", "tif")


@frozen
class Wanted:
    """How large, and which part: what the options said, checked."""

    scale: Scale | None  # else the size
    width: int | None
    height: int | None
    region: Region | None

    def size_of(self, within: Size) -> Size:
        """The output size for an image of size ``within``."""
        top, left, bottom, right = self.region or (0, 0, *within)
        part = bottom - top, right - left
        if self.scale is not None:
            return scaled_size(part, self.scale)
        if self.height is None:
            return scaled_size(part, Scale.of(self.width / part[1]))[0], self.width
        if self.width is None:
            return self.height, scaled_size(part, Scale.of(self.height / part[0]))[1]
        return self.height, self.width

    def scale_of(self, within: Size) -> Scale:
        """The magnification that comes to."""
        top, left, bottom, right = self.region or (0, 0, *within)
        height, width = self.size_of(within)
        return self.scale or Scale(height / (bottom - top), width / (right - left))


@frozen
class Job:
    """One input and where its output goes."""

    source: Path
    target: Path


@frozen
class Settings:
    """What all files share."""

    model: ContinuousModel
    trained: tuple[float, float] | None
    wanted: Wanted
    device: torch.device
    precision: str
    memory: int
    max_pixels: int
    format: str | None
    encoding: Encoding
    quiet: bool


def upscale(
    inputs: tuple[str, ...],
    checkpoint: Path,
    output: Path | None,
    out_dir: Path | None,
    scale: str | None,
    size: str | None,
    region: str | None,
    device: str | None,
    precision: str,
    memory: str | None,
    format: str | None,
    quality: int,
    lossless: bool,
    max_pixels: int,
    overwrite: bool,
    json_path: Path | None,
    quiet: bool,
    say: Say,
) -> int:
    """Render every input; returns the exit code. Raises UserError for what is wrong with the request itself."""
    problems: list[str] = []
    wanted = _wanted(scale, size, region, problems)
    budget = _bytes(memory, problems)
    if precision not in ("float32", "bf16", "fp16"):
        problems.append(f"--precision {precision}: expected float32, bf16 or fp16")
    if format is not None and format not in _FORMATS:
        problems.append(f"--format {format}: expected one of {', '.join(_FORMATS)}")
    if (output is None) == (out_dir is None):
        problems.append("expected one of -o FILE and --out-dir DIR")
    jobs = [] if problems else _jobs(inputs, output, out_dir, format, problems)
    if problems:
        raise UserError(*problems)
    rank, world = _share(problems)
    if problems:
        raise UserError(*problems)
    target = pick_device(device or (f"cuda:{os.environ.get('LOCAL_RANK', rank)}" if _own_gpu(world) else "auto"))
    autocast(target, precision)  # refuses half precision on a CPU before anything is read
    registry = discover()
    loaded = load_checkpoint(checkpoint, registry)
    model = model_of(loaded, registry, str(checkpoint)).to(target).eval().requires_grad_(False)
    settings = Settings(
        model, loaded.scale, wanted, target, precision, budget or default_memory(target), max_pixels, format,
        Encoding(quality=quality, lossless=lossless), quiet,
    )  # fmt: skip
    results = [_one(job, settings, overwrite, say) for job in jobs[rank::world]]
    if json_path is not None:
        files.write_text(json_path, json.dumps({"results": results}, indent=2) + "\n")
    failed = [result for result in results if result["status"] == "failed"]
    if failed and len(results) > 1:
        say(f"{len(results) - len(failed)} of {len(results)} done; failed: {', '.join(r['input'] for r in failed)}")
    return DONE if not failed else PARTLY if len(failed) < len(results) else MISTAKE


def _one(job: Job, settings: Settings, overwrite: bool, say: Say) -> dict[str, Any]:
    """Render one file; what goes wrong with it is told and put in the result."""
    result: dict[str, Any] = {"input": str(job.source), "output": str(job.target)}
    if job.target.exists() and not overwrite:
        say(f"{job.target}: is there already, skipped (--overwrite renders it again)")
        return {**result, "status": "skipped"}
    started = time.monotonic()
    try:
        size, notes = _render_file(job, settings)
    except UserError as error:
        for problem in error.problems:
            say(f"error: {problem}" if str(job.source) in problem else f"error: {job.source}: {problem}")
        return {**result, "status": "failed", "error": list(error.problems)}
    for note in notes:
        say(f"{job.source}: {note}")
    seconds = time.monotonic() - started
    say(f"{job.target}: {size[1]} x {size[0]}, {seconds:.1f} s")
    return {**result, "status": "done", "width": size[1], "height": size[0], "seconds": round(seconds, 3), "notes": notes}


def _render_file(job: Job, settings: Settings) -> tuple[Size, list[str]]:
    """Returns the output size, and sentences for the user. Limits are found before anything is decoded or computed."""
    model, wanted = settings.model, settings.wanted
    looked = header(job.source, settings.max_pixels)
    _check_region(job.source, looked.size, wanted.region)
    size = wanted.size_of(looked.size)
    output = {"format": settings.format, "encoding": settings.encoding}
    check_output(job.target, size, looked.channels + looked.alpha, looked.depth, **output)
    picture = read_image(job.source, settings.max_pixels)
    within, size = picture.size, wanted.size_of(picture.size)
    stack = _Stack(picture, model.channels)
    target = check_output(job.target, size, stack.written, picture.depth, picture.metadata, **output)
    memory = settings.memory
    if settings.device.type == "cpu":
        memory -= target.memory + picture.colour.nbytes
    if memory < settings.memory // 4:
        needed = 2 * (target.memory + picture.colour.nbytes)
        raise UserError(
            f"--memory: {settings.memory / 1e6:.0f} MB are too few to hold this image and a {target.format.name} of its "
            f"size; give at least {needed / 1e6:.0f} MB, or use --format png or tif, which are written as they come"
        )
    cut = plan(model, within, size, wanted.region, memory, stack.batch)
    notes = [*picture.notes, *target.notes]
    if cut.lap:
        notes.append("the encoder sees the whole image, which does not fit the memory: cut in tiles, approximate")
    notes += _beyond(wanted.scale_of(within), settings.trained)
    with (
        open_writer(target) as writer,
        tqdm(
            total=size[0] * size[1], desc=job.source.name, unit="px", unit_scale=True, leave=False, delay=2,
            disable=settings.quiet or None,
        ) as bar,
    ):  # fmt: skip
        for band in render_bands(
            model, stack.read, within, size, cut, region=wanted.region, device=settings.device,
            precision=settings.precision, done=bar.update,
        ):  # fmt: skip
            colour, alpha = stack.apart(band)
            writer.write_rows(from_planes(colour, alpha, target.depth, picture.span))
    return size, notes


class _Stack:
    """A picture as the batch of images that a model takes, and back.

    Alpha is rendered beside the colour, as a grey image. A grey image goes through a model of three channels as three
    equal ones, whose mean is taken; a colour image through a model of one channel, a channel at a time.
    """

    def __init__(self, picture: Picture, channels: int):
        self.picture = fill_transparent(picture)
        self.colours = picture.colour.shape[2]
        self.channels = channels
        if channels not in (1, 3):
            raise UserError(f"the model takes images of {channels} channels, and image files have 1 or 3")
        opaque = picture.alpha is not None and bool((picture.alpha == picture.alpha.max()).all())
        self.flat_alpha = float(to_planes(evolve(picture, colour=picture.colour[:1, :1], alpha=picture.alpha[:1, :1]))[1][0, 0, 0]) if opaque else None
        self.alpha = picture.alpha is not None
        self.written = self.colours + self.alpha
        whole = channels == 3 and self.colours == 3
        self.batch = (1 if whole else self.colours) + (self.alpha and self.flat_alpha is None)

    def read(self, rows: slice, columns: slice) -> Tensor:
        """A window of the picture as (batch, channels, h, w)."""
        colour, alpha = to_planes(self.picture, rows, columns)
        images = [torch.from_numpy(colour)] if self.colours == self.channels else list(torch.from_numpy(colour)[:, None])
        if alpha is not None and self.flat_alpha is None:
            images.append(torch.from_numpy(alpha))
        return torch.stack([image.expand(self.channels, -1, -1) for image in images])

    def apart(self, band: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
        """Rendered rows (batch, channels, h, w) -> colour (c, h, w) and alpha (1, h, w) or None."""
        count = self.batch - (self.alpha and self.flat_alpha is None)
        colour = band[0] if self.colours == self.channels else band[:count].mean(1)
        if not self.alpha:
            return colour.numpy(), None
        if self.flat_alpha is None:
            return colour.numpy(), band[count].mean(0, keepdim=True).numpy()
        return colour.numpy(), np.full((1, *band.shape[2:]), self.flat_alpha, np.float32)


def _beyond(scale: Scale, trained: tuple[float, float] | None) -> list[str]:
    if trained is None or trained[0] <= min(scale.y, scale.x) <= max(scale.y, scale.x) <= trained[1]:
        return []
    return [f"{scale.y:.3g} x {scale.x:.3g} is outside the scales this checkpoint was trained on, {trained[0]:g} to {trained[1]:g}"]


# What the options say


def _wanted(scale: str | None, size: str | None, region: str | None, problems: list[str]) -> Wanted:
    chosen, width, height, part = None, None, None, None
    if (scale is None) == (size is None):
        problems.append("expected one of --scale S (or SY,SX) and --size WxH (or Wx, or xH)")
    elif scale is not None:
        try:
            chosen = Scale.parse(scale)
        except ValueError as error:
            problems.append(f"--scale {scale}: {error}")
    else:
        sides = size.lower().split("x")
        good = len(sides) == 2 and any(sides) and all(s == "" or (s.isascii() and s.isdigit() and 0 < int(s) < 2**31) for s in sides)
        if good:
            width, height = (int(side) if side else None for side in sides)
        else:
            problems.append(f"--size {size}: expected WxH, Wx or xH in pixels, such as 1920x1080, 1000x or x600")
    if region is not None:
        try:
            part = tuple(float(number) for number in region.split(","))
        except ValueError:
            part = ()
        if len(part) != 4 or not all(math.isfinite(n) for n in part) or not (0 <= part[0] < part[2] and 0 <= part[1] < part[3]):
            problems.append(
                f"--region {region}: expected TOP,LEFT,BOTTOM,RIGHT in input pixels, TOP < BOTTOM and LEFT < RIGHT"
            )
    return Wanted(chosen, width, height, part)


def _check_region(source: Path, within: Size, region: Region | None) -> None:
    if region is not None and (region[2] > within[0] or region[3] > within[1]):
        raise UserError(
            f"{source}: --region reaches {region[2]:g} down and {region[3]:g} across, and the image has "
            f"{within[0]} rows and {within[1]} columns"
        )


def _bytes(text: str | None, problems: list[str]) -> int | None:
    if text is None:
        return None
    compact = text.replace(" ", "").upper()
    number = compact.rstrip("BKMGTI")
    try:
        value = float(number) * _UNITS[compact[len(number) :]]
        if not 1e6 <= value < math.inf:
            raise ValueError
        return int(value)
    except (ValueError, KeyError):
        problems.append(f"--memory {text}: expected at least 1MB, such as 300MB or 2GB")
        return None


def _share(problems: list[str]) -> tuple[int, int]:
    """This process's rank among those that share the work, and how many they are."""
    values = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if all(value.isascii() and value.isdigit() for value in values) and int(values[0]) < int(values[1]):
        return int(values[0]), int(values[1])
    problems.append(f"RANK={values[0]} WORLD_SIZE={values[1]}: expected a rank from 0 to one less than the world size")
    return 0, 1


def _own_gpu(world: int) -> bool:
    return world > 1 and torch.cuda.device_count() > 1


def _jobs(
    inputs: tuple[str, ...], output: Path | None, out_dir: Path | None, format: str | None, problems: list[str]
) -> list[Job]:
    """Every input file, sorted, with its output. An input that names nothing, and two with one output, are problems."""
    found: dict[Path, Path] = {}  # file -> its name below the output folder
    for text in inputs:
        listed = list(_listed(Path(text), text))
        if not listed:
            kind = "no image in this folder" if Path(text).is_dir() else "no such file, and no file of this pattern"
            problems.append(f"{text}: {kind}")
        found.update(listed)
    if output is not None:
        if len(found) > 1:
            problems.append(f"-o {output}: is for one image, and there are {len(found)}; use --out-dir")
        return [Job(source, output) for source in found]
    jobs = [Job(source, out_dir / name.with_suffix(_suffix(name, format))) for source, name in sorted(found.items())]
    by_target: dict[Path, list[Path]] = {}
    for job in jobs:
        by_target.setdefault(job.target, []).append(job.source)
    problems += [
        f"{target}: would be the output of {' and of '.join(map(str, sources))}; run them apart"
        for target, sources in by_target.items()
        if len(sources) > 1
    ]
    problems += [f"{job.source}: would be replaced by its own output" for job in jobs if job.target.absolute() == job.source.absolute()]
    return jobs


def _listed(path: Path, pattern: str) -> Iterator[tuple[Path, Path]]:
    if path.is_dir():
        for file in path.rglob("*"):
            if file.suffix.lower() in _READABLE and file.is_file() and not file.name.startswith("."):
                yield file, file.relative_to(path)
    elif path.exists():
        yield path, Path(path.name)
    else:
        yield from ((Path(file), Path(Path(file).name)) for file in glob.glob(pattern, recursive=True) if Path(file).is_file())


def _suffix(name: Path, format: str | None) -> str:
    if format is not None:
        return f".{format}"
    return name.suffix if name.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff") else ".png"
