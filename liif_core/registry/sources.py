"""Finds plugins: in installed distributions, in ``LIIF_PLUGIN_PATH``, and those that a command names.

Only ``PluginSource.load`` imports a plugin. Reasons not to import one, such as the version of the plugin API that its
distribution declares, are in ``PluginSource.refusal``.
"""

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from attrs import frozen
from packaging.requirements import InvalidRequirement, Requirement

from liif_core.errors import did_you_mean
from liif_core.registry.changes import changes_after
from liif_core.registry.components import Origin
from liif_core.registry.hookspecs import API_VERSION, ENTRY_POINT_GROUP

GROUP = ENTRY_POINT_GROUP.rpartition(".")[0]  # entry points of the group without a number declare no API version
OWN = "liif-core"  # the distribution whose plugins are always loaded
_EXTRA: ContextVar[tuple[str, ...]] = ContextVar("extra_plugins", default=())


@frozen
class PluginSource:
    """A plugin that was found and is not loaded yet."""

    origin: Origin
    load: Callable[[], Any]
    refusal: str = ""  # why it must not be loaded, one line
    asked: str = ""  # the value of --plugin that it was found by, if any
    details: tuple[str, ...] = ()  # more lines about the refusal


@contextmanager
def extra_plugins(*plugins: str) -> Iterator[None]:
    """Within this context ``discover`` finds these plugins too: paths of .py files, ``"module"``, ``"module:object"``.

    This is what ``--plugin`` does. A broken one is an error, unlike an installed plugin that is broken.
    """
    token = _EXTRA.set(_EXTRA.get() + plugins)
    try:
        yield
    finally:
        _EXTRA.reset(token)


def sources() -> tuple[list[PluginSource], list[str]]:
    """Every plugin, in order of distribution and name, and warnings about the environment, one line each.

    ``LIIF_PLUGINS``: ``none``, or the distributions, separated by commas, whose plugins are loaded besides our own.
    ``LIIF_PLUGIN_PATH``: .py files and modules, separated as in PATH, that are loaded without being installed.
    """
    found = _installed()
    remarks = []
    allowed = _allowed()
    if allowed is not None:
        known = {_normal(source.origin.distribution): source.origin.distribution for source in found}
        for name in sorted(allowed - known.keys()):
            near = did_you_mean(name, known)
            remarks.append(f"LIIF_PLUGINS names {name!r}, and no distribution of that name has plugins{near}")
        left_out = f"left out, because LIIF_PLUGINS is {os.environ['LIIF_PLUGINS']!r}"
        kept = allowed | {_normal(OWN)}
        found = [
            s if _normal(s.origin.distribution) in kept else PluginSource(s.origin, s.load, left_out) for s in found
        ]
    path = os.environ.get("LIIF_PLUGIN_PATH", "")
    if allowed is None:
        found += [_uninstalled(given) for given in path.split(os.pathsep) if given]
    elif path:
        remarks.append("LIIF_PLUGIN_PATH is left out, because LIIF_PLUGINS is set")
    return found + [_uninstalled(given, asked=given) for given in dict.fromkeys(_EXTRA.get())], remarks


def _allowed() -> set[str] | None:
    text = os.environ.get("LIIF_PLUGINS")
    if text is None or not text.strip():
        return None
    return {_normal(name.strip()) for name in text.split(",") if name.strip()} - {"none"}


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _installed() -> list[PluginSource]:
    by_name: dict[tuple[str, str], dict[Origin, tuple[str, PluginSource]]] = {}
    offered = importlib.metadata.entry_points()
    groups = [group for group in offered.groups if group == GROUP or group.startswith(f"{GROUP}.")]
    read = functools.cache(_read)  # of all plugins of a distribution at once: parsing takes milliseconds
    for entry in (entry for group in groups for entry in offered.select(group=group)):
        name, version, unfit = read(entry.dist)
        origin = Origin(f"{entry.name} = {entry.value}", name, version)
        refusal, details = _mismatch(entry.group)
        refusal = refusal or unfit
        source = PluginSource(origin, entry.load, refusal, details=details)
        same = by_name.setdefault((origin.distribution, entry.name), {})
        if origin not in same or same[origin][1].refusal:  # one distribution may be found twice on the path
            same[origin] = (entry.group, source)
    chosen = []
    for _, same in sorted(by_name.items()):
        fitting = [item for item in same.values() if not item[1].refusal]
        declared = [item for item in fitting if item[0] != GROUP]  # a plugin may offer a module for each API version
        chosen += [source for _, source in declared or fitting or list(same.values())]
    return chosen


def _mismatch(group: str) -> tuple[str, tuple[str, ...]]:
    """What is wrong with the API version that an entry-point group declares, and what changed since; or nothing."""
    declared = group.removeprefix(GROUP)
    if declared in ("", f".v{API_VERSION}"):
        return "", ()
    if not re.fullmatch(r"\.v[0-9]+", declared):
        return f"entry-point group {group!r}: expected {ENTRY_POINT_GROUP!r}", ()
    version = int(declared[2:])
    better = "liif-core" if version > API_VERSION else "version of the plugin"
    made = f"made for version {version} of the plugin API"
    reason = f"{made}, and this liif-core has version {API_VERSION}: install a newer {better}"
    return reason, tuple(changes_after(version))


def _read(distribution: importlib.metadata.Distribution | None) -> tuple[str, str, str]:
    """A distribution's name, its version, and what is wrong with the version of liif-core that it requires."""
    if distribution is None:
        return "unknown", "?", ""
    name = distribution.name or "unknown"  # its metadata may be lost
    return name, distribution.version or "?", "" if _normal(name) == OWN else _unfit(distribution.requires or [])


def _unfit(requires: list[str]) -> str:
    """What is wrong with the version of liif-core that a distribution requires; nothing if it is this one."""
    try:
        own = importlib.metadata.version(OWN)
    except importlib.metadata.PackageNotFoundError:
        return ""
    for text in requires:
        try:
            needed = Requirement(text)
        except InvalidRequirement:  # which pip reports
            continue
        if _normal(needed.name) != OWN or (needed.marker and not needed.marker.evaluate({"extra": ""})):
            continue
        if not needed.specifier.contains(own, prereleases=True):
            return f"needs liif-core{needed.specifier}, and this is {own}: install one that fits, or another plugin"
    return ""


def _uninstalled(given: str, asked: str = "") -> PluginSource:
    if given.endswith(".py"):
        path = Path(os.path.abspath(given))
        return PluginSource(Origin(given, path.name, _content(path)), lambda: _load_file(path), asked=asked)
    named = re.fullmatch(r"[\w.]+(:[\w.]+)?", given)
    refusal = "" if named else "expected the path of a .py file, a module, or module:object"
    entry = importlib.metadata.EntryPoint(given, given, GROUP)
    return PluginSource(
        Origin(given, given.partition(":")[0], "not-installed"), lambda: _load_module(entry), refusal, asked
    )


def _content(path: Path) -> str:
    """A hash of the file, in place of a version."""
    try:
        return f"sha256-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"
    except OSError:
        return "?"


def _load_module(entry: importlib.metadata.EntryPoint) -> Any:
    _reachable(os.getcwd())
    return entry.load()


def _load_file(path: Path) -> Any:
    """Run the file as a module with a unique name."""
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}{did_you_mean(path.name, _names_in(path.parent))}")
    _reachable(str(path.parent))
    name = f"liif_plugin_{path.stem}_{zlib.crc32(str(path).encode()):08x}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # typing resolves annotations there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _names_in(folder: Path) -> list[str]:
    try:
        return [file.name for file in folder.iterdir() if file.suffix == ".py"]
    except OSError:
        return []


def _reachable(folder: str) -> None:
    """Put a folder last on the path, so that it hides no other module."""
    if folder not in sys.path:
        sys.path.append(folder)
