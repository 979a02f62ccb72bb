"""``liif_core.load``: a model from a checkpoint file, or from an installed model pack by name."""

import re
from pathlib import Path

import torch

from liif_core.errors import UserError
from liif_core.model.continuous import ContinuousModel
from liif_core.model.device import pick_device
from liif_core.models.packs import find_model
from liif_core.registry.components import Registry
from liif_core.registry.discovery import discover
from liif_core.registry.named_models import is_name
from liif_core.training.checkpoint import load_checkpoint, model_of


def load(path_or_name: str | Path, device: str | torch.device = "cpu") -> ContinuousModel:
    """A model in evaluation mode, whose parameters need no gradients, on ``device``.

    Args:
        path_or_name: the path of a liif-core checkpoint (.safetensors) or of a published .pth, or the name of a trained
            model of an installed model pack (``liif plugins`` lists them), which is downloaded if need be. A file that
            exists is preferred to a model of the same name.
        device: "cpu", "cuda", "cuda:N", "mps" or "auto".

    Raises UserError (a ValueError) for a file that cannot be read, an unknown name, or a device that this machine does
    not have.
    """
    registry = discover()
    target = pick_device(str(device))
    return load_file(checkpoint_path(path_or_name, registry), str(path_or_name), registry, target)


def load_file(path: Path, where: str, registry: Registry, device: torch.device) -> ContinuousModel:
    """``load`` of a checkpoint file, which messages call ``where``."""
    model = model_of(load_checkpoint(path, registry), registry, where)
    return model.to(device).eval().requires_grad_(False)


def checkpoint_path(path_or_name: str | Path, registry: Registry) -> Path:
    """The checkpoint file that a path, or the name of a model of a model pack, refers to.

    A file that exists is preferred to a model of the same name. Raises UserError as ``find_model`` does, and for a name
    that is neither.
    """
    path, text = Path(path_or_name), str(path_or_name)
    if path.is_fifo() or path.is_socket() or path.is_char_device() or path.is_block_device():
        raise UserError(f"{text}: a pipe or a device, not a checkpoint file")
    if path.is_file() or not _may_be_a_name(text):
        return path
    try:
        registry.find_model(text)
    except ValueError as error:
        raise UserError(f"{text}: {'is a folder' if path.is_dir() else 'no such file'}, and {error}") from None
    return find_model(text, registry)


def _may_be_a_name(text: str) -> bool:
    owner, _, name = text.rpartition(":")
    return is_name(name) and re.fullmatch(r"[\w.-]*", owner) is not None
