"""Rendering one file of ``liif upscale``: limits are checked, then it is read, rendered and written in bands."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from attrs import frozen
from tqdm import tqdm

from liif_core.cli.upscale_marks import Mark, marked
from liif_core.cli.upscale_memory import check_memory
from liif_core.cli.upscale_request import Job
from liif_core.errors import UserError, one_line
from liif_core.images import (
    Account,
    Depth,
    Encoding,
    Opening,
    Source,
    Target,
    Writer,
    check_output,
    open_writer,
    survey,
)
from liif_core.model.continuous import ContinuousModel
from liif_core.model.device import device_of
from liif_core.model.tile_plan import default_memory
from liif_core.model.upscaler import PictureRenderer, check_scale
from liif_core.sizes import OutputSize, Size

CPU = torch.device("cpu")
Say = Callable[[str], None]


@frozen
class Settings:
    """The settings that all files share."""

    output: OutputSize
    precision: str
    ensemble: int  # orientations whose mean is rendered; 1: the image as it is
    memory: int
    max_pixels: int
    frame: int | None
    format: str | None
    encoding: Encoding
    quiet: bool
    verbose: bool
    overwrite: bool
    say: Say
    complain: Say

    @property
    def how_to_write(self) -> dict[str, Any]:
        """What ``check_output`` takes of them."""
        return {"format": self.format, "encoding": self.encoding}

    def bar(self, job: Job, total: int) -> "tqdm[Any]":
        """A progress bar of ``total`` pixels."""
        return tqdm(
            total=total, desc=one_line(job.source.name), unit="px", unit_scale=True,
            leave=False, delay=2, disable=self.quiet or None,
        )  # fmt: skip


@frozen
class Done:
    """A file that was rendered: of ``count`` pictures, ``what`` they are called, and the size of the first."""

    size: Size
    notes: list[str]
    account: Account
    count: int = 1
    what: str = ""


def render_file(job: Job, settings: Settings, model: ContinuousModel, mark: Mark) -> Done:
    """Render a file of one picture, or one of several. Limits are checked before anything is decoded."""
    opening = survey(job.source, memory_to_read(settings, model), settings.max_pixels, settings.frame)
    check_limits(job, settings, model, opening)
    picture = opening.open()
    renderer = PictureRenderer(model, picture, settings.output)
    target = target_of(job, settings, renderer, picture.depth, mark)
    with settings.bar(job, renderer.total_pixels) as bar:
        notes = render_picture(renderer, picture, target, settings, opening.held, bar.update, open_writer(target))
    return Done(renderer.size, notes, target.account)


def memory_to_read(settings: Settings, model: ContinuousModel) -> int:
    """Bytes in which an input may be read; for a model on a GPU, --memory is a limit of its own memory."""
    return settings.memory if _on_cpu(model) else default_memory(CPU)


def check_limits(job: Job, settings: Settings, model: ContinuousModel, opening: Opening, pictures: int = 1) -> Target:
    """The output as it is expected before a picture is decoded; ``pictures`` is the number of frames.

    Raises UserError for a region, an output or a limit of memory that the picture does not fit.
    """
    found = opening.header
    try:
        settings.output.check(found.size)
    except ValueError as error:
        raise UserError(f"{job.source}: --{error}") from None
    try:
        check_scale(model, settings.output, found.size)
    except ValueError as error:
        raise UserError(f"{job.source}: {error}") from None
    size, channels = settings.output.for_image(found.size), found.channels + found.alpha
    target = check_output(job.target, size, channels, found.depth, pictures=pictures, **settings.how_to_write)
    if _on_cpu(model):
        check_memory(settings.memory, model, settings.output, opening, target)
    return target


def target_of(
    job: Job, settings: Settings, renderer: PictureRenderer, depth: Depth, mark: Mark | None, pictures: int = 1
) -> Target:
    """The output of a picture that is open, with its metadata and, if it is given, the mark of the settings."""
    own_source = None if job.source_name != str(job.source) else job.source  # not of standard input
    metadata = renderer.metadata if mark is None else marked(renderer.metadata, mark, own_source)
    return check_output(
        job.target, renderer.size, renderer.channels, depth, metadata, pictures=pictures, **settings.how_to_write
    )


def render_picture(
    renderer: PictureRenderer,
    picture: Source,
    target: Target,
    settings: Settings,
    held: int,
    on_progress: Callable[[int], object],
    writing: AbstractContextManager[Writer],
) -> list[str]:
    """Render all rows; returns notes. ``held`` is how many bytes the input takes meanwhile."""
    plan = renderer.plan(settings.memory - (target.memory + held if _on_cpu(renderer.model) else 0))
    with writing as writer:
        for rows in renderer.rows(plan, target.depth, settings.precision, on_progress):
            writer.write_rows(rows)
    return [*picture.notes, *target.notes, *renderer.conversions(), *renderer.notes(plan)]


def _on_cpu(model: ContinuousModel) -> bool:
    return device_of(model).type == "cpu"
