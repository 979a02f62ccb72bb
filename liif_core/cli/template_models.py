"""Working modules of whole models, degradations and model packs, for ``liif new-plugin``."""

MODEL = '''\
"""The model '$name'. Describe here what it computes, and where it was published.

This starting point describes the image by a plane for each pixel: a color, and how the color changes down and across.
"""

import torch
from attrs import frozen
from attrs.validators import ge
from torch import Tensor, nn

from liif_core import (
    Component,
    ContinuousImage,
    ContinuousModel,
    Query,
    TilePlacement,
    as_rows,
    gather,
    hookimpl,
    option,
)


@frozen
class ${title}Options:
    width: int = option("Channels of the convolutional network.", 32, check=ge(1))
    layers: int = option("3x3 convolutions of the network.", 3, check=ge(2))


class ${title}Image(ContinuousImage):
    """The planes of an image, or of a tile of one."""

    def __init__(self, planes: Tensor, placement: TilePlacement):
        self.size = placement.size  # of the whole image
        self.channels = planes.shape[1] // 3
        self.device = planes.device
        self.grid = planes.shape[-2], planes.shape[-1]
        self.corner = placement.top, placement.left  # of the tile, in the whole image
        self.rows = as_rows(planes)  # (B, h * w, 3 * channels)

    def query(self, where: Query | Tensor, cell: Tensor | None = None, statistics: tuple[Tensor, ...] = ()) -> Tensor:
        if not isinstance(where, Query):
            if cell is None:
                raise ValueError("cell: needed with coordinates: the height and width of the queried pixels")
            where = Query.points(where.to(self.device), cell.to(self.device))
        coord = where.coord.clamp(-1, 1)  # (B, *Q, 2)
        size, grid, corner = (coord.new_tensor(pair) for pair in (self.size, self.grid, self.corner))
        position = ((coord + 1) * size - 1) / 2  # in pixels: 0 is the center of the first row and column
        pixel = torch.minimum(position.round().clamp(min=0), size - 1)  # the nearest one
        own = torch.minimum((pixel - corner).clamp(min=0), grid - 1)  # the same one, in the tile
        row, column = own.long().unbind(-1)
        planes = gather(self.rows, (row * self.grid[1] + column).unsqueeze(0))[0]  # (B, *Q, 3 * channels)
        color, down, across = planes.chunk(3, dim=-1)
        offset = position - pixel
        return color + down * offset[..., :1] + across * offset[..., 1:]

    def held_bytes(self) -> int:
        return self.rows.nbytes


class $title(ContinuousModel):
    """Image (B, channels, h, w) in [0, 1] -> a plane for each pixel."""

    multiple_of = 1  # tiles may begin at any pixel
    num_statistics = 0  # a color does not depend on other queries

    def __init__(self, options: ${title}Options, channels: int):
        super().__init__()
        self.channels = channels
        self.halo = options.layers + 1  # pixels, in each direction, that a color depends on; None: the whole image
        widths = [channels, *[options.width] * (options.layers - 1)]
        self.body = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(widths, widths[1:]))
        self.last = nn.Conv2d(options.width, 3 * channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)  # so that training starts from the pixels' own colors
        nn.init.zeros_(self.last.bias)

    def encode(self, image: Tensor, placement: TilePlacement | None = None) -> ${title}Image:
        self.check_image(image)
        hidden = image.float() * 2 - 1
        for layer in self.body:
            hidden = layer(hidden).relu()
        color, down, across = self.last(hidden).float().chunk(3, dim=1)
        planes = torch.cat([image + color, down, across], dim=1)
        return ${title}Image(planes, placement or TilePlacement((image.shape[-2], image.shape[-1]), 0, 0))


def described(options: ${title}Options) -> str:
    """The component in a report."""
    return f"$name {options.layers}x{options.width}"


@hookimpl
def liif_models():
    return Component("$name", $title, ${title}Options, described)
'''

DEGRADATION = '''\
"""The degradation '$name'. Describe here what it does, and where it was published.

This starting point downscales with Pillow's bicubic filter and adds Gaussian noise of a random strength.
"""

import numpy as np
from attrs import frozen

from liif_core import Component, bicubic, hookimpl, option


@frozen
class ${title}Options:
    noise: tuple[float, float] = option("Lowest and highest standard deviation of the noise, in 0..255.", (0.0, 10.0))

    def __attrs_post_init__(self) -> None:
        low, high = self.noise
        if not 0 <= low <= high:
            raise ValueError(f"noise: expected 0 <= lowest <= highest, got {list(self.noise)}")


class $title:
    """HR crop (H, W, c) uint8 -> LR patch (h, w, c) uint8. Every random draw comes from ``rng``."""

    def __init__(self, options: ${title}Options):
        self.noise = options.noise

    def __call__(self, image: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        small = bicubic(image, size)
        noisy = small + rng.normal(0.0, rng.uniform(*self.noise), small.shape)
        return noisy.round().clip(0, 255).astype(np.uint8)


@hookimpl
def liif_degradations():
    return Component("$name", $title, ${title}Options)
'''

MODEL_PACK = '''\
"""The model pack '$distribution'. Describe here what its model is good for.

``train.py`` writes the checkpoint and, beside it, its size, its SHA-256 and its scores.
"""

import json
from pathlib import Path

from liif_core import NamedModel, hookimpl

CHECKPOINT = Path(__file__).with_name("$name.safetensors").absolute()
MEASURED = json.loads(CHECKPOINT.with_suffix(".json").read_text(encoding="utf-8"))  # sha256, size and scores


@hookimpl
def liif_model_packs():
    return NamedModel(
        name="$name",
        description="An untrained model. Replace it, and this sentence.",
        license="CC0-1.0",
        training_data="nothing yet",
        file=CHECKPOINT,  # or url="https://...", for a checkpoint that is downloaded when it is first used
        **MEASURED,
    )
'''

PACK_TEST = """\
import hashlib

import liif_core
import torch
from $module import liif_model_packs

MODEL = liif_model_packs()


def test_the_checkpoint_is_the_one_that_the_pack_describes():
    data = MODEL.file.read_bytes()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (MODEL.size, MODEL.sha256)


def test_the_model_upscales():
    image = torch.rand(3, 8, 10)
    large = liif_core.load(MODEL.file).upscale(image, scale=2.5)
    assert large.shape == (3, 20, 25) and large.isfinite().all()
"""

TRAIN = '''\
"""Put a checkpoint into the package: ``python train.py`` trains the model of $name.toml, ``python train.py CHECKPOINT``
takes a checkpoint that exists.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
RUN = HERE / "run"
CHECKPOINT = HERE / "$module" / "$name.safetensors"


def test(result: dict) -> str:
    """The data set and the scale of a result, such as "Set5 x2" or "Set5 x2,3"."""
    scale = result["scale"]
    return f"{result['dataset']} x{','.join(map(str, scale)) if isinstance(scale, list) else scale}"


chosen, results = RUN / "checkpoints" / "best.safetensors", []
if len(sys.argv) > 1:
    chosen = Path(sys.argv[1])
else:
    command = ["run", HERE / "$name.toml", "--out", RUN, "--resume"]  # an interrupted run is continued
    if subprocess.run([sys.executable, "-m", "liif_core", *command]).returncode:
        sys.exit("the training failed; the pack is unchanged")
    results = json.loads((RUN / "report.json").read_text(encoding="utf-8"))["results"]
shutil.copyfile(chosen, CHECKPOINT)
measured = {
    "sha256": hashlib.sha256(CHECKPOINT.read_bytes()).hexdigest(),
    "size": CHECKPOINT.stat().st_size,
    "scores": {test(result): round(result["psnr"], 2) for result in results},
}
CHECKPOINT.with_suffix(".json").write_text(json.dumps(measured, indent=2) + "\\n", encoding="utf-8")
print(f"written: {CHECKPOINT} and {CHECKPOINT.with_suffix('.json').name}")
'''
