"""Entry points -> registry. A broken plugin is reported and harms nothing else."""

import contextlib
import importlib.metadata
import io
import re
from typing import Any

import attrs
import pluggy

from liif_core import hookspecs
from liif_core.registry import Component, Importer, Kind, Origin, Registry

GROUP = "liif_core.plugins"
HOOKS: dict[str, Kind] = {
    "liif_encoders": "encoder",
    "liif_features": "features",
    "liif_samplings": "sampling",
    "liif_conditionings": "conditioning",
    "liif_decoders": "decoder",
}


def discover() -> Registry:
    """Everything that installed distributions offer under the entry-point group ``liif_core.plugins``."""
    registry = Registry()
    seen = set()
    for entry in sorted(importlib.metadata.entry_points(group=GROUP), key=_order):
        origin = _origin(entry)
        if origin in seen:  # one distribution found twice on the path
            continue
        seen.add(origin)
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # standard output may be read by a program
                registry = add_plugin(registry, entry.load(), origin)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit at import is a broken plugin too
            registry = registry.with_broken(origin, _reason(error))
    return registry


def add_plugin(registry: Registry, plugin: Any, origin: Origin) -> Registry:
    """A registry with one more plugin: a module or object that implements hooks.

    Raises whatever the plugin raises, ValueError or TypeError where it breaks a contract; the registry given is
    never changed.
    """
    manager = pluggy.PluginManager("liif_core")
    manager.add_hookspecs(hookspecs)
    manager.register(plugin)
    manager.check_pending()
    components = {kind: _offered(manager, hook, Component) for hook, kind in HOOKS.items()}
    for kind, offered in components.items():
        for component in offered:
            _check(kind, component)
    importers = _offered(manager, "liif_importers", Importer)
    for importer in importers:
        if importer.part not in ("model", "encoder"):
            raise ValueError(f"importer {importer.name!r}: part: expected 'model' or 'encoder', got {importer.part!r}")
    return registry.with_plugin(origin, components, importers)


def _offered(manager: pluggy.PluginManager, hook: str, expected: type) -> list[Any]:
    items = []
    for returned in getattr(manager.hook, hook)():
        for item in returned if isinstance(returned, (list, tuple)) else [returned]:
            if not isinstance(item, expected):
                raise TypeError(f"{hook} returned {item!r}; expected {expected.__name__} or a list of them")
            items.append(item)
    return items


def _check(kind: Kind, component: Component) -> None:
    if not (isinstance(component.name, str) and re.fullmatch(r"[a-z0-9]+([-_][a-z0-9]+)*", component.name)):
        raise ValueError(f"{kind} {component.name!r}: a name has small letters, digits, and single hyphens between them")
    if not callable(component.build):
        raise TypeError(f"{kind} {component.name!r}: build {component.build!r} cannot be called")
    where = f"{kind} {component.name!r}: options {component.options!r}"
    if not (isinstance(component.options, type) and attrs.has(component.options) and _is_frozen(component.options)):
        raise TypeError(f"{where} must be a frozen attrs class")
    unhelpful = [f.name for f in attrs.fields(component.options) if not f.metadata.get("help")]
    if unhelpful:
        raise TypeError(f"{where}: no help for {', '.join(unhelpful)}; make fields with liif_core.option(help, default)")


def _is_frozen(cls: type) -> bool:
    try:
        setattr(cls.__new__(cls), "probe", None)
    except attrs.exceptions.FrozenInstanceError:
        return True
    except Exception:
        pass
    return False


def _origin(entry: importlib.metadata.EntryPoint) -> Origin:
    name, version = (entry.dist.name, entry.dist.version) if entry.dist else (None, None)
    return Origin(f"{entry.name} = {entry.value}", name or "unknown", version or "?")  # metadata may be lost, too


def _order(entry: importlib.metadata.EntryPoint) -> tuple[str, str]:
    return (_origin(entry).distribution, entry.name)


def _reason(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
