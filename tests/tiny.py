"""A tiny experiment that trains in seconds, for tests of whole runs."""

from pathlib import Path

import numpy as np
from PIL import Image

TOML = """
name = "tiny"

[model]
residual = "bilinear"
[model.encoder]
use = "edsr"
blocks = 1
channels = 8
[model.features]
use = "unfold"
[model.sampling]
use = "local-ensemble"
[[model.conditioning]]
use = "coordinate"
[[model.conditioning]]
use = "cell"
[model.decoder]
use = "mlp"
hidden = [16]

[data]
images = { source = "folder", path = "images" }
patch = 8
queries = 64
repeat = 3

[train]
epochs = 2
batch_size = 4
optimizer = { lr = 1e-3 }

[validate]
images = { source = "folder", path = "images", limit = 1 }
scale = 2

[[evaluate]]
name = "folder"
images = { source = "folder", path = "images", limit = 2 }
scales = [2, 2.5]
protocol = "rgb"

[run]
device = "cpu"
"""


def photographs(folder: Path, count: int = 4, size: tuple[int, int] = (48, 56)) -> Path:
    """Smooth random pictures with an edge or two, as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for i in range(count):
        small = Image.fromarray(random.integers(0, 256, (6, 7, 3), dtype=np.uint8))
        picture = np.asarray(small.resize(size[::-1], Image.Resampling.BICUBIC)).copy()
        picture[10 + i : 20 + 2 * i, 5:30] = random.integers(0, 256, 3)
        Image.fromarray(picture).save(folder / f"picture-{i}.png")
    return folder


def experiment_file(folder: Path, text: str = TOML) -> Path:
    """The experiment, with its images, in ``folder``."""
    photographs(folder / "images")
    path = folder / "tiny.toml"
    path.write_text(text)
    return path
