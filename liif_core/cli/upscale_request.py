"""What ``liif upscale`` was asked for: sizes, parts, files; everything wrong with the request at once."""

import glob
import math
import os
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from liif_core.errors import UserError
from liif_core.sizes import Region, Scale, Size, scaled_size

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_READABLE = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".pbm")
FORMATS = ("png", "jpg", "webp", "tif")


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


def wanted(scale: str | None, size: str | None, region: str | None, problems: list[str]) -> Wanted:
    """What --scale, --size and --region say; what is wrong with them is added to ``problems``."""
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
        good = (
            len(sides) == 2
            and any(sides)
            and all(s == "" or (s.isascii() and s.isdigit() and 0 < int(s) < 2**31) for s in sides)
        )
        if good:
            width, height = (int(side) if side else None for side in sides)
        else:
            problems.append(f"--size {size}: expected WxH, Wx or xH in pixels, such as 1920x1080, 1000x or x600")
    if region is not None:
        try:
            part = tuple(float(number) for number in region.split(","))
        except ValueError:
            part = ()
        if (
            len(part) != 4
            or not all(math.isfinite(n) for n in part)
            or not (0 <= part[0] < part[2] and 0 <= part[1] < part[3])
        ):
            problems.append(
                f"--region {region}: expected TOP,LEFT,BOTTOM,RIGHT in input pixels, TOP < BOTTOM and LEFT < RIGHT"
            )
    return Wanted(chosen, width, height, part)


def check_region(source: Path, within: Size, region: Region | None) -> None:
    """Raises UserError for a region that reaches beyond an image of size ``within``."""
    if region is not None and (region[2] > within[0] or region[3] > within[1]):
        raise UserError(
            f"{source}: --region reaches {region[2]:g} down and {region[3]:g} across, and the image has "
            f"{within[0]} rows and {within[1]} columns"
        )


def budget(text: str | None, problems: list[str]) -> int | None:
    """Bytes that --memory says; None if it says nothing."""
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


def share(problems: list[str]) -> tuple[int, int]:
    """This process's rank among those that share the work, and how many they are."""
    values = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if all(value.isascii() and value.isdigit() for value in values) and int(values[0]) < int(values[1]):
        return int(values[0]), int(values[1])
    problems.append(f"RANK={values[0]} WORLD_SIZE={values[1]}: expected a rank from 0 to one less than the world size")
    return 0, 1


def jobs(
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
    problems += [
        f"{job.source}: would be replaced by its own output"
        for job in jobs
        if job.target.absolute() == job.source.absolute()
    ]
    return jobs


def _listed(path: Path, pattern: str) -> Iterator[tuple[Path, Path]]:
    if path.is_dir():
        for file in path.rglob("*"):
            if file.suffix.lower() in _READABLE and file.is_file() and not file.name.startswith("."):
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
    return name.suffix if name.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff") else ".png"
