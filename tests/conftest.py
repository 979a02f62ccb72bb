"""What tests share."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

import liif_core

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The reference outputs, published weights and images that are not part of this repository."""
    path = Path(os.environ.get("LIIF_SHARED", Path(__file__).parents[2] / "shared"))
    if not (path / "golden").is_dir():
        pytest.skip(f"the reference files are not on this machine (looked in {path}; set LIIF_SHARED)")
    return path


@pytest.fixture(scope="session")
def registry() -> liif_core.Registry:
    """What the installed plugins offer."""
    return liif_core.discover()


@pytest.fixture
def gpu() -> torch.device:
    """A CUDA device, or a skip."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    return torch.device("cuda")
