"""The options of ``liif upscale``, checked together: sizes, regions, files."""

import os
import re
from pathlib import Path

from attrs import frozen

from liif_core.cli.upscale_inputs import Found, file_key, find, is_standard_input
from liif_core.cli.upscale_places import place_problems, replaced_problems
from liif_core.cli.upscale_streams import StandIns
from liif_core.errors import UserError, one_line
from liif_core.images import WRITABLE, WRITABLE_SUFFIXES
from liif_core.images.formats import READ_SUFFIXES
from liif_core.sizes import OutputSize, Scale, comma_advice, memory_bytes


@frozen
class Job:
    """One input file, the file that its output is written to, and what messages call both.

    For standard input and output, these are temporary files.
    """

    source: Path
    target: Path
    source_name: str
    target_name: str


def output_size(scale: str | None, size: str | None, region: str | None, problems: list[str]) -> OutputSize:
    """The values of --scale, --size and --region; what is wrong with them is added to ``problems``."""
    chosen, width, height, part = None, None, None, None
    if (scale is None) == (size is None):
        problems.append("expected one of --scale S (or SY,SX) and --size WxH (or Wx, or xH)")
    elif scale is not None:
        try:
            chosen = Scale.parse(scale)
            OutputSize.of(chosen)
        except ValueError as error:
            problems.append(f"--scale {_short(scale)}: {str(error).removeprefix('scale: ')}")
    elif size is not None:
        try:
            width, height = (_side(side) for side in size.lower().split("x"))
            OutputSize.of(width=width, height=height)
        except ValueError:
            problems.append(
                f"--size {_short(size)}: expected WxH, Wx or xH in pixels, such as 1920x1080, 1000x or x600, "
                f"and sides of 1 to 2147483647 pixels{comma_advice(size)}"
            )
    if region is not None:
        try:
            part = OutputSize.of(1, region=[float(number) for number in region.split(",")]).region
        except ValueError:
            problems.append(
                f"--region {_short(region)}: expected TOP,LEFT,BOTTOM,RIGHT in input pixels, 0 <= TOP < BOTTOM and "
                f"0 <= LEFT < RIGHT{comma_advice(region) if region.count(',') > 3 else ''}"
            )
    return OutputSize(chosen, width, height, part)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _side(text: str) -> int | None:
    if text and not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ValueError(text)
    return int(text) if text else None


def memory_limit(text: str | None, problems: list[str]) -> int | None:
    """The value of --memory in bytes; None if it is not given."""
    if text is None:
        return None
    try:
        return memory_bytes(text)
    except ValueError as error:
        problems.append(f"--memory {_short(text)}: {error}")
        return None


def share(problems: list[str]) -> tuple[int, int]:
    """The rank of this process and the number of processes that share the files, from RANK and WORLD_SIZE.

    torchrun sets these, and so may a script that starts processes which do not know of each other.
    """
    values = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if all(value.isascii() and value.isdigit() for value in values) and int(values[0]) < int(values[1]):
        return int(values[0]), int(values[1])
    problems.append(f"RANK={values[0]} WORLD_SIZE={values[1]}: expected a rank from 0 to one less than the world size")
    return 0, 1


def decimal_comma_note(scale: str | None) -> str:
    """A sentence if a scale may be one number with a decimal comma, and is read as two; else nothing."""
    if scale is None or not re.fullmatch(r"\s*\d+,\d+\s*", scale):
        return ""
    vertical, horizontal = scale.strip().split(",")
    return (
        f"--scale {scale}: the height is multiplied by {vertical} and the width by {horizontal}; if a decimal comma is "
        f"meant, write {vertical}.{horizontal}"
    )


def format_problems(output: Path | None, format: str | None) -> list[str]:
    """What is wrong with --format, by itself or beside the name of -o."""
    if format is None:
        return []
    if format not in WRITABLE:
        return [f"--format {format}: expected one of {', '.join(WRITABLE)}"]
    suffix = "" if output is None else output.suffix.lower()
    wanted = WRITABLE[format].suffixes
    known = {*WRITABLE_SUFFIXES, *(suffix for suffixes in READ_SUFFIXES.values() for suffix in suffixes)}
    fitting = {*wanted, *READ_SUFFIXES.get(WRITABLE[format].name.upper(), ())}
    if output is None or suffix not in known - fitting:
        return []
    return [
        f"-o {output}: --format {format} does not go with the suffix {suffix}; name the file "
        f"{output.with_suffix(wanted[0]).name}, or leave --format out"
    ]


def jobs(
    inputs: tuple[str, ...],
    output: Path | None,
    out_dir: Path | None,
    format: str | None,
    protected: dict[str, Path],
    stand_ins: StandIns,
    problems: list[str],
) -> tuple[list[Job], list[Found]]:
    """Every input file with its output file, sorted, and what was found for each INPUT.

    ``protected`` holds further files that no output may replace, by what messages call them. Inputs that match no
    file, inputs that share an output, and outputs that would replace an input are added to ``problems``.
    """
    listed = [find(text, output, out_dir, problems) for text in dict.fromkeys(inputs) if not is_standard_input(text)]
    files = {file: name for found in listed for file, name in found.files}
    if any(map(is_standard_input, inputs)):
        files[stand_ins.source] = Path("stdin")
    names = {stand_ins.source: "standard input", stand_ins.target: "standard output"}
    to_stdout = str(output) == "-"
    if output is not None:
        if len(files) > 1:
            problems.append(f"-o {output}: expected one input image, got {len(files)}; use --out-dir")
        target = stand_ins.target if to_stdout else output
        chosen = [(source, target) for source in files]
    elif out_dir is not None:
        targets = {source: out_dir / name.with_suffix(_suffix(name, format)) for source, name in files.items()}
        chosen = _without_repetitions(sorted(targets.items()))
    else:
        chosen = []
    found_jobs = [
        Job(source, target, names.get(source, str(source)), names.get(target, str(target))) for source, target in chosen
    ]
    if not to_stdout:
        problems += place_problems(output, out_dir)
    problems += _shared(found_jobs)
    problems += replaced_problems([(job.source, job.target) for job in found_jobs], protected)
    return found_jobs, listed


def _without_repetitions(chosen: list[tuple[Path, Path]]) -> list[tuple[Path, Path]]:
    """Without inputs that are the same file by another name, with the same output."""
    kept = {(file_key(source) or source, target): (source, target) for source, target in reversed(chosen)}
    return sorted(kept.values())


def _shared(jobs: list[Job]) -> list[str]:
    by_target: dict[Path, list[Path]] = {}
    for job in jobs:
        by_target.setdefault(job.target, []).append(job.source)
    return [
        f"{target}: is the output of {' and of '.join(map(str, sources))}; render them in separate runs"
        for target, sources in by_target.items()
        if len(sources) > 1
    ]


def _suffix(name: Path, format: str | None) -> str:
    suffix = name.suffix.lower()
    if format is not None:
        return f".{format}"
    if suffix in WRITABLE_SUFFIXES:
        return name.suffix
    same = (kind.suffixes[0] for kind in WRITABLE.values() if suffix in READ_SUFFIXES.get(kind.name.upper(), ()))
    return next(same, ".png")


def problems_of(error: UserError | OSError, job: Job) -> list[str]:
    """What went wrong with a file, in messages that begin with the name of the input."""
    if isinstance(error, OSError):
        place = "" if error.filename in (None, str(job.source)) else f"{error.filename}: "
        lines = [f"{job.source_name}: {place}{error.strerror or error}"]
    else:
        # ``error.problems`` are on one line each, and so have to be the names that are looked for.
        names = {one_line(str(job.source)): job.source_name, one_line(str(job.target)): job.target_name}
        lines = list(error.problems)
        for name, shown in names.items():
            lines = [line.replace(name, one_line(shown)) for line in lines]
    source = one_line(job.source_name)
    return [line if source in line else f"{source}: {line}" for line in lines]
