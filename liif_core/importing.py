"""Helpers for importers of published checkpoints, which convert published arguments and state dicts to ours."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

State = dict[str, Tensor]

MOST_LAYERS = 10_000  # that are counted without looking at the file


def renamed(state: Mapping[str, Tensor], names: Mapping[str, str], owner: str) -> State:
    """A published state dict with our names. ``names`` maps published layers or single parameters to our names.

    Raises ValueError, which names ``owner``, for a parameter that ``names`` does not cover.
    """
    result = {}
    for name, value in state.items():
        layer, _, part = name.rpartition(".")
        if name in names:
            result[names[name]] = value
        elif layer in names:
            result[f"{names[layer]}.{part}"] = value
        else:
            raise ValueError(f"{owner} has no parameter for {name!r}")
    return result


def taken(state: State, name: str, owner: str) -> Tensor:
    """Remove a parameter from ``state`` and return it. Raises ValueError, which names ``owner``, if it is missing."""
    if name not in state:
        raise ValueError(f"{owner} has a parameter {name!r}, which is missing")
    return state.pop(name)


def check_layers(count: int, state: Mapping[str, Tensor], owner: str) -> None:
    """Raises ValueError, which names ``owner``, for very many layers, and more than the file has parameters.

    Call it before a loop over the number of layers that published arguments state. Of fewer layers, the import itself
    names the parameter that is missing.
    """
    if count > max(len(state), MOST_LAYERS):
        raise ValueError(f"{owner} of {count:,} layers or more has more parameters than the {len(state)} in the file")


def take_encoder(
    arguments: Mapping[str, Any], state: Mapping[str, Tensor], encoder: Callable[..., tuple[dict[str, Any], State]]
) -> tuple[dict[str, Any], State, State]:
    """Convert the encoder of a published model.

    ``encoder`` is the third argument of an importer's ``convert``. Returns the ``[model.encoder]`` table, the encoder's
    state with our names, and the rest of the published state.
    """
    part = {k.removeprefix("encoder."): value for k, value in state.items() if k.startswith("encoder.")}
    table, converted = encoder(arguments["encoder_spec"], part)
    rest = {k: value for k, value in state.items() if not k.startswith("encoder.")}
    return table, {f"encoder.{k}": value for k, value in converted.items()}, rest


def mlp_widths(arguments: Mapping[str, Any], network: str) -> list[int]:
    """The hidden widths of a published MLP named ``network``, such as "imnet". Raises ValueError if it is no MLP."""
    spec = arguments[f"{network}_spec"]
    if spec["name"] != "mlp":
        raise ValueError(f"{network} {spec['name']!r}: only 'mlp' is known")
    return list(spec["args"]["hidden_list"])


def mlp_names(state: Mapping[str, Tensor], published: str, ours: str) -> dict[str, str]:
    """Names for ``renamed``: the linear layers of a published MLP, whose numbering includes its activations."""
    layers = {name.removeprefix(f"{published}.").split(".")[0] for name in state if name.startswith(f"{published}.")}
    return {f"{published}.{n}": f"{ours}.{int(n) // 2}" for n in layers if n.isdecimal() and int(n) % 2 == 0}
