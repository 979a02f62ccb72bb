"""One optimizer step: gradients in parts of a batch, their scaling in half precision, and the average of weights."""

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from liif_core.distributed import ALONE, Processes, noticing_loss
from liif_core.errors import UserError
from liif_core.experiment.train_schema import Optimizer, TrainSpec
from liif_core.model.continuous import ContinuousModel
from liif_core.model.device import autocast
from liif_core.training.muon import MuonAdamW
from liif_core.training.teacher import Teacher, load_teacher

# Of a part of a batch on a CPU, if it has several images: one image of the LIIF paper's training, or more where a
# decoder has few values for each query.
PART_QUERIES = 2304
_BLOCKS = 8  # parts in ``BlockDecoder.block_positions``: training keeps more values of a query than rendering
INPUTS = ("image", "coord", "cell", "target")  # what a batch must have
OTHERS = ("index", "unlabelled")  # what it may have


def l1_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error, in the network's own [-1, 1] space as published losses are; inputs in [0, 1]."""
    return 2 * F.l1_loss(prediction, target)


def l2_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error, in the space of ``l1_loss``."""
    return 4 * F.mse_loss(prediction, target)


def psnr_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Minus the peak signal-to-noise ratio of each image's colors, (B, Q, C) in [0, 1], in dB; the mean over images.

    An error far below the rounding to 8 bits (60 dB) counts no more: flat images would otherwise have large gradients.
    """
    errors = (prediction - target).square().flatten(1).mean(1)
    return 10 * torch.log10(errors + 1e-6).mean()


LOSSES = {"l1": l1_loss, "l2": l2_loss, "psnr": psnr_loss}  # by ``train.loss``


def require_own_loss(model: ContinuousModel, spec: TrainSpec) -> None:
    """Raises UserError where ``spec`` asks for a model's own objective, and the model has none."""
    if spec.own_loss and not model.has_own_loss:
        raise UserError("train.own_loss: this model has no training objective of its own; leave own_loss out")


class Lesson(nn.Module):
    """The loss of a part of a batch: how far the model is from the true colors, and from those of a teacher."""

    def __init__(
        self, model: ContinuousModel, spec: TrainSpec, teacher: Teacher | None, precision: str, device: torch.device
    ):
        super().__init__()
        self.model, self.distance, self.own_loss = model, LOSSES.get(spec.loss), spec.own_loss
        self.teacher, self.precision, self.device = teacher, precision, device

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        if not self.own_loss:
            return self._distances(batch, self.model)
        with autocast(self.device, self.precision):
            picture = self.model.encode(batch["image"])
            own = picture.own_loss(batch["coord"], batch["cell"], batch["target"]).float() * self.own_loss
        if self.distance is None:
            return own
        return self._distances(batch, lambda image, *where: picture.query(*where)) + own

    def _distances(self, batch: Mapping[str, Tensor], colors_of: Callable[..., Tensor]) -> Tensor:
        """From the true colors, and from those of a teacher. ``colors_of(image, coord, cell)`` are the model's."""
        assert self.distance is not None
        where = batch["coord"], batch["cell"]
        with autocast(self.device, self.precision):
            colors = colors_of(batch["image"], *where)
        loss = self.distance(colors, batch["target"])
        if self.teacher is None:
            return loss
        patches = batch.get("unlabelled", batch["image"])
        with autocast(self.device, self.precision):
            taught = self.teacher.colors(patches, *where)
            learned = self.model(patches, *where) if "unlabelled" in batch else colors
        return torch.lerp(loss, self.distance(learned, taught), self.teacher.weight)


class Optimization:
    """The model in training, with what an optimizer step changes. All ``processes`` have the same weights."""

    def __init__(
        self,
        model: ContinuousModel,
        spec: TrainSpec,
        precision: str,
        device: torch.device,
        processes: Processes = ALONE,
    ):
        require_own_loss(model, spec)
        self.spec, self.device, self.processes = spec, device, processes
        self.model = model.to(device)
        self.averaged = copy.deepcopy(model).requires_grad_(False) if spec.ema else None
        self.optimizer = _optimizer(self.model, spec.optimizer)
        self.teacher = load_teacher(spec.teacher, model.channels, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self._lesson: nn.Module = Lesson(self.model, spec, self.teacher, precision, device)
        if processes.size > 1:
            # Gradients are summed in the order of the parameters, always: torch would otherwise change that order after
            # the first step of a process, and a run that was interrupted would end with other weights.
            with noticing_loss():
                self._lesson = DistributedDataParallel(self._lesson, find_unused_parameters=True)

    def gradients(self, batch: Mapping[str, Any], seed: int) -> Tensor:
        """Compute the gradients of a batch, in ``spec.accumulate`` parts or more; returns the loss, on the device.

        With several processes, each has a part of the batch, whose ``share`` of the whole, from 0 to 1, is in it; each
        gets the gradients and the loss of the whole.

        ``seed`` is for components that draw random numbers, such as dropout; the parts draw one after the other. On a
        CPU, a part has one image, or a few where an image has few queries: a part's values then fit in its caches, and
        memory does not grow with the batch. Gradients are those of the whole batch up to rounding. Batch normalization
        takes its statistics over a part, so that it gets the parts that ``spec.accumulate`` asks for.
        """
        torch.manual_seed((seed + (self.processes.rank << 40)) % 2**63)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        batch = dict(batch)
        share = batch.pop("share", 1 / self.processes.size)
        count = len(batch["image"])
        parts = torch.arange(count).tensor_split(self._parts(count, batch["coord"].shape[1]))
        for number, part in enumerate(parts, start=1):
            chosen = slice(int(part[0]), int(part[-1]) + 1)
            inputs = {name: value[chosen] for name, value in batch.items()}
            with noticing_loss(), self._exchanging(number == len(parts)):
                loss = self._lesson(inputs) * (len(part) / count * share)
                # DistributedDataParallel takes the mean over processes of what is to be their sum
                self.scaler.scale(loss * self.processes.size).backward()
            losses.append(loss.detach())
        return self.processes.total(torch.stack(losses).sum())

    def _exchanging(self, last: bool) -> AbstractContextManager[object]:
        """Gradients are exchanged once for each step, with those of the last part."""
        lesson = self._lesson
        return lesson.no_sync() if isinstance(lesson, DistributedDataParallel) and not last else nullcontext()

    def _parts(self, count: int, queries: int) -> int:
        """In how many parts a batch of ``count`` images is computed."""
        asked = min(self.spec.accumulate, count)
        if self.device.type != "cpu" or any(isinstance(module, _BatchNorm) for module in self.model.modules()):
            return asked
        positions = getattr(getattr(self.model, "decoder", None), "block_positions", 0)
        return max(asked, -(-count // max(1, max(PART_QUERIES, positions // _BLOCKS) // queries)))

    def update(self, lr: float) -> None:
        """Change the weights by the gradients, and the average with them.

        With "fp16", gradients that are not finite leave the weights as they are, and the scale is halved.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("factor", 1.0)
        if self.spec.clip:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.spec.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._average()

    @torch.no_grad()
    def _average(self) -> None:
        if self.averaged is None or self.spec.ema is None:
            return
        own = self.model.state_dict()
        for name, value in self.averaged.state_dict().items():
            if value.is_floating_point():
                value.lerp_(own[name], 1 - self.spec.ema)
            else:
                value.copy_(own[name])

    def is_finite(self) -> bool:
        """Whether all weights are finite."""
        finite = [value.isfinite().all() for value in self.model.state_dict().values()]
        return not finite or bool(torch.stack(finite).all())  # one answer to wait for

    def state(self) -> dict[str, Any]:
        """Everything that a step changes, as tensors on the CPU and plain values: any device can go on from it."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged is not None else None,
        }
        on_cpu: dict[str, Any] = _on_cpu(state)
        return on_cpu

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state`` returned. Raises what torch raises for the state of another model."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # empty if the run had another precision
            self.scaler.load_state_dict(state["scaler"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"] or state["model"])


def _optimizer(model: ContinuousModel, chosen: Optimizer) -> torch.optim.Optimizer:
    if chosen.use == "muon":
        other_lr = chosen.lr if chosen.other_lr is None else chosen.other_lr
        return MuonAdamW(model.parameters(), chosen.lr, other_lr, betas=chosen.betas, weight_decay=chosen.weight_decay)
    kind: type[torch.optim.Adam] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[chosen.use]
    return kind(model.parameters(), lr=chosen.lr, betas=chosen.betas, weight_decay=chosen.weight_decay)


def _on_cpu(value: Any) -> Any:
    """Nested dictionaries and lists with their tensors on the CPU."""
    if isinstance(value, Mapping):
        return {key: _on_cpu(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_on_cpu(part) for part in value]
    return value.cpu() if isinstance(value, Tensor) else value


def check_batch(batch: Mapping[str, Tensor], channels: int) -> None:
    """Raises TypeError or ValueError for a batch that is not of the form that ``Trainer.batches`` describes."""
    if not isinstance(batch, Mapping) or not all(isinstance(batch.get(name), Tensor) for name in INPUTS):
        found = ", ".join(sorted(map(str, batch))) if isinstance(batch, Mapping) else type(batch).__name__
        raise TypeError(f"batch: expected a mapping with the tensors {', '.join(INPUTS)}, got {found or 'none'}")
    image, coord, cell, target = (batch[name] for name in INPUTS)
    count, queries = len(image) if image.ndim else 0, coord.shape[1] if coord.ndim == 3 else 0
    fits = (
        (image.ndim == 4 and image.shape[1] == channels and count > 0)
        and (coord.shape == (count, queries, 2) and queries > 0)
        and cell.shape in ((count, 1, 2), (count, queries, 2))
        and target.shape == (count, queries, channels)
    )
    if not fits:
        raise ValueError(
            f"batch: expected image (B, {channels}, h, w), coord (B, Q, 2), cell (B, 1 or Q, 2) and "
            f"target (B, Q, {channels}), got {', '.join(f'{name} {tuple(batch[name].shape)}' for name in INPUTS)}"
        )
