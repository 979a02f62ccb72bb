"""Knowledge distillation: a trained model, the teacher, gives colors that the model in training also learns from.

Hinton, Vinyals and Dean, Distilling the knowledge in a neural network, 2015.
"""

import torch
from attrs import frozen
from torch import Tensor

from liif_core.errors import UserError
from liif_core.experiment.train_schema import TeacherSpec
from liif_core.model.continuous import ContinuousModel
from liif_core.model.ensemble import SelfEnsemble
from liif_core.models.loading import load


@frozen(eq=False)
class Teacher:
    """A trained model in evaluation mode, and how it teaches."""

    model: ContinuousModel
    weight: float  # of the distance to its colors in the loss; the rest is that of the distance to the true colors
    self_ensemble: bool

    @torch.no_grad()
    def colors(self, image: Tensor, coord: Tensor, cell: Tensor) -> Tensor:
        """The teacher's colors (B, Q, channels) of a batch, as ``ContinuousModel.forward`` gives them."""
        model = SelfEnsemble(self.model, 8) if self.self_ensemble else self.model
        colors: Tensor = model(image, coord, cell)
        return colors


def load_teacher(spec: TeacherSpec | None, channels: int, device: torch.device | str = "cpu") -> Teacher | None:
    """The teacher of ``[train.teacher]``, for a model of ``channels``.

    Raises UserError for a file that cannot be read, an unknown name, and a teacher with other channels.
    """
    if spec is None:
        return None
    try:
        model = load(spec.source, device)
    except UserError as error:
        raise UserError(*(f"train.teacher: {problem}" for problem in error.problems)) from None
    if model.channels != channels:
        raise UserError(
            f"train.teacher: {spec.source} has {model.channels} channels, and the model has {channels}; choose a "
            "teacher that was trained on such images"
        )
    return Teacher(model, spec.weight, spec.self_ensemble)
