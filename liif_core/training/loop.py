"""The training loop of ``Trainer.run``: epochs, validation, checkpoints, the log, and a stop on request."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from liif_core.errors import Interrupted
from liif_core.training.interruption import StopRequest, repeatable, stop_on_signals
from liif_core.training.log import TrainingLog

if TYPE_CHECKING:
    from liif_core.training.trainer import Trainer


def train(trainer: "Trainer", folder: Path) -> None:
    """All epochs that are left, with their log in ``folder``. Raises as ``Trainer.run`` does."""
    deterministic = trainer.experiment.run.deterministic and trainer.device.type == "cuda"
    with (
        repeatable(deterministic),
        stop_on_signals() as stop,
        TrainingLog(folder, trainer.progress.step) as log,
        _bar(trainer) as bar,
    ):
        for note in [] if trainer.quiet else log.notes:
            tqdm.write(note)
        while not trainer.finished:
            _epoch(trainer, log, stop, bar)


@contextmanager
def _bar(trainer: "Trainer") -> Iterator["tqdm[Any]"]:
    with tqdm(
        total=trainer.spec.epochs * trainer.per_epoch,
        initial=trainer.progress.step,
        unit="step",
        dynamic_ncols=True,
        disable=trainer.quiet,
        mininterval=0.2 if sys.stderr.isatty() else 20,  # a log file wants few lines
    ) as bar:
        yield bar


def _epoch(trainer: "Trainer", log: TrainingLog, stop: StopRequest, bar: "tqdm[Any]") -> None:
    at, spec = trainer.progress, trainer.spec
    epoch, every = at.epoch, max(1, trainer.per_epoch // 10)
    bar.set_description(f"epoch {epoch + 1}/{spec.epochs}", refresh=False)
    stream = trainer.batches()
    try:
        for batch in stream:
            trainer.start_step(batch)
            bar.update()
            if at.batch % every == 0 or at.batch == trainer.per_epoch:
                losses = trainer.losses.read()
                loss = sum(losses) / len(losses)
                log.add(at.step, epoch, loss=loss, rate=trainer.optimizer.param_groups[0]["lr"])
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            _stop_if_asked(trainer, stop)
    finally:
        stream.close()
    done = epoch + 1
    if trainer.validates(done):
        score = trainer.validate()
        log.add(at.step, epoch, psnr=score.psnr, bicubic_psnr=score.bicubic_psnr)
        log.draw()
        if not trainer.quiet:
            found = f"{score.psnr:.2f} dB at {score.scale} (bicubic {score.bicubic_psnr:.2f} dB)"
            tqdm.write(f"epoch {done}: validation {found}")
    if done % spec.checkpoint_every == 0 or trainer.finished:
        trainer.save()
    if spec.keep_every and done % spec.keep_every == 0:
        trainer.save_weights(f"epoch-{done}")
    _stop_if_asked(trainer, stop)


def _stop_if_asked(trainer: "Trainer", stop: StopRequest) -> None:
    if stop.signal:
        trainer.save()
        raise Interrupted(f"stopped by {stop.signal} after step {trainer.progress.step}; go on with --resume")
