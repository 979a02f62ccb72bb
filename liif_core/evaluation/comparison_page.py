"""A comparison as a page of HTML that is one file: tables, charts, crops side by side and error maps."""

import math
from collections.abc import Sequence
from html import escape

import numpy as np
import torch
from PIL import Image

from liif_core.evaluation.charts import per_image
from liif_core.evaluation.compare import Comparison, Pictured
from liif_core.evaluation.comparison_tables import columns, described, facts, meaning, setting
from liif_core.evaluation.page import definitions, figure, page, picture, table
from liif_core.evaluation.report import Crop, crop_side, most_of

_MAP = 448  # pixels that the longer side of an error map has at most
_COLORS = np.array([(0, 0, 4), (81, 18, 124), (183, 55, 121), (252, 137, 97), (252, 253, 191)], np.float64)


def comparison_page(comparisons: Sequence[Comparison]) -> str:
    """The whole page."""
    first = comparisons[0].rows[0].result
    title = f"Comparison on {first.data}"
    body = [f"<h1>{escape(title)}</h1>", f"<p>{escape(setting(first))}</p>", f"<p>{escape(meaning(comparisons))}</p>"]
    for comparison in comparisons:
        body += _section(comparison)
    body += ["<h2>Models</h2>", definitions(described(comparisons))]
    body += ["<h2>Where and how</h2>", definitions(facts(first))]
    return page(title, body)


def _section(comparison: Comparison) -> list[str]:
    results = [row.result for row in comparison.rows]
    heads, rows = columns(comparison.rows)
    names = list(results[0].images)
    psnrs = {result.model: [result.images[name]["psnr"] for name in names] for result in results}
    at = str(comparison.scale)
    chart = per_image(psnrs, names, f"PSNR of each image at {at}, for {', '.join(psnrs)}")
    body = [f"<h2>{escape(at)}</h2>", table(f"Models at {at}, by PSNR", heads, rows)]
    body.append(figure(chart, f"PSNR of each image at {at}. Higher is better. The table above has the means."))
    body.append(f"<h3>The images that the models differ in most, at {escape(at)}</h3>")
    for shown in comparison.pictured:
        body += _pictured(shown, at)
    return body


def _pictured(shown: Pictured, at: str) -> list[str]:
    errors = {name: np.abs(made.astype(np.float64) - shown.target).mean(2) for name, made in shown.predictions.items()}
    top, left, bottom, right = crop = _where_they_differ(errors)
    y, x = shown.low.shape[0] / shown.target.shape[0], shown.low.shape[1] / shown.target.shape[1]
    small = shown.low[
        math.floor(top * y) : math.ceil(bottom * y),
        math.floor(left * x) : math.ceil(right * x),
    ]  # fmt: skip
    place = f"rows {top} to {bottom - 1}, columns {left} to {right - 1}"
    ordered = sorted(shown.predictions, key=lambda name: -shown.psnr[name])
    crops = [figure(picture(small, f"LR of {shown.name}, the same part", "crop"), "LR")]
    for name in ordered:
        part = shown.predictions[name][top:bottom, left:right]
        text = f"{shown.name}, {place}, by {name}"
        crops.append(figure(picture(part, text, "crop"), f"{name}, {shown.psnr[name]:.2f} dB"))
    target = picture(shown.target[top:bottom, left:right], f"{shown.name}, {place}, HR", "crop")
    crops.append(figure(target, "HR"))
    most = max(1.0, float(np.quantile(np.stack(list(errors.values())), 0.995)))
    maps = [
        figure(picture(_heat(errors[name], most, crop), f"Errors of {name} in {shown.name}"), name) for name in ordered
    ]
    return [
        f"<h4>{escape(shown.name)}</h4>",
        f'<div class="row">{"".join(crops)}</div>',
        f"<p>Above: {escape(place)} of the HR image, where errors differ most, enlarged without interpolation; PSNR is "
        "of the whole image. Below: errors of the whole image, the mean over channels, from 0 (black) to "
        f"{most:.0f} of 255 or more (light), with a frame around that part.</p>",
        f'<div class="row">{"".join(maps)}</div>',
    ]


def _where_they_differ(errors: dict[str, np.ndarray]) -> Crop:
    """The square in which squared errors have the largest range over methods."""
    squared = np.stack(list(errors.values())) ** 2
    energy = squared.max(0) - squared.min(0)
    return most_of(torch.from_numpy(energy), crop_side(*energy.shape))


def _heat(error: np.ndarray, most: float, crop: Crop) -> np.ndarray:
    """Errors (H, W) as colors, with a frame around ``crop``; made smaller where they are many."""
    place = np.clip(error / most, 0, 1) * (len(_COLORS) - 1)
    index = np.minimum(place.astype(int), len(_COLORS) - 2)
    part = (place - index)[..., None]
    colors = (_COLORS[index] * (1 - part) + _COLORS[index + 1] * part).round().astype(np.uint8)
    ratio = min(1.0, _MAP / max(error.shape))
    size = max(1, round(error.shape[1] * ratio)), max(1, round(error.shape[0] * ratio))
    heat = np.asarray(Image.fromarray(colors).resize(size, Image.Resampling.BOX)).copy()
    top, left, bottom, right = (round(edge * ratio) for edge in crop)
    bottom, right = min(bottom, heat.shape[0]) - 1, min(right, heat.shape[1]) - 1
    heat[[top, bottom], left : right + 1] = heat[top : bottom + 1, [left, right]] = 255
    return heat
