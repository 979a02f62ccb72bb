"""Which outputs of ``liif upscale`` exist already, and whether they are those that were asked for."""

from collections.abc import Sequence
from pathlib import Path

from liif_core.cli.upscale_inputs import file_key
from liif_core.cli.upscale_marks import Mark, difference, read_mark, source_digest
from liif_core.cli.upscale_request import Job
from liif_core.errors import UserError
from liif_core.images import header
from liif_core.sizes import OutputSize, format_size

_SHOWN = 5  # outputs that are named, of those made otherwise


def refuse_made_otherwise(jobs: Sequence[Job], marks: Sequence[Mark], output: OutputSize, max_pixels: int) -> None:
    """Raises UserError if outputs exist that were made with other settings, or are of another size than asked for.

    ``marks`` holds what an output of each job would say about its settings. Outputs by other programs have no mark;
    of these the size is compared.
    """
    found = []
    for job, mark in zip(jobs, marks):
        if file_key(job.target) is not None and (why := _made_otherwise(job, mark, output, max_pixels)):
            found.append(f"{job.target}: already exists, {why}")
    if found:
        *lines, last = found[:_SHOWN]
        more = f" (and {len(found) - _SHOWN} more)" if len(found) > _SHOWN else ""
        raise UserError(*lines, f"{last}{more}; use --overwrite to replace what exists, or choose another output")


def _made_otherwise(job: Job, mark: Mark, output: OutputSize, max_pixels: int) -> str:
    made = read_mark(job.target)
    if made is not None:
        different = difference(made, mark)
        other = made.get("source") not in (None, source_digest(job.source))
        if not different and other and not _same_size(job, output, max_pixels):
            return "made from another file, of another size"
        return f"made {different}" if different else ""
    sizes = _sizes(job.source, job.target, max_pixels)
    if sizes is None:
        return ""
    wanted = output.for_image(sizes[0])
    return "" if sizes[1] == wanted else f"and is {format_size(sizes[1])}, not {format_size(wanted)}"


def _same_size(job: Job, output: OutputSize, max_pixels: int) -> bool:
    sizes = _sizes(job.source, job.target, max_pixels)
    return sizes is None or sizes[1] == output.for_image(sizes[0])


def _sizes(source: Path, target: Path, max_pixels: int) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Of both images, as they are seen; None where one cannot be read, which is found out later."""
    try:
        return header(source, max_pixels, 1).size, header(target, max(max_pixels, 1 << 40), 1).size
    except (UserError, OSError):
        return None
