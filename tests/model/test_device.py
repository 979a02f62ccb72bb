"""Devices and precision."""

import pytest
import torch

from liif_core import UserError
from liif_core.model.device import autocast, pick_device

HERE = (
    {"cpu"}
    | ({"cuda"} if torch.cuda.is_available() else set())
    | ({"mps"} if torch.backends.mps.is_available() else set())
)


def test_auto_prefers_an_accelerator():
    expected = "cuda" if "cuda" in HERE else "mps" if "mps" in HERE else "cpu"
    assert pick_device("auto").type == pick_device().type == expected


@pytest.mark.parametrize("cuda, mps, expected", [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_on_any_machine(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device("auto").type == expected


def test_a_numbered_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserError, match="'cuda:2' is not on this machine"):
        pick_device("cuda:2")


@pytest.mark.parametrize("name", [name for name in ("cuda", "cuda:0", "mps") if name.split(":")[0] not in HERE])
def test_an_absent_device(name):
    with pytest.raises(UserError, match=f"device: '{name}' is not on this machine; use auto or cpu"):
        pick_device(name)


@pytest.mark.parametrize("name", ["", "gpu", "cuda:x", "cuda:-1", "CPU", "meta", "xla", "cuda:0:1", "auto "])
def test_no_device_at_all(name):
    with pytest.raises(UserError, match="device: expected auto, cpu, cuda, cuda:N or mps"):
        pick_device(name)


def test_float32_changes_nothing():
    with autocast(torch.device("cpu"), "float32"):
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_refused_on_a_cpu(precision):
    with pytest.raises(UserError, match=f"precision: '{precision}' needs a GPU; on the CPU use precision = 'float32'"):
        autocast(torch.device("cpu"), precision)


@pytest.mark.gpu
@pytest.mark.parametrize("precision, dtype", [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_half_precision_on_a_gpu(gpu, precision, dtype):
    x = torch.ones(2, 2, device=gpu)
    with autocast(gpu, precision):
        assert (x @ x).dtype == dtype
