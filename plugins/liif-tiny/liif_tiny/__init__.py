"""A model pack with one very small model, whose checkpoint is a file of the distribution.

``train.py`` writes the checkpoint and, beside it, its size, its SHA-256 and its scores.
"""

import json
from pathlib import Path

from liif_core import NamedModel, hookimpl

CHECKPOINT = Path(__file__).with_name("edsr-liif-tiny.safetensors").absolute()
MEASURED = json.loads(CHECKPOINT.with_suffix(".json").read_text(encoding="utf-8"))  # sha256, size and scores


@hookimpl
def liif_model_packs():
    return NamedModel(
        name="edsr-liif-tiny",
        description="EDSR 4x16 with LIIF 32-32, for examples and quick trials: a little better than bicubic.",
        license="CC0-1.0",
        training_data="the photographs 'astronaut', 'coffee' and 'rocket' of scikit-image, for a minute",
        source="https://pypi.org/project/liif-core/",
        file=CHECKPOINT,
        **MEASURED,
    )
