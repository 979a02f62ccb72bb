"""Published checkpoints as ``[model]`` tables and weights of ours, through the importers of plugins."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from liif_core.errors import UserError, cut
from liif_core.registry.components import Registry
from liif_core.training.fitting import check_finite, check_tensors
from liif_core.training.published import check_arguments, read_published

_Converted = tuple[dict[str, Any], Mapping[str, Tensor]]  # the [model] table, and the weights with our names


def convert_published(path: Path, registry: Registry) -> _Converted:
    """The ``[model]`` table and the weights of a published file or folder.

    Raises UserError for one that is damaged, that no plugin imports, or whose weights are NaN or infinite.
    """
    content = read_published(path)

    def encoder(spec: Mapping[str, Any], part: Mapping[str, Tensor]) -> Any:
        return registry.importer("encoder", spec["name"]).convert(spec.get("args", {}), part)

    found = _model(content, path, registry, encoder) or _file(content, path, registry, encoder)
    if found is None:
        known = sorted(item.name for item, _ in registry.importers if item.part == "file")
        forms = f", or a checkpoint as {', '.join(known)} are published" if known else ""
        raise UserError(f"{path}: not a published checkpoint: expected {{'model': {{'name', 'args', 'sd'}}}}{forms}")
    check_tensors(found[1], str(path))
    check_finite(found[1], str(path))
    return found


def _model(content: Any, path: Path, registry: Registry, encoder: Any) -> _Converted | None:
    """What LIIF's form of a checkpoint holds. None for another form."""
    try:
        name, arguments, state = (content["model"][key] for key in ("name", "args", "sd"))
    except (KeyError, TypeError, IndexError, ValueError, RuntimeError, AttributeError):
        return None
    if not (isinstance(name, str) and isinstance(state, Mapping)):
        raise UserError(f"{path}: not a published checkpoint: expected a name and a mapping of weights in 'model'")
    check_tensors(state, str(path))

    def convert() -> Any:
        check_arguments(arguments, state)
        return registry.importer("model", name).convert(arguments, state, encoder)

    found: _Converted | None = _converted(convert, path, name)
    return found


def _file(content: Any, path: Path, registry: Registry, encoder: Any) -> _Converted | None:
    """What the first importer of files that knows the content makes of it. None if there is no such importer."""
    for importer, _ in registry.importers:
        if importer.part != "file":
            continue
        convert = partial(importer.convert, content, encoder)
        found: _Converted | None = _converted(convert, path, importer.name)
        if found is not None:
            return found
    return None


def _converted(convert: Any, path: Path, name: str) -> Any:
    try:
        return convert()
    except UserError as error:
        raise UserError(*(f"{path}: {line}" for line in error.problems)) from None
    except (Exception, SystemExit) as error:  # of a plugin
        reason = f"{type(error).__name__}: {cut(error, 1000)}"
        raise UserError(f"{path}: cannot be imported as {cut(name)!r}: {reason}") from None
