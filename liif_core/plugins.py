"""Plugins -> registry. A broken plugin is reported and harms nothing else."""

import contextlib
import io
import re
import traceback
from pathlib import Path
from typing import Any

import attrs
import pluggy

from liif_core import hookspecs
from liif_core.errors import UserError
from liif_core.plugin_sources import Source, sources
from liif_core.registry import Component, Importer, Kind, Origin, Registry

HOOKS: dict[str, Kind] = {
    "liif_encoders": "encoder",
    "liif_features": "features",
    "liif_samplings": "sampling",
    "liif_conditionings": "conditioning",
    "liif_decoders": "decoder",
}


def discover() -> Registry:
    """Everything that plugins offer: the installed ones, and those of ``liif_core.plugin_sources.sources``.

    Raises UserError where one that the command itself names (``--plugin``) is broken; the others only say so.
    """
    found, remarks = sources()
    registry = attrs.evolve(Registry(), remarks=tuple(remarks))
    problems = []
    for source in found:
        before = len(registry.broken)
        registry = _with(registry, source)
        if source.asked:
            problems += [f"--plugin {source.asked}: {plugin.reason}" for plugin in registry.broken[before:]]
    if problems:
        raise UserError(*problems)
    return registry


def _with(registry: Registry, source: Source) -> Registry:
    """A registry with one more plugin, or with the reason why it is not there."""
    if source.refusal:
        return registry.with_broken(source.origin, source.refusal)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):  # standard output may be read by a program
            registry = add_plugin(registry, source.load(), source.origin)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit at import is a broken plugin too
        registry = registry.with_broken(source.origin, _reason(error))
    if printed.getvalue().strip():
        said = f"plugin {source.origin.plugin} of {source.origin} prints when it is loaded (not shown)"
        registry = registry.with_remark(f"{said}: {printed.getvalue().strip().splitlines()[0][:80]}")
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


def _reason(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = ""
    text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text + _place(error)


def _place(error: BaseException) -> str:
    """`` (file, line 3)``: the last line of a plugin that was running, for its author."""
    ours = (str(Path(__file__).parent), str(Path(pluggy.__file__).parent), "<")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(ours)]
    frames = [frame for frame in frames if "importlib" not in Path(frame.filename).parts]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
