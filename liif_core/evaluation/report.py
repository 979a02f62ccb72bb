"""Reports of an evaluation as JSON, Markdown and pictures."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from attrs import frozen
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from liif_core.data.resize import torchvision
from liif_core.evaluation.metrics import psnr
from liif_core.evaluation.scores import BESIDES, Score, results, strict_json
from liif_core.presets import LOW, PROTOCOLS

Crop = tuple[int, int, int, int]  # (top, left, bottom, right) in pixels

_PANEL = 256  # pixels that the longer side of an enlarged crop comes near to
_GAP = 10
_LABEL = 24
_RED = (230, 30, 30)


@frozen(kw_only=True)
class Report:
    """The content of a report. Only ``name`` and ``scores`` are required."""

    name: str  # of the model, in the heading and in tables
    scores: Sequence[Score]
    experiment: str = ""  # what its experiment is called
    composition: str = ""  # the model's parts and their sizes
    training: str = ""  # such as "trained 2 min on 9 photographs"
    note: str = ""  # put at the top, such as what these numbers cannot be compared with
    profile: str = ""
    skipped: Sequence[tuple[str, str]] = ()  # dataset, and why it was not evaluated
    left_out: Sequence[str] = ()  # training images that were left out: which, and why
    model_fingerprint: str = ""  # SHA-256 of the weights
    data_fingerprints: Mapping[str, str] = {}  # by dataset
    versions: Mapping[str, str] = {}  # by distribution
    seconds: float | None = None
    parameters: int | None = None
    device: str = ""
    trained: Mapping[str, Any] = {}  # plain values, such as steps and best PSNR


def to_json(report: Report) -> str:
    """Strict JSON. A PSNR of equal images, which is infinite, is null."""
    data = {
        "name": report.name,
        "experiment": report.experiment,
        "composition": report.composition,
        "profile": report.profile,
        "note": report.note,
        "results": results(report.scores),
        "skipped": [{"dataset": dataset, "reason": reason} for dataset, reason in report.skipped],
        "model": {"fingerprint": report.model_fingerprint, "parameters": report.parameters},
        "data": dict(report.data_fingerprints),
        "training": report.training,
        "left_out": list(report.left_out),
        "trained": dict(report.trained),
        "device": report.device,
        "seconds": report.seconds,
        "versions": dict(report.versions),
    }
    return strict_json(data)


def to_markdown(report: Report) -> str:
    """The tables a paper would print: bicubic and the model for each dataset, a column for each scale."""
    parts = [f"# {', '.join(_line(text) for text in (report.name, report.training) if text)}"]
    if report.note:
        parts.append(f"**{_line(report.note)}**")
    parts.append(scores_table(report.scores, report.name))
    if report.skipped:
        parts += ["## Not evaluated", "\n".join(f"- {_line(name)}: {_line(reason)}" for name, reason in report.skipped)]
    pictured = [score for score in report.scores if score.picture]
    if pictured:
        parts.append("## Pictures")
        parts += [f"{_line(s.dataset)}, {s.scale}:\n\n![{_line(s.dataset)}](<{s.picture}>)" for s in pictured]
    if report.left_out:
        parts += ["## Training images left out", "\n".join(f"- {_line(line)}" for line in report.left_out)]
    parts.append("## What was measured")
    parts.append("\n".join(f"- {name}: {_line(value)}" for name, value in _facts(report)))
    return "\n\n".join(parts) + "\n"


def scores_table(scores: Sequence[Score], name: str = "model") -> str:
    """A Markdown table for each protocol; ``name`` is what the model is called in them."""
    return "\n\n".join(_table(scores, name, protocol) for protocol in dict.fromkeys(s.protocol for s in scores))


def comparison_picture(
    low: Tensor,
    bicubic: Tensor,
    prediction: Tensor,
    target: Tensor,
    crop: Crop | None = None,
    *,
    decibels: tuple[float, float] | None = None,
) -> Image.Image:
    """The whole target, and one crop of LR, bicubic, model and HR side by side, enlarged without interpolation.

    ``low`` is (c, h, w) or (1, c, h, w), the others the same with (H, W); values in [0, 1], shown clamped; of images
    that are neither gray nor RGB the first channel is shown. ``crop`` is in pixels of ``target``; by default it is
    where ``target`` has most detail. ``decibels`` are PSNRs of bicubic and model to print, by default of whole RGB
    images. Raises ValueError for images of different sizes, or a crop that is not inside.
    """
    views = (image.detach().cpu().reshape(image.shape[-3:]) for image in (low, bicubic, prediction, target))
    low, bicubic, prediction, target = views
    if not bicubic.shape == prediction.shape == target.shape:
        raise ValueError(f"expected one size, got {[tuple(t.shape) for t in (bicubic, prediction, target)]}")
    height, width = target.shape[-2:]
    top, left, bottom, right = crop = crop or detailed_crop(target)
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise ValueError(f"crop {crop}: expected (top, left, bottom, right) inside {height} x {width}")
    if decibels is None:
        decibels = psnr(bicubic, target), psnr(prediction, target)

    zoom = max(1, _PANEL // max(bottom - top, right - left))
    panel = (right - left) * zoom, (bottom - top) * zoom
    y, x = low.shape[-2] / height, low.shape[-1] / width
    in_low = left * x, top * y, right * x, bottom * y
    panels = [
        (f"LR {low.shape[-1]} x {low.shape[-2]}", _pil(low).resize(panel, Image.Resampling.NEAREST, box=in_low)),
        (f"bicubic {decibels[0]:.2f} dB", _enlarged(bicubic, crop, panel)),
        (f"model {decibels[1]:.2f} dB", _enlarged(prediction, crop, panel)),
        (f"HR {width} x {height}", _enlarged(target, crop, panel)),
    ]
    whole = _whole(target, crop, fit=2 * panel[1] + _LABEL + _GAP)
    return _sheet(whole, panels)


def detailed_crop(image: Tensor) -> Crop:
    """The square of an image (c, H, W) whose pixels differ most from their neighbours (sum of squared differences).

    Its side is ``crop_side``.
    """
    height, width = image.shape[-2:]
    side = crop_side(height, width)
    gray = image.double().mean(0)
    energy = torch.zeros_like(gray)
    energy[1:] += gray.diff(dim=0).square()
    energy[:, 1:] += gray.diff(dim=1).square()
    return most_of(energy, side)


def most_of(energy: Tensor, side: int) -> Crop:
    """The square of ``side`` pixels with the largest sum of ``energy`` (H, W), which is at least as large."""
    total = torch.zeros(energy.shape[0] + 1, energy.shape[1] + 1, dtype=torch.float64)
    total[1:, 1:] = energy.double().cumsum(0).cumsum(1)
    inside = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    top, left = divmod(int(inside.argmax()), inside.shape[1])
    return top, left, top + side, left + side


def crop_side(height: int, width: int) -> int:
    """A quarter of the image's shorter side, but from 32 to 128 pixels, and never more than the image has."""
    return min(height, width, max(32, min(128, min(height, width) // 4)))


def _table(scores: Sequence[Score], name: str, protocol: str) -> str:
    chosen = [score for score in scores if score.protocol == protocol]
    scales = sorted({score.scale for score in chosen}, key=lambda scale: (scale.y * scale.x, scale.y))
    besides = [measure for measure in BESIDES if any(getattr(score, measure) is not None for score in chosen)]
    measures = " / ".join(["PSNR (dB)", *(measure.upper() for measure in besides)])
    lines = [
        f"{measures}, protocol `{protocol}`: {PROTOCOLS[protocol].description}.",
        "",
        "| dataset | method | " + " | ".join(str(scale) for scale in scales) + " |",
        "|---|---|" + "---:|" * len(scales),
    ]
    for dataset in dict.fromkeys(score.dataset for score in chosen):
        at = {score.scale: score for score in chosen if score.dataset == dataset}
        count = len(next(iter(at.values())).images)
        theirs = [_cell(at[s], "bicubic_") if s in at else "" for s in scales]
        ours = [_cell(at[s]) if s in at else "" for s in scales]
        lines.append(f"| {_line(dataset)} ({count} image{'s' * (count > 1)}) | bicubic | {' | '.join(theirs)} |")
        lines.append(f"| | {_line(name)} | {' | '.join(ours)} |")
    return "\n".join([*lines, "", _origin_of_low(chosen)])


def _origin_of_low(scores: Sequence[Score]) -> str:
    if all(score.given_low == len(score.images) for score in scores):
        return "LR images came with the data."
    made = f"LR images were made of HR by {LOW[PROTOCOLS[scores[0].protocol].low]}"
    given = ", ".join(f"{_line(score.dataset)} {score.scale}" for score in scores if score.given_low)
    return f"{made}, except those that came with {given}." if given else f"{made}."


def _cell(score: Score, whose: str = "") -> str:
    besides = [getattr(score, f"{whose}{measure}") for measure in BESIDES]
    decibels: float = getattr(score, f"{whose}psnr")
    return " / ".join([f"{decibels:.2f}", *(f"{value:.4f}" for value in besides if value is not None)])


def _facts(report: Report) -> list[tuple[str, str]]:
    facts = [("experiment", report.experiment), ("profile", report.profile), ("model", report.composition)]
    facts += [(f"trained, {name}", _number(value)) for name, value in report.trained.items() if value is not None]
    facts += [("parameters", "" if report.parameters is None else _number(report.parameters))]
    facts += [("device", report.device), ("seconds", "" if report.seconds is None else f"{report.seconds:.1f}")]
    facts += [("weights, SHA-256", report.model_fingerprint)]
    facts += [(f"data of {name}, SHA-256", value) for name, value in report.data_fingerprints.items()]
    facts += [("versions", ", ".join(f"{name} {version}" for name, version in report.versions.items()))]
    return [(name, value) for name, value in facts if value]


def _number(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _line(text: str) -> str:
    """In a table cell or a list item, whatever the text holds."""
    return " ".join(text.split()).replace("|", "\\|")


def _pil(image: Tensor) -> Image.Image:
    torchvision()
    from torchvision.transforms.v2.functional import to_pil_image

    shown = image if len(image) in (1, 3) else image[:1]
    picture: Image.Image = to_pil_image((shown.float().clamp(0, 1) * 255).round().to(torch.uint8))
    return picture.convert("RGB")


def _enlarged(image: Tensor, crop: Crop, panel: tuple[int, int]) -> Image.Image:
    """The crop of an image as large as a panel (width, height)."""
    top, left, bottom, right = crop
    return _pil(image[:, top:bottom, left:right]).resize(panel, Image.Resampling.NEAREST)


def _whole(image: Tensor, crop: Crop, fit: int) -> Image.Image:
    """All of an image, ``fit`` pixels high unless it is very wide, with a frame around the crop."""
    height, width = image.shape[-2:]
    ratio = min(fit / height, 1.75 * fit / width)
    shown = max(1, round(width * ratio)), max(1, round(height * ratio))
    picture = _pil(image).resize(shown, Image.Resampling.LANCZOS)
    top, left, bottom, right = (round(v * ratio) for v in crop)
    ImageDraw.Draw(picture).rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=_RED, width=3)
    return picture


def _sheet(whole: Image.Image, panels: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """The whole image at the left, four labelled panels in two rows at the right."""
    font = ImageFont.load_default(15)
    width, height = panels[0][1].size
    across = max(width, *(math.ceil(font.getlength(label)) for label, _ in panels))
    beside = whole.width + 2 * _GAP
    sheet = Image.new("RGB", (beside + 2 * (across + _GAP), 2 * (height + _LABEL) + 2 * _GAP), "white")
    sheet.paste(whole, (_GAP, _GAP + (2 * height + _LABEL + _GAP - whole.height) // 2))
    draw = ImageDraw.Draw(sheet)
    for number, (label, panel) in enumerate(panels):
        left, top = beside + number % 2 * (across + _GAP), _GAP + number // 2 * (height + _LABEL + _GAP)
        sheet.paste(panel, (left, top))
        draw.text((left, top + height + _LABEL // 2), label, "black", font, anchor="lm")
    return sheet
