"""What the installed plugins offer, as typed records."""

import typing
from typing import Any

import attrs
from attrs import frozen

from liif_core.registry.components import (
    KINDS,
    BrokenPlugin,
    Component,
    Importer,
    Kind,
    NoOptions,
    Origin,
    Registry,
)
from liif_core.registry.discovery import discover
from liif_core.registry.named_models import NamedModel


@frozen
class OptionInfo:
    """An option of a component."""

    name: str
    type: str  # as Python writes it, such as "int" or "tuple[int, ...]"
    help: str
    required: bool
    default: Any = None  # None, too, where the option is required


@frozen
class ComponentInfo:
    """A component that a plugin offers: what ``use = name`` in an experiment selects."""

    kind: Kind
    name: str
    distribution: str
    version: str
    options: tuple[OptionInfo, ...]


@frozen
class ModelInfo:
    """A trained model of a model pack: what ``liif_core.load(name)`` loads."""

    name: str
    distribution: str
    version: str
    model: NamedModel


@frozen
class ImporterInfo:
    """A published architecture whose checkpoints can be read."""

    part: str  # "model" or "encoder"
    name: str
    distribution: str
    version: str


@frozen
class PluginList:
    """Everything that plugins offer, those that could not be loaded, and warnings."""

    components: tuple[ComponentInfo, ...]  # in order of kind and name
    models: tuple[ModelInfo, ...]
    importers: tuple[ImporterInfo, ...]
    broken: tuple[BrokenPlugin, ...]
    remarks: tuple[str, ...]  # warnings, one line each


def list_plugins(registry: Registry | None = None) -> PluginList:
    """Everything that the installed plugins offer; with ``registry``, what that one holds.

    Plugins that could not be loaded are in ``broken``, each with its reason; they raise nothing.
    """
    registry = discover() if registry is None else registry
    models = [ModelInfo(model.name, *_owner(origin), model) for model, origin in registry.models]
    return PluginList(
        components=tuple(
            component_info(kind, component, origin)
            for kind in KINDS
            for component, origin in sorted(registry.components[kind], key=lambda item: (item[0].name, str(item[1])))
        ),
        models=tuple(sorted(models, key=lambda info: (info.name, info.distribution))),
        importers=tuple(_importer_info(importer, origin) for importer, origin in registry.importers),
        broken=registry.broken,
        remarks=(*registry.remarks, *_shared_names(registry)),
    )


def component_info(kind: Kind, component: Component, origin: Origin) -> ComponentInfo:
    """The record of one component."""
    options = () if component.options is NoOptions else attrs.fields(component.options)
    return ComponentInfo(kind, component.name, *_owner(origin), tuple(map(_option_info, options)))


def _owner(origin: Origin) -> tuple[str, str]:
    return origin.distribution, origin.version


def _importer_info(importer: Importer, origin: Origin) -> ImporterInfo:
    return ImporterInfo(importer.part, importer.name, *_owner(origin))


def _option_info(field: "attrs.Attribute[Any]") -> OptionInfo:
    plain = isinstance(field.type, type) and typing.get_origin(field.type) is None
    kind = field.type.__name__ if plain and field.type is not None else str(field.type)
    default = field.default.factory() if isinstance(field.default, attrs.Factory) else field.default  # type: ignore
    required = field.default is attrs.NOTHING
    return OptionInfo(field.name, kind, field.metadata["help"], required, None if required else default)


def _shared_names(registry: Registry) -> list[str]:
    """A line for each name that several distributions offer for different components."""
    lines = []
    for kind, offered in registry.components.items():
        names = [component.name for component, _ in offered]
        for name in sorted({name for name in names if names.count(name) > 1}):
            try:
                registry.find(kind, name)
            except ValueError as error:
                lines.append(f"{kind} {error}")
    return lines


__all__ = [
    "ComponentInfo", "ImporterInfo", "ModelInfo", "OptionInfo", "PluginList", "component_info", "list_plugins",
]  # fmt: skip
