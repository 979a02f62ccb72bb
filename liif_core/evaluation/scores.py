"""The scores of an evaluation: PSNR and more of a data set at a scale under a protocol, as values, JSON and CSV."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import field, frozen

from liif_core.sizes import Scale

BESIDES = ("ssim", "lpips")  # what may be measured besides PSNR; of the first more is better, of the second less
BESIDES_OF_BOTH = tuple(f"{prefix}{name}" for name in BESIDES for prefix in ("", "bicubic_"))


@frozen
class Score:
    """One dataset at one scale. PSNR in dB, math.inf where images are equal; means are over images."""

    dataset: str
    protocol: str
    scale: Scale
    psnr: float
    images: Mapping[str, float]  # name -> PSNR
    bicubic_psnr: float
    bicubic_images: Mapping[str, float]
    ssim: float | None = None  # None: not measured
    bicubic_ssim: float | None = None
    given_low: int = 0  # images whose LR came with the dataset; the others' was made of HR by PIL bicubic
    picture: str = ""  # path of a comparison picture, relative to the report; empty: none
    ssim_images: Mapping[str, float] = {}  # empty: not measured
    bicubic_ssim_images: Mapping[str, float] = {}
    lpips: float | None = None  # None: not measured
    bicubic_lpips: float | None = None
    lpips_images: Mapping[str, float] = {}  # empty: not measured
    bicubic_lpips_images: Mapping[str, float] = {}
    seconds: Mapping[str, tuple[float, float]] = field(default={}, eq=False)  # name -> of encoding and of decoding


def results_json(scores: Iterable[Score], interrupted: bool = False) -> str:
    """``{"results": [...]}``, each as in the report; with ``"interrupted": true`` if there were to be more."""
    return strict_json({"results": results(scores), **({"interrupted": True} if interrupted else {})})


def results_csv(scores: Sequence[Score]) -> str:
    """A line for each image: data set, protocol, scale, file name, PSNR of model and bicubic, and what was measured
    besides.
    """
    besides = [name for name in BESIDES if any(getattr(score, f"{name}_images") for score in scores)]
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    heads = [head for name in besides for head in (name, f"bicubic_{name}")]
    table.writerow(["dataset", "protocol", "scale", "image", "psnr", "bicubic_psnr", *heads])
    for score in scores:
        for image, psnr in score.images.items():
            row = [score.dataset, score.protocol, str(score.scale).removeprefix("x"), image, psnr]
            row.append(score.bicubic_images[image])
            row += [getattr(score, f"{head}_images").get(image, "") for head in heads]
            table.writerow(row)
    return file.getvalue()


def results(scores: Iterable[Score]) -> list[dict[str, Any]]:
    """Plain values for JSON: one entry for each score."""
    found = []
    for score in scores:
        result: dict[str, Any] = {
            "dataset": score.dataset,
            "protocol": score.protocol,
            "scale": score.scale.to_builtin,
            "psnr": score.psnr,
            "images": dict(score.images),
            "bicubic": {"psnr": score.bicubic_psnr, "images": dict(score.bicubic_images)},
            "lr": {"given": score.given_low, "made": len(score.images) - score.given_low},
        }
        for name in BESIDES:
            if getattr(score, name) is not None:
                result[name] = getattr(score, name)
                result["bicubic"][name] = getattr(score, f"bicubic_{name}")
            if getattr(score, f"{name}_images"):
                result[f"{name}_images"] = dict(getattr(score, f"{name}_images"))
                result["bicubic"][f"{name}_images"] = dict(getattr(score, f"bicubic_{name}_images"))
        if score.picture:
            result["picture"] = score.picture
        found.append(result)
    return found


def strict_json(data: Any, indent: int | None = 2) -> str:
    """JSON with null for numbers that it does not have, and a line end."""
    return json.dumps(_finite(data), indent=indent, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """The same with null for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
