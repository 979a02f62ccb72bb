"""Draw the pictures of the documentation from what liif-core computes: ``python docs/make_pictures.py [FOLDER]``.

``pictures/first-run.png`` is not drawn here: it is a picture of the report of ``liif-run experiments/edsr_liif.toml``.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

import liif_core
from liif_core import ContinuousModel, Query, Sites, make_coord, plan_tiles

INK, GRAY, BLUE, ORANGE = "#2b2b33", "#b8bcc8", "#2a6fbb", "#d9662b"
GRID, OUTPUT, WHERE = (4, 5), (11, 14), (7, 8)  # codes, output pixels, the output pixel that is queried
DPI = 120
MEMORY = 8_000_000  # bytes: so few that a small image is cut


def model() -> ContinuousModel:
    """LIIF with random weights: the pictures show positions, which do not depend on them."""
    return liif_core.compose(
        encoder={"use": "edsr", "blocks": 1, "channels": 8},
        features="unfold",
        sampling="local-ensemble",
        conditioning=["coordinate", "cell"],
        decoder={"use": "mlp", "hidden": [16]},
    )


def query() -> tuple[Query, Sites]:
    """The query of the pictures, and the codes that it reads."""
    rows, columns = (make_coord((n,)).flatten() for n in OUTPUT)
    cell = torch.tensor([2 / OUTPUT[0], 2 / OUTPUT[1]])
    point = Query.points(torch.stack([rows[WHERE[0]], columns[WHERE[1]]]).view(1, 1, 2), cell)
    return point, model().sampling(point, GRID)


def code_position(index: int) -> tuple[float, float]:
    """(y, x) of a code."""
    height, width = GRID
    row, column = divmod(index, width)
    return -1 + (2 * row + 1) / height, -1 + (2 * column + 1) / width


def image_axes(axes: Axes) -> None:
    """The image, from -1 to 1, its feature cells and its codes."""
    axes.set(xlim=(-1.12, 1.12), ylim=(1.12, -1.12), aspect=GRID[0] / GRID[1])
    axes.axis("off")
    for edge in torch.linspace(-1, 1, GRID[0] + 1).tolist():
        axes.plot([-1, 1], [edge, edge], color=GRAY, lw=1.2, zorder=1)
    for edge in torch.linspace(-1, 1, GRID[1] + 1).tolist():
        axes.plot([edge, edge], [-1, 1], color=GRAY, lw=1.2, zorder=1)
    for index in range(GRID[0] * GRID[1]):
        y, x = code_position(index)
        axes.plot(x, y, "o", color=INK, ms=5, zorder=4)


def draw_query(path: Path) -> None:
    """Codes, output pixels, a query with its cell, and the codes it reads with their weights."""
    point, sites = query()
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.5), layout="constrained")
    for axes in (left, right):
        image_axes(axes)
    y, x = point.coord[0, 0].tolist()
    height, width = (2 / n for n in OUTPUT)
    for edge in torch.linspace(-1, 1, OUTPUT[0] + 1).tolist():
        left.plot([-1, 1], [edge, edge], color=BLUE, lw=0.5, alpha=0.5, zorder=2)
    for edge in torch.linspace(-1, 1, OUTPUT[1] + 1).tolist():
        left.plot([edge, edge], [-1, 1], color=BLUE, lw=0.5, alpha=0.5, zorder=2)
    left.add_patch(
        Rectangle((x - width / 2, y - height / 2), width, height, fc=ORANGE, alpha=0.45, ec="none", zorder=2)
    )
    left.plot(x, y, "s", color=ORANGE, ms=5, zorder=5)
    left.set_title(f"{GRID[0]} x {GRID[1]} codes, {OUTPUT[0]} x {OUTPUT[1]} output pixels", color=INK)
    for corner, text in (((-1, -1.06), "(y, x) = (-1, -1)"), ((1, 1.08), "(1, 1)")):
        left.text(*corner, text, ha="left" if corner[0] < 0 else "right", va="center", color=GRAY, fontsize=9)
    right.set_title("The four codes that the query reads, and their weights", color=INK)
    right.plot(x, y, "s", color=ORANGE, ms=7, zorder=5)
    for index, weight in zip(sites.index[:, 0, 0].tolist(), sites.weight[:, 0, 0].tolist()):
        code_y, code_x = code_position(index)
        right.add_patch(
            Rectangle((min(x, code_x), min(y, code_y)), abs(x - code_x), abs(y - code_y), fc=BLUE, alpha=0.12, ec=BLUE)
        )
        right.plot(code_x, code_y, "o", color=BLUE, ms=5 + 22 * weight, alpha=0.85, zorder=4)
        down = 0.17 if code_y > y else -0.17
        right.text(
            code_x, code_y + down, f"{weight:.2f}", ha="center", va="center", color=BLUE, zorder=6, weight="bold"
        )
    figure.savefig(path, dpi=DPI, facecolor="white", metadata={"Software": None})
    plt.close(figure)


def draw_offset(path: Path) -> None:
    """``sites.offset`` and the conditions that are computed from it."""
    point, sites = query()
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.5), layout="constrained", width_ratios=(1, 1.1))
    image_axes(left)
    y, x = point.coord[0, 0].tolist()
    left.plot(x, y, "s", color=ORANGE, ms=7, zorder=5)
    for index, offset in zip(sites.index[:, 0, 0].tolist(), sites.offset[:, 0, 0].tolist()):
        code_y, code_x = code_position(index)
        left.add_patch(
            FancyArrowPatch((code_x, code_y), (x, y), arrowstyle="-|>", mutation_scale=12, color=BLUE, lw=1.4, zorder=4)
        )
        down, across = (0.15 if code_y > y else -0.15), (0.1 if code_x > x else -0.1)
        text = f"({offset[0]:+.2f}, {offset[1]:+.2f})"
        box = {"fc": "white", "ec": "none", "pad": 1}
        side = "left" if across > 0 else "right"
        left.text(code_x, code_y + down, text, ha=side, va="center", color=BLUE, fontsize=10, bbox=box, zorder=6)
    left.set_title("sites.offset: query minus code, (y, x);\nthe side of a feature cell is 2", color=INK)
    right.set(xlim=(0, 10), ylim=(0, 10))
    right.axis("off")
    boxes = {
        "sampling": (0.1, 7.7, 2.2, 1.4, GRAY),
        "coordinate\n(a conditioning)": (2.0, 4.8, 2.6, 1.6, BLUE),
        "another one, such\nas sines of offsets": (2.0, 1.9, 2.6, 1.6, BLUE),
        "decoder\n\ndecode(\nmaps,\nsites,\nconditions)": (8.1, 1.6, 1.8, 7.6, INK),
    }
    for text, (bx, by, w, h, color) in boxes.items():
        right.add_patch(FancyBboxPatch((bx, by), w, h, boxstyle="round,pad=0.05", fc="white", ec=color, lw=1.6))
        right.text(bx + w / 2, by + h / 2, text, ha="center", va="center", color=INK, fontsize=9.5)
    right.plot([1.0, 1.0], [7.6, 2.7], color=INK, lw=1.1)
    for start, end in (
        ((2.4, 8.4), (8.0, 8.4)),
        ((1.0, 5.6), (1.9, 5.6)),
        ((1.0, 2.7), (1.9, 2.7)),
        ((4.7, 5.6), (8.0, 5.6)),
        ((4.7, 2.7), (8.0, 2.7)),
    ):
        right.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color=INK, lw=1.1))
    for height, first, second in (
        (8.4, "sites.offset", "(K, B, Q, 2)"),
        (5.6, 'conditions["coordinate"]', "equal to sites.offset"),
        (2.7, 'conditions["its name"]', "(K, B, Q, its channels)"),
    ):
        right.text(6.35, height + 0.35, first, ha="center", color=BLUE, fontsize=9.5)
        right.text(6.35, height - 0.55, second, ha="center", color=INK, fontsize=8.5)
    right.set_title("What the decoder receives\n", color=INK)
    figure.savefig(path, dpi=DPI, facecolor="white", metadata={"Software": None})
    plt.close(figure)


def draw_blocks(path: Path) -> None:
    """The block of pixels that reads one code, and that of the next code, at a whole scale."""
    scale, code = 4, 7
    rows, columns = (make_coord((scale * n,)).flatten() for n in GRID)
    cell = torch.tensor([2 / (scale * n) for n in GRID])
    index = model().sampling(Query.grid(rows, columns, cell), GRID).index[:, 0]  # (K, H, W)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.5), layout="constrained")
    for axes in (left, right):
        image_axes(axes)
    for number, color, axes in ((code, ORANGE, left), (code, ORANGE, right), (code + 1, BLUE, right)):
        down, across = (index == number).any(0).nonzero().unbind(1)
        for row, column in zip(down.tolist(), across.tolist()):
            axes.plot(columns[column], rows[row], "s", color=color, ms=4, alpha=0.45, zorder=3)
        y, x = code_position(number)
        axes.plot(x, y, "o", color=color, ms=10, zorder=5)
    down, across = (index == code).any(0).nonzero().unbind(1)
    for row in down.unique().tolist():
        left.plot([-1.08, -1.02], [rows[row]] * 2, color=ORANGE, lw=2, clip_on=False)
    for column in across.unique().tolist():
        left.plot([columns[column]] * 2, [-1.08, -1.02], color=ORANGE, lw=2, clip_on=False)
    count = f"{len(down.unique())} rows times {len(across.unique())} columns"
    left.set_title(f"x{scale}: one code is read by {count} of pixels", color=INK)
    right.set_title("Blocks overlap: colors are added with their weights", color=INK)
    figure.savefig(path, dpi=DPI, facecolor="white", metadata={"Software": None})
    plt.close(figure)


def draw_tiles(path: Path) -> None:
    """The tiles of a plan, with the halo of one of them."""
    within, scale = (480, 640), 1
    net = model()
    plan = plan_tiles(net, within, (within[0] * scale, within[1] * scale), None, MEMORY)
    high, wide = plan.tile
    figure, axes = plt.subplots(figsize=(6.2, 4.6), layout="constrained")
    axes.set(xlim=(-6, within[1] + 6), ylim=(within[0] + 6, -6), aspect="equal")
    axes.axis("off")
    for top in range(0, within[0], high):
        for left in range(0, within[1], wide):
            h, w = min(high, within[0] - top), min(wide, within[1] - left)
            axes.add_patch(Rectangle((left, top), w, h, fc="white", ec=GRAY, lw=1.2))
    top, left = high, wide
    halo = plan.halo
    h, w = min(high, within[0] - top), min(wide, within[1] - left)
    axes.add_patch(
        Rectangle((left - halo, top - halo), w + 2 * halo, h + 2 * halo, fc=BLUE, alpha=0.22, ec=BLUE, lw=1.2, zorder=3)
    )
    axes.add_patch(Rectangle((left, top), w, h, fc=ORANGE, alpha=0.5, ec=ORANGE, lw=1.5, zorder=4))
    axes.text(left + w / 2, top + h / 2, "tile", ha="center", va="center", color=INK, zorder=5)
    axes.annotate(
        f"halo: {halo} pixels",
        (left + w + halo / 2, top + h / 2),
        (left + w + 40, top + h / 2),
        va="center",
        color=BLUE,
        zorder=6,
        arrowprops={"arrowstyle": "-", "color": BLUE},
        bbox={"fc": "white", "ec": "none", "pad": 1},
    )
    axes.set_title(f"An image of {within[0]} x {within[1]} pixels in tiles of {high} x {wide}", color=INK)
    figure.savefig(path, dpi=DPI, facecolor="white", metadata={"Software": None})
    plt.close(figure)


PICTURES = {"query.png": draw_query, "offset.png": draw_offset, "blocks.png": draw_blocks, "tiles.png": draw_tiles}


def main(folder: Path) -> None:
    """Draw all pictures into a folder."""
    plt.rcParams.update({"font.size": 10, "font.family": "DejaVu Sans"})
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        draw(folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "pictures")
