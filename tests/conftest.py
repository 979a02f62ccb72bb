"""Fixtures that tests share. Shapes in annotations are checked while the tests run (see ``shape_checker``)."""

# ruff: noqa: E402
import os
from pathlib import Path
from types import SimpleNamespace

if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):  # before torch is imported
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

import shape_checker

shape_checker.install()  # before the modules that it checks are imported

import pytest
import torch
from hypothesis import settings
from small_experiment import SMALL

import liif_core
from liif_core import UserError, hookimpl, load_experiment
from liif_core.registry.components import Origin
from liif_core.registry.discovery import add_plugin

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


@pytest.fixture(scope="session", autouse=True)
def alexnet(tmp_path_factory) -> Path:
    """Random weights of AlexNet, where LPIPS finds them: tests download nothing."""
    home = tmp_path_factory.mktemp("torch-home")
    path = home / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    path.parent.mkdir(parents=True)
    random = torch.Generator().manual_seed(5)
    sides = ((64, 3, 11), (192, 64, 5), (384, 192, 3), (256, 384, 3), (256, 256, 3))
    state = {}
    for number, (outputs, inputs, side) in zip((0, 3, 6, 8, 10), sides):
        deviation = (2 / (inputs * side**2)) ** 0.5
        weight = torch.randn(outputs, inputs, side, side, generator=random) * deviation
        state |= {f"features.{number}.weight": weight, f"features.{number}.bias": torch.zeros(outputs)}
    for number, (outputs, inputs) in zip((1, 4, 6), ((4096, 9216), (4096, 4096), (1000, 4096))):  # not used; one number
        zero = torch.zeros(1)
        state |= {f"classifier.{number}.weight": zero.expand(outputs, inputs)}
        state |= {f"classifier.{number}.bias": zero.expand(outputs)}
    torch.save(state, path)
    os.environ["TORCH_HOME"] = str(home)
    return path


def pytest_xdist_auto_num_workers() -> int:
    """The processes that run the tests: one for each core, but not more than memory is likely to be there for."""
    return min(4, os.cpu_count() or 1)


@pytest.fixture
def gpu() -> torch.device:
    """A CUDA device, or a skip."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    return torch.device("cuda")


@pytest.fixture
def plugin_of():
    """Makes a plugin of hooks and what each returns: ``plugin_of(liif_encoders=[Component(...)])``."""

    def make(**hooks):
        def implementation(offered):
            return hookimpl(lambda: offered)

        return SimpleNamespace(**{name: implementation(offered) for name, offered in hooks.items()})

    return make


@pytest.fixture
def extended(registry, plugin_of):
    """The installed plugins and one more: ``extended(liif_encoders=[Component(...)])``."""
    return lambda **hooks: add_plugin(registry, plugin_of(**hooks), Origin("test = test", "test-plugin", "1.2.3"))


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.fixture
def problems(registry, tmp_path):
    """The lines of the error for a text or bytes, without the file's name."""

    def read(text, **options):
        path = tmp_path / "wrong.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(UserError) as refused:
            load_experiment(path, registry, **options)
        lines = refused.value.problems
        assert lines and all(isinstance(line, str) and line for line in lines)
        return [line.removeprefix(f"{path}: ") for line in lines]

    return read


@pytest.fixture
def overridden(registry, small):
    """The lines of the error for SMALL with some ``--set`` overrides."""

    def read(*overrides):
        with pytest.raises(UserError) as refused:
            load_experiment(small, registry, overrides=overrides)
        return [line.removeprefix(f"{small}: ") for line in refused.value.problems]

    return read
