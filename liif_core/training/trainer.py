"""One training loop. A run that is interrupted anywhere and resumed ends with the weights of one that was not."""

import time
from collections.abc import Callable, Generator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import attrs
import torch

from liif_core.data.crops import CropDataset
from liif_core.data.loading import batches, batches_per_epoch
from liif_core.data.sources import ImageSet
from liif_core.distributed import ALONE, Processes
from liif_core.errors import UserError
from liif_core.evaluation.scores import Score
from liif_core.experiment.schema import Experiment
from liif_core.experiment.toml_file import plugins_of, to_builtin
from liif_core.model.continuous import ContinuousModel
from liif_core.model.device import autocast, moved, pick_device
from liif_core.training.checkpoint import Checkpoint, save_checkpoint
from liif_core.training.loop import train
from liif_core.training.losses import Losses
from liif_core.training.optimization import INPUTS, OTHERS, Optimization, check_batch
from liif_core.training.schedule import rate_factor
from liif_core.training.setup import check_fits, fresh_model, open_data
from liif_core.training.state import STATE, Progress, Trained, beside, damaged, read_state, write_state
from liif_core.training.validation import validated
from liif_core.training.writing import reason, writing


class Trainer:
    """Trains a model in place. ``run`` does everything; its parts are for a loop of your own.

    Example:
        >>> experiment = liif_core.load_experiment("experiment.toml", liif_core.discover())
        >>> trainer = liif_core.Trainer.from_experiment(experiment, folder="runs/mine")
        >>> while not trainer.finished:
        ...     for batch in trainer.batches():
        ...         loss = trainer.step(batch)
        ...     score = trainer.validate()
        ...     trainer.save()

    ``progress`` has the numbers of finished epochs, of batches of this epoch and of steps, and the best PSNR.
    """

    def __init__(
        self,
        model: ContinuousModel,
        experiment: Experiment,
        images: ImageSet,
        validation: ImageSet | None = None,
        folder: str | Path | None = None,
        device: torch.device | str = "cpu",
        plugins: Mapping[str, str] | None = None,
        quiet: bool = True,
        processes: Processes = ALONE,
    ):
        """
        Args:
            model: what is trained; moved to ``device``. Its ``channels`` are those of the images.
            experiment: its tables ``train``, ``data``, ``validate`` and ``run.precision`` apply. Its ``model`` is what
                checkpoints record, so ``model`` must be built from it.
            images: the training images, from ``liif_core.data.sources.open_images``.
            validation: the images of ``validate``. Without them, ``validate`` raises ValueError.
            folder: where checkpoints, the log and pictures go. Without it, nothing is written.
            device: "cpu", "cuda", "cuda:N", "mps" or "auto".
            plugins: distribution -> version, recorded in checkpoints; by default those of the experiment's model.
            quiet: show no progress.
            processes: those that train the model together, within ``liif_core.distributed.joined``. Each computes its
                share of every batch and of the validation images, and the first writes.

        Raises TypeError or ValueError for arguments of another kind, or that do not fit together.
        """
        check_fits(model, experiment)
        self.device = pick_device(str(device))
        autocast(self.device, experiment.run.precision)  # refuses half precision that the device lacks
        self.experiment = experiment
        self.spec = spec = experiment.train
        self.images = images
        self.validation = validation
        self.folder = None if folder is None else Path(folder)
        self.plugins = dict(plugins_of(experiment.model) if plugins is None else plugins)
        self.quiet = quiet or not processes.first
        self.processes = processes
        self.notes: list[str] = []  # for the user, about what ``resume`` went on from
        self.dataset = CropDataset(images, experiment.data, spec.seed, spec.learns_unlabelled)
        self.per_epoch = batches_per_epoch(self.dataset, spec.batch_size)
        self._optimization = Optimization(model, spec, experiment.run.precision, self.device, processes)
        self.progress = Progress()
        self.losses = Losses(self._diverged)
        self._started = time.monotonic()

    @classmethod
    def from_experiment(
        cls,
        experiment: Experiment,
        folder: str | Path | None = None,
        device: torch.device | str | None = None,
        quiet: bool = True,
    ) -> Self:
        """A trainer with a fresh model, drawn from ``train.seed``, and the images that the experiment names.

        ``device`` replaces ``run.device``. Raises UserError, a ValueError, where a component cannot be built, or images
        are missing, broken or too small.
        """
        if not isinstance(experiment, Experiment):
            raise TypeError(f"experiment: expected a liif_core.Experiment, got {type(experiment).__name__}")
        images, validation = open_data(experiment)
        target = experiment.run.device if device is None else device
        return cls(fresh_model(experiment), experiment, images, validation, folder, target, quiet=quiet)

    @property
    def model(self) -> ContinuousModel:
        """The model in training."""
        return self._optimization.model

    @property
    def averaged(self) -> ContinuousModel | None:
        """The average of weights, where ``train.ema`` is set."""
        return self._optimization.averaged

    @property
    def eval_model(self) -> ContinuousModel:
        """The model that is validated and saved: ``averaged`` where there is one, else ``model``."""
        return self.averaged if self.averaged is not None else self.model

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of ``train.optimizer``."""
        return self._optimization.optimizer

    @property
    def scaler(self) -> torch.amp.GradScaler:
        """The scaler of gradients; it does something only where ``run.precision`` is "fp16"."""
        return self._optimization.scaler

    @property
    def finished(self) -> bool:
        """Whether all epochs of ``train.epochs`` are done."""
        return self.progress.epoch >= self.spec.epochs

    @property
    def seconds(self) -> float:
        """How long training has taken so far, over all interruptions."""
        return self.progress.seconds + time.monotonic() - self._started

    def run(self, resume: bool = False) -> Trained:
        """Train to the end; with ``resume``, from the last checkpoint in ``folder``, if there is one.

        Raises Interrupted after SIGINT, SIGTERM or SIGHUP, and UserError when the loss is no longer finite; in both
        cases there is a checkpoint to go on from. Raises UserError, too, where another process trains in ``folder``, an
        image can no longer be read, or a file cannot be written, and ValueError without a ``folder``.
        """
        self._started = time.monotonic()
        train(self, self._folder(), resume)
        return Trained(self.progress.step, self.progress.best, self.progress.best_step, self.seconds)

    def batches(self) -> Generator[dict[str, Any], None, None]:
        """The batches of the current epoch that are left, on ``device``. After the last, the next epoch begins.

        B = ``train.batch_size`` (the last batch of an epoch may be smaller), p = ``data.patch``, Q = ``data.queries``,
        c channels; values are float32, colors in [0, 1]:

        - ``image`` (B, c, p, p): low-resolution patches
        - ``coord`` (B, Q, 2): the centers (y, x) of high-resolution pixels, in [-1, 1]
        - ``cell`` (B, 1, 2): the size (height, width) of such a pixel, in the same units
        - ``target`` (B, Q, c): the colors of these pixels
        - ``index`` (B,) int64: the numbers of the samples
        - ``unlabelled`` (B, c, p, p), if ``train.teacher.crops`` says so: other patches, which only the teacher renders

        A batch counts as done once it is handed out, so call ``save`` after ``step``. Raises UserError for an image
        that can no longer be read.

        Of several processes each gets its own part, B then is the size of that, and ``share``, a number, says how much
        of the whole batch it is: 0 where there are fewer samples than processes, and the part only stands in for one.
        """
        at, spec = self.progress, self.spec
        stream = batches(self.dataset, spec.batch_size, at.epoch, at.batch, spec.workers, self.device, self.processes)
        try:
            for batch in stream:
                at.batch += 1
                yield batch
        finally:
            stream.close()
        at.epoch, at.batch = at.epoch + 1, 0

    def step(self, batch: Mapping[str, Any]) -> float:
        """One optimizer step; returns the loss: ``train.loss`` of colors, in the network's [-1, 1] space.

        ``batch`` has ``image``, ``coord``, ``cell`` and ``target`` as in ``batches``; other entries are ignored. The
        learning rate is that of ``train.schedule`` at ``progress.step``. With "fp16", a step whose gradients are not
        finite leaves the weights as they are, and halves the scale of gradients. Several processes must all call this,
        each with its part; the loss is that of the whole batch.

        Raises TypeError or ValueError for a batch of another form, and UserError for a loss that is not finite.
        """
        self.start_step(batch)
        return self.losses.read()[-1]

    def start_step(self, batch: Mapping[str, Any]) -> None:
        """``step`` without waiting for a GPU. ``losses.read()`` then returns the losses of the steps not yet read."""
        check_batch(batch, self.model.channels)
        tensors = {name: moved(batch[name], self.device) for name in (*INPUTS, *OTHERS) if name in batch}
        self._step({**tensors, "share": batch.get("share", 1 / self.processes.size)})
        self.progress.step += 1

    def validates(self, epoch: int) -> bool:
        """Whether ``run`` validates after ``epoch`` epochs: every so many, and after the last."""
        spec = self.experiment.validate
        if spec is None or self.validation is None:
            return False
        return epoch % spec.every == 0 or epoch == self.spec.epochs

    def validate(self, then: Callable[[Score], None] | None = None) -> Score:
        """Measure ``eval_model`` on the images of ``validate``, and save it as "best" if its PSNR is the highest.

        Calls ``then`` with the score, and after that writes ``folder``/pictures/validation.png; a warning says where
        that fails. Raises ValueError without validation images.
        """
        return validated(self, then)

    def save(self) -> None:
        """Write ``folder``/checkpoints/last.safetensors and, beside it, the state that ``resume`` reads.

        Raises ValueError without a ``folder``, and UserError, before anything is written, for weights that are not
        finite.
        """
        path = self._folder() / "checkpoints" / STATE
        if not self._optimization.is_finite():
            raise self._diverged(f"the weights are not finite after step {self.progress.step}")
        if not self.processes.first:
            return
        self.save_weights("last")
        progress = {**attrs.asdict(self.progress), "seconds": self.seconds}
        known = {"progress": progress, "images": self.images.fingerprint, "beside": self._beside}
        with writing(path):
            write_state(path, {**known, "processes": self.processes.size, **self._optimization.state()})

    def save_weights(self, name: str) -> None:
        """Write ``folder``/checkpoints/NAME.safetensors: the weights of ``eval_model`` and the experiment.
        Raises ValueError without a ``folder``.
        """
        if not self.processes.first:
            return
        experiment, at, scale = to_builtin(self.experiment), self.progress, self.experiment.data.scale
        checkpoint = Checkpoint(self.eval_model.state_dict(), experiment, scale, at.step, at.best, self.plugins)
        with writing(self._checkpoint(name)):
            save_checkpoint(self._checkpoint(name), checkpoint)

    def resume(self) -> bool:
        """Continue from what ``save`` last wrote to ``folder``; returns whether there was anything.

        Raises UserError for a state that is damaged, of another model or other images, or past ``train.epochs``.
        """
        path = self._folder() / "checkpoints" / STATE
        if not path.exists():
            return False  # interrupted before the first checkpoint: starting again gives the same result
        state = read_state(path, self.images.fingerprint, self._beside, self.experiment, self.per_epoch)
        try:
            self._optimization.restore(state)
        except Exception as error:  # torch does not document what it raises
            raise damaged(path, f"its weights are not those of this experiment's model: {reason(error)}") from None
        self.progress, self._started = state["progress"], time.monotonic()
        before, now = state.get("processes", 1), self.processes.size
        self.notes = [f"number of processes: {now}, before {before}"] if before != now else []
        return True

    @cached_property
    def _beside(self) -> dict[str, str]:
        teacher = self._optimization.teacher
        return beside(self.validation, None if teacher is None else teacher.model)

    def _folder(self) -> Path:
        if self.folder is None:
            raise ValueError("folder: this trainer has none; pass one to write checkpoints, a log and pictures to")
        return self.folder

    def _checkpoint(self, name: str) -> Path:
        return self._folder() / "checkpoints" / f"{name}.safetensors"

    def _step(self, batch: dict[str, Any]) -> None:
        """Updates the weights."""
        at, spec = self.progress, self.spec
        lr = spec.optimizer.lr * rate_factor(spec.schedule, at.step, self.per_epoch, spec.epochs)
        loss = self._optimization.gradients(batch, seed=(spec.seed * 1_000_003 + at.step) % 2**63)
        self.losses.add(loss, at, batch.get("index"))
        self._optimization.update(lr)

    def _diverged(self, what: str) -> UserError:
        if not self.processes.first:
            return UserError()  # all have the same loss and the same weights, and the first says so
        last = None if self.folder is None else self._checkpoint("last")
        kept = f"the last good checkpoint is {last}" if last and last.exists() else "there is no checkpoint yet"
        return UserError(f"train: {what}; {kept}. Try a smaller train.optimizer.lr, or train.clip")
