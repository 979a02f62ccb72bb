"""The state of a training run that resuming needs, in one file, so that its parts always belong together."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from attrs.validators import optional

from liif_core import files
from liif_core.data.sources import ImageSet
from liif_core.errors import UserError
from liif_core.experiment.schema import Experiment
from liif_core.experiment.toml_file import to_builtin
from liif_core.experiment.translation import translate_weights
from liif_core.model.continuous import ContinuousModel
from liif_core.training.checkpoint import tensors_sha256
from liif_core.training.sealed import read_sealed, write_sealed
from liif_core.training.writing import reason

STATE = "last.training.pt"  # beside last.safetensors


def _count(_: Any, field: "attrs.Attribute[Any]", value: Any) -> None:
    if type(value) is not int or value < 0:
        raise ValueError(f"progress.{field.name} is {value!r:.60}")


def _number(_: Any, field: "attrs.Attribute[Any]", value: Any) -> None:
    if type(value) not in (int, float) or math.isnan(value):
        raise ValueError(f"progress.{field.name} is {value!r:.60}")


@attrs.define
class Progress:
    """How far a run is. Raises ValueError for other values than those."""

    epoch: int = attrs.field(default=0, validator=_count)  # number of finished epochs
    batch: int = attrs.field(default=0, validator=_count)  # number of batches of this epoch that were handed out
    step: int = attrs.field(default=0, validator=_count)  # number of optimizer steps
    best: float | None = attrs.field(default=None, validator=optional(_number))  # highest validation PSNR, dB
    best_step: int | None = attrs.field(default=None, validator=optional(_count))
    # that training took so far, over all interruptions
    seconds: float = attrs.field(default=0.0, eq=False, validator=_number)


@attrs.frozen
class Trained:
    """How a training ended."""

    steps: int
    best: float | None  # validation PSNR, dB
    best_step: int | None
    seconds: float  # of training, over all interruptions


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write a dictionary of plain values and tensors, with a hash, whole or not at all."""
    with files.replacing(path) as temporary:
        write_sealed(temporary, state)


def read_state(
    path: Path, images: str, beside: Mapping[str, str], experiment: Experiment, per_epoch: int
) -> dict[str, Any]:
    """The dictionary of ``write_state``, of this version or an older one, with ``progress`` as a ``Progress``.

    Tensors are on the CPU. ``images`` is the fingerprint of the training images, ``beside`` what the function of that
    name returns, and ``per_epoch`` the number of batches of an epoch. Raises UserError for a file that is damaged, and
    for a run that was trained on other images, or with another teacher, or longer than the experiment's epochs.
    """
    model, epochs = to_builtin(experiment.model), experiment.train.epochs
    try:
        state: dict[str, Any] = read_sealed(path)
        fingerprint = state["images"]
        state["progress"] = Progress(**state["progress"])
        for name in ("model", "averaged"):
            if state[name] is not None:
                state[name] = translate_weights(state[name], model)
    except Exception as error:  # torch does not document what torch.load raises for a file that it cannot read
        raise damaged(path, reason(error)) from None
    if fingerprint != images:
        raise UserError(f"{path}: the training images have changed since; restore them, or start with another --out")
    done: Progress = state["progress"]
    if (done.epoch, done.batch) > (epochs, 0):
        least = done.epoch + (done.batch > 0)
        raise UserError(f"{path}: {done.epoch} epochs are done; expected train.epochs to be at least {least}")
    if done.batch > per_epoch:
        raise damaged(path, f"an epoch has {per_epoch} batches, and {done.batch} are done")
    _check_beside(path, state, beside)
    return state


def damaged(path: Path, what: str) -> UserError:
    """The error for a state that cannot be resumed from, with what is left to go on from."""
    kept = [file for file in path.parent.glob("*.safetensors") if file.is_file()]
    advice = "no checkpoint of weights is beside it: start again, with another --out"
    if kept:
        best = max(kept, key=lambda file: (_epoch(file), file.stem == "last"))
        advice = f"its weights are in {best}: start a new run from them, with [train.start_from] and another --out"
    return UserError(f"{path}: damaged, cannot resume from it: {what}; {advice}")


def _epoch(file: Path) -> int:
    """The epoch of a checkpoint that ``train.keep_every`` kept; 0 for others."""
    named = re.fullmatch(r"epoch-([0-9]+)", file.stem)
    return int(named[1]) if named else 0


def beside(validation: ImageSet | None, teacher: ContinuousModel | None) -> dict[str, str]:
    """Fingerprints of what a run depends on beside its images."""
    found = {} if validation is None else {"the images of validate": validation.fingerprint}
    return found if teacher is None else {**found, "train.teacher": tensors_sha256(teacher.state_dict())}


def _check_beside(path: Path, state: Mapping[str, Any], now: Mapping[str, str]) -> None:
    """Raises UserError where ``beside`` was another when ``state`` was written; older states do not say."""
    before = state.get("beside")
    for name, value in before.items() if isinstance(before, dict) else ():
        if name in now and now[name] != value:
            raise UserError(f"{path}: {name} changed since; restore what was there, or start with another --out")
