"""``liif plugins NAME``: everything there is to know about one component."""

import functools
import inspect
import json
import sys
from typing import Any

from liif_core import protocols
from liif_core.cli.examples import as_toml, example
from liif_core.cli.inventory import component_entry, option_line
from liif_core.errors import UserError, did_you_mean
from liif_core.plugins import discover
from liif_core.registry import KINDS, Component, Kind, NoOptions, Origin, Registry


def component_text(name: str) -> str:
    """Options, source, contract and an example of the components of a name, or of ``distribution:name``.

    Raises UserError where there is none, with the nearest name and the plugins that could not be loaded.
    """
    return "\n\n\n".join(map(_described, _details(name)))


def component_json(name: str) -> str:
    """The same for tools: an array, since components of two kinds, or distributions, may share a name."""
    return json.dumps(_details(name), indent=2)


def _details(name: str) -> list[dict[str, Any]]:
    registry = discover()
    owner, _, plain_name = name.rpartition(":")
    found = [
        _detail(kind, component, origin, registry)
        for kind in KINDS
        for component, origin in registry.components[kind]
        if component.name == plain_name and owner in ("", origin.distribution)
    ]
    if not found:
        near = did_you_mean(name, [known for kind in KINDS for known in registry.names(kind)])
        lost = [f"{p.origin.plugin} of {p.origin} could not be loaded: {p.reason}" for p in registry.broken]
        raise UserError(f"no component is named {name!r}{near}; 'liif plugins' lists them", *lost)
    return found


def _detail(kind: Kind, component: Component, origin: Origin, registry: Registry) -> dict[str, Any]:
    ambiguous = component.name not in registry.names(kind)
    use = f"{origin.distribution}:{component.name}" if ambiguous else component.name
    table = example(use, component, registry)
    contract = inspect.getsource(getattr(protocols, kind.capitalize()))
    return {
        **component_entry(kind, component, origin),
        "summary": _summary(component),
        "source": _source(component),
        "contract": contract.partition("\n")[2].rstrip() if contract.startswith("@") else contract.rstrip(),
        "example": as_toml(kind, table) if table else None,
    }


def _described(detail: dict[str, Any]) -> str:
    lines = [f"{detail['kind']} {detail['name']}  ({detail['distribution']} {detail['version']})"]
    lines += [f"    {line}" for line in detail["summary"].splitlines()]
    lines += ["", f"source: {detail['source'] or 'unknown'}", "", "options:"]
    lines += [f"    {option_line(option)}" for option in detail["options"]] or ["    none"]
    lines += ["", "example:", "", detail["example"] or "(none is found that its checks accept: see its options)"]
    return "\n".join([*lines, "", "what it promises (liif_core.protocols):", "", detail["contract"]])


def _built_by(component: Component) -> Any:
    build = component.build
    return build.func if isinstance(build, functools.partial) else build


def _summary(component: Component) -> str:
    """What its author wrote: of the module, of the options, or else of the file."""
    build = _built_by(component)
    said = [getattr(build, "__doc__", None), component.options.__doc__ if component.options is not NoOptions else None]
    texts = [inspect.cleandoc(text) for text in said if text]
    module = sys.modules.get(getattr(build, "__module__", ""))
    return "\n".join(texts) or inspect.cleandoc(getattr(module, "__doc__", None) or "")


def _source(component: Component) -> str | None:
    """``file, line 3``."""
    build = inspect.unwrap(_built_by(component))
    try:
        return f"{inspect.getsourcefile(build)}, line {inspect.getsourcelines(build)[1]}"
    except (TypeError, OSError):  # built by something that is not written in Python
        return None
