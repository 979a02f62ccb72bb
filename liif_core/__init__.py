"""liif-core: continuous image models, composed of plugins.

The public names, loaded when first used, so that ``liif --help`` need not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "data.degrade": ["Degradation"],
    "data.resize": ["bicubic"],
    "errors": ["UserError"],
    "evaluation.metrics": ["psnr", "ssim"],
    "experiment.build": ["build_model"],
    "experiment.schema": ["Experiment"],
    "experiment.toml_file": ["load_experiment"],
    "model.continuous": ["ContinuousImage", "ContinuousModel", "TilePlacement"],
    "models.loading": ["load"],
    "model.geometry": ["make_coord", "to_pixel_samples"],
    "model.protocols": [
        "Conditioning", "Decoder", "Encoder", "Features", "GlobalDecoder", "Known", "LatentField", "Maps", "Query", "Sampling", "Sites",
        "as_rows", "blend", "gather",
    ],
    "registry.components": ["Component", "Importer", "NamedModel", "NoOptions", "Registry", "option"],
    "registry.discovery": ["discover"],
    "registry.listing": ["list_plugins"],
    "registry.hookspecs": ["API_VERSION", "hookimpl", "hookspec"],
    "sizes": ["Scale", "scaled_size"],
    "training.checkpoint": ["load_checkpoint", "save_checkpoint"],
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}
__all__ = sorted(_MODULE_OF)

if TYPE_CHECKING:
    from liif_core.errors import UserError


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'liif_core' has no attribute {name!r}")
    value = getattr(import_module(f"liif_core.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
