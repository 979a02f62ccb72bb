"""``liif new-plugin``: writes a distribution with one component or model, its tests and an experiment."""

import hashlib
import importlib.metadata
import importlib.util
import json
import keyword
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from string import Template
from typing import Any

from liif_core.cli import template_models, template_modules, templates
from liif_core.cli.examples import as_toml, example
from liif_core.errors import UserError, did_you_mean
from liif_core.registry.components import KINDS, PARTS, Component, Kind, Origin, Registry
from liif_core.registry.discovery import HOOKS, discover
from liif_core.registry.hookspecs import API_VERSION
from liif_core.registry.named_models import NamedModel
from liif_core.registry.sources import OWN

PACK = "model-pack"
KINDS_OF_PLUGIN = (*KINDS, PACK)  # the values of --kind
OTHER_NAMES = {"models": PACK}  # of kinds
_WORDS = {PACK: "trained model"}
_MODULES = {
    **template_modules.PARTS,
    "model": template_models.MODEL,
    "degradation": template_models.DEGRADATION,
}
_PACKAGE = """packages = ["{module}"]

[tool.setuptools.package-data]
{module} = ["*.safetensors", "*.json"]"""
_COMPARE = """
  To compare with the LIIF paper, put its table into a copy of liif-core's `experiments/edsr_liif.toml`."""


def new_plugin(name: str, kind: str, into: Path) -> str:
    """Write the folder ``into / name``, whole or not at all; returns the message for the user.

    ``name`` is the distribution's. Its component, or trained model, has the same name without a leading ``liif-``.
    Raises UserError with one line for each problem.
    """
    kind = OTHER_NAMES.get(kind, kind)
    registry = discover()
    problems = _problems(name, kind, into, registry)
    if problems:
        raise UserError(*problems)
    files = _files(name, kind, registry)
    _write(into / name, files)
    component = _component(name)
    lines = [f"written: {into / name}/", *(f"  {path}" for path in files), "", "next:", f"  cd {into / name}"]
    lines += ['  pip install -e ".[test]"', "  pytest"]
    if kind == PACK:
        lines += ["  python train.py", "", f"then: liif upscale photo.jpg -o large.png --scale 2 --model {component}"]
    else:
        lines += [f"  liif-run {component}.toml", ""]
        lines += [f"or, without installing it: liif-run {component}.toml --plugin {_module(name)}.py"]
    return "\n".join(lines)


def _component(name: str) -> str:
    return name.removeprefix("liif-")


def _module(name: str) -> str:
    return name.replace("-", "_")


def _problems(name: str, kind: str, into: Path, registry: Registry) -> list[str]:
    problems = []
    if kind not in KINDS_OF_PLUGIN:
        expected = f"expected one of {', '.join(KINDS_OF_PLUGIN)}{did_you_mean(kind, KINDS_OF_PLUGIN)}"
        problems.append(f"--kind {kind}: {expected}")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", _component(name)) or len(name) > 60:
        expected = "a name has lower-case letters, digits, and single hyphens between them"
        problems.append(f"{name!r}: {expected}, such as 'my-encoder'")
    else:
        problems += _taken(name, kind, registry)
    if not into.is_dir():
        problems.append(f"--into {into}: no such folder")
    elif os.path.lexists(into / name):
        problems.append(f"{into / name}: already exists; choose another name, or another folder with --into")
    return problems


def _taken(name: str, kind: str, registry: Registry) -> list[str]:
    """Problems with a name that something else has."""
    problems = []
    module = _module(name)
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or importlib.util.find_spec(module) is not None:
        problems.append(f"{name!r}: Python already has a module or keyword {module!r}")
    with suppress(importlib.metadata.PackageNotFoundError):
        problems.append(f"{name!r}: {name} {importlib.metadata.version(name)} is already installed")
    taken: Sequence[tuple[Component | NamedModel, Origin]]
    taken = registry.models if kind == PACK else dict(registry.components).get(kind, ())  # type: ignore[call-overload]
    return problems + [
        f"{name!r}: {origin} already offers the {_WORDS.get(kind, kind)} {item.name!r}"
        for item, origin in taken
        if item.name == _component(name)
    ]


def _files(name: str, kind: str, registry: Registry) -> dict[str, str | bytes]:
    """Path below the folder -> contents."""
    component, module = _component(name), _module(name)
    is_pack = kind == PACK
    known = {
        "distribution": name,
        "name": component,
        "module": module,
        "title": _title(component, kind),
        "of": _WORDS.get(kind, kind),
        "contract": f"{kind.capitalize()}Contract",
        "hook": "" if is_pack else next(hook for hook, of in HOOKS.items() if of == kind),
        "api": API_VERSION,
        "extra": "skimage",
        "contents": _PACKAGE.format(module=module) if is_pack else f'py-modules = ["{module}"]',
        "purpose": "for the pack" if is_pack else f"with the {kind} '{component}'",
        "model": f'[model]\nuse = "{component}"' if kind == "model" else _composition(component, kind, registry),
        "data": f'degradation = {{ use = "{component}" }}\n' if kind == "degradation" else "",
        "more": _COMPARE if kind in PARTS else "",
    }
    if is_pack:
        texts = {
            "pyproject.toml": templates.PYPROJECT,
            "README.md": templates.PACK_README,
            f"{module}/__init__.py": template_models.MODEL_PACK,
            "train.py": template_models.TRAIN,
            f"tests/test_{module}.py": template_models.PACK_TEST,
            f"{component}.toml": templates.EXPERIMENT,
        }
    else:
        texts = {
            "pyproject.toml": templates.PYPROJECT,
            "README.md": templates.README,
            f"{module}.py": _MODULES[kind],
            f"tests/test_{module}.py": templates.TEST,
            f"{component}.toml": templates.EXPERIMENT,
        }
    written: dict[str, str | bytes] = {path: Template(text).substitute(known) for path, text in texts.items()}
    if is_pack:
        checkpoint = _untrained(str(written[f"{component}.toml"]), registry)
        measured = {"sha256": hashlib.sha256(checkpoint).hexdigest(), "size": len(checkpoint), "scores": {}}
        written[f"{module}/{component}.safetensors"] = checkpoint
        written[f"{module}/{component}.json"] = json.dumps(measured, indent=2) + "\n"
    return written


def _title(component: str, kind: str) -> str:
    """The name of the class: ``my-net`` of kind encoder is MyNetEncoder."""
    camel, suffix = ("".join(part.capitalize() for part in text.split("-")) for text in (component, kind))
    return camel if camel.endswith(suffix) else camel + suffix


def _untrained(text: str, registry: Registry) -> bytes:
    """A checkpoint of the model of an experiment, with fresh weights."""
    from liif_core.experiment.build import build_model
    from liif_core.experiment.toml_file import load_experiment, plugins_of, to_builtin
    from liif_core.training.checkpoint import Checkpoint, save_checkpoint

    with tempfile.TemporaryDirectory() as folder:
        file, target = Path(folder, "pack.toml"), Path(folder, "untrained.safetensors")
        file.write_text(text, encoding="utf-8")
        experiment = load_experiment(file, registry)
        table = {"model": to_builtin(experiment.model)}
        model = build_model(experiment.model)
        save_checkpoint(target, Checkpoint(model.state_dict(), table, plugins=plugins_of(experiment.model)))
        return target.read_bytes()


def _composition(component: str, kind: str, registry: Registry) -> str:
    """A ``[model]`` of the component and parts of our own: the first of each other kind, and every conditioning."""
    tables, offered = ['[model]\nresidual = "bilinear"  # the network adds to bilinear interpolation'], _own(registry)
    for each in PARTS:
        own = offered[each]
        chosen = own if each == "conditioning" else [] if each == kind else own[:1]
        tables += [as_toml(each, _table(each, c, registry)) for c in chosen]
        if each == kind:
            header = f"[[model.{each}]]" if each == "conditioning" else f"[model.{each}]"
            tables.append(f'{header}\nuse = "{component}"')
    return "\n\n".join(tables)


def _own(registry: Registry) -> dict[Kind, list[Component]]:
    """The components of one package of our own plugins, sorted by name.

    Of several packages, that with most kinds of parts, and then with the fewest components: the plainest.
    """
    packages: dict[str, dict[Kind, list[Component]]] = {"": {kind: [] for kind in KINDS}}
    for kind in KINDS:
        for component, origin in registry.components[kind]:
            if origin.distribution == OWN:
                package = origin.plugin.partition(" = ")[2].partition(".")[0]
                packages.setdefault(package, {each: [] for each in KINDS})[kind].append(component)

    def rank(found: dict[Kind, list[Component]]) -> tuple[int, int]:
        return sum(bool(found[kind]) for kind in PARTS), -sum(map(len, found.values()))

    best = max(packages.values(), key=rank)
    return {kind: sorted(components, key=lambda c: c.name) for kind, components in best.items()}


def _table(kind: Kind, component: Component, registry: Registry) -> dict[str, Any]:
    use = component.name if component.name in registry.names(kind) else f"{OWN}:{component.name}"
    return example(use, component, registry, quick=True) or {"use": use}


def _write(folder: Path, files: Mapping[str, str | bytes]) -> None:
    temporary = None
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        for path, content in files.items():
            (temporary / path).parent.mkdir(exist_ok=True)
            if isinstance(content, bytes):
                (temporary / path).write_bytes(content)
            else:
                (temporary / path).write_text(content, encoding="utf-8")
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o777 & ~mask)
        os.rename(temporary, folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
