"""Rendering files of several pictures: all frames of an animation, or all pages of a TIFF, into one file."""

from contextlib import ExitStack

from attrs import evolve

from liif_core.cli.upscale_file import Done, Settings, check_limits, memory_to_read, render_picture, target_of
from liif_core.cli.upscale_marks import Mark
from liif_core.cli.upscale_request import Job
from liif_core.errors import UserError
from liif_core.images import (
    WRITABLE,
    Account,
    Opening,
    Several,
    Target,
    format_of,
    frames,
    from_picture,
    open_frames,
    survey,
)
from liif_core.model.continuous import ContinuousModel
from liif_core.model.tile_plan import total_pixels
from liif_core.model.upscaler import PictureRenderer

_SHOWN = 5  # pages that are named, of those that a note is about


def render_all(job: Job, found: Several, settings: Settings, model: ContinuousModel, mark: Mark) -> Done:
    """Render all frames or pages of a file into one.

    Raises UserError for an output that can hold only one; what is wrong with any page is found out before work begins.
    """
    _check_format(job, found, settings)
    render = _render_pages if found.timing is None else _render_frames
    return render(job, found, settings, model, mark)


def _check_format(job: Job, found: Several, settings: Settings) -> None:
    kind = format_of(job.target, settings.format)
    if found.what in kind.several:
        return
    *others, last = (name for name, other in WRITABLE.items() if found.what in other.several)
    raise UserError(
        f"{job.source}: has {len(found.numbers)} {found.what}, and a {kind.name} file holds one picture; write "
        f"{', '.join(others)}{' or ' * bool(others)}{last}, which can hold all of them, or choose one with --frame N"
    )


def _render_frames(job: Job, found: Several, settings: Settings, model: ContinuousModel, mark: Mark) -> Done:
    assert found.timing is not None
    count = len(found.numbers)
    opening = _opening(job, found.numbers[0], settings, model)
    opening = evolve(opening, header=evolve(opening.header, channels=3, alpha=found.alpha))
    target, notes = check_limits(job, settings, model, opening, count), list(found.notes)
    with ExitStack() as stack:
        for number, picture in enumerate(frames(job.source, found, settings.max_pixels), start=1):
            source = from_picture(picture)
            renderer = PictureRenderer(model, source, settings.output)
            if number == 1:
                target = target_of(job, settings, renderer, source.depth, mark, count)
                timing = None if target.format.name == "TIFF" else found.timing
                writer = stack.enter_context(open_frames(target, timing, count * target.raw_bytes))
                bar = stack.enter_context(settings.bar(job, count * renderer.total_pixels))
                if timing is None:
                    notes.append("the pages of a TIFF have no durations: how the animation is played is left out")
            bar.set_postfix_str(f"frame {number} of {count}")
            notes += render_picture(renderer, source, target, settings, opening.held, bar.update, writer.next(target))
    return Done(target.size, notes, target.account, count, found.what)


def _render_pages(job: Job, found: Several, settings: Settings, model: ContinuousModel, mark: Mark) -> Done:
    count = len(found.numbers)
    openings = [_opening(job, number, settings, model) for number in found.numbers]
    expected = [check_limits(job, settings, model, opening) for opening in openings]
    total = sum(
        total_pixels(model, opening.header.size, target.size, settings.output.region)
        for opening, target in zip(openings, expected)
    )
    notes: dict[str, list[int]] = {}
    written: list[Target] = []
    with ExitStack() as stack:
        bar = stack.enter_context(settings.bar(job, total))
        for number, opening in zip(found.numbers, openings):
            source = opening.open()
            renderer = PictureRenderer(model, source, settings.output)
            target = target_of(job, settings, renderer, source.depth, mark if number == 1 else None)
            if number == 1:
                writer = stack.enter_context(open_frames(target, None, sum(target.raw_bytes for target in expected)))
            bar.set_postfix_str(f"page {number} of {count}")
            page = writer.next(target)
            for note in render_picture(renderer, source, target, settings, opening.held, bar.update, page):
                notes.setdefault(note, []).append(number)
            written.append(target)
    said = [f"page{'s' * (len(pages) > 1)} {_listed(pages)}: {note}" for note, pages in notes.items()]
    return Done(written[0].size, said, Account.of_all(target.account for target in written), count, found.what)


def _listed(pages: list[int]) -> str:
    shown = ", ".join(map(str, pages[:_SHOWN]))
    return shown if len(pages) <= _SHOWN else f"{shown} and {len(pages) - _SHOWN} more"


def _opening(job: Job, number: int, settings: Settings, model: ContinuousModel) -> Opening:
    return survey(job.source, memory_to_read(settings, model), settings.max_pixels, number, others=True)
