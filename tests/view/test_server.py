"""The server: status codes, headers, caching, progress, and clients that leave."""

import http.client
import socket
import threading
import time
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from reference import small_model
from viewing import smooth, viewing

from liif_core.view import blocks
from liif_core.view.gallery import NamedModel
from liif_core.view.opening import entry_or_problem
from liif_core.view.running import allowed_hosts

PICTURE = smooth(60, 75)


@pytest.fixture
def viewer(entry):
    with viewing(entry(PICTURE)) as viewer:
        yield viewer


def until(done, seconds=20.0):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def test_the_session(viewer):
    found = viewer.get("api/session").json()
    assert [image["id"] for image in found["images"]] == ["picture.png"] and not found["folder"]
    assert [(layer["id"], layer["kind"]) for layer in found["layers"]] == [
        ("model", "model"), ("bicubic", "interpolation"), ("nearest", "interpolation"),
    ]  # fmt: skip
    assert found["layers"][0]["name"] == "small" and found["zoom"] == 16


def test_an_image_is_encoded_in_the_background(viewer):
    first = viewer.get("api/images/picture.png").json()
    assert (first["full_width"], first["full_height"]) == (1200, 960)
    until(lambda: viewer.get("api/images/picture.png").json()["layers"]["model"]["state"] == "ready")
    found = viewer.get("api/images/picture.png").json()["layers"]["model"]
    assert found["done"] == 1 and found["error"] is None
    assert viewer.server.gallery.picture("picture.png").encoded["model"].progress.seconds > 0


def test_info(viewer):
    answer = viewer.get("iiif/model/picture.png/info.json")
    assert answer.headers["content-type"] == "application/json" and answer.headers["access-control-allow-origin"] == "*"
    found = answer.json()
    assert found["id"] == f"{viewer.url}iiif/model/picture.png" and (found["width"], found["height"]) == (1200, 960)
    ld = viewer.get("iiif/model/picture.png/info.json", headers={"Accept": "application/ld+json"})
    assert ld.headers["content-type"].startswith("application/ld+json") and ld.json() == found
    for path in ("iiif/model/picture.png", "iiif/model/picture.png/"):
        redirect = viewer.get(path)
        assert (redirect.status_code, redirect.headers["location"]) == (303, f"{found['id']}/info.json")


def test_a_tile_is_kept_by_cache_and_browser(viewer):
    path = "iiif/model/picture.png/0,0,256,256/max/0/default.png"
    first, second = viewer.get(path), viewer.get(path)
    assert first.content == second.content
    assert first.headers["server-timing"].startswith("render;dur=") and "hit" in second.headers["server-timing"]
    tag = first.headers["etag"]
    assert second.headers["etag"] == tag and "no-cache" in first.headers["cache-control"]
    for conditional in (tag, f'"other", {tag}'):
        third = viewer.get(path, headers={"If-None-Match": conditional})
        assert (third.status_code, third.content, third.headers["etag"]) == (304, b"", tag)
    assert viewer.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    others = {
        viewer.get(f"iiif/{layer}/picture.png/{rest}").headers["etag"]
        for layer in ("model", "bicubic")
        for rest in ("0,0,256,256/max/0/default.png", "0,0,256,256/max/0/gray.png", "0,0,256,256/128,/0/default.png")
    }
    assert len(others) == 6


def test_another_run_has_other_tags(entry):
    path = "iiif/model/picture.png/0,0,256,256/max/0/default.png"
    tags = set()
    for _ in range(2):
        with viewing(entry(PICTURE)) as viewer:
            tags.add(viewer.get(path).headers["etag"])
    assert len(tags) == 2


def test_links_and_head_and_preflight(viewer):
    path = "iiif/model/picture.png/0,0,1200,960/1200,/0/color.png"
    answer = viewer.client.head(path)
    assert answer.status_code == 200 and answer.content == b""
    assert answer.headers["link"] == (
        '<http://iiif.io/api/image/3/level2.json>;rel="profile", '
        f'<{viewer.url}iiif/model/picture.png/full/max/0/default.png>;rel="canonical"'
    )
    preflight = viewer.client.options(path, headers={"Origin": "http://a.b", "Access-Control-Request-Method": "GET"})
    assert preflight.status_code == 204 and preflight.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("iiif/model/none.png/info.json", 404),
        ("iiif/none/picture.png/info.json", 404),
        ("iiif/model-2/picture.png/info.json", 404),
        ("iiif/model/picture.png/other.json", 404),
        ("iiif/model/picture.png/full/max/0", 404),
        ("iiif/model/picture.png/full/max/0/default.png/more", 404),
        ("iiif/model/a/b.png/info.json", 404),
        ("iiif/model", 404),
        ("iiif/", 404),
        ("iiif/model/%ff%fe/info.json", 400),
        ("iiif/model/picture.png/full/9999,/0/default.png", 400),
        ("iiif/model/picture.png/full/max/45/default.png", 501),
        ("iiif/model/picture.png/full/max/0/default.gif", 400),
        ("static/..%2fserver.py", 404),
        ("static/../server.py", 404),
        ("static/server.py", 404),
        ("static/", 404),
        ("api/images/none.png", 404),
        ("api/saves/none", 404),
        ("api/saves/none/file", 404),
        ("other", 404),
    ],
)
def test_what_is_not_there(viewer, path, status):
    connection = http.client.HTTPConnection("127.0.0.1", viewer.running.port)  # which sends paths as they are
    connection.request("GET", f"/{path}")
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    assert answer.status == status and "Traceback" not in text
    if path.startswith("iiif/"):
        assert answer.headers["access-control-allow-origin"] == "*" and text


def test_names_of_all_kinds(entry):
    names = ["a b.png", "sub/c.png", "näß日.png", "100%.png", "a?b#c.png", "a%2Fb.png"]
    entries = {}
    for name in names:
        entries |= {name: next(iter(entry(PICTURE, "x.png").values()))}
    with viewing(entries, folder="pictures") as viewer:
        for name in names:
            quoted = quote(name, safe="")
            info = viewer.get(f"iiif/bicubic/{quoted}/info.json")
            assert info.status_code == 200, name
            tile = httpx.get(f"{info.json()['id']}/full/64,/0/default.png")
            assert tile.status_code == 200, name
            assert viewer.get(f"api/images/{quoted}").json()["width"] == 75


def test_the_page_and_its_policy(viewer):
    answer = viewer.get("")
    assert (
        answer.headers["content-type"].startswith("text/html")
        and "default-src 'self'" in (answer.headers["content-security-policy"])
    )
    assert "access-control-allow-origin" not in answer.headers
    assert viewer.get("static/openseadragon.min.js").headers["content-type"].startswith("text/javascript")


def test_only_its_own_names_lead_to_it(entry):
    """A page of another site cannot read pictures by giving a name of its own this machine's address."""
    with viewing(entry(PICTURE)) as viewer:
        for host, status in (("localhost", 200), ("127.0.0.1:80", 200), ("evil.example", 400)):
            assert viewer.get("api/session", headers={"Host": host}).status_code == status
    assert allowed_hosts("0.0.0.0") == ("*",) and "192.168.0.7" in allowed_hosts("192.168.0.7")


def test_other_sites_cannot_read_the_interface_of_the_page(viewer):
    """They may show images, as IIIF asks for; saving and listing are for the page alone."""
    answer = viewer.get("api/session", headers={"Origin": "http://other.example"})
    assert "access-control-allow-origin" not in answer.headers
    form = viewer.client.post("api/saves", content="{}", headers={"Content-Type": "text/plain"})
    assert form.status_code == 415


def test_a_picture_that_cannot_be_read(tmp_path, entry):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\nno")
    entries = entry(PICTURE) | {"bad.png": entry_or_problem("bad.png", bad, [], 10**8)}
    with viewing(entries, folder="pictures") as viewer:
        listed = {image["id"]: image["problem"] for image in viewer.get("api/session").json()["images"]}
        assert listed["picture.png"] is None and "bad.png" in listed["bad.png"]
        answer = viewer.get("api/images/bad.png")
        assert answer.status_code == 422 and "bad.png" in answer.json()["error"]
        tile = viewer.get("iiif/bicubic/bad.png/full/max/0/default.png")
        assert tile.status_code == 500 and "bad.png" in tile.text
        assert viewer.get("api/images/picture.png").status_code == 200


def test_a_model_that_fails(registry, entry, monkeypatch):
    """The answer and the progress say why; the server goes on."""
    model = small_model(registry)

    def fail(*args):
        raise RuntimeError("out of order")

    monkeypatch.setattr(model, "encode", fail)
    with viewing(entry(PICTURE, models=[NamedModel("failing", model)])) as viewer:
        answer = viewer.get("iiif/model/picture.png/0,0,256,256/max/0/default.png")
        assert answer.status_code == 500 and "out of order" in answer.text and "Traceback" not in answer.text
        viewer.get("api/images/picture.png")
        until(lambda: viewer.get("api/images/picture.png").json()["layers"]["model"]["state"] == "failed")
        assert "out of order" in viewer.get("api/images/picture.png").json()["layers"]["model"]["error"]
        assert viewer.get("iiif/bicubic/picture.png/0,0,256,256/max/0/default.png").status_code == 200


def test_a_plugin_that_raises_anything(registry, entry, monkeypatch):
    """The background tries it once, and not again and again."""
    model, tried = small_model(registry), []

    def fail(*args):
        tried.append(True)
        raise KeyError("nothing")

    monkeypatch.setattr(model, "encode", fail)
    with viewing(entry(PICTURE, models=[NamedModel("failing", model)])) as viewer:
        viewer.get("api/images/picture.png")
        until(lambda: viewer.get("api/images/picture.png").json()["layers"]["model"]["state"] == "failed")
        time.sleep(0.2)
        assert len(tried) == 1
        answer = viewer.get("iiif/model/picture.png/0,0,256,256/max/0/default.png")
        assert (answer.status_code, answer.text) == (500, "rendering failed: KeyError: 'nothing'")


def test_values_that_are_not_finite(registry, entry):
    model = small_model(registry)
    model.decoder.layers[-1].bias.fill_(float("nan"))
    with viewing(entry(PICTURE, models=[NamedModel("broken", model)])) as viewer:
        answer = viewer.get("iiif/model/picture.png/0,0,256,256/max/0/default.png")
        assert answer.status_code == 500 and "NaN or infinite" in answer.text


def test_a_scale_that_the_model_cannot_render(registry, entry, monkeypatch):
    model = small_model(registry)

    def check(size, target):
        raise ValueError(f"it renders nothing at {target}")

    monkeypatch.setattr(model, "check_scale", check)
    with viewing(entry(PICTURE, models=[NamedModel("fixed", model)])) as viewer:
        answer = viewer.get("iiif/model/picture.png/0,0,256,256/max/0/default.png")
        assert answer.status_code == 400 and "it renders nothing at" in answer.text


class Slow:
    """Makes a model wait in ``encode`` until it may go on, and counts."""

    def __init__(self, model, monkeypatch):
        self.gate, self.count, encode = threading.Event(), 0, model.encode

        def slow(image, *placement):
            if placement:  # not where memory is measured
                self.count += 1
                self.gate.wait(20)
            return encode(image, *placement)

        monkeypatch.setattr(model, "encode", slow)


def ask_and_leave(viewer, path):
    connection = socket.create_connection(("127.0.0.1", viewer.running.port))
    connection.sendall(f"GET /{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return connection


def queued(viewer):
    return sum(len(works) for works in viewer.server.queue._work.values())


def test_the_work_of_a_client_that_leaves_ends(registry, entry, monkeypatch):
    monkeypatch.setattr(blocks, "_SMALLEST", 16)
    monkeypatch.setattr(blocks, "_HALOS", 0)
    model = small_model(registry)
    slow = Slow(model, monkeypatch)
    with viewing(entry(PICTURE, models=[NamedModel("slow", model)])) as viewer:
        running = ask_and_leave(viewer, "iiif/model/picture.png/full/max/0/default.png")  # of 20 blocks
        until(lambda: slow.count == 1)
        waiting = ask_and_leave(viewer, "iiif/model/picture.png/0,0,256,256/max/0/default.png")
        until(lambda: queued(viewer) == 1)
        waiting.close()
        until(lambda: queued(viewer) == 0)
        running.close()
        until(lambda: not viewer.server.tiles._shared)
        slow.gate.set()
        assert viewer.get("iiif/model/picture.png/0,0,64,64/max/0/default.png").status_code == 200
        assert slow.count <= 3  # the one that was being encoded, and those of the last request


def test_a_tile_that_two_want_is_rendered_once(registry, entry, monkeypatch):
    model = small_model(registry)
    slow = Slow(model, monkeypatch)
    path = "iiif/model/picture.png/0,0,256,256/max/0/default.png"
    with viewing(entry(PICTURE, models=[NamedModel("slow", model)])) as viewer:
        left = ask_and_leave(viewer, path)
        until(lambda: slow.count == 1)
        answers = []
        asking = [threading.Thread(target=lambda: answers.append(httpx.get(viewer.url + path))) for _ in range(3)]
        for each in asking:
            each.start()
        until(lambda: [shared.waiting for shared in viewer.server.tiles._shared.values()] == [4])
        left.close()  # the first that asked; the others still get it
        until(lambda: [shared.waiting for shared in viewer.server.tiles._shared.values()] == [3])
        slow.gate.set()
        for each in asking:
            each.join(20)
        assert [answer.status_code for answer in answers] == [200] * 3 and slow.count == 1
        assert len({answer.content for answer in answers}) == 1


def test_previews_do_not_wait_for_the_model(registry, entry, monkeypatch):
    model = small_model(registry)
    slow = Slow(model, monkeypatch)
    with viewing(entry(PICTURE, models=[NamedModel("slow", model)])) as viewer:
        viewer.get("api/images/picture.png")
        until(lambda: slow.count == 1)
        assert viewer.get("iiif/bicubic/picture.png/full/512,/0/default.png").status_code == 200
        assert viewer.get("iiif/model/picture.png/full/60,/0/default.png").status_code == 200  # below its own size
        slow.gate.set()


def test_another_picture_is_encoded_in_place_of_the_first(registry, entry, monkeypatch):
    monkeypatch.setattr(blocks, "_SMALLEST", 16)
    monkeypatch.setattr(blocks, "_HALOS", 0)
    model = small_model(registry)
    slow = Slow(model, monkeypatch)
    entries = entry(PICTURE, "a.png", [NamedModel("slow", model)]) | entry(
        PICTURE, "b.png", [NamedModel("slow", model)]
    )
    with viewing(entries, folder="two") as viewer:
        viewer.get("api/images/a.png")
        until(lambda: slow.count == 1)
        viewer.get("api/images/b.png")
        slow.gate.set()
        until(lambda: viewer.get("api/images/b.png").json()["layers"]["model"]["state"] == "ready")
        first = viewer.server.gallery.picture("a.png").encoded["model"]
        assert first.progress.done < first.progress.blocks


def test_two_models(model, second_model, entry):
    with viewing(entry(PICTURE, models=[NamedModel("one", model), NamedModel("two", second_model)])) as viewer:
        layers = viewer.get("api/session").json()["layers"]
        assert [(layer["id"], layer["name"]) for layer in layers][:2] == [("model", "one"), ("model-2", "two")]
        tiles = [viewer.tile("picture.png", layer, "0,0,256,256/max/0/default.png") for layer in ("model", "model-2")]
        assert np.abs(tiles[0].astype(int) - tiles[1]).max() > 2
        until(lambda: all(
            layer["state"] == "ready" for layer in viewer.get("api/images/picture.png").json()["layers"].values()
        ))  # fmt: skip


def test_an_entry_that_disappears(tmp_path, entry):
    """A file that is removed after the start is named."""
    entries = entry(PICTURE, "gone.png")
    (tmp_path / "gone.png").unlink()
    with viewing(entries) as viewer:
        answer = viewer.get("api/images/gone.png")
        assert answer.status_code == 422 and "gone.png" in answer.json()["error"]
