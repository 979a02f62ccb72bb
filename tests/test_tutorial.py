"""The tutorial of the documentation is run, and prints what it shows, except for times and paths.

Its ``console`` blocks between the two markers are the script: lines that begin with ``$ `` are run by a shell, in a
virtual environment where pip installs without a network. Whole numbers must be equal; measured ones, which have a
decimal point, must agree within a tolerance.
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

TEXT = (Path(__file__).parents[1] / "docs" / "plugins" / "tutorial.md").read_text(encoding="utf-8")
MEASURED = re.compile(r"\d+\.\d+")
SCRIPTS = {
    "liif": "from liif_core.cli import liif\nliif()",
    "liif-run": "from liif_core.cli import liif_run\nliif_run()",
    "pytest": "import pytest, sys\nsys.exit(pytest.main())",
    "pip": "import subprocess, sys\noffline = ['--no-deps', '--no-build-isolation', '--no-index']\n"
    "sys.exit(subprocess.call([{outer!r}, '-m', 'pip', '--python', sys.executable, *sys.argv[1:], *offline]))",
}


def shown() -> str:
    """The transcript that the tutorial shows."""
    between = re.search(r"<!-- tutorial -->(.*?)<!-- /tutorial -->", TEXT, re.S)
    assert between is not None
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


def transcript(commands: list[str], folder: Path, environment: dict[str, str]) -> str:
    """What a terminal shows. Commands may fail, as a tutorial's may."""
    lines = []
    for command in commands:
        lines.append(f"$ {command}")
        if command.startswith("cd "):
            folder = folder / command.removeprefix("cd ")
            continue
        said = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        ran = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, timeout=300, **said)
        lines += ran.stdout.splitlines()
    return "\n".join(lines) + "\n"


def normal(text: str) -> list[str]:
    """Lines without times, paths and hashes."""
    text = re.sub(r"(?:/[^\s/:,()]+)+/", "/", text)
    text = re.sub(r"\bsha256-[0-9a-f]{8,}\b", "sha256", text)
    text = re.sub(r"\bin \d+\.\d+s", "in a time", text)
    text = re.sub(r"^([.sF]+) +\[", r"\1 [", text, flags=re.M)
    return [line.rstrip() for line in text.splitlines()]


def agree(expected: str, printed: str) -> bool:
    """Whether two lines are the same, their measured numbers within 0.5%, or below 1 within a factor of two."""
    if MEASURED.sub("#", expected) != MEASURED.sub("#", printed):
        return False
    pairs = zip(map(float, MEASURED.findall(expected)), map(float, MEASURED.findall(printed)))
    return all(abs(b - a) <= 0.005 * a if a >= 1 else a / 2 <= b <= 2 * a for a, b in pairs)


def difference(expected: str, printed: str) -> str:
    """The lines that do not agree, as a diff; empty where all do."""
    have, want = normal(printed), normal(expected)
    have = [w if agree(w, h) else h for w, h in zip(want, have)] + have[len(want) :]
    return "\n".join(difflib.unified_diff(want, have, "tutorial", "printed", lineterm=""))


def test_the_tutorial_shows_what_is_printed(request, tmp_path):
    expected = shown()
    commands = [line.removeprefix("$ ") for line in expected.splitlines() if line.startswith("$ ")]
    assert any(command.startswith("liif new-plugin") for command in commands)
    printed = transcript(commands, tmp_path, request.getfixturevalue("environment"))
    found = difference(expected, printed)
    assert not found, f"{found}\n\nin full:\n{printed}"


@pytest.mark.parametrize(
    "changed",
    [
        ("| | my-encoder | 34.", "| | my-encoder | 35."),
        ("17 passed", "16 passed"),
        ("change a code by 0.013", "change a code by 0.1"),
        ("default 32", "default 3"),
        ("\nlayers = 3", ""),
    ],
)
def test_a_difference_is_found(changed):
    assert changed[0] in shown()
    assert difference(shown(), shown().replace(*changed))


def test_what_differs_between_machines_is_no_difference():
    other = re.sub(r"in \d+\.\d+s", "in 99.99s", shown().replace("/home/you", "/somewhere"))
    other = re.sub(r"sha256-\w+", "sha256-0123456789", other.replace("33.87", "33.90"))
    assert other != shown()
    assert not difference(shown(), other)
