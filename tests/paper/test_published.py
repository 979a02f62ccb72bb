"""The published checkpoints that are offered by name."""

import hashlib
import re
from pathlib import Path

import pytest

import liif_core
from liif_paper.published import liif_model_packs

MODEL = liif_model_packs()


def test_it_is_the_published_checkpoint_and_loads_by_name(shared, tmp_path, monkeypatch):
    """Put into the cache by hand, it is not downloaded; its parts are all included."""
    published = shared / "checkpoints" / "edsr-baseline-liif.pth"
    if not published.is_file():
        pytest.skip("the published checkpoint is not on this machine")
    data = published.read_bytes()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (MODEL.size, MODEL.sha256)
    monkeypatch.setenv("LIIF_HOME", str(tmp_path))
    kept = tmp_path / "models" / f"edsr-baseline-liif-{MODEL.sha256[:12]}.pth"
    kept.parent.mkdir()
    kept.write_bytes(data)
    model = liif_core.load("edsr-baseline-liif")
    assert model.channels == 3 and sum(p.numel() for p in model.parameters()) == 1_567_299


def test_its_scores_are_those_of_the_documentation():
    text = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| EDSR-baseline-LIIF, here \| (.*) \|$", text, re.M)
    assert [f"{value:.2f}" for value in MODEL.scores.values()] == row.split(" | ")
    assert list(MODEL.scores) == [f"Set5 x{scale}" for scale in (2, 3, 4, 6, 8)]
