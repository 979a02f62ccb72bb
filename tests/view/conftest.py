"""Pictures and models that are viewed."""

from pathlib import Path

import pytest
from PIL import Image
from reference import small_model
from viewing import MEMORY

from liif_core.view.gallery import NamedModel
from liif_core.view.opening import entry_of


@pytest.fixture(scope="session")
def model(registry):
    return small_model(registry, residual="bilinear")


@pytest.fixture(scope="session")
def second_model(registry):
    return small_model(registry, residual="bilinear", hidden=(8,), seed=3)


@pytest.fixture
def entry(model, tmp_path):
    """Makes the entry of pixels, or of a file."""

    def make(pixels, name="picture.png", models=None, **options):
        path = pixels if isinstance(pixels, Path) else tmp_path / Path(name).name
        if not isinstance(pixels, Path):
            (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **options)
        models = [NamedModel("small", model)] if models is None else models
        return {name: entry_of(name, path, models, MEMORY)}

    return make
