"""The state of a training run that resuming needs, in one file, so that its parts always belong together."""

import pickle
from pathlib import Path
from typing import Any

import attrs
import torch

from liif_core import files
from liif_core.errors import UserError
from liif_core.experiment.translation import translate_weights

STATE = "last.training.pt"  # beside last.safetensors


@attrs.define
class Progress:
    """How far a run is."""

    epoch: int = 0  # number of finished epochs
    batch: int = 0  # number of batches of this epoch that were handed out
    step: int = 0  # number of optimizer steps
    best: float | None = None  # highest validation PSNR, dB
    best_step: int | None = None
    seconds: float = attrs.field(default=0.0, eq=False)  # that training took so far, over all interruptions


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write a dictionary of plain values and tensors, whole or not at all."""
    with files.replacing(path) as temporary:
        torch.save(state, temporary)


def read_state(path: Path, images: str, model: dict[str, Any], epochs: int) -> dict[str, Any]:
    """The dictionary of ``write_state``, of this version or an older one, with ``progress`` as a ``Progress``.

    Tensors are on the CPU. ``images`` is the fingerprint of the training images, ``model`` the run's ``[model]`` table.
    Raises UserError for a file that is damaged, and for a run that was trained on other images, or longer than
    ``epochs``.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        fingerprint = state["images"]
        state["progress"] = Progress(**state["progress"])
        for name in ("model", "averaged"):
            if state[name] is not None:
                state[name] = translate_weights(state[name], model)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: damaged, cannot resume from it: {reason}") from None
    if fingerprint != images:
        raise UserError(f"{path}: the training images have changed since; restore them, or start with another --out")
    done: Progress = state["progress"]
    if (done.epoch, done.batch) > (epochs, 0):
        least = done.epoch + (done.batch > 0)
        raise UserError(f"{path}: {done.epoch} epochs are done; expected train.epochs to be at least {least}")
    return state
