"""A run folder belongs to one process, as long as that process lives."""

import json
import os
import subprocess
import sys
import time

import pytest

from liif_core import UserError
from liif_core.training.lock import LOCK, check_free, hold

HOLDER = """
import sys, time
from pathlib import Path
from liif_core.training.lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_another_process_is_refused_and_the_holder_named(tmp_path, holder):
    for use in (check_free, lambda folder: hold(folder).__enter__()):
        with pytest.raises(UserError, match=rf"process {holder.pid} on .* holds this run since \d{{4}}-"):
            use(tmp_path)
    assert json.loads((tmp_path / LOCK).read_text())["process"] == holder.pid


def test_a_killed_holder_leaves_nothing_in_the_way(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert (tmp_path / LOCK).exists()
    with hold(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()


def test_the_same_process_may_hold_it_twice_and_it_ends_with_the_first(tmp_path):
    with hold(tmp_path):
        with hold(tmp_path):
            pass
        assert (tmp_path / LOCK).exists()
    assert not (tmp_path / LOCK).exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_does_not_keep_the_lock(tmp_path):
    """A process that loads data may live on for a while when its parent was killed."""
    with hold(tmp_path):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
    try:
        check_free(tmp_path)
        with hold(tmp_path):
            pass
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match="file/run: cannot be written: Not a directory"),
        hold(tmp_path / "file" / "run"),
    ):
        pass
