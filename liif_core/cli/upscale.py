"""``liif upscale``: reads image files, renders them, and writes image files. A bad file does not stop the others."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from tqdm import tqdm

from liif_core import files
from liif_core.cli.common import DONE, MISTAKE, PARTLY
from liif_core.cli.upscale_memory import check_memory, give_freed_blocks_back
from liif_core.cli.upscale_models import choose
from liif_core.cli.upscale_request import Job, jobs, memory_limit, output_size, share
from liif_core.errors import UserError
from liif_core.images import WRITABLE, Encoding, check_output, open_writer, survey
from liif_core.model.continuous import ContinuousModel
from liif_core.model.device import autocast, device_of, pick_device, precision_problems
from liif_core.model.tile_plan import default_memory
from liif_core.model.upscaler import PictureRenderer
from liif_core.registry.discovery import discover
from liif_core.sizes import OutputSize, Size

CPU = torch.device("cpu")
Say = Callable[[str], None]


@frozen
class Settings:
    """The settings that all files share."""

    output: OutputSize
    precision: str
    memory: int
    max_pixels: int
    format: str | None
    encoding: Encoding
    quiet: bool


def upscale(
    inputs: tuple[str, ...],
    checkpoint: Path | None,
    model: str | None,
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
    output_sizes = output_size(scale, size, region, problems)
    limit = memory_limit(memory, problems)
    problems += precision_problems(precision)
    if format is not None and format not in WRITABLE:
        problems.append(f"--format {format}: expected one of {', '.join(WRITABLE)}")
    if (output is None) == (out_dir is None):
        problems.append("expected one of -o FILE and --out-dir DIR")
    if checkpoint is not None and model is not None:
        problems.append("expected one of --checkpoint FILE and --model NAME, got both")
    rank, world = share(problems)
    chosen = [] if problems else jobs(inputs, output, out_dir, format, problems)
    if problems:
        raise UserError(*problems)
    give_freed_blocks_back()
    target = pick_device(device or _own_device(rank, world))
    autocast(target, precision)  # refuses half precision that the device lacks before anything is read
    own = chosen[rank::world]
    choice = choose([job.source for job in own], checkpoint, model, discover())
    if choice.reason:
        say(choice.reason)
    models = choice.load(target)
    settings = Settings(
        output_sizes, precision, limit or default_memory(target), max_pixels, format,
        Encoding(quality=quality, lossless=lossless), quiet,
    )  # fmt: skip
    results = [
        {**_one(job, settings, models[name], overwrite, say), "model": name} for job, name in zip(own, choice.names)
    ]
    if json_path is not None:
        files.write_text(json_path, json.dumps({"results": results}, indent=2) + "\n")
    failed = [result for result in results if result["status"] == "failed"]
    if failed and len(results) > 1:
        say(f"{len(results) - len(failed)} of {len(results)} done; failed: {', '.join(r['input'] for r in failed)}")
    return DONE if not failed else PARTLY if len(failed) < len(results) else MISTAKE


def _own_device(rank: int, world: int) -> str:
    """The GPU with this process's rank where several processes run on a machine with several GPUs."""
    return f"cuda:{os.environ.get('LOCAL_RANK', rank)}" if world > 1 and torch.cuda.device_count() > 1 else "auto"


def _one(job: Job, settings: Settings, model: ContinuousModel, overwrite: bool, say: Say) -> dict[str, Any]:
    """Render one file. Problems with it are printed and put in the result."""
    result: dict[str, Any] = {"input": str(job.source), "output": str(job.target)}
    if job.target.exists() and not overwrite:
        say(f"{job.target}: already exists, skipped (use --overwrite to render it again)")
        return {**result, "status": "skipped"}
    started = time.monotonic()
    try:
        size, notes = _render_file(job, settings, model)
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


def _render_file(job: Job, settings: Settings, model: ContinuousModel) -> tuple[Size, list[str]]:
    """The output size, and notes for the user. Limits are checked before anything is decoded or computed."""
    output = settings.output
    encoding: dict[str, Any] = {"format": settings.format, "encoding": settings.encoding}
    on_cpu = device_of(model).type == "cpu"
    # On a GPU, the limit is one of its own memory.
    opening = survey(job.source, settings.memory if on_cpu else default_memory(CPU), settings.max_pixels)
    found = opening.header
    try:
        output.check_region(found.size)
    except ValueError as error:
        raise UserError(f"{job.source}: --{error}") from None
    expected = check_output(
        job.target, output.for_image(found.size), found.channels + found.alpha, found.depth, **encoding
    )
    if on_cpu:
        check_memory(settings.memory, model, output, opening, expected)
    picture = opening.open()
    renderer = PictureRenderer(model, picture, output)
    target = check_output(job.target, renderer.size, renderer.channels, picture.depth, picture.metadata, **encoding)
    plan = renderer.plan(settings.memory - (target.memory + opening.held if on_cpu else 0))
    with (
        open_writer(target) as writer,
        tqdm(
            total=renderer.total_pixels, desc=job.source.name, unit="px", unit_scale=True,
            leave=False, delay=2, disable=settings.quiet or None,
        ) as bar,
    ):  # fmt: skip
        for rows in renderer.rows(plan, target.depth, settings.precision, bar.update):
            writer.write_rows(rows)
    return renderer.size, [*picture.notes, *target.notes, *renderer.conversions(), *renderer.notes(plan)]
