"""A comparison as tables: for a terminal, Markdown, CSV and LaTeX."""

import csv
import io
import math
import re
from collections.abc import Sequence

from liif_core.evaluation.bootstrap import LEVEL, RESAMPLES, Difference
from liif_core.evaluation.compare import Comparison, Row
from liif_core.evaluation.results import Result
from liif_core.evaluation.scores import BESIDES
from liif_core.presets import LOW, PROTOCOLS

_CSV_MEANS = ("dataset", "preset", "scale", "rank", "model", "psnr", "psnr_low", "psnr_high", "ssim", "lpips")
_CSV_LEAD = ("lead", "lead_low", "lead_high", "significant")
_CSV_COSTS = ("encode_s", "decode_s", "peak_memory_bytes", "multiply_adds_per_pixel")
_FEW = 10  # images, below which intervals are said to be weak


def columns(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """The heads and cells of the table of one scale; columns that no row has a value for are left out."""
    results = [row.result for row in rows]
    table: list[tuple[str, list[str]]] = [
        ("rank", [str(rank) for rank in range(1, len(rows) + 1)]),
        ("model", [result.model for result in results]),
        ("PSNR", [f"{result.psnr:.2f}" for result in results]),
        (f"{LEVEL:.0%} interval", [_interval(result) for result in results]),
        ("SSIM", ["" if result.ssim is None else f"{result.ssim:.4f}" for result in results]),
        ("LPIPS", ["" if result.lpips is None else f"{result.lpips:.4f}" for result in results]),
        ("ahead of the next by", [_lead(row.lead) for row in rows]),
        ("significant", [_significant(row.lead) for row in rows]),
        ("encode, s", [_seconds(result, 0) for result in results]),
        ("decode, s", [_seconds(result, 1) for result in results]),
        ("peak memory, MB", ["" if r.peak_memory is None else f"{r.peak_memory / 1e6:,.0f}" for r in results]),
        ("multiply-adds per pixel", ["" if r.multiply_adds is None else f"{r.multiply_adds:,.0f}" for r in results]),
    ]
    kept = [(head, cells) for head, cells in table if any(cells)]
    return [head for head, _ in kept], [list(cells) for cells in zip(*(cells for _, cells in kept))]


def text_table(comparison: Comparison) -> str:
    """For a terminal."""
    heads, rows = columns(comparison.rows)
    widths = [max(map(len, column)) for column in zip(heads, *rows)]
    lines = [
        "  ".join(cell.ljust(width) if head == "model" else cell.rjust(width) for head, cell, width in zip(*line))
        for line in ((heads, cells, widths) for cells in [heads, *rows])
    ]
    return "\n".join(line.rstrip() for line in lines)


def terminal_report(comparisons: Sequence[Comparison]) -> str:
    """All scales, and what the numbers are."""
    first = comparisons[0].rows[0].result
    parts = [setting(first)]
    parts += [f"{comparison.scale}\n{text_table(comparison)}" for comparison in comparisons]
    return "\n\n".join([*parts, meaning(comparisons)])


def markdown_report(comparisons: Sequence[Comparison]) -> str:
    """The tables, what the numbers are, and where they were measured."""
    first = comparisons[0].rows[0].result
    parts = [f"# Comparison on {_cell(first.data)}", setting(first)]
    for comparison in comparisons:
        heads, rows = columns(comparison.rows)
        marks = ["---" if head == "model" else "---:" for head in heads]
        lines = [heads, marks, *([_cell(cell) for cell in row] for row in rows)]
        parts += [f"## {comparison.scale}", "\n".join(f"| {' | '.join(line)} |" for line in lines)]
    parts += [meaning(comparisons), "## Models"]
    parts.append("\n".join(f"- {_cell(name)}: {_cell(text)}" for name, text in described(comparisons)))
    parts += ["## Where and how", "\n".join(f"- {name}: {_cell(value)}" for name, value in facts(first))]
    return "\n\n".join(parts) + "\n"


def csv_table(comparisons: Sequence[Comparison]) -> str:
    """A line for each method and scale, with all digits."""
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow([*_CSV_MEANS, *_CSV_LEAD, *_CSV_COSTS])
    for comparison in comparisons:
        for rank, row in enumerate(comparison.rows, 1):
            result, lead = row.result, row.lead
            scale = str(comparison.scale).removeprefix("x")
            first = [result.data, result.preset, scale, rank, result.model, result.psnr]
            led = ["", "", "", ""] if lead is None else [lead.mean, *lead.interval, int(lead.significant)]
            last = [*(result.seconds or ("", "")), result.peak_memory, result.multiply_adds]
            table.writerow([*first, *(result.interval or ("", "")), result.ssim, result.lpips, *led, *last])
    return file.getvalue()


def latex_table(comparisons: Sequence[Comparison]) -> str:
    """A table for a paper, for the package booktabs: a row for each method, the best bold, the second underlined."""
    first = comparisons[0].rows[0].result
    besides = [
        measure for measure in BESIDES
        if any(getattr(row.result, measure) is not None for comparison in comparisons for row in comparison.rows)
    ]  # fmt: skip
    names = [row.result.model for row in comparisons[0].rows]
    cells: dict[str, list[str]] = {name: [] for name in names}
    for comparison in comparisons:
        results = {row.result.model: row.result for row in comparison.rows}
        values = [_marked([f"{results[name].psnr:.2f}" for name in names])]
        for measure in besides:
            found = [getattr(results[name], measure) for name in names]
            texts = [f"{value:.4f}" for value in found if value is not None]
            values.append(
                _marked(texts, lowest=measure == "lpips") if len(texts) == len(names) else ["--"] * len(names)
            )
        for column in values:
            for name, text in zip(names, column):
                cells[name].append(text)
    width = 1 + len(besides)
    scales = [f"$\\times{str(comparison.scale).removeprefix('x')}$" for comparison in comparisons]
    heads = [f"\\multicolumn{{{width}}}{{c}}{{{scale}}}" for scale in scales] if besides else scales
    measures = ["PSNR", *(measure.upper() for measure in besides)]
    kinds = f" & {' & '.join(measures * len(comparisons))} \\\\\n" if besides else ""
    rows = "\n".join(f"{_tex(name)} & {' & '.join(cells[name])} \\\\" for name in names)
    what = ", ".join(["PSNR (dB)", *measures[1:]])
    return (
        "% \\usepackage{booktabs}\n"
        f"% {setting(first)}\n"
        "\\begin{table}\n\\centering\n"
        f"\\caption{{{what} on {_tex(first.data)}, preset \\texttt{{{_tex(first.preset)}}} of liif-core.}}\n"
        f"\\begin{{tabular}}{{l{'r' * width * len(comparisons)}}}\n\\toprule\n"
        f"Method & {' & '.join(heads)} \\\\\n{kinds}\\midrule\n{rows}\n\\bottomrule\n\\end{{tabular}}\n\\end{{table}}\n"
    )


def setting(result: Result) -> str:
    """The data set, the preset and the LR images, in a sentence."""
    preset, count = PROTOCOLS[result.preset], len(result.images)
    images = f"{result.data}, {count} image{'s' * (count != 1)}"
    low = "LR images came with the data" if result.given_low == count else f"LR by {LOW[preset.low]}"
    said = preset.description if "LR by" in preset.description else f"{preset.description}; {low}"
    if result.given_low and "LR by" in preset.description:
        said += f"; {result.given_low} LR images came with the data"
    return f"{images}. Preset {result.preset}, version {preset.version}: {said}."


def meaning(comparisons: Sequence[Comparison]) -> str:
    """What the columns are, and how far they can be trusted."""
    results = [row.result for comparison in comparisons for row in comparison.rows]
    count = len(results[0].images)
    lines = [
        "PSNR in dB"
        + ("; of LPIPS, less is better" if any(result.lpips is not None for result in results) else "")
        + ". Seconds are means over images."
    ]
    if any(result.peak_memory is not None for result in results):
        lines.append("Peak memory is what a model needs besides its weights, for the largest image.")
    if count == 1:
        lines.append("With one image, no difference can be tested.")
    else:
        lines.append(
            f"Significant: the {LEVEL:.0%} interval of the mean difference over n = {count} images, by paired "
            f"bootstrap ({RESAMPLES:,} resamples), leaves out 0."
        )
    if 1 < count < _FEW:
        lines.append("With so few images that is weak evidence: it says little about other images.")
    return " ".join(lines)


def described(comparisons: Sequence[Comparison]) -> list[tuple[str, str]]:
    """The name of each method, and what it is."""
    found = []
    for row in comparisons[0].rows:
        result = row.result
        text = result.description
        if result.parameters is not None:
            text += f"; {result.parameters:,} parameters"
        found.append((result.model, text + (f"; weights, SHA-256: {result.weights}" if result.weights else "")))
    return found


def facts(result: Result) -> list[tuple[str, str]]:
    """Where and how results were measured."""
    machine = result.machine
    cores = f"{machine['cores']} cores" + (f", {machine['threads']} threads" if "threads" in machine else "")
    known = [
        ("data, SHA-256", result.data_sha256),
        ("processor", f"{machine['cpu']}, {cores}"),
        ("device", str(machine["device"])),
        ("precision", result.precision),
        ("torch", str(machine["torch"])),
        ("liif-core", result.liif_core + (f", commit {result.commit}" if result.commit else "")),
        ("date", result.date),
    ]
    return [(name, value) for name, value in known if value]


def _interval(result: Result) -> str:
    return "" if result.interval is None else f"{result.interval[0]:.2f} to {result.interval[1]:.2f}"


def _lead(lead: Difference | None) -> str:
    return "" if lead is None else f"{lead.mean:.3f} ({lead.interval[0]:.3f} to {lead.interval[1]:.3f})"


def _significant(lead: Difference | None) -> str:
    return "" if lead is None else "yes" if lead.significant else "no"


def _seconds(result: Result, part: int) -> str:
    return "" if result.seconds is None else f"{result.seconds[part]:.3f}"


def _marked(texts: Sequence[str], lowest: bool = False) -> list[str]:
    """The highest (or lowest) values bold, the next underlined; values that are printed alike are marked alike."""
    ordered = sorted({float(text) for text in texts}, reverse=not lowest)
    marks = dict(zip(ordered, ("\\textbf{%s}", "\\underline{%s}")))
    shown = ["$\\infty$" if math.isinf(float(text)) else text for text in texts]
    return [marks.get(float(text), "%s") % seen for text, seen in zip(texts, shown)]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


_TEX = {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}


def _tex(text: str) -> str:
    return re.sub(r"[\\~^&%$#_{}]", lambda match: _TEX.get(match[0], "\\" + match[0]), text)
