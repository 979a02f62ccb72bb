"""``liif models``: what is listed, fetched, and said of files that are missing or damaged."""

import hashlib
import json
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import strangers
from click.testing import CliRunner
from http_server import serving

from liif_core.cli import liif

CONTENT = bytes(range(256)) * 40
SHA = hashlib.sha256(CONTENT).hexdigest()
PACK = """
from pathlib import Path
from liif_core import NamedModel, hookimpl

COMMON = dict(sha256={sha256!r}, size={size}, license="MIT", training_data="nine pictures", source="https://example.org")

@hookimpl
def liif_model_packs():
    return [
        NamedModel(name="inside", file=Path({file!r}), scores={{f"Set5 x{{n}}": 30.125 + n for n in range(2, 7)}}, **COMMON),
        NamedModel(name="outside", url={url!r}, description="One sentence.", **COMMON),
    ]
"""  # noqa: E501


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        server.requests, server.url = 0, f"http://127.0.0.1:{server.server_port}/outside.safetensors"
        yield server


@pytest.fixture
def pack(server, tmp_path, monkeypatch):
    """The distribution ``a-pack`` with a model inside it and one on the server, and an empty cache."""
    monkeypatch.delenv("LIIF_PLUGINS", raising=False)
    monkeypatch.setenv("LIIF_HOME", str(tmp_path / "home"))
    site = tmp_path / "site"
    site.mkdir()
    (site / "inside.safetensors").write_bytes(CONTENT)
    file = str(site / "inside.safetensors")
    strangers.install(site, "a-pack", PACK.format(sha256=SHA, size=len(CONTENT), file=file, url=server.url))
    monkeypatch.syspath_prepend(str(site))
    yield tmp_path
    strangers.forget()


@pytest.fixture
def kept(pack):
    """Where the model of the server is kept."""
    return pack / "home" / "models" / f"outside-{SHA[:12]}.safetensors"


def invoke(*arguments, code=0):
    result = CliRunner().invoke(liif, ["models", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    return result.output


def rows():
    """Name -> cells of the table."""
    first, *lines = invoke().splitlines()
    starts = [first.index(title) for title in ("name", "size", "license", "state", "trained on", "PSNR")]
    cells = [[line[a:b].strip() for a, b in zip(starts, [*starts[1:], None])] for line in lines]
    return {name: rest for name, *rest in cells}


def test_the_list(pack, server):
    table = rows()
    scores = "Set5 x2 32.12, Set5 x3 33.12, Set5 x4 34.12, ..."
    assert table["inside"] == ["0.0 MB", "MIT", "installed", "nine pictures", scores]
    assert table["outside"] == ["0.0 MB", "MIT", "to fetch", "nine pictures", ""]
    assert server.requests == 0 and not (pack / "home").exists()
    data = {model["name"]: model for model in json.loads(invoke("--json"))}
    assert data["inside"]["state"] == "installed" and data["inside"]["scores"]["Set5 x6"] == 36.125
    assert data["outside"]["url"] == server.url and data["outside"]["distribution"] == "a-pack"


def test_fetch_path_and_the_states(pack, kept, server):
    assert "error: model 'outside' is not on this machine: 'liif models fetch outside'" in invoke(
        "path", "outside", code=2
    )
    assert invoke("fetch", "outside", "inside") == (
        f"outside: {kept}\ninside: {pack / 'site' / 'inside.safetensors'} (already here)\n"
    )
    assert invoke("fetch", "a-pack:outside") == f"a-pack:outside: {kept} (already here)\n" and server.requests == 1
    assert invoke("path", "outside") == f"{kept}\n" and rows()["outside"][2] == "fetched"
    kept.write_bytes(CONTENT[::-1])
    assert "state: damaged" in invoke("info", "outside")
    assert "not the expected file: 'liif models fetch outside' downloads it again" in invoke("path", "outside", code=2)
    kept.write_bytes(b"short")
    assert rows()["outside"][2] == "damaged"
    invoke("fetch", "outside")
    assert kept.read_bytes() == CONTENT and rows()["outside"][2] == "fetched"
    (pack / "site" / "inside.safetensors").unlink()
    assert rows()["inside"][2] == "missing"
    assert "state: missing\n    The file is missing: install a-pack again." in invoke("info", "inside")
    assert "cannot be read (No such file or directory): install a-pack again" in invoke("path", "inside", code=2)


def test_info(pack, kept, server):
    text = invoke("info", "outside")
    for part in (
        "outside  (a-pack 1.0)\n    One sentence.\n", "license: MIT\n", "trained on: nine pictures\n",
        "published at: https://example.org\n", f"size: {len(CONTENT):,} bytes\n", f"sha256: {SHA}\n",
        f"downloaded from: {server.url}\n", f"file: {kept}\n", "state: to fetch\n",
        f"By hand: download {server.url}, and save it as {kept} ({len(CONTENT)} bytes, sha256 {SHA}).",
    ):  # fmt: skip
        assert part in text
    assert "PSNR" not in text
    assert [line.split() for line in invoke("info", "inside").splitlines()[-5:]] == [
        ["Set5", f"x{n}:", f"{30.125 + n:.2f}"] for n in range(2, 7)
    ]
    data = json.loads(invoke("info", "outside", "--json"))
    assert (data["name"], data["path"], data["state"]) == ("outside", str(kept), "to fetch")
    kept.parent.mkdir(parents=True)
    kept.write_bytes(CONTENT)  # by hand
    assert json.loads(invoke("info", "outside", "--json"))["state"] == "fetched" and server.requests == 0


@pytest.mark.parametrize("command", ["info", "fetch", "path"])
def test_an_unknown_name(pack, server, command):
    given = ["inside", "outsid"] if command == "fetch" else ["outsid"]
    output = invoke(command, *given, code=2)
    assert output.startswith("error: no model is named 'outsid' (did you mean 'outside'?)") and "inside" in output
    assert server.requests == 0 and not (pack / "home").exists()


def test_a_pack_that_is_broken(pack):
    next((pack / "site").glob("stranger_*.py")).write_text("import nothing_of_that_name")
    assert "not loaded: main = stranger_" in invoke() and "nine pictures" not in invoke()
    output = invoke("fetch", "inside", code=2)
    assert "no model is named 'inside'" in output and "could not be loaded: ModuleNotFoundError" in output
    assert "no plugin of the distribution 'b-pack' is installed" in invoke("info", "b-pack:inside", code=2)


def test_two_packs_with_one_name(pack):
    source = next((pack / "site").glob("stranger_*.py")).read_text().replace('"MIT"', '"CC0-1.0"')
    strangers.install(pack / "site", "b-pack", source)
    assert {"a-pack:inside", "b-pack:inside", "a-pack:outside", "b-pack:outside"} <= rows().keys()
    assert "choose one: 'a-pack:inside' or 'b-pack:inside'" in invoke("info", "inside", code=2)
    assert invoke("info", "b-pack:inside").startswith("b-pack:inside  (b-pack 1.0)\n\nlicense: CC0-1.0\n")


def test_options_before_the_command_are_refused(pack):
    assert "give options after the command: liif models info ..." in invoke("--json", "info", "inside", code=2)


def test_listing_does_not_import_torch_for_itself():
    code = (
        "import sys\nfrom importlib import metadata\nmetadata.entry_points = lambda: metadata.EntryPoints([])\n"
        "from liif_core.cli import liif\ntry:\n liif(['models'])\nexcept SystemExit as done:\n assert not done.code\n"
        "assert 'torch' not in sys.modules"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (shown.returncode, shown.stdout) == (0, "no trained models are installed\n"), shown.stderr
