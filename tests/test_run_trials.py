"""The trials of training runs that lie beside the repository: each is a script that exits with 0 where all is right."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

COUNT = 25


@pytest.mark.parametrize("number", range(1, COUNT + 1))
def test_trial(shared, number):
    found = sorted((shared / "trials" / "runs").glob(f"{number:02}-*.sh"))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    if not found or not shutil.which("bash") or not shutil.which("liif-run", path=path):
        pytest.skip("needs shared/trials/runs, bash, and liif-run on PATH")
    result = subprocess.run(["bash", found[0]], env={**os.environ, "PATH": path}, capture_output=True, text=True)
    if result.returncode in (124, 137):
        pytest.skip("not done within the trial's own 58 seconds")
    assert result.returncode == 0, result.stdout + result.stderr
