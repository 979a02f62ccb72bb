"""``liif plugins NAME``: everything about one component, or one trained model."""

import functools
import inspect
import json
import sys
from typing import Any

from liif_core.cli.examples import as_toml, example
from liif_core.cli.inventory import component_data, model_data, model_line, option_line
from liif_core.errors import UserError, did_you_mean
from liif_core.registry.components import KINDS, Component, Kind, NoOptions, Origin, Registry
from liif_core.registry.discovery import discover
from liif_core.registry.listing import ModelInfo, OptionInfo, component_info
from liif_core.registry.named_models import NamedModel

_NO_EXAMPLE = "(none: no values were found that its checks accept; see its options)"


def component_text(name: str) -> str:
    """Options, source, contract and an example of the components called ``name`` or ``distribution:name``.

    Trained models of that name follow. Raises UserError where there are none, with the nearest name and the plugins
    that could not be loaded.
    """
    components, models, registry = _found(name)
    texts = [_component_text(*item, _component_data(*item, registry)) for item in components]
    texts += [_model_text(*item, registry) for item in models]
    return "\n\n\n".join(texts)


def component_json(name: str) -> str:
    """The same for tools: an array, since several components and models may share a name."""
    components, models, registry = _found(name)
    data = [_component_data(*item, registry) for item in components]
    data += [{"kind": "trained model", **model_data(_info(*item))} for item in models]
    return json.dumps(data, indent=2)


def _found(
    name: str,
) -> tuple[list[tuple[Kind, Component, Origin]], list[tuple[NamedModel, Origin]], Registry]:
    registry = discover()
    owner, _, plain = name.rpartition(":")
    components = [
        (kind, component, origin)
        for kind in KINDS
        for component, origin in registry.components[kind]
        if component.name == plain and owner in ("", origin.distribution)
    ]
    models = [(m, o) for m, o in registry.models if m.name == plain and owner in ("", o.distribution)]
    if not components and not models:
        known = [each for kind in KINDS for each in registry.names(kind)] + registry.model_names()
        lost = []
        for plugin in registry.broken:
            lost.append(f"{plugin.origin.plugin} of {plugin.origin} could not be loaded: {plugin.reason}")
            lost += [f"{plugin.origin.distribution}: changed: {line}" for line in plugin.details]
        raise UserError(f"no component is named {name!r}{did_you_mean(name, known)}; 'liif plugins' lists them", *lost)
    return components, models, registry


def _component_data(kind: Kind, component: Component, origin: Origin, registry: Registry) -> dict[str, Any]:
    ambiguous = component.name not in registry.names(kind)
    use = f"{origin.distribution}:{component.name}" if ambiguous else component.name
    table = example(use, component, registry)
    _, contract = _contract(kind)
    return {
        **component_data(component_info(kind, component, origin)),
        "summary": _summary(component),
        "source": _source(component),
        "contract": contract,
        "example": as_toml(kind, table) if table else None,
    }


def _contract(kind: Kind) -> tuple[str, str]:
    """The module that states the contract of a kind, and its source code."""
    from liif_core.data.degrade import Degradation
    from liif_core.model import protocols
    from liif_core.model.continuous import ContinuousModel

    cls = {"model": ContinuousModel, "degradation": Degradation}.get(kind) or getattr(protocols, kind.capitalize())
    text = inspect.getsource(cls).rstrip()
    return cls.__module__, text.partition("\n")[2] if text.startswith("@") else text


def _component_text(kind: Kind, component: Component, origin: Origin, data: dict[str, Any]) -> str:
    lines = [f"{kind} {component.name}  ({origin})"]
    lines += [f"    {line}" for line in data["summary"].splitlines()]
    options: tuple[OptionInfo, ...] = component_info(kind, component, origin).options
    lines += ["", f"source: {data['source'] or 'unknown'}", "", "options:"]
    lines += [f"    {option_line(option)}" for option in options] or ["    none"]
    lines += ["", "example:", "", data["example"] or _NO_EXAMPLE]
    return "\n".join([*lines, "", f"contract ({_contract(kind)[0]}):", "", data["contract"]])


def _info(model: NamedModel, origin: Origin) -> ModelInfo:
    return ModelInfo(model.name, origin.distribution, origin.version, model)


def _model_text(model: NamedModel, origin: Origin, registry: Registry) -> str:
    name = model.name if model.name in registry.model_names() else f"{origin.distribution}:{model.name}"
    lines = [f"trained model {model.name}  ({origin})"]
    lines += [f"    {model.description}"] if model.description else []
    where = f"file: {model.file}" if model.file else f"downloaded from: {model.origin}"
    lines += ["", model_line(model), where, f"sha256: {model.sha256}"]
    lines += [f"published at: {model.source}"] if model.source else []
    lines += [f"PSNR on {test}: {value:.2f} dB" for test, value in model.scores.items()]
    use = [f'model = liif_core.load("{name}")', f"liif upscale photo.jpg -o large.png --scale 2 --model {name}"]
    return "\n".join([*lines, "", "example:", "", *use])


def _built_by(component: Component) -> Any:
    build = component.build
    return build.func if isinstance(build, functools.partial) else build


def _summary(component: Component) -> str:
    """The docstrings of the module and the options, or else of the file."""
    build = _built_by(component)
    documented = [getattr(build, "__doc__", None)]
    documented += [component.options.__doc__] if component.options is not NoOptions else []
    texts = [inspect.cleandoc(text) for text in documented if text]
    module = sys.modules.get(getattr(build, "__module__", ""))
    return "\n".join(texts) or inspect.cleandoc(getattr(module, "__doc__", None) or "")


def _source(component: Component) -> str | None:
    """``file, line 3``."""
    build = inspect.unwrap(_built_by(component))
    try:
        return f"{inspect.getsourcefile(build)}, line {inspect.getsourcelines(build)[1]}"
    except (TypeError, OSError):  # not written in Python
        return None
