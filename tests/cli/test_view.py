"""``liif view``: options and files checked together, the address, two models, folders, and the end by a signal."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from urllib.parse import quote

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from reference import SMALL_TABLE, small_model

from liif_core import view
from liif_core.cli import liif
from liif_core.training.checkpoint import Checkpoint, save_checkpoint
from liif_core.view.opening import image_files


@pytest.fixture
def files(place, registry):
    """Two checkpoints and two pictures in the current folder."""
    for number, name in enumerate(("one", "two")):
        model = small_model(registry, hidden=(8,), residual="bilinear", seed=number)
        save_checkpoint(f"{name}.safetensors", Checkpoint(model.state_dict(), {"name": name, "model": SMALL_TABLE}))
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    (place / "photos" / "sub").mkdir(parents=True)
    Image.fromarray(pixels).save("photo.png")
    Image.fromarray(pixels).save("photos/a.png")
    Image.fromarray(pixels).save("photos/sub/b.jpg")
    (place / "photos" / "bad.png").write_bytes(b"no image")
    (place / "photos" / "text.txt").write_text("no image")
    (place / "photos" / ".hidden.png").write_bytes(b"no image")
    return place


def invoke(*arguments):
    result = CliRunner().invoke(liif, ["view", *map(str, arguments), "--no-browser"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stderr


def heed_interruption():
    """Tests that a shell runs in the background inherit that SIGINT is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Serving:
    """``liif view`` in a process of its own."""

    def __init__(self, *arguments, **environment):
        command = [sys.executable, "-m", "liif_core", "view", *arguments, "--no-browser", "--memory", "300MB"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment},
            preexec_fn=heed_interruption if os.name == "posix" else None,
        )  # fmt: skip
        self.said = []
        for line in self.process.stdout:
            self.said.append(line)
            if found := re.search(r"http://\S+/", line):
                self.url = found[0]
                return
        raise AssertionError(f"it ended: {self.said} {self.process.stderr.read()}")

    def json(self, path):
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return json.load(answer)

    def end(self, number):
        self.process.send_signal(number)
        output, errors = self.process.communicate(timeout=30)
        return self.process.returncode, output + errors


@pytest.fixture
def serving():
    if os.name != "posix":
        pytest.skip("its server is ended by signals of POSIX")
    running = []

    def serve(*arguments, **environment):
        running.append(Serving(*arguments, **environment))
        return running[-1]

    yield serve
    for each in running:
        each.process.kill()
        each.process.communicate()


def test_a_picture_with_two_models_until_interrupted(files, serving):
    viewer = serving("photo.png", "--checkpoint", "one.safetensors", "--checkpoint", "two.safetensors", "--port", "0")
    assert viewer.said[-1].startswith(f"photo.png: {viewer.url} (Ctrl-C")
    session = viewer.json("api/session")
    assert [image["id"] for image in session["images"]] == ["photo.png"]
    assert [layer["name"] for layer in session["layers"]][:2] == ["one.safetensors", "two.safetensors"]
    for layer in ("model", "model-2", "bicubic"):
        with urllib.request.urlopen(f"{viewer.url}iiif/{layer}/photo.png/0,0,64,64/max/0/default.png") as tile:
            assert Image.open(tile).size == (64, 64)
    assert viewer.end(signal.SIGINT) == (0, "")


def test_a_folder_until_terminated(files, serving):
    viewer = serving("photos", "--checkpoint", "one.safetensors", "--port", "0", "--zoom", "3")
    session = viewer.json("api/session")
    found = {image["id"]: image["problem"] for image in session["images"]}
    assert list(found) == ["a.png", "bad.png", "sub/b.jpg"] and session["folder"] and session["title"] == "photos"
    assert found["a.png"] is None and "bad.png" in found["bad.png"]
    assert viewer.json("api/images/sub%2Fb.jpg")["full_width"] == 120
    assert viewer.end(signal.SIGTERM) == (0, "")


@pytest.mark.skipif(sys.platform != "linux", reason="needs file names of any bytes")
def test_a_name_that_is_not_utf8(files, serving):
    os.rename("photos/a.png", b"photos/a\xff.png")
    viewer = serving("photos", "--checkpoint", "one.safetensors", "--port", "0")
    name = viewer.json("api/session")["images"][0]["id"]
    assert name == "a\\udcff.png" and viewer.json(f"api/images/{quote(name)}")["width"] == 40


def test_a_folder_that_cannot_be_read(files, monkeypatch):
    def walk(folder, onerror):
        onerror(PermissionError(13, "Permission denied", f"{folder}/secret"))
        yield str(folder), [], ["a.png"]

    monkeypatch.setattr("liif_core.view.opening.os.walk", walk)
    found, unreadable = image_files(files / "photos")
    assert list(found) == ["a.png"]
    assert unreadable == [f"{files}/photos/secret: cannot be read (Permission denied), and was left out"]


def test_an_address_of_the_other_kind(files, serving):
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError as problem:
        pytest.skip(f"no IPv6 on this machine: {problem}")
    viewer = serving("photo.png", "--checkpoint", "one.safetensors", "--port", "0", "--host", "::1")
    assert viewer.url.startswith("http://[::1]:") and viewer.json("api/session")["title"] == "photo.png"


def test_the_included_models(files, serving, registry):
    offered = {model.name for model, _ in registry.models}
    assert {"clean", "photo"} <= offered
    viewer = serving("photos", "--port", "0")
    assert "model 'photo' for 1 file compressed with losses (JPEG)" in viewer.said[0]
    layers = {name: viewer.json(f"api/images/{name}")["layers"]["model"]["name"] for name in ("a.png", "sub%2Fb.jpg")}
    assert layers == {"a.png": "clean", "sub%2Fb.jpg": "photo"}


def test_mistakes_are_reported_together(files):
    code, errors = invoke(
        "none.png", "--zoom", "0", "--memory", "1", "--port", "70000",
        *("--checkpoint", "one.safetensors") * 2, "--model", "clean",
    )  # fmt: skip
    assert code == 2
    lines = errors.splitlines()
    assert len(lines) == 5 and all(line.startswith("error: ") for line in lines)
    for part in (
        "--memory 1: expected at least 1MB", "--zoom 0: expected a number from 1 to 1024",
        "--checkpoint, --model: expected at most 2 models to compare, got 3",
        "--port 70000: expected a number from 0 to 65535", "none.png: no such file or folder",
    ):  # fmt: skip
        assert part in errors


@pytest.mark.parametrize("zoom", ["nan", "inf", "-3", "1025", "0.5"])
def test_zooms_that_are_none(files, zoom):
    assert "--zoom" in invoke("photo.png", "--zoom", zoom)[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photos/bad.png"], "photos/bad.png: "),
        (["photos/text.txt"], "photos/text.txt: "),
        (["photo.png", "--checkpoint", "none.safetensors"], "none.safetensors: cannot be read: No such file"),
        (["photo.png", "--checkpoint", "photo.png"], "photo.png: "),
        (["photo.png", "--model", "nobody"], "nobody"),
        (["photo.png", "--device", "cuda:99"], "device: 'cuda:99' is not on this machine"),
        (["photo.png", "--max-pixels", "100"], "photo.png: "),
        (["photos/sub/../empty"], "no such file"),
        (["photo.png", "--host", "203.0.113.1"], "--host 203.0.113.1: cannot listen there"),
        (["photo.png", "--host", "no.such.host.invalid"], "cannot listen there"),
    ],
)
def test_one_mistake_one_line(files, arguments, message):
    code, errors = invoke(*arguments)
    assert code == 2 and errors.startswith("error: ") and len(errors.splitlines()) == 1 and message in errors, errors


def test_a_folder_without_images(files):
    (files / "empty").mkdir()
    assert invoke("empty") == (2, "error: empty: no image in this folder\n")


def test_a_port_that_is_taken(files):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, errors = invoke("photo.png", "--checkpoint", "one.safetensors", "--port", port)
        assert code == 2 and f"--port {port}: cannot listen there (Address already in use); choose another" in errors


def test_without_the_packages(files, monkeypatch):
    monkeypatch.setattr(view, "find_spec", lambda name: None)
    code, errors = invoke("photo.png")
    assert code == 2 and 'pip install "liif-core[view]"' in errors and "starlette and uvicorn" in errors


def test_the_first_frame_of_an_animation(files, serving):
    frames = [Image.fromarray(np.full((8, 9, 3), level, np.uint8)) for level in (10, 200)]
    frames[0].save("moving.gif", save_all=True, append_images=frames[1:])
    viewer = serving("moving.gif", "--checkpoint", "one.safetensors", "--port", "0")
    assert "the file has 2 frames: the first is shown" in viewer.json("api/images/moving.gif")["notes"]
    with urllib.request.urlopen(f"{viewer.url}iiif/nearest/moving.gif/0,0,16,16/1,1/0/default.png") as tile:
        assert np.asarray(Image.open(tile)).ravel()[0] == 10
