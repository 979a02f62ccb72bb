"""The trained models that ship with liif-core: a checkpoint NAME.safetensors in this folder, and beside it NAME.json.

The JSON file has the other fields of ``liif_core.NamedModel``: ``sha256`` and ``size`` of the checkpoint, ``license``,
``training_data``, ``description``, ``source`` and ``scores``. ``liif upscale`` uses the models ``clean`` and ``photo``
by default, where they are present.
"""

import json
from pathlib import Path

from liif_core import NamedModel, hookimpl

FOLDER = Path(__file__).parent.absolute()


@hookimpl
def liif_model_packs():
    return [
        NamedModel(name=card.stem, file=card.with_suffix(".safetensors"), **json.loads(card.read_text("utf-8")))
        for card in sorted(FOLDER.glob("*.json"))
    ]
