"""A leaderboard as a page of HTML that is one file, and as Markdown."""

from collections.abc import Sequence
from html import escape

from liif_core.evaluation.bootstrap import LEVEL
from liif_core.evaluation.charts import Point, quality_and_time
from liif_core.evaluation.leaderboard import Board, Entry
from liif_core.evaluation.page import definitions, figure, page, table
from liif_core.evaluation.results import Result

# Makes the heads of tables into buttons that sort. Without it, tables are sorted by PSNR.
_SORT = """
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const value = (row, column) => row.cells[column].textContent.replaceAll(",", "");
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const up = before ? before === "descending" : !/PSNR|SSIM|interval|date/.test(head.textContent);
      const order = (a, b) => {
        const [x, y] = [value(a, column), value(b, column)], [p, q] = [parseFloat(x), parseFloat(y)];
        if (x === "" || y === "") return (x === "") - (y === "");
        const by = isNaN(p) || isNaN(q) ? x.localeCompare(y) : p - q;
        return up ? by : -by;
      };
      body.append(...[...body.rows].sort(order));
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
    });
    if (head.textContent === "PSNR") head.setAttribute("aria-sort", "descending");
  });
}
"""


def leaderboard_page(boards: Sequence[Board], title: str = "Leaderboard") -> str:
    """The whole page."""
    links = "".join(f'<li><a href="#table-{i}">{escape(board.name)}</a></li>' for i, board in enumerate(boards))
    body = [f"<h1>{escape(title)}</h1>", f'<nav aria-label="Tables"><ul>{links}</ul></nav>']
    for i, board in enumerate(boards):
        body += _section(board, i)
    body += ["<h2>Models</h2>", definitions(_models(boards))]
    return page(title, body, _SORT)


def leaderboard_markdown(boards: Sequence[Board], title: str = "Leaderboard") -> str:
    """The same tables, without charts."""
    parts = [f"# {title}"]
    for board in boards:
        heads, rows = _columns(board)
        marks = ["---" if head == "model" else "---:" for head in heads]
        lines = [heads, marks, *([_cell(cell) for cell in row] for row in rows)]
        parts += [f"## {_cell(board.name)}", *(f"**{_cell(warning)}**" for warning in board.warnings)]
        parts += [_about(board), "\n".join(f"| {' | '.join(line)} |" for line in lines)]
        parts.append("\n".join(f"- Machine {i}: {_cell(text)}" for i, text in enumerate(board.machines, 1)))
    parts += ["## Models", "\n".join(f"- {_cell(name)}: {_cell(text)}" for name, text in _models(boards))]
    return "\n\n".join(parts) + "\n"


def _section(board: Board, number: int) -> list[str]:
    heads, rows = _columns(board)
    body = [f'<h2 id="table-{number}">{escape(board.name)}</h2>']
    body += [f'<p class="note" role="note"><strong>{escape(warning)}</strong></p>' for warning in board.warnings]
    body += [f"<p>{escape(_about(board))}</p>", table(board.name, heads, rows)]
    for machine in range(1, len(board.machines) + 1):
        points = {
            _label(board, entry): Point(
                1000 * seconds, entry.result.psnr, _told(entry.result, seconds), work=entry.result.multiply_adds
            )
            for entry in board.entries
            if entry.machine == machine and (seconds := _seconds(entry.result))
        }
        if points:
            title = f"PSNR against time, {board.name}, machine {machine}: {', '.join(points)}"
            chart = quality_and_time(points, title)
            body.append(
                figure(
                    chart,
                    f"PSNR against the time for an image on machine {machine}. Up and left is better. The larger the "
                    "circle, the more multiply-adds for a pixel.",
                )
            )
    machines = [(f"Machine {i}", described) for i, described in enumerate(board.machines, 1)]
    return [*body, definitions(machines)]


def _columns(board: Board) -> tuple[list[str], list[list[str]]]:
    """Heads and cells; columns that no row has a value for are left out."""
    entries, results = board.entries, [entry.result for entry in board.entries]
    columns: list[tuple[str, list[str]]] = [
        ("rank", [str(rank) for rank in range(1, len(entries) + 1)]),
        ("model", [_label(board, entry) for entry in entries]),
        ("PSNR", [f"{r.psnr:.2f}" for r in results]),
        (
            f"{LEVEL:.0%} interval",
            ["" if r.interval is None else f"{r.interval[0]:.2f} to {r.interval[1]:.2f}" for r in results],
        ),
        ("SSIM", ["" if r.ssim is None else f"{r.ssim:.4f}" for r in results]),
        ("LPIPS", ["" if r.lpips is None else f"{r.lpips:.4f}" for r in results]),
        ("multiply-adds per pixel", ["" if r.multiply_adds is None else f"{r.multiply_adds:,.0f}" for r in results]),
        ("parameters", ["" if r.parameters is None else f"{r.parameters:,}" for r in results]),
        ("ms", [f"{1000 * seconds:,.1f}" if (seconds := _seconds(r)) is not None else "" for r in results]),
        ("peak memory, MB", ["" if r.peak_memory is None else f"{r.peak_memory / 1e6:,.0f}" for r in results]),
        ("machine", [str(entry.machine) for entry in entries]),
        ("date", [r.date[:10] for r in results]),
        ("older results", [str(entry.older) if entry.older else "" for entry in entries]),
    ]
    kept = [(head, cells) for head, cells in columns if any(cells)]
    return [head for head, _ in kept], [list(row) for row in zip(*(cells for _, cells in kept))]


def _about(board: Board) -> str:
    result, count = board.any, len(board.any.images)
    facts = result.facts
    rules = "; ".join(
        f"{name}: {facts[name]}" for name in ("channels", "border", "rounded", "cell", "ensemble") if name in facts
    )
    low = "LR images came with the data" if result.given_low == count else f"LR images by {facts.get('lr', 'unknown')}"
    return (
        f"PSNR in dB, the mean over {count} image{'s' * (count != 1)}; bicubic interpolation has "
        f"{result.bicubic_psnr:.2f}. Preset {board.preset}, version {facts.get('version')}: {low}; {rules}. ms: "
        f"encoding and decoding of an image, the mean. Data: SHA-256 {result.data_sha256[:12]}."
    )


def _label(board: Board, entry: Entry) -> str:
    """What a model is called in a table: with more of it where others have the same name."""
    result = entry.result
    name = result.model + (f", mean of {result.ensemble} orientations" if result.ensemble > 1 else "")
    name += f", {result.precision}" if result.precision != "float32" else ""
    same = [other for other in board.entries if other.result.model == result.model and other is not entry]
    if any((o.result.ensemble, o.result.precision) == (result.ensemble, result.precision) for o in same):
        name += f" ({result.weights[:8]})"
    return name


def _models(boards: Sequence[Board]) -> list[tuple[str, str]]:
    """Every model once, with its parts and the SHA-256 of its weights."""
    found = {}
    for board in boards:
        for entry in board.entries:
            result = entry.result
            known = f"; weights, SHA-256: {result.weights}" if result.weights else ""
            made = f"; liif-core {result.liif_core}" + (f", commit {result.commit}" if result.commit else "")
            found[_label(board, entry)] = result.description + known + made
    return list(found.items())


def _seconds(result: Result) -> float | None:
    return None if result.seconds is None else sum(result.seconds)


def _told(result: Result, seconds: float) -> str:
    work = "" if result.multiply_adds is None else f", {result.multiply_adds:,.0f} multiply-adds for each pixel"
    return f"{result.model}: {result.psnr:.2f} dB, {1000 * seconds:.1f} ms{work}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
