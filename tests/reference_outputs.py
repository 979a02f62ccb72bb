"""Reference outputs of published implementations, and the plain formulas that benchmarks are timed with."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

import liif_core

ROOT = Path(__file__).parents[1]


def module_at(path: Path) -> ModuleType:
    """The module of a file that is not on the path."""
    specification = importlib.util.spec_from_file_location(f"file_{path.stem}", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def formulas_of(family: str) -> ModuleType:
    """benchmarks/formulas_FAMILY.py."""
    return module_at(ROOT / "benchmarks" / f"formulas_{family}.py")


def stored(path: Path) -> dict[str, Tensor]:
    """The arrays of an .npz file."""
    with np.load(path) as arrays:
        return {name: torch.tensor(arrays[name]) for name in arrays.files}


def outputs_of(shared: Path, name: str, suffix: str = ".pth") -> tuple[Path, dict[str, Tensor]]:
    """A published checkpoint, a file or a folder, and its reference outputs."""
    folder = shared / "golden"
    return folder / f"{name}{suffix}", stored(folder / f"{name}.npz")


def expect_the_same_once_saved(path: Path, data: dict[str, Tensor], grids: list[str], registry, folder: Path) -> None:
    """A published checkpoint that is saved as one of ours renders the same pictures, bit for bit."""
    liif_core.save_checkpoint(folder / "ours.safetensors", liif_core.load_checkpoint(path, registry))
    with torch.no_grad():
        ours, theirs = (liif_core.load(file).encode(data["inp"]) for file in (folder / "ours.safetensors", path))
        for grid in grids:
            size = tuple(data[f"size_{grid}"].tolist())
            assert torch.equal(ours.render(size), theirs.render(size))
