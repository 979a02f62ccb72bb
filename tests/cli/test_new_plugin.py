"""``liif new-plugin``: what it writes works as it is written."""

import hashlib
import importlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from liif_core import load
from liif_core.cli import liif, liif_run
from liif_core.registry.components import KINDS, PARTS
from liif_core.registry.hookspecs import API_VERSION
from liif_core.registry.sources import GROUP

QUICK = [
    "--quiet", "--device", "cpu", "--set", "train.epochs=1", "--set", "data.repeat=8", "--set", "validate.every=1",
    "--set", "evaluate=[]",
]  # fmt: skip


def invoke(*arguments, command=liif):
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


ALL = (*KINDS, "model-pack")


def module_of(folder, kind):
    """The file or package that the generated pyproject.toml names."""
    return folder / (f"new_{kind.replace('-', '_')}" + ("" if kind == "model-pack" else ".py"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A plugin of every kind."""
    folder = tmp_path_factory.mktemp("made")
    for kind in ALL:
        result = invoke("new-plugin", f"new-{kind}", "--kind", kind, "--into", folder)
        assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def installed(made, tmp_path, monkeypatch):
    """All of them, installed as their pyproject.toml says: modules and entry points on the path."""
    for kind in ALL:
        project = tomllib.loads((made / f"new-{kind}" / "pyproject.toml").read_text())
        name, version = project["project"]["name"], project["project"]["version"]
        info = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        ((group, entries),) = project["project"]["entry-points"].items()
        assert group == f"{GROUP}.v{API_VERSION}"
        (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *(f"{k} = {v}" for k, v in entries.items())]))
        monkeypatch.syspath_prepend(str(made / name))
        contents = project["tool"]["setuptools"]["packages" if kind == "model-pack" else "py-modules"]
        assert contents == list(entries.values()) == [module_of(made, kind).stem]
        assert module_of(made / name, kind).exists()
    monkeypatch.syspath_prepend(str(tmp_path))
    yield made
    for kind in ALL:
        sys.modules.pop(f"new_{kind.replace('-', '_')}", None)


def test_its_own_tests_pass(made):
    path = os.pathsep.join(str(made / f"new-{kind}") for kind in ALL)
    tests = [str(made / f"new-{kind}" / "tests") for kind in ALL]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(made), *tests]
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, cwd=made, env=environment, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    passed = int(ran.stdout.split(" passed")[0].split()[-1])
    assert passed > 10 * len(KINDS), ran.stdout  # a test for each check, not one for all


def test_its_experiment_runs(installed, tmp_path):
    for kind in KINDS:
        file = installed / f"new-{kind}" / f"new-{kind}.toml"
        result = invoke(file, "--out", tmp_path / kind, *QUICK, command=liif_run)
        assert result.exit_code == 0, result.output
        resolved = (tmp_path / kind / "experiment.toml").read_text()
        assert f"new-{kind} 0.1.0" in resolved.partition("\n\n")[0]
        tables = tomllib.loads(resolved)
        chosen = tables["model"] if kind == "model" else tables["data" if kind == "degradation" else "model"][kind]
        assert f"new-{kind}" in [table["use"] for table in (chosen if isinstance(chosen, list) else [chosen])]
        report = (tmp_path / kind / "report.md").read_text()
        described = {"encoder": "new-encoder 3x32", "decoder": "new-decoder 64", "model": "new-model 3x32"}
        assert described.get(kind, "") in report


def test_a_pack_loads_by_name(installed):
    model = load("new-model-pack")
    assert model.channels == 3 and not model.training
    text = invoke("plugins", "new-model-pack").output
    assert text.startswith("trained model new-model-pack  (new-model-pack 0.1.0)\n") and "CC0-1.0" in text


def test_a_pack_is_trained_by_its_script(installed, tmp_path):
    """What ``train.py`` puts into the package is what the pack then offers."""
    folder = tmp_path / "copy"
    shutil.copytree(installed / "new-model-pack", folder)
    experiment = folder / "new-model-pack.toml"
    changes = {"repeat = 96": "repeat = 8", "epochs = 10": "epochs = 1", "scales = [2, 3]": "scales = [2, [2, 3]]"}
    text = experiment.read_text()
    for old, new in changes.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    experiment.write_text(text)
    untrained = (folder / "new_model_pack" / "new-model-pack.safetensors").read_bytes()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(folder / "train.py")]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert (folder / "new_model_pack" / "new-model-pack.safetensors").read_bytes() != untrained
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)]
    environment["PYTHONPATH"] = str(folder)
    ran = subprocess.run(tests, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300)
    assert ran.returncode == 0, ran.stdout
    measured = json.loads((folder / "new_model_pack" / "new-model-pack.json").read_text())
    assert list(measured["scores"]) == ["chelsea x2", "chelsea x2,3"]
    assert all(15 < value < 50 for value in measured["scores"].values())

    (folder / "given.safetensors").write_bytes(untrained)
    ran = subprocess.run([*command, str(folder / "given.safetensors")], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert (folder / "new_model_pack" / "new-model-pack.safetensors").read_bytes() == untrained
    measured = json.loads((folder / "new_model_pack" / "new-model-pack.json").read_text())
    sha256 = hashlib.sha256(untrained).hexdigest()
    assert measured == {"sha256": sha256, "size": len(untrained), "scores": {}}


def test_installed_by_pip(made, tmp_path):
    """The distribution builds, and a fresh interpreter finds the plugin and its test."""
    have = {d.name.lower(): d.version for d in importlib.metadata.distributions() if d.name in ("pip", "setuptools")}
    if "pip" not in have or tuple(map(int, have.get("setuptools", "0").split(".")[:2])) < (70, 1):
        pytest.skip("building without a network needs pip, and setuptools from 70.1, in this environment")
    sources, target = [made / "new-decoder", made / "new-model-pack"], tmp_path / "site"
    install = ["install", "-q", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    install += [str(shutil.copytree(source, tmp_path / source.name)) for source in sources]
    built = subprocess.run([sys.executable, "-m", "pip", *install], capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stderr
    assert (target / "new_decoder.py").exists()
    environment = os.environ | {"PYTHONPATH": str(target)}
    command = [sys.executable, "-m", "liif_core", "plugins", "new-decoder"]
    shown = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("decoder new-decoder  (new-decoder 0.1.0)")
    assert f"source: {target}" in shown.stdout
    code = "import liif_core; print(liif_core.load('new-model-pack').channels)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300
    )
    assert loaded.stdout == "3\n", loaded.stderr


def test_without_installing(made, tmp_path):
    folder = made / "new-conditioning"
    result = invoke(
        folder / "new-conditioning.toml", "--plugin", folder / "new_conditioning.py", "--check", command=liif_run
    )
    assert result.exit_code == 0, result.output
    assert "# plugins: liif-core" in result.output and "new_conditioning.py sha256-" in result.output


@pytest.mark.parametrize("kind", [*PARTS, "model", "degradation"])
def test_its_example_can_be_pasted_into_a_file_that_has_none(installed, tmp_path, kind):
    """What ``liif plugins NAME`` prints is in the generated experiment too, up to values."""
    (shown,) = json.loads(invoke("plugins", f"new-{kind}", "--json").output)
    text = (installed / f"new-{kind}" / f"new-{kind}.toml").read_text()
    pasted, own = tomllib.loads(shown["example"]), tomllib.loads(text)
    for table, tables in pasted.items():
        given = tables if kind == "model" else tables[kind]
        written = own[table] if kind == "model" else own[table][kind]
        uses = [t["use"] for t in given] if isinstance(given, list) else [given["use"]]
        assert uses[0] in ([t["use"] for t in written] if isinstance(written, list) else [written["use"]])


def test_it_says_what_to_do_next(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke("new-plugin", "liif-wide", "--kind", "encoder")
    assert result.exit_code == 0
    for path in ("pyproject.toml", "README.md", "liif_wide.py", "tests/test_liif_wide.py", "wide.toml"):
        assert (tmp_path / "liif-wide" / path).is_file() and f"  {path}\n" in result.output
    for command in ("cd liif-wide", 'pip install -e ".[test]"', "pytest", "liif-run wide.toml"):
        assert f"  {command}\n" in result.output
    assert sorted(os.listdir(tmp_path)) == ["liif-wide"]  # nothing else
    assert oct((tmp_path / "liif-wide").stat().st_mode) == oct(_a_folder(tmp_path / "by hand").stat().st_mode)


def test_models_is_another_name_of_the_kind_of_model_packs(tmp_path):
    for folder, kind in (("one", "models"), ("two", "model-pack")):
        (tmp_path / folder).mkdir()
        assert invoke("new-plugin", "some-models", "--kind", kind, "--into", tmp_path / folder).exit_code == 0
    one, two = (
        {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.suffix == ".py"}
        for folder in (tmp_path / "one", tmp_path / "two")
    )
    assert one == two and Path("some-models/some_models/__init__.py") in one


def _a_folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("name", ["tensor", "a", "field-2", "liif-query", "a-name-of-some-length"])
def test_odd_names_make_good_modules(tmp_path, monkeypatch, name, kind):
    assert invoke("new-plugin", name, "--kind", kind, "--into", tmp_path).exit_code == 0
    monkeypatch.syspath_prepend(str(tmp_path / name))
    module = name.replace("-", "_")
    try:
        loaded = importlib.import_module(module)
        (hook,) = [value for key, value in vars(loaded).items() if key.startswith("liif_") and callable(value)]
        assert hook().name == name.removeprefix("liif-")
        assert max(len(line) for line in Path(loaded.__file__).read_text().splitlines()) <= 120
    finally:
        sys.modules.pop(module, None)


def test_all_problems_in_one_message(tmp_path):
    result = invoke("new-plugin", "My_Encoder", "--kind", "encodr", "--into", tmp_path / "absent")
    assert result.exit_code == 2
    lines = result.output.strip().splitlines()
    assert len(lines) == 3
    assert (
        "--kind encodr: expected one of encoder, features" in lines[0]
        and "model-pack" in lines[0]
        and "did you mean 'encoder'" in lines[0]
    )
    assert "'My_Encoder': a name has lower-case letters" in lines[1]
    assert f"--into {tmp_path / 'absent'}: no such folder" in lines[2]


@pytest.mark.parametrize(
    "name, expected",
    [
        ("edsr", "liif-core 0.1.0 already offers the encoder 'edsr'"),
        ("liif-edsr", "liif-core 0.1.0 already offers the encoder 'edsr'"),
        ("torch", "is already installed"),
        ("torch", "Python already has a module or keyword 'torch'"),
        ("class", "Python already has a module or keyword 'class'"),
        ("json", "Python already has a module or keyword 'json'"),
        ("liif-core", "is already installed"),
        ("", "a name has lower-case letters"),
        ("..", "a name has lower-case letters"),
        ("a/b", "a name has lower-case letters"),
        ("3d", "a name has lower-case letters"),
        ("a--b", "a name has lower-case letters"),
        ("a-", "a name has lower-case letters"),
        ("liif-", "a name has lower-case letters"),
        ("a\n", "a name has lower-case letters"),
        ("é", "a name has lower-case letters"),
        ("a" * 61, "a name has lower-case letters"),
    ],
)
def test_names_that_are_taken_or_bad(tmp_path, name, expected):
    result = invoke("new-plugin", "--kind", "encoder", "--into", tmp_path, "--", name)
    assert result.exit_code == 2 and expected in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("there", ["folder", "file", "link"])
def test_what_is_there_stays(tmp_path, there):
    target = tmp_path / "mine"
    {"folder": target.mkdir, "file": target.touch, "link": lambda: target.symlink_to("nowhere")}[there]()
    result = invoke("new-plugin", "mine", "--kind", "encoder", "--into", tmp_path)
    assert result.exit_code == 2 and "already exists" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert not target.is_dir() or not list(target.iterdir())


def test_whole_or_nothing(tmp_path, monkeypatch):
    written = []

    def failing(path, *arguments, **options):
        written.append(path)
        if len(written) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", failing)
    result = invoke("new-plugin", "mine", "--kind", "encoder", "--into", tmp_path)
    assert (result.exit_code, "No space left on device" in result.output) == (2, True)
    assert len(written) == 3 and not list(tmp_path.iterdir())
