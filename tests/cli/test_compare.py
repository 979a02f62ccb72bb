"""``liif compare``, ``liif leaderboard``, and ``liif evaluate`` with several presets: numbers, files, and mistakes."""

import csv
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from reference import SMALL_TABLE, small_model

import liif_core
from liif_core.cli import liif
from liif_core.training.checkpoint import Checkpoint, save_checkpoint

IMAGES = 6


@pytest.fixture
def files(place, registry):
    """Two checkpoints, and a folder of images, in the current folder."""
    for seed, name in enumerate(("one", "two")):
        model = small_model(registry, hidden=(8,), residual="bilinear", seed=seed)
        save_checkpoint(f"{name}.safetensors", Checkpoint(model.state_dict(), {"name": name, "model": SMALL_TABLE}))
    (place / "photos").mkdir()
    for number in range(IMAGES):
        small = np.random.default_rng(number).integers(0, 256, (6, 7, 3), dtype=np.uint8)
        Image.fromarray(small).resize((56, 48), Image.Resampling.BICUBIC).save(place / "photos" / f"{number}.png")
    return place


def invoke(*arguments, code=0):
    result = CliRunner().invoke(liif, [*map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output + result.stderr
    return result.stdout if code == 0 else result.stderr


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# evaluate


def test_several_presets_are_those_one_by_one(files):
    ask = ("evaluate", "one.safetensors", "--hr", "photos", "--scale", 2, "--scale", 3, "--quiet", "--ssim")
    presets = ("benchmark", "lte", "fair")
    several = [part for preset in presets for part in ("--preset", preset)]
    together = invoke(*ask, *several, "--json", "all.json", "--csv", "all.csv", "--results", "all.jsonl")
    alone = []
    for preset in presets:
        table = invoke(*ask, "--preset", preset, "--json", f"{preset}.json")
        assert all(row in together for row in table.splitlines() if re.match(r"\s*x\d", row))
        alone += json.loads((files / f"{preset}.json").read_text())["results"]
    assert json.loads((files / "all.json").read_text())["results"] == alone
    rows = list(csv.DictReader((files / "all.csv").open()))
    assert len(rows) == len(presets) * 2 * IMAGES
    for row in rows:
        (score,) = [r for r in alone if (r["protocol"], str(r["scale"])) == (row["protocol"], row["scale"])]
        assert float(row["psnr"]) == score["images"][row["image"]]
        assert float(row["bicubic_psnr"]) == score["bicubic"]["images"][row["image"]]
    found = lines(files / "all.jsonl")
    assert sorted((line["preset"]["name"], line["scale"]) for line in found) == sorted(
        (preset, scale) for preset in presets for scale in (2, 3)
    )
    for line in found:
        mean = np.mean([image["psnr"] for image in line["images"].values()])
        assert line["mean"]["psnr"] == pytest.approx(mean) and len(line["model"]["sha256"]) == 64
        assert ("interval" in line) == (line["preset"]["name"] == "fair")


def test_without_a_scale_those_of_the_preset(files):
    found = invoke("evaluate", "one.safetensors", "--hr", "photos", "--preset", "liif-benchmark", "--quiet")
    assert "| x2 | x3 | x4 | x6 | x8 |" in found and "protocol `liif-benchmark`" in found
    for command in (["evaluate", "one.safetensors"], ["compare", "one.safetensors", "bicubic", "--out", "out"]):
        said = invoke(*command, "--hr", "photos", "--preset", "fair", code=2)
        assert "--scale: expected at least one, such as 4: there are no usual scales of fair" in said
        said = invoke(*command, "--hr", "photos", "--lr", "photos", "--preset", "srno", code=2)
        assert "--lr: goes with a single --scale; give the one that its images have" in said
    said = invoke("evaluate", "one.safetensors", "--hr", "photos", "--preset", "lte", "--preset", "div2k", code=2)
    assert "the scales of the protocols' own tables differ (lte x2, x3, x4, x6, x8; div2k x2, " in said


def test_results_are_added(files):
    ask = ("evaluate", "one.safetensors", "--hr", "photos", "--scale", 2, "--quiet", "--results", "r.jsonl")
    invoke(*ask)
    invoke(*ask)
    assert len(lines(files / "r.jsonl")) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "fare"], r"--protocol fare: expected one of .*\(did you mean 'fair'\?\)"),
        (["--results", "photos"], "--results photos: (is a folder|would replace)"),
        (["--results", "one.safetensors"], "--results one.safetensors: would replace one.safetensors"),
        (["--csv", "x", "--json", "x"], "--csv x: is the file of --json too"),
        (["--preset", "benchmark", "--preset", "thera", "--scale", "0"], "--scale 0: expected a positive number"),
    ],
)
def test_mistakes_of_evaluate(files, arguments, message):
    before = (files / "one.safetensors").read_bytes()
    error = invoke("evaluate", "one.safetensors", "--hr", "photos", "--scale", 2, *arguments, code=2)
    assert re.search(message, error) and "Traceback" not in error
    assert (files / "one.safetensors").read_bytes() == before


# compare


def compared(files, *more):
    return invoke(
        *("compare", "one.safetensors", "two.safetensors", "bicubic", "lanczos", "--hr", "photos"),
        *("--scale", 2, "--scale", 2.5, "--preset", "fair", "--out", "out", "--quiet", *more),
    )


def test_the_numbers_are_those_of_evaluate(files):
    said = compared(files, "--ssim", "--results", "more.jsonl")
    found = lines(files / "out" / "results.jsonl")
    assert {(line["model"]["name"], line["scale"]) for line in found} == {
        (name, scale) for name in ("one", "two", "bicubic", "lanczos") for scale in (2, 2.5)
    }
    assert lines(files / "more.jsonl") == found
    by_name = {(line["model"]["name"], line["scale"]): line for line in found}
    for name in ("one", "two"):
        invoke("evaluate", f"{name}.safetensors", "--hr", "photos", "--scale", 2, "--scale", 2.5, "--preset", "fair",
               "--ssim", "--quiet", "--json", "e.json")  # fmt: skip
        for score in json.loads((files / "e.json").read_text())["results"]:
            line = by_name[name, score["scale"]]
            assert line["mean"]["psnr"] == score["psnr"] and line["mean"]["ssim"] == score["ssim"]
            assert {image: values["psnr"] for image, values in line["images"].items()} == score["images"]
            assert by_name["bicubic", score["scale"]]["mean"]["psnr"] == pytest.approx(score["bicubic"]["psnr"])
    for line in found:  # the table says them, in order
        assert f"{line['mean']['psnr']:.2f}" in said
    for scale in (2, 2.5):
        ranked = sorted((line for line in found if line["scale"] == scale), key=lambda line: -line["mean"]["psnr"])
        part = said[said.index(f"\nx{scale}\n") :]
        places = [part.index(f"{line['model']['name']} ") for line in ranked]
        assert places == sorted(places)


class Page(HTMLParser):
    """What a page holds: tags without their end, addresses, images without a text."""

    VOID = ("meta", "img", "br", "hr", "link", "input", "col")

    def __init__(self, text):
        super().__init__()
        self.open, self.addresses, self.silent, self.tags = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href") and value]
        if tag == "img" and not given.get("alt"):
            self.silent.append(given)
        if tag not in self.VOID and "svg" not in self.open:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if "svg" in self.open and tag != "svg":
            return
        assert self.open.pop() == tag


def test_the_page_needs_nothing_else(files):
    compared(files)
    text = (files / "out" / "report.html").read_text()
    page = Page(text)
    assert not page.open and not page.silent
    assert page.addresses and all(address.startswith(("data:", "#")) for address in page.addresses)
    assert not re.search(r"url\((?!['\"]?data:)|@import|<script[^>]*src", text)
    for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ET.fromstring(drawing)
    assert "svg" in page.tags and page.tags.count("table") >= 2
    assert all(f"{number}.png" in text for number in range(IMAGES))


def test_tables(files):
    compared(files)
    out = files / "out"
    found = lines(out / "results.jsonl")
    rows = list(csv.DictReader((out / "table.csv").open()))
    assert len(rows) == len(found)
    latex, markdown = (out / "table.tex").read_text(), (out / "report.md").read_text()
    for line in found:
        assert f"{line['mean']['psnr']:.2f}" in latex and f"{line['mean']['psnr']:.2f}" in markdown
    best = max(line["mean"]["psnr"] for line in found if line["scale"] == 2)
    assert rf"\textbf{{{best:.2f}}}" in latex and latex.count(r"\toprule") == latex.count(r"\bottomrule") == 1


def test_names_are_escaped(files):
    odd = 'a<b>&"_%'
    model = small_model(liif_core.discover(), hidden=(8,), residual="bilinear")
    save_checkpoint("odd.safetensors", Checkpoint(model.state_dict(), {"name": odd, "model": SMALL_TABLE}))
    invoke("compare", "odd.safetensors", "bicubic", "--hr", "photos", "--scale", 2, "--out", "out", "--quiet")
    assert "<b>" not in (files / "out" / "report.html").read_text()
    assert r'a<b>\&"\_\%' in (files / "out" / "table.tex").read_text()


def test_old_reports_are_replaced_on_request_only(files):
    compared(files)
    (files / "out" / "report.md").write_text("mine")
    error = invoke("compare", "one.safetensors", "bicubic", "--hr", "photos", "--scale", 2, "--out", "out", code=2)
    assert "already exist; give another folder, or --overwrite" in error
    assert (files / "out" / "report.md").read_text() == "mine"
    compared(files, "--overwrite")
    assert (files / "out" / "report.md").read_text() != "mine"


def test_mistakes_of_compare(files):
    error = invoke(
        *("compare", "one.safetensors", "one.safetensors", "--hr", "photos", "--scale", "x", "--preset", "none"),
        *("--out", "one.safetensors", "--precision", "int8"),
        code=2,
    )
    assert len(error.splitlines()) == 5 and all(line.startswith("error: ") for line in error.splitlines())
    for part in ("given twice", "--scale x", "--preset none: expected one of", "int8", "--out one.safetensors"):
        assert part in error
    error = invoke("compare", "none.safetensors", "nobody", "--hr", "photos", "--scale", 2, "--out", "o", code=2)
    assert "none.safetensors" in error and "nobody" in error and not (files / "o").exists()
    assert "is written to --out already" in invoke(
        *("compare", "bicubic", "lanczos", "--hr", "photos", "--scale", 2, "--out", "o"),
        *("--results", "o/../o/results.jsonl"),
        code=2,
    )
    assert "at least two" in invoke("compare", "bicubic", "--hr", "photos", "--scale", 2, "--out", "o", code=2)


def test_models_of_other_channels(files, registry):
    table = SMALL_TABLE | {"channels": 1}
    model = small_model(registry, hidden=(8,), residual="bilinear", channels=1)
    save_checkpoint("gray.safetensors", Checkpoint(model.state_dict(), {"name": "gray", "model": table}))
    error = invoke(
        "compare", "one.safetensors", "gray.safetensors", "--hr", "photos", "--scale", 2, "--out", "o", code=2
    )
    assert "one takes 3" in error and "gray takes 1" in error


# leaderboard


def test_a_leaderboard_of_all_results(files):
    compared(files)
    invoke("evaluate", "one.safetensors", "--hr", "photos", "--scale", 2, "--preset", "fair", "--quiet",
           "--results", "out/again.jsonl")  # fmt: skip
    said = invoke("leaderboard", "out", "-o", "board.html", "--markdown", "board.md", "--title", "Of <all>")
    assert "8 results in 2 tables; 1 older result of the same models left out: board.html" in said
    text = (files / "board.html").read_text()
    page = Page(text)
    assert not page.open and all(address.startswith(("data:", "#")) for address in page.addresses)
    assert "Of &lt;all&gt;" in text and "<all>" not in text
    for line in lines(files / "out" / "results.jsonl"):
        assert (
            f"{line['mean']['psnr']:.2f}" in text and f"{line['mean']['psnr']:.2f}" in (files / "board.md").read_text()
        )


def test_other_images_have_a_table_of_their_own(files):
    compared(files)
    (files / "other" / "photos").mkdir(parents=True)
    Image.open("photos/0.png").rotate(90, expand=True).save("other/photos/0.png")
    invoke("evaluate", "one.safetensors", "--hr", "other/photos", "--scale", 2, "--preset", "fair", "--quiet",
           "--results", "out/other.jsonl")  # fmt: skip
    said = invoke("leaderboard", "out", "-o", "board.html")
    assert "9 results in 3 tables" in said and "of other images or LR images" in said and "Do not compare them" in said


def test_lines_that_are_no_results_are_named(files):
    compared(files)
    good = (files / "out" / "results.jsonl").read_text().splitlines()
    newer = good[0].replace('"version": 1', '"version": 2', 1)
    wrong = json.loads(good[1])
    wrong["mean"]["psnr"] += 1
    (files / "out" / "bad.jsonl").write_text("\n".join([good[0], "{", newer, '{"a": 1}', json.dumps(wrong), ""]))
    error = invoke("leaderboard", "out", "-o", "board.html", code=2)
    assert [re.search(r"bad.jsonl, line (\d)", line)[1] for line in error.splitlines()] == ["2", "3", "4", "5"]
    for part in ("not valid JSON", "format version 2; this liif-core reads 1", "not a result", "mean.psnr: expected"):
        assert part in error
    assert not (files / "board.html").exists()


def test_mistakes_of_leaderboard(files):
    assert "no such folder" in invoke("leaderboard", "none", "-o", "b.html", code=2)
    assert "no files *.jsonl" in invoke("leaderboard", "photos", "-o", "b.html", code=2)
    assert "end with .jsonl" in invoke("leaderboard", "photos", "-o", "b.jsonl", code=2)
    assert "is the file of -o too" in invoke("leaderboard", "photos", "-o", "b", "--markdown", "b", code=2)
