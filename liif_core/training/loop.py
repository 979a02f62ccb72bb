"""The training loop of ``Trainer.run``: epochs, validation, checkpoints, the log, and a stop on request."""

import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from torch import Tensor

from liif_core.data.loading import batch_length
from liif_core.errors import Interrupted, UserError
from liif_core.evaluation.scores import Score
from liif_core.training.interruption import StopRequest, repeatable, stop_on_signals
from liif_core.training.lock import hold
from liif_core.training.log import TrainingLog
from liif_core.training.progress_bar import Shown, say, shown

if TYPE_CHECKING:
    from liif_core.training.trainer import Trainer


def train(trainer: "Trainer", folder: Path, resume: bool) -> None:
    """All epochs that are left, with their log in ``folder``. Raises as ``Trainer.run`` does."""
    deterministic = trainer.experiment.run.deterministic and trainer.device.type == "cuda"
    writes = trainer.processes.first
    with hold(folder) if writes else nullcontext(), repeatable(deterministic), stop_on_signals() as stop:
        if resume:
            resume_together(trainer)
        with TrainingLog(folder, trainer.progress.step) if writes else nullcontext() as log, shown(trainer) as bar:
            for note in [] if trainer.quiet or log is None else log.notes:
                say(note)
            while not trainer.finished:
                _epoch(trainer, log, stop, bar)
        if trainer.progress.best is None:  # nothing was validated: the last weights count as the best
            trainer.save_weights("best")


def resume_together(trainer: "Trainer") -> None:
    """``Trainer.resume`` on all processes. Raises UserError, too, where they do not find the same state."""
    trainer.processes.each(trainer.resume)
    trainer.processes.agree({f"steps of the run in {trainer.folder}": trainer.progress.step})


def _epoch(trainer: "Trainer", log: TrainingLog | None, stop: StopRequest, bar: Shown) -> None:
    at, spec = trainer.progress, trainer.spec
    epoch, every = at.epoch, max(1, trainer.per_epoch // 10)
    bar.set_description(f"epoch {epoch + 1}/{spec.epochs}", refresh=False)
    stream = trainer.batches()
    since, images = time.monotonic(), 0
    try:
        for batch in _loaded(trainer, stream, stop):
            trainer.start_step(batch)
            images += batch_length(trainer.dataset, spec.batch_size, at.batch - 1)
            bar.update()
            if at.batch % every == 0 or at.batch == trainer.per_epoch:
                losses = trainer.losses.read()
                loss, now = sum(losses) / len(losses), time.monotonic()
                speed, since, images = images / max(now - since, 1e-9), now, 0
                rate = trainer.optimizer.param_groups[0]["lr"]
                with _saved_first(trainer):
                    if log is not None:
                        log.add(at.step, epoch, loss=loss, rate=rate, images_per_second=round(speed, 2))
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            _stop_if_asked(trainer, stop)
    finally:
        stream.close()
    done = epoch + 1

    def keep(score: Score | None = None) -> None:
        """Weights before pictures: a picture can be made again."""
        if score is not None and log is not None:
            with _saved_first(trainer):
                log.add(at.step, epoch, psnr=score.psnr, bicubic_psnr=score.bicubic_psnr)
        if done % spec.checkpoint_every == 0 or trainer.finished:
            trainer.save()
        if spec.keep_every and done % spec.keep_every == 0:
            trainer.save_weights(f"epoch-{done}")

    if trainer.validates(done):
        score = trainer.validate(keep)
        if log is not None:
            log.draw()
        if not trainer.quiet:
            found = f"{score.psnr:.2f} dB at {score.scale} (bicubic {score.bicubic_psnr:.2f} dB)"
            say(f"epoch {done}: validation {found}")
    else:
        keep()
    _stop_if_asked(trainer, stop)


@contextmanager
def _saved_first(trainer: "Trainer") -> Iterator[None]:
    """What fails beside the training itself costs no steps: the weights are saved before the run ends."""
    try:
        yield
    except UserError:
        with suppress(UserError):
            trainer.save()
        raise


def _loaded(trainer: "Trainer", stream: Iterable[dict[str, Tensor]], stop: StopRequest) -> Iterator[dict[str, Tensor]]:
    with _saved_first(trainer):
        try:
            yield from stream
        except UserError:
            if stop.number:  # SIGTERM for a whole group of processes ends those that load data, too
                _stop(trainer, stop.number)
            raise


def _stop_if_asked(trainer: "Trainer", stop: StopRequest) -> None:
    number = trainer.processes.largest(stop.number)  # so that all stop after the same step
    if number:
        _stop(trainer, number)


def _stop(trainer: "Trainer", number: int) -> NoReturn:
    trainer.save()
    name, step = signal.Signals(number).name, trainer.progress.step
    raise Interrupted(f"stopped by {name} after step {step}; go on with --resume")
