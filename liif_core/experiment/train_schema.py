"""The ``[train]`` table of an experiment: optimizer, schedule, and when checkpoints are written."""

from pathlib import Path
from typing import Any, Literal

from attrs import frozen
from attrs.validators import and_, ge, gt, le, lt, optional

from liif_core.registry.components import option

_at_least_one = ge(1)
_not_negative = ge(0)
_a_part = optional(and_(ge(0), le(1)))


def _warmup_steps() -> Any:
    return option("Number of steps at the start over which the learning rate rises.", 0, check=_not_negative)


def _warmup_from() -> Any:
    return option("Learning rate that it rises from, as a fraction of ``lr``; without it, 0.", None, check=_a_part)


@frozen
class Optimizer:
    """``[train.optimizer]``: the optimizer and its settings."""

    use: Literal["adam", "adamw", "muon"] = option(
        "Optimizer; 'muon' is Muon for the weights of hidden layers and AdamW for the others.", "adam"
    )
    lr: float = option("Learning rate.", 1e-4, check=gt(0))
    other_lr: float | None = option(
        "With 'muon', the learning rate of what AdamW trains; without it, ``lr``.", None, check=optional(gt(0))
    )
    betas: tuple[float, float] = option(
        "Decay rates of the running means of the gradient and of its square.", (0.9, 0.999)
    )
    weight_decay: float = option("Weight decay.", 0.0, check=_not_negative)

    def __attrs_post_init__(self) -> None:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas: expected two numbers of at least 0 and below 1, got {list(self.betas)}")
        if self.other_lr is not None and self.use != "muon":
            raise ValueError(f"other_lr: has no effect with use = {self.use!r}; remove it")


@frozen
class MultiStep:
    """``[train.schedule] use = "multi-step"``: the learning rate is multiplied by ``gamma`` at each milestone."""

    milestones: tuple[int, ...] = option("Numbers of epochs after which the learning rate drops.")
    gamma: float = option("Factor that the learning rate is multiplied by at each milestone.", 0.5, check=gt(0))
    warmup_steps: int = _warmup_steps()
    warmup_from: float | None = _warmup_from()

    def __attrs_post_init__(self) -> None:
        if any(milestone < 0 for milestone in self.milestones):
            raise ValueError(f"milestones: expected numbers of epochs, 0 or more, got {list(self.milestones)}")


@frozen
class Cosine:
    """``[train.schedule] use = "cosine"``: the learning rate falls along half a cosine, over all steps."""

    final: float = option("Learning rate at the end, as a fraction of ``lr``.", 0.0, check=and_(ge(0), le(1)))
    warmup_steps: int = _warmup_steps()
    warmup_from: float | None = _warmup_from()


@frozen
class Constant:
    """``[train.schedule] use = "constant"``: the learning rate stays the same after the warm-up."""

    warmup_steps: int = _warmup_steps()
    warmup_from: float | None = _warmup_from()


Schedule = MultiStep | Cosine | Constant
SCHEDULES: dict[str, type] = {"multi-step": MultiStep, "cosine": Cosine, "constant": Constant}


@frozen
class TrainedModelSpec:
    """A trained model: a checkpoint file, or a name."""

    checkpoint: Path | None = option("Checkpoint file.", None)
    model: str | None = option("Name, in place of a file: a model that 'liif models' lists.", None)

    def __attrs_post_init__(self) -> None:
        if (self.checkpoint is None) == (self.model is None):
            raise ValueError("expected either checkpoint, a file, or model, a name")

    @property
    def source(self) -> Path | str:
        """The file or the name, as ``liif_core.load`` takes it."""
        found = self.model if self.checkpoint is None else self.checkpoint
        assert found is not None  # checked above
        return found


@frozen
class TeacherSpec(TrainedModelSpec):
    """``[train.teacher]``: a trained model whose colors the model also learns from (knowledge distillation)."""

    weight: float = option(
        "Weight of the distance to the teacher's colors in the loss; the rest is that of the distance to the image.",
        0.5,
        check=and_(gt(0), le(1)),
    )
    self_ensemble: bool = option(
        "Whether the teacher's colors are the mean over the eight flips and transposes of the image.", False
    )
    crops: Literal["same", "unlabelled"] = option(
        "Patches from which the model learns the teacher's colors: 'same', those from which it learns the image; or "
        "'unlabelled', patches cut from the images as they are, of which no larger version exists.",
        "same",
    )


@frozen
class StartSpec(TrainedModelSpec):
    """``[train.start_from]``: a trained model whose weights the model begins with."""

    allow_new: bool = option(
        "Whether parameters for which it has no weights keep their fresh values, and weights without a place in the "
        "model are left out; otherwise both are errors.",
        False,
    )


@frozen
class TrainSpec:
    """``[train]``: the optimization, and when checkpoints are written."""

    epochs: int = option("Number of training epochs.", check=and_(ge(1), le(10**9)))
    batch_size: int = option("Number of crops in each optimizer step.", 16, check=and_(ge(1), le(10**6)))
    loss: Literal["l1", "l2", "psnr", "none"] = option(
        "Distance between colors that is minimized: 'l1', the mean absolute error; 'l2', the mean squared error; "
        "'psnr', minus the mean of the PSNR of each crop, in dB, in which each crop has the same weight; or 'none', to "
        "train with own_loss alone.",
        "l1",
    )
    own_loss: float = option(
        "Factor of the model's own training objective, which is added to the loss; only for models that have one.",
        0.0,
        check=_not_negative,
    )
    optimizer: Optimizer = option("The optimizer.", Optimizer())
    schedule: Schedule = option("The learning-rate schedule.", Constant())
    seed: int = option("Random seed; every random draw of a run derives from it.", 0, check=and_(ge(0), le(2**63 - 1)))
    ema: float | None = option(
        "Decay rate of a moving average of the weights, which is then validated and saved.",
        None,
        check=optional(and_(gt(0), lt(1))),
    )
    clip: float | None = option(
        "Largest norm of the gradient; larger gradients are scaled down to it.", None, check=optional(gt(0))
    )
    start_from: StartSpec | None = option(
        "The trained model whose weights training begins with; without it, fresh weights.", None
    )
    teacher: TeacherSpec | None = option("The teacher; without it, there is none.", None)
    accumulate: int = option("Number of parts that each batch is computed in, to save memory.", 1, check=_at_least_one)
    workers: int = option(
        "Number of processes that load data; 0 loads in the main process.", 0, check=and_(ge(0), le(1024))
    )
    checkpoint_every: int = option("Number of epochs between writes of the checkpoint 'last'.", 1, check=_at_least_one)
    keep_every: int | None = option(
        "Number of epochs between checkpoints that are kept; without it, only 'last' and 'best' are.",
        None,
        check=optional(_at_least_one),
    )

    def __attrs_post_init__(self) -> None:
        if self.loss == "none" and not self.own_loss:
            raise ValueError("loss: 'none' leaves nothing to minimize; set own_loss, for a model that has one")
        if self.loss == "none" and self.teacher is not None:
            raise ValueError("loss: 'none' has no distance to a teacher's colors; choose another, or leave teacher out")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate: batch_size ({self.batch_size}) must be a multiple of it, got {self.accumulate}"
            )

    @property
    def learns_unlabelled(self) -> bool:
        """Whether batches have patches of which only the teacher knows the colors."""
        return self.teacher is not None and self.teacher.crops == "unlabelled"
