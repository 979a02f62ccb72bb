"""liif-core: continuous image models, composed of plugins.

The public names, loaded when first used, so that ``liif --help`` need not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "checkpoint": ["load", "load_checkpoint", "save_checkpoint"],
    "continuous": ["ContinuousImage", "ContinuousModel"],
    "errors": ["UserError"],
    "experiment": ["Experiment"],
    "experiment_file": ["load_experiment"],
    "geometry": ["Scale", "make_coord", "scaled_size", "to_pixel_samples"],
    "hookspecs": ["API_VERSION", "hookimpl", "hookspec"],
    "model": ["build_model"],
    "plugins": ["discover"],
    "protocols": [
        "Conditioning", "Decoder", "Encoder", "Features", "LatentField", "Maps", "Query", "Sampling", "SetDecoder", "Sites",
        "as_rows", "blend", "gather",
    ],
    "registry": ["Component", "Importer", "NoOptions", "Registry", "option"],
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}
__all__ = sorted(_MODULE_OF)

if TYPE_CHECKING:
    from liif_core.checkpoint import load, load_checkpoint, save_checkpoint
    from liif_core.continuous import ContinuousImage, ContinuousModel
    from liif_core.errors import UserError
    from liif_core.experiment import Experiment
    from liif_core.experiment_file import load_experiment
    from liif_core.geometry import Scale, make_coord, scaled_size, to_pixel_samples
    from liif_core.hookspecs import API_VERSION, hookimpl, hookspec
    from liif_core.model import build_model
    from liif_core.plugins import discover
    from liif_core.protocols import (
        Conditioning,
        Decoder,
        Encoder,
        Features,
        LatentField,
        Maps,
        Query,
        Sampling,
        SetDecoder,
        Sites,
        as_rows,
        blend,
        gather,
    )  # fmt: skip
    from liif_core.registry import Component, Importer, NoOptions, Registry, option


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'liif_core' has no attribute {name!r}")
    value = getattr(import_module(f"liif_core.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
