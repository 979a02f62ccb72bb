"""Result files: lines of JSON, which are checked when they are read.

Lines are added under a lock, by writing the whole file anew, so that a file is never half written, and several
processes can add to one file.
"""

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from liif_core.errors import UserError, cut
from liif_core.evaluation.results import FORMAT, VERSION, Result, result_line
from liif_core.evaluation.scores import BESIDES_OF_BOTH
from liif_core.files import replacing
from liif_core.locks import is_at, lock
from liif_core.sizes import Scale

_SHOWN = 20  # problems of a file that are named one by one


def append_results(path: Path, results: Sequence[Result]) -> None:
    """Add lines to a result file, which is made if need be. Raises UserError where that fails."""
    path = Path(os.path.realpath(path))
    try:
        with _locked(path):
            before = path.read_text(encoding="utf-8") if path.exists() else ""
            if before and not before.endswith("\n"):
                before += "\n"
            with replacing(path) as temporary:
                temporary.write_text(before + "".join(map(result_line, results)), encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: results cannot be added ({reason}); give another file to --results") from None


def check_appendable(path: Path) -> None:
    """Raises UserError where ``path`` is no result file, or no file can be made there."""
    if path.is_dir():
        raise UserError(f"--results {path}: is a folder; give a file's name, such as results.jsonl")
    if path.exists():
        read_results(path)
    there = next(folder for folder in Path(os.path.realpath(path)).parents if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"--results {path}: no file can be made in {there}; give another place")


def read_results(path: Path) -> list[Result]:
    """The lines of a result file; empty lines are left out.

    Raises UserError, with the file and the number of the line, for lines that are no results, and for lines of a
    version that this liif-core does not read.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    results, problems = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        found = _result(line)
        if isinstance(found, Result):
            results.append(found)
        else:
            problems += [f"{path}, line {number}: {problem}" for problem in found]
    if problems:
        more = len(problems) - _SHOWN
        raise UserError(*problems[:_SHOWN], *([f"{path}: ... and {more} more problems"] if more > 0 else []))
    return results


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock on a file beside ``path``, which is removed afterwards. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.lock")
    while True:
        with open(beside, "ab") as file:
            lock(file.fileno())
            if not is_at(file.fileno(), beside):  # the last holder has removed it
                continue
            try:
                yield
                return
            finally:
                with suppress(OSError):  # Windows does not remove open files
                    beside.unlink()


def _text(value: Any) -> str:
    return "" if isinstance(value, str) and value else "expected text"


def _date(value: Any) -> str:
    try:
        good = isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        good = False
    return "" if good else "expected a date with a time zone, such as 2026-01-31T12:00:00+00:00"


def _hash(value: Any) -> str:
    found = isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value)
    return "" if found else "expected 64 lower-case hexadecimal digits"


def _number(value: Any) -> str:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return "" if good else "expected a number"


def _decibels(value: Any) -> str:
    return "" if value is None or not _number(value) else "expected a number, or null for equal images"


def _seconds(value: Any) -> str:
    return "" if not _number(value) and value >= 0 else "expected a number from 0"


def _count(value: Any) -> str:
    good = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return "" if good else "expected a whole number from 0"


def _scale(value: Any) -> str:
    try:
        Scale.of(value)
    except ValueError as error:
        return str(error)
    return ""


def _pair(value: Any) -> str:
    good = isinstance(value, list) and len(value) == 2 and not any(map(_number, value)) and value[0] <= value[1]
    return "" if good else "expected two numbers in order"


def _or_null(check: Callable[[Any], str]) -> Callable[[Any], str]:
    return lambda value: "" if value is None else check(value)


# What a line has to have; "?" marks what may be missing. Other entries are ignored.
_IMAGE = {"psnr": _decibels, "bicubic_psnr": _decibels, **{f"{name}?": _number for name in BESIDES_OF_BOTH}}
_LINE: Mapping[str, Any] = {
    "date": _date,
    "model": {"name": _text, "description": _text, "sha256": _or_null(_hash)},
    "liif_core": _text,
    "parameters?": _count,
    "multiply_adds_per_pixel?": _seconds,
    "peak_memory?": _count,
    "commit?": _text,
    "preset": {"name": _text, "version": _count},
    "scale": _scale,
    "precision": _text,
    "ensemble": _count,
    "data": {"name": _text, "images": _count, "sha256": _hash, "given_lr": _count},
    "mean": _IMAGE,
    "machine": {"cpu": _text, "cores": _count, "torch": _text, "device": _text},
    "interval?": {"psnr": _pair, "level": _number},
}
_EACH_IMAGE = {**_IMAGE, "encode_s?": _seconds, "decode_s?": _seconds}
_NUMBERS = {name.removesuffix("?") for name in _EACH_IMAGE}


def _problems(value: Any, shape: Any, where: str) -> Iterator[str]:
    """What is wrong with a value of JSON, with its place."""
    if not isinstance(shape, Mapping):
        if wrong := shape(value):
            yield f"{where}: {wrong}, got {cut(json.dumps(value), 60)}"
        return
    if not isinstance(value, dict):
        yield f"{where}: expected an object, got {cut(json.dumps(value), 60)}"
        return
    for key, inner in shape.items():
        name = key.removesuffix("?")
        if name in value:
            yield from _problems(value[name], inner, f"{where}.{name}" if where else name)
        elif name == key:
            yield f"{where}.{name}: is missing" if where else f"{name}: is missing"


def _result(line: str) -> Result | list[str]:
    """The result of a line, or what is wrong with it."""
    try:
        value = json.loads(line, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        return [f"not valid JSON ({cut(error, 200)}); remove the line"]
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        return [f'not a result of liif-core (expected an object with "format": "{FORMAT}")']
    if value.get("version") != VERSION:
        found = cut(json.dumps(value.get("version")), 60)
        return [f"format version {found}; this liif-core reads {VERSION}: install a newer one"]
    problems = list(_problems(value, _LINE, ""))
    images = value.get("images")
    if not isinstance(images, dict) or not images:
        return [*problems, "images: expected an object with the numbers of each image"]
    problems += [line for name, image in images.items() for line in _problems(image, _EACH_IMAGE, f"images.{name}")]
    return problems or _inconsistent(value) or _read(value)


def _refused(constant: str) -> float:
    raise ValueError(f"{constant} is no number of JSON")


def _inconsistent(value: dict[str, Any]) -> list[str]:
    """Means that are not those of the images, and another number of images."""
    images = list(value["images"].values())
    problems = []
    if value["data"]["images"] != len(images):
        problems.append(f"data.images: expected {len(images)}, as many as under images, got {value['data']['images']}")
    for name, mean in value["mean"].items():
        each = [_infinite(image.get(name, math.nan)) for image in images]
        found = sum(each) / len(each)
        same = found == _infinite(mean) or math.isclose(found, _infinite(mean), rel_tol=0, abs_tol=1e-6)
        if name in _NUMBERS and not same:
            problems.append(f"mean.{name}: expected {found:g}, the mean over images, got {json.dumps(mean)}")
    return problems


def _infinite(value: float | None) -> float:
    """A PSNR, which JSON has as null where images are equal."""
    return math.inf if value is None else float(value)


def _read(value: dict[str, Any]) -> Result:
    model, preset, data, mean = (value[name] for name in ("model", "preset", "data", "mean"))
    interval = value.get("interval")
    return Result(
        date=value["date"],
        model=model["name"],
        description=model["description"],
        weights=model["sha256"] or "",
        preset=preset["name"],
        facts={name: fact for name, fact in preset.items() if name != "name"},
        scale=Scale.of(value["scale"]),
        data=data["name"],
        data_sha256=data["sha256"],
        given_low=data["given_lr"],
        images={
            name: {key: _infinite(number) for key, number in image.items() if key in _NUMBERS}
            for name, image in value["images"].items()
        },
        psnr=_infinite(mean["psnr"]),
        bicubic_psnr=_infinite(mean["bicubic_psnr"]),
        ssim=mean.get("ssim"),
        bicubic_ssim=mean.get("bicubic_ssim"),
        lpips=mean.get("lpips"),
        bicubic_lpips=mean.get("bicubic_lpips"),
        interval=None if interval is None else (interval["psnr"][0], interval["psnr"][1]),
        precision=value["precision"],
        ensemble=value["ensemble"],
        machine=value["machine"],
        multiply_adds=value.get("multiply_adds_per_pixel"),
        peak_memory=value.get("peak_memory"),
        parameters=value.get("parameters"),
        liif_core=value["liif_core"],
        commit=value.get("commit", ""),
    )
