"""Results of many models, grouped into tables whose numbers can be compared."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from attrs import frozen

from liif_core.errors import UserError
from liif_core.evaluation.result_files import read_results
from liif_core.evaluation.results import Result
from liif_core.presets import ALIASES
from liif_core.sizes import Scale

_MACHINE = ("cpu", "cores", "threads", "device", "torch")


@frozen
class Entry:
    """The newest result of a model in a table."""

    result: Result
    older: int  # results of the same model that it replaces
    machine: int  # its number in ``Board.machines``, from 1


@frozen
class Board:
    """Results of one data set, preset and scale, by PSNR, the highest first."""

    data: str
    preset: str
    scale: Scale
    entries: Sequence[Entry]
    machines: Sequence[str]  # in words
    warnings: Sequence[str]

    @property
    def name(self) -> str:
        """What headings call it."""
        return f"{self.data}, {self.scale}, preset {self.preset}"

    @property
    def any(self) -> Result:
        """A result, for what all have in common."""
        return self.entries[0].result


def read_folder(folder: Path) -> list[Result]:
    """The results of all files ``*.jsonl`` below a folder. Raises UserError with all that is wrong in them."""
    if not folder.is_dir():
        what = "is a file; give the folder that it is in" if folder.exists() else "no such folder"
        raise UserError(f"{folder}: {what}")
    paths = sorted(path for path in folder.rglob("*.jsonl") if path.is_file())
    results: list[Result] = []
    problems: list[str] = []
    for path in paths:
        try:
            results += read_results(path)
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
    if not results:
        found = f"{len(paths)} files *.jsonl, all empty" if paths else "no files *.jsonl"
        advice = "write some with 'liif evaluate --results FILE.jsonl' or 'liif compare'"
        raise UserError(f"{folder}: expected results, found {found}; {advice}")
    return results


def boards(results: Sequence[Result]) -> list[Board]:
    """The tables, by data set, preset and scale; other images, and versions of a preset, have tables of their own."""
    groups: dict[tuple[str, str, Scale], dict[tuple[str, object], list[Result]]] = {}
    for result in results:
        preset = ALIASES.get(result.preset, result.preset)
        alike = groups.setdefault((result.data, preset, result.scale), {})
        alike.setdefault((result.data_sha256, result.facts.get("version")), []).append(result)
    ordered = sorted(groups.items(), key=lambda group: (*group[0][:2], group[0][2].y * group[0][2].x, group[0][2].y))
    return [_board(which, exact, list(alike)) for which, alike in ordered for exact in alike.values()]


def _board(which: tuple[str, str, Scale], results: Sequence[Result], alike: Sequence[tuple[str, object]]) -> Board:
    by_model: dict[tuple[object, ...], list[Result]] = {}
    for result in results:
        by_model.setdefault((result.weights or result.model, result.precision, result.ensemble), []).append(result)
    newest = [max(same, key=_time) for same in by_model.values()]
    machines = list(dict.fromkeys(map(_machine, newest)))
    entries = [
        Entry(result, len(same) - 1, machines.index(_machine(result)) + 1)
        for result, same in zip(newest, by_model.values())
    ]
    entries.sort(key=lambda entry: -entry.result.psnr)
    return Board(*which, entries, machines, _warnings(results[0], alike, machines))


def _warnings(result: Result, alike: Sequence[tuple[str, object]], machines: Sequence[str]) -> list[str]:
    warnings = []
    if len({data for data, _ in alike}) > 1:
        warnings.append(
            f"Other results for {result.data!r} at {result.scale} are of other images or LR images, and have a table "
            f"of their own: the data here have SHA-256 {result.data_sha256[:12]}. Do not compare them."
        )
    if len({version for _, version in alike}) > 1:
        warnings.append(
            f"Other results are of another version of the preset, and have a table of their own: this is version "
            f"{result.facts.get('version')}. Do not compare them."
        )
    if len(machines) > 1:
        warnings.append(f"Times are from {len(machines)} machines, and only comparable for the same machine.")
    return warnings


def _time(result: Result) -> datetime:
    return datetime.fromisoformat(result.date)


def _machine(result: Result) -> str:
    machine: Mapping[str, object] = result.machine
    words = {name: str(machine[name]) for name in _MACHINE if name in machine}
    threads = f", {words['threads']} threads" if "threads" in words else ""
    return f"{words['cpu']}, {words['cores']} cores{threads}; device {words['device']}; torch {words['torch']}"
