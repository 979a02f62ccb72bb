"""The checkpoint is the one that the pack describes, was made by its experiment, and reaches its scores."""

import hashlib
import math
import tomllib
from pathlib import Path

import pytest
import torch
from liif_tiny import liif_model_packs

import liif_core

MODEL = liif_model_packs()


def test_the_checkpoint_is_the_one_that_the_pack_describes():
    data = MODEL.file.read_bytes()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (MODEL.size, MODEL.sha256)
    assert len(data) < 200_000


def test_the_experiment_in_the_checkpoint_is_the_one_beside_it():
    with open(Path(__file__).parents[1] / "edsr-liif-tiny.toml", "rb") as file:
        stated = tomllib.load(file)
    made_by = liif_core.load_checkpoint(MODEL.file).experiment
    for table in ("model", "data", "train"):
        assert _within(stated[table], made_by[table]) == []
    assert f"photographs {', '.join(map(repr, stated['data']['images']['names'][:-1]))}" in MODEL.training_data


def _within(stated, found):
    """The values of nested tables that ``found`` does not have."""
    if isinstance(stated, dict) and isinstance(found, dict):
        return [key for name, value in stated.items() for key in _within(value, found.get(name)) or []]
    return [] if stated == found else [(stated, found)]


@torch.no_grad()
def test_the_model_upscales():
    model = liif_core.load(MODEL.file)
    image = torch.rand(3, 8, 10)
    large = model.upscale(image, scale=2.5)
    assert large.shape == (3, 20, 25) and large.isfinite().all()
    assert model.trained_scale == (1.0, 4.0)


def test_the_scores_are_reached_and_beat_bicubic():
    data = pytest.importorskip("skimage.data")
    image = data.chelsea()[:, :450]
    low = liif_core.bicubic(image, (150, 225))
    found, bicubic = (
        psnr(large, image)
        for large in (liif_core.load(MODEL.file).upscale(low, scale=2), liif_core.bicubic(low, (300, 450)))
    )
    assert found == pytest.approx(MODEL.scores["chelsea x2"], abs=0.05) and found > bicubic + 0.5


def psnr(found, expected):
    error = (found.astype(float) - expected).clip(-255, 255)
    return 20 * math.log10(255 / math.sqrt((error**2).mean()))
