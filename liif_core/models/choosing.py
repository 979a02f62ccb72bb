"""Which model renders which file: the one that the user names, or an included model that fits the file."""

from collections.abc import Sequence
from pathlib import Path

import torch
from attrs import frozen

from liif_core.errors import UserError
from liif_core.images import lossy_format
from liif_core.model.continuous import ContinuousModel
from liif_core.models.loading import checkpoint_path, load_file
from liif_core.models.packs import find_model
from liif_core.registry.components import Registry
from liif_core.registry.sources import OWN

LOSSY, LOSSLESS = "photo", "clean"  # the included models for files compressed with losses, and for all others
_OTHERWISE = "--model or --checkpoint chooses another"


@frozen
class Choice:
    """The name of the model of each file, the checkpoint of each name, and for included models a line that says why."""

    names: list[str]
    paths: dict[str, Path]
    registry: Registry
    reason: str = ""

    def load(self, device: torch.device) -> dict[str, ContinuousModel]:
        """Every model once, by name. Raises UserError as ``liif_core.load`` does."""
        return {name: load_file(path, name, self.registry, device) for name, path in self.paths.items()}


def choose(sources: Sequence[Path], checkpoint: Path | None, model: str | None, registry: Registry) -> Choice:
    """The models for these files: ``checkpoint``, a path or name, or the name ``model``, or included ones.

    Raises UserError for a name that is unknown, a file that is not the expected one, and where an included model is
    needed that this liif-core does not have.
    """
    if checkpoint is not None or model is not None:
        name = str(checkpoint) if model is None else model
        path = find_model(model, registry) if model is not None else checkpoint_path(name, registry)
        return Choice([name] * len(sources), {name: path}, registry)
    formats = [lossy_format(source) for source in sources]
    names = [LOSSY if format else LOSSLESS for format in formats]
    needed = sorted(set(names), key=names.index)
    _check_included(needed, sources, names, registry)
    paths = {name: find_model(f"{OWN}:{name}", registry) for name in needed}
    return Choice(names, paths, registry, _reason(sources, formats))


def _check_included(needed: list[str], sources: Sequence[Path], names: list[str], registry: Registry) -> None:
    offered = {model.name for model, origin in registry.models if origin.distribution == OWN}
    missing = [name for name in needed if name not in offered]
    if missing:
        which = " or ".join(f"{name!r} (for {sources[names.index(name)]})" for name in missing)
        raise UserError(
            f"expected --checkpoint FILE or --model NAME: this version of {OWN} includes no model named {which}; "
            "'liif models' lists the models that are installed or can be fetched"
        )


def _reason(sources: Sequence[Path], formats: Sequence[str]) -> str:
    lossy = [format for format in formats if format]
    listed = ", ".join(sorted(set(lossy)))
    if len(formats) == 1:
        why = f"is compressed with losses ({listed})" if lossy else "is not compressed with losses"
        return f"model {LOSSY if lossy else LOSSLESS!r}: {sources[0]} {why}; {_OTHERWISE}"
    others = len(formats) - len(lossy)
    parts = [f"model {LOSSY!r} for {_files(len(lossy))} compressed with losses ({listed})"] if lossy else []
    parts += [f"model {LOSSLESS!r} for {_files(others)} without such losses"] if others else []
    return f"{', '.join(parts)}; {_OTHERWISE}" if parts else ""


def _files(count: int) -> str:
    return f"{count} file{'s' * (count != 1)}"
