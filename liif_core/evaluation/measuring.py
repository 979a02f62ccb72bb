"""What is measured of one prediction, and the score of a data set."""

from collections.abc import Sequence
from typing import Any

from attrs import frozen
from torch import Tensor

from liif_core.evaluation import metrics
from liif_core.evaluation.predicting import Timed
from liif_core.evaluation.scores import Score
from liif_core.sizes import Scale


@frozen
class Measured:
    """One image at one scale under one protocol."""

    psnr: float
    bicubic_psnr: float
    ssim: float | None
    bicubic_ssim: float | None
    given: bool  # its LR image was; else it was made
    seconds: tuple[float, float]  # of encoding and decoding


def measure(
    made: Timed, baseline: Tensor, target: Tensor, protocol: str, scale: Scale, ssim: bool, given: bool
) -> Measured:
    """A prediction and bicubic's image, both compared with the target."""
    return Measured(
        psnr=metrics.psnr(made.image, target, protocol, scale),
        bicubic_psnr=metrics.psnr(baseline, target, protocol, scale),
        ssim=metrics.ssim(made.image, target, protocol, scale) if ssim else None,
        bicubic_ssim=metrics.ssim(baseline, target, protocol, scale) if ssim else None,
        given=given,
        seconds=(made.encode, made.decode),
    )


def score_of(name: str, protocol: str, scale: Scale, names: Sequence[str], measured: Sequence[Measured]) -> Score:
    """The means over the images of a data set, and the numbers of each image by its name."""

    def mean(field: str) -> float:
        values = [float(getattr(result, field)) for result in measured]
        return sum(values) / len(values)

    def each(field: str) -> dict[str, Any]:
        return {image: getattr(result, field) for image, result in zip(names, measured)}

    has_ssim = all(result.ssim is not None for result in measured)
    return Score(
        dataset=name,
        protocol=protocol,
        scale=scale,
        psnr=mean("psnr"),
        images=each("psnr"),
        bicubic_psnr=mean("bicubic_psnr"),
        bicubic_images=each("bicubic_psnr"),
        ssim=mean("ssim") if has_ssim else None,
        bicubic_ssim=mean("bicubic_ssim") if has_ssim else None,
        given_low=sum(result.given for result in measured),
        ssim_images=each("ssim") if has_ssim else {},
        bicubic_ssim_images=each("bicubic_ssim") if has_ssim else {},
        seconds=each("seconds"),
    )
