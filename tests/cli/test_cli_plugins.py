"""Living with other people's plugins, at the command line."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import attrs
import pytest
import strangers
import tiny
from click.testing import CliRunner

from liif_core import Component, Registry, discover, load_experiment, option
from liif_core.cli import inventory, liif, liif_run
from liif_core.cli.examples import as_toml, example
from liif_core.experiment.toml_file import to_toml
from liif_core.registry.changes import CHANGES
from liif_core.registry.components import KINDS
from liif_core.registry.hookspecs import ENTRY_POINT_GROUP
from liif_core.registry.sources import GROUP

H = strangers.HEADER
HOOK = H + "@hookimpl\ndef liif_encoders():\n    {}\n"
WITHIN = "return [Component('within', dict), Component('within', list)]"
TWICE = "offers two encoder components named 'within'"
NOT_ATTRS = "class Options:\n    width = 4\n" + HOOK.format("return Component('x', dict, Options)")
NOT_FOUND = "No module named 'stranger_dependency'"

# Of the twelve kinds, ten that are not loaded: distribution -> its source, and the reason that is shown for it
BROKEN = {
    "import-error": (H + "from liif_core import Nothing\n", "ImportError: cannot import name 'Nothing'"),
    "syntax-error": ("def f(:\n", "SyntaxError: "),
    "system-exit": ("import sys\nsys.exit('goodbye')\n", "SystemExit: goodbye"),
    "missing-dependency": ("import stranger_dependency\n", f"ModuleNotFoundError: {NOT_FOUND}"),
    "misspelt-hook": (H + "@hookimpl\ndef liif_encoder():\n    return []\n", "unknown hook 'liif_encoder'"),
    "hook-raises": (HOOK.format("raise RuntimeError('not today')"), "RuntimeError: not today"),
    "wrong-type": (HOOK.format("return 'wrong-type'"), "TypeError: liif_encoders returned 'wrong-type'; expected"),
    "twice-within": (HOOK.format(WITHIN), f"ValueError: {TWICE}"),
    "wrong-api": ("import os\nos._exit(7)\n", "made for version 99 of the plugin API, and this liif-core has"),
    "not-attrs": (NOT_ATTRS, "must be a frozen attrs class"),
}
WORKING = {  # the other two, a name that two offer and one that prints, and one that takes a name of ours
    "across-one": strangers.encoder("across"),
    "across-two": strangers.encoder("across"),
    "prints": "print('Welcome to prints!')\n" + strangers.encoder("prints"),
    "takes-a-name": strangers.encoder("edsr"),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """All of them, each with its own version, in one folder."""
    folder = tmp_path_factory.mktemp("site")
    for i, (name, (source, _)) in enumerate(BROKEN.items()):
        group = f"{GROUP}.v99" if name == "wrong-api" else ENTRY_POINT_GROUP
        strangers.install(folder, name, source, f"0.{i}", group)
    for name, source in WORKING.items():
        if name != "takes-a-name":
            strangers.install(folder, name, source)
    return folder


@pytest.fixture
def crowd(site, tmp_path, monkeypatch):
    """A folder with an experiment, and all of them installed."""
    monkeypatch.delenv("LIIF_PLUGINS", raising=False)
    monkeypatch.delenv("LIIF_PLUGIN_PATH", raising=False)
    monkeypatch.chdir(tmp_path)
    tiny.experiment_file(tmp_path)
    path = list(sys.path)
    monkeypatch.syspath_prepend(str(site))
    yield site
    sys.path[:] = path
    strangers.forget()


def invoke(*arguments, command=liif):
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.mark.parametrize("arguments", [["--help"], ["plugins", "--json"]], ids=" ".join)
def test_in_a_process_of_its_own(crowd, arguments):
    """What ``os._exit`` or a print would spoil."""
    command = [sys.executable, "-m", "liif_core", *arguments]
    ran, alone = (
        subprocess.run(command, capture_output=True, text=True, env=os.environ | added, timeout=120)
        for added in ({"PYTHONPATH": str(crowd)}, {"LIIF_PLUGINS": "none"})
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    if arguments == ["--help"]:
        assert ran.stdout == alone.stdout
    else:
        listed = json.loads(ran.stdout)
        assert {plugin["distribution"] for plugin in listed["broken"]} == set(BROKEN)
        assert len(listed["remarks"]) == 2


@pytest.mark.parametrize("command", ["plugins", "doctor"])
def test_each_is_named_with_its_reason(crowd, command):
    result = invoke(command)
    assert result.exit_code == 0
    for i, (name, (_, reason)) in enumerate(BROKEN.items()):
        (line,) = [line for line in result.output.splitlines() if f"({name} 0.{i})" in line]
        assert re.fullmatch(rf"not loaded: main = stranger_\d+  \({name} 0\.{i}\): (.*)", line)
        assert reason in line
    notes = [line for line in result.output.splitlines() if line.startswith("note: ")]
    assert re.fullmatch(
        r"note: plugin main = stranger_\d+ of prints 1.0 prints when it is loaded \(not shown\): Welcome to prints!",
        notes[0],
    )
    assert notes[1:] == [
        "note: encoder 'across' is offered by across-one 1.0 and across-two 1.0; "
        "choose one: use = 'across-one:across' or 'across-two:across'"
    ]


def test_an_experiment_that_needs_none_is_unaffected(crowd, monkeypatch):
    among = invoke("tiny.toml", "--check", command=liif_run)
    monkeypatch.setenv("LIIF_PLUGINS", "none")
    alone = invoke("tiny.toml", "--check", command=liif_run)
    assert among.exit_code == alone.exit_code == 0
    assert among.output == alone.output


@pytest.mark.parametrize("name", BROKEN)
def test_an_experiment_that_needs_one_is_told_the_reason(crowd, name):
    result = invoke("tiny.toml", "--check", "--set", f'model.encoder={{use="{name}:mine"}}', command=liif_run)
    assert result.exit_code == 2 and "Traceback" not in result.output
    number = list(BROKEN).index(name)
    assert f"{name} 0.{number}" in result.output and BROKEN[name][1] in result.output


def test_an_experiment_that_needs_a_name_of_two(crowd):
    refused = invoke("tiny.toml", "--check", "--set", 'model.encoder={use="across"}', command=liif_run)
    assert refused.exit_code == 2
    assert "offered by across-one 1.0 and across-two 1.0; choose one: use = 'across-one:across'" in refused.output
    said = invoke("tiny.toml", "--check", "--set", 'model.encoder={use="across-two:across"}', command=liif_run)
    assert said.exit_code == 0, said.output
    assert "across-two 1.0" in said.output and "across-one" not in said.output
    assert invoke("tiny.toml", "--check", "--set", 'model.encoder={use="prints"}', command=liif_run).exit_code == 0


def test_our_own_names_are_not_taken_silently(crowd, tmp_path, monkeypatch):
    extra = tmp_path / "extra"
    extra.mkdir()
    strangers.install(extra, "takes-a-name", WORKING["takes-a-name"])
    monkeypatch.syspath_prepend(str(extra))
    refused = invoke("tiny.toml", "--check", command=liif_run)
    assert refused.exit_code == 2
    assert "'edsr' is offered by liif-core" in refused.output and "takes-a-name 1.0" in refused.output
    assert "'liif-core:edsr' or 'takes-a-name:edsr'" in refused.output
    said = invoke("tiny.toml", "--check", "--set", 'model.encoder.use="liif-core:edsr"', command=liif_run)
    assert said.exit_code == 0 and "takes-a-name" not in said.output


# --plugin


def test_a_plugin_for_one_command(crowd, tmp_path):
    (tmp_path / "idea.py").write_text(strangers.encoder("idea"))
    needs = ["tiny.toml", "--set", 'model.encoder={use="idea"}']
    assert invoke(*needs, "--check", command=liif_run).exit_code == 2
    ran = invoke(
        *needs, "--plugin", "idea.py", "--out", "out", "--quiet", "--set", "train.epochs=1", "--set", "evaluate=[]",
        command=liif_run,
    )  # fmt: skip
    assert ran.exit_code == 0, ran.output
    checkpoint = "out/checkpoints/best.safetensors"
    measure = ["evaluate", checkpoint, "--hr", "images", "--scale", "2", "--quiet"]
    without = invoke(*measure)
    assert without.exit_code == 2
    assert "no encoder is named 'idea'" in without.output and "saved with idea.py sha256-" in without.output
    same = invoke(*measure, "--plugin", "idea.py")
    assert same.exit_code == 0 and "warning" not in same.output

    (tmp_path / "idea.py").write_text(strangers.encoder("idea") + "# another version\n")
    other = invoke(*measure, "--plugin", "idea.py")
    assert other.exit_code == 0
    warnings = [line for line in other.output.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert re.fullmatch(
        r"warning: \S+best.safetensors: saved with idea.py sha256-\w{8}, and read with sha256-\w{8}", warnings[0]
    )


def test_a_broken_plugin_for_one_command(crowd, tmp_path):
    (tmp_path / "idea.py").write_text("1 / 0\n")
    for command in (["plugins"], ["run", "tiny.toml", "--check"]):
        result = invoke(*command, "--plugin", "idea.py")
        assert result.exit_code == 2
        place = f"({tmp_path / 'idea.py'}, line 1)"
        assert result.output == f"error: --plugin idea.py: ZeroDivisionError: division by zero {place}\n"


# liif plugins NAME


MODEL_OF_ONE_COLOR = """
from attrs import frozen
from liif_core import Component, hookimpl, option

@frozen
class Options:
    width: int = option("Channels.", 4)
    names: tuple[str, ...] = option("Names.", ("a", "b"))

@hookimpl
def liif_models():
    return Component("one-color", dict, Options)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_every_example_can_be_pasted(kind, tmp_path, monkeypatch):
    """In the place of the same part of an experiment."""
    strangers.install(tmp_path, "models", MODEL_OF_ONE_COLOR)  # we have no model that is not composed
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = discover()
    strangers.forget()
    assert registry.names(kind)
    parent = "data" if kind == "degradation" else "model"
    tiny.experiment_file(tmp_path)
    for name in registry.names(kind):
        (detail,) = [d for d in json.loads(invoke("plugins", name, "--json").output) if d["kind"] == kind]
        with open(tmp_path / "tiny.toml", "rb") as file:
            rest = tomllib.load(file)
        pasted = tomllib.loads(detail["example"])
        assert set(pasted) == {parent} and (kind == "model" or set(pasted[parent]) == {kind})
        table = pasted["model"] if kind == "model" else pasted[parent][kind]
        assert {table["use"] for table in (table if isinstance(table, list) else [table])} == {name}
        if kind == "model":
            rest["model"] = table
        else:
            rest[parent][kind] = table
        (tmp_path / "pasted.toml").write_text(to_toml(rest))
        whole = load_experiment(tmp_path / "pasted.toml", registry)
        chosen = whole.model.model if kind == "model" else getattr(getattr(whole, parent), kind)
        chosen = chosen[0] if kind == "conditioning" else chosen
        assert chosen.component.name == name and chosen.options == chosen.component.options()


def test_all_about_a_component(crowd):
    text = invoke("plugins", "edsr").output
    assert re.match(r"encoder edsr  \(liif-core \S+\)\n    Image \(B, c, h, w\) in \[-1, 1\] -> features", text)
    assert re.search(r"\nsource: \S*edsr.py, line \d+\n", text)
    assert "\n    blocks: int, default 16. Residual blocks.\n" in text
    assert '\n[model.encoder]\nuse = "edsr"\nblocks = 16\nchannels = 64\nresidual_scale = 1.0\n' in text
    assert "class Encoder(Protocol):" in text and "    multiple_of: int  # " in text
    assert "channels: int" in text and "\n    none\n" in invoke("plugins", "coordinate").output


def test_about_a_name_of_two(crowd):
    both = invoke("plugins", "across").output
    assert both.count("encoder across  (across-") == 2
    assert 'use = "across-one:across"' in both and 'use = "across-two:across"' in both
    one = json.loads(invoke("plugins", "across-two:across", "--json").output)
    assert [(d["kind"], d["distribution"]) for d in one] == [("encoder", "across-two")]
    assert one[0]["summary"] == "One convolution."


def test_about_a_name_that_is_not_there(crowd):
    result = invoke("plugins", "edsrr")
    assert result.exit_code == 2
    lines = result.output.splitlines()
    assert lines[0] == "error: no component is named 'edsrr' (did you mean 'edsr'?); 'liif plugins' lists them"
    assert len(lines) == 1 + len(BROKEN) and all("could not be loaded" in line for line in lines[1:])


@attrs.frozen
class Inner:
    depth: int = option("Depth.", check=attrs.validators.gt(2))


@attrs.frozen
class Odd:
    width: int = option("Required.", check=attrs.validators.ge(8))
    rate: float = option("Required.", check=attrs.validators.lt(0.4))
    mode: str = option("Required, one of few.", check=attrs.validators.in_(("quick", "slow")), example="slow")
    sizes: tuple[int, ...] = option("Required, three of them.", check=attrs.validators.min_len(3))
    pair: tuple[int, float] = option("Required.")
    inner: Inner = option("Required.")
    deep: bool = option("Required.")
    label: str | None = option("Required, and may be anything.")
    scale: float = option("Has a default.", 2.0, quick=1.0)


def test_an_example_of_options_without_defaults():
    component = Component("odd", dict, Odd)
    assert example("odd", component, Registry()) == {
        "use": "odd", "width": 8, "rate": 0.1, "mode": "slow", "sizes": [1, 1, 1], "pair": [1, 1.0],
        "inner": {"depth": 3}, "deep": False, "label": "a-name", "scale": 2.0,
    }  # fmt: skip
    quick = example("odd", component, Registry(), quick=True)
    assert quick["scale"] == 1.0
    assert tomllib.loads(as_toml("encoder", quick)) == {"model": {"encoder": quick}}


def test_no_example_where_no_value_is_found():
    @attrs.frozen
    class Picky:
        size: int = option("Required.", check=attrs.validators.in_((12345,)))

    assert example("picky", Component("picky", dict, Picky), Registry()) is None


def test_listing_does_not_import_torch_for_itself(tmp_path):
    """Where no plugin does either: a lean one imports its module when it is built."""
    lean = (
        "from attrs import frozen\nfrom liif_core import Component, hookimpl, option\n@frozen\nclass Options:\n"
        "    width: int = option('Channels.', 4)\ndef build(options, in_channels):\n    import torch\n"
        "@hookimpl\ndef liif_encoders():\n    return Component('lean', build, Options)\n"
    )
    (tmp_path / "stranger_lean.py").write_text(lean)
    code = (
        "import sys\nfrom importlib import metadata\n"
        f"entry = metadata.EntryPoint('x', 'stranger_lean', '{GROUP}')\n"
        "metadata.entry_points = lambda: metadata.EntryPoints([entry])\n"
        "from liif_core.cli import liif\ntry:\n liif(['plugins'])\nexcept SystemExit as done:\n assert not done.code\n"
        "assert 'torch' not in sys.modules"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert shown.returncode == 0, shown.stderr
    assert "  lean  (unknown ?)" in shown.stdout and "width: int, default 4. Channels." in shown.stdout


# A plugin made for version 2


@pytest.fixture
def outdated(tmp_path, monkeypatch):
    """A plugin that declares version 2 in its entry point, and an experiment."""
    monkeypatch.delenv("LIIF_PLUGINS", raising=False)
    monkeypatch.chdir(tmp_path)
    tiny.experiment_file(tmp_path)
    site = tmp_path / "site"
    site.mkdir()
    module = strangers.install(site, "outdated", "raise SystemExit('imported')", group=f"{GROUP}.v2")
    monkeypatch.syspath_prepend(str(site))
    yield "outdated"
    assert module not in sys.modules


@pytest.mark.parametrize("command", [["plugins"], ["doctor"], ["plugins", "edsrr"]], ids=" ".join)
def test_an_outdated_plugin_is_listed_with_what_changed(outdated, command):
    result = invoke(*command)
    assert "made for version 2 of the plugin API, and this liif-core has version 3: install a newer" in result.output
    for change in CHANGES[3]:
        assert any(line.endswith(change) for line in result.output.splitlines()), change


@pytest.mark.parametrize("use", ["mine", "outdated:mine"])
def test_an_experiment_that_uses_an_outdated_plugin_says_what_changed(outdated, use):
    result = invoke("tiny.toml", "--check", "--set", f'model.encoder={{use="{use}"}}', command=liif_run)
    assert result.exit_code == 2 and "Traceback" not in result.output
    (line,) = [line for line in result.output.splitlines() if "model.encoder.use" in line]
    assert f"no encoder is named '{use}'" in line and "made for version 2 of the plugin API" in line
    assert all(change in line for change in CHANGES[3])


OLD_CONDITIONING = """
from torch import nn
from liif_core import Component, hookimpl

class Offset(nn.Module):
    channels = 2

    def forward(self, query, sites, grid):
        return sites.offset

@hookimpl
def liif_conditionings():
    return Component("offset", lambda options: Offset())
"""


def test_a_module_made_for_version_2_that_declares_none_is_recognized(outdated, tmp_path):
    """By what it lacks, when the experiment that uses it is built."""
    (tmp_path / "old.py").write_text(OLD_CONDITIONING)
    add = 'model.conditioning=[{use="coordinate"}, {use="cell"}, {use="offset"}]'
    result = invoke("tiny.toml", "--check", "--plugin", "old.py", "--set", add, command=liif_run)
    assert result.exit_code == 2 and "Traceback" not in result.output
    lines = result.output.splitlines()
    assert lines[0].startswith("error: model.conditioning: 'offset' of old.py sha256-")
    assert lines[0].endswith(" breaks its contract: it has no attribute scope")
    assert lines[1:] == [f"error: since version 2 of the plugin API: {change}" for change in CHANGES[3]]


# liif doctor


def test_doctor_names_the_extra_of_every_optional_package(monkeypatch):
    """And the extra of pyproject.toml installs that package."""
    with open(Path(__file__).parents[2] / "pyproject.toml", "rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    for name, extra in inventory._EXTRAS.items():
        assert any(re.match(rf"{name}\b(?!-)", requirement) for requirement in extras[extra])
    features = [text for extra in ("skimage", "ssim", "curves", "tensorboard", "images") for text in extras[extra]]
    assert {re.match(r"[\w-]+", text)[0] for text in features} == set(inventory._EXTRAS)
    monkeypatch.setattr(inventory, "_version", lambda name: None)
    lines = invoke("doctor").output.splitlines()
    for name, extra in inventory._EXTRAS.items():
        assert f'{name} is not installed (optional): pip install "liif-core[{extra}]"' in lines


def test_doctor_and_plugins_show_every_kind():
    for command in ("plugins", "doctor"):
        lines = invoke(command).output.splitlines()
        for kind in KINDS:
            assert f"{kind}:" in lines
        assert {"trained models:", "published checkpoints that can be imported:"} <= set(lines)
        assert "  bicubic  (liif-core 0.1.0)" in lines
