"""``import liif_core``: what its public names do, from Python alone."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, ImageCms
from reference import SMALL_TABLE, small_model
from torch import nn

import liif_core
from liif_core.cli import liif
from liif_core.images import read_image


@pytest.fixture(scope="module")
def checkpoint(registry, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "small.safetensors"
    model = small_model(registry, hidden=(8,), residual="bilinear")
    liif_core.save_checkpoint(
        path, liif_core.Checkpoint(model.state_dict(), {"name": "s", "model": SMALL_TABLE}, (1.0, 4.0))
    )
    return path


@pytest.fixture
def model(checkpoint):
    return liif_core.load(checkpoint)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


def pixels(*shape, seed=0):
    return (noise(*shape, seed=seed) * 255).astype(np.uint8)


# --- Pillow


def pillow_image(mode):
    if mode == "I;16":
        return Image.fromarray((noise(14, 18) * 65535).astype(np.uint16))
    if mode == "F":
        return Image.fromarray(noise(14, 18))
    if mode in ("LA", "RGBA"):
        return Image.fromarray(pixels(14, 18, len(mode)), mode)
    return Image.fromarray(pixels(14, 18, 3)).convert(mode)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "F"])
def test_a_pillow_image_becomes_what_the_command_writes(model, checkpoint, tmp_path, mode):
    image = pillow_image(mode)
    image.save(tmp_path / "in.tif")
    try:
        Image.open(tmp_path / "in.tif").load()
    except OSError as error:  # Pillow 11.0, for YCbCr
        pytest.skip(f"this Pillow cannot read the TIFF that it wrote: {error}")
    larger = model.upscale(Image.open(tmp_path / "in.tif"), 2.5)
    in_memory = model.upscale(image, 2.5)
    arguments = ["upscale", str(tmp_path / "in.tif"), "-o", str(tmp_path / "out.tif"), "--scale", "2.5", "--quiet"]
    result = CliRunner().invoke(liif, [*arguments, "--checkpoint", str(checkpoint)])
    assert result.exit_code == 0, result.output
    by_command = read_image(tmp_path / "out.tif")
    for found in (larger, in_memory):
        assert found.size == (45, 35)
        found.save(tmp_path / "saved.tif")
        saved = read_image(tmp_path / "saved.tif")
        assert saved.depth == by_command.depth
        np.testing.assert_array_equal(saved.color, by_command.color)
        assert (saved.alpha is None) == (by_command.alpha is None)
        if saved.alpha is not None:
            np.testing.assert_array_equal(saved.alpha, by_command.alpha)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_metadata_is_kept_as_the_command_keeps_it(model, checkpoint, tmp_path, suffix):
    exif = Image.Exif()
    exif[0x010F] = "A maker"
    exif[0x0112] = 6  # to be seen turned by 90 degrees
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source, output, saved = (tmp_path / f"{name}{suffix}" for name in ("in", "out", "saved"))
    Image.fromarray(pixels(14, 18, 3)).save(source, exif=exif, icc_profile=profile, dpi=(300, 300), lossless=True)
    arguments = ["upscale", str(source), "-o", str(output), "--scale", "2", "--quiet", "--checkpoint", str(checkpoint)]
    assert CliRunner().invoke(liif, arguments).exit_code == 0
    larger = model.upscale(Image.open(source), 2)
    assert larger.size == (28, 36)  # upright
    larger.save(saved)
    expected, found = read_image(output).metadata, read_image(saved).metadata
    assert found.icc == expected.icc == profile
    assert found.exif == expected.exif and b"A maker" in found.exif
    assert found.dpi == pytest.approx(expected.dpi) if expected.dpi else found.dpi is None


def test_a_pillow_image_that_was_given_is_not_changed(model):
    image = Image.fromarray(pixels(6, 7, 4), "RGBA")
    before = image.tobytes(), dict(image.info)
    model.upscale(image, 2)
    assert (image.tobytes(), dict(image.info)) == before


# --- numpy


@pytest.mark.parametrize("shape", [(9, 8), (9, 8, 3), (9, 8, 4)])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_an_array_gives_an_array_of_its_kind(model, shape, kind):
    top = 1 if kind is np.float32 else np.iinfo(kind).max
    image = (noise(*shape) * top).astype(kind)
    if len(shape) == 3 and shape[2] == 4:
        image[..., 3] = top  # opaque
    before = image.copy()
    larger = model.upscale(image, 2.5)
    np.testing.assert_array_equal(image, before)
    assert larger.dtype == kind and larger.shape == (23, 20, *shape[2:])
    color = image if len(shape) == 2 else image[..., :3]
    planes = np.repeat(color[..., None], 3, 2) if len(shape) == 2 else color
    tensor = torch.from_numpy(planes.astype(np.float32) / top).permute(2, 0, 1)[None]
    expected = model.encode(tensor).render((23, 20))[0].permute(1, 2, 0).numpy()
    expected = (expected.mean(2) if len(shape) == 2 else expected).clip(0, 1)
    found = larger if len(shape) == 2 else larger[..., :3]
    assert np.abs(found / top - expected).max() <= (1e-6 if top == 1 else 0.5 / top + 1e-6)
    if len(shape) == 3 and shape[2] == 4:
        assert (larger[..., 3] == top).all()


def test_hidden_colors_do_not_show_at_transparent_edges(model):
    image = np.zeros((8, 8, 4), np.uint8)
    image[:, :4] = (200, 200, 200, 255)
    image[:, 4:, :3] = (0, 255, 0)  # transparent
    other = image.copy()
    other[:, 4:, :3] = 0
    np.testing.assert_array_equal(model.upscale(image, 3), model.upscale(other, 3))


# --- tensors


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("batch", [None, 1, 3])
def test_a_tensor_gives_a_tensor_of_its_type(model, dtype, batch):
    shape = (3, 7, 9) if batch is None else (batch, 3, 7, 9)
    image = torch.from_numpy(noise(*shape)).to(dtype)
    larger = model.upscale(image, (2, 3))
    assert larger.dtype == dtype and larger.shape == (*shape[:-2], 14, 27)
    expected = model.encode(image.float().reshape(-1, 3, 7, 9)).render((14, 27), clamp=True).reshape(larger.shape)
    torch.testing.assert_close(larger, expected.to(dtype), atol=1e-6 if dtype.itemsize > 2 else 1e-2, rtol=0)
    assert larger.min() >= 0 and larger.max() <= 1


def test_tiles_give_the_same_tensor(model):
    image = torch.from_numpy(noise(2, 3, 160, 150))
    torch.testing.assert_close(model.upscale(image, 2, memory="8MB"), model.upscale(image, 2), atol=2e-6, rtol=0)


def test_a_tensor_that_requires_a_gradient_gets_one(model):
    image = torch.from_numpy(noise(3, 5, 6)).requires_grad_()
    larger = model.upscale(image, 2)
    weight = torch.from_numpy(noise(3, 10, 12))
    (found,) = torch.autograd.grad((larger * weight).sum(), image)
    (expected,) = torch.autograd.grad((model.encode(image[None]).render((10, 12))[0].clamp(0, 1) * weight).sum(), image)
    torch.testing.assert_close(found, expected)
    assert found.abs().max() > 0
    with torch.no_grad():
        assert not model.upscale(image, 2).requires_grad
    with pytest.raises(ValueError, match="memory: cannot be limited where gradients"):
        model.upscale(image, 2, memory="100MB")


def test_a_model_that_is_trained_gets_gradients(model):
    model.requires_grad_().train()
    model.upscale(torch.from_numpy(noise(3, 5, 6)), 2).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.training
    model.upscale(pixels(5, 6, 3), 2)
    assert model.training


# --- sizes, regions, progress


@pytest.mark.parametrize(
    "arguments, size",
    [
        ({"scale": 2.5}, (35, 45)),
        ({"scale": (2, 3.7)}, (28, 67)),
        ({"width": 100}, (78, 100)),
        ({"height": 100}, (100, 129)),
        ({"width": 33, "height": 77}, (77, 33)),
        ({"scale": np.float32(0.5)}, (7, 9)),
        ({"scale": 2, "region": (2, 3, 9, 10.5)}, (14, 15)),
        ({"width": 50, "region": [0, 0, 5, 10]}, (25, 50)),
    ],
)
@pytest.mark.filterwarnings("ignore:.*outside the scales")
def test_sizes(model, arguments, size):
    image = pixels(14, 18, 3)
    tensor = torch.from_numpy(image).permute(2, 0, 1) / 255
    expected = model.encode(tensor[None]).render(size, arguments.get("region"), clamp=True)[0]
    torch.testing.assert_close(model.upscale(tensor, **arguments), expected, atol=1e-6, rtol=0)
    larger = model.upscale(image, **arguments)
    assert np.abs(larger / 255 - expected.permute(1, 2, 0).numpy()).max() <= 0.5 / 255 + 1e-6
    assert model.upscale(Image.fromarray(image), **arguments).size == size[::-1]


@pytest.mark.parametrize("image", [pixels(40, 30, 3), pixels(40, 30, 4), torch.from_numpy(noise(3, 40, 30))])
def test_progress_goes_from_0_to_1(model, image):
    seen = []
    model.upscale(image, 2, on_progress=seen.append)
    assert seen and all(0 < before <= after for before, after in zip(seen, seen[1:]))
    assert seen[-1] == 1


def test_a_scale_that_was_not_trained_is_said(model):
    assert model.trained_scale == (1, 4)
    for image in (pixels(5, 6, 3), Image.fromarray(pixels(5, 6, 3)), torch.from_numpy(noise(3, 5, 6))):
        with pytest.warns(UserWarning, match="outside the scales this checkpoint was trained on, 1 to 4"):
            model.upscale(image, 6)


def test_a_warning_names_the_line_that_called(checkpoint):  # in a process of its own: shape checks add stack frames
    code = f"""import liif_core, numpy
model = liif_core.load({str(checkpoint)!r})
model.upscale(numpy.zeros((4, 4, 3), numpy.uint8), 6)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.startswith("<string>:3: UserWarning: 6 x 6 is outside the scales"), done.stderr


# --- mistakes

GOOD = pixels(5, 6, 3)


@pytest.mark.parametrize(
    "image, arguments, kind, said",
    [
        (GOOD, {}, ValueError, "scale, width, height: expected a scale, or a width, a height or both"),
        (GOOD, {"scale": 2, "width": 9}, ValueError, "scale, width, height: .* got scale=2, width=9"),
        (GOOD, {"scale": 0}, ValueError, "scale: expected a positive number"),
        (GOOD, {"scale": float("nan")}, ValueError, "scale: "),
        (GOOD, {"scale": (2, 3, 4)}, ValueError, "scale: "),
        (GOOD, {"scale": "2"}, TypeError, "scale: .*got '2'"),
        (GOOD, {"scale": True}, TypeError, "scale: "),
        (GOOD, {"width": 1.5}, TypeError, "width: expected a whole number of pixels, got 1.5"),
        (GOOD, {"height": 0}, ValueError, "height: expected 1 to"),
        (GOOD, {"scale": 2, "region": (0, 0, 9, 3)}, ValueError, "region: .*has 5 rows and 6 columns"),
        (GOOD, {"scale": 2, "region": (3, 0, 1, 3)}, ValueError, "region: expected .top, left, bottom, right."),
        (GOOD, {"scale": 2, "region": (0, 0, 1)}, ValueError, "region: "),
        (GOOD, {"scale": 2, "region": "all"}, TypeError, "region: "),
        (GOOD, {"scale": 2, "memory": "many"}, ValueError, "memory: expected at least 1MB.*got 'many'"),
        (GOOD, {"scale": 2, "memory": 10}, ValueError, "memory: expected at least 1MB"),
        (GOOD, {"scale": 2, "memory": []}, TypeError, "memory: "),
        (GOOD, {"scale": 2, "on_progress": 3}, TypeError, "on_progress: "),
        (GOOD, {"scale": 2, "precision": "fp16"}, ValueError, "precision: 'fp16' needs a GPU"),
        (GOOD, {"scale": 2, "precision": "half"}, ValueError, "precision: expected 'float32', 'bf16' or 'fp16'"),
        ("photo.png", {"scale": 2}, TypeError, "image: expected a PIL image, a numpy array .*, got str"),
        (GOOD.astype(np.int64), {"scale": 2}, TypeError, "image: .*int64"),
        (pixels(5, 6, 5), {"scale": 2}, ValueError, r"image: .*\(5, 6, 5\)"),
        (GOOD[:0], {"scale": 2}, ValueError, "image: "),
        (np.full((4, 4, 3), np.nan, np.float32), {"scale": 2}, ValueError, "image: .*finite"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), {"scale": 2}, TypeError, "image: expected a tensor of floats.*uint8"),
        (torch.zeros(4, 4), {"scale": 2}, ValueError, r"image: expected a tensor \(3, h, w\).*\(4, 4\)"),
        (torch.zeros(1, 4, 4), {"scale": 2}, ValueError, "image: "),
        (torch.zeros(3, 0, 4), {"scale": 2}, ValueError, "image: "),
    ],
)
def test_mistakes_name_the_argument(model, image, arguments, kind, said):
    with pytest.raises(kind, match=said):
        model.upscale(image, **arguments)


def test_too_little_memory_is_a_value_error(model):
    with pytest.raises(ValueError, match=r"memory: .*too few"):
        model.upscale(torch.from_numpy(noise(40, 3, 60, 60)), 2, memory="1MB")


# --- compose


def test_compose_makes_the_model_of_the_table(model):
    mapping = liif_core.compose(SMALL_TABLE)
    keywords = liif_core.compose(
        encoder={"use": "edsr", "blocks": 1, "channels": 4},
        features="unfold",
        sampling="local-ensemble",
        conditioning=("coordinate", {"use": "cell"}),
        decoder={"use": "mlp", "hidden": (8,)},
        residual="bilinear",
    )
    image = torch.from_numpy(noise(1, 3, 5, 6))
    for composed in (mapping, keywords):
        assert composed.training and all(parameter.requires_grad for parameter in composed.parameters())
        composed.load_state_dict(model.state_dict())
        torch.testing.assert_close(composed.encode(image).render((9, 9)), model.encode(image).render((9, 9)))


class Convolution(nn.Conv2d):
    out_channels, multiple_of, receptive_radius = 5, 1, 1

    def __init__(self):
        super().__init__(3, 5, 3, padding=1)


class OwnCell(nn.Module):
    channels, scope = 2, "query"

    def forward(self, query, sites, grid):
        return query.cell * query.cell.new_tensor(grid)


def test_compose_takes_modules(model):
    encoder = Convolution()
    table = {**SMALL_TABLE, "conditioning": {"coordinate": "coordinate", "cell": OwnCell()}}
    composed = liif_core.compose(table, encoder=encoder)
    assert composed.encoder is encoder
    reference = liif_core.compose(SMALL_TABLE, encoder=encoder)
    reference.load_state_dict(composed.state_dict())
    image = torch.from_numpy(noise(1, 3, 5, 6))
    torch.testing.assert_close(composed.encode(image).render((9, 9)), reference.encode(image).render((9, 9)))


@pytest.mark.parametrize(
    "changes, kind, said",
    [
        ({"encoder": "edrs"}, ValueError, "encoder.use: no encoder is named 'edrs' .did you mean 'edsr'"),
        ({"encoder": {"use": "edsr", "blocks": "many"}}, ValueError, "encoder.blocks: expected a whole number"),
        ({"decoder": None}, ValueError, "decoder: "),
        ({"color": 3}, ValueError, "color: unknown key"),
        ({"decoder": "lte", "conditioning": []}, ValueError, "'lte' .*'coordinate'"),
        (
            {"conditioning": {"cell": "coordinate"}},
            ValueError,
            "conditioning: 'cell' must be a module, or the component",
        ),
        ({"conditioning": [OwnCell()]}, TypeError, "conditioning: the module OwnCell has no name"),
        ({"encoder": nn.Conv2d(3, 4, 3)}, ValueError, "encoder: .*no .*receptive_radius"),
    ],
)
def test_compose_names_what_is_wrong(changes, kind, said):
    with pytest.raises(kind, match=said):
        liif_core.compose(SMALL_TABLE, **changes)


def test_compose_reports_every_mistake():
    with pytest.raises(ValueError) as caught:
        liif_core.compose(encoder="edrs", features={"use": "unfold", "sise": 3})
    assert [line.partition(": ")[2].partition(":")[0] for line in caught.value.problems] == [
        "encoder.use", "features.sise", "sampling", "decoder",
    ]  # fmt: skip
    with pytest.raises(TypeError, match="table: expected a mapping"):
        liif_core.compose("model.toml")


# --- the names themselves


def test_every_public_name_is_there():
    assert {
        "load",
        "compose",
        "Checkpoint",
        "Trainer",
        "evaluate",
        "psnr",
        "ssim",
        "plan_tiles",
        "render_bands",
    } <= set(liif_core.__all__)
    for name in liif_core.__all__:
        assert getattr(liif_core, name) is not None
    with pytest.raises(AttributeError):
        liif_core.no_such_name  # noqa: B018


def test_importing_does_not_import_torch():
    code = "import sys, liif_core; liif_core.__version__, liif_core.UserError; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
