"""The trials of odd image files that lie beside the repository: made, rendered and judged by their own scripts."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Trials that are wrong themselves, and why.
WRONG = {"raw-profile-app1.png": "the orientation that is stored in it is 6, and 8 is expected"}
NOT_TRIED = 77  # the exit code of a script that cannot be tried here, for example as root
SCRIPTS = (
    "10-out-dir-inside-input.sh", "11-out-dir-is-input.sh", "12-unreadable-folder.sh", "13-long-names.sh",
    "14a-json-unwritable.sh", "14b-json-link-and-pipe.sh", "14c-streams.sh", "16-memory.sh", "21-terminated.sh",
    "22-name-against-format.sh",
)  # fmt: skip


@pytest.fixture(scope="module")
def trials(shared):
    """The folder of the trials, and the environment to run them in."""
    folder = shared / "trials" / "images"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    if not folder.is_dir() or not shutil.which("liif", path=path):
        pytest.skip("needs shared/trials/images, and liif on PATH")
    checkpoint = shared / "checkpoints" / "edsr-baseline-liif.pth"
    if not checkpoint.exists():
        pytest.skip("needs shared/checkpoints/edsr-baseline-liif.pth")
    return folder, {**os.environ, "PATH": path, "CHECKPOINT": str(checkpoint), "PYTHON": sys.executable}


def test_odd_files(trials, tmp_path):
    pytest.importorskip("tifffile"), pytest.importorskip("imagecodecs")
    folder, environment = trials
    for command in (["make.py", tmp_path], ["check.py", tmp_path, "--checkpoint", environment["CHECKPOINT"]]):
        script, *arguments = command
        done = subprocess.run(
            [sys.executable, folder / script, *arguments], env=environment, capture_output=True, text=True
        )
    found = dict(re.findall(r"^([^:\n]+): (.*)$", done.stdout, re.M))
    assert len(found) > 40, done.stdout + done.stderr
    assert {name: problem for name, problem in found.items() if problem != "right" and name not in WRONG} == {}


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize("script", SCRIPTS)
def test_commands(script, trials):
    folder, environment = trials
    if not (folder / "cli" / script).exists():
        pytest.skip("is not there")
    done = subprocess.run(["bash", folder / "cli" / script], env=environment, capture_output=True, text=True)
    if done.returncode == NOT_TRIED:
        pytest.skip(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
