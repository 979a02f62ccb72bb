"""Whether a disk has room for the checkpoints that a run keeps."""

import shutil
from pathlib import Path

from liif_core.errors import UserError
from liif_core.experiment.train_schema import TrainSpec
from liif_core.files import nearest_existing
from liif_core.model.continuous import ContinuousModel

_MOMENTS = 2  # values that an optimizer keeps of each weight, at most; 'muon' keeps fewer of some


def check_space(folder: Path, model: ContinuousModel, spec: TrainSpec) -> None:
    """Raises UserError where the disk of ``folder`` has no room for the checkpoints that the run will have there.

    These are "last", "best", those of ``train.keep_every``, and the state to resume from. What is there already
    counts, since it is replaced.
    """
    weights = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    trained = sum(value.numel() * value.element_size() for value in model.parameters())
    kept = 2 + (spec.epochs // spec.keep_every if spec.keep_every else 0)
    state = weights * (2 if spec.ema else 1) + (_MOMENTS if spec.optimizer.use != "muon" else 1) * trained
    need = kept * weights + state
    there = sum(path.stat().st_size for path in (folder / "checkpoints").glob("*") if path.is_file())
    free = shutil.disk_usage(nearest_existing(folder)).free
    if need > free + there:
        raise UserError(
            f"{folder}: {kept} checkpoints and the state to resume from need {_bytes(need)}, and its disk has "
            f"{_bytes(free)} free; make room, choose another --out, or a larger train.keep_every"
        )


def _bytes(count: float) -> str:
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while count >= 1000 and len(units) > 1:
        count, units = count / 1000, units[1:]
    return f"{count:,.0f} {units[0]}" if units[0] == "bytes" else f"{count:,.1f} {units[0]}"
