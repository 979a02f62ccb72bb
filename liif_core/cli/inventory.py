"""What is installed here: ``liif plugins`` and ``liif doctor``. Nothing here imports torch to list plugins."""

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import attrs

from liif_core.plugins import discover
from liif_core.registry import KINDS, Component, Kind, Origin, Registry

_PACKAGES = ("liif-core", "torch", "torchvision", "pillow", "numpy", "attrs", "cattrs", "pluggy", "safetensors")
_EXTRAS = {"scikit-image": "samples", "matplotlib": "curves", "tensorboard": "tensorboard"}


def inventory(registry: Registry) -> dict[str, Any]:
    """Components with their options, plugins that are not loaded with the reason, and remarks, as plain data."""
    components = [
        component_entry(kind, component, origin)
        for kind in KINDS
        for component, origin in sorted(registry.components[kind], key=lambda item: (item[0].name, str(item[1])))
    ]
    importers = [
        {"part": importer.part, "name": importer.name, "distribution": origin.distribution, "version": origin.version}
        for importer, origin in registry.importers
    ]
    broken = [{**attrs.asdict(plugin.origin), "reason": plugin.reason} for plugin in registry.broken]
    remarks = [*registry.remarks, *_shared_names(registry)]
    return {"components": components, "importers": importers, "broken": broken, "remarks": remarks}


def component_entry(kind: Kind, component: Component, origin: Origin) -> dict[str, Any]:
    """One component, as plain data."""
    return {
        "kind": kind,
        "name": component.name,
        "distribution": origin.distribution,
        "version": origin.version,
        "options": [_option(field) for field in attrs.fields(component.options)],
    }


def option_line(option: dict[str, Any]) -> str:
    """One option of a ``component_entry``."""
    default = f"default {json.dumps(option['default'])}" if "default" in option else "required"
    return f"{option['name']}: {option['type']}, {default}. {option['help']}"


def _shared_names(registry: Registry) -> list[str]:
    lines = []
    for kind, offered in registry.components.items():
        names = [component.name for component, _ in offered]
        for name in sorted({name for name in names if names.count(name) > 1}):
            try:
                registry.find(kind, name)
            except ValueError as error:
                lines.append(f"{kind} {error}")
    return lines


def plugins_json() -> str:
    """``liif plugins --json``."""
    return json.dumps(inventory(discover()), indent=2)


def plugins_text() -> str:
    """``liif plugins``."""
    return "\n".join(_plugin_lines(discover()))


def doctor_text() -> str:
    """``liif doctor``."""
    import torch

    from liif_core.device import pick_device

    lines = [f"python {platform.python_version()} on {platform.platform()}"]
    lines += [f"{name} {_version(name) or 'is missing'}" for name in _PACKAGES]
    lines += [
        f"{name} {_version(name) or f'is not installed (optional): pip install {chr(39)}liif-core[{extra}]{chr(39)}'}"
        for name, extra in _EXTRAS.items()
    ]
    lines += ["", f"device that 'auto' takes: {pick_device('auto')}; CPU threads: {torch.get_num_threads()}"]
    lines += [
        f"cuda:{i}: {torch.cuda.get_device_name(i)}, {torch.cuda.get_device_properties(i).total_memory / 2**30:.0f} GiB"
        for i in range(torch.cuda.device_count())
    ]
    lines += ["", *_data_lines(), "", *_plugin_lines(discover())]
    return "\n".join(lines)


def _data_lines() -> list[str]:
    """The data sets that the experiments of a clone name, looked for below the current folder."""
    names = ["DIV2K", *(f"benchmark/{name}" for name in ("Set5", "Set14", "B100", "Urban100"))]
    return [f"data/{name}: {'found' if (Path('data') / name).is_dir() else 'not found below ' + str(Path.cwd())}" for name in names]


def _plugin_lines(registry: Registry) -> list[str]:
    listed = inventory(registry)
    lines = []
    for kind in KINDS:
        lines.append(f"{kind}:")
        for item in (c for c in listed["components"] if c["kind"] == kind):
            lines.append(f"  {item['name']}  ({item['distribution']} {item['version']})")
            for option in item["options"]:
                lines.append(f"      {option_line(option)}")
    lines.append("published checkpoints that can be imported:")
    lines += [f"  {item['part']} {item['name']}  ({item['distribution']} {item['version']})" for item in listed["importers"]]
    for plugin in listed["broken"]:
        where = f"{plugin['plugin']}  ({plugin['distribution']} {plugin['version']})"
        lines.append(f"not loaded: {where}: {plugin['reason']}")
    lines += [f"note: {remark}" for remark in listed["remarks"]]
    return lines


def _option(field: attrs.Attribute) -> dict[str, Any]:
    kind = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type))
    described = {"name": field.name, "type": str(field.type) if kind == "tuple" else kind, "help": field.metadata["help"]}
    if field.default is not attrs.NOTHING:
        default = field.default.factory() if isinstance(field.default, attrs.Factory) else field.default
        described["default"] = json.loads(json.dumps(default, default=_as_json))
    return described


def _as_json(value: Any) -> Any:
    return attrs.asdict(value) if attrs.has(type(value)) else str(value)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
