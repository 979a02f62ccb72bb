"""``liif upscale``: reads image files, renders them, and writes image files. A bad file does not stop the others."""

import json
import os
import sys
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from liif_core import files
from liif_core.cli.common import DONE, MISTAKE, PARTLY
from liif_core.cli.json_file import is_standard_output, json_writer
from liif_core.cli.upscale_done import refuse_made_otherwise
from liif_core.cli.upscale_file import Say, Settings, render_file
from liif_core.cli.upscale_inputs import Found, file_key, is_standard_input
from liif_core.cli.upscale_marks import Mark, settings_mark, weights_digest
from liif_core.cli.upscale_memory import give_freed_blocks_back
from liif_core.cli.upscale_places import json_problems
from liif_core.cli.upscale_request import (
    Job,
    decimal_comma_note,
    format_problems,
    jobs,
    memory_limit,
    output_size,
    problems_of,
    share,
)  # fmt: skip
from liif_core.cli.upscale_several import render_all
from liif_core.cli.upscale_streams import StandIns, read_standard_input, to_standard_output
from liif_core.distributed import Processes, joined, started_by_torchrun
from liif_core.errors import UserError, one_line
from liif_core.images import WRITABLE, Encoding, several
from liif_core.model.continuous import ContinuousModel
from liif_core.model.device import autocast, pick_device, precision_problems
from liif_core.model.ensemble import SelfEnsemble
from liif_core.model.tile_plan import default_memory
from liif_core.models.choosing import Choice, choose
from liif_core.registry.discovery import discover


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
    ensemble: str | None,
    memory: str | None,
    format: str | None,
    quality: int,
    lossless: bool,
    max_pixels: int,
    frame: int | None,
    overwrite: bool,
    json_path: Path | None,
    quiet: bool,
    verbose: bool,
    say: Say,
    complain: Say,
) -> int:
    """Render every input; returns the exit code. ``say`` prints to standard output, ``complain`` to standard error.

    Raises UserError for what is wrong with the request itself.
    """
    problems: list[str] = []
    output_sizes = output_size(scale, size, region, problems)
    limit = memory_limit(memory, problems)
    problems += [*precision_problems(precision), *format_problems(output, format)]
    if (output is None) == (out_dir is None):
        problems.append("expected one of -o FILE and --out-dir DIR")
    if checkpoint is not None and model is not None:
        problems.append("expected one of --checkpoint FILE and --model NAME, got both")
    protected = {} if checkpoint is None else {f"the checkpoint {checkpoint}": checkpoint}
    to_stdout = str(output) == "-"
    if to_stdout or (json_path is not None and is_standard_output(json_path)):
        say = complain  # standard output is for the image, or for the JSON
        if to_stdout and json_path is not None and is_standard_output(json_path):
            problems.append("-o -, --json: both write to standard output; give one of them a file")
    if to_stdout and sys.stdout.isatty():
        problems.append("-o -: standard output is a terminal; send it to a file or a program")
    rank, world = share(problems)
    together = not problems and started_by_torchrun()
    holder: AbstractContextManager[str] = nullcontext("")
    if to_stdout or any(map(is_standard_input, inputs)):
        holder = tempfile.TemporaryDirectory(prefix="liif-")
    with joined(together) as processes, holder as folder:
        if together and (to_stdout or any(map(is_standard_input, inputs))):
            problems.append("-: several processes cannot share standard input or output; name files")
        stand_ins = StandIns(Path(folder, "stdin"), Path(folder, f"stdout.{format or 'png'}"))
        chosen: list[Job] = []
        found: list[Found] = []
        if not problems:
            chosen, found = jobs(inputs, output, out_dir, format, protected, stand_ins, problems)
        if json_path is not None:
            problems += json_problems(json_path, [(job.source, job.target) for job in chosen], protected)
        processes.each(lambda: _refuse(problems))
        write_json = None if json_path is None or not processes.first else json_writer(json_path)
        if any(job.source == stand_ins.source for job in chosen):
            read_standard_input(stand_ins.source)
        give_freed_blocks_back()
        target = pick_device(device or _own_device(rank, world))
        autocast(target, precision)  # refuses half precision that the device lacks before anything is read
        settings = Settings(
            output_sizes, precision, int(ensemble or 1), limit or default_memory(target), max_pixels, frame, format,
            Encoding(quality=quality, lossless=lossless), quiet, verbose, overwrite,
            lambda line: say(one_line(line)), lambda line: complain(one_line(line)),
        )  # fmt: skip
        own = chosen[rank::world]
        if world > 1 and not together:
            complain(
                f"note: RANK={rank} and WORLD_SIZE={world} are set: this process renders {len(own)} of {len(chosen)} "
                "files; unset them if no other process renders the rest"
            )
        notes = [decimal_comma_note(scale)] if processes.first else []
        results = _all(own, settings, checkpoint, model, target, found, notes, write_json, processes)
        if to_stdout and results and results[0]["status"] == "done":
            to_standard_output(stand_ins.target)
    unreadable = [line for one in found for line in one.unreadable]
    return _exit_code(results, unreadable, settings.complain) if processes.first else DONE


def _refuse(problems: list[str]) -> None:
    if problems:
        raise UserError(*problems)


def _all(
    own: list[Job],
    settings: Settings,
    checkpoint: Path | None,
    model: str | None,
    device: torch.device,
    found: list[Found],
    notes: list[str],
    write_json: Say | None,
    processes: Processes,
) -> list[dict[str, Any]]:
    """Render these files; returns the results, which are written as JSON too, also when interrupted.

    Of several processes, the first returns and writes the results of all, and says what is the same for all.
    """
    say, complain = settings.say, settings.complain

    def chosen() -> tuple[Choice, list[Mark]]:
        choice = choose([job.source for job in own], checkpoint, model, discover())
        digests = {name: weights_digest(path) for name, path in choice.paths.items()}
        marks = [_mark(job, settings, name, digests[name]) for job, name in zip(own, choice.names)]
        if not settings.overwrite:
            refuse_made_otherwise(own, marks, settings.output, settings.max_pixels)
        return choice, marks

    choice, marks = processes.each(chosen)
    for folder in {job.target.parent for job in own}:
        files.remove_stale(folder)
    if processes.first:
        notes = [f"note: {note}" for note in notes if note]
        for line in [*notes, *(line for one in found for line in [one.said(), *one.unreadable])]:
            if line:
                complain(line)
    if choice.reason:
        say(choice.reason)
    models = processes.each(lambda: choice.load(device))
    if settings.ensemble > 1:
        models = {name: SelfEnsemble(loaded, settings.ensemble) for name, loaded in models.items()}
    results: list[dict[str, Any]] = []
    made: dict[object, Path] = {}
    summary = {
        "passed_over": {one.text: one.passed for one in found if one.passed},
        "unreadable": [line for one in found for line in one.unreadable],
    }
    try:
        for job, name, mark in zip(own, choice.names, marks):
            results.append({"input": job.source_name, "output": job.target_name, "status": "interrupted"})
            results[-1] = {**_one(job, settings, models[name], mark, made), "model": name}
    except BaseException:
        try:
            _write(write_json, {"results": results, **summary})
        except UserError as error:
            complain(f"error: {error}")
        raise
    shares = processes.together(lambda: results)
    in_order = zip_longest(*shares)  # of the files, which the processes took in turn
    results = [result for turn in in_order for result in turn if result is not None]
    _write(write_json, {"results": results, **summary})
    return results


def _write(write_json: Say | None, summary: dict[str, Any]) -> None:
    if write_json is not None:
        write_json(json.dumps(summary, indent=2) + "\n")


def _exit_code(results: list[dict[str, Any]], unreadable: list[str], complain: Say) -> int:
    failed = [result for result in results if result["status"] == "failed"]
    if failed and len(results) > 1:
        complain(
            f"{len(results) - len(failed)} of {len(results)} done; failed: {', '.join(r['input'] for r in failed)}"
        )
    if unreadable:
        complain(f"{len(unreadable)} folders could not be read" if len(unreadable) > 1 else unreadable[0])
    if failed and len(failed) == len(results):
        return MISTAKE
    return PARTLY if failed or unreadable else DONE


def _mark(job: Job, settings: Settings, model: str, weights: str) -> Mark:
    lossy = job.target.suffix.lower() in WRITABLE["jpg"].suffixes + WRITABLE["webp"].suffixes
    encoding: Mark = {"lossless": True} if settings.encoding.lossless else {"quality": settings.encoding.quality}
    return settings_mark(
        settings.output, settings.frame, model, weights, settings.precision, settings.ensemble,
        encoding if lossy else {},
    )  # fmt: skip


def _own_device(rank: int, world: int) -> str:
    """The GPU with this process's rank where several processes run on a machine with several GPUs."""
    return f"cuda:{os.environ.get('LOCAL_RANK', rank)}" if world > 1 and torch.cuda.device_count() > 1 else "auto"


def _one(job: Job, settings: Settings, model: ContinuousModel, mark: Mark, made: dict[object, Path]) -> dict[str, Any]:
    """Render one file. Problems with it are printed and put in the result.

    ``made`` holds the outputs of this run by what identifies their files: on disks that ignore case, for instance,
    two inputs may have the same output.
    """
    result: dict[str, Any] = {"input": job.source_name, "output": job.target_name}
    started = time.monotonic()
    try:
        before = file_key(job.target)
        if before is not None and before in made:
            raise UserError(f"{job.target}: is the output of {made[before]} too, on this disk; use another --out-dir")
        if before is not None and not settings.overwrite:
            settings.say(f"{job.target}: already exists, skipped (use --overwrite to render it again)")
            return {**result, "status": "skipped"}
        found = several(job.source, settings.max_pixels) if settings.frame is None else None
        if found is None:
            done = render_file(job, settings, model, mark)
        else:
            done = render_all(job, found, settings, model, mark)
    except (UserError, OSError) as error:
        problems = problems_of(error, job)
        for problem in problems:
            settings.complain(f"error: {problem}")
        return {**result, "status": "failed", "error": problems}
    made[file_key(job.target)] = job.source
    for note in dict.fromkeys(done.notes):
        settings.say(f"{job.source_name}: {note}")
    seconds = time.monotonic() - started
    (height, width), count = done.size, f", {done.count} {done.what}" if done.count > 1 else ""
    for line in done.account.after(f"{job.target_name}: {width} x {height}{count}, {seconds:.1f} s", settings.verbose):
        settings.say(line)
    return {
        **result,
        "status": "done",
        "width": width,
        "height": height,
        "pictures": done.count,
        "seconds": round(seconds, 3),
        "notes": [*dict.fromkeys(done.notes), *(f"dropped {change}" for change in done.account.dropped)],
        "metadata": done.account.as_json(),
    }
