"""README, CONTRIBUTING and the documentation: what they show is run, and nothing public is left out."""

import contextlib
import importlib.util
import inspect
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import attrs
import click
import numpy as np
import pytest
import tiny
from click.testing import CliRunner
from PIL import Image
from torch.distributed.run import parse_args as parse_torchrun

import liif_core
import liif_core.testing
import liif_zoo.trained
from liif_core.cli import liif, liif_run
from liif_core.cli.new_plugin import new_plugin
from liif_core.experiment import schema, translation
from liif_core.experiment.layers import merged
from liif_core.experiment.toml_file import read_experiment_file, resolve, to_toml
from liif_core.images.formats import MAX_PIXELS, READABLE_SUFFIXES, WRITABLE
from liif_core.models.cache import path_of
from liif_core.presets import PROTOCOLS
from liif_core.registry import hookspecs
from liif_core.registry.changes import CHANGES
from liif_core.registry.components import KINDS
from liif_core.registry.discovery import discover
from liif_core.registry.sources import extra_plugins

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
DOCUMENTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
QUICK = ["--set=train.epochs=1", "--set=data.repeat=1", "--set=evaluate=[]", "--set=validate.every=1", "--quiet"]
QUICKER = ["--set=data.queries=16", "--set=train.batch_size=9", "--out=out"]
COMMANDS = {"liif": liif, "liif-run": liif_run}
CHECKS = ["ruff check", "ruff format --check", "lint-imports", "mypy", "mkdocs build --strict"]


def load(name):
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


site = load("site_hooks")


# Snippets. What is generated into a page comes from files that other tests run.


def blocks(language):
    """(title, code) of every block of a language."""
    fence = rf'^( *)```{language}(?: title="([^"]*)")?\n(.*?)^ *```'
    found = [
        pytest.param(title, inspect.cleandoc("\n" + code) + "\n", id=f"{name}-{i}")
        for name, text in DOCUMENTS.items()
        for i, (_, title, code) in enumerate(re.findall(fence, text, re.S | re.M))
    ]
    assert found
    return found


def command_lines():
    lines = {line for block in blocks("sh") for line in block.values[1].splitlines() if line.strip()}
    return [pytest.param(line, id=line.split("-c constraints.txt")[-1][:60]) for line in sorted(lines)]


def snippet(title):
    (code,) = {
        block.values[1] for language in ("python", "toml") for block in blocks(language) if block.values[0] == title
    }
    return code


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    tiny.experiment_file(folder)
    arguments = [str(folder / "tiny.toml"), "--out", str(folder / "out"), *QUICK]
    result = CliRunner().invoke(liif_run, arguments)
    assert result.exit_code == 0, result.output
    return folder / "out" / "checkpoints" / "best.safetensors"


@pytest.fixture
def place(tmp_path, monkeypatch, checkpoint):
    """A folder as a reader of the documents would have it."""
    shutil.copy(checkpoint, tmp_path / "best.safetensors")
    tiny.photographs(tmp_path, count=1)
    (tmp_path / "picture-0.png").rename(tmp_path / "photo.png")
    Image.open(tmp_path / "photo.png").save(tmp_path / "photo.jpg")
    tiny.photographs(
        tmp_path / "photos", count=2, size=(200, 208)
    )  # as large as the crops of experiments/clean_first.toml
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def my_encoder(place, monkeypatch):
    """The plugin that the documents write by hand, installed as its pyproject says."""
    project = tomllib.loads(snippet("pyproject.toml"))
    (name,) = project["tool"]["setuptools"]["py-modules"]
    (place / f"{name}.py").write_text(snippet(f"{name}.py"))
    information = place / f"{name}-{project['project']['version']}.dist-info"
    information.mkdir()
    information.joinpath("METADATA").write_text(
        f"Name: {project['project']['name']}\nVersion: {project['project']['version']}\n"
    )
    ((group, entries),) = project["project"]["entry-points"].items()
    lines = [f"{key} = {value}" for key, value in entries.items()]
    information.joinpath("entry_points.txt").write_text("\n".join([f"[{group}]", *lines]))
    monkeypatch.syspath_prepend(str(place))
    yield place / f"{name}.py"
    sys.modules.pop(name, None)


@pytest.fixture
def my_pack(place, monkeypatch):
    """The model pack that ``liif new-plugin`` writes, found without being installed."""
    new_plugin("my-pack", "model-pack", place)
    monkeypatch.syspath_prepend(str(place / "my-pack"))
    with extra_plugins("my_pack"):
        yield
    sys.modules.pop("my_pack", None)


@pytest.fixture
def liif_tiny(monkeypatch):
    """The included model pack, found without being installed."""
    monkeypatch.syspath_prepend(str(ROOT / "plugins" / "liif-tiny"))
    with extra_plugins("liif_tiny"):
        yield


@pytest.fixture
def published(place, shared, monkeypatch):
    """The published checkpoint in the cache, so that it is not downloaded."""
    monkeypatch.setenv("LIIF_HOME", str(place / "home"))
    kept = path_of(discover().find_model("edsr-baseline-liif")[0])
    kept.parent.mkdir(parents=True)
    kept.symlink_to(shared / "checkpoints" / "edsr-baseline-liif.pth")


@pytest.mark.parametrize("title, code", blocks("python"))
def test_python_runs(title, code, place, request):
    if title.startswith("test_"):
        module = request.getfixturevalue("my_encoder")
        (place / title).write_text(code)
        ran = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", title]
        result = subprocess.run(ran, cwd=module.parent, capture_output=True, text=True)
        assert result.returncode == 0 and re.search(r"[1-9]\d* passed", result.stdout), result.stdout + result.stderr
        return
    if "my_encoder" in code:
        request.getfixturevalue("my_encoder")
    if "my-pack" in code:
        request.getfixturevalue("my_pack")
    if "edsr-liif-tiny" in code:
        request.getfixturevalue("liif_tiny")
    if "edsr-baseline-liif" in code:
        request.getfixturevalue("published")
    names = {"__name__": "example"}
    exec(compile(code, title or "document", "exec"), names)
    if "liif_encoders" in names and "hookimpl" in code:
        liif_core.testing.check_encoder(names["liif_encoders"](), {"channels": 8})
    elif "liif_decoders" in names:
        liif_core.testing.check_decoder(names["liif_decoders"](), {"hidden": 8})
    elif title:
        raise AssertionError(f"{title}: nothing checks this module")


def test_what_the_python_of_readme_returns(place):
    short, code = [block.values[1] for block in blocks("python") if block.id.startswith("README")]
    names = {}
    exec(compile(short, "README.md", "exec"), names)
    assert len([line for line in short.splitlines() if line.strip()]) == 3
    assert names["large"].size == tuple(4 * side for side in Image.open("photo.jpg").size)
    exec(compile(code, "README.md", "exec"), names)
    height, width = names["photo"].height, names["photo"].width
    assert names["large"].size == (round(2.5 * width), round(2.5 * height))
    assert names["wide"].size == (1920, round(1920 * height / width))
    assert names["part"].size == (132, 132)
    assert Image.open("large.png").size == names["large"].size
    assert len([line for line in code.splitlines() if line.strip()]) <= 10


@pytest.mark.parametrize("title, text", blocks("toml"))
def test_toml_is_accepted(title, text, place):
    table = tomllib.loads(text)
    if title == "pyproject.toml":
        return  # the plugin of the documents is installed by it
    if "fallback" not in table:  # a part of a file: tried in a whole one
        tiny.experiment_file(place)
        base = tomllib.loads((place / "tiny.toml").read_text())
        if "use" in table.get("model", {}):
            base.pop("model")
        (place / "tiny.toml").write_text(to_toml(merged(base, table, "", {})))
        assert resolve(read_experiment_file(place / "tiny.toml"), site.documented_registry()).experiment
        return
    (place / "shown.toml").write_text(text)
    for profile in (None, *table["profiles"]):
        assert resolve(read_experiment_file(place / "shown.toml"), discover(), profile).experiment


def begins_with(file: str, place: Path) -> Path | None:
    """The checkpoint that an experiment file of this project goes on with, if it does."""
    if not file.startswith("experiments/") or not (ROOT / file).exists():
        return None
    start = read_experiment_file(ROOT / file).base["train"].get("start_from")
    return None if start is None else place / str(start["checkpoint"]).removeprefix("../")


@pytest.mark.parametrize("line", command_lines())
def test_commands_run(line, place, request):
    if folder := re.fullmatch(r"pip install (plugins/\S+)", line):
        assert (ROOT / folder[1] / "pyproject.toml").is_file()
        return
    if line.startswith("pip install"):
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        named = re.findall(r"\[([a-z,]+)\]", line)
        assert named and all(extra in extras for group in named for extra in group.split(","))
        return
    if line in CHECKS:
        assert f'"{line}' in (ROOT / ".ci" / "run").read_text()
        return
    program, *arguments = shlex.split(line)
    if program == "python":  # the training of all decoders: of one, for a step
        (place / "BSD400").symlink_to(place / "photos")
        (place / "Set5").mkdir()
        (place / "Set5" / "HR").symlink_to(place / "photos")
        shorter = [
            "--only",
            "basis",
            "--seeds",
            "0",
            "--steps",
            "1",
            "--batch",
            "1",
            "--queries",
            "16",
            "--scales",
            "2",
        ]
        subprocess.run([sys.executable, ROOT / arguments[0], *arguments[1:], *shorter], check=True, cwd=place)
        assert (place / "runs" / "equal" / "results.jsonl").is_file()
        return
    if program == "pytest":
        return  # this is it
    if program == "torchrun":  # its own options are parsed, and what it starts is run in one process
        started = parse_torchrun(arguments)
        program = {"liif_core.cli.run": "liif-run", "liif_core": "liif"}[started.training_script]
        arguments = started.training_script_args
        arguments += ["--check"] * (program == "liif-run")
    command, expected = COMMANDS[program], 0
    if line.startswith("liif leaderboard"):  # of what the command before it has written
        before = f"evaluate best.safetensors --hr photos --scale 2 --results {arguments[1]}/results.jsonl"
        assert CliRunner().invoke(command, before.split()).exit_code == 0
    if line.startswith("liif view"):  # it serves until it is stopped
        arguments += ["--no-browser", "--port", "0"]
        request.getfixturevalue("monkeypatch").setattr("liif_core.view.running.Running.wait", lambda self: None)
    if "edsr-baseline-liif.pth" in line:
        shared = request.getfixturevalue("shared")
        published = shared / "checkpoints" / "edsr-baseline-liif.pth"
        (place / "edsr-baseline-liif.pth").symlink_to(published if "import" in line else place / "best.safetensors")
        (place / "Set5").symlink_to(shared / "data" / "set5")
    elif "edsr-baseline-liif" in line:
        request.getfixturevalue("published")
    elif "edsr-liif-tiny" in line:
        request.getfixturevalue("liif_tiny")
    elif "paper" in line:
        arguments.append("--check")  # not the 3.5 GB
    elif begun := begins_with(arguments[0], place):
        begun.parent.mkdir(parents=True)
        begun.symlink_to(liif_zoo.trained.FOLDER / "clean.safetensors")
    elif program == "liif-run" and "--check" not in arguments:
        request.getfixturevalue("my_encoder")
        arguments += [*QUICK, *QUICKER]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == expected, result.output


def test_ci_runs_the_two_commands_of_readme():
    """``.ci/run`` takes the first line of README that has each of these beginnings."""
    starts = re.findall(r"readme_command '([^']*)'", (ROOT / ".ci" / "run").read_text())
    lines = [next(line for line in DOCUMENTS["README.md"].splitlines() if start in line) for start in starts]
    assert lines == [
        'pip install -c constraints.txt ".[all]" && liif-run experiments/edsr_liif.toml',
        'pip install -c constraints.txt -e ".[test]" && pytest',
    ]


def inline_commands():
    """Commands in the text, such as `liif plugins NAME`."""
    found = {span for text in DOCUMENTS.values() for span in re.findall(r"`(liif(?:-run)? [^`\n]+)`", text)}
    shown = {line[2:] for block in blocks("console") for line in block.values[1].splitlines() if line[:2] == "$ "}
    shown = {re.sub(r"^[A-Z_]+=\S+ | \|.*$", "", line) for line in shown}
    return sorted(found | {line for line in shown if line.startswith("liif")})


@pytest.mark.parametrize("line", inline_commands())
def test_commands_in_the_text_parse(line):
    program, *arguments = shlex.split(line)
    command = COMMANDS[program]
    while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        command, arguments = command.commands[arguments[0]], arguments[1:]
    if "--help" in arguments:
        return
    with contextlib.suppress(click.MissingParameter):  # the text names a command, or one of its options
        command.make_context(line, list(arguments))
    with pytest.raises(click.NoSuchOption):
        command.make_context(line, [*arguments, "--no-such-option"])


# Nothing is left out


def test_every_hook_is_documented():
    names = [name for name, function in vars(hookspecs).items() if hasattr(function, "liif_core_spec")]
    assert len(names) == 9
    index = DOCUMENTS["docs/plugins/index.md"]
    for name in names:
        assert re.search(rf"^\| \[.*\]\(\S+\.md\) \| .* \| `{name}` \|", index, re.M), name
        (row,) = re.findall(rf"^\| `{name}` \| (.*) \|$", site.hooks(), re.M)
        assert is_sentence(row), row


def is_sentence(text):
    return bool(re.match(r"[A-Z0-9]", text)) and text.rstrip("` ").endswith((".", "]")) and len(text) > 8


def sections(text, level):
    """Title -> the text below it."""
    parts = re.split(rf"^{'#' * level} (.*)$", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def documented_components():
    registry = site.documented_registry()
    return [
        pytest.param(kind, component, id=f"{kind}-{component.name}")
        for kind in KINDS
        for component, origin in registry.components[kind]
        if origin.distribution == "liif-core" or origin.distribution.removesuffix(".py") in site.SEPARATE
    ]


def test_every_distribution_in_the_repository_is_documented():
    folders = {path.parent.name for path in (ROOT / "plugins").glob("*/pyproject.toml")}
    offered = {module.replace("_", "-") for module in site.SEPARATE}
    assert folders == offered | {"liif-lte", "liif-tiny"}  # the included LTE under another name; a model pack
    for folder in folders - {"liif-lte"}:
        assert any(f"plugins/{folder}" in text for name, text in DOCUMENTS.items() if "plugins/" in name), folder


@pytest.mark.parametrize("kind, component", documented_components())
def test_every_option_is_documented(kind, component):
    below = sections(site.components(), 2)[kind.capitalize()]
    text = sections(below, 3)[f"`{component.name}` {{ #{kind}-{component.name} }}"]
    rows = dict(re.findall(r"^\| `(\w+)` \| .* \| .* \| (.*) \|$", text, re.M))
    assert list(rows) == [field.name for field in attrs.fields(component.options)]
    for name, help in rows.items():
        assert is_sentence(help), f"{kind} {component.name}: {name}: {help!r} is not a sentence"


def schema_classes():
    found = [cls for cls in vars(schema).values() if isinstance(cls, type) and attrs.has(cls)]
    return [cls for cls in found if cls.__module__ in (schema.__name__, schema.TrainSpec.__module__)]


@pytest.mark.parametrize("cls", schema_classes())
def test_every_key_of_an_experiment_is_documented(cls):
    text = site.experiment_reference()
    table = site._table(cls)
    assert table in text
    for field in attrs.fields(cls):
        name = "use" if (cls, field.name) == (schema.WholeModelSpec, "model") else field.name
        (help,) = re.findall(rf"^\| `{name}` \| .* \| .* \| (.*) \|$", table, re.M)
        assert is_sentence(help), f"{cls.__name__}.{field.name}: {help!r} is not a sentence"
    for tag in (*schema.SOURCES, *schema.SCHEDULES):
        assert f'= "{tag}"`' in text


def test_every_command_and_option_is_documented():
    text = sections(site.command_line(), 2)
    expected = {f"`liif {name}`" for name in liif.commands if name != "run"} | {"`liif-run`"}
    expected |= {f"`liif models {name}`" for name in liif.commands["models"].commands}
    assert text.keys() == expected
    for name, command in site.commands().items():
        rows = re.findall(r"^\| `(.*)` \| (.*) \|$", text[f"`{name}`"], re.M)
        assert command.help
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                (help,) = [help for record, help in rows if parameter.opts[-1] in re.split(r"[ ,]+", record)]
                assert is_sentence(help), f"{name} {parameter.opts[-1]}: {help!r} is not a sentence"
            else:
                assert (parameter.metavar or parameter.name.upper()) in text[f"`{name}`"]
    shown = [[(p.opts, getattr(p, "help", "")) for p in command.params] for command in (liif.commands["run"], liif_run)]
    assert shown[0] == shown[1]


def test_every_public_name_is_documented():
    api = DOCUMENTS["docs/reference/api.md"]
    named = set(re.findall(r"^::: liif_core\.(\w+)$", api, re.M))
    assert named == set(liif_core.__all__)
    named = set(re.findall(r"^::: liif_core.testing\.(\w+)$", DOCUMENTS["docs/plugins/testing.md"], re.M))
    assert named == set(liif_core.testing.__all__)


@pytest.mark.parametrize("name", liif_core.__all__)
def test_every_public_function_and_class_has_a_docstring(name):
    value = getattr(liif_core, name)
    if inspect.isfunction(value) or (inspect.isclass(value) and value.__module__.startswith("liif_core")):
        assert value.__doc__, name
    if inspect.isclass(value) and value.__module__.startswith("liif_core"):
        members = {key: item for key, item in vars(value).items() if not key.startswith("_")}
        methods = {key: item for key, item in members.items() if inspect.isfunction(item) or isinstance(item, property)}
        without = [key for key, item in methods.items() if not item.__doc__]
        inherited = [key for key in without for base in value.__mro__[1:] if getattr(base, key, None) is not None]
        assert set(without) <= set(inherited), without


@pytest.mark.parametrize("folder", ["equal", "reference"])
def test_the_leaderboard_is_that_of_its_result_files(folder):
    values, costs = {}, {}
    for path in sorted((DOCS / "results" / "leaderboard" / folder).glob("*.jsonl")):
        for line in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            key = line["model"]["name"].split(", seed ")[0], str(line["scale"])
            images = list(line["images"].values())
            values.setdefault(key, []).append(sum(image["psnr"] for image in images) / len(images))
            seconds = sum(image["encode_s"] + image["decode_s"] for image in images) / len(images)
            costs[key] = min(costs.get(key, 1e9), 1000 * seconds)
            assert line["preset"]["name"] == "fair" and line["data"]["given_lr"] == 0 and len(images) == 5
    head, _, *rows = site.equal_budget("table", folder).splitlines()
    scales = [name.strip().lstrip("x") for name in head.split("|")[2:-3]]
    assert scales == ["2", "3.3,1.7", "2.5", "4", "8"] or scales == ["2", "2.5", "3.3,1.7", "4", "8"]
    names = {name for name, _ in values}
    assert len(rows) == len(names)
    order = []
    for row in rows:
        name, *cells = [cell.strip() for cell in row.strip("|").split("|")]
        for scale, cell in zip(scales, cells):
            found = values[name, f"[{scale.replace(',', ', ')}]" if "," in scale else scale]
            mean, spread = sum(found) / len(found), (max(found) - min(found)) / 2
            assert cell == (f"{mean:.2f} ± {spread:.2f}" if len(found) > 1 else f"{mean:.2f}")
        order.append(sum(values[name, "4"]) / len(values[name, "4"]))
        assert cells[-1] == f"{costs[name, '4']:,.0f}"
    assert order == sorted(order, reverse=True)
    chart = ET.fromstring(site.equal_budget("chart", folder))
    assert names <= {text.text for text in chart.iter("text")}


def test_every_protocol_and_format_is_documented():
    for name in PROTOCOLS:
        assert f"`{name}`" in DOCUMENTS["docs/evaluation.md"] and f"| `{name}` |" in site.protocols()
    text = DOCUMENTS["docs/image-files.md"]
    assert f"{MAX_PIXELS:,}" in text
    for name in WRITABLE:
        assert f"(`{name}`)" in site.formats()
    for suffix in READABLE_SUFFIXES:
        name = {"dib": "bmp", "mpo": "mpo", "apng": "png"}.get(suffix[1:], suffix[1:])
        known = {"jpg": "JPEG", "jpe": "JPEG", "jfif": "JPEG", "tif": "TIFF", "pgm": "PPM", "pbm": "PPM", "pnm": "PPM"}
        assert known.get(name, name).lower() in text.lower(), suffix


def test_the_changelog_names_what_was_renamed():
    text = DOCUMENTS["docs/changelog.md"]
    assert text == '--8<-- "CHANGELOG.md"\n'
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    for old, new in translation.RENAMED_KEYS.items():
        assert f"| `{old}` | `{old.rpartition('.')[0]}.{new}` |" in changelog
    for old, new in translation.RENAMED_SOURCES.items():
        assert f'| `source = "{old}"` | `source = "{new}"` |' in changelog
    for line in CHANGES[3]:
        words = re.findall(r"\b(?:[a-z]+_[a-z_]+|[A-Z][a-z]+[A-Z]\w+|radius|scope|known)\b", line)
        assert all(word in changelog for word in words), (line, words)


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r": (\S+\.md)$", text, re.M))
    assert listed == {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}


def test_links_of_the_documents_at_the_top_exist():
    for name in ("README.md", "CONTRIBUTING.md"):
        targets = re.findall(r"\]\(([^)#:]+)\)", DOCUMENTS[name])
        assert targets
        for target in targets:
            assert (ROOT / target).exists(), target


# Numbers and pictures


def set5_results():
    """Method -> scale -> PSNR, of the results that the commands on the page wrote."""
    found = {"bicubic": {}, "here": {}}
    for path in sorted((DOCS / "results").glob("set5-*.json")):
        for row in json.loads(path.read_text())["results"]:
            found["bicubic"][row["scale"]] = row["bicubic"]["psnr"]
            found["here"][row["scale"]] = row["psnr"]
    return found


def test_the_table_of_published_weights_is_what_the_commands_wrote():
    text = DOCUMENTS["docs/evaluation.md"]
    commands = [line for line in text.splitlines() if line.startswith("liif evaluate edsr-baseline-liif.pth")]
    written = {re.search(r"--json (\S+)", line)[1] for line in commands}
    assert written == {path.name for path in (DOCS / "results").glob("set5-*.json")}
    results = set5_results()
    for method, start in (("bicubic", "| bicubic |"), ("here", "| EDSR-baseline-LIIF, here |")):
        (row,) = [line for line in text.splitlines() if line.startswith(start)]
        cells = [float(cell) for cell in row.split("|")[2:-1]]
        assert cells == [round(results[method][scale], 2) for scale in (2, 3, 4, 6, 8)]


def test_the_results_are_the_reference(shared):
    published = json.loads((shared / "golden" / "set5.json").read_text())
    for scale, value in set5_results()["here"].items():
        assert value == pytest.approx(published[f"x{scale}"]["mean"], abs=2e-3)


def test_pictures_are_those_that_the_script_draws(tmp_path):
    pytest.importorskip("matplotlib")
    script = load("make_pictures")
    script.main(tmp_path)
    others = {*load("make_model_pictures").PICTURES, "first-run.png", "view.png"}
    assert {path.name for path in (DOCS / "pictures").glob("*.png")} == {*script.PICTURES, *others}
    for name in script.PICTURES:
        drawn, committed = Image.open(tmp_path / name).convert("L"), Image.open(DOCS / "pictures" / name).convert("L")
        assert abs(drawn.width - committed.width) < 20 and abs(drawn.height - committed.height) < 20
        small = [np.asarray(image.resize((30, 20), Image.Resampling.BOX), float) for image in (drawn, committed)]
        assert np.abs(small[0] - small[1]).max() < 40, name  # fonts differ between versions


def test_generated_parts_have_contents():
    markers = [(name, marker) for name, text in DOCUMENTS.items() for marker in re.findall("<!-- generated.*-->", text)]
    assert len(markers) > 20
    for name, marker in markers:
        text = site.generate(marker)
        assert "<!--" not in text and len(text) > 100, (name, marker)
    with pytest.raises(KeyError):
        site.generate("<!-- generated: nothing -->")
