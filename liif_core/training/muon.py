"""Muon for the weights of hidden layers, AdamW for everything else, as one optimizer.

Muon (Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024) moves a matrix along its momentum,
with all singular values set to about 1. ``torch.optim.Muon`` takes matrices; here a convolution's weight
(out, in, k, k) is one too: (out, in * k * k).
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from liif_core.errors import UserError

_NARROWEST = 16  # rows and columns of a matrix from which on Muon is used: not the layers of pixels and of colors


class MuonAdamW(torch.optim.Optimizer):
    """Takes the parameters of a model, which keep their storage while it is used.

    A group of parameters has ``factor``, its learning rate relative to ``lr``, for schedules.

    Args:
        parameters: all parameters.
        lr: learning rate of matrices, in the units of AdamW: an update has about the root mean square that AdamW's has.
        other_lr: learning rate of the other parameters.
        betas: of AdamW.
        momentum: of Muon.
        weight_decay: of both.

    Raises UserError where PyTorch is older than 2.9, which has no Muon.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        other_lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ):
        require_muon()
        parameters = list(parameters)
        matrices = [parameter for parameter in parameters if _is_matrix(parameter)]
        others = [parameter for parameter in parameters if not _is_matrix(parameter)]
        groups = [
            {"params": matrices, "lr": lr, "factor": 1.0},
            {"params": others, "lr": other_lr, "factor": other_lr / lr},
        ]
        super().__init__([group for group in groups if group["params"]], {"lr": lr})
        self._matrices = matrices
        self._flat = [_flat(parameter) for parameter in matrices]
        self._inner: dict[str, torch.optim.Optimizer] = {}
        if matrices:
            self._inner["muon"] = torch.optim.Muon(
                self._flat, lr=lr, momentum=momentum, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
            )
        if others:
            self._inner["adamw"] = torch.optim.AdamW(others, lr=other_lr, betas=betas, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step. Every group's ``lr`` is that of its parameters."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for matrix, flat in zip(self._matrices, self._flat):
            flat.grad = None if matrix.grad is None else matrix.grad.flatten(1)
        for group, inner in zip(self.param_groups, self._inner.values()):
            for own in inner.param_groups:
                own["lr"] = group["lr"]
            inner.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {name: inner.state_dict() for name, inner in self._inner.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises KeyError or ValueError for the state of other parameters."""
        for name, inner in self._inner.items():
            inner.load_state_dict(state_dict[name])


def require_muon() -> None:
    """Raises UserError where PyTorch is older than 2.9, which has no Muon."""
    if not hasattr(torch.optim, "Muon"):
        raise UserError(
            f"train.optimizer: use = 'muon' needs PyTorch 2.9 or later, and this is {torch.__version__}: "
            "use 'adamw', or install a later PyTorch"
        )


def _is_matrix(parameter: Tensor) -> bool:
    return parameter.ndim > 1 and min(len(parameter), parameter[0].numel()) >= _NARROWEST


def _flat(parameter: nn.Parameter) -> nn.Parameter:
    """A matrix that shares the storage of a parameter."""
    parameter.data = parameter.data.contiguous()
    return nn.Parameter(parameter.detach().flatten(1))
