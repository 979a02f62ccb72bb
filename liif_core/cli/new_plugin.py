"""``liif new-plugin``: a distribution with one component, its test and an experiment, that works as it is written."""

import importlib.metadata
import importlib.util
import keyword
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from string import Template

from liif_core.cli import templates
from liif_core.cli.examples import as_toml, example
from liif_core.cli.template_modules import MODULES
from liif_core.errors import UserError, did_you_mean
from liif_core.registry.components import KINDS, Component, Kind, Registry
from liif_core.registry.discovery import HOOKS, discover
from liif_core.registry.hookspecs import API_VERSION
from liif_core.registry.sources import OWN


def new_plugin(name: str, kind: str, into: Path) -> str:
    """Write the folder ``into / name``, whole or not at all; returns what to tell.

    ``name`` is the distribution's; its component is called the same, without a leading ``liif-``.
    Raises UserError with a line for everything that stands in the way.
    """
    registry = discover()
    problems = _problems(name, kind, into, registry)
    if problems:
        raise UserError(*problems)
    files = _files(name, kind, registry)
    _write(into / name, files)
    component = _component(name)
    return "\n".join(
        [
            f"written: {into / name}/",
            *(f"  {path}" for path in files),
            "",
            "next:",
            f"  cd {into / name}",
            '  pip install -e ".[test]"',
            "  pytest",
            f"  liif-run {component}.toml",
            "",
            f"or, without installing it: liif-run {component}.toml --plugin {_module(name)}.py",
        ]
    )


def _component(name: str) -> str:
    return name.removeprefix("liif-")


def _module(name: str) -> str:
    return name.replace("-", "_")


def _problems(name: str, kind: str, into: Path, registry: Registry) -> list[str]:
    problems = []
    if kind not in KINDS:
        problems.append(f"--kind {kind}: expected one of {', '.join(KINDS)}{did_you_mean(kind, KINDS)}")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", _component(name)) or len(name) > 60:
        expected = "a name has small letters, digits, and single hyphens between them"
        problems.append(f"{name!r}: {expected}, such as 'my-encoder'")
    else:
        problems += _taken(name, kind, registry)
    if not into.is_dir():
        problems.append(f"--into {into}: no such folder")
    elif os.path.lexists(into / name):
        problems.append(f"{into / name}: is there already; choose another name, or another folder with --into")
    return problems


def _taken(name: str, kind: str, registry: Registry) -> list[str]:
    """What else goes by this name."""
    problems = []
    module = _module(name)
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or importlib.util.find_spec(module) is not None:
        problems.append(f"{name!r}: Python has a module or a word {module!r} already")
    try:
        problems.append(f"{name!r}: {name} {importlib.metadata.version(name)} is installed already")
    except importlib.metadata.PackageNotFoundError:
        pass
    problems += [
        f"{name!r}: {origin} offers {kind} {component.name!r} already"
        for component, origin in registry.components.get(kind, ())
        if component.name == _component(name)
    ]
    return problems


def _files(name: str, kind: Kind, registry: Registry) -> dict[str, str]:
    """Path below the folder -> text."""
    component = _component(name)
    camel = "".join(part.capitalize() for part in component.split("-"))
    suffix = kind.capitalize()
    known = {
        "distribution": name,
        "name": component,
        "module": _module(name),
        "title": camel if camel.endswith(suffix) else camel + suffix,
        "kind": kind,
        "contract": f"{suffix}Contract",
        "hook": next(hook for hook, of in HOOKS.items() if of == kind),
        "api": API_VERSION,
        "tables": _tables(component, kind, registry),
    }
    texts = {
        "pyproject.toml": templates.PYPROJECT,
        "README.md": templates.README,
        f"{_module(name)}.py": MODULES[kind],
        f"tests/test_{_module(name)}.py": templates.TEST,
        f"{component}.toml": templates.EXPERIMENT,
    }
    return {path: Template(text).substitute(known) for path, text in texts.items()}


def _tables(component: str, kind: Kind, registry: Registry) -> str:
    """A composition with the new component: the first of each kind and every conditioning, of those made together."""
    tables, offered = [], _made_together(registry)
    for each in KINDS:
        own = offered[each]
        chosen = own if each == "conditioning" else [] if each == kind else own[:1]
        tables += [as_toml(each, _table(each, c, registry)) for c in chosen]
        if each == kind:
            of_list = each == "conditioning"
            tables.append(f'{"[[" if of_list else "["}model.{each}{"]]" if of_list else "]"}\nuse = "{component}"')
    return "\n\n".join(tables)


def _made_together(registry: Registry) -> dict[Kind, list[Component]]:
    """By name, what one package of our own plugins offers: of several, the one that has most kinds."""
    packages: dict[str, dict[Kind, list[Component]]] = {"": {kind: [] for kind in KINDS}}
    for kind in KINDS:
        for component, origin in registry.components[kind]:
            if origin.distribution == OWN:
                package = origin.plugin.partition(" = ")[2].partition(".")[0]
                packages.setdefault(package, {each: [] for each in KINDS})[kind].append(component)
    best = max(packages.values(), key=lambda offered: sum(map(bool, offered.values())))
    return {kind: sorted(components, key=lambda c: c.name) for kind, components in best.items()}


def _table(kind: Kind, component: Component, registry: Registry) -> dict:
    use = component.name if component.name in registry.names(kind) else f"{OWN}:{component.name}"
    return example(use, component, registry, quick=True) or {"use": use}


def _write(folder: Path, files: dict[str, str]) -> None:
    temporary = None
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        for path, text in files.items():
            (temporary / path).parent.mkdir(exist_ok=True)
            (temporary / path).write_text(text, encoding="utf-8")
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o777 & ~mask)
        os.rename(temporary, folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
