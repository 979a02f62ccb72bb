"""The log of a training run: metrics.jsonl, TensorBoard scalars, and a picture of the curves."""

import json
import math
import warnings
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from liif_core import files
from liif_core.errors import UserError
from liif_core.evaluation.evaluate import NotWritten
from liif_core.training.curves import curves_png
from liif_core.training.optional import Optional
from liif_core.training.writing import reason, writing


class TrainingLog:
    """Appends to ``folder``/metrics.jsonl; a context manager.

    Entries after ``step``, left by an interrupted run, are dropped first, because the run will repeat them. TensorBoard
    drops them, too. What an optional package cannot do is said in ``notes``, and by a warning where it fails later.

    Raises UserError for a log that is damaged, or cannot be written.
    """

    def __init__(self, folder: Path, step: int):
        self.folder, self.step = folder, step
        self.path = folder / "metrics.jsonl"
        self.entries = [entry for entry in _read(self.path) if entry["step"] <= step]
        with writing(self.path):
            files.write_text(self.path, "".join(json.dumps(entry) + "\n" for entry in self.entries))
        self.board = Optional("tensorboard", "tensorboard", "no TensorBoard scalars are written")
        self.curves = Optional("matplotlib", "curves", "no picture of the curves is drawn")
        self._writer: Any = None

    def __enter__(self) -> "TrainingLog":
        self._file = open(self.path, "a", encoding="utf-8")
        self._writer = self.board.run(self._open_board)
        self.curves.run(_matplotlib)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._file.close()  # writes again what could not be written
        except OSError as failed:
            if error is None:
                raise UserError(f"{self.path}: cannot be written: {failed.strerror}") from None
        if self._writer is not None:
            self.board.run(self._writer.close)
        self.draw()

    @property
    def notes(self) -> list[str]:
        """A line for each optional package that is not installed."""
        return [package.missing for package in (self.board, self.curves) if package.missing]

    def add(self, step: int, epoch: int, **values: float) -> None:
        """One entry, with the time of day; values are scalars by name. One that is not finite is written as null."""
        entry: dict[str, Any] = {"step": step, "epoch": epoch, "time": datetime.now(UTC).isoformat(timespec="seconds")}
        entry |= {name: value if math.isfinite(value) else None for name, value in values.items()}
        self.entries.append(entry)
        if self._writer is not None:
            for name, value in values.items():
                self.board.run(self._writer.add_scalar, name, value, step)
        with writing(self.path):
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()

    def draw(self) -> None:
        """Write ``folder``/curves.png, where there is something to draw and matplotlib works."""
        drawn = self.curves.run(curves_png, self.entries) if self.entries else None
        if drawn is not None:
            path = self.folder / "curves.png"
            try:
                files.write_bytes(path, drawn)
            except OSError as error:
                warnings.warn(f"{path}: cannot be written: {reason(error)}", NotWritten, stacklevel=2)

    def _open_board(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.step + 1)


def _matplotlib() -> None:
    from matplotlib.figure import Figure as Figure


def _read(path: Path) -> list[dict[str, Any]]:
    """The entries of a log. A last line that a killed process left half-written is dropped.

    Raises UserError for a log with anything else in it.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    entries = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line.decode())
            if not _is_entry(entry):
                raise ValueError
        except (ValueError, RecursionError):
            if number == len(lines):  # there is no line end after it
                break
            raise UserError(
                f"{path}: damaged in line {number}: expected a JSON object with 'step' and 'epoch'; it is only a log: "
                "rename or delete it, and go on with --resume"
            ) from None
        entries.append(entry)
    return entries


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or type(entry.get("step")) is not int:
        return False
    return all(value is None or isinstance(value, int | float | str) for value in entry.values())
