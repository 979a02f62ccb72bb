"""Downloads, against a server on this machine that breaks off, resumes, or does not."""

import hashlib
import re
import shutil
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from http_server import serving

from liif_core.data import download
from liif_core.data.download import DIV2K, Archive, extract_zip, fetch, fetch_archive
from liif_core.errors import UserError

CONTENT = bytes(range(256)) * 3000
SHA = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    content = CONTENT
    ranges = True  # whether it answers a Range
    cuts: list[int]  # bytes after which the next answers break off
    asked: list[str | None]  # the Range of each request

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.cuts, self.asked = [], []
        self.url = f"http://127.0.0.1:{self.server_port}/file.bin"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        if self.path != "/file.bin":
            return self.send_error(404)
        content, start = self.server.content, 0
        if wanted and self.server.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts else None
        self.wfile.write(content[start:] if cut is None else content[start : start + cut])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(Server()) as server:
        yield server


def partial(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def test_a_file_arrives_whole(server, tmp_path):
    target = tmp_path / "new" / "folder" / "file.bin"
    fetch(server.url, target, SHA, len(CONTENT))
    assert target.read_bytes() == CONTENT
    assert [p.name for p in target.parent.iterdir()] == ["file.bin"]


def test_a_right_file_is_not_fetched_again_and_a_wrong_one_is_replaced(server, tmp_path):
    target = tmp_path / "file.bin"
    target.write_bytes(CONTENT[::-1])
    fetch(server.url, target, SHA, len(CONTENT))
    assert target.read_bytes() == CONTENT
    fetch(server.url, target, SHA, len(CONTENT))
    assert server.asked == [None]


def test_a_connection_that_breaks_is_taken_up_again(server, tmp_path):
    server.cuts = [300_000, 100_000]
    fetch(server.url, tmp_path / "file.bin", SHA, len(CONTENT))
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=400000-"]


def test_a_later_call_goes_on_where_the_first_ended(server, tmp_path):
    target = tmp_path / "file.bin"
    server.cuts = [300_000, 0]
    with pytest.raises(UserError, match="300000 of 768000 bytes are kept; try again"):
        fetch(server.url, target, SHA, len(CONTENT))
    assert not target.exists()
    assert partial(target).read_bytes() == CONTENT[:300_000]
    fetch(server.url, target, SHA, len(CONTENT))
    assert target.read_bytes() == CONTENT and not partial(target).exists()
    assert server.asked[-1] == "bytes=300000-"


def test_a_server_without_ranges_starts_again(server, tmp_path):
    target = tmp_path / "file.bin"
    server.ranges = False
    partial(target).write_bytes(b"something else" * 100)
    fetch(server.url, target, SHA, len(CONTENT))
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("left", [CONTENT, CONTENT + b"more"], ids=["complete", "too long"])
def test_a_part_that_is_complete_or_too_long(server, tmp_path, left):
    target = tmp_path / "file.bin"
    partial(target).write_bytes(left)
    fetch(server.url, target, SHA, len(CONTENT))
    assert target.read_bytes() == CONTENT and not partial(target).exists()
    assert server.asked == ([] if left == CONTENT else [None])


def test_a_wrong_hash_leaves_nothing_behind(server, tmp_path):
    target = tmp_path / "file.bin"
    target.write_bytes(b"before")
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(UserError, match=f"not the expected file .*{SHA}"):
        fetch(server.url, target, SHA, len(CONTENT))
    assert target.read_bytes() == b"before" and not partial(target).exists()


def test_a_file_of_another_size_is_not_fetched(server, tmp_path):
    server.content = b"<html>please log in</html>"
    with pytest.raises(UserError, match="768000 bytes are expected, the server offers 26"):
        fetch(server.url, tmp_path / "file.bin", SHA, len(CONTENT))
    assert list(tmp_path.iterdir()) == []


def test_no_such_file_and_no_connection_are_said(server, tmp_path):
    with pytest.raises(UserError, match="other.bin: could not be fetched .*404"):
        fetch(server.url.replace("file", "other"), tmp_path / "file.bin", SHA, len(CONTENT))
    with pytest.raises(UserError, match="could not be fetched .*refused"):
        fetch("http://127.0.0.1:1/file.bin", tmp_path / "file.bin", SHA, len(CONTENT))
    assert list(tmp_path.iterdir()) == []


def test_too_little_disk_space_is_found_before(server, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(UserError, match="too little disk space .*0.00 GB are free"):
        fetch(server.url, tmp_path / "file.bin", SHA, len(CONTENT))
    assert server.asked == []


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be made"):
        fetch(server.url, tmp_path / "file" / "file.bin", SHA, len(CONTENT))


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("prefix", ["", "DIV2K_valid_LR_bicubic/X2/", "one/"])
def test_a_zip_becomes_a_folder_without_its_common_leading_folders(tmp_path, prefix):
    members = {"0801x2.png": b"a" * 1000, "0802x2.png": b"b", "deep/er.png": b"c"}
    archive = make_zip(tmp_path / "a.zip", {prefix + name: content for name, content in members.items()})
    extract_zip(archive, tmp_path / "LR" / "X2")
    assert contents(tmp_path / "LR" / "X2") == members
    assert [p.name for p in (tmp_path / "LR").iterdir()] == ["X2"]


@pytest.mark.parametrize("name", ["../out.png", "a/../../out.png", "/out.png", "C:/out.png", "a\\..\\out.png"])
def test_a_zip_that_reaches_outside_is_refused(tmp_path, name):
    archive = make_zip(tmp_path / "a.zip", {"a/in.png": b"", name: b""})
    with pytest.raises(UserError, match="would lie outside"):
        extract_zip(archive, tmp_path / "out" / "folder")
    assert contents(tmp_path) == {"a.zip": archive.read_bytes()}


def test_links_in_a_zip_are_refused(tmp_path):
    link = zipfile.ZipInfo("a/link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr(link, "/etc/hostname")
    with pytest.raises(UserError, match="is a link"):
        extract_zip(tmp_path / "a.zip", tmp_path / "folder")


def test_a_damaged_zip_leaves_nothing_behind(tmp_path):
    archive = make_zip(tmp_path / "a.zip", {"one.png": b"x" * 5000, "two.png": bytes(range(256)) * 20})
    whole = archive.read_bytes()
    spoilt = bytearray(whole)
    spoilt[whole.index(b"two.png") + 20] ^= 0xFF
    for data in (bytes(spoilt), whole[: len(whole) // 2], b"no zip at all", b""):
        archive.write_bytes(data)
        with pytest.raises(UserError, match="cannot be unpacked"):
            extract_zip(archive, tmp_path / "folder")
        assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_a_zip_that_is_empty_or_absent_or_has_no_place(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="holds no files"):
        extract_zip(make_zip(tmp_path / "empty.zip", {}), tmp_path / "folder")
    with pytest.raises(UserError, match="absent.zip: cannot be unpacked"):
        extract_zip(tmp_path / "absent.zip", tmp_path / "folder")
    archive = make_zip(tmp_path / "a.zip", {"one.png": b"x"})
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine")
    with pytest.raises(UserError, match="already exists"):
        extract_zip(archive, tmp_path / "taken")
    (tmp_path / "folder").mkdir()
    extract_zip(archive, tmp_path / "folder")
    assert contents(tmp_path / "folder") == {"one.png": b"x"}
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 0))
    with pytest.raises(UserError, match="too little disk space for unpacking"):
        extract_zip(archive, tmp_path / "other")


def test_an_archive_is_fetched_unpacked_and_not_kept(server, tmp_path):
    server.content = make_zip(tmp_path / "made.zip", {"DIV2K_x/X2/0801x2.png": b"image"}).read_bytes()
    sha = hashlib.sha256(server.content).hexdigest()
    fetch_archive(Archive(server.url, "DIV2K_x/X2", len(server.content), sha), tmp_path / "to")
    assert contents(tmp_path / "to") == {"DIV2K_x/X2/0801x2.png": b"image"}


def test_div2k_has_its_official_addresses():
    assert [archive.url.removeprefix("https://data.vision.ee.ethz.ch/cvl/DIV2K/") for archive in DIV2K] == [
        "DIV2K_train_HR.zip",
        "DIV2K_valid_HR.zip",
        "DIV2K_valid_LR_bicubic_X2.zip",
        "DIV2K_valid_LR_bicubic_X3.zip",
        "DIV2K_valid_LR_bicubic_X4.zip",
    ]
    assert all(re.fullmatch("[0-9a-f]{64}", archive.sha256) for archive in DIV2K)
    assert len({archive.sha256 for archive in DIV2K}) == 5
    assert download.DIV2K[0].by_hand(Path("/data")).endswith("so that its images lie in /data/DIV2K_train_HR")
