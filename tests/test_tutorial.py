"""CONTRIBUTING's tutorial is run, and what it shows is what is printed but for times, paths and numbers.

Its ``console`` blocks between the two markers are the script: lines that begin with ``$ `` are run by a shell, in an
environment of their own where pip installs without a network.
"""

import difflib
import importlib.metadata
import os
import re
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
# What is printed is the same, but for the numbers
FEWER_STEPS = "liif-run --set train.epochs=1 --set data.repeat=8 --set validate.every=1"
SCRIPTS = {
    "liif": "from liif_core.cli import liif\nliif()",
    "liif-run": "from liif_core.cli import liif_run\nliif_run()",
    "pytest": "import pytest, sys\nsys.exit(pytest.main())",
    "pip": "import subprocess, sys\noffline = ['--no-deps', '--no-build-isolation', '--no-index']\n"
    "sys.exit(subprocess.call([{outer!r}, '-m', 'pip', '--python', sys.executable, *sys.argv[1:], *offline]))",
}


def shown() -> str:
    """The transcript that CONTRIBUTING shows, or a skip."""
    between = re.search(r"<!-- tutorial -->(.*?)<!-- /tutorial -->", TEXT, re.S)
    if between is None:
        pytest.skip("CONTRIBUTING.md has no tutorial between <!-- tutorial --> and <!-- /tutorial -->")
    return "".join(re.findall(r"^```console\n(.*?)^```", between[1], re.S | re.M))


@pytest.fixture
def environment(tmp_path):
    """A virtual environment that has what this one has, and may be installed into."""
    have = {d.name.lower(): d.version for d in importlib.metadata.distributions() if d.name in ("pip", "setuptools")}
    if "pip" not in have or tuple(map(int, have.get("setuptools", "0").split(".")[:2])) < (70, 1):
        pytest.skip("installing without a network needs pip, and setuptools from 70.1, in this environment")
    if os.name != "posix" or shutil.which("bash") is None:
        pytest.skip("the tutorial's commands are written for bash")
    folder = tmp_path / "venv"
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    asked = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
    outer = [f"import site; site.addsitedir({path!r})\n" for path in site.getsitepackages()]
    (packages / "outer.pth").write_text("".join(outer))
    for name, code in SCRIPTS.items():
        (folder / "bin" / name).write_text(f"#!{python}\n{code.format(outer=sys.executable)}\n")
        (folder / "bin" / name).chmod(0o755)
    added = {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "100",
        "OMP_NUM_THREADS": "1",  # small models, and perhaps other tests beside this one
        "CUDA_VISIBLE_DEVICES": "",  # a GPU would run checks that are skipped without one
    }
    left_out = ("LIIF_PLUGINS", "LIIF_PLUGIN_PATH", "PYTHONPATH", "PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST")
    return {key: value for key, value in os.environ.items() if key not in left_out} | added


def transcript(commands: list[str], folder: Path, environment: dict[str, str], in_full: bool = False) -> str:
    """What a terminal shows. Commands may fail, as a tutorial's may."""
    lines = []
    for command in commands:
        lines.append(f"$ {command}")
        if command.startswith("cd "):
            folder = folder / command.removeprefix("cd ")
            continue
        run = command if in_full else re.sub(r"\bliif-run\b", FEWER_STEPS, command, count=1)
        said = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        ran = subprocess.run(["bash", "-c", run], cwd=folder, env=environment, timeout=300, **said)
        lines += ran.stdout.splitlines()
    return "\n".join(lines) + "\n"


def normal(text: str) -> list[str]:
    """Lines without times, paths, numbers and what depends on the machine."""
    text = re.sub(r"(?:/[^\s/:,()]+)+/", "/", text)
    text = re.sub(r"torch [^\s,]+", "torch 0", text)
    text = re.sub(r"\b[0-9a-f]{8,}\b", "0", text)
    text = re.sub(r"\d+(?:[.,]\d+)*", "0", text)
    text = re.sub(r"^[.sF]+ +\[ *0%\]$", "[0%]", text, flags=re.M)
    return [line.rstrip() for line in text.splitlines()]


def test_the_tutorial_shows_what_is_printed(request, tmp_path):
    expected = shown()
    commands = [line.removeprefix("$ ") for line in expected.splitlines() if line.startswith("$ ")]
    assert any(command.startswith("liif new-plugin") for command in commands)
    printed = transcript(commands, tmp_path, request.getfixturevalue("environment"))
    lines = difflib.unified_diff(normal(expected), normal(printed), "CONTRIBUTING.md", "printed", lineterm="")
    difference = "\n".join(lines)
    assert not difference, f"{difference}\n\nin full:\n{printed}"
