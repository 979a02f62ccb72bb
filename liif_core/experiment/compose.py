"""``liif_core.compose``: a model from a mapping or keyword arguments, without a file."""

import os
from collections.abc import Mapping
from typing import Any

from torch import nn

from liif_core.experiment.build import build_model, try_model
from liif_core.experiment.schema import ModelSpec
from liif_core.experiment.validation import structure
from liif_core.model.continuous import ContinuousModel
from liif_core.registry.components import PARTS, Component, Kind, Origin
from liif_core.registry.discovery import discover

_GIVEN = "given"  # the distribution that modules given to ``compose`` are listed under


def compose(table: Mapping[str, Any] | None = None, /, **parts: Any) -> ContinuousModel:
    """A model with fresh weights, on the CPU and in training mode, from the values of a ``[model]`` table.

    Args:
        table: a mapping with the keys of a ``[model]`` table.
        **parts: the same keys as keyword arguments, which replace values of ``table``. ``encoder``, ``features``,
            ``sampling`` and ``decoder`` are each a mapping with ``use`` and options, such as
            ``{"use": "edsr", "blocks": 4}``; a name, such as ``"unfold"``, for default options; or a module that keeps
            the contract of its kind. ``conditioning`` is a list of mappings or names, or a mapping of condition names
            to modules, mappings or names. ``residual``, ``channels``, ``input_mean`` and ``input_std`` are as in a
            ``[model]`` table. ``use`` is the name of a model that is no composition, with its options instead of parts.

    Raises TypeError or ValueError with one line for every mistake: an unknown component (with the nearest name), a
    missing part, a wrong option, parts that do not fit together.

    Example:
        >>> model = liif_core.compose(
        ...     encoder={"use": "edsr", "blocks": 4, "channels": 32},
        ...     features="unfold",
        ...     sampling="local-ensemble",
        ...     conditioning=["coordinate", "cell"],
        ...     decoder={"use": "mlp", "hidden": (64, 64)},
        ... )
    """
    if table is not None and not isinstance(table, Mapping):
        raise TypeError(f"table: expected a mapping such as a [model] table, got {type(table).__name__}")
    given: dict[Kind, list[Component]] = {}
    values = {str(key): _value(str(key), value, given) for key, value in {**(table or {}), **parts}.items()}
    registry = discover()
    if given:
        registry = registry.with_plugin(Origin("compose", _GIVEN, ""), given)
    spec = structure(ModelSpec, values, registry, "compose")
    model = build_model(spec)
    try_model(model)
    return model


def _value(key: str, value: Any, given: dict[Kind, list[Component]]) -> Any:
    """A value of a ``[model]`` table as TOML has it. Modules are added to ``given``, as components."""
    if key == "conditioning" and isinstance(value, Mapping) and "use" not in value:
        return [_named(str(name), item, given) for name, item in value.items()]
    if key == "conditioning" and isinstance(value, (list, tuple)):
        return [_part("conditioning", item, given) for item in value]
    return _part(key, value, given, key) if key in PARTS else _builtin(value)


def _named(name: str, value: Any, given: dict[Kind, list[Component]]) -> Any:
    """The table of the conditioning with this name, which is the name of its component."""
    part = _part("conditioning", value, given, name)
    use = part.get("use") if isinstance(part, dict) else None
    if str(use).rpartition(":")[2] != name:
        raise ValueError(f"conditioning: {name!r} must be a module, or the component of that name, got {value!r}")
    return part


def _part(kind: Kind, value: Any, given: dict[Kind, list[Component]], name: str = "") -> Any:
    """The table of one component."""
    if isinstance(value, str):
        return {"use": value}
    if not isinstance(value, nn.Module):
        return _builtin(value)
    if not name:
        raise TypeError(
            f"conditioning: the module {type(value).__name__} has no name; give a mapping such as "
            f'{{"cell": {type(value).__name__}(...)}}'
        )
    given.setdefault(kind, []).append(Component(name, lambda options, **sizes: value))
    return {"use": f"{_GIVEN}:{name}"}


def _builtin(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _builtin(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_builtin(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value
