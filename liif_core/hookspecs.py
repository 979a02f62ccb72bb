"""The extension points. A plugin is a module that implements some of these and is named by an entry point in the
group ``liif_core.plugins``."""

import pluggy

from liif_core.registry import Component, Importer

API_VERSION = 2  # of these hooks and the contracts; entry points in "liif_core.plugins.v2" say they were made for it
hookspec = pluggy.HookspecMarker("liif_core")
hookimpl = pluggy.HookimplMarker("liif_core")


@hookspec
def liif_encoders() -> Component | list[Component]:
    """Encoders: image -> features. See ``liif_core.protocols.Encoder``."""


@hookspec
def liif_features() -> Component | list[Component]:
    """Features: encoder output -> latent field. See ``liif_core.protocols.Features``."""


@hookspec
def liif_samplings() -> Component | list[Component]:
    """Samplings: query -> the codes it reads. See ``liif_core.protocols.Sampling``."""


@hookspec
def liif_conditionings() -> Component | list[Component]:
    """Conditionings: query -> what the decoder is told. See ``liif_core.protocols.Conditioning``."""


@hookspec
def liif_decoders() -> Component | list[Component]:
    """Decoders: codes and conditions -> colours. See ``liif_core.protocols.Decoder``."""


@hookspec
def liif_importers() -> Importer | list[Importer]:
    """Importers: published checkpoints -> our compositions. See ``liif_core.registry.Importer``."""
