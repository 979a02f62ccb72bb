"""The log of a training run: metrics.jsonl, TensorBoard scalars, and a picture of the curves."""

import json
import math
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from liif_core import files


class TrainingLog:
    """Appends to ``folder``/metrics.jsonl; a context manager.

    Entries after ``step``, left by an interrupted run, are dropped first, because the run will repeat them.
    """

    def __init__(self, folder: Path, step: int):
        self.folder = folder
        self.path = folder / "metrics.jsonl"
        self.entries = [entry for entry in _read(self.path) if entry["step"] <= step]
        files.write_text(self.path, "".join(json.dumps(entry) + "\n" for entry in self.entries))
        self.notes = [
            f"{what} is not installed, so {without}: pip install 'liif-core[{extra}]'"
            for what, extra, without in (
                ("tensorboard", "tensorboard", "no TensorBoard scalars are written"),
                ("matplotlib", "curves", "no picture of the curves is drawn"),
            )
            if find_spec(what) is None
        ]

    def __enter__(self) -> "TrainingLog":
        self._file = open(self.path, "a", encoding="utf-8")
        self._board = None
        if find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self.folder / "tensorboard"))
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()
        self.draw()

    def add(self, step: int, epoch: int, **values: float) -> None:
        """One entry; values are scalars by name. A value that is not finite is written as null."""
        entry: dict[str, Any] = {"step": step, "epoch": epoch}
        entry |= {name: value if math.isfinite(value) else None for name, value in values.items()}
        self.entries.append(entry)
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def draw(self) -> None:
        """Write ``folder``/curves.png: loss and validation PSNR over steps; nothing where matplotlib is missing."""
        if find_spec("matplotlib") is None or not self.entries:
            return
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 3.2), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, name, title in zip(figure.subplots(1, 2), ("loss", "psnr"), ("L1 loss", "validation PSNR (dB)")):
            points = [(entry["step"], entry[name]) for entry in self.entries if entry.get(name) is not None]
            axes.plot(*zip(*points) if points else ([], []), marker="o" if len(points) < 30 else None, markersize=3)
            axes.set(title=title, xlabel="step")
            axes.grid(alpha=0.3)
        with files.replacing(self.folder / "curves.png") as temporary:
            figure.savefig(temporary, dpi=120)


def _read(path: Path) -> list[dict[str, Any]]:
    """The entries of a log; a last line that a killed process left half-written is dropped."""
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            entries.append(json.loads(line))
        except ValueError:
            break
    return entries
