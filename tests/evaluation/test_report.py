import json
import math

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from liif_core.data.resize import bicubic, torchvision
from liif_core.evaluation.report import (
    Report,
    comparison_picture,
    detailed_crop,
    scores_table,
    to_json,
    to_markdown,
)
from liif_core.evaluation.scores import Score, results_json
from liif_core.sizes import Scale


def score(dataset="Set5", scale=2.0, psnr=37.994, **changes):
    values = dict(protocol="benchmark", bicubic_psnr=33.655, bicubic_images={"a.png": 33.655}, **changes)
    return Score(dataset, scale=Scale.of(scale), psnr=psnr, images={"a.png": psnr}, **values)


REPORT = Report(
    name="edsr",
    scores=[
        score(scale=4, psnr=32.2),
        score(),
        score("DIV2K", (2, 3.5), picture="pictures/DIV2K.png", given_low=1),
    ],
    note="Not comparable with the paper.",
    profile="samples",
    skipped=[("Set14", "data/Set14: no such folder")],
    model_fingerprint="0f",
    data_fingerprints={"Set5": "1a"},
    versions={"torch": "2.13.0"},
    seconds=61.25,
    parameters=1_567_619,
    device="cpu",
    trained={"steps": 1200, "best": 31.236, "best_step": None},
)


def strict(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_json_has_what_tools_rely_on():
    data = strict(to_json(REPORT))
    assert data["results"][0] == {
        "dataset": "Set5",
        "protocol": "benchmark",
        "scale": 4,
        "psnr": 32.2,
        "images": {"a.png": 32.2},
        "bicubic": {"psnr": 33.655, "images": {"a.png": 33.655}},
        "lr": {"given": 0, "made": 1},
    }
    assert data["results"][2]["scale"] == [2, 3.5]
    assert data["results"][2]["picture"] == "pictures/DIV2K.png"
    assert data["results"][2]["lr"] == {"given": 1, "made": 0}
    assert data["skipped"] == [{"dataset": "Set14", "reason": "data/Set14: no such folder"}]
    assert data["model"] == {"fingerprint": "0f", "parameters": 1_567_619}
    assert data["data"] == {"Set5": "1a"}
    assert data["note"] == REPORT.note and data["profile"] == "samples" and data["seconds"] == 61.25
    assert data["trained"] == {"steps": 1200, "best": 31.236, "best_step": None}
    assert strict(results_json(REPORT.scores)) == {"results": data["results"]}


def test_json_stays_json_where_images_are_equal():
    result = strict(results_json([score(psnr=math.inf)]))["results"][0]
    assert result["psnr"] is None and result["images"] == {"a.png": None}
    data = strict(to_json(attrs.evolve(REPORT, trained={"best": math.inf, "more": [math.nan, 1.5]})))
    assert data["trained"] == {"best": None, "more": [None, 1.5]}


def test_json_has_ssim_where_it_was_asked_for():
    result = strict(results_json([score(ssim=0.96, bicubic_ssim=0.93)]))["results"][0]
    assert (result["ssim"], result["bicubic"]["ssim"]) == (0.96, 0.93)


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def test_the_table_has_a_row_for_each_method_and_a_column_for_each_scale():
    rows = [cells(line) for line in scores_table(REPORT.scores, "edsr").splitlines() if line.startswith("|")]
    assert rows == [
        ["dataset", "method", "x2", "x2,3.5", "x4"],
        ["---", "---", "---:", "---:", "---:"],
        ["Set5 (1 image)", "bicubic", "33.66", "", "33.66"],
        ["", "edsr", "37.99", "", "32.20"],
        ["DIV2K (1 image)", "bicubic", "", "33.66", ""],
        ["", "edsr", "", "37.99", ""],
    ]


def test_each_protocol_has_a_table_of_its_own():
    text = scores_table([score(), attrs.evolve(score("DIV2K"), protocol="div2k")])
    assert text.count("| dataset | method |") == 2
    assert "protocol `benchmark`" in text and "protocol `div2k`" in text


def test_the_table_says_where_lr_images_came_from():
    assert scores_table([score()]).endswith("\n\nLR images were made of HR by PIL bicubic.")
    assert scores_table([score(given_low=1)]).endswith("\n\nLR images came with the data.")


def test_ssim_stands_beside_psnr():
    assert "37.99 / 0.9607" in scores_table([score(ssim=0.96065, bicubic_ssim=0.93)])


def test_markdown_says_what_was_and_was_not_measured():
    text = to_markdown(REPORT)
    assert text.index("**Not comparable with the paper.**") < text.index("| dataset")
    for part in [
        "# edsr",
        "- Set14: data/Set14: no such folder",
        "![DIV2K](<pictures/DIV2K.png>)",
        "LR images were made of HR by PIL bicubic, except those that came with DIV2K x2,3.5.",
        "- trained, steps: 1,200",
        "- trained, best: 31.24",
        "- parameters: 1,567,619",
        "- data of Set5, SHA-256: 1a",
    ]:
        assert part in text
    assert "None" not in text


def test_a_report_of_the_least():
    text = to_markdown(Report(name="model", scores=[score()]))
    assert "**" not in text and "Not evaluated" not in text and "Pictures" not in text
    assert strict(to_json(Report(name="model", scores=[])))["results"] == []


@given(st.text(max_size=30))
def test_no_name_breaks_the_table(name):
    lines = scores_table([score(name)], name).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 4
    assert {len(line.replace("\\|", "").split("|")) for line in table} == {5}


def test_the_crop_is_where_the_detail_is():
    image = torch.full((3, 120, 160), 0.5)
    image[:, 40:72, 53:85] = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert detailed_crop(image) == (40, 53, 72, 85)


@pytest.mark.parametrize("size, side", [((7, 90), 7), ((100, 300), 32), ((400, 300), 75), ((2000, 1500), 128)])
def test_the_crop_is_a_square_inside(size, side):
    top, left, bottom, right = detailed_crop(torch.rand(3, *size))
    assert top >= 0 and bottom <= size[0] and left >= 0 and right <= size[1]
    assert bottom - top == right - left == side


def shown(image):
    """uint8 (h, w, 3) as it must appear."""
    return (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).expand(-1, -1, 3).numpy()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_picture_shows_the_crops_pixel_by_pixel(channels):
    low = torch.rand(channels, 30, 40)
    *views, target = (torch.rand(channels, 120, 160) * 1.2 - 0.1 for _ in range(3))
    picture = np.asarray(comparison_picture(low, *views, target[None], crop=(40, 52, 72, 84)))
    found = []
    for image in (*views, target):
        wanted = np.kron(shown(image[:, 40:72, 52:84]), np.ones((8, 8, 1), dtype=np.uint8))
        starts = np.argwhere((picture[:-255, :-255] == wanted[0, 0]).all(-1)).tolist()
        places = [(y, x) for y, x in starts if (picture[y : y + 256, x : x + 256] == wanted).all()]
        assert len(places) == 1
        found += places
    (bicubic_y, bicubic_x), (model_y, model_x), (target_y, target_x) = found
    assert bicubic_x == target_x and model_y == target_y and bicubic_y < model_y and model_x < target_x
    enlarged = np.kron(shown(low[:, 10:18, 13:21]), np.ones((32, 32, 1), dtype=np.uint8))
    assert (picture[bicubic_y : bicubic_y + 256, model_x : model_x + 256] == enlarged).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.integers(1, 200), st.integers(1, 9), st.integers(1, 30), st.sampled_from([1, 2, 3, 5]))
def test_any_size_makes_a_picture(height, width, low_height, low_width, channels):
    target = torch.rand(channels, height, width)
    picture = comparison_picture(torch.rand(channels, low_height, low_width), target, target, target)
    assert picture.mode == "RGB" and max(picture.size) < 2000


def test_pictures_that_cannot_be_made():
    image = torch.rand(3, 20, 20)
    with pytest.raises(ValueError, match="one size"):
        comparison_picture(image, image, image, image[:, :-1])
    for crop in [(0, 0, 21, 5), (5, 5, 5, 9), (-1, 0, 4, 4)]:
        with pytest.raises(ValueError, match="inside 20 x 20"):
            comparison_picture(image, image, image, image, crop)


def test_torchvision_is_imported_once_and_works():
    assert torchvision() is torchvision()
    assert torchvision().utils.make_grid(torch.zeros(4, 3, 5, 5), nrow=2).shape == (3, 16, 16)


@pytest.mark.parametrize("size", [(9, 40), (31, 7), (50, 50)])
def test_bicubic_is_that_of_pillow(size):
    image = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))
    assert (bicubic(image, size) == expected).all()
    assert (bicubic(image[..., :1], size) == expected[..., :1]).all()
