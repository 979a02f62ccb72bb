"""Knowledge distillation: a trained model, the teacher, gives colors that the model in training also learns from.

Hinton, Vinyals and Dean, Distilling the knowledge in a neural network, 2015.
"""

from itertools import product

import torch
from attrs import frozen
from torch import Tensor

from liif_core.errors import UserError
from liif_core.experiment.train_schema import TeacherSpec
from liif_core.model.continuous import ContinuousModel
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
        if not self.self_ensemble:
            colors: Tensor = self.model(image, coord, cell)
            return colors
        return torch.stack([self.model(*moved) for moved in _orientations(image, coord, cell)]).mean(0)


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


def _orientations(image: Tensor, coord: Tensor, cell: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """The eight flips and transposes of images, with the coordinates and cells of the same queries in each."""
    found = []
    for down, across, transposed in product((False, True), repeat=3):
        turned = image.flip([dim for dim, flip in ((2, down), (3, across)) if flip])
        place = coord * coord.new_tensor([-1.0 if down else 1.0, -1.0 if across else 1.0])
        if transposed:
            found.append((turned.transpose(2, 3), place.flip(-1), cell.flip(-1)))
        else:
            found.append((turned, place, cell))
    return found
