"""The hooks. A plugin is a module that implements some of them and that an entry point names.

The group of the entry point is ``liif_core.plugins.v3``: its number is the version of hooks and contracts that the
plugin was made for. A hook returns one item, a list of them, or None.
"""

import pluggy

from liif_core.registry.components import Component, Importer
from liif_core.registry.named_models import NamedModel

API_VERSION = 3  # of the hooks and the contracts
ENTRY_POINT_GROUP = f"liif_core.plugins.v{API_VERSION}"
hookspec = pluggy.HookspecMarker("liif_core")
hookimpl = pluggy.HookimplMarker("liif_core")


@hookspec
def liif_encoders() -> Component | list[Component] | None:
    """Encoders: image -> features. See ``liif_core.model.protocols.Encoder``."""


@hookspec
def liif_features() -> Component | list[Component] | None:
    """Features: encoder output -> latent field. See ``liif_core.model.protocols.Features``."""


@hookspec
def liif_samplings() -> Component | list[Component] | None:
    """Samplings: query -> the codes that it reads. See ``liif_core.model.protocols.Sampling``."""


@hookspec
def liif_conditionings() -> Component | list[Component] | None:
    """Conditionings: query -> conditions for the decoder. See ``liif_core.model.protocols.Conditioning``."""


@hookspec
def liif_decoders() -> Component | list[Component] | None:
    """Decoders: codes and conditions -> colors. See ``liif_core.model.protocols.Decoder``."""


@hookspec
def liif_models() -> Component | list[Component] | None:
    """Models that are not composed of the parts above. See ``liif_core.ContinuousModel``."""


@hookspec
def liif_degradations() -> Component | list[Component] | None:
    """Degradations: HR crop -> LR patch, for training. See ``liif_core.Degradation``."""


@hookspec
def liif_model_packs() -> NamedModel | list[NamedModel] | None:
    """Model packs: trained models by name. See ``liif_core.NamedModel``."""


@hookspec
def liif_importers() -> Importer | list[Importer] | None:
    """Importers: published checkpoints -> compositions. See ``liif_core.Importer``."""
