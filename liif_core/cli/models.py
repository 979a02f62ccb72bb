"""``liif models``: the trained models that are installed or can be fetched."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from liif_core.cli.inventory import broken_lines, model_data
from liif_core.errors import UserError
from liif_core.models.cache import path_of
from liif_core.models.packs import by_hand, find_model, named, state_of
from liif_core.registry.components import Registry
from liif_core.registry.discovery import discover
from liif_core.registry.listing import ModelInfo, list_plugins
from liif_core.registry.named_models import NamedModel

_HEADINGS = ("name", "size", "license", "state", "trained on", "PSNR in dB")
_SCORES_IN_TABLE = 3  # of a model; 'info' shows all
_ADVICE = {
    "to fetch": "It is downloaded when it is first used, or by 'liif models fetch {use}'. By hand: {by_hand}.",
    "damaged": "The file is not the expected one ({expected}): {again}.",
    "missing": "The file is missing: {again}.",
}


def models_text() -> str:
    """``liif models``: a table, then plugins that could not be loaded."""
    registry = discover()
    listed = list_plugins(registry)
    rows = [_row(name, info.model) for name, info in _named(listed.models, registry)]
    lines = list(_table([_HEADINGS, *rows])) if rows else ["no trained models are installed"]
    return "\n".join([*lines, *broken_lines(listed)])


def models_json() -> str:
    """``liif models --json``: an array."""
    registry = discover()
    found = _named(list_plugins(registry).models, registry)
    return json.dumps([_data(name, info, exact=False) for name, info in found], indent=2)


def info_text(name: str) -> str:
    """``liif models info NAME``. The file, if it is on this machine, is checked. Raises UserError for other names."""
    registry = discover()
    model, origin = named(name, registry)
    use, state = _use(model.name, origin.distribution, registry), state_of(model, exact=True)
    lines = [f"{use}  ({origin})", *([f"    {model.description}"] if model.description else []), ""]
    lines += [f"license: {model.license}", f"trained on: {model.training_data}"]
    lines += [f"published at: {model.source}"] if model.source else []
    lines += [f"size: {model.size:,} bytes", f"sha256: {model.sha256}"]
    lines += [] if model.file else [f"downloaded from: {model.origin}"]
    lines += [f"file: {path_of(model)}", f"state: {state}"]
    if state in _ADVICE:
        again = f"install {origin.distribution} again" if model.file else f"run 'liif models fetch {use}'"
        lines += [f"    {_advice(state, model, use, again)}"]
    lines += ["", "PSNR in dB:", *(f"    {test}: {value:.2f}" for test, value in model.scores.items())]
    return "\n".join(lines if model.scores else lines[:-2])


def _advice(state: str, model: NamedModel, use: str, again: str) -> str:
    how = by_hand(model) if model.file is None else ""
    return _ADVICE[state].format(use=use, by_hand=how, expected=f"sha256 {model.sha256}", again=again)


def info_json(name: str) -> str:
    """The same for tools: an object."""
    registry = discover()
    model, origin = named(name, registry)
    info = ModelInfo(model.name, origin.distribution, origin.version, model)
    return json.dumps(_data(_use(model.name, origin.distribution, registry), info, exact=True), indent=2)


def fetch(names: Sequence[str], say: Callable[[str], None]) -> None:
    """``liif models fetch``: all names are looked up before anything is downloaded. Raises UserError."""
    registry = discover()
    for name in names:
        named(name, registry)
    for name in names:
        before = state_of(named(name, registry)[0])
        say(f"{name}: {find_model(name, registry)}{' (already here)' if before in ('installed', 'fetched') else ''}")


def path_text(name: str) -> str:
    """``liif models path NAME``. Raises UserError where the file is not on this machine, or not the right one."""
    registry = discover()
    model, _ = named(name, registry)
    if state_of(model) == "to fetch":
        raise UserError(f"model {name!r} is not on this machine: 'liif models fetch {name}' downloads it")
    if model.file is None and state_of(model, exact=True) == "damaged":
        raise UserError(f"{path_of(model)}: not the expected file: 'liif models fetch {name}' downloads it again")
    return str(find_model(name, registry))


def _named(models: Sequence[ModelInfo], registry: Registry) -> list[tuple[str, ModelInfo]]:
    """Every model with the name that selects it."""
    return [(_use(info.name, info.distribution, registry), info) for info in models]


def _use(name: str, distribution: str, registry: Registry) -> str:
    return name if name in registry.model_names() else f"{distribution}:{name}"


def _data(name: str, info: ModelInfo, exact: bool) -> dict[str, Any]:
    state = state_of(info.model, exact)
    return {**model_data(info), "name": name, "state": state, "path": str(path_of(info.model))}


def _row(name: str, model: NamedModel) -> tuple[str, ...]:
    size = f"{model.size / 1e6:.1f} MB"
    return name, size, model.license, state_of(model), model.training_data, _scores(model.scores)


def _scores(scores: Mapping[str, float]) -> str:
    shown = [f"{test} {value:.2f}" for test, value in list(scores.items())[:_SCORES_IN_TABLE]]
    return ", ".join(shown + ["..."] if len(scores) > len(shown) else shown)


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns that are aligned to the left, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip()
