"""An experiment, as typed objects: one sentence per field.

These classes are what ``toml_file`` reads from TOML and writes back. Nothing is built, opened or looked up
here. Every path is absolute by the time it is in one of them.
"""

from pathlib import Path
from typing import Literal

from attrs import frozen
from attrs.validators import and_, ge, gt, in_, le, lt, min_len, optional

from liif_core.presets import PROTOCOLS
from liif_core.registry.components import Choice, option
from liif_core.sizes import Scale

Precision = Literal["float32", "bf16", "fp16"]
_at_least_one = ge(1)
_not_negative = ge(0)
_a_part = optional(and_(ge(0), le(1)))


@frozen
class FolderSource:
    """``source = "folder"``: every image under a folder, at any depth."""

    path: Path = option("The folder with high-resolution images.")
    limit: int | None = option("Take only the first so many, in order of name.", None, check=optional(_at_least_one))


@frozen
class PairedFoldersSource:
    """``source = "paired-folders"``: HR images and the LR images that belong to them, by order of name."""

    hr: Path = option("The folder with high-resolution images.")
    lr: Path = option("The folder with low-resolution images: as many, in the same order.")
    limit: int | None = option("Take only the first so many pairs.", None, check=optional(_at_least_one))


@frozen
class SkimageSource:
    """``source = "skimage"``: photographs that come with scikit-image."""

    names: tuple[str, ...] = option("File names without ending, such as 'astronaut'.", check=min_len(1))


@frozen
class Div2kSource:
    """``source = "div2k"``: the DIV2K data set as its authors distribute it."""

    path: Path = option("The folder that holds DIV2K_train_HR, DIV2K_valid_HR, DIV2K_valid_LR_bicubic.")
    split: Literal["train", "valid"] = option("Images 0001-0800 to train, 0801-0900 to validate.")
    download: bool = option("Fetch what is missing from its official address (HR of train: 3.5 GB).", False)
    limit: int | None = option("Take only the first so many.", None, check=optional(_at_least_one))


@frozen
class BenchmarkSource:
    """``source = "benchmark"``: Set5, Set14, B100, Urban100 as they are usually laid out.

    Either HR/ beside LR_bicubic/X2, X3, ..., or HR/ beside LR/ (then for the one scale their sizes say).
    """

    path: Path = option("The folder that holds HR.")
    limit: int | None = option("Take only the first so many.", None, check=optional(_at_least_one))


Source = FolderSource | PairedFoldersSource | SkimageSource | Div2kSource | BenchmarkSource
SOURCES: dict[str, type] = {
    "folder": FolderSource,
    "paired-folders": PairedFoldersSource,
    "skimage": SkimageSource,
    "div2k": Div2kSource,
    "benchmark": BenchmarkSource,
}


@frozen
class CompositionSpec:
    """``[model]``: a model composed of an encoder, features, a sampling, conditionings and a decoder."""

    encoder: Choice = option("Image -> features.", kind="encoder")
    features: Choice = option("Features -> latent field.", kind="features")
    sampling: Choice = option("Query -> the codes it reads.", kind="sampling")
    decoder: Choice = option("Codes and conditions -> colors.", kind="decoder")
    conditioning: tuple[Choice, ...] = option("What the decoder is told of a query, by name.", (), kind="conditioning")
    residual: Literal["none", "bilinear", "nearest"] = option("What of the LR image is added to the output.", "none")
    channels: int = option("Channels of the images, 1 for gray, 3 for RGB.", 3, check=_at_least_one)


@frozen
class WholeModelSpec:
    """``[model] use = "..."``: a model that is no composition; its own options stand in the same table."""

    model: Choice = option("The model.", kind="model")
    channels: int = option("Channels of the images, 1 for gray, 3 for RGB.", 3, check=_at_least_one)


ModelSpec = CompositionSpec | WholeModelSpec


@frozen
class TrainingData:
    """``[data]``: what is trained on, and how samples are made of it (section 4 of the LIIF paper)."""

    images: Source = option("Where high-resolution images come from.")
    scale: tuple[float, float] = option("Scales are drawn uniformly between these two.", (1.0, 4.0))
    patch: int = option("Side of the low-resolution patches, in pixels.", 48, check=_at_least_one)
    queries: int = option("Pixels of each high-resolution crop that are queried.", 2304, check=_at_least_one)
    repeat: int = option("How often an epoch goes over the images.", 1, check=_at_least_one)
    degradation: Choice | None = option(
        "How low-resolution patches are made; without it, by Pillow's bicubic filter.", None, kind="degradation"
    )
    augment: bool = option("Flip and transpose at random.", True)
    memory_gb: float = option(
        "Hold up to so much of decoded uint8 images; read the rest when needed.", 4.0, check=_not_negative
    )

    def __attrs_post_init__(self) -> None:
        if self.degradation is not None and isinstance(self.images, PairedFoldersSource):
            raise ValueError(
                "degradation: paired folders bring their own low-resolution images; remove it, or use source = 'folder'"
            )
        low, high = self.scale
        if not 1 <= low <= high:
            raise ValueError(f"scale: expected 1 <= low <= high, got {list(self.scale)}")
        if self.queries > round(self.patch * low) ** 2:
            raise ValueError(
                f"queries: {self.queries} are more than the pixels of the smallest crop, "
                f"{round(self.patch * low)} x {round(self.patch * low)}; ask for fewer, or a larger patch"
            )


@frozen
class Optimizer:
    """``[train.optimizer]``."""

    use: Literal["adam", "adamw"] = option("Which.", "adam")
    lr: float = option("Learning rate.", 1e-4, check=gt(0))
    betas: tuple[float, float] = option("Decay of the two running means.", (0.9, 0.999))
    weight_decay: float = option("Weight decay.", 0.0, check=_not_negative)


@frozen
class MultiStep:
    """``[train.schedule] use = "multi-step"``: the rate is multiplied by ``gamma`` at each milestone."""

    milestones: tuple[int, ...] = option("Epochs after which the rate drops.")
    gamma: float = option("Factor that the learning rate is multiplied by at each milestone.", 0.5, check=gt(0))
    warmup_steps: int = option("Steps over which the rate rises first.", 0, check=_not_negative)
    warmup_from: float | None = option("What it rises from, if not 0, as a part of the rate.", None, check=_a_part)


@frozen
class Cosine:
    """``[train.schedule] use = "cosine"``: the rate falls along half a cosine, over all steps."""

    final: float = option("What it ends at, as a part of the first rate.", 0.0, check=and_(ge(0), le(1)))
    warmup_steps: int = option("Steps over which the rate rises first.", 0, check=_not_negative)
    warmup_from: float | None = option("What it rises from, if not 0, as a part of the rate.", None, check=_a_part)


@frozen
class Constant:
    """``[train.schedule] use = "constant"``."""

    warmup_steps: int = option("Steps over which the rate rises first.", 0, check=_not_negative)
    warmup_from: float | None = option("What it rises from, if not 0, as a part of the rate.", None, check=_a_part)


Schedule = MultiStep | Cosine | Constant
SCHEDULES: dict[str, type] = {"multi-step": MultiStep, "cosine": Cosine, "constant": Constant}


@frozen
class TrainSpec:
    """``[train]``."""

    epochs: int = option("How many.", check=_at_least_one)
    batch_size: int = option("Number of crops in each optimizer step.", 16, check=_at_least_one)
    optimizer: Optimizer = option("The optimizer.", Optimizer())
    schedule: Schedule = option("How its rate changes.", Constant())
    seed: int = option("Every random draw derives from it.", 0, check=_not_negative)
    ema: float | None = option(
        "Decay of an average of the weights, which is then what is evaluated.", None, check=optional(and_(gt(0), lt(1)))
    )
    clip: float | None = option("Largest gradient norm.", None, check=optional(gt(0)))
    accumulate: int = option("Parts a batch is computed in, to save memory.", 1, check=_at_least_one)
    workers: int = option("Processes that load data; 0: this one.", 0, check=_not_negative)
    checkpoint_every: int = option("Epochs between checkpoints of 'last'.", 1, check=_at_least_one)
    keep_every: int | None = option("Also keep every so many epochs' checkpoint.", None, check=optional(_at_least_one))

    def __attrs_post_init__(self) -> None:
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate: batch_size ({self.batch_size}) must be a multiple of it, got {self.accumulate}"
            )


@frozen
class ValidateSpec:
    """``[validate]``: what decides which checkpoint is best."""

    images: Source = option("Images that are not trained on.")
    scale: Scale = option("The scale.", Scale(4.0, 4.0))
    protocol: str = option("How PSNR is taken: benchmark, div2k or rgb.", "rgb", check=in_(PROTOCOLS))
    every: int = option("Epochs between validations.", 1, check=_at_least_one)


@frozen
class EvaluationSet:
    """One ``[[evaluate]]`` table."""

    name: str = option("What the report calls it.", check=min_len(1))
    images: Source = option("The images.")
    scales: tuple[Scale, ...] = option("Numbers, or [vertical, horizontal] pairs.", check=min_len(1))
    protocol: str = option("How PSNR is taken: benchmark, div2k or rgb.", "benchmark", check=in_(PROTOCOLS))
    ssim: bool = option("Report SSIM too.", False)


@frozen
class RunSpec:
    """``[run]``: where it runs; no effect on what is computed beyond rounding."""

    device: str = option("auto, cpu, cuda, cuda:1, mps.", "auto")
    precision: Precision = option("Of matrix products and convolutions; half precision needs a GPU.", "float32")
    deterministic: bool = option("Only operations that repeat exactly, for resuming bit by bit on a GPU.", True)


@frozen
class Experiment:
    """A whole experiment file, resolved."""

    name: str = option("A name for reports.")
    model: ModelSpec = option("The composition.")
    data: TrainingData = option("What it is trained on.")
    train: TrainSpec = option("How it is trained.")
    validate: ValidateSpec | None = option("How the best checkpoint is chosen; without it, the last is best.", None)
    evaluate: tuple[EvaluationSet, ...] = option("What it is measured on afterwards.", ())
    run: RunSpec = option("Where it runs.", RunSpec())
    profile: str = option("The profile that was applied; empty for the file as it stands.", "")
    note: str = option("A sentence that is put on the report.", "")
