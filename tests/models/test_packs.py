"""Model packs: checkpoints of installed distributions, and of a server, checked and kept."""

import hashlib
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from http_server import serving

from liif_core import NamedModel, Registry, UserError
from liif_core.models import packs
from liif_core.models.cache import cache_folder
from liif_core.models.packs import find_model
from liif_core.registry.components import Origin

CONTENT = bytes(range(256)) * 2000
SHA = hashlib.sha256(CONTENT).hexdigest()
RIGHT = {"name": "tiny", "sha256": SHA, "size": len(CONTENT), "license": "MIT", "training_data": "nothing"}
ORIGIN = Origin("main = pack", "a-pack", "1.0")


class Server(ThreadingHTTPServer):
    """Serves ``content`` at any address. ``cuts`` are the numbers of bytes after which the next responses end."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.ranges, self.delay = CONTENT, True, 0.0
        self.cuts: list[int] = []
        self.requests: list[str | None] = []  # the Range header of each
        self.url = f"http://127.0.0.1:{self.server_port}/tiny.safetensors"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.requests.append(wanted)
        time.sleep(server.delay)
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and server.ranges else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        rest = server.content[start:]
        self.wfile.write(rest[: server.cuts.pop(0)] if server.cuts else rest)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(Server()) as server:
        yield server


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The cache, which does not exist yet."""
    monkeypatch.setenv("LIIF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def registry_of(*models):
    return Registry().with_plugin(ORIGIN, {}, models=models)


def online(server, **changes):
    return registry_of(NamedModel(**{**RIGHT, "url": server.url, **changes}))


def problems_of(registry, name="tiny"):
    with pytest.raises(UserError) as refused:
        find_model(name, registry)
    return refused.value.problems


def kept(home):
    """What is in the cache, without locks, which stay."""
    return {path.name: path.read_bytes() for path in (home / "models").iterdir() if path.suffix != ".lock"}


# A file of the distribution


@pytest.fixture
def installed(tmp_path):
    path = tmp_path / "site" / "tiny.safetensors"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path


def test_a_file_of_the_distribution(installed, home):
    assert find_model("tiny", registry_of(NamedModel(**RIGHT, file=installed))) == installed
    assert find_model("a-pack:tiny", registry_of(NamedModel(**RIGHT, file=installed))) == installed
    assert not home.exists() and installed.read_bytes() == CONTENT


@pytest.mark.parametrize("change", [{"sha256": "0" * 64}, {"size": 7}], ids=["sha256", "size"])
def test_a_file_that_is_not_the_expected_one(installed, change):
    expected = {**RIGHT, **change}
    (problem,) = problems_of(registry_of(NamedModel(**expected, file=installed)))
    assert problem.startswith(f"model 'tiny' of a-pack 1.0: {installed} is not the expected file (")
    assert f"({len(CONTENT)} bytes, sha256 {SHA}; " in problem
    assert f"expected {expected['size']} bytes, sha256 {expected['sha256']})" in problem
    assert problem.endswith("install a-pack again, or report it to its authors")
    assert installed.read_bytes() == CONTENT


def test_a_file_that_is_missing(installed):
    installed.unlink()
    (problem,) = problems_of(registry_of(NamedModel(**RIGHT, file=installed)))
    assert f"{installed} cannot be read (No such file or directory): install a-pack again" in problem


# A download


def test_a_download_is_kept(server, home):
    registry = online(server)
    path = find_model("tiny", registry)
    assert path == home / "models" / f"tiny-{SHA[:12]}.safetensors" and kept(home) == {path.name: CONTENT}
    assert find_model("tiny", registry) == path and server.requests == [None]


def test_a_kept_download_needs_neither_the_server_nor_a_writable_folder(server, home, monkeypatch):
    path = find_model("tiny", online(server))
    monkeypatch.setattr(packs, "locked", lambda path: pytest.fail("the folder is written to"))
    assert find_model("tiny", online(server, url="http://127.0.0.1:9/tiny.safetensors")) == path


def test_offline_the_message_says_how_to_bring_the_file(home):
    registry = registry_of(NamedModel(**RIGHT, url="http://127.0.0.1:9/tiny.safetensors"))
    first, second = problems_of(registry)
    assert first.startswith("http://127.0.0.1:9/tiny.safetensors: could not be fetched (")
    path = home / "models" / f"tiny-{SHA[:12]}.safetensors"
    assert second == (
        "model 'tiny': try again, or bring the file by hand: download http://127.0.0.1:9/tiny.safetensors, "
        f"and save it as {path} ({len(CONTENT)} bytes, sha256 {SHA})"
    )
    path.write_bytes(CONTENT)
    assert find_model("tiny", registry) == path


def test_offline_with_a_damaged_file(home):
    registry = registry_of(NamedModel(**RIGHT, url="http://127.0.0.1:9/tiny.safetensors"))
    path = home / "models" / f"tiny-{SHA[:12]}.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT[:100])
    _, advice = problems_of(registry)
    assert advice.endswith(f"sha256 {SHA}) (the file that is kept there is damaged: 100 bytes)")
    assert path.read_bytes() == CONTENT[:100]


def test_a_connection_that_breaks_is_taken_up_again(server, home):
    server.cuts = [100_000, 150_000]
    assert find_model("tiny", online(server)).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=100000-", "bytes=250000-"]


@pytest.mark.parametrize("ranges", [True, False], ids=["resumed", "started again"])
def test_an_interrupted_download(server, home, ranges):
    """As a process that was killed leaves it."""
    partial = home / "models" / f"tiny-{SHA[:12]}.safetensors.part"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(CONTENT[:1000])
    server.ranges = ranges
    assert find_model("tiny", online(server)).read_bytes() == CONTENT
    assert server.requests == ["bytes=1000-"] and not partial.exists()


def test_another_file_on_the_server_is_refused_and_nothing_is_harmed(server, home):
    right = find_model("tiny", online(server))
    other = bytes(reversed(CONTENT))
    refused = online(server, name="other", sha256=hashlib.sha256(b"x").hexdigest())
    server.content = other
    first, second = problems_of(refused, "other")
    assert f"not the expected file (sha256 {hashlib.sha256(other).hexdigest()}, expected" in first
    assert second.startswith("model 'other': try again")
    assert kept(home) == {right.name: CONTENT}


def test_a_file_of_another_size_on_the_server_is_refused(server, home):
    server.content = CONTENT + b"more"
    first, _ = problems_of(online(server))
    assert f"{len(CONTENT)} bytes are expected, the server offers {len(CONTENT) + 4}" in first
    assert set(kept(home)) <= {f"tiny-{SHA[:12]}.safetensors.part"}
    server.content = CONTENT
    assert find_model("tiny", online(server)).read_bytes() == CONTENT


@pytest.mark.parametrize("harm", [CONTENT[:-1], CONTENT[:-1] + b"?", b""], ids=["short", "changed", "empty"])
def test_a_kept_file_that_was_harmed_is_fetched_again(server, home, harm):
    path = find_model("tiny", online(server))
    path.write_bytes(harm)
    assert find_model("tiny", online(server)) == path and path.read_bytes() == CONTENT


def test_a_new_version_of_a_model_does_not_replace_the_old_one(server, home):
    first = find_model("tiny", online(server))
    server.content = CONTENT[::-1]
    second = find_model("tiny", online(server, sha256=hashlib.sha256(server.content).hexdigest()))
    assert first != second and first.read_bytes() == CONTENT and second.read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize(
    "address, suffix",
    [("", ".safetensors"), ("?download=true", ".safetensors"), ("/../get", ""), (".pth", ".pth"), (".a b", "")],
)
def test_the_name_of_a_kept_file(server, home, address, suffix):
    url = (server.url + address).replace(" ", "%20")
    assert find_model("tiny", online(server, url=url)).name == f"tiny-{SHA[:12]}{suffix}"


def test_processes_that_start_together_download_once(server, home):
    """Threads here: a lock on a file is between open files, not between processes."""
    server.delay = 0.3
    registry, found = online(server), []
    threads = [threading.Thread(target=lambda: found.append(find_model("tiny", registry))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(found)) == 1 and server.requests == [None]
    assert found[0].read_bytes() == CONTENT


def test_a_folder_that_cannot_be_made(server, home):
    home.write_text("a file")
    (problem, _) = problems_of(online(server))
    assert problem.startswith(f"{home / 'models'}: cannot be written to (") and "set LIIF_HOME to a folder" in problem
    assert home.read_text() == "a file" and not server.requests


# Names


def test_an_unknown_name(home):
    registry = registry_of(NamedModel(**RIGHT, url="https://example.org/tiny"))
    assert problems_of(registry, "tny") == ("no model is named 'tny' (did you mean 'tiny'?); installed: tiny",)
    (problem,) = problems_of(registry, "b-pack:tiny")
    assert "no plugin of the distribution 'b-pack' is installed: install it from its authors" in problem
    (problem,) = problems_of(registry.with_broken(Origin("x = y", "b-pack", "2"), "ImportError: z"), "tny")
    assert problem.endswith("; plugin x = y of b-pack 2 could not be loaded: ImportError: z")


def test_a_name_of_two_packs(installed):
    one, two = NamedModel(**RIGHT, file=installed), NamedModel(**{**RIGHT, "license": "BSD-3-Clause"}, file=installed)
    other = Origin("main = other", "b-pack", "2.0")
    (problem,) = problems_of(registry_of(one).with_plugin(other, {}, models=[two]))
    assert "offered by a-pack 1.0 and b-pack 2.0; choose one: 'a-pack:tiny' or 'b-pack:tiny'" in problem
    assert find_model("b-pack:tiny", registry_of(one).with_plugin(other, {}, models=[two])) == installed
    same = registry_of(one).with_plugin(other, {}, models=[one])
    assert find_model("tiny", same) == installed  # nothing to choose


# The cache


@pytest.mark.parametrize(
    "platform, variables, expected",
    [
        ("linux", {}, "~/.cache/liif-core"),
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/liif-core"),
        ("darwin", {"XDG_CACHE_HOME": "/x"}, "~/Library/Caches/liif-core"),
        ("win32", {}, "~/AppData/Local/liif-core/Cache"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/liif-core/Cache"),
        ("linux", {"LIIF_HOME": "~/models", "XDG_CACHE_HOME": "/x"}, "~/models"),
        ("darwin", {"LIIF_HOME": "/y"}, "/y"),
    ],
)
def test_the_folder_of_the_cache(monkeypatch, platform, variables, expected):
    monkeypatch.setattr(sys, "platform", platform)
    for name in ("LIIF_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected).expanduser()
