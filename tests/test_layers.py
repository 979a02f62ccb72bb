"""What import-linter cannot check: the public door, plugins, and the size of modules.

Which module of liif_core may import which is stated in pyproject.toml and checked by ``lint-imports``.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import liif_core

ROOT = Path(__file__).parents[1]
CORE = ROOT / "liif_core"
PLUGINS = ROOT / "plugins"
MODULES = {str(path.relative_to(CORE)): path for path in sorted(CORE.rglob("*.py"))}
LONGEST = 300  # lines

# Plugins' names that are also words of the core's own contracts, of interpolation, or the program's name
SHARED_WORDS = {"bicubic", "cell", "coordinate", "corner", "liif", "nearest", "identity", "photo"}
ALLOWED = {  # module: names that it has to state
    "experiment/translation.py": {"srno"},  # parameters that were renamed
    "importing.py": {"mlp"},  # as published checkpoints call their network
    "presets.py": {"lte", "srno", "linf", "thera", "gsasr", "ciaosr"},  # protocols, which are called by their papers
    "registry/changes.py": {"liif_paper"},  # where helpers were before
}


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path):
    """(line, dotted name) of all absolute imports of a file, wherever in it: ``from a import b`` gives ``a.b``."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{'.' * node.level}{node.module or ''}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in ("import_module", "__import__"):
            name = node.args[0] if node.args else None
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield node.lineno, name.value


def called(node):
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def test_there_are_modules():
    assert len(MODULES) > 50 and "model/continuous.py" in MODULES


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_short(module):
    lines = len(MODULES[module].read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{module} has {lines} lines: something in it belongs elsewhere"


# The door: liif_core/__init__.py


def test_the_door_defines_nothing():
    """It reads the public names from ``__init__.pyi``."""
    tree = parsed(CORE / "__init__.py")
    assert not [node for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))]
    stub = parsed(CORE / "__init__.pyi")
    listed = {alias.asname for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert listed == set(liif_core.__all__)
    assert all(isinstance(node, (ast.Expr, ast.ImportFrom)) for node in stub.body)


def test_the_door_loads_nothing_heavy():
    heavy = ("torch", "cattrs", "pluggy", "PIL", "numpy")
    code = f"import sys, liif_core; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (found.stdout.strip(), found.returncode) == ("[]", 0), found.stderr


@pytest.mark.parametrize("module", [name for name in MODULES if name != "__init__.py"])
def test_the_core_does_not_import_its_own_door(module):
    """Public names are for others; inside, a module is imported from where it is."""
    public = {f"liif_core.{name}" for name in liif_core.__all__} - {"liif_core.nn", "liif_core.importing"}
    assert not [(line, name) for line, name in imports(MODULES[module]) if name in public]


# The core contains no name of a plugin


def plugin_words(registry):
    """The components and importers of the plugins in this repository, and their packages."""
    offered = [item for items in registry.components.values() for item in items] + list(registry.importers)
    names = {item.name for item, origin in offered if origin.distribution.startswith("liif-")}
    return (names | plugin_packages()) - SHARED_WORDS


def plugin_packages():
    return {path.name for path in PLUGINS.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))}


def strings(path):
    """(line, text) of every string in the code, docstrings left out: those may give examples."""
    tree = parsed(path)
    docstrings = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


@pytest.mark.parametrize("module", MODULES)
def test_the_core_imports_no_plugin(module):
    packages = {name.replace("-", "_") for name in plugin_packages()}
    assert "liif_paper" in packages
    assert not [(line, name) for line, name in imports(MODULES[module]) if name.split(".")[0] in packages]


@pytest.mark.parametrize("module", MODULES)
def test_the_core_names_no_plugin(registry, module):
    words = plugin_words(registry)
    assert {"edsr", "edsr-baseline", "unfold", "local-ensemble", "mlp", "liif_paper"} <= words
    pattern = re.compile(r"(?<![\w-])(" + "|".join(map(re.escape, sorted(words))) + r")(?![\w-])")
    named = [(line, word) for line, text in strings(MODULES[module]) for word in pattern.findall(text)]
    assert {word for _, word in named} == ALLOWED.get(module, set()), named


# Plugins import what third parties can import


def plugin_files():
    return [
        path for path in sorted(PLUGINS.rglob("*.py")) if not {"tests", "build"} & set(path.relative_to(PLUGINS).parts)
    ]


def is_public(name):
    """Whether a dotted name below liif_core is public: in ``__all__``, or in that of a public module."""
    first, *rest = name.removeprefix("liif_core.").split(".")
    if first not in liif_core.__all__:
        return False
    return not rest or (first in ("nn", "importing", "shapes") and len(rest) == 1 and is_offered(first, rest[0]))


def is_offered(module, name):
    return not name.startswith("_") and hasattr(getattr(liif_core, module), name)


@pytest.mark.parametrize("path", plugin_files(), ids=lambda path: str(path.relative_to(PLUGINS)))
def test_plugins_import_only_public_names(path):
    wrong = [
        f"line {line}: {name}: plugins may import names in liif_core.__all__, and those of its nn, importing and shapes"
        for line, name in imports(path)
        if name.split(".")[0] == "liif_core" and not is_public(name)
    ]
    assert not wrong


def test_these_checks_can_fail(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text(
        '"""edsr"""\nimport liif_core.cli\nfrom liif_core import training, UserError\n'
        "def f():\n    'mlp'\n    from liif_core.nn import _hidden, fused_linear\n    from . import data\n"
        "    return import_module('liif_core.model.tiling') or f'no {x} unfold'\n"
    )
    found = [name for _, name in imports(path)]
    assert set(found) == {
        "liif_core.cli",
        "liif_core.training",
        "liif_core.UserError",
        "liif_core.nn._hidden",
        "liif_core.nn.fused_linear",
        "..data",
        "liif_core.model.tiling",
    }
    public = {name for name in found if name.startswith("liif_core") and is_public(name)}
    assert public == {"liif_core.UserError", "liif_core.nn.fused_linear"}
    assert [text for _, text in strings(path)] == ["liif_core.model.tiling", "no ", " unfold"]
