"""Which results share a table, what is shown of them, and ranks of a comparison."""

import math
import re
import xml.etree.ElementTree as ET

import attrs
import numpy as np
import pytest

from liif_core.evaluation.charts import Point, per_image, quality_and_time
from liif_core.evaluation.circumstances import Circumstances
from liif_core.evaluation.compare import Comparison, ranked
from liif_core.evaluation.comparison_tables import latex_table, meaning, text_table
from liif_core.evaluation.leaderboard import boards
from liif_core.evaluation.leaderboard_page import leaderboard_markdown, leaderboard_page
from liif_core.evaluation.results import Subject, result_of
from liif_core.evaluation.scores import Score
from liif_core.sizes import Scale

MACHINE = {"cpu": "Some CPU", "cores": 2, "threads": 2, "torch": "2.13.0", "device": "cpu"}
WHERE = Circumstances("ab" * 32, MACHINE, "float32", "")
SPREAD = np.linspace(-3, 3, 12)


def result(name, psnr, protocol="fair", scale=4.0, **changes):
    """Of 12 images, whose PSNRs lie around the mean."""
    images = {f"{i}.png": psnr + offset for i, offset in enumerate(SPREAD)}
    values = Score(
        "Set5", protocol, Scale.of(scale), sum(images.values()) / len(images), images, 25.0,
        dict.fromkeys(images, 25.0), seconds=dict.fromkeys(images, (0.1, 0.2)),
    )  # fmt: skip
    made = result_of(values, Subject(name, f"parts of {name}", name.encode().hex().ljust(64, "0")), WHERE)
    return attrs.evolve(made, **{"date": "2026-01-02T00:00:00+00:00", **changes})


def test_a_table_for_each_data_set_preset_and_scale():
    results = [result("a", 30, scale=scale, protocol=preset) for scale in (8, 2, (2, 3)) for preset in ("fair", "rgb")]
    results.append(result("a", 30, data="B100"))
    assert [board.name for board in boards(results)] == [
        "B100, x4, preset fair", "Set5, x2, preset fair", "Set5, x2,3, preset fair", "Set5, x8, preset fair",
        "Set5, x2, preset rgb", "Set5, x2,3, preset rgb", "Set5, x8, preset rgb",
    ]  # fmt: skip


def test_both_names_of_a_preset_share_a_table():
    (board,) = boards([result("a", 30, "liif-benchmark"), result("b", 31, "benchmark")])
    assert board.name == "Set5, x4, preset benchmark" and len(board.entries) == 2


def test_the_newest_of_equal_weights_is_shown_and_the_others_are_counted():
    old = result("a", 31, date="2026-01-01T23:30:00+00:00")
    new = result("renamed", 30, weights=old.weights, date="2026-01-02T00:00:00+02:00")  # 22:00 the day before
    other = result("b", 29)
    (board,) = boards([new, old, attrs.evolve(old, ensemble=4), attrs.evolve(old, precision="bf16"), other, other])
    shown = [(e.result.model, e.result.ensemble, e.result.precision, e.older) for e in board.entries]
    assert sorted(shown) == [
        ("a", 1, "bf16", 0), ("a", 1, "float32", 1), ("a", 4, "float32", 0), ("b", 1, "float32", 1),
    ]  # fmt: skip
    said = leaderboard_markdown([board])
    assert "| a, bf16 |" in said and "| a, mean of 4 orientations |" in said and "renamed" not in said


def test_other_data_and_other_versions_are_never_mixed():
    results = [
        result("a", 30), result("b", 29, data_sha256="cd" * 32), result("c", 31, facts={"version": 2}),
        result("d", 28),
    ]  # fmt: skip
    found = boards(results)
    assert [[e.result.model for e in board.entries] for board in found] == [["a", "d"], ["b"], ["c"]]
    for board in found:
        assert len(board.warnings) == 2
        assert "of other images or LR images" in board.warnings[0] and "another version" in board.warnings[1]
        for text in (leaderboard_page(found), leaderboard_markdown(found)):
            assert all(warning.replace("'", "&#x27;") in text or warning in text for warning in board.warnings)


def test_times_of_other_machines_are_told_apart():
    fast = {**MACHINE, "device": "Some GPU"}
    found = boards([result("a", 30), result("b", 31, machine=fast), result("c", 29)])
    (board,) = found
    assert [(e.result.model, e.machine) for e in board.entries] == [("b", 2), ("a", 1), ("c", 1)]
    assert "device cpu" in board.machines[0] and "device Some GPU" in board.machines[1]
    assert board.warnings == ["Times are from 2 machines, and only comparable for the same machine."]
    page = leaderboard_page(found)
    charts = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert [re.findall(r"<g><title>(\w+):", chart) for chart in charts] == [["a", "c"], ["b"]]


def test_a_page_without_anything_to_compare():
    (board,) = boards([result("a", 30)])
    assert board.warnings == []
    page, markdown = leaderboard_page([board], "My <page>"), leaderboard_markdown([board])
    assert "My &lt;page&gt;" in page and "30.00" in page and "300.0" in page
    assert "| 1 | a | 30.00 |" in markdown and "older results" not in markdown


@pytest.mark.parametrize(
    "values", [{"a": [30.0, math.inf]}, {"a": [math.inf] * 2}, {"a": [30.0] * 200, "<b>": [29.0] * 200}]
)
def test_charts_are_well_formed(values):
    names = [f"image & {i}.png" for i in range(len(values["a"]))]
    root = ET.fromstring(per_image(values, names, 'of "all" <images>'))
    assert root.get("aria-label") == 'of "all" <images>'
    marks = list(root.iter("g"))
    assert len(marks) == sum(math.isfinite(value) for several in values.values() for value in several)
    width, height = map(float, root.get("viewBox").split()[2:])
    for text in root.iter("text"):
        assert 0 <= float(text.get("x")) <= width and 0 <= float(text.get("y")) <= height


def test_names_in_a_chart_cover_nothing():
    random = np.random.default_rng(3)
    points = {f"model {i}": Point(10 ** random.uniform(3, 4), random.uniform(27, 28), "") for i in range(14)}
    root = ET.fromstring(quality_and_time(points, "x"))
    names = [text for text in root.iter("text") if text.text in points]
    places = [(float(text.get("x")), float(text.get("y")), len(text.text)) for text in names]
    boxes = [(x, y - 11, x + 6 * characters, y) for x, y, characters in places]
    width, height = map(float, root.get("viewBox").split()[2:])
    assert len(names) == 14 and all(0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height for box in boxes)
    for i, one in enumerate(boxes):
        for other in boxes[:i]:
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def test_a_chart_of_quality_and_time_is_logarithmic():
    points = {name: Point(ms, psnr, name) for name, ms, psnr in (("a", 1, 30), ("b", 10, 31), ("c", 100, 29))}
    root = ET.fromstring(quality_and_time(points, "x"))
    circle, square, triangle = (group[1] for group in root.iter("g"))
    xs = [
        float(circle.get("cx")), float(square.get("x")) + 5,
        float(triangle.get("points").split(",")[0]),
    ]  # fmt: skip
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.5) and xs[0] < xs[1]
    assert float(square.get("y")) < float(circle.get("cy"))  # higher is better
    works = {name: Point(1, 30, name, work=work) for name, work in (("a", 1e4), ("b", 1e5), ("c", 1e7), ("d", None))}
    groups = list(ET.fromstring(quality_and_time(works, "x")).iter("g"))
    radii = [float(group[1].get("r")) for group in groups[:3]]
    assert radii[2] - radii[1] == pytest.approx(2 * (radii[1] - radii[0])) and radii[0] < radii[1]
    assert [len(group) for group in groups] == [3, 3, 3, 2]  # title, circle of the work, mark
    alone = ET.fromstring(quality_and_time({"a": Point(100, 30, "a")}, "x"))
    assert len(list(alone.iter("g"))) == 1


def test_ranks_and_leads():
    noisy = result("noisy", 0)
    offsets = np.random.default_rng(0).normal(0, 2, 12)
    images = {n: {**v, "psnr": 29.9 + o} for (n, v), o in zip(noisy.images.items(), offsets - offsets.mean())}
    noisy = attrs.evolve(noisy, images=images, psnr=29.9)
    perfect = attrs.evolve(result("perfect", 0), psnr=math.inf)
    rows = ranked([result("worst", 20), noisy, result("best", 30.0), perfect])
    assert [row.result.model for row in rows] == ["perfect", "best", "noisy", "worst"]
    assert rows[-1].lead is None
    assert rows[1].lead.mean == pytest.approx(0.1) and not rows[1].lead.significant
    assert rows[2].lead.mean == pytest.approx(9.9) and rows[2].lead.significant
    table = text_table(Comparison(Scale.of(4), rows, ()))
    assert [line.split()[1] for line in table.splitlines()[1:]] == ["perfect", "best", "noisy", "worst"]
    assert [line.split()[-3] for line in table.splitlines()[2:4]] == ["no", "yes"]


def of_one(one):
    return meaning([Comparison(Scale.of(4), ranked([one]), [])])


def test_what_is_said_of_few_images():
    one = result("a", 30)
    few = attrs.evolve(one, images=dict(list(one.images.items())[:5]))
    said, of_few = of_one(one), of_one(few)
    assert "n = 12 images" in said and "weak evidence" not in said and "Peak memory" not in said
    assert "n = 5 images" in of_few and "weak evidence" in of_few
    assert "Peak memory" in of_one(attrs.evolve(one, peak_memory=5))
    single = attrs.evolve(one, images=dict(list(one.images.items())[:1]))
    assert "no difference can be tested" in of_one(single) and "Significant" not in of_one(single)


def test_of_lpips_the_lowest_is_best():
    similar = {"ssim": 0.8, "bicubic_ssim": 0.7, "bicubic_lpips": 0.3}
    first, second = result("one", 31, lpips=0.25, **similar), result("two", 30, lpips=0.2, **similar)
    comparison = Comparison(Scale.of(4), ranked([first, second]), [])
    found = latex_table([comparison])
    assert "PSNR & SSIM & LPIPS" in found and "PSNR (dB), SSIM, LPIPS on Set5" in found
    assert r"one & \textbf{31.00} & \textbf{0.8000} & \underline{0.2500}" in found
    assert r"two & \underline{30.00} & \textbf{0.8000} & \textbf{0.2000}" in found
    assert "LPIPS" in text_table(comparison) and "less is better" in meaning([comparison])
    without = Comparison(Scale.of(8), ranked([result("one", 27, scale=8), result("two", 28, scale=8)]), [])
    found = latex_table([comparison, without])
    assert r"one & \textbf{31.00} & \textbf{0.8000} & \underline{0.2500} & \underline{27.00} & -- & -- \\" in found
    assert "less is better" in meaning([without, comparison])
    assert "| LPIPS |" in leaderboard_markdown(boards([first, second]))


def test_the_best_is_bold_and_the_second_underlined_in_each_column():
    def comparison(scale, psnrs):
        return Comparison(Scale.of(scale), ranked([result(n, p, scale=scale) for n, p in psnrs.items()]), ())

    text = latex_table([
        comparison(2, {"a_1": 30.0, "b": 29.999, "c": 28.0, "d": 20.0}),
        comparison(3, {"a_1": 25.0, "b": 26.0, "c": 27.0, "d": 20.0}),
    ])  # fmt: skip
    assert r"a\_1 & \textbf{30.00} & 25.00 \\" in text
    assert r"b & \textbf{30.00} & \underline{26.00} \\" in text  # printed alike, marked alike
    assert r"c & \underline{28.00} & \textbf{27.00} \\" in text and r"d & 20.00 & 20.00 \\" in text
    assert r"$\times2$ & $\times3$" in text and r"\begin{tabular}{lrr}" in text
