import io
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, PngImagePlugin
from reference import SMALL_TABLE, small_model

import liif_core
from liif_core.cli import liif
from liif_core.images import MAX_PIXELS
from liif_core.training.checkpoint import Checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def checkpoints(registry, tmp_path_factory):
    """Of three channels and of one, trained for x1 to x4."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for channels in (1, 3):
        model = small_model(registry, hidden=(8,), residual="bilinear", channels=channels)
        experiment = {"name": "small", "model": {**SMALL_TABLE, "channels": channels}}
        save_checkpoint(folder / f"{channels}.safetensors", Checkpoint(model.state_dict(), experiment, (1.0, 4.0)))
    return folder


@pytest.fixture
def run(checkpoints):
    def run(*arguments, channels=3):
        arguments = [
            "upscale",
            *map(str, arguments),
            "--checkpoint",
            str(checkpoints / f"{channels}.safetensors"),
            "--quiet",
        ]
        result = CliRunner().invoke(liif, arguments)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


def smooth(height, width, channels=3, seed=0, top=255):
    noise = np.random.default_rng(seed).integers(0, 256, (5, 6, channels), dtype=np.uint8)
    planes = [
        np.asarray(Image.fromarray(noise[..., c]).resize((width, height), Image.Resampling.BICUBIC))
        for c in range(channels)
    ]
    return (np.stack(planes, -1).astype(np.float64) / 255 * top).round().astype(np.uint8 if top == 255 else np.uint16)


def picture(path, mode="RGB", size=(14, 18), **options):
    made = Image.fromarray(smooth(*size)).convert(mode)
    made.save(path, **options)
    return path


@pytest.mark.parametrize(
    "options, expected",  # (width, height) of an 18 x 14 picture
    [
        (["--scale", "2.5"], (45, 35)),
        (["--scale", "2,3.7"], (67, 28)),
        (["--size", "100x"], (100, 78)),
        (["--size", "x100"], (129, 100)),
        (["--size", "33x77"], (33, 77)),
        (["--scale", "0.4"], (7, 6)),
        (["--scale", "30"], (540, 420)),
        (["--scale", "1"], (18, 14)),
        (["--scale", "0.001"], (1, 1)),
        (["--scale", "2", "--region", "2,3,9,10.5"], (15, 14)),
        (["--size", "50x", "--region", "0,0,5,10"], (50, 25)),
    ],
)
def test_sizes_are_exact(place, run, checkpoints, options, expected):
    picture("a.png")
    result = run("a.png", "-o", "b.png", *options)
    assert result.exit_code == 0, result.output
    found = Image.open("b.png")
    assert found.size == expected and found.mode == "RGB"

    model = liif_core.load(checkpoints / "3.safetensors")
    image = torch.from_numpy(np.array(Image.open("a.png"))).permute(2, 0, 1).unsqueeze(0) / 255
    region = [float(n) for n in options[3].split(",")] if "--region" in options else None
    rendered = model.encode(image).render(expected[::-1], region=region, clamp=True)[0]
    assert np.abs(np.asarray(found) / 255 - rendered.permute(1, 2, 0).numpy()).max() <= 0.5 / 255 + 1e-4


def test_scales_it_was_not_trained_on_are_said(place, run):
    picture("a.png")
    assert (
        "outside the scales this checkpoint was trained on, 1 to 4"
        in run("a.png", "-o", "b.png", "--scale", "5").output
    )
    assert "outside" in run("a.png", "-o", "c.png", "--scale", "0.5").output
    assert "outside" not in run("a.png", "-o", "d.png", "--scale", "4").output


MODES = ["1", "L", "LA", "RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV", "I;16", "I", "F"]
HOLDERS = {
    "png": {"1", "L", "LA", "RGB", "RGBA", "P", "I;16"},
    "tif": set(MODES) - {"PA", "HSV"},
    "jpg": {"L", "RGB", "CMYK"},
    "webp": {"RGB", "RGBA"},
}
EXPECTED = {"1": "L", "LA": "LA", "L": "L", "RGBA": "RGBA", "I;16": "I;16", "F": "F"}


@pytest.mark.parametrize("holder, mode", [(h, m) for h in HOLDERS for m in MODES if m in HOLDERS[h]])
@pytest.mark.parametrize("format", ["png", "tif", "jpg", "webp"])
def test_color_modes(place, run, holder, mode, format):
    """Each is right, or refused by name: the right size, the kind of color it had, and near to what bicubic gives."""
    gray = smooth(14, 18)[..., 0]
    if mode == "I;16":
        made = Image.fromarray(gray.astype(np.uint16) * 257)
    elif mode in ("I", "F"):
        made = Image.fromarray((gray / 255).astype(np.float32) if mode == "F" else gray.astype(np.int32))
    else:
        color = Image.fromarray(smooth(14, 18))
        if mode.endswith("A"):
            color.putalpha(Image.fromarray(smooth(14, 18, 1, seed=5)[..., 0]))
        made = color.convert(mode) if color.mode != mode else color
    made.save(f"a.{holder}")
    result = run(f"a.{holder}", "-o", f"b.{format}", "--scale", "2")
    if result.exit_code:
        assert (result.exit_code == 2 and f"a.{holder}" in result.output) or f"b.{format}" in result.output
        assert not (place / f"b.{format}").exists()
        assert mode in ("I", "LAB", "HSV", "YCbCr") or (format == "jpg" and mode.endswith("A")), result.output
        return
    found = Image.open(f"b.{format}")
    assert found.size == (36, 28)
    kind = EXPECTED.get(mode, "RGBA" if made.has_transparency_data else "RGB")
    if format in ("jpg", "webp"):
        kind = {"I;16": "L", "F": "L"}.get(kind, kind)
        kind = {"L": "RGB", "LA": "RGBA"}.get(kind, kind) if format == "webp" else kind
    elif format == "png" and kind == "F":
        kind = "I;16"
    assert found.mode == kind or (mode == "P" and found.mode == "RGB"), (found.mode, kind)


def test_a_gray_picture_comes_out_gray_and_the_conversion_is_said(place, run, checkpoints):
    picture("a.png", "L")
    result = run("a.png", "-o", "b.png", "--scale", "2")
    assert result.exit_code == 0
    said = "a.png: the picture is gray: it was rendered as three equal channels, whose mean is the result\n"
    assert said in result.output and Image.open("b.png").mode == "L"
    picture("c.png")
    assert "channels" not in run("c.png", "-o", "d.png", "--scale", "2").output
    assert "channels" not in run("a.png", "-o", "e.png", "--scale", "2", channels=1).output
    assert "were rendered one by one" in run("c.png", "-o", "f.png", "--scale", "2", channels=1).output
    gray = torch.from_numpy(np.array(Image.open("a.png"))).expand(1, 3, -1, -1) / 255
    expected = liif_core.load(checkpoints / "3.safetensors").encode(gray).render((28, 36)).mean(1)[0].clamp(0, 1)
    assert np.abs(np.asarray(Image.open("b.png")) / 255 - expected.numpy()).max() <= 0.5 / 255 + 1e-4


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
def test_a_model_of_one_channel_renders_a_channel_at_a_time(place, run, checkpoints, mode):
    picture("a.png", mode)
    assert run("a.png", "-o", "b.png", "--scale", "2", channels=1).exit_code == 0
    found = np.asarray(Image.open("b.png")).reshape(28, 36, -1)
    first = torch.from_numpy(np.asarray(Image.open("a.png")).reshape(14, 18, -1)[..., 0].copy())[None, None] / 255
    expected = liif_core.load(checkpoints / "1.safetensors").encode(first).render((28, 36), clamp=True)[0, 0]
    assert Image.open("b.png").mode == mode
    assert np.abs(found[..., 0] / 255 - expected.numpy()).max() <= 0.5 / 255 + 1e-4


def test_transparent_pixels_do_not_bleed(place, run):
    """A red disc on transparent black: whatever can be seen of the result is as red as an opaque red picture gives."""
    y, x = np.mgrid[:24, :24]
    disc = np.zeros((24, 24, 4), np.uint8)
    disc[(y - 12) ** 2 + (x - 12) ** 2 < 64] = (255, 0, 0, 255)
    Image.fromarray(disc).save("disc.png")
    Image.fromarray(np.broadcast_to(np.uint8([255, 0, 0]), (24, 24, 3)).copy()).save("red.png")
    for name in ("disc", "red"):
        assert run(f"{name}.png", "-o", f"{name}-4.png", "--scale", "4").exit_code == 0
    found, red = np.asarray(Image.open("disc-4.png")), np.asarray(Image.open("red-4.png"))
    assert np.array_equal(found[..., :3], red)
    assert 0 < (found[..., 3] > 128).mean() < 0.6


def test_an_alpha_that_is_the_same_everywhere_stays(place, run):
    flat = Image.fromarray(smooth(14, 18))
    flat.putalpha(77)
    flat.save("a.png")
    assert run("a.png", "-o", "b.png", "--scale", "3").exit_code == 0
    assert set(np.unique(np.asarray(Image.open("b.png"))[..., 3])) == {77}


def test_sixteen_bits_stay(place, run, checkpoints):
    imagecodecs = pytest.importorskip("imagecodecs", reason="the extra 'images' is not installed")
    deep = smooth(14, 18, top=65535)
    (place / "a.png").write_bytes(imagecodecs.png_encode(deep))
    assert run("a.png", "-o", "b.png", "--scale", "2").exit_code == 0
    found = imagecodecs.png_decode((place / "b.png").read_bytes())
    assert found.dtype == np.uint16 and found.shape == (28, 36, 3)
    image = torch.from_numpy(deep.astype(np.float32) / 65535).permute(2, 0, 1).unsqueeze(0)
    expected = liif_core.load(checkpoints / "3.safetensors").encode(image).render((28, 36), clamp=True)[0]
    assert np.abs(found / 65535 - expected.permute(1, 2, 0).numpy()).max() < 1e-4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(place, run, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "a maker"
    picture("a.png", exif=exif)
    assert run("a.png", "-o", "b.png", "--scale", "2").exit_code == 0
    turned = {5: 5, 6: 6, 7: 7, 8: 8}.get(orientation)
    found = Image.open("b.png")
    assert found.size == ((28, 36) if turned else (36, 28))
    assert found.getexif().get(0x0112, 1) == 1 and found.getexif()[0x010F] == "a maker"


def test_a_profile_is_carried(place, run):
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture("a.png", icc_profile=profile)
    for name in ("b.png", "b.jpg", "b.tif", "b.webp"):
        assert run("a.png", "-o", name, "--scale", "2").exit_code == 0
        assert Image.open(name).info["icc_profile"] == profile


# Many files


def test_a_folder_with_a_bad_file(place, run):
    (place / "in" / "deeper").mkdir(parents=True)
    picture("in/a.png"), picture("in/b.jpg"), picture("in/deeper/c.webp")
    (place / "in" / "bad.png").write_bytes((place / "in" / "a.png").read_bytes()[:60])
    (place / "in" / "notes.txt").write_text("not an image")
    result = run("in", "--out-dir", "out", "--scale", "2", "--json", "log.json")
    assert result.exit_code == 3
    assert "in/bad.png" in result.output and "3 of 4 done" in result.output
    assert sorted(str(p.relative_to(place / "out")) for p in (place / "out").rglob("*") if p.is_file()) == [
        "a.png",
        "b.jpg",
        "deeper/c.webp",
    ]
    log = {entry["input"]: entry for entry in json.loads((place / "log.json").read_text())["results"]}
    assert {name: entry["status"] for name, entry in log.items()} == {
        "in/a.png": "done", "in/b.jpg": "done", "in/deeper/c.webp": "done", "in/bad.png": "failed"
    }  # fmt: skip
    assert log["in/a.png"]["width"] == 36 and "bad.png" in log["in/bad.png"]["error"][0]

    times = {p: p.stat().st_mtime_ns for p in (place / "out").rglob("*.png")}
    again = run("in", "--out-dir", "out", "--scale", "2")
    assert again.exit_code == 3 and again.output.count("skipped") == 3
    assert {p: p.stat().st_mtime_ns for p in (place / "out").rglob("*.png")} == times
    assert "skipped" not in run("in/*.jpg", "--out-dir", "out", "--scale", "2", "--overwrite").output


def test_an_interrupted_output_never_exists(place, run, monkeypatch):
    picture("a.png")

    def half(model, read, within, size, cut, **options):
        yield torch.zeros(1, 3, size[0] // 2, size[1])
        raise KeyboardInterrupt

    monkeypatch.setattr("liif_core.model.upscaler.render_bands", half)
    for name in ("b.png", "b.jpg", "b.webp", "b.tif"):
        assert run("a.png", "-o", name, "--scale", "2").exit_code == 130
    assert sorted(p.name for p in place.iterdir()) == ["a.png"]


def test_processes_share_a_folder(place, run, monkeypatch):
    (place / "in").mkdir()
    for i in range(5):
        picture(f"in/{i}.png")
    monkeypatch.setenv("WORLD_SIZE", "2")
    shares = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        result = run("in", "--out-dir", "out", "--scale", "1", "--json", f"{rank}.json")
        assert result.exit_code == 0
        assert f"RANK={rank} and WORLD_SIZE=2 are set: this process renders" in result.stderr
        shares.append([entry["input"] for entry in json.loads((place / f"{rank}.json").read_text())["results"]])
    assert shares == [["in/0.png", "in/2.png", "in/4.png"], ["in/1.png", "in/3.png"]]
    assert len(list((place / "out").iterdir())) == 5
    monkeypatch.setenv("RANK", "7")
    assert "RANK=7 WORLD_SIZE=2: expected a rank" in run("in", "--out-dir", "out", "--scale", "1").output


def test_two_hundred_broken_files(place, run):
    """Truncated and mutated pictures: none stops the run, each that cannot be read is named."""
    rng = random.Random(0)
    whole = []
    for format, mode in (
        ("PNG", "RGB"),
        ("PNG", "P"),
        ("JPEG", "RGB"),
        ("WEBP", "RGBA"),
        ("TIFF", "RGB"),
        ("GIF", "P"),
        ("BMP", "L"),
    ):
        buffer = io.BytesIO()
        Image.fromarray(smooth(6, 7)).convert(mode).save(buffer, format)
        whole.append((format.lower(), buffer.getvalue()))
    (place / "in").mkdir()
    for i in range(200):
        format, data = whole[i % len(whole)]
        data = bytearray(data)
        if rng.random() < 0.4:
            data = data[: rng.randrange(len(data))]
        for _ in range(rng.randrange(1, 6)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        (place / "in" / f"{i}.{format}").write_bytes(data)
    result = run(
        "in", "--out-dir", "out", "--scale", "1.5", "--format", "png", "--json", "log.json", "--max-pixels", "100000"
    )
    assert result.exit_code == 3
    log = json.loads((place / "log.json").read_text())["results"]
    assert len(log) == 200
    failed = [entry for entry in log if entry["status"] == "failed"]
    assert 20 < len(failed) < 200
    assert all(f"error: {entry['input']}: " in result.output for entry in failed)
    assert all(
        Image.open(entry["output"]).size == (entry["width"], entry["height"])
        for entry in log
        if entry["status"] == "done"
    )


# Refused before anything is computed


@pytest.fixture
def computing_is_an_error(monkeypatch):
    from liif_core.model.composed import ComposedModel

    monkeypatch.setattr(ComposedModel, "encode", lambda *a, **k: pytest.fail("computed"))


@pytest.mark.parametrize(
    "options, expected",
    [
        (
            ["-o", "b.jpg", "--scale", "4000"],
            "b.jpg: 72000x56000 is beyond the 65,500 pixels a side that JPEG can hold",
        ),
        (["-o", "b.webp", "--scale", "1000"], "beyond the 16,383 pixels a side that WebP can hold"),
        (["-o", "b.tif", "--scale", "100000"], "has"),  # the disk
        (["-o", "b.xyz", "--scale", "2"], "b.xyz: no format has the suffix '.xyz'"),
        (
            ["-o", "b.png", "--scale", "2", "--region", "0,0,15,3"],
            "a.png: --region: it ends at row 15 and column 3, and the image has 14 rows",
        ),
        (["-o", "b.png", "--scale", "2", "--max-pixels", "100"], "--max-pixels"),
        (["-o", "b.webp", "--size", "15000x15000", "--memory", "100MB"], "--memory: 100 MB are too few"),
    ],
)
def test_limits_are_found_first(place, run, computing_is_an_error, options, expected):
    picture("a.png")
    result = run("a.png", *options)
    assert result.exit_code == 2 and expected in result.output, result.output
    assert sorted(p.name for p in place.iterdir()) == ["a.png"]


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["a.png", "-o", "b.png"], ["expected one of --scale S"]),
        (["a.png", "-o", "b.png", "--scale", "2", "--size", "3x"], ["expected one of --scale S"]),
        (
            ["a.png", "--scale", "0"],
            ["--scale 0: expected a positive number", "expected one of -o FILE and --out-dir DIR"],
        ),
        (["a.png", "-o", "b.png", "--scale", "nan"], ["--scale nan"]),
        (["a.png", "-o", "b.png", "--size", "x"], ["--size x: expected WxH"]),
        (["a.png", "-o", "b.png", "--size", "0x3"], ["--size 0x3"]),
        (["a.png", "-o", "b.png", "--scale", "2", "--region", "3,0,3,9"], ["--region 3,0,3,9: expected"]),
        (["a.png", "-o", "b.png", "--scale", "2", "--memory", "2XB"], ["--memory 2XB: expected"]),
        (["a.png", "-o", "b.png", "--scale", "2", "--format", "gif"], ["--format gif: expected one of png"]),
        (["gone.png", "*.bmp", "-o", "b.png", "--scale", "2"], ["gone.png: no such file", "*.bmp: no such file"]),
        (["a.png", "a.jpg", "-o", "b.png", "--scale", "2"], ["-o b.png: expected one input image, got 2"]),
        (
            ["a.png", "a.jpg", "--out-dir", "out", "--format", "png", "--scale", "2"],
            ["out/a.png: is the output of a.jpg and of a.png"],
        ),
        (["a.png", "--out-dir", ".", "--scale", "2"], ["a.png: its output would replace it"]),
        (["a.png", "-o", "b.png", "--scale", "2", "--precision", "fp16", "--device", "cpu"], ["needs a GPU"]),
    ],
)
def test_mistakes_are_reported_together(place, run, computing_is_an_error, arguments, expected):
    picture("a.png"), picture("a.jpg")
    result = run(*arguments)
    assert result.exit_code == 2
    for text in expected:
        assert text in result.output, result.output


def test_a_constant_image_stays_constant(place, shared):
    """With the published weights, within 1/255."""
    Image.new("RGB", (20, 16), (90, 140, 200)).save("a.png")
    arguments = [
        "upscale",
        "a.png",
        "-o",
        "b.png",
        "--scale",
        "2.3",
        "--checkpoint",
        str(shared / "checkpoints" / "edsr-baseline-liif.pth"),
    ]
    assert CliRunner().invoke(liif, arguments).exit_code == 0
    found = np.asarray(Image.open("b.png")).astype(int)
    assert np.abs(found - [90, 140, 200]).max() <= 1


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures peak memory by Linux's /proc")
def test_memory_is_bounded(place, checkpoints):
    """8 megapixels, whose float32 values take 96 MB, are rendered in the 60 MB that --memory allows, within a fifth.

    Measured in a process of its own: the peak above what is resident after a small image, when torch is loaded and its
    threads have started. That more is used where more is allowed shows that the measurement sees what is used.
    """
    picture("a.png", size=(40, 30))
    options = ["--quiet", "--overwrite", "--checkpoint", str(checkpoints / "3.safetensors")]
    code = f"""
from pathlib import Path
from liif_core.cli import liif

def resident(which):
    return int(Path("/proc/self/status").read_text().partition(which + ":")[2].split()[0]) * 1024 / 1e6

def upscale(*arguments):
    try:
        liif(["upscale", "a.png", *arguments, *{options!r}])
    except SystemExit as stop:
        assert not stop.code

upscale("-o", "small.png", "--scale", "1", "--memory", "60MB")
before = resident("VmRSS")
for memory in ("60MB", "240MB"):
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    upscale("-o", "b.png", "--size", "2000x4000", "--memory", memory)
    print("used", resident("VmHWM") - before)
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # threads that wait for busy cores take minutes
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert Image.open("b.png").size == (2000, 4000)
    with_60, with_240 = (float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("used "))
    assert 20 < with_60 < 72 < with_240


def zeros(path, side, **options):
    """A black RGB file."""
    Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(path, **options)


@pytest.mark.parametrize("name", ["large.jpg", "large.webp"])
def test_the_memory_that_a_large_input_takes_is_said_before_it_is_decoded(place, run, monkeypatch, name):
    zeros(name, 4000)
    with monkeypatch.context() as patch:
        patch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
        result = run(name, "-o", "b.png", "--size", "40x40", "--memory", "60MB")
    assert result.exit_code == 2
    kind = "JPEG" if name.endswith("jpg") else "WEBP"
    expected = rf"{name}: --memory: 60 MB are too few: this {kind} of 4000x4000 pixels is decoded as a whole, .* \d+ MB"
    assert re.search(expected, result.output), result.output
    assert "convert the image to a TIFF with tiles" in result.output and not Path("b.png").exists()
    enough = re.search(r"give at least (\d+) MB", result.output)[1]
    # Of a small region, so that it is quick: the memory is checked for it as for the whole picture.
    region = ["--size", "40x40", "--region", "0,0,20,20"]
    assert run(name, "-o", "b.png", *region, "--memory", f"{enough}MB").exit_code == 0
    assert run(name, "-o", "c.png", *region, "--memory", f"{int(enough) * 3 // 4}MB").exit_code == 2


@pytest.mark.parametrize("name, options", [("large.png", {"compress_level": 1}), ("large.tif", {})])
def test_a_large_input_is_read_in_parts(place, run, name, options):
    """Of 48 MB, in 60: what is rendered of a region is what a crop of the input gives where nothing else is near."""
    pixels = np.zeros((4000, 4000, 3), np.uint8)
    pixels[3000:3100, 2000:2100] = np.random.default_rng(0).integers(0, 256, (100, 100, 3))
    Image.fromarray(pixels).save(name, **options)
    Image.fromarray(pixels[2980:3120, 1980:2120]).save("crop.png")
    size = ["--size", "120x120", "--memory", "60MB", "--region"]
    assert run(name, "-o", "b.png", *size, "3020,2020,3060,2060").exit_code == 0
    assert run("crop.png", "-o", "c.png", *size, "40,40,80,80").exit_code == 0
    found, expected = (np.asarray(Image.open(path)).astype(int) for path in ("b.png", "c.png"))
    assert np.ptp(found) > 100 and np.abs(found - expected).max() <= 1


def test_too_little_memory_for_one_tile_beside_a_large_input_is_said(place, run):
    zeros("large.png", 4000, compress_level=1)
    result = run("large.png", "-o", "b.png", "--size", "40x40", "--memory", "10MB")
    assert result.exit_code == 2 and "--memory: 10 MB are too few" in result.output, result.output
    enough = re.search(r"give at least (\d+) MB", result.output)[1]
    region = ["--size", "40x40", "--region", "0,0,20,20"]
    assert run("large.png", "-o", "b.png", *region, "--memory", f"{enough}MB").exit_code == 0


def test_the_limit_of_pixels_in_the_help_is_that_of_the_reader():
    (option,) = [parameter for parameter in liif.commands["upscale"].params if parameter.name == "max_pixels"]
    assert option.default == MAX_PIXELS


def test_the_account_of_metadata_in_one_line_or_with_reasons_and_in_the_summary(run, place):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a view"
    picture(place / "a.jpg", exif=exif, dpi=(300, 300))
    plain = run("a.jpg", "-o", "a.webp", "--scale", 2, "--json", "log.json").output
    assert re.search(
        r"^a\.webp: 28 x 36, .* s; kept EXIF, resolution 300 x 300 dpi; changed orientation 6$", plain, re.M
    )
    said = run("a.jpg", "-o", "b.webp", "--scale", 2, "-v").output
    assert "\n  kept EXIF\n" in said and "\n  changed orientation 6: applied, the picture is upright\n" in said
    picture(place / "c.png", pnginfo=text("Title", "Quarters"))
    run("c.png", "-o", "c.tif", "--scale", 2, "--region", "0,0,5,5", "--json", "c.json")
    (result,) = json.loads((place / "log.json").read_text())["results"]
    assert result["metadata"]["changed"] == [{"what": "orientation 6", "why": "applied, the picture is upright"}]
    (result,) = json.loads((place / "c.json").read_text())["results"]
    assert result["metadata"]["changed"] == [{"what": "text Title", "why": "now in XMP"}]


def text(keyword, words):
    info = PngImagePlugin.PngInfo()
    info.add_text(keyword, words)
    return info
