"""The options of ``liif upscale``, checked together: sizes, regions, files."""

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from liif_core.images import READABLE_SUFFIXES, WRITABLE_SUFFIXES
from liif_core.sizes import OutputSize, Scale, memory_bytes


@frozen
class Job:
    """One input file, and the file that its output is written to."""

    source: Path
    target: Path


def output_size(scale: str | None, size: str | None, region: str | None, problems: list[str]) -> OutputSize:
    """The values of --scale, --size and --region; what is wrong with them is added to ``problems``."""
    chosen, width, height, part = None, None, None, None
    if (scale is None) == (size is None):
        problems.append("expected one of --scale S (or SY,SX) and --size WxH (or Wx, or xH)")
    elif scale is not None:
        try:
            chosen = Scale.parse(scale)
        except ValueError as error:
            problems.append(f"--scale {scale}: {error}")
    elif size is not None:
        try:
            width, height = (_side(side) for side in size.lower().split("x"))
            OutputSize.of(width=width, height=height)
        except ValueError:
            problems.append(f"--size {size}: expected WxH, Wx or xH in pixels, such as 1920x1080, 1000x or x600")
    if region is not None:
        try:
            part = OutputSize.of(1, region=[float(number) for number in region.split(",")]).region
        except ValueError:
            problems.append(
                f"--region {region}: expected TOP,LEFT,BOTTOM,RIGHT in input pixels, TOP < BOTTOM and LEFT < RIGHT"
            )
    return OutputSize(chosen, width, height, part)


def _side(text: str) -> int | None:
    if text and not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ValueError(text)
    return int(text) if text else None


def memory_limit(text: str | None, problems: list[str]) -> int | None:
    """The value of --memory in bytes; None if it is not given."""
    try:
        return None if text is None else memory_bytes(text)
    except ValueError as error:
        problems.append(f"--memory {text}: {error}")
        return None


def share(problems: list[str]) -> tuple[int, int]:
    """The rank of this process and the number of processes that share the files, from RANK and WORLD_SIZE."""
    values = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if all(value.isascii() and value.isdigit() for value in values) and int(values[0]) < int(values[1]):
        return int(values[0]), int(values[1])
    problems.append(f"RANK={values[0]} WORLD_SIZE={values[1]}: expected a rank from 0 to one less than the world size")
    return 0, 1


def jobs(
    inputs: tuple[str, ...], output: Path | None, out_dir: Path | None, format: str | None, problems: list[str]
) -> list[Job]:
    """Every input file with its output file, sorted.

    Inputs that match no file, and inputs that share an output, are added to ``problems``.
    """
    found: dict[Path, Path] = {}  # file -> its name below the output folder
    for text in inputs:
        listed = list(_listed(Path(text), text))
        if not listed:
            kind = "no image in this folder" if Path(text).is_dir() else "no such file, and no file of this pattern"
            problems.append(f"{text}: {kind}")
        found.update(listed)
    if output is not None:
        if len(found) > 1:
            problems.append(f"-o {output}: expected one input image, got {len(found)}; use --out-dir")
        return [Job(source, output) for source in found]
    if out_dir is None:
        return []
    jobs = [Job(source, out_dir / name.with_suffix(_suffix(name, format))) for source, name in sorted(found.items())]
    by_target: dict[Path, list[Path]] = {}
    for job in jobs:
        by_target.setdefault(job.target, []).append(job.source)
    problems += [
        f"{target}: is the output of {' and of '.join(map(str, sources))}; render them in separate runs"
        for target, sources in by_target.items()
        if len(sources) > 1
    ]
    problems += [
        f"{job.source}: its output would replace it; use another --out-dir"
        for job in jobs
        if job.target.absolute() == job.source.absolute()
    ]
    return jobs


def _listed(path: Path, pattern: str) -> Iterator[tuple[Path, Path]]:
    if path.is_dir():
        for file in path.rglob("*"):
            if file.suffix.lower() in READABLE_SUFFIXES and file.is_file() and not file.name.startswith("."):
                yield file, file.relative_to(path)
    elif path.exists():
        yield path, Path(path.name)
    else:
        yield from (
            (Path(file), Path(Path(file).name)) for file in glob.glob(pattern, recursive=True) if Path(file).is_file()
        )


def _suffix(name: Path, format: str | None) -> str:
    if format is not None:
        return f".{format}"
    return name.suffix if name.suffix.lower() in WRITABLE_SUFFIXES else ".png"
