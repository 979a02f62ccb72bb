"""The table and the chart of the leaderboard, from the result files in ``docs/results/leaderboard``."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from liif_core.evaluation.charts import Point, quality_and_time
from liif_core.evaluation.leaderboard import read_folder
from liif_core.evaluation.results import Result
from liif_core.sizes import Scale

RESULTS = Path(__file__).parent / "results" / "leaderboard"
_COSTS = Scale.of(4)  # the scale whose times and multiply-adds are shown
_COLORS = "--c0:#0072b2;--c1:#d55e00;--c2:#008a64;--c3:#b0508a;--c4:#8f7400;--c5:#2f7fb5;--c6:#777777"
_STYLE = "svg text{fill:currentColor;font:12px sans-serif}svg .axis{stroke:#9995}"

Runs = Mapping[str, Mapping[Scale, Sequence[Result]]]  # name -> scale -> a result of each seed


def runs(results: Sequence[Result]) -> Runs:
    """Results with several seeds, whose names end with ", seed N", together; of equal weights only the newest."""
    newest = {
        (result.weights or result.model, result.scale): result for result in sorted(results, key=lambda r: r.date)
    }
    found: dict[str, dict[Scale, list[Result]]] = {}
    for result in newest.values():
        name = result.model.partition(", seed ")[0]
        found.setdefault(name, {}).setdefault(result.scale, []).append(result)
    return found


def table(found: Runs) -> str:
    """PSNR of each model at each scale, by that at x4, with half of the range over seeds; and its costs."""
    scales = sorted({scale for each in found.values() for scale in each}, key=lambda scale: scale.y * scale.x)
    rows = [
        "| | " + " | ".join(map(str, scales)) + f" | multiply-adds per pixel, {_COSTS} | ms, {_COSTS} |",
        "| --- |" + " ---: |" * (len(scales) + 2),
    ]
    for name, each in sorted(found.items(), key=lambda item: -_psnr(item[1].get(_COSTS, ()))):
        cells = [_cell(each.get(scale, ())) for scale in scales]
        costs = each.get(_COSTS, ())
        work = next((f"{result.multiply_adds:,.0f}" for result in costs if result.multiply_adds), "")
        ms = f"{_milliseconds(costs):,.0f}" if costs else ""
        rows.append(f"| {name} | {' | '.join(cells)} | {work} | {ms} |")
    return "\n".join(rows)


def chart(found: Runs) -> str:
    """PSNR against time at x4, as SVG in a block of HTML."""
    points = {}
    for name, each in found.items():
        if costs := each.get(_COSTS, ()):
            work, ms = costs[0].multiply_adds, _milliseconds(costs)
            told = f"{name}: {_psnr(costs):.2f} dB, {ms:.0f} ms"
            points[name] = Point(ms, _psnr(costs), told, work=work)
    svg = quality_and_time(points, f"PSNR against time at {_COSTS}")
    return f'<div style="{_COLORS}"><style>{_STYLE}</style>{svg}</div>'


def equal_budget(what: str, *folders: str) -> str:
    """``what``: table or chart, of all results in these folders below ``RESULTS``."""
    found = runs([result for folder in folders for result in read_folder(RESULTS / folder)])
    return {"table": table, "chart": chart}[what](found)


def _psnr(results: Sequence[Result]) -> float:
    return sum(result.psnr for result in results) / len(results) if results else 0.0


def _cell(results: Sequence[Result]) -> str:
    if not results:
        return ""
    values = [result.psnr for result in results]
    spread = f" ± {(max(values) - min(values)) / 2:.2f}" if len(values) > 1 else ""
    return f"{_psnr(results):.2f}{spread}"


def _milliseconds(results: Sequence[Result]) -> float:
    """The fastest of the seeds, which compute the same."""
    return min(1000 * sum(result.seconds) for result in results if result.seconds)
