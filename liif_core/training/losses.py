"""The losses of training steps, read from the device together: to read one means to wait for the device."""

import math
from collections.abc import Callable

import torch
from attrs import define, field
from torch import Tensor

from liif_core.errors import UserError
from liif_core.training.state import Progress


@define
class Losses:
    """Losses that were not read yet. ``diverged`` makes the error for one that is not finite.

    On a CPU, a loss is checked when it is added, before the weights are changed; on other devices, when it is read.
    """

    diverged: Callable[[str], UserError]
    _held: list[tuple[Tensor, str, Tensor | None]] = field(factory=list, init=False)

    def add(self, loss: Tensor, at: Progress, samples: Tensor | None) -> None:
        """Add the loss of step ``at.step``, a number on the device, and the numbers of its samples, if known."""
        entry = loss, f"at step {at.step} (epoch {at.epoch + 1}", samples
        if loss.device.type == "cpu":
            self._check(float(loss), *entry[1:])
        self._held.append(entry)

    def read(self) -> list[float]:
        """The losses added since the last call, in order. Raises UserError for the first that is not finite."""
        held, self._held = self._held, []
        values: list[float] = torch.stack([loss for loss, _, _ in held]).tolist() if held else []
        for value, (_, where, samples) in zip(values, held):
            self._check(value, where, samples)
        return values

    def _check(self, value: float, where: str, samples: Tensor | None) -> None:
        if not math.isfinite(value):
            named = "" if samples is None else f", samples {samples.tolist()}"
            raise self.diverged(f"the loss is {value} {where}{named})")
