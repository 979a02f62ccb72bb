"""Rendering one file of ``liif upscale``: limits are checked, then it is read, rendered and written in bands."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from tqdm import tqdm

from liif_core.cli.upscale_marks import Mark, marked
from liif_core.cli.upscale_memory import check_memory
from liif_core.cli.upscale_request import Job
from liif_core.errors import UserError, one_line
from liif_core.images import Account, Encoding, Header, Source, Target, Writer, check_output, open_writer, survey
from liif_core.model.continuous import ContinuousModel
from liif_core.model.device import device_of
from liif_core.model.tile_plan import default_memory
from liif_core.model.upscaler import PictureRenderer
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

    def check_size(self, source: Path, size: Size) -> None:
        """Raises UserError for a region that reaches beyond a picture."""
        try:
            self.output.check(size)
        except ValueError as error:
            raise UserError(f"{source}: --{error}") from None


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
    on_cpu = device_of(model).type == "cpu"
    memory = settings.memory if on_cpu else default_memory(CPU)  # on a GPU, the limit is one of its own memory
    opening = survey(job.source, memory, settings.max_pixels, settings.frame)
    expected = expected_target(job, settings, opening.header)
    if on_cpu:
        check_memory(settings.memory, model, settings.output, opening, expected)
    picture = opening.open()
    renderer = PictureRenderer(model, picture, settings.output)
    metadata = marked(renderer.metadata, mark, own_source(job))
    target = check_output(
        job.target, renderer.size, renderer.channels, picture.depth, metadata, **settings.how_to_write
    )
    with settings.bar(job, renderer.total_pixels) as bar:
        notes = render_picture(renderer, picture, target, settings, opening.held, bar.update, open_writer(target))
    return Done(renderer.size, notes, target.account)


def expected_target(job: Job, settings: Settings, found: Header, pictures: int = 1) -> Target:
    """The output of a picture whose header is known, or of an animation of so many."""
    settings.check_size(job.source, found.size)
    size, channels = settings.output.for_image(found.size), found.channels + found.alpha
    return check_output(job.target, size, channels, found.depth, pictures=pictures, **settings.how_to_write)


def own_source(job: Job) -> Path | None:
    """The input, where it is a file and not standard input."""
    return None if job.source_name != str(job.source) else job.source


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
    on_cpu = device_of(renderer.model).type == "cpu"
    plan = renderer.plan(settings.memory - (target.memory + held if on_cpu else 0))
    with writing as writer:
        for rows in renderer.rows(plan, target.depth, settings.precision, on_progress):
            writer.write_rows(rows)
    return [*picture.notes, *target.notes, *renderer.conversions(), *renderer.notes(plan)]
