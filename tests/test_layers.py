"""The house's floors: who may import whom. The table below is their only statement."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import liif_core

ROOT = Path(__file__).parents[2]
CORE = ROOT / "liif_core"
PLUGINS = ROOT / "plugins"

FLOORS = {  # a module imports only from lower floors; a package stands on one, and orders itself inside
    0: "errors files geometry",
    0.1: "device download decoding metrics operations protocols training_log vision",
    0.2: "continuous residual",
    1: "registry report toml_layers",
    2: "experiment hookspecs",
    2.5: "plugin_sources",
    3: "data model plugins sources structure",
    3.5: "experiment_file",
    4: "checkpoint images",
    4.5: "render testing",
    5: "evaluate",
    5.5: "train",
    6: "cli",
    7: "__main__",
}
FLOOR_OF = {module: floor for floor, modules in FLOORS.items() for module in modules.split()}

# Words of the core's own contracts (a query's cell), of interpolation, or the program's name, that plugins use too
SHARED_WORDS = {"cell", "coordinate", "nearest", "plain", "liif"}


def modules():
    """(dotted name below liif_core, path) of every module but the door itself."""
    for path in sorted(CORE.rglob("*.py")):
        parts = path.relative_to(CORE).with_suffix("").parts
        if parts != ("__init__",):
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(modules())


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path, package=()):
    """(line, dotted name) of everything a file imports, wherever in it: ``from a import b`` gives ``a.b``."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = list(package[: len(package) - node.level + 1]) if node.level else []
            base = ".".join([*above, node.module] if node.module else above)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
            "import_module",
            "__import__",
        ):
            name = node.args[0] if node.args else None
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield node.lineno, name.value


def within_core(module, path):
    """(line, the module of liif_core that is imported, or None where the door is)."""
    package = ["liif_core", *module.split(".")]
    if path.name != "__init__.py":
        package.pop()
    for line, name in imports(path, package):
        top, *rest = name.split(".")
        if top == "liif_core":
            while rest and ".".join(rest) not in MODULES:
                rest.pop()
            yield line, ".".join(rest) or None


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_floor(module):
    assert module.split(".")[0] in FLOOR_OF, f"liif_core/{module}: give it a floor in {Path(__file__).name}"


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    house, wrong = module.split(".")[0], []
    for line, target in within_core(module, MODULES[module]):
        if target is None:
            wrong.append(f"line {line}: imports from liif_core itself, the door; name the module")
        elif target.split(".")[0] != house and not FLOOR_OF[target.split(".")[0]] < FLOOR_OF[house]:
            wrong.append(f"line {line}: {module} (floor {FLOOR_OF[house]}) imports {target}, which is not below it")
    assert not wrong


def test_there_are_no_circles():
    graph = {module: {target for _, target in within_core(module, path) if target} for module, path in MODULES.items()}
    for package in ("cli", "images"):  # a package's __init__ may gather its modules
        graph.pop(package, None)
    TopologicalSorter(graph).prepare()


def test_the_door_only_names():
    """``liif_core/__init__.py`` says where each public name lives, and loads it when it is asked for."""
    tree = parsed(CORE / "__init__.py")
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert functions == {"__getattr__", "__dir__"} and not [n for n in tree.body if isinstance(n, ast.ClassDef)]
    for_checkers = [node for node in tree.body if isinstance(node, ast.If)]
    offered = {alias.name for node in for_checkers for inner in node.body for alias in inner.names}
    assert offered == set(liif_core.__all__)  # a type checker sees what is there


def test_the_door_does_not_load_torch():
    code = (
        "import sys, liif_core; print([m for m in ('torch', 'cattrs', 'pluggy', 'PIL', 'numpy') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (found.stdout.strip(), found.returncode) == ("[]", 0), found.stderr


# The core knows no plugin


def plugin_words(registry):
    """What the plugins in this repository offer, and what they are called."""
    ours = [
        c.name
        for offered in registry.components.values()
        for c, origin in offered
        if origin.distribution.startswith("liif-")
    ]
    ours += [item.name for item, origin in registry.importers if origin.distribution.startswith("liif-")]
    packages = {path.name for path in PLUGINS.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))}
    return (set(ours) | packages) - SHARED_WORDS


def strings(path):
    """(line, text) of every string in the code; docstrings are for readers, and may give examples."""
    tree = parsed(path)
    said = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield node.lineno, node.value


@pytest.mark.parametrize("module", MODULES)
def test_the_core_imports_no_plugin(module):
    names = {path.parent.name for path in PLUGINS.glob("*/__init__.py")}
    assert names and not [(line, name) for line, name in imports(MODULES[module]) if name.split(".")[0] in names]


@pytest.mark.parametrize("module", MODULES)
def test_the_core_names_no_plugin(registry, module):
    words = plugin_words(registry)
    assert {"edsr", "edsr-baseline", "unfold", "local-ensemble", "mlp", "liif_paper"} <= words
    pattern = re.compile(r"(?<![\w-])(" + "|".join(map(re.escape, sorted(words))) + r")(?![\w-])")
    assert not [(line, text) for line, text in strings(MODULES[module]) if pattern.search(text)]


# Plugins use what strangers can use


def plugin_files():
    return [
        path for path in sorted(PLUGINS.rglob("*.py")) if not {"tests", "build"} & set(path.relative_to(PLUGINS).parts)
    ]


@pytest.mark.parametrize("path", plugin_files(), ids=lambda path: str(path.relative_to(PLUGINS)))
def test_plugins_import_only_public_names(path):
    wrong = []
    for line, name in imports(path):
        top, *rest = name.split(".")
        if top == "liif_core" and (len(rest) != 1 or rest[0] not in liif_core.__all__):
            wrong.append(
                f"line {line}: {name}: plugins may use 'from liif_core import NAME', NAME in liif_core.__all__"
            )
    assert not wrong


def test_the_rules_can_be_broken(tmp_path):
    """These tests see what they are there to see."""
    path = tmp_path / "broken.py"
    path.write_text(
        '"""edsr"""\nimport liif_core.cli\nfrom liif_core import train, UserError\n'
        "def f():\n    'mlp'\n    from .cli.run import x\n    from . import data\n"
        "    return import_module('liif_core.model.tiling') or f'no {x} unfold'\n"
    )
    assert {name for _, name in imports(path, ["liif_core"])} == {
        "liif_core.cli",
        "liif_core.training.trainer",
        "liif_core.UserError",
        "liif_core.cli.run.x",
        "liif_core.data.crops",
        "liif_core.model.tiling",
    }
    assert [target for _, target in within_core("broken", path)][:3] == ["cli", "train", None]
    assert [text for _, text in strings(path)] == ["liif_core.model.tiling", "no ", " unfold"]
