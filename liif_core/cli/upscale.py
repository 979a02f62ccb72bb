"""``liif upscale``: files in, files out; one bad file does not stop the others."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import frozen
from torch import Tensor
from tqdm import tqdm

from liif_core import files
from liif_core.cli import DONE, MISTAKE, PARTLY
from liif_core.cli.upscale_request import (
    FORMATS,
    Job,
    Wanted,
    budget,
    check_region,
    jobs,
    share,
    wanted,
)
from liif_core.errors import UserError
from liif_core.images import (
    Encoding,
    Picture,
    check_output,
    fill_transparent,
    from_planes,
    header,
    open_writer,
    read_image,
    to_planes,
)  # fmt: skip
from liif_core.model.continuous import ContinuousModel
from liif_core.model.device import autocast, pick_device, precision_problems
from liif_core.model.tile_plan import default_memory, plan_tiles, total_pixels
from liif_core.model.tiling import render_bands
from liif_core.models.loading import checkpoint_path
from liif_core.registry.discovery import discover
from liif_core.sizes import Scale, Size
from liif_core.training.checkpoint import load_checkpoint, model_of

Say = Callable[[str], None]


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
    asked = wanted(scale, size, region, problems)
    limit = budget(memory, problems)
    problems += precision_problems(precision)
    if format is not None and format not in FORMATS:
        problems.append(f"--format {format}: expected one of {', '.join(FORMATS)}")
    if (output is None) == (out_dir is None):
        problems.append("expected one of -o FILE and --out-dir DIR")
    rank, world = share(problems)
    chosen = [] if problems else jobs(inputs, output, out_dir, format, problems)
    if problems:
        raise UserError(*problems)
    target = pick_device(device or _own_device(rank, world))
    autocast(target, precision)  # refuses half precision on a CPU before anything is read
    registry = discover()
    loaded = load_checkpoint(checkpoint_path(checkpoint, registry), registry)
    model = model_of(loaded, registry, str(checkpoint)).to(target).eval().requires_grad_(False)
    settings = Settings(
        model, loaded.scale, asked, target, precision, limit or default_memory(target), max_pixels, format,
        Encoding(quality=quality, lossless=lossless), quiet,
    )  # fmt: skip
    results = [_one(job, settings, overwrite, say) for job in chosen[rank::world]]
    if json_path is not None:
        files.write_text(json_path, json.dumps({"results": results}, indent=2) + "\n")
    failed = [result for result in results if result["status"] == "failed"]
    if failed and len(results) > 1:
        say(f"{len(results) - len(failed)} of {len(results)} done; failed: {', '.join(r['input'] for r in failed)}")
    return DONE if not failed else PARTLY if len(failed) < len(results) else MISTAKE


def _own_device(rank: int, world: int) -> str:
    """Of several processes on a machine with several GPUs, each takes its own."""
    return f"cuda:{os.environ.get('LOCAL_RANK', rank)}" if world > 1 and torch.cuda.device_count() > 1 else "auto"


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
    return {
        **result,
        "status": "done",
        "width": size[1],
        "height": size[0],
        "seconds": round(seconds, 3),
        "notes": notes,
    }


def _render_file(job: Job, settings: Settings) -> tuple[Size, list[str]]:
    """Returns the output size, and sentences for the user. Limits are found before anything is decoded or computed."""
    model, wanted = settings.model, settings.wanted
    looked = header(job.source, settings.max_pixels)
    check_region(job.source, looked.size, wanted.region)
    size = wanted.size_of(looked.size)
    output = {"format": settings.format, "encoding": settings.encoding}
    check_output(job.target, size, looked.channels + looked.alpha, looked.depth, **output)
    picture = read_image(job.source, settings.max_pixels)
    within, size = picture.size, wanted.size_of(picture.size)
    stack = _Stack(picture, model.channels)
    target = check_output(job.target, size, stack.written, picture.depth, picture.metadata, **output)
    memory = settings.memory
    if settings.device.type == "cpu":
        memory -= target.memory + picture.color.nbytes
    if memory < settings.memory // 4:
        needed = 2 * (target.memory + picture.color.nbytes)
        raise UserError(
            f"--memory: {settings.memory / 1e6:.0f} MB are too few to hold this image and a {target.format.name} of its "
            f"size; give at least {needed / 1e6:.0f} MB, or use --format png or tif, which are written as they come"
        )
    cut = plan_tiles(model, within, size, wanted.region, memory, stack.batch)
    notes = [*picture.notes, *target.notes]
    if cut.overlap:
        notes.append("the encoder sees the whole image, which does not fit the memory: cut in tiles, approximate")
    notes += _beyond(wanted.scale_of(within), settings.trained)
    with (
        open_writer(target) as writer,
        tqdm(
            total=total_pixels(model, within, size, wanted.region), desc=job.source.name, unit="px", unit_scale=True,
            leave=False, delay=2, disable=settings.quiet or None,
        ) as bar,
    ):  # fmt: skip
        for band in render_bands(
            model, stack.read, within, size, cut, region=wanted.region, device=settings.device,
            precision=settings.precision, on_progress=bar.update,
        ):  # fmt: skip
            color, alpha = stack.apart(band)
            writer.write_rows(from_planes(color, alpha, target.depth, picture.span))
    return size, notes


class _Stack:
    """A picture as the batch of images that a model takes, and back.

    Alpha is rendered beside the color, as a gray image. A gray image goes through a model of three channels as three
    equal ones, whose mean is taken; a color image through a model of one channel, a channel at a time.
    """

    def __init__(self, picture: Picture, channels: int):
        self.picture = fill_transparent(picture)
        self.colors = picture.color.shape[2]
        self.channels = channels
        if channels not in (1, 3):
            raise UserError(f"the model takes images of {channels} channels, and image files have 1 or 3")
        self.alpha = picture.alpha is not None
        self.flat_alpha: float | None = None  # of all pixels, where it is one: it need not be rendered
        if self.alpha and picture.alpha.min() == picture.alpha.max():
            self.flat_alpha = float(to_planes(picture, slice(0, 1), slice(0, 1))[1][0, 0, 0])
        self.written = self.colors + self.alpha
        self.renders_alpha = self.alpha and self.flat_alpha is None
        self.color_images = 1 if self.colors == channels else self.colors
        self.batch = self.color_images + self.renders_alpha

    def read(self, rows: slice, columns: slice) -> Tensor:
        """A window of the picture as (batch, channels, h, w)."""
        color, alpha = to_planes(self.picture, rows, columns)
        images = [torch.from_numpy(color)] if self.colors == self.channels else list(torch.from_numpy(color)[:, None])
        if self.renders_alpha:
            images.append(torch.from_numpy(alpha))
        return torch.stack([image.expand(self.channels, -1, -1) for image in images])

    def apart(self, band: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
        """Rendered rows (batch, channels, h, w) -> color (c, h, w) and alpha (1, h, w) or None."""
        color = band[0] if self.colors == self.channels else band[: self.color_images].mean(1)
        if not self.alpha:
            return color.numpy(), None
        if self.renders_alpha:
            return color.numpy(), band[self.color_images].mean(0, keepdim=True).numpy()
        return color.numpy(), np.full((1, *band.shape[2:]), self.flat_alpha, np.float32)


def _beyond(scale: Scale, trained: tuple[float, float] | None) -> list[str]:
    if trained is None or trained[0] <= min(scale.y, scale.x) <= max(scale.y, scale.x) <= trained[1]:
        return []
    return [
        f"{scale.y:.3g} x {scale.x:.3g} is outside the scales this checkpoint was trained on, {trained[0]:g} to {trained[1]:g}"
    ]
