"""Loads plugins into a registry. A broken plugin is reported and does not affect the others."""

import traceback
from pathlib import Path
from typing import Any

import attrs
import pluggy

from liif_core.errors import UserError
from liif_core.registry import hookspecs
from liif_core.registry.components import Component, Importer, Kind, Origin, Registry
from liif_core.registry.guard import guarded
from liif_core.registry.named_models import NAME_RULE, NamedModel, is_name
from liif_core.registry.sources import PluginSource, sources

HOOKS: dict[str, Kind] = {
    "liif_encoders": "encoder",
    "liif_features": "features",
    "liif_samplings": "sampling",
    "liif_conditionings": "conditioning",
    "liif_decoders": "decoder",
    "liif_models": "model",
    "liif_degradations": "degradation",
}


def discover() -> Registry:
    """Load every plugin that ``liif_core.registry.sources.sources`` finds.

    Broken plugins are listed in ``Registry.broken``. Raises UserError only for a broken plugin that the command itself
    names (``--plugin``).
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


def _with(registry: Registry, source: PluginSource) -> Registry:
    """A registry with one more plugin, or with the reason why it could not be loaded."""
    if source.refusal:
        return registry.with_broken(source.origin, source.refusal, source.details)
    with guarded() as loading:
        try:
            registry = add_plugin(registry, source.load(), source.origin)
        except BaseException as error:  # a plugin that calls sys.exit at import is broken, too
            if isinstance(error, KeyboardInterrupt) and loading.interrupted:
                raise
            registry = registry.with_broken(source.origin, _reason(error))
    who = f"plugin {source.origin.plugin} of {source.origin}"
    if loading.printed:
        registry = registry.with_remark(
            f"{who} prints when it is loaded (not shown): {loading.printed.splitlines()[0][:80]}"
        )
    if loading.changed:
        registry = registry.with_remark(f"{who} changes {' and '.join(loading.changed)}; that was undone")
    return registry


def add_plugin(registry: Registry, plugin: Any, origin: Origin) -> Registry:
    """A registry with one more plugin, a module or object that implements hooks.

    Raises whatever the plugin raises, and ValueError or TypeError for what the hooks may not return. The given registry
    is not changed.
    """
    manager = pluggy.PluginManager("liif_core")
    manager.add_hookspecs(hookspecs)
    manager.register(plugin)
    manager.check_pending()
    if not manager.get_hookcallers(plugin):
        raise ValueError("it has no hooks; mark its functions, such as liif_encoders, with @liif_core.hookimpl")
    components = {kind: _offered(manager, hook, Component) for hook, kind in HOOKS.items()}
    for kind, offered in components.items():
        for component in offered:
            _check(kind, component)
    importers = _offered(manager, "liif_importers", Importer)
    for importer in importers:
        if importer.part not in ("model", "encoder", "file"):
            known = "'model', 'encoder' or 'file'"
            raise ValueError(f"importer {importer.name!r}: part: expected {known}, got {importer.part!r}")
    return registry.with_plugin(origin, components, importers, _offered(manager, "liif_model_packs", NamedModel))


def _offered(manager: pluggy.PluginManager, hook: str, expected: type) -> list[Any]:
    items = []
    for returned in getattr(manager.hook, hook)():
        for item in returned if isinstance(returned, (list, tuple)) else [returned]:
            if not isinstance(item, expected):
                raise TypeError(f"{hook} returned {item!r}; expected {expected.__name__} or a list of them")
            items.append(item)
    return items


def _check(kind: Kind, component: Component) -> None:
    if not (isinstance(component.name, str) and is_name(component.name)):
        raise ValueError(f"{kind} {component.name!r}: {NAME_RULE}")
    if not callable(component.build):
        raise TypeError(f"{kind} {component.name!r}: build {component.build!r} cannot be called")
    if not (component.describe is None or callable(component.describe)):
        raise TypeError(f"{kind} {component.name!r}: describe {component.describe!r} cannot be called")
    where = f"{kind} {component.name!r}: options {component.options!r}"
    if not (isinstance(component.options, type) and attrs.has(component.options) and _is_frozen(component.options)):
        raise TypeError(f"{where} must be a frozen attrs class")
    unhelpful = [f.name for f in attrs.fields(component.options) if not f.metadata.get("help")]
    if unhelpful:
        raise TypeError(
            f"{where}: no help for {', '.join(unhelpful)}; make fields with liif_core.option(help, default)"
        )


def _is_frozen(cls: Any) -> bool:
    try:
        object.__new__(cls).probe = None
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
    """`` (file, line 3)``: the line of the plugin that failed, for its author."""
    ours = (str(Path(__file__).parent), str(Path(pluggy.__file__).parent), "<")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(ours)]
    frames = [frame for frame in frames if "importlib" not in Path(frame.filename).parts]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
