"""What is measured of one prediction, and the score of a data set."""

from collections.abc import Sequence, Set
from typing import Any

from attrs import frozen
from torch import Tensor

from liif_core.evaluation import metrics
from liif_core.evaluation.scores import BESIDES, Score
from liif_core.sizes import Scale


@frozen
class Likeness:
    """How near an image is to its target; None where that is not measured."""

    psnr: float
    ssim: float | None
    lpips: float | None


@frozen
class Measured:
    """One image at one scale under one protocol."""

    model: Likeness
    bicubic: Likeness
    given: bool  # its LR image was; else it was made
    seconds: tuple[float, float]  # of encoding and decoding


def likeness(image: Tensor, target: Tensor, protocol: str, scale: Scale, besides: Set[str]) -> Likeness:
    """Of an image: its PSNR, and ``besides`` "ssim" and "lpips" if they are named."""
    compared = image, target, protocol, scale
    return Likeness(
        psnr=metrics.psnr(*compared),
        ssim=metrics.ssim(*compared) if "ssim" in besides else None,
        lpips=metrics.lpips(*compared) if "lpips" in besides else None,
    )


def score_of(name: str, protocol: str, scale: Scale, names: Sequence[str], measured: Sequence[Measured]) -> Score:
    """The means over the images of a data set, and the numbers of each image by its name."""

    def each(whose: str, measure: str) -> dict[str, Any]:
        return {image: getattr(getattr(one, whose), measure) for image, one in zip(names, measured)}

    def mean(values: dict[str, float]) -> float:
        return sum(values.values()) / len(values)

    extra: dict[str, Any] = {}
    for measure in BESIDES:
        for whose, prefix in (("model", ""), ("bicubic", "bicubic_")):
            values = each(whose, measure)
            if None not in values.values():
                extra |= {f"{prefix}{measure}": mean(values), f"{prefix}{measure}_images": values}
    psnr, bicubic_psnr = each("model", "psnr"), each("bicubic", "psnr")
    return Score(
        dataset=name,
        protocol=protocol,
        scale=scale,
        psnr=mean(psnr),
        images=psnr,
        bicubic_psnr=mean(bicubic_psnr),
        bicubic_images=bicubic_psnr,
        given_low=sum(one.given for one in measured),
        seconds={image: one.seconds for image, one in zip(names, measured)},
        **extra,
    )
