"""The validation of a training, which decides which weights are the best."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from liif_core.evaluation.evaluate import evaluate_set
from liif_core.evaluation.scores import Score

if TYPE_CHECKING:
    from liif_core.training.trainer import Trainer


def validated(trainer: "Trainer", then: Callable[[Score], None] | None) -> Score:
    """What ``Trainer.validate`` does: weights are saved before the picture is written."""
    spec, at = trainer.experiment.validate, trainer.progress
    if spec is None or trainer.validation is None:
        raise ValueError("validation: this trainer has no validation images, or its experiment no table 'validate'")

    def scored(scores: Sequence[Score]) -> None:
        if at.best is None or scores[0].psnr > at.best:
            at.best, at.best_step = scores[0].psnr, at.step
            if trainer.folder is not None:
                trainer.save_weights("best")
        if then is not None:
            then(scores[0])

    return evaluate_set(
        trainer.eval_model, trainer.validation, "validation", [spec.scale], spec.protocol, device=trainer.device,
        only_psnr=True, precision=trainer.experiment.run.precision, progress=False, before_picture=scored,
        processes=trainer.processes,
        picture=None if trainer.folder is None else trainer.folder / "pictures" / "validation.png",
    )[0]  # fmt: skip
