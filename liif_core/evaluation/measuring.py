"""What is measured of one prediction, and the score of a data set."""

from collections.abc import Callable, Iterator, Sequence, Set
from typing import Any

from attrs import frozen
from torch import Tensor

from liif_core.evaluation import metrics
from liif_core.evaluation.predicting import Timed
from liif_core.evaluation.scores import BESIDES_OF_BOTH, Score
from liif_core.sizes import Scale


@frozen
class Measured:
    """One image at one scale under one protocol."""

    psnr: float
    bicubic_psnr: float
    ssim: float | None
    bicubic_ssim: float | None
    lpips: float | None
    bicubic_lpips: float | None
    given: bool  # its LR image was; else it was made
    seconds: tuple[float, float]  # of encoding and decoding


def measure(
    made: Timed, baseline: Tensor, target: Tensor, protocol: str, scale: Scale, besides: Set[str], given: bool
) -> Measured:
    """A prediction and bicubic's image, both compared with the target; ``besides`` PSNR, by "ssim" and "lpips"."""

    def compared(measure: Callable[..., float], wanted: bool) -> Iterator[float | None]:
        for image in (made.image, baseline):
            yield measure(image, target, protocol, scale) if wanted else None

    ssim, bicubic_ssim = compared(metrics.ssim, "ssim" in besides)
    lpips, bicubic_lpips = compared(metrics.lpips, "lpips" in besides)
    return Measured(
        psnr=metrics.psnr(made.image, target, protocol, scale),
        bicubic_psnr=metrics.psnr(baseline, target, protocol, scale),
        ssim=ssim,
        bicubic_ssim=bicubic_ssim,
        lpips=lpips,
        bicubic_lpips=bicubic_lpips,
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

    extra: dict[str, Any] = {}
    for field in BESIDES_OF_BOTH:
        if all(getattr(result, field) is not None for result in measured):
            extra |= {field: mean(field), f"{field}_images": each(field)}
    return Score(
        dataset=name,
        protocol=protocol,
        scale=scale,
        psnr=mean("psnr"),
        images=each("psnr"),
        bicubic_psnr=mean("bicubic_psnr"),
        bicubic_images=each("bicubic_psnr"),
        given_low=sum(result.given for result in measured),
        seconds=each("seconds"),
        **extra,
    )
