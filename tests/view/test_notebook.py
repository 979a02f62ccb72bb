"""``liif_core.view.show``: a frame for notebooks, of files and of images in memory."""

import re
import subprocess
import sys

import httpx
import numpy as np
import pytest
from PIL import Image
from viewing import smooth

import liif_core
from liif_core import UserError
from liif_core.view import notebook

PICTURE = smooth(20, 30)


@pytest.fixture(autouse=True)
def own_server(monkeypatch):
    monkeypatch.setattr(notebook, "_running", [])
    yield
    for running in notebook._running:
        running.stop()


def image_of(view):
    """What the server says of the image that a view shows."""
    base, _, identifier = view.url.partition("#image=")
    return httpx.get(f"{base}api/images/{identifier}").json()


def test_images_of_every_kind(model, second_model, tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "a b.png")
    views = [
        liif_core.view.show(given, model)
        for given in (
            tmp_path / "a b.png",
            str(tmp_path / "a b.png"),
            PICTURE,
            PICTURE[..., 0],
            Image.fromarray(PICTURE),
        )
    ]
    assert len({view.url.partition("#")[0] for view in views}) == 1 and len({view.url for view in views}) == 5
    for view in views:
        found = image_of(view)
        assert (found["width"], found["height"], found["full_width"]) == (30, 20, 480) and list(found["layers"]) == [
            "model"
        ]
    two = liif_core.view.show(PICTURE, [model, second_model], zoom=3, height=300)
    assert image_of(two)["full_width"] == 90
    assert list(image_of(two)["layers"]) == ["model", "model-2"]
    frame = two._repr_html_()
    assert re.fullmatch(
        r'<iframe src="http://127\.0\.0\.1:\d+/#image=[^"<>]+" title="[^"]+".*height: 300px.*></iframe>', frame
    )


def test_a_model_by_name_and_the_default():
    for model in (None, "clean"):
        assert image_of(liif_core.view.show(PICTURE, model))["layers"]["model"]["name"] == "clean"


@pytest.mark.parametrize(
    ("image", "options", "error", "message"),
    [
        (5, {}, TypeError, "image: expected a path"),
        ("none.png", {}, UserError, "none.png"),
        (PICTURE, {"model": 5}, TypeError, "model: expected a model"),
        (PICTURE, {"model": []}, ValueError, "model: expected one model or two, got 0"),
        (PICTURE, {"model": ["clean"] * 3}, ValueError, "got 3"),
        (PICTURE, {"model": "nobody"}, UserError, "nobody"),
        (PICTURE, {"zoom": 0}, ValueError, "zoom: expected a number from 1 to 1024"),
        (PICTURE, {"zoom": "4"}, ValueError, "zoom: "),
        (PICTURE, {"memory": "x"}, ValueError, "expected at least 1MB"),
        (np.zeros((4, 4, 7), np.uint8), {}, (TypeError, ValueError), "7"),
    ],
)
def test_mistakes(model, image, options, error, message):
    with pytest.raises(error, match=message):
        liif_core.view.show(image, **{"model": model, **options})


def test_the_package_is_light():

    code = "import sys, liif_core.view; print([n for n in ('torch', 'starlette', 'uvicorn') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
