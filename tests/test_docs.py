"""What README and CONTRIBUTING show is run: commands, Python, TOML."""

import re
import shlex
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
import tiny
from click.testing import CliRunner

import liif_core
from liif_core.cli import liif, liif_run
from liif_core.experiment.toml_file import read_experiment_file, resolve

ROOT = Path(__file__).parents[1]
DOCUMENTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md")}
QUICK = [
    "--set",
    "train.epochs=1",
    "--set",
    "data.repeat=1",
    "--set",
    "evaluate=[]",
    "--set",
    "validate.every=1",
    "--quiet",
]


def blocks(language):
    found = [
        pytest.param(block, id=f"{name}-{i}")
        for name, text in DOCUMENTS.items()
        for i, block in enumerate(re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.S | re.M))
    ]
    assert found
    return found


def commands():
    lines = {line.strip() for block in blocks("sh") for line in block.values[0].splitlines() if line.strip()}
    return [pytest.param(line, id=line.split("-c constraints.txt")[-1][:40]) for line in sorted(lines)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    tiny.experiment_file(folder)
    arguments = [str(folder / "tiny.toml"), "--out", str(folder / "out"), *QUICK]
    assert CliRunner().invoke(liif_run, arguments).exit_code == 0
    return folder / "out" / "checkpoints" / "best.safetensors"


@pytest.fixture
def place(tmp_path, monkeypatch, checkpoint):
    """A folder as a reader of the documents would have it."""
    shutil.copy(checkpoint, tmp_path / "best.safetensors")
    tiny.photographs(tmp_path, count=1)
    (tmp_path / "picture-0.png").rename(tmp_path / "photo.png")
    tiny.photographs(tmp_path / "photos", count=2)
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def installed_plugin(place, monkeypatch):
    """README's plugin, installed as its pyproject says: the module and its entry point on the path."""
    (module,) = [block.values[0] for block in blocks("python") if "hookimpl" in block.values[0]]
    (project,) = [tomllib.loads(block.values[0]) for block in blocks("toml") if "py-modules" in block.values[0]]
    (name,) = project["tool"]["setuptools"]["py-modules"]
    (place / f"{name}.py").write_text(module)
    information = place / f"{name}-{project['project']['version']}.dist-info"
    information.mkdir()
    information.joinpath("METADATA").write_text(
        f"Name: {project['project']['name']}\nVersion: {project['project']['version']}\n"
    )
    ((group, entries),) = project["project"]["entry-points"].items()
    lines = [f"{key} = {value}" for key, value in entries.items()]
    information.joinpath("entry_points.txt").write_text("\n".join([f"[{group}]", *lines]))
    monkeypatch.syspath_prepend(str(place))
    yield
    sys.modules.pop(name, None)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(code, place, request):
    if "from my_encoder" in code:
        request.getfixturevalue("installed_plugin")
    names = {"__name__": "example"}
    exec(compile(code, "document", "exec"), names)
    if "model" in names:
        assert names["large"].shape == (1, 3, 700, 500) and names["part"].shape == (1, 3, 256, 256)
        assert names["color"].shape == (1, 1, 3)


@pytest.mark.parametrize("text", blocks("toml"))
def test_toml_is_valid(text, place, registry):
    if "fallback" not in tomllib.loads(text):
        return  # a part of a file: that it is TOML is all there is to check
    (place / "shown.toml").write_text(text)
    for profile in (None, "samples"):
        assert resolve(read_experiment_file(place / "shown.toml"), registry, profile).experiment


@pytest.mark.parametrize("line", commands())
def test_commands_run(line, place, request):
    if line.startswith("pip install"):
        assert "readme_command 'pip install -c constraints.txt" in (ROOT / ".ci" / "run").read_text()
        assert line in (ROOT / "README.md").read_text()  # .ci/run takes them from there
        assert "&&" in line
        return
    program, *arguments = shlex.split(line)
    command = {"liif": liif, "liif-run": liif_run}[program]
    expected = 0
    if "Set5" in line:
        shared = request.getfixturevalue("shared")
        (place / "Set5").symlink_to(shared / "data" / "set5")
        command, arguments = (
            liif,
            [*arguments[:1], str(place / "best.safetensors"), *arguments[2:], "--quiet"],
        )  # quicker
    elif "paper" in line:
        arguments.append("--check")  # not the 3.5 GB
    elif program == "liif-run":
        request.getfixturevalue("installed_plugin")
        arguments += [*QUICK, "--set", "data.queries=16", "--set", "train.batch_size=9", "--out", "out"]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == expected, result.output


def test_the_table_of_published_weights_is_the_reference(shared):
    import json

    published = json.loads((shared / "golden" / "set5.json").read_text())
    row = next(line for line in DOCUMENTS["README.md"].splitlines() if line.startswith("| EDSR-baseline-LIIF, here"))
    assert [float(cell) for cell in row.split("|")[2:-1]] == [
        round(published[s]["mean"], 2) for s in ("x2", "x3", "x4", "x6", "x8")
    ]


def test_every_public_name_and_link_exists():
    for name in liif_core.__all__:
        assert getattr(liif_core, name) is not None
    for text in DOCUMENTS.values():
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (ROOT / target).exists(), target
