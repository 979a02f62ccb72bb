"""Devices and precision."""

from pathlib import Path

import pytest
import torch

from liif_core import UserError
from liif_core.model import device as device_module
from liif_core.model.device import autocast, cpu_has_bf16, pick_device

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


@pytest.mark.parametrize("has_bf16", [True, False])
def test_fp16_is_refused_on_a_cpu(monkeypatch, has_bf16):
    monkeypatch.setattr(device_module, "cpu_has_bf16", lambda: has_bf16)
    with pytest.raises(UserError, match="precision: 'fp16' needs a GPU; on the CPU use precision = 'float32'"):
        autocast(torch.device("cpu"), "fp16")


def test_bf16_on_a_cpu_needs_its_instructions(monkeypatch):
    monkeypatch.setattr(device_module, "cpu_has_bf16", lambda: False)
    with pytest.raises(UserError, match="precision: 'bf16' needs a GPU, or a CPU with .*; use precision = 'float32'"):
        autocast(torch.device("cpu"), "bf16")
    monkeypatch.setattr(device_module, "cpu_has_bf16", lambda: True)
    with autocast(torch.device("cpu"), "bf16"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


@pytest.mark.parametrize("flags, expected", [(("avx512_bf16",), True), (("amx_tile",), True), (("avx512f",), False)])
def test_bf16_instructions_of_x86(monkeypatch, flags, expected):
    monkeypatch.setattr(device_module.platform, "machine", lambda: "x86_64")
    for name in ("avx512_bf16", "amx_tile"):
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda name=name: name in flags, raising=False)
    assert device_module.cpu_has_bf16.__wrapped__() is expected


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="Linux lists a CPU's instructions")
def test_bf16_instructions_are_those_that_linux_lists():
    listed = {*Path("/proc/cpuinfo").read_text().split()}
    assert cpu_has_bf16() == bool(listed & {"avx512_bf16", "amx_tile", "bf16"})


@pytest.mark.gpu
@pytest.mark.parametrize("precision, dtype", [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_half_precision_on_a_gpu(gpu, precision, dtype):
    x = torch.ones(2, 2, device=gpu)
    with autocast(gpu, precision):
        assert (x @ x).dtype == dtype
