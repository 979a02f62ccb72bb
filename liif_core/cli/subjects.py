"""The models that commands measure, by file or by name."""

import warnings
from pathlib import Path

import torch
from attrs import frozen

from liif_core.evaluation.results import Subject
from liif_core.experiment.description import short_description
from liif_core.model.continuous import ContinuousModel
from liif_core.model.ensemble import SelfEnsemble
from liif_core.models.loading import checkpoint_path
from liif_core.registry.components import Registry
from liif_core.training.checkpoint import OtherVersion, load_checkpoint, model_of, spec_of, tensors_sha256


@frozen
class Loaded:
    """A model, and what results say about it."""

    model: ContinuousModel
    subject: Subject


def load_subject(given: Path, registry: Registry, device: torch.device, ensemble: int = 1) -> Loaded:
    """The model of a checkpoint file or of an installed name, in evaluation mode, on ``device``.

    Raises UserError as ``liif_core.load`` does.
    """
    path = checkpoint_path(given, registry)
    checkpoint = load_checkpoint(path, registry)
    model: ContinuousModel = model_of(checkpoint, registry, str(given)).to(device).eval()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OtherVersion)  # model_of has warned
        description = short_description(spec_of(checkpoint, registry, str(given)))
    name = str(checkpoint.experiment.get("name") or path.stem) if given.exists() else str(given)
    if ensemble > 1:
        model, description = SelfEnsemble(model, ensemble), f"{description}, mean of {ensemble} orientations"
    return Loaded(model, Subject(name, description, tensors_sha256(checkpoint.state), parameters, ensemble))
