"""Discovery: every way a plugin can be broken is reported, and harms nothing else."""

import importlib.metadata
import itertools
import os
import signal
import subprocess
import sys
import types

import attrs
import pytest
import torch

import liif_core
from liif_core import Component, Importer, NoOptions, Registry, hookimpl, option
from liif_core.experiment.toml_file import model_from_table
from liif_core.registry.components import KINDS, Origin
from liif_core.registry.discovery import add_plugin, discover
from liif_core.registry.hookspecs import ENTRY_POINT_GROUP
from liif_core.registry.sources import GROUP

numbers = itertools.count()
HEADER = "from liif_core import Component, Importer, hookimpl, option\nimport attrs\n"
GOOD = HEADER + "@hookimpl\ndef liif_encoders():\n    return Component('good', lambda options, in_channels: None)\n"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs plugins without pip: ``installed(("distribution", "1.0", "source"), ...)`` gives what is discovered."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def install(*plugins):
        entries = []
        for distribution, version, source in plugins:
            module = f"plugin_under_test_{next(numbers)}"
            (tmp_path / f"{module}.py").write_text(source, encoding="utf-8")
            entries.append(entry(tmp_path, distribution, version, "main", module))
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda **selection: answer(entries, selection))
        return discover()

    yield install
    for name in set(sys.modules) - before:
        if name.startswith("plugin_under_test_"):
            del sys.modules[name]


def answer(entries, selection):
    assert not selection
    return importlib.metadata.EntryPoints(entries)


def entry(folder, distribution, version, name, module):
    """An entry point that belongs to a distribution, as importlib.metadata gives it."""
    info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    return importlib.metadata.EntryPoint(name, module, GROUP)._for(importlib.metadata.PathDistribution(info))


def hook(body, name="liif_encoders"):
    return HEADER + f"@hookimpl\ndef {name}():\n    {body}\n"


BROKEN = {
    "missing import": ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
    "import of a missing name": ("from liif_core import Nothing", "ImportError: cannot import name 'Nothing'"),
    "syntax": ("def f(:\n", "SyntaxError"),
    "null bytes": ("x = '\0'", "null bytes"),
    "exit": ("raise SystemExit(3)", "SystemExit: 3"),
    "exit without a word": ("import sys\nsys.exit()", "SystemExit"),
    "base exception": ("class Odd(BaseException): pass\nraise Odd('odd')", "Odd: odd"),
    "several lines": ("raise RuntimeError('one\\n  two')", "RuntimeError: one two"),
    "recursion": ("def f(): f()\nf()", "RecursionError"),
    "misspelt hook": (hook("return []", "liif_encoder"), "unknown hook 'liif_encoder'"),
    "hook with arguments": (HEADER + "@hookimpl\ndef liif_encoders(size):\n    return []", "size"),
    "hook that raises": (hook("raise KeyError('x')"), "KeyError: 'x'"),
    "hook that exits": (hook("raise SystemExit(1)"), "SystemExit"),
    "a name for a component": (hook("return 'edsr'"), "liif_encoders returned 'edsr'; expected Component"),
    "a name in a list": (hook("return ['edsr']"), "liif_encoders returned 'edsr'; expected Component"),
    "a class for a component": (hook("return Component"), "expected Component"),
    "a number": (hook("return 3"), "liif_encoders returned 3; expected Component"),
    "an importer for a component": (hook("return Importer('model', 'x', dict)"), "expected Component"),
    "a component for an importer": (hook("return Component('x', dict)", "liif_importers"), "expected Importer"),
    "one name twice": (hook("return [Component('x', dict), Component('x', list)]"), "two encoder components named 'x'"),
    "options of no class": (hook("return Component('x', dict, {'size': 3})"), "must be a frozen attrs class"),
    "options that are no attrs class": (hook("return Component('x', dict, dict)"), "must be a frozen attrs class"),
    "options that can change": (
        HEADER
        + "@attrs.define\nclass O:\n    size: int = option('Side.', 3)\n"
        + hook("return Component('x', dict, O)"),
        "must be a frozen attrs class",
    ),
    "an option without help": (
        HEADER + "@attrs.frozen\nclass O:\n    size: int = 3\n" + hook("return Component('x', dict, O)"),
        "no help for size",
    ),
    "an error that cannot be shown": (
        "class Odd(Exception):\n    def __str__(self): raise ValueError\nraise Odd",
        "Odd",
    ),
    "a name that is no text": (hook("return Component(3, dict)"), "name"),
    "a name with a colon": (hook("return Component('a:b', dict)"), "'a:b'"),
    "an empty name": (hook("return Component('', dict)"), "name"),
    "nothing to build with": (hook("return Component('x', None)"), "build"),
    "no description but a text": (hook("return Component('x', dict, describe='X')"), "describe 'X' cannot be called"),
    "an importer of an unknown part": (hook("return Importer('decoder', 'x', dict)", "liif_importers"), "decoder"),
}


@pytest.mark.parametrize("source, reason", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_plugin_is_reported_and_the_others_are_there(installed, source, reason):
    registry = installed(
        ("aa-good", "1.0", GOOD), ("broken", "0.2", source), ("zz-good", "2.0", GOOD.replace("'good'", "'fine'"))
    )
    assert registry.names("encoder") == ["fine", "good"]
    assert not registry.importers and not any(registry.names(kind) for kind in KINDS[1:])
    (broken,) = registry.broken
    assert (broken.origin.distribution, broken.origin.version) == ("broken", "0.2")
    assert broken.origin.plugin.startswith("main = plugin_under_test_")
    assert reason in broken.reason and "\n" not in broken.reason


def test_a_broken_plugin_offers_nothing_of_what_it_has(installed):
    """All of a plugin or none: half of one would be worse than a clear message."""
    source = GOOD + "@hookimpl\ndef liif_decoders():\n    raise RuntimeError('late')\n"
    registry = installed(("half", "1.0", source))
    assert registry.names("encoder") == [] and "late" in registry.broken[0].reason


def test_a_missing_module(tmp_path, monkeypatch):
    entries = [entry(tmp_path, "gone", "1.0", "main", "no_such_module_at_all")]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **selection: answer(entries, selection))
    (broken,) = discover().broken
    assert "no_such_module_at_all" in broken.reason


def test_a_missing_attribute(tmp_path, monkeypatch):
    entries = [entry(tmp_path, "gone", "1.0", "main", "json:nothing")]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **selection: answer(entries, selection))
    assert "nothing" in discover().broken[0].reason


def test_an_interrupt_by_a_plugin_is_a_broken_plugin(installed):
    registry = installed(("odd", "1.0", "raise KeyboardInterrupt"), ("zz-good", "1.0", GOOD))
    assert registry.broken[0].reason.startswith("KeyboardInterrupt") and registry.names("encoder") == ["good"]


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_is_not_a_broken_plugin(installed):
    pressed = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(5)\n"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest-xdist ignores the signal
    try:
        with pytest.raises(KeyboardInterrupt):
            installed(("slow", "1.0", pressed))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_module_without_hooks_is_reported(installed):
    registry = installed(("empty", "1.0", "def liif_encoders():\n    return []\n"), ("zz-good", "1.0", GOOD))
    assert "it has no hooks; mark its functions" in registry.broken[0].reason
    assert registry.names("encoder") == ["good"]


def test_a_changed_default_type_is_undone_and_said(installed):
    registry = installed(("wide", "1.0", "import torch\ntorch.set_default_dtype(torch.float64)\n" + GOOD))
    assert torch.get_default_dtype() == torch.float32 and registry.names("encoder") == ["good"]
    (remark,) = registry.remarks
    assert remark.startswith("plugin main = plugin_under_test_") and "wide 1.0" in remark
    assert remark.endswith("changes the default type of tensors to torch.float64; that was undone")


@pytest.mark.parametrize("closing", ["sys.stdout.close()", "sys.__stdout__.close()", "os.close(1)"])
def test_a_plugin_that_closes_standard_output(closing, tmp_path):
    (tmp_path / "closes.py").write_text(f"import os, sys\n{closing}\n{GOOD}")
    program = (
        "from liif_core import discover; from liif_core.registry.sources import extra_plugins\n"
        f"with extra_plugins({str(tmp_path / 'closes.py')!r}): registry = discover()\n"
        "print('good' in registry.names('encoder'), *registry.remarks)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("True"), done.stderr
    assert ("changes standard output, which it closed" in done.stdout) == (closing != "sys.stdout.close()")


@pytest.mark.parametrize(
    "requires, reason",
    [
        ("liif-core>=99", "needs liif-core>=99, and this is"),
        ("liif_core (<0.0.1)", "needs liif-core<0.0.1, and this is"),
        ("liif-core>=0.0.1", ""),
        ("liif-core>=99; extra == 'new'", ""),
        ("torch>=99", ""),
        ("not a requirement at all >", ""),
    ],
)
def test_a_plugin_for_another_version_of_liif_core(requires, reason, installed, tmp_path):
    information = tmp_path / "picky-1.0.dist-info"
    information.mkdir()
    registry = installed(("picky", "1.0", GOOD))  # the entry point reads the file again
    path = information / "METADATA"
    path.write_text(path.read_text() + f"Requires-Dist: {requires}\n")
    registry = discover()
    assert registry.names("encoder") == ([] if reason else ["good"])
    assert [plugin.reason[: len(reason)] for plugin in registry.broken] == ([reason] if reason else [])


@pytest.mark.parametrize("where", ["import", "hook"])
def test_prints_do_not_reach_stdout(installed, capfd, where):
    """``liif plugins --json`` is read by tools."""
    loud = "import sys\nprint('hello')\nsys.stdout.write('hello')\n"
    source = loud + GOOD if where == "import" else GOOD.replace("    return", "    print('hello')\n    return")
    registry = installed(("loud", "1.0", source))
    assert registry.names("encoder") == ["good"]
    assert capfd.readouterr().out == ""


def test_two_distributions_of_one_name(installed):
    """The same component and entry-point names: neither is lost, and each can be said."""
    registry = installed(("one", "1.0", GOOD), ("two", "2.0", GOOD))
    assert not registry.broken and registry.names("encoder") == ["one:good", "two:good"]
    with pytest.raises(ValueError, match="'good' is offered by one 1.0 and two 2.0.*'one:good' or 'two:good'"):
        registry.find("encoder", "good")
    assert registry.find("encoder", "one:good")[1].distribution == "one"
    assert registry.find("encoder", "two:good")[1].distribution == "two"


def test_two_plugins_of_one_distribution_with_one_name(installed):
    """``distribution:name`` cannot tell these apart, so the second must be refused or the message must say so."""
    registry = installed(("one", "1.0", GOOD), ("one", "1.0", GOOD))
    if registry.broken:
        assert "good" in registry.broken[0].reason and registry.find("encoder", "good")
    else:
        with pytest.raises(ValueError) as refused:
            registry.find("encoder", "good")
        assert "'one:good' or 'one:good'" not in str(refused.value)


def test_a_distribution_found_twice_counts_once(tmp_path, monkeypatch, installed):
    (tmp_path / "seen_twice.py").write_text(GOOD)
    entries = [entry(tmp_path, "one", "1.0", "main", "seen_twice") for _ in range(2)]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **selection: answer(entries, selection))
    assert discover().names("encoder") == ["good"]


def test_the_order_of_discovery_is_that_of_names(installed):
    plugins = [
        ("b", "1", GOOD.replace("good", "x")),
        ("a", "1", GOOD.replace("good", "y")),
        ("c", "1", GOOD.replace("good", "z")),
    ]
    registry = installed(*plugins)
    assert [origin.distribution for _, origin in registry.components["encoder"]] == ["a", "b", "c"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_distribution_without_metadata(tmp_path, monkeypatch):
    """What an interrupted pip leaves behind."""
    (tmp_path / "left_over.py").write_text(GOOD)
    info = tmp_path / "left_over-1.0.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nmain = left_over\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = discover()
    assert "edsr" in registry.names("encoder")


def test_real_entry_points_bring_the_defaults():
    """The default plugins come in by the door that strangers use."""
    entries = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    assert {entry.value for entry in entries if entry.dist.name == "liif-core"} >= {
        "liif_paper.edsr",
        "liif_paper.unfold",
        "liif_paper.sampling",
        "liif_paper.conditioning",
        "liif_paper.mlp",
    }
    registry = discover()
    for kind, names in {
        "encoder": {"edsr"},
        "features": {"unfold", "identity"},
        "sampling": {"nearest", "local-ensemble"},
        "conditioning": {"coordinate", "cell"},
        "decoder": {"mlp"},
    }.items():
        assert names <= set(registry.names(kind))
    assert not [broken for broken in registry.broken if broken.origin.distribution == "liif-core"]


# One plugin, as an object

ORIGIN = Origin("main = test", "test", "1.0")


def test_every_kind_of_hook(plugin_of):
    hooks = {
        "liif_encoders": "encoder",
        "liif_features": "features",
        "liif_samplings": "sampling",
        "liif_conditionings": "conditioning",
        "liif_decoders": "decoder",
        "liif_models": "model",
        "liif_degradations": "degradation",
    }
    assert set(hooks.values()) == set(KINDS)
    importer = Importer("model", "x", dict)
    plugin = plugin_of(
        **{hook: [Component(f"a-{kind}", dict), Component("b", dict)] for hook, kind in hooks.items()},
        liif_importers=importer,
    )
    registry = add_plugin(Registry(), plugin, ORIGIN)
    for kind in hooks.values():
        assert registry.names(kind) == [f"a-{kind}", "b"]
    assert registry.importer("model", "x") is importer


@pytest.mark.parametrize("offered", [Component("x", dict), [Component("x", dict)], (Component("x", dict),)])
def test_one_component_or_several(plugin_of, offered):
    assert add_plugin(Registry(), plugin_of(liif_decoders=offered), ORIGIN).names("decoder") == ["x"]


@pytest.mark.parametrize("offered", [[], (), None])
def test_nothing_offered(plugin_of, offered):
    """pluggy takes a hook that returns None as one that has nothing to say."""
    assert add_plugin(Registry(), plugin_of(liif_decoders=offered), ORIGIN).names("decoder") == []


def test_classes_and_modules_are_plugins():
    class Plugin:
        @staticmethod
        @hookimpl
        def liif_encoders():
            return Component("x", dict)

    module = types.ModuleType("plugin")
    module.liif_encoders = hookimpl(lambda: Component("x", dict))
    for plugin in (Plugin, Plugin(), module):
        assert add_plugin(Registry(), plugin, ORIGIN).names("encoder") == ["x"]


def test_a_refused_plugin_leaves_the_registry_as_it_was(registry, plugin_of):
    before = {kind: registry.names(kind) for kind in KINDS}
    with pytest.raises(TypeError):
        add_plugin(registry, plugin_of(liif_encoders=Component("x", dict), liif_decoders="mlp"), ORIGIN)
    assert {kind: registry.names(kind) for kind in KINDS} == before and not registry.broken


def test_options_of_a_plugin_are_checked_like_the_core_s(plugin_of, registry):
    @attrs.frozen
    class Inner:
        depth: int = option("Depth.", 1)

    @attrs.frozen
    class Options:
        size: int = option("Side.", check=attrs.validators.ge(1))
        rates: tuple[float, ...] = option("Rates.", ())
        inner: Inner = option("More.", Inner())
        label: str | None = option("A label.", None)

        def __attrs_post_init__(self):
            if self.size > 9:
                raise ValueError("size: expected at most 9")

    registry = add_plugin(registry, plugin_of(liif_encoders=Component("mine", dict, Options)), ORIGIN)

    def read(**options):
        table = {"features": {"use": "identity"}, "sampling": {"use": "nearest"}, "decoder": {"use": "mlp"}}
        table["encoder"] = {"use": "mine", **options}
        return model_from_table(table, registry, "t").encoder.options

    assert read(size=3, rates=[1, 0.5], inner={"depth": 2}, label="x") == Options(3, (1.0, 0.5), Inner(2), "x")
    with pytest.raises(liif_core.UserError) as refused:
        read(size=0, rates=[1, "x"], inner={"dept": 2}, label=3, sise=1)
    assert [line.removeprefix("t: model.encoder.").split(":")[0] for line in refused.value.problems] == [
        "size",
        "rates[1]",
        "inner.dept",
        "label",
        "sise",
    ]
    for options, part in [
        ({}, "t: model.encoder.size: required"),
        ({"size": 10}, "t: model.encoder.size: expected at most 9"),
    ]:
        with pytest.raises(liif_core.UserError, match=part):
            read(**options)


def test_no_options_take_no_keys(registry):
    table = {
        "features": {"use": "identity", "size": 3},
        "sampling": {"use": "nearest"},
        "decoder": {"use": "mlp"},
        "encoder": {"use": "edsr"},
    }
    with pytest.raises(liif_core.UserError, match="t: model.features.size: unknown key; it has no options"):
        model_from_table(table, registry, "t")
    assert NoOptions() == registry.find("features", "identity")[0].options()
