"""The simulated GPU refuses and counts what a GPU does, and computes what a CPU does."""

import pytest
import torch
import torch.nn.functional as F
from simulated_gpu import SimulatedGPU
from torch import nn

CUDA = torch.device("cuda", 0)


def test_devices_of_tensors():
    with SimulatedGPU() as gpu:
        x = torch.ones(3, device="cuda")
        assert x.device == CUDA and x.is_cuda and not x.is_cpu
        for made in (
            x + 1,
            x[1:],
            x.view(3, 1),
            x.new_zeros(2),
            torch.zeros_like(x),
            x.clone(),
            torch.cat([x, x]),
            x.new_tensor([1]),
        ):
            assert made.device == CUDA
        for other in (
            torch.ones(3),
            torch.ones(3, device="cpu"),
            x.cpu(),
            torch.zeros_like(x, device="cpu"),
            x.to("cpu"),
        ):
            assert other.device.type == "cpu"
        assert torch.ones(2).to(x).device == torch.ones(2).to("cuda").device == torch.ones(2).cuda().device == CUDA
        assert torch.ones(3, device=x.device).device == CUDA
        assert torch.tensor([1], device=x.device).device == torch.as_tensor([1], device=CUDA).device == CUDA
        assert len(gpu.waits) == 8
    assert torch.cuda.is_available() or x.device.type == "cpu"


@pytest.mark.parametrize(
    "mix",
    [
        lambda x, y: x + y,
        lambda x, y: torch.cat([x, y]),
        lambda x, y: x.add_(y),
        lambda x, y: y.add_(x),
        lambda x, y: F.linear(x, y[None]),
        lambda x, y: y * x.sum(),
        lambda x, y: x.index_select(0, torch.zeros(1, dtype=torch.long)),
        lambda x, y: torch.where(x > 0, x, y),
        lambda x, y: nn.Linear(3, 2)(x),
    ],
)
@pytest.mark.parametrize("inference", [False, True])
def test_operations_on_both_devices_are_refused(mix, inference):
    with (
        SimulatedGPU(),
        torch.inference_mode(inference),
        pytest.raises(RuntimeError, match=r"same device.* at test_simulated_gpu\.py:\d+"),
    ):
        mix(torch.ones(3, device="cuda"), torch.ones(3))


def test_numbers_of_the_cpu_are_taken():
    with SimulatedGPU() as gpu:
        assert (torch.ones(3, device="cuda") * torch.tensor(2.0)).device == CUDA
        assert not gpu.waits


def test_numpy_is_refused():
    with SimulatedGPU(), pytest.raises(TypeError, match="numpy"):
        torch.ones(3, device="cuda").numpy()


@pytest.mark.parametrize(
    "wait, kind",
    [
        (lambda x: x.sum().item(), "item"),
        (lambda x: float(x[0]), "item"),
        (lambda x: int(x[0]), "item"),
        (lambda x: bool(x[0]), "item"),
        (lambda x: bool((x > 0).any()), "item"),
        (lambda x: torch.allclose(x, x), "allclose"),
        (lambda x: torch.equal(x, x + 1), "equal"),
        (lambda x: x.tolist(), "tolist"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: x[x > 0], "boolean index"),
        (lambda x: x.masked_select(x > 0), "masked_select"),
        (lambda x: x.cpu(), "copy to the host"),
        (lambda x: x.to("cpu"), "copy to the host"),
        (lambda x: torch.zeros(3).copy_(x), "copy to the host"),
        (lambda x: torch.zeros(3).to("cuda", non_blocking=True), "copy to the GPU"),
        (lambda x: x.copy_(torch.zeros(3)), "copy to the GPU"),
        (lambda x: torch.tensor([1, 2], device="cuda"), "copy to the GPU"),
        (lambda x: x.new_tensor([1, 2]), "copy to the GPU"),
        (lambda x: torch.cuda.synchronize(), "synchronize"),
    ],
)
@pytest.mark.parametrize("inference", [False, True])
def test_what_waits_is_counted(wait, kind, inference):
    with SimulatedGPU() as gpu, torch.inference_mode(inference):
        x = torch.ones(3, device="cuda")
        wait(x)
    assert len(gpu.waits) == 1
    assert gpu.waits[0].startswith(f"{kind} at test_simulated_gpu.py:")


@pytest.mark.parametrize("inference", [False, True])
def test_what_does_not_wait(inference):
    with SimulatedGPU() as gpu, torch.inference_mode(inference):
        x = torch.arange(6.0, device="cuda").view(2, 3)
        x[:, 1:].add_(1)
        x.index_select(0, torch.zeros(1, dtype=torch.long, device="cuda")).square().mean().sqrt()
        torch.ones(3).pin_memory().to("cuda", non_blocking=True)
        torch.full((2,), 3.0, device="cuda")
        torch.tensor([1.0]).tolist()
        torch.ones(3).sum().item()
    assert not gpu.waits


def test_a_delayed_copy_is_there_after_its_event():
    with SimulatedGPU() as gpu:
        host = torch.empty(3, pin_memory=True)
        host.copy_(torch.ones(3, device="cuda"), non_blocking=True)
        assert host.isnan().all()
        event = torch.cuda.Event()
        event.record()
        assert host.isnan().all()
        event.synchronize()
        assert (host == 1).all() and gpu.event_waits == 1 and not gpu.waits


def test_an_event_does_not_wait_for_later_copies():
    with SimulatedGPU():
        first, second = torch.empty(3, pin_memory=True), torch.empty(3, pin_memory=True)
        first.copy_(torch.ones(3, device="cuda"), non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        second.copy_(torch.ones(3, device="cuda"), non_blocking=True)
        event.synchronize()
        assert (first == 1).all() and second.isnan().all()


def test_races_of_streams_are_refused():
    with SimulatedGPU():
        host, x, stream = torch.empty(3, pin_memory=True), torch.ones(3, device="cuda"), torch.cuda.Stream()
        with torch.cuda.stream(stream), pytest.raises(RuntimeError, match="did not wait"):
            host.copy_(x, non_blocking=True)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            host.copy_(x, non_blocking=True)
            event = torch.cuda.Event()
            event.record(stream)
        with pytest.raises(RuntimeError, match="record_stream"):
            event.synchronize()
    with SimulatedGPU(), pytest.raises(RuntimeError, match="before the values are there"):
        torch.ones(3, device="cuda").to("cpu", non_blocking=True)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_training_computes_what_a_cpu_does(kind):
    def trained(device):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1)).to(device)
        optimizer = kind(model.parameters(), lr=0.1)
        x = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(1)).to(device)
        for _ in range(3):
            optimizer.zero_grad()
            F.interpolate(model(x), scale_factor=2)[:, :, 1:].square().mean().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        assert all(p.device == p.grad.device == torch.device(device) for p in model.parameters())
        return [p.detach().cpu() for p in model.parameters()]

    expected = trained("cpu")
    with SimulatedGPU() as gpu:
        found = trained(CUDA)
        before = len(gpu.waits)
    assert before == 4 + 1 + 4  # parameters and images to the GPU, and the results back
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
