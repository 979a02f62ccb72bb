"""An experiment, as typed objects: one sentence per field.

These classes are what ``toml_file`` reads from TOML and writes back. Nothing is built, opened or looked up
here. Every path is absolute by the time it is in one of them.
"""

from pathlib import Path
from typing import Literal

from attrs import frozen
from attrs.validators import and_, ge, in_, le, min_len, optional

from liif_core.experiment.train_schema import SCHEDULES as SCHEDULES
from liif_core.experiment.train_schema import Constant as Constant
from liif_core.experiment.train_schema import Cosine as Cosine
from liif_core.experiment.train_schema import MultiStep as MultiStep
from liif_core.experiment.train_schema import Optimizer as Optimizer
from liif_core.experiment.train_schema import Schedule as Schedule
from liif_core.experiment.train_schema import StartSpec as StartSpec
from liif_core.experiment.train_schema import TeacherSpec as TeacherSpec
from liif_core.experiment.train_schema import TrainSpec as TrainSpec
from liif_core.presets import PROTOCOLS
from liif_core.registry.components import Choice, option
from liif_core.sizes import Scale

Precision = Literal["float32", "bf16", "fp16"]
_at_least_one = ge(1)
_not_negative = ge(0)


@frozen
class FolderSource:
    """``source = "folder"``: every image under a folder, at any depth."""

    path: Path = option("The folder with high-resolution images.")
    limit: int | None = option(
        "Largest number of images, taken in order of name; without it, all.", None, check=optional(_at_least_one)
    )


@frozen
class PairedFoldersSource:
    """``source = "paired-folders"``: HR images and the LR images that belong to them, by order of name."""

    hr: Path = option("The folder with high-resolution images.")
    lr: Path = option("The folder with low-resolution images: as many, and in the same order of name.")
    limit: int | None = option(
        "Largest number of pairs, taken in order of name; without it, all.", None, check=optional(_at_least_one)
    )


@frozen
class SkimageSource:
    """``source = "skimage"``: photographs that come with scikit-image."""

    names: tuple[str, ...] = option("File names without ending, such as 'astronaut'.", check=min_len(1))


@frozen
class Div2kSource:
    """``source = "div2k"``: the DIV2K data set as its authors distribute it."""

    path: Path = option("The folder that holds DIV2K_train_HR, DIV2K_valid_HR, DIV2K_valid_LR_bicubic.")
    split: Literal["train", "valid"] = option("Images 0001-0800 are 'train', images 0801-0900 are 'valid'.")
    download: bool = option(
        "Download missing files from the official address (3.5 GB for the HR images of 'train').", False
    )
    limit: int | None = option(
        "Largest number of images, taken in order of name; without it, all.", None, check=optional(_at_least_one)
    )


@frozen
class BenchmarkSource:
    """``source = "benchmark"``: Set5, Set14, B100, Urban100 as they are usually laid out.

    Either HR/ beside LR_bicubic/X2, X3, ..., or HR/ beside LR/, for the one scale that their sizes give.
    """

    path: Path = option("The folder that holds HR.")
    limit: int | None = option(
        "Largest number of images, taken in order of name; without it, all.", None, check=optional(_at_least_one)
    )


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

    encoder: Choice = option("The encoder: makes features of an image.", kind="encoder")
    features: Choice = option("The features component: makes a latent field of the encoder's output.", kind="features")
    sampling: Choice = option("The sampling: which latent codes a query reads.", kind="sampling")
    decoder: Choice = option("The decoder: makes colors of latent codes and conditions.", kind="decoder")
    conditioning: tuple[Choice, ...] = option(
        "The conditionings: what the decoder receives about a query besides latent codes.", (), kind="conditioning"
    )
    residual: Literal["none", "bilinear", "nearest"] = option(
        "The upsampled low-resolution image that is added to the output.", "none"
    )
    channels: int = option("Number of channels of the images: 1 for gray, 3 for RGB.", 3, check=_at_least_one)
    input_mean: tuple[float, ...] | None = option(
        "What is subtracted from images in [0, 1] before the encoder: a number for each channel, or one; without it, "
        "0.5.",
        None,
    )
    input_std: tuple[float, ...] | None = option(
        "What images are divided by after that: a number for each channel, or one; without it, 0.5.", None
    )

    def __attrs_post_init__(self) -> None:
        for name in ("input_mean", "input_std"):
            values = getattr(self, name)
            if values is not None and len(values) not in (1, self.channels):
                raise ValueError(f"{name}: expected one number or {self.channels}, got {len(values)}")
        if self.input_std is not None and min(self.input_std) <= 0:
            raise ValueError(f"input_std: expected numbers above 0, got {list(self.input_std)}")


@frozen
class WholeModelSpec:
    """``[model] use = "..."``: a model that is no composition; its own options stand in the same table."""

    model: Choice = option("The model and its options.", kind="model")
    channels: int = option("Number of channels of the images: 1 for gray, 3 for RGB.", 3, check=_at_least_one)


ModelSpec = CompositionSpec | WholeModelSpec


@frozen
class TrainingData:
    """``[data]``: the training images, and how patches are made of them (section 4 of the LIIF paper)."""

    images: Source = option("Source of the high-resolution training images.")
    scale: tuple[float, float] = option(
        "Lowest and highest training scale; scales are drawn uniformly between them.", (1.0, 4.0)
    )
    patch: int = option("Side length of the low-resolution patches, in pixels.", 48, check=_at_least_one)
    queries: int = option("Number of pixels of each high-resolution crop that are queried.", 2304, check=_at_least_one)
    repeat_queries: bool = option(
        "Query pixels more than once in crops that have fewer pixels than `queries`, each of them about equally often.",
        False,
    )
    repeat: int = option("Number of times that an epoch goes over the images.", 1, check=and_(ge(1), le(10**6)))
    degradation: Choice | None = option(
        "The degradation that makes low-resolution patches; without it, Pillow's bicubic filter.",
        None,
        kind="degradation",
    )
    augment: bool = option("Flip and transpose patches at random.", True)
    channel_shuffle: bool = option("Permute the channels of each patch at random.", False)
    pre_shrink: float = option(
        "Largest factor by which a larger crop is shrunk to make a high-resolution crop; half of the crops are shrunk, "
        "each by a random factor, as far as the image is large enough. 1: none.",
        1.0,
        check=_at_least_one,
    )
    vary_sizes: bool = option(
        "Of paired folders, shrink each HR image to a size of its own: the pairs, in their order, have scales spread "
        "evenly over `scale`.",
        False,
    )
    skip_bad: bool = option(
        "Leave out training images that are broken, too small or of another kind, and say which; otherwise they are "
        "an error.",
        False,
    )
    memory_gb: float = option(
        "Memory for decoded images, in GB; images beyond it are read again when they are needed.",
        4.0,
        check=_not_negative,
    )
    cache: Path | None = option(
        "Folder for a file of decoded images, which processes on one machine share and later runs use again, instead "
        "of memory_gb.",
        None,
    )

    def __attrs_post_init__(self) -> None:
        if self.degradation is not None and isinstance(self.images, PairedFoldersSource):
            raise ValueError(
                "degradation: paired folders bring their own low-resolution images; remove it, or use source = 'folder'"
            )
        if self.pre_shrink > 1 and isinstance(self.images, PairedFoldersSource):
            raise ValueError(
                "pre_shrink: paired folders bring their own low-resolution images; remove it, or use source = 'folder'"
            )
        if self.vary_sizes and not isinstance(self.images, PairedFoldersSource):
            raise ValueError("vary_sizes: expected pairs, whose HR images it shrinks; use source = 'paired-folders'")
        low, high = self.scale
        if not 1 <= low <= high:
            raise ValueError(f"scale: expected 1 <= low <= high, got {list(self.scale)}")
        name, largest = ("largest", high) if self.repeat_queries else ("smallest", low)
        side = round(self.patch * largest)
        if self.queries > side**2:
            remedy = "" if self.repeat_queries else ", or repeat_queries = true"
            raise ValueError(
                f"queries: {self.queries} are more than the pixels of the {name} crop, {side} x {side}; "
                f"use fewer queries, or a larger patch{remedy}"
            )


@frozen
class ValidateSpec:
    """``[validate]``: what decides which checkpoint is best."""

    images: Source = option("Source of the validation images, which are not trained on.")
    scale: Scale = option("Scale at which the validation images are rendered.", Scale(4.0, 4.0))
    protocol: str = option("Evaluation protocol, such as benchmark, div2k or rgb.", "rgb", check=in_(tuple(PROTOCOLS)))
    every: int = option("Number of epochs between validations.", 1, check=_at_least_one)


@frozen
class EvaluationSet:
    """One ``[[evaluate]]`` table."""

    name: str = option("Name of the data set in reports.", check=min_len(1))
    images: Source = option("Source of the images.")
    scales: tuple[Scale, ...] = option(
        "Scales to evaluate: numbers, or [vertical, horizontal] pairs.", check=min_len(1)
    )
    protocol: str = option(
        "Evaluation protocol, such as benchmark, div2k or rgb.", "benchmark", check=in_(tuple(PROTOCOLS))
    )
    ssim: bool = option("Whether to report SSIM too; needs scikit-image.", False)


@frozen
class RunSpec:
    """``[run]``: the device and the precision; they change results by rounding only."""

    device: str = option("Device: auto, cpu, cuda, cuda:N or mps.", "auto")
    precision: Precision = option(
        "Precision of matrix products and convolutions; bf16 needs a GPU or a CPU that has it, fp16 a GPU.", "float32"
    )
    deterministic: bool = option(
        "Whether to use only operations that repeat exactly, so that resumed runs match bit for bit on a GPU.", True
    )


@frozen
class Experiment:
    """An experiment file with its profile and overrides applied."""

    name: str = option("Name of the experiment, for reports.")
    model: ModelSpec = option("The model.")
    data: TrainingData = option("The training data.")
    train: TrainSpec = option("The training.")
    validate: ValidateSpec | None = option(
        "The validation that chooses the best checkpoint; without it, the last one is the best.", None
    )
    evaluate: tuple[EvaluationSet, ...] = option("Data sets that the trained model is evaluated on.", ())
    run: RunSpec = option("Device and precision.", RunSpec())
    profile: str = option("Name of the profile that was applied; empty without one.", "")
    note: str = option("A sentence to print at the top of the report.", "")
