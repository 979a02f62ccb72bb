"""Charts as SVG for a page: points with marks that differ in shape and color."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from attrs import frozen

_WIDTH, _HEIGHT = 720, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 30, 14, 46
_COLORS = 7  # in the style of the page
_NAMED = 24  # places of an axis that are named one by one
_LONGEST = 16  # characters of a name on an axis
_LEAST_WORK, _TENFOLD = 9, 7  # radius of the circle of the least multiply-adds, and what ten times as many add to it

Box = tuple[float, float, float, float]  # left, top, right and bottom


@frozen
class Point:
    """A point of a chart, with its text, which is shown under the pointer."""

    x: float
    y: float
    text: str
    label: str = ""  # beside the point
    work: float | None = None  # multiply-adds for each output pixel, which a circle around the point shows


def per_image(values: Mapping[str, Sequence[float]], names: Sequence[str], title: str) -> str:
    """PSNR of each method (``values``, by its name) for each image: a row of marks each."""
    apart = min(0.08, 0.7 / len(values))  # marks of the same image stand beside each other, so that none hides another
    points = {
        method: [
            Point(i + (number - (len(values) - 1) / 2) * apart, value, f"{method}, {names[i]}: {value:.2f} dB")
            for i, value in enumerate(psnrs)
        ]
        for number, (method, psnrs) in enumerate(values.items())
    }
    step = max(1, math.ceil(len(names) / _NAMED))
    ticks = [(float(i), _short(names[i])) for i in range(0, len(names), step)]
    return _chart(points, title, "PSNR, dB", ticks, (-0.5, len(names) - 0.5), slanted=len(names) > 6, legend=True)


def quality_and_time(points: Mapping[str, Point], title: str) -> str:
    """PSNR against milliseconds, on a logarithmic scale: a point for each method, with its name.

    The radius of the circle around a point grows with the logarithm of the multiply-adds.
    """
    times = [point.x for point in points.values()]
    low, high = math.floor(math.log10(min(times))), math.ceil(math.log10(max(times)))
    low, high = (low, high) if low < high else (low - 1, high + 1)
    ticks = [(float(power), f"{10.0**power:g}") for power in range(low, high + 1)]
    placed = {
        method: [Point(math.log10(point.x), point.y, point.text, method, point.work)]
        for method, point in points.items()
    }
    return _chart(placed, title, "PSNR, dB", ticks, (low, high), "time for an image, ms (logarithmic)")


def _chart(
    points: Mapping[str, Sequence[Point]],
    title: str,
    y_title: str,
    ticks: Sequence[tuple[float, str]],
    x_range: tuple[float, float],
    x_title: str = "",
    slanted: bool = False,
    legend: bool = False,
) -> str:
    shown = [point for several in points.values() for point in several if math.isfinite(point.y)]
    low, high = _range([point.y for point in shown])
    bottom = _BOTTOM + (54 if slanted else 0)
    entries = _legend_places(list(points)) if legend else []
    height = _HEIGHT + (54 if slanted else 0) + (18 * (entries[-1][1] + 1) + 6 if entries else 0)
    floor = _HEIGHT - _BOTTOM

    def x(value: float) -> float:
        return _LEFT + (value - x_range[0]) / (x_range[1] - x_range[0]) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return floor - (value - low) / (high - low) * (floor - _TOP)

    parts = [f"<title>{escape(title)}</title>"]
    for value in _ticks(low, high):
        parts.append(
            f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
        )
        parts.append(f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value, name in ticks:
        place = f'x="{x(value):.1f}" y="{floor + 18}"'
        if x_title:
            parts.append(f'<line class="axis" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{_TOP}" y2="{floor}"/>')
        if slanted:
            turned = f'transform="rotate(-40 {x(value):.1f} {floor + 18})"'
            parts.append(f'<text {place} text-anchor="end" {turned}>{escape(name)}</text>')
        else:
            parts.append(f'<text {place} text-anchor="middle">{escape(name)}</text>')
    parts.append(f'<text x="14" y="{floor / 2:.0f}" transform="rotate(-90 14 {floor / 2:.0f})" '
                 f'text-anchor="middle">{escape(y_title)}</text>')  # fmt: skip
    if x_title:
        parts.append(f'<text x="{(_LEFT + _WIDTH) / 2}" y="{floor + 38}" text-anchor="middle">{escape(x_title)}</text>')
    least = min((point.work for point in shown if point.work), default=1.0)
    taken = [_box_of_mark(x(point.x), y(point.y)) for point in shown] if x_title else []
    for number, several in enumerate(points.values()):
        for point in several:
            if not math.isfinite(point.y):
                continue
            across, down = x(point.x), y(point.y)
            mark = _mark(number, across, down)
            if point.work:
                mark = _circle_of_work(number, across, down, point.work / least) + mark
            parts.append(f"<g><title>{escape(point.text)}</title>{mark}</g>")
            if point.label:
                parts.append(_beside(point.label, across, down, taken, (_LEFT, _WIDTH, floor)))
    for number, (left, row, name) in enumerate(entries):
        down = _HEIGHT - _BOTTOM + bottom + 8 + 18 * row
        parts += [_mark(number, left, down - 4), f'<text x="{left + 10}" y="{down}">{escape(name)}</text>']
    box = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    return f'<svg {box} role="img" aria-label="{escape(title, quote=True)}">{"".join(parts)}</svg>'


def _circle_of_work(number: int, x: float, y: float, times: float) -> str:
    """``times``: how many times the least work it is."""
    radius = _LEAST_WORK + _TENFOLD * math.log10(times)
    style = f'fill="var(--c{number % _COLORS})" fill-opacity="0.15" pointer-events="none"'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" {style}/>'


def _mark(number: int, x: float, y: float) -> str:
    """A mark that differs from others in color and shape."""
    color, r = f"var(--c{number % _COLORS})", 5
    style = f'fill="{color}"' if number < _COLORS else f'fill="none" stroke="{color}" stroke-width="2"'
    shape = number % 4
    if shape == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}" {style}/>'
    if shape == 1:
        return f'<rect x="{x - r:.1f}" y="{y - r:.1f}" width="{2 * r}" height="{2 * r}" {style}/>'
    edges = [(0, -r - 1), (r + 1, r), (-r - 1, r)] if shape == 2 else [(0, -r - 1), (r + 1, 0), (0, r + 1), (-r - 1, 0)]
    return f'<polygon points="{" ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in edges)}" {style}/>'


def _box_of_mark(x: float, y: float) -> Box:
    return x - 6, y - 6, x + 6, y + 6


def _beside(label: str, x: float, y: float, taken: list[Box], room: tuple[float, float, float]) -> str:
    """A label at the first place near its point where it covers no mark and no other label.

    ``taken``: the boxes of those, to which its own is added. ``room``: the left, the right and the bottom of the chart.
    """
    width, (left, right, bottom) = 6.6 * len(label), room
    places = []
    for step in range(12):
        places += [(x + 10, y + 4 + 13 * step), (x - 10 - width, y + 4 + 13 * step)]
        places += [(x + 10, y + 4 - 13 * step), (x - 10 - width, y + 4 - 13 * step)]
    boxes = [(across, down - 11, across + width, down + 3) for across, down in places]
    inside = [box for box in boxes if box[0] >= left and box[2] <= right and box[1] >= 0 and box[3] <= bottom]
    free = (box for box in inside if not any(_overlap(box, other) for other in taken))
    chosen = next(free, boxes[0])
    taken.append(chosen)
    return f'<text x="{chosen[0]:.1f}" y="{chosen[3] - 3:.1f}">{escape(label)}</text>'


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _legend_places(names: Sequence[str]) -> list[tuple[float, int, str]]:
    """(x, row, name) of each entry."""
    places, x, row = [], float(_LEFT), 0
    for name in names:
        width = 34 + 7 * len(name)
        if x > _LEFT and x + width > _WIDTH:
            x, row = float(_LEFT), row + 1
        places.append((x, row, name))
        x += width
    return places


def _range(values: Sequence[float]) -> tuple[float, float]:
    if not values:
        return 0.0, 1.0
    margin = max(0.25, 0.08 * (max(values) - min(values)))
    return min(values) - margin, max(values) + margin


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between the ends."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return [round(i * step, 6) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 3] + "..."
