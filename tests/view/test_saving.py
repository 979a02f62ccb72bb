"""Saving a region: the pixels and metadata of ``upscale``, errors before it begins, progress, and cancelling."""

import io
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from reference import small_model
from viewing import smooth, viewing

from liif_core.view import saving
from liif_core.view.gallery import NamedModel

PICTURE = smooth(60, 75)
WANTED = {
    "image": "p.png", "layer": "model", "region": [10, 20.5, 40, 60.5], "width": 100, "height": 75, "format": "png"
}  # fmt: skip


def saved(viewer, wanted):
    """The answer's file, once it is done."""
    answer = viewer.client.post("api/saves", json=wanted)
    assert answer.status_code == 201, answer.text
    number = answer.json()["id"]
    end = time.monotonic() + 30
    while (state := viewer.get(f"api/saves/{number}").json())["state"] in ("waiting", "rendering"):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert state["state"] == "done" and state["done"] == 1, state
    return viewer.get(f"api/saves/{number}/file"), state


def test_a_region_is_what_upscale_makes_of_it(model, entry):
    with viewing(entry(PICTURE, "p.png")) as viewer:
        for format, media in (("png", "image/png"), ("tif", "image/tiff")):
            file, state = saved(viewer, WANTED | {"format": format})
            assert file.headers["content-type"] == media
            assert f'filename="p-100x75.{format}"' in file.headers["content-disposition"]
            assert state["name"] == f"p-100x75.{format}"
            expected = model.upscale(PICTURE, width=100, height=75, region=WANTED["region"])
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(file.content))), expected)


def test_bits_alpha_and_metadata_are_kept(model, entry):
    deep = smooth(40, 50, 1)[..., 0].astype(np.uint16) * 257
    exif = Image.Exif()
    exif[0x010E] = "a description"
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "somebody")
    picture = np.dstack([PICTURE, smooth(60, 75, 1, seed=2)])
    entries = entry(deep, "deep.png") | entry(picture, "p.png", dpi=(300, 300), exif=exif, pnginfo=text)
    with viewing(entries, folder="two") as viewer:
        file, _ = saved(viewer, WANTED | {"image": "deep.png", "region": [0, 0, 20, 25], "width": 50, "height": 40})
        image = Image.open(io.BytesIO(file.content))
        assert image.mode == "I;16"
        expected = model.upscale(deep, width=50, height=40, region=(0, 0, 20, 25))
        assert np.array_equal(np.asarray(image), expected)
        file, _ = saved(viewer, WANTED)
        image = Image.open(io.BytesIO(file.content))
        assert (
            image.mode == "RGBA" and image.getexif()[0x010E] == "a description" and image.text["Author"] == "somebody"
        )
        assert tuple(round(side) for side in image.info["dpi"]) == (300, 300)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "gif"}, "format: expected one of png, tif, got 'gif'"),
        ({"layer": "bicubic"}, "layer 'bicubic': expected one of model"),
        ({"layer": 5}, "layer: expected a text, got 5"),
        ({"region": [0, 0, 90, 10]}, "region: it ends at row 90"),
        ({"region": [5, 5, 5, 9]}, "region: expected"),
        ({"region": "all"}, "region: expected"),
        ({"region": [0, 0, float("inf"), 1]}, "region|JSON"),
        ({"width": 0}, "width: expected 1 to"),
        ({"width": "10"}, "width: expected a whole number"),
        ({"width": None, "height": None}, "expected a scale, or a width"),
        ({"width": 100_001}, "at most 100,000 pixels"),
        ({"width": 100_000, "height": 99_999}, "may need 30.0 GB, and .* has 0.0 GB free"),
        ({"format": None, "layer": None}, "layer: .*; format: "),
    ],
)
def test_mistakes_are_refused_before_anything_is_computed(entry, change, message, monkeypatch):
    if "GB free" in message:
        monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10**6}))
    with viewing(entry(PICTURE, "p.png")) as viewer:
        body = json.dumps(WANTED | change)
        answer = viewer.client.post("api/saves", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        assert re.search(message, error), error
        assert not viewer.server.saves._saves


@pytest.mark.parametrize("body", ["", "[]", "{", "null", "5", '"x"'])
def test_bodies_that_are_no_request(entry, body):
    with viewing(entry(PICTURE, "p.png")) as viewer:
        answer = viewer.client.post("api/saves", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400 and answer.json()["error"]
        large = viewer.client.post("api/saves", content="1" * 20_000, headers={"Content-Type": "application/json"})
        assert large.status_code == 413
        chunked = viewer.client.post(
            "api/saves", content=(b"1" * 1000 for _ in range(20)), headers={"Content-Type": "application/json"}
        )
        assert chunked.status_code == 413


def test_a_picture_that_is_not_there(entry):
    with viewing(entry(PICTURE, "p.png")) as viewer:
        assert viewer.client.post("api/saves", json=WANTED | {"image": "other"}).status_code == 404


def test_cancelling_removes_what_was_written(registry, entry, monkeypatch):
    model = small_model(registry)
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda *args: time.sleep(0.05) or encode(*args))
    with viewing(entry(PICTURE, "p.png", [NamedModel("slow", model)]), memory=40_000_000) as viewer:
        folder = Path(viewer.server.saves._folder.name)
        wanted = WANTED | {"region": [0, 0, 60, 75], "width": 3000, "height": 2400}
        number = viewer.client.post("api/saves", json=wanted).json()["id"]
        while viewer.get(f"api/saves/{number}").json()["done"] == 0:
            time.sleep(0.01)
        assert viewer.get(f"api/saves/{number}/file").status_code == 409
        assert viewer.client.delete(f"api/saves/{number}").json()["state"] == "cancelled"
        end = time.monotonic() + 20
        while list(folder.iterdir()):
            assert time.monotonic() < end
            time.sleep(0.01)
        assert viewer.get(f"api/saves/{number}").json()["state"] == "cancelled"
        assert viewer.get("iiif/model/p.png/0,0,64,64/max/0/default.png").status_code == 200
    assert not folder.exists()


def test_a_model_that_fails_meanwhile(registry, entry, monkeypatch):
    model = small_model(registry)
    model.decoder.layers[-1].bias.fill_(float("nan"))
    with viewing(entry(PICTURE, "p.png", [NamedModel("broken", model)])) as viewer:
        number = viewer.client.post("api/saves", json=WANTED).json()["id"]
        while (state := viewer.get(f"api/saves/{number}").json())["state"] in ("waiting", "rendering"):
            time.sleep(0.01)
        assert state["state"] == "failed" and "NaN or infinite" in state["error"]
        assert not list(Path(viewer.server.saves._folder.name).iterdir())


def test_old_files_are_removed(entry, monkeypatch):
    monkeypatch.setattr(saving, "_KEPT", 2)
    with viewing(entry(PICTURE, "p.png")) as viewer:
        files = [saved(viewer, WANTED | {"width": width}) for width in (10, 20, 30, 40)]
        statuses = [viewer.get(f"api/saves/{state['id']}").status_code for _, state in files]
        assert statuses == [404, 200, 200, 200]


def test_tiles_do_not_wait_for_a_save(registry, entry):
    """A save is one client among others: between two of its bands, tiles are rendered."""
    model = small_model(registry)
    with viewing(entry(PICTURE, "p.png", [NamedModel("small", model)]), memory=20_000_000) as viewer:
        wanted = WANTED | {"region": [0, 0, 60, 75], "width": 4000, "height": 3200}
        number = viewer.client.post("api/saves", json=wanted).json()["id"]
        for left in range(0, 1000, 200):
            assert viewer.get(f"iiif/model/p.png/{left},0,64,64/max/0/default.png").status_code == 200
        assert viewer.get(f"api/saves/{number}").json()["state"] in ("waiting", "rendering")
        viewer.client.delete(f"api/saves/{number}")
