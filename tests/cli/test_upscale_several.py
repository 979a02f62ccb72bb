"""Animations and files of several pages: ``liif upscale`` renders all of them, or says what to do."""

import io
import json
import struct

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from PIL import Image, ImageDraw
from reference import SMALL_TABLE, small_model

import liif_core
from liif_core.cli import liif
from liif_core.images import Timing, several
from liif_core.images.apng import _seconds
from liif_core.training.checkpoint import Checkpoint, save_checkpoint

DURATIONS = [100, 50, 70, 200]


@pytest.fixture(scope="module")
def checkpoint(registry, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoints") / "a.safetensors"
    model = small_model(registry, hidden=(8,), residual="bilinear", channels=3)
    experiment = {"name": "small", "model": {**SMALL_TABLE, "channels": 3}}
    save_checkpoint(path, Checkpoint(model.state_dict(), experiment, (1.0, 4.0)))
    return path


@pytest.fixture
def run(checkpoint):
    def run(*arguments):
        command = ["upscale", *map(str, arguments), "--scale", "2", "--checkpoint", str(checkpoint), "--quiet"]
        result = CliRunner().invoke(liif, command)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


def pictures(mode="RGB", size=(9, 7)):
    """Four, with a square that moves; in RGBA it moves over nothing."""
    drawn = []
    for number in range(len(DURATIONS)):
        image = Image.new("RGBA", size, (0, 0, 0, 0) if mode == "RGBA" else (200, 180, 40, 255))
        ImageDraw.Draw(image).rectangle((number, 1, number + 3, 4), fill=(20, 60, 220, 255))
        drawn.append(image.convert(mode))
    return drawn


def animation(path, images, **options):
    options = {"duration": DURATIONS[: len(images)], "loop": 3, "disposal": 2, **options}
    if path.suffix == ".webp":
        options |= {"lossless": True}
        options.pop("disposal")
    images[0].save(path, save_all=True, append_images=images[1:], **options)
    return path


def played(path):
    """The frames as Pillow shows them, their durations, and the number of plays that the file names."""
    shown, durations = [], []
    with Image.open(path) as image:
        for number in range(image.n_frames):
            image.seek(number)
            image.load()
            shown.append(np.asarray(image.convert("RGBA")))
            durations.append(image.info.get("duration"))
        return shown, durations, image.info.get("loop")


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("target", ["png", "webp", "tif"])
@pytest.mark.parametrize("source", ["gif", "png", "webp"])
def test_every_frame_is_rendered_as_it_is_by_itself(source, target, mode, tmp_path, run):
    path, output = animation(tmp_path / f"in.{source}", pictures(mode)), tmp_path / f"out.{target}"
    result = run(path, "-o", output, "--lossless")
    assert result.exit_code == 0 and "18 x 14, 4 frames" in result.output, result.output
    shown, durations, plays = played(output)
    assert len(shown) == 4
    for number, frame in enumerate(shown, start=1):
        alone = tmp_path / f"{number}.png"
        assert run(path, "-o", alone, "--frame", number).exit_code == 0
        expected = np.asarray(Image.open(alone).convert("RGBA"))
        seen = expected[..., 3] > 0  # a lossless WebP does not keep colors that nobody sees
        np.testing.assert_array_equal(frame[..., 3], expected[..., 3])
        np.testing.assert_array_equal(frame[seen], expected[seen])
    if target == "tif":
        assert "how the animation is played is left out" in result.output
    else:
        assert durations == DURATIONS
        assert plays == (4 if source == "gif" else 3)  # a GIF says how often it is repeated


@pytest.mark.parametrize("source, loop, plays", [("gif", None, 1), ("gif", 0, 0), ("webp", 0, 0), ("png", 1, 1)])
def test_how_often_an_animation_plays_is_kept(source, loop, plays, tmp_path, run):
    path = animation(tmp_path / f"in.{source}", pictures(), loop=loop)
    for target in ("png", "webp"):
        assert run(path, "-o", tmp_path / f"out.{target}").exit_code == 0
        assert played(tmp_path / f"out.{target}")[2] == plays


def test_equal_frames_stay_apart(tmp_path, run):
    path = tmp_path / "in.gif"
    parts = [image.quantize(8) for image in pictures()]
    path.write_bytes(gif([parts[0], parts[0], parts[1]]))
    assert len(played(path)[0]) == 3
    run(path, "-o", tmp_path / "out.png")
    shown, durations, _ = played(tmp_path / "out.png")
    assert len(shown) == 3 and durations == [70, 70, 70]
    np.testing.assert_array_equal(shown[0], shown[1])


def gif(images):
    """An animated GIF in which equal frames are not put together, as Pillow does."""
    whole = io.BytesIO()
    images[0].save(whole, "GIF")
    data = bytearray(whole.getvalue()[:-1])
    control = b"\x21\xf9\x04\x00" + struct.pack("<H", 7) + b"\x00\x00"
    start = 13 + 3 * 2 ** ((data[10] & 7) + 1)
    data[start:] = b""
    for image in images:
        one = io.BytesIO()
        image.save(one, "GIF")
        body = one.getvalue()
        own = 13 + 3 * 2 ** ((body[10] & 7) + 1)
        descriptor = body.index(b",", own)
        table = body[13:own]  # as the frame's own
        packed = 0x80 | (body[10] & 7)
        data += control + body[descriptor : descriptor + 9] + bytes([packed]) + table + body[descriptor + 10 : -1]
    return bytes(data) + b";"


def test_a_still_picture_beside_an_animation_is_left_out_with_a_note(tmp_path, run):
    path = animation(tmp_path / "in.png", pictures(), duration=80, default_image=True)
    result = run(path, "-o", tmp_path / "out.png")
    assert "its still picture for programs without animations is left out; --frame 1 renders it" in result.output
    assert [len(played(tmp_path / "out.png")[0]), played(tmp_path / "out.png")[1]] == [3, [80, 80, 80]]


def test_an_animation_in_a_folder_becomes_an_animated_png(tmp_path, run):
    animation(tmp_path / "in.gif", pictures())
    result = run(tmp_path, "--out-dir", tmp_path / "out", "--json", tmp_path / "log.json")
    assert result.exit_code == 0
    assert len(played(tmp_path / "out" / "in.png")[0]) == 4
    (done,) = json.loads((tmp_path / "log.json").read_text())["results"]
    assert (done["pictures"], done["width"], done["height"]) == (4, 18, 14)
    assert "already exists, skipped" in run(tmp_path, "--out-dir", tmp_path / "out").output


def test_a_region_of_every_frame(tmp_path, run):
    path = animation(tmp_path / "in.webp", pictures())
    assert run(path, "-o", tmp_path / "out.png", "--region", "1,2,5,8").exit_code == 0
    assert [frame.shape for frame in played(tmp_path / "out.png")[0]] == [(8, 12, 4)] * 4


def test_pages_keep_their_sizes_depths_and_layouts(tmp_path, run):
    path, output, rng = tmp_path / "in.tif", tmp_path / "out.tif", np.random.default_rng(0)
    pages = [
        rng.integers(0, 256, (6, 9, 3), np.uint8),
        rng.integers(0, 65536, (5, 4), np.uint16),
        rng.random((7, 8)).astype(np.float32),
        rng.integers(0, 256, (6, 9, 4), np.uint8),
    ]
    for page in pages:
        extra = {"photometric": "rgb", "extrasamples": ["unassalpha"]} if page.shape[-1] == 4 and page.ndim == 3 else {}
        tifffile.imwrite(path, page, append=path.exists(), metadata=None, description="named", **extra)
    result = run(path, "-o", output)
    assert result.exit_code == 0 and "18 x 12, 4 pages" in result.output, result.output
    assert "pages 2, 3: the picture is gray" in result.output and "only page" not in result.output
    with tifffile.TiffFile(output) as file:
        written = [page.asarray() for page in file.pages]
    for number, (page, large) in enumerate(zip(pages, written, strict=True), start=1):
        assert large.dtype == page.dtype and large.shape == (2 * page.shape[0], 2 * page.shape[1], *page.shape[2:])
        run(path, "-o", tmp_path / f"{number}.tif", "--frame", number)
        np.testing.assert_array_equal(large, tifffile.imread(tmp_path / f"{number}.tif"))


def test_an_output_of_one_picture_is_refused_and_nothing_is_written(tmp_path, run):
    moving, pages = animation(tmp_path / "in.gif", pictures()), tmp_path / "pages.tif"
    for _ in range(2):
        tifffile.imwrite(pages, np.zeros((6, 9), np.uint8), append=pages.exists())
    result = run(moving, "-o", tmp_path / "out.jpg")
    assert result.exit_code == 2
    assert "in.gif: has 4 frames, and a JPEG file holds one picture; write png, webp or tif, which can" in result.output
    result = run(pages, "-o", tmp_path / "out.png")
    assert result.exit_code == 2
    assert "has 2 pages, and a PNG file holds one picture; write tif, which can hold all of them" in result.output
    assert "choose one with --frame N" in result.output
    assert run(moving, "-o", tmp_path / "out.jpg", "--frame", "2").exit_code == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.gif", "out.jpg", "pages.tif"]


def test_a_broken_frame_is_found_before_work_begins(tmp_path, run):
    path = animation(tmp_path / "in.gif", pictures())
    for name, at in (("gif", 0.8), ("webp", 0.7)):
        whole = animation(tmp_path / f"whole.{name}", pictures(size=(64, 64)))
        path = tmp_path / f"cut.{name}"
        path.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * at)])
        result = run(path, "-o", tmp_path / "out.png")
        assert result.exit_code == 2 and str(path) in result.output, result.output
        assert "broken or cut off" in result.output and "intact copy" in result.output
        assert not (tmp_path / "out.png").exists()


def test_a_frame_of_too_many_pixels_is_no_broken_one(tmp_path, run):
    data = bytearray(gif([image.quantize(8) for image in pictures()[:2]]))
    at = data.rindex(b",")
    data[at + 5 : at + 9] = struct.pack("<HH", 65535, 65535)
    (tmp_path / "in.gif").write_bytes(data)
    result = run(tmp_path / "in.gif", "-o", tmp_path / "out.png")
    assert result.exit_code == 2 and "more pixels than the 178,956,970 that are read" in result.output, result.output


def test_too_little_memory_for_all_frames_names_other_formats(tmp_path, run):
    path = animation(tmp_path / "in.gif", pictures(size=(900, 900)))
    result = run(path, "-o", tmp_path / "out.webp", "--memory", "120MB")
    assert result.exit_code == 2 and "use --format png or tif, which are written row by row" in result.output


def test_16_bit_animations_are_refused_by_name(tmp_path, run):
    path = animation(tmp_path / "in.png", [Image.new("I;16", (9, 7), value) for value in (7, 60000)], disposal=0)
    result = run(path, "-o", tmp_path / "out.png")
    assert result.exit_code == 2 and "of 16 bits per sample: only frame 1 is read; choose it with" in result.output
    assert run(path, "-o", tmp_path / "out.png", "--frame", "1").exit_code == 0


def test_a_single_picture_is_none_of_several(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(path)
    assert several(path) is None
    with pytest.raises(liif_core.UserError, match="there is no such file"):
        several(tmp_path / "b.png")


def test_durations_in_whole_milliseconds_do_not_drift():
    whole = Timing((1000 / 30,) * 300, 0).whole_milliseconds()
    starts = np.cumsum([0, *whole])
    assert np.abs(starts - np.arange(301) * 1000 / 30).max() <= 0.5


@pytest.mark.parametrize("milliseconds", [0, 1, 1000 / 3, 40, 999.99, 1000, 123456.789, 65_535_000, 1e9])
def test_durations_fit_into_an_apng(milliseconds):
    delay = _seconds(milliseconds)
    assert 0 <= delay.numerator < 65536 and 0 < delay.denominator < 65536
    assert float(delay) == pytest.approx(min(milliseconds / 1000, 65535), rel=1e-4, abs=1e-6)
