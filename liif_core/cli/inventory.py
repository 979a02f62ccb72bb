"""``liif plugins`` and ``liif doctor``: what is installed. Listing plugins does not import torch."""

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import attrs

from liif_core.registry.components import KINDS
from liif_core.registry.listing import ComponentInfo, ImporterInfo, ModelInfo, OptionInfo, PluginList, list_plugins
from liif_core.registry.named_models import NamedModel

_PACKAGES = ("liif-core", "torch", "torchvision", "pillow", "numpy", "attrs", "cattrs", "pluggy", "safetensors")
_EXTRAS = {  # optional packages -> the extra of liif-core that installs them
    "scikit-image": "skimage",
    "tifffile": "images",
    "imagecodecs": "images",
    "matplotlib": "curves",
    "tensorboard": "tensorboard",
}


def plugins_json() -> str:
    """``liif plugins --json``."""
    listed = list_plugins()
    data = {
        "components": [component_data(info) for info in listed.components],
        "models": [model_data(info) for info in listed.models],
        "importers": [attrs.asdict(info) for info in listed.importers],
        "broken": [
            {**attrs.asdict(plugin.origin), "reason": plugin.reason, "details": list(plugin.details)}
            for plugin in listed.broken
        ],
        "remarks": list(listed.remarks),
    }
    return json.dumps(data, indent=2)


def component_data(info: ComponentInfo) -> dict[str, Any]:
    """A component as JSON has it."""
    options = [_option_data(option) for option in info.options]
    return {"kind": info.kind, "name": info.name, **_owner(info), "options": options}


def model_data(info: ModelInfo) -> dict[str, Any]:
    """A trained model as JSON has it."""
    fields = attrs.asdict(info.model)
    file = str(info.model.file) if info.model.file else None
    return {**fields, **_owner(info), "file": file, "scores": dict(info.model.scores)}


def option_line(option: OptionInfo) -> str:
    """``name: type, default 3. Help.``"""
    value = "none" if option.default is None else json.dumps(_plain(option.default))
    default = "required" if option.required else f"default {value}"
    return f"{option.name}: {option.type}, {default}. {option.help}"


def model_line(model: NamedModel) -> str:
    """``BSD-3-Clause, 5.3 MB, trained on DIV2K``."""
    return f"{model.license}, {model.size / 1e6:.1f} MB, trained on {model.training_data}"


def plugins_text() -> str:
    """``liif plugins``."""
    return "\n".join(_plugin_lines(list_plugins()))


def _plugin_lines(listed: PluginList) -> list[str]:
    groups: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for info in listed.components:
        groups[info.kind] += [f"  {_titled(info)}", *(f"      {option_line(option)}" for option in info.options)]
    groups["trained models"] = [
        line for info in listed.models for line in (f"  {_titled(info)}", f"      {model_line(info.model)}")
    ]
    groups["published checkpoints that can be imported"] = [f"  {i.part} {_titled(i)}" for i in listed.importers]
    lines = [line for title, group in groups.items() for line in (f"{title}:", *(group or ["  none"]))]
    return lines + broken_lines(listed) + [f"note: {remark}" for remark in listed.remarks]


def broken_lines(listed: PluginList) -> list[str]:
    """Plugins that could not be loaded, each with its reason."""
    lines = []
    for plugin in listed.broken:
        origin = plugin.origin
        lines.append(f"not loaded: {origin.plugin}  ({origin.distribution} {origin.version}): {plugin.reason}")
        lines += [f"    - {line}" for line in plugin.details]
    return lines


def _titled(info: ComponentInfo | ModelInfo | ImporterInfo) -> str:
    return f"{info.name}  ({info.distribution} {info.version})"


def _owner(info: ComponentInfo | ModelInfo) -> dict[str, str]:
    return {"distribution": info.distribution, "version": info.version}


def _option_data(option: OptionInfo) -> dict[str, Any]:
    data: dict[str, Any] = {"name": option.name, "type": option.type, "help": option.help}
    return data if option.required else {**data, "default": _plain(option.default)}


def _plain(value: Any) -> Any:
    """A default value as JSON has it."""
    return json.loads(json.dumps(value, default=lambda v: attrs.asdict(v) if attrs.has(type(v)) else str(v)))


def doctor_text() -> str:
    """``liif doctor``."""
    import torch

    from liif_core.model.device import pick_device
    from liif_core.models.cache import cache_folder

    lines = [f"python {platform.python_version()} on {platform.platform()}"]
    lines += [f"{name} {_version(name) or 'is missing'}" for name in _PACKAGES]
    for name, extra in _EXTRAS.items():
        missing = f'is not installed (optional): pip install "liif-core[{extra}]"'
        lines.append(f"{name} {_version(name) or missing}")
    lines += ["", f"device 'auto': {pick_device('auto')}; CPU threads: {torch.get_num_threads()}"]
    lines += [
        f"cuda:{i}: {torch.cuda.get_device_name(i)}, {torch.cuda.get_device_properties(i).total_memory / 2**30:.0f} GiB"
        for i in range(torch.cuda.device_count())
    ]
    lines += ["", *_data_lines(), f"downloaded models: {cache_folder() / 'models'}"]
    lines += ["", *_plugin_lines(list_plugins())]
    return "\n".join(lines)


def _data_lines() -> list[str]:
    """Whether the data sets that our experiment files name are below the current folder."""
    names = ["DIV2K", *(f"benchmark/{name}" for name in ("Set5", "Set14", "B100", "Urban100"))]
    return [
        f"data/{name}: {'found' if (Path('data') / name).is_dir() else 'not found below ' + str(Path.cwd())}"
        for name in names
    ]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
