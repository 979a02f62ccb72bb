"""One training loop. A run that is interrupted anywhere and resumed ends with the weights of one that was not."""

import copy
import math
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import attrs
import torch
import torch.nn.functional as F
from attrs import frozen
from torch import Tensor
from tqdm import tqdm

from liif_core import files
from liif_core.data.crops import CropDataset, batches, batches_per_epoch
from liif_core.data.sources import ImageSet
from liif_core.errors import Interrupted, UserError
from liif_core.evaluation.evaluate import evaluate_set
from liif_core.experiment.schema import Cosine, Experiment, MultiStep, Schedule
from liif_core.experiment.toml_file import to_builtin
from liif_core.model.continuous import ContinuousModel
from liif_core.model.device import autocast
from liif_core.training.checkpoint import Checkpoint, save_checkpoint
from liif_core.training.log import TrainingLog

STATE = "last.training.pt"  # beside last.safetensors: all that resuming needs, in one file, so that it is never torn


@frozen
class Trained:
    """How a training ended."""

    steps: int
    best: float | None  # validation PSNR, dB
    best_step: int | None
    seconds: float  # of this process


def l1_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error, in the network's own [-1, 1] space as published losses are; inputs in [0, 1]."""
    return 2 * F.l1_loss(prediction, target)


def rate_factor(schedule: Schedule, step: int, steps_per_epoch: int, epochs: int) -> float:
    """What the learning rate of step ``step`` (from 0) is multiplied by: a function, so that resuming is exact."""
    risen = min(1.0, (step + 1) / (schedule.warmup_steps + 1))
    start = schedule.warmup_from or 0.0
    warm = start + (1 - start) * risen
    if isinstance(schedule, MultiStep):
        epoch = step // steps_per_epoch
        return warm * schedule.gamma ** sum(milestone <= epoch for milestone in schedule.milestones)
    if isinstance(schedule, Cosine):
        total = max(1, steps_per_epoch * epochs - schedule.warmup_steps)
        done = min(1.0, max(0, step - schedule.warmup_steps) / total)
        return warm * (schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * done)) / 2)
    return warm


@attrs.define
class Progress:
    """Where a run is. ``batch`` counts the batches of ``epoch`` that are done."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float | None = None
    best_step: int | None = None


class Trainer:
    """Trains ``model`` in place, leaving checkpoints, pictures and a log in ``folder``."""

    def __init__(
        self,
        model: ContinuousModel,
        experiment: Experiment,
        images: ImageSet,
        validation: ImageSet | None,
        folder: Path,
        device: torch.device,
        plugins: dict[str, str],
        quiet: bool = False,
    ):
        self.experiment = experiment
        self.spec = spec = experiment.train
        self.images = images
        self.validation = validation
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self.device = device
        self.plugins = plugins
        self.quiet = quiet
        self.dataset = CropDataset(images, experiment.data, spec.seed)
        self.per_epoch = batches_per_epoch(self.dataset, spec.batch_size)
        self.model = model.to(device)
        self.averaged = copy.deepcopy(model).requires_grad_(False) if spec.ema else None
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[spec.optimizer.use]
        chosen = spec.optimizer
        self.optimizer = kind(model.parameters(), lr=chosen.lr, betas=chosen.betas, weight_decay=chosen.weight_decay)
        self.scaler = torch.amp.GradScaler(device.type, enabled=experiment.run.precision == "fp16")
        self.progress = Progress()

    @property
    def eval_model(self) -> ContinuousModel:
        """The model that is validated and saved: the averaged one, where there is one."""
        return self.averaged if self.averaged is not None else self.model

    def run(self, resume: bool = False) -> Trained:
        """Train to the end. Raises Interrupted after a signal, and UserError when the loss is no longer finite;
        a checkpoint to go on from is there in both cases."""
        started = time.monotonic()
        if resume:
            self._restore()
        with _repeatable(self.experiment.run.deterministic and self.device.type == "cuda"), _signals() as stop:
            with TrainingLog(self.folder, self.progress.step) as log, self._bar() as bar:
                for note in [] if self.quiet else log.notes:
                    tqdm.write(note)
                while self.progress.epoch < self.spec.epochs:
                    self._epoch(log, stop, bar)
        if not (self.checkpoints / "best.safetensors").exists():
            self._save_weights("best")
        return Trained(self.progress.step, self.progress.best, self.progress.best_step, time.monotonic() - started)

    def _bar(self) -> tqdm:
        return tqdm(
            total=self.spec.epochs * self.per_epoch, initial=self.progress.step, unit="step", dynamic_ncols=True,
            disable=self.quiet, mininterval=0.2 if sys.stderr.isatty() else 20,  # a log file wants few lines
        )  # fmt: skip

    def _epoch(self, log: TrainingLog, stop: "_Stop", bar: tqdm) -> None:
        at, spec = self.progress, self.spec
        losses: list[float] = []
        every = max(1, self.per_epoch // 10)
        stream = batches(self.dataset, spec.batch_size, at.epoch, at.batch, spec.workers, self.device)
        bar.set_description(f"epoch {at.epoch + 1}/{spec.epochs}", refresh=False)
        try:
            for batch in stream:
                losses.append(self._step(batch))
                at.batch += 1
                at.step += 1
                bar.update()
                if at.batch % every == 0 or at.batch == self.per_epoch:
                    loss = sum(losses) / len(losses)
                    losses.clear()
                    log.add(at.step, at.epoch, loss=loss, rate=self.optimizer.param_groups[0]["lr"])
                    bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                self._stop_if_asked(stop)
        finally:
            stream.close()
        done = at.epoch + 1
        if self._validates(done):
            self._validate(log, done)
            self._stop_if_asked(stop)  # before the epoch counts as done: resuming validates again, with the same result
        at.epoch, at.batch = done, 0
        if done % spec.checkpoint_every == 0 or done == spec.epochs:
            self._save()
        if spec.keep_every and done % spec.keep_every == 0:
            self._save_weights(f"epoch-{done}")

    def _step(self, batch: dict[str, Any]) -> float:
        """One optimizer step; returns the loss."""
        at, spec = self.progress, self.spec
        factor = rate_factor(spec.schedule, at.step, self.per_epoch, spec.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = spec.optimizer.lr * factor
        torch.manual_seed(spec.seed * 1_000_003 + at.step)  # for components that draw, such as dropout
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        count = len(batch["image"])
        for part in torch.arange(count).tensor_split(min(spec.accumulate, count)):
            chosen = slice(int(part[0]), int(part[-1]) + 1)
            with autocast(self.device, self.experiment.run.precision):
                colors = self.model(*(batch[name][chosen] for name in ("image", "coord", "cell")))
            loss = l1_loss(colors, batch["target"][chosen]) * (len(part) / count)
            self.scaler.scale(loss).backward()
            total += loss.item()
        if not math.isfinite(total):
            samples = f"epoch {at.epoch + 1}, samples {batch['index'].tolist()}"
            raise self._diverged(f"the loss is {total} at step {at.step} ({samples})")
        if spec.clip:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), spec.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.averaged is not None:
            self._average()
        return total

    @torch.no_grad()
    def _average(self) -> None:
        own = self.model.state_dict()
        for name, value in self.averaged.state_dict().items():
            if value.is_floating_point():
                value.lerp_(own[name], 1 - self.spec.ema)
            else:
                value.copy_(own[name])

    def _diverged(self, what: str) -> UserError:
        last = self.checkpoints / "last.safetensors"
        kept = f"the last good checkpoint is {last}" if last.exists() else "there is no checkpoint yet"
        return UserError(f"train: {what}; {kept}. Try a smaller train.optimizer.lr, or train.clip")

    def _validates(self, done: int) -> bool:
        spec = self.experiment.validate
        return self.validation is not None and (done % spec.every == 0 or done == self.spec.epochs)

    def _validate(self, log: TrainingLog, done: int) -> None:
        spec, at = self.experiment.validate, self.progress
        self.eval_model.eval()
        score = evaluate_set(
            self.eval_model, self.validation, "validation", [spec.scale], spec.protocol, device=self.device,
            precision=self.experiment.run.precision, progress=False, picture=self.folder / "pictures" / "validation.png",
        )[0]  # fmt: skip
        log.add(at.step, at.epoch, psnr=score.psnr, bicubic_psnr=score.bicubic_psnr)
        log.draw()
        if not self.quiet:
            tqdm.write(
                f"epoch {done}: validation {score.psnr:.2f} dB at {score.scale} (bicubic {score.bicubic_psnr:.2f} dB)"
            )
        if at.best is None or score.psnr > at.best:
            at.best, at.best_step = score.psnr, at.step
            self._save_weights("best")

    def _stop_if_asked(self, stop: "_Stop") -> None:
        if stop.asked:
            self._save()
            raise Interrupted(f"stopped by {stop.asked} after step {self.progress.step}; go on with --resume")

    def _save(self) -> None:
        if not all(value.isfinite().all() for value in self.model.state_dict().values()):
            raise self._diverged(f"the weights are not finite after step {self.progress.step}")
        self._save_weights("last")
        state = {
            "progress": attrs.asdict(self.progress),
            "images": self.images.fingerprint,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged is not None else None,
        }
        with files.replacing(self.checkpoints / STATE) as temporary:
            torch.save(state, temporary)

    def _save_weights(self, name: str) -> None:
        experiment = to_builtin(self.experiment)
        checkpoint = Checkpoint(
            self.eval_model.state_dict(), experiment, self.experiment.data.scale, self.progress.step, self.progress.best,
            self.plugins,
        )  # fmt: skip
        save_checkpoint(self.checkpoints / f"{name}.safetensors", checkpoint)

    def _restore(self) -> None:
        path = self.checkpoints / STATE
        if not path.exists():
            return  # interrupted before the first checkpoint: start again, with the same result
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            fingerprint = state["images"]
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: damaged, cannot resume from it: {str(error).splitlines()[0]}") from None
        if fingerprint != self.images.fingerprint:
            raise UserError(
                f"{path}: the training images have changed since; restore them, or start with another --out"
            )
        self.progress = Progress(**state["progress"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])


class _Stop:
    asked: str | None = None


@contextmanager
def _signals() -> Iterator[_Stop]:
    """The first SIGINT or SIGTERM is remembered, to stop at the next step; a second SIGINT stops at once."""
    stop = _Stop()

    def handle(number: int, _: FrameType | None) -> None:
        if stop.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.asked = signal.Signals(number).name

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _repeatable(wanted: bool) -> Iterator[None]:
    """Only operations that repeat exactly: on CUDA, sums into shared places do not by themselves."""
    before = torch.are_deterministic_algorithms_enabled()
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
