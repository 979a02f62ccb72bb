"""The peak memory of work on a CPU, as Linux tells it."""

from pathlib import Path

import pytest
import torch

from liif_core.evaluation import memory
from liif_core.evaluation.memory import peak_memory

CPU = torch.device("cpu")
linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures memory by Linux's /proc")


def filled(megabytes):
    return torch.ones(megabytes * 250_000)


@linux
def test_the_peak_and_not_what_is_left_or_was_before():
    kept = filled(200)

    def work():
        filled(300).sum()
        filled(100).sum()

    assert 299e6 <= peak_memory(CPU, work) <= 330e6  # Linux counts pages a few at a time
    assert kept.sum() == len(kept)


@linux
def test_memory_that_was_freed_is_counted_again():
    small = [torch.ones(1000) for _ in range(50_000)]  # 200 MB in pieces that the C library keeps when they are freed
    assert len(small) == 50_000
    del small
    found = peak_memory(CPU, lambda: [torch.ones(1000) for _ in range(50_000)])
    assert 195e6 <= found <= 300e6


@linux
def test_less_work_needs_less():
    found = [peak_memory(CPU, lambda size=size: filled(size).sum()) for size in (400, 50, 200)]
    assert found[1] < found[2] < found[0]


def test_where_it_cannot_be_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_PROCESS", tmp_path / "none")
    assert peak_memory(CPU, lambda: pytest.fail("was run")) is None
    assert peak_memory(torch.device("mps"), lambda: pytest.fail("was run")) is None


def test_on_a_gpu(gpu):
    def work():
        torch.ones(25_000_000, device=gpu).sum()

    assert 100e6 <= peak_memory(gpu, work) <= 110e6
