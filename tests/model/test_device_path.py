"""Everything that computes on a GPU, run on a simulated one: right devices, the CPU's results, and no waiting."""

import pytest
import torch
from parts import StatisticsDecoder, WholeSetDecoder
from reference import small_model
from simulated_gpu import SimulatedGPU
from torch import nn

import liif_core
from liif_core.experiment.toml_file import model_from_table
from liif_core.model import tiling
from liif_core.model.device import moved
from liif_core.model.geometry import region_axes
from liif_core.model.streaming import on_host
from liif_core.model.tile_plan import TilePlan
from liif_core.model.tiling import render_bands

DECODERS = {
    "mlp": {"hidden": [8, 8]},
    "lte": {"channels": 8, "hidden": [8]},
    "lm-liif": {"width": 6, "depth": 2, "latent": [8]},
    "lm-lte": {"width": 6, "depth": 2, "latent": [8], "channels": 8},
    "metasr": {"hidden": 8},
    "basis": {"latent": [8], "axis": [6]},
    "srno": {"width": 8, "heads": 2, "hidden": 8},
}
ENCODERS = {
    "edsr": {"blocks": 1, "channels": 4},
    "rcan": {"groups": 1, "blocks": 1, "channels": 16},
    "rep": {"blocks": 1, "channels": 6},
    "swinir": {"groups": 1, "blocks": 2, "channels": 12, "heads": 2, "window": 4, "out_channels": 6},
}
WITHIN, SIZE = (9, 8), (20, 18)
CUDA = torch.device("cuda")


@pytest.fixture
def make(registry):
    def made(decoder, encoder="edsr"):
        table = {
            "residual": "bilinear",
            "encoder": {"use": encoder, **ENCODERS[encoder]},
            "features": {"use": "unfold"},
            "sampling": {"use": "corner" if decoder == "metasr" else "local-ensemble"},
            "conditioning": [{"use": "coordinate"}, {"use": "cell"}],
            "decoder": {"use": decoder, **DECODERS[decoder]},
        }
        torch.manual_seed(0)
        return liif_core.build_model(model_from_table(table, registry, "test")).eval()

    return made


@pytest.fixture(params=[*DECODERS, *(name for name in ENCODERS if name != "edsr")])
def build(request, make):
    """Makes the same model each time: of every decoder, and of every encoder."""
    name = request.param
    return lambda: make(name) if name in DECODERS else make("mlp", name)


@pytest.fixture
def image():
    return torch.rand(2, 3, *WITHIN, generator=torch.Generator().manual_seed(3))


def agree(found, expected):
    assert found.device.type == "cpu"
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def read(image):
    return lambda rows, columns: image[:, :, rows, columns]


@torch.inference_mode()
def test_encode_query_and_render(build, image):
    coord, cell = torch.rand(2, 30, 2) * 2.2 - 1.1, torch.full((2, 30, 2), 0.1)
    region, size = (1, 2, 7, 5.5), (12, 7)

    def results(picture, device):
        return [
            picture.query(coord, cell),
            picture.query(coord.to(device), cell.to(device)),
            picture.query(coord, torch.tensor([0.1, 0.1])),
            picture.render(SIZE),
            picture.render(size, region),
        ]

    expected = results(build().encode(image), "cpu")
    with SimulatedGPU():
        picture = build().to(CUDA).encode(image.to(CUDA))
        found = results(picture, CUDA)
        assert all(result.is_cuda for result in found)
        found = [result.cpu() for result in found]
    for a, b in zip(found, expected):
        agree(a, b)


@torch.inference_mode()
def test_a_grid_is_rendered_without_waiting(build, image):
    """However many chunks there are, and where the statistics are computed too."""
    expected = build().encode(image).render(SIZE)
    with SimulatedGPU() as gpu:
        model, given = build().to(CUDA), image.to(CUDA)
        gpu.waits.clear()
        picture = model.encode(given)
        for chunk in (200, 30, 7):
            found = picture.render_grid(*region_axes(SIZE, WITHIN, None), chunk_size=chunk)
            assert gpu.waits == []
            agree(found.cpu(), expected)
            gpu.waits.clear()


@torch.inference_mode()
def test_axes_and_a_cell_on_the_gpu_are_read_once(build, image):
    with SimulatedGPU() as gpu:
        picture = build().to(CUDA).encode(image.to(CUDA))
        axes = [part.to(CUDA) for part in region_axes(SIZE, WITHIN, None)]
        waits = []
        for chunk in (200, 7):
            gpu.waits.clear()
            picture.render_grid(*axes, chunk_size=chunk)
            waits.append(len(gpu.waits))
        statistics = picture.num_statistics or 0
        assert waits[0] <= 1 + statistics and waits[1] <= 1 + statistics


@pytest.mark.parametrize("region", [None, (1.5, 2, 8, 7.5)])
@pytest.mark.parametrize("overlap", [0, 1])
def test_tiles(build, image, region, overlap):
    model = build().requires_grad_(False)
    if model.halo is None:
        overlap = 1
    plan = TilePlan((4, 5), 5, model.halo or 3, overlap, None)
    with torch.no_grad():
        expected = torch.cat(list(render_bands(model, read(image), WITHIN, SIZE, plan, region=region)), dim=2)
    with SimulatedGPU() as gpu:
        on_gpu = build().to(CUDA)
        gpu.waits.clear()
        bands = list(render_bands(on_gpu, read(image), WITHIN, SIZE, plan, region=region))
        assert gpu.waits == [] and gpu.event_waits == len(bands) > 1
        found = torch.cat(bands, dim=2)
        kept = list(render_bands(on_gpu, read(image), WITHIN, SIZE, plan, region=region, to_host=False))
        assert all(band.is_cuda for band in kept) and gpu.event_waits == len(bands)
        kept = torch.cat(kept, dim=2).cpu()
    agree(found, expected)
    agree(kept, expected)


@pytest.mark.parametrize("kind", [StatisticsDecoder, WholeSetDecoder])
def test_sets_of_queries(registry, image, kind):
    def build():
        torch.manual_seed(0)
        model = small_model(registry)
        sizes = {"in_channels": 36, "out_channels": 3, "neighbours": 4, "conditions": {"coordinate": 2, "cell": 2}}
        model.decoder = kind(None, **sizes)
        return model.eval().requires_grad_(False)

    expected = build().encode(image).render(SIZE)
    with SimulatedGPU() as gpu:
        picture = build().to(CUDA).encode(image.to(CUDA))
        gpu.waits.clear()
        found = picture.render_grid(*region_axes(SIZE, WITHIN, None), chunk_size=50)
        assert gpu.waits == []
        agree(found.cpu(), expected)


def test_a_training_step(build, image):
    coord, target = torch.rand(2, 30, 2) * 2 - 1, torch.rand(2, 30, 3)
    cell = torch.full((2, 1, 2), 0.1)

    def gradients(model, *batch):
        model.train()
        (model(*batch[:3]) - batch[3]).abs().mean().backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    expected = gradients(build(), image, coord, cell, target)
    with SimulatedGPU() as gpu:
        model = build().to(CUDA)
        gpu.waits.clear()
        found = gradients(model, *(moved(part, CUDA) for part in (image, coord, cell, target)))
        assert gpu.waits == []
        found = [gradient.cpu() for gradient in found]
    assert len(found) == len(expected) > 0
    for a, b in zip(found, expected):
        agree(a, b)


def test_upscale_and_evaluate(build, image):
    high = (torch.rand(3, 24, 20, generator=torch.Generator().manual_seed(1)) * 255).to(torch.uint8)
    with torch.no_grad():
        expected = build().upscale(image, scale=2.5)
        scores = liif_core.evaluate(build(), [high], [2, 2.5], "rgb")
        with SimulatedGPU() as gpu:
            model = build().to(CUDA)
            on_gpu = model.upscale(image.to(CUDA), scale=2.5)
            assert on_gpu.is_cuda
            on_gpu = on_gpu.cpu()
            gpu.waits.clear()
            found = model.upscale(image, scale=2.5)
            assert not [wait for wait in gpu.waits if "upscaler" not in wait]
            measured = liif_core.evaluate(model, [high], [2, 2.5], "rgb")
    agree(found, expected)
    agree(on_gpu, expected)
    assert [a.psnr for a in measured] == pytest.approx([b.psnr for b in scores], abs=1e-3)


# Streaming


def test_the_gpu_is_a_band_ahead():
    order = []

    def bands():
        for number in range(4):
            order.append(f"compute {number}")
            yield torch.full((1, 1, 2, 3), float(number), device="cuda")

    with SimulatedGPU() as gpu:
        for band in on_host(bands()):
            assert band in gpu.pinned
            order.append(f"use {int(band[0, 0, 0, 0])}")
            assert (band == band[0, 0, 0, 0]).all()
    steps = ["compute 0", "compute 1", "use 0", "compute 2", "use 1", "compute 3", "use 2", "use 3"]
    assert order == steps and gpu.waits == [] and gpu.event_waits == 4


def test_bands_of_a_cpu_are_passed_on_at_once():
    bands = [torch.rand(1, 3, 2, 4) for _ in range(3)]
    order = []

    def made():
        for band in bands:
            order.append("compute")
            yield band

    for band, expected in zip(on_host(made()), bands):
        assert band is expected
        order.append("use")
    assert order == ["compute", "use"] * 3 and list(on_host([])) == []


def test_a_part_of_a_band_is_copied():
    whole = torch.rand(1, 3, 6, 4)
    with SimulatedGPU():
        (band,) = on_host([whole.to(CUDA)[:, :, :4]])
    assert torch.equal(band, whole[:, :, :4])


def test_a_large_image_has_several_bands_on_a_gpu(make, image, monkeypatch):
    monkeypatch.setattr(tiling, "_DEVICE_BAND_VALUES", 3 * SIZE[1] * 6)
    plan = TilePlan(WITHIN, SIZE[0], make("mlp").halo, 0)
    with SimulatedGPU():
        model = make("mlp").requires_grad_(False).to(CUDA)
        bands = [band.shape[2] for band in render_bands(model, read(image), WITHIN, SIZE, plan)]
    assert bands == [6, 6, 6, 2]


def test_moved():
    x = torch.rand(3)
    assert moved(x, torch.device("cpu")) is x
    with SimulatedGPU() as gpu:
        there = moved(x, CUDA)
        assert there.is_cuda and moved(there, CUDA) is there and gpu.waits == []
        moved(x.pin_memory(), CUDA)  # whoever pinned it may change it before the copy is made
        assert len(gpu.waits) == 1
        assert torch.equal(there.cpu(), x)


# A tensor on the wrong device is found


class Forgetful(nn.Module):
    channels, scope = 2, "image"

    def forward(self, query, sites, grid):
        return (query.cell * torch.tensor(grid)).unsqueeze(0)


def test_a_tensor_made_on_the_cpu_is_found(make, image):
    with SimulatedGPU():
        model = make("mlp").to(CUDA)
        model.conditioning[1] = Forgetful()
        with pytest.raises(RuntimeError, match=r"same device, at test_device_path\.py:\d+"):
            model.encode(image.to(CUDA)).render(SIZE)


# On a real GPU


@pytest.mark.gpu
def test_a_gpu_streams_what_a_cpu_renders(make, image, gpu):
    model = make("mlp").requires_grad_(False)
    plan = TilePlan((4, 5), 5, model.halo, 0)
    expected = torch.cat(list(render_bands(model, read(image), WITHIN, SIZE, plan)), dim=2)
    model.to(gpu)
    bands = list(render_bands(model, read(image), WITHIN, SIZE, plan))
    assert all(band.is_pinned() for band in bands)
    torch.testing.assert_close(torch.cat(bands, dim=2), expected, rtol=0, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("decoder", DECODERS)
def test_a_gpu_is_not_waited_for(make, image, gpu, decoder):
    """PyTorch's own check of what waits."""
    model = make(decoder).requires_grad_(False).to(gpu)
    picture = model.encode(image.to(gpu))
    torch.cuda.set_sync_debug_mode("error")
    try:
        picture.render_grid(*region_axes(SIZE, WITHIN, None), chunk_size=30)
    finally:
        torch.cuda.set_sync_debug_mode("default")
