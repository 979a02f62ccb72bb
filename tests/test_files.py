"""Files that are either whole or not there."""

import os
import stat
import subprocess
import sys

import pytest

from liif_core import files
from liif_core.files import remove_stale, replacing, write_bytes, write_text


def test_text_and_bytes(tmp_path):
    write_text(tmp_path / "a.txt", "é\n\r\n")
    assert (tmp_path / "a.txt").read_bytes() == "é\n\r\n".encode()
    write_bytes(str(tmp_path / "b.bin"), b"\0\xff")
    assert (tmp_path / "b.bin").read_bytes() == b"\0\xff"


def test_parents_are_made(tmp_path):
    write_text(tmp_path / "x" / "y" / "a.txt", "a")
    assert (tmp_path / "x" / "y" / "a.txt").read_text() == "a"


def test_nothing_is_seen_before_it_is_whole(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == path.parent and temporary.suffix == path.suffix
        assert path.read_text() == "old"
    assert path.read_text() == "new" and os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("existed", [True, False])
def test_a_failure_leaves_what_was_there(tmp_path, existed, error):
    path = tmp_path / "a.txt"
    if existed:
        path.write_text("old")
    with pytest.raises(error), replacing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert os.listdir(tmp_path) == ([path.name] if existed else [])
    assert not existed or path.read_text() == "old"


def test_a_failing_rename_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def full(*args):
        raise OSError(28, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
            patch.setattr(os, name, full)
            write_text(path, "new")
        assert path.read_text() == "old" and os.listdir(tmp_path) == [path.name]


def test_a_text_that_cannot_be_encoded_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert path.read_text() == "old" and os.listdir(tmp_path) == [path.name]


def test_a_folder_is_not_replaced(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError):
        write_text(tmp_path / "a", "x")
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a").is_dir()


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_any_new_file(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_text(tmp_path / "a.txt", "x")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o666 & ~mask


def test_two_writers_do_not_share_a_temporary(tmp_path):
    path = tmp_path / "a.txt"
    with replacing(path) as one, replacing(path) as two:
        assert one != two
        one.write_text("one")
        two.write_text("two")
    assert path.read_text() == "one" and os.listdir(tmp_path) == [path.name]


needs_locks = pytest.mark.skipif(not files._POSIX, reason="no file locks on this system")
KILLED = """
import os, sys
from liif_core.files import replacing
with replacing(sys.argv[1]) as temporary:
    temporary.write_text("half")
    os._exit(9)
"""


@needs_locks
def test_what_a_killed_writer_left_is_removed(tmp_path):
    for name in ("a.txt", "b.txt"):
        subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / name)], check=False)
    assert len(os.listdir(tmp_path)) == 2
    write_text(tmp_path / "a.txt", "whole")
    assert len(os.listdir(tmp_path)) == 2  # the one of the other file is still there
    remove_stale(tmp_path)
    assert os.listdir(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "whole"


@needs_locks
def test_what_a_living_writer_or_somebody_else_made_stays(tmp_path):
    foreign = [".a-xyz.txt", ".liif-tmp-notes", ".liif-tmp-0123456789abcdef-00000000-0.txt"]
    for name in foreign:
        (tmp_path / name).write_text("mine")
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
        remove_stale(tmp_path)
        write_text(tmp_path / "a.txt", "other")
        assert temporary.exists()
    assert (tmp_path / "a.txt").read_text() == "whole" and sorted(os.listdir(tmp_path)) == sorted([*foreign, "a.txt"])
    remove_stale(tmp_path / "gone")


@pytest.mark.parametrize("name", ["x" * 255, "x" * 251 + ".txt", "x." + "y" * 253])
def test_names_of_255_bytes(tmp_path, name):
    write_text(tmp_path / name, "a")
    assert os.listdir(tmp_path) == [name]
