"""Which device each of several processes has, on machines with and without GPUs."""

import pytest
import torch

from liif_core import UserError
from liif_core.cli.processes import device_of_process
from liif_core.distributed import ALONE, Processes


@pytest.fixture
def gpus(monkeypatch):
    """Pretend that so many GPUs are there; returns the numbers that ``torch.cuda.set_device`` was called with."""

    def pretend(count):
        chosen = []
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
        return chosen

    return pretend


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_each_process_has_the_gpu_of_its_local_rank(gpus, name):
    chosen = gpus(2)
    assert device_of_process(name, Processes(3, 4, local_rank=1, local_size=2)) == torch.device("cuda", 1)
    assert chosen == [1]


def test_fewer_gpus_than_processes(gpus):
    gpus(2)
    with pytest.raises(UserError, match=r"4 processes on a machine with 2 GPUs.*--nproc-per-node 2"):
        device_of_process("auto", Processes(0, 8, local_rank=0, local_size=4))


def test_without_gpus(gpus):
    gpus(0)
    both = Processes(0, 2, 0, 2)
    assert device_of_process("auto", both) == device_of_process("cpu", both) == torch.device("cpu")
    with pytest.raises(UserError, match="'cuda' is not on this machine"):
        device_of_process("cuda", both)


@pytest.mark.parametrize("name", ["cuda:1", "mps"])
def test_one_device_for_all_is_refused(gpus, name):
    gpus(2)
    with pytest.raises(UserError, match=f"expected auto, cpu or cuda for several processes, got '{name}'"):
        device_of_process(name, Processes(0, 2, 0, 2))
    assert name == "mps" or device_of_process(name, ALONE) == torch.device(name)
