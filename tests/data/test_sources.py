"""Image sources: what is found, what is refused, and that all of it is said at once."""

import hashlib
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from liif_core.data import decoding, finding
from liif_core.data.sources import MissingData, open_images
from liif_core.errors import UserError
from liif_core.experiment.schema import (
    BenchmarkSource,
    Div2kSource,
    FolderSource,
    PairedFoldersSource,
    SkimageSource,
)
from liif_core.sizes import Scale


def pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([height, width, seed]).integers(0, 256, (height, width, 3), dtype=np.uint8)


def put(path: Path, image: np.ndarray | Image.Image, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


def problems_of(source: object, **options: object) -> tuple[str, ...]:
    with pytest.raises(UserError) as caught:
        open_images(source, **options)
    assert not isinstance(caught.value, MissingData)
    return caught.value.problems


# Folders


def test_a_folder_is_read_at_any_depth_in_order_of_name(tmp_path):
    for name in ("b.png", "a.webp", "deep/er/c.bmp", "D.PNG", "e.tif", "f.ppm"):
        put(tmp_path / name, pixels(5, 7, len(name)), **({"lossless": True} if name.endswith("webp") else {}))
    put(tmp_path / ".hidden.png", pixels(2, 2))
    put(tmp_path / ".cache" / "g.png", pixels(2, 2))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "features.h5").write_bytes(b"no image")
    images = open_images(FolderSource(tmp_path))
    assert images.names == ("D.PNG", "a.webp", "b.png", "deep/er/c.bmp", "e.tif", "f.ppm")
    assert len(images) == 6 and images.sizes == ((5, 7),) * 6 and images.pair_scales == ()
    for i, name in enumerate(images.names):
        assert np.array_equal(images.image(i), pixels(5, 7, len(name)))
        assert images.image(i).dtype == np.uint8
        assert images.low_resolution(i, Scale(2, 2)) is None
    assert open_images(FolderSource(tmp_path, limit=2)).names == images.names[:2]


def test_every_accepted_mode_becomes_gray_or_rgb(tmp_path):
    rgb, gray = pixels(6, 8), pixels(6, 8, 1)[:, :, 0]
    palette = Image.fromarray(rgb).quantize(16)
    black_and_white = Image.fromarray(gray > 128)
    for image in (black_and_white, Image.fromarray(gray), palette, Image.fromarray(rgb)):
        put(tmp_path / f"{image.mode}.png", image)
    expected = {"1": (gray > 128) * np.uint8(255), "L": gray, "P": np.asarray(palette.convert("RGB")), "RGB": rgb}
    for channels in (1, 3):
        images = open_images(FolderSource(tmp_path), channels)
        for i, mode in enumerate(("1", "L", "P", "RGB")):
            image, want = images.image(i), expected[mode]
            assert image.shape == (6, 8, channels) and image.dtype == np.uint8
            if want.ndim == 2:
                assert (image == want[:, :, None]).all()
            elif channels == 3:
                assert np.array_equal(image, want)
            else:  # ITU-R 601 luma, as Pillow's documentation gives it
                luma = want @ np.array([299, 587, 114]) / 1000
                assert np.abs(image[:, :, 0] - luma).max() <= 1


def test_channels_that_no_image_file_has(tmp_path):
    with pytest.raises(UserError, match="model.channels: image files have 1 or 3, got 4"):
        open_images(FolderSource(tmp_path), channels=4)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "alpha.png": (lambda p: put(p, Image.new("RGBA", (9, 9))), "transparent (mode RGBA)"),
    "gray-alpha.png": (lambda p: put(p, Image.new("LA", (9, 9))), "transparent (mode LA)"),
    "palette-alpha.png": (lambda p: put(p, Image.new("P", (9, 9)), transparency=0), "transparent (mode P)"),
    "deep.png": (lambda p: put(p, Image.fromarray(np.zeros((9, 9), np.uint16))), "mode I;16"),
    "float.tif": (lambda p: put(p, Image.fromarray(np.zeros((9, 9), np.float32))), "mode F"),
    "deep-color.tif": (lambda p: deep_color(p), "mode RGB;16"),
    "deep-color.png": (lambda p: deep_color(p), "mode RGB;16"),
    "mapped.pcx": (lambda p: put(p, pixels(9, 9)), "PCX files are not read; convert it to PNG or TIFF first"),
    "layers.psd": (lambda p: p.write_bytes(b"8BPS\0\1" + bytes(20)), "Photoshop files are not read"),
    "two.tif": (
        lambda p: put(p, pixels(9, 9), save_all=True, append_images=[Image.new("RGB", (9, 9))]),
        "a TIFF of several pages (2 pages): only one page at a time is read",
    ),
    "print.jpg": (lambda p: put(p, Image.new("CMYK", (9, 9))), "mode CMYK"),
    "moving.gif": (
        lambda p: put(p, Image.new("L", (9, 9)), save_all=True, append_images=[Image.new("L", (9, 9), 255)]),
        "an animated GIF (2 frames): only one frame at a time is read",
    ),
    "text.png": (lambda p: p.write_text("no image"), "not an image, or broken in its header"),
    "empty.jpg": (lambda p: p.write_bytes(b""), "an empty file, such as an interrupted copy leaves"),
    "cut.png": (lambda p: cut(put(p, pixels(90, 90))), "broken or cut off"),
    "cut.jpg": (lambda p: cut(put(p, pixels(90, 90))), "broken or cut off"),
    "cut.webp": (lambda p: cut(put(p, pixels(90, 90), lossless=True)), "broken or cut off"),
    "cut.tif": (lambda p: cut(put(p, pixels(90, 90))), "broken or cut off"),
    "nowhere.png": (lambda p: p.symlink_to(p.parent / "gone.png"), "there is no such file"),
    "small.png": (lambda p: put(p, pixels(40, 8)), "8x40 pixels are too few for crops of up to 9"),
}


def deep_color(path: Path) -> None:
    """48-bit RGB, which Pillow would read as 24-bit."""
    values = pixels(9, 9).astype(np.uint16) * 257
    if path.suffix == ".tif":
        pytest.importorskip("tifffile").imwrite(path, values, photometric="rgb")
    else:
        path.write_bytes(pytest.importorskip("imagecodecs").png_encode(values))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_everything_wrong_is_named_at_once(tmp_path):
    put(tmp_path / "good.png", pixels(9, 9))
    for name, (make, _) in BAD.items():
        make(tmp_path / name)
    problems = problems_of(FolderSource(tmp_path), smallest=9)
    assert len(problems) == len(BAD)
    for name, (_, reason) in BAD.items():
        (line,) = [line for line in problems if line.startswith(f"{tmp_path / name}: ")]
        assert reason in line and "\n" not in line


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_images_are_turned_upright(tmp_path, suffix, orientation):
    image, exif = Image.fromarray(pixels(6, 9)), Image.Exif()
    exif[0x0112] = orientation
    put(tmp_path / f"a.{suffix}", image, exif=exif)
    with Image.open(tmp_path / f"a.{suffix}") as stored:
        seen = np.asarray(ImageOps.exif_transpose(stored))
    images = open_images(FolderSource(tmp_path))
    assert images.sizes == (seen.shape[:2],) and (images.sizes == ((9, 6),)) == (orientation > 4)
    assert np.array_equal(images.image(0), seen)


def test_every_suffix_of_a_format_that_is_read_is_found(tmp_path):
    for name in ("a.apng", "b.jfif", "c.jpe", "d.pnm", "e.dib", "f.JPEG"):
        kind = {".apng": "PNG", ".pnm": "PPM", ".dib": "BMP"}.get(Path(name).suffix, "JPEG")
        put(tmp_path / name, pixels(9, 9), format=kind)
    assert len(open_images(FolderSource(tmp_path))) == 6


def test_an_image_of_too_many_pixels_is_refused(tmp_path, monkeypatch):
    put(tmp_path / "a.png", pixels(9, 9))
    monkeypatch.setattr(decoding, "MAX_PIXELS", 80)
    (line,) = problems_of(FolderSource(tmp_path))
    assert (
        line
        == f"{tmp_path / 'a.png'}: more pixels (9x9) than the 80 that images for training may have; cut it into parts"
    )


def test_all_problems_are_listed(tmp_path):
    for i in range(25):
        put(tmp_path / f"{i:02}.png", pixels(3, 3))
    problems = problems_of(FolderSource(tmp_path), smallest=4)
    assert [problem.partition(":")[0] for problem in problems] == [str(tmp_path / f"{i:02}.png") for i in range(25)]


def test_bad_images_are_left_out_where_asked(tmp_path):
    for name in ("a.png", "c.png"):
        put(tmp_path / name, pixels(9, 9, ord(name[0])))
    alone = open_images(FolderSource(tmp_path), smallest=9)
    for name, (make, _) in BAD.items():
        make(tmp_path / name)
    images = open_images(FolderSource(tmp_path), smallest=9, skip_bad=True)
    assert images.names == alone.names == ("a.png", "c.png") and images.fingerprint == alone.fingerprint
    assert np.array_equal(images.image(1), pixels(9, 9, ord("c")))
    assert len(images.left_out) == len(BAD) and len(images.notes) == len(BAD) + 1
    for name, (_, reason) in BAD.items():
        (line,) = [line for line in images.left_out if line.startswith(f"{tmp_path / name}: ")]
        assert reason in line
    assert alone.left_out == () and alone.notes == []


def test_leaving_out_does_not_excuse_a_folder_without_good_images(tmp_path):
    put(tmp_path / "small.png", pixels(3, 3))
    assert problems_of(FolderSource(tmp_path), smallest=4, skip_bad=True)[0].startswith(f"{tmp_path / 'small.png'}: ")
    (tmp_path / "empty").mkdir()
    assert "no image in it" in problems_of(FolderSource(tmp_path / "empty"), skip_bad=True)[0]


def test_a_bad_pair_is_left_out_whole(tmp_path):
    for i in range(3):
        put(tmp_path / "hr" / f"{i}.png", pixels(20, 20, i))
        put(tmp_path / "lr" / f"{i}.png", pixels(10, 10, i))
    cut(tmp_path / "lr" / "1.png")
    images = open_images(PairedFoldersSource(tmp_path / "hr", tmp_path / "lr"), skip_bad=True)
    assert images.names == ("0.png", "2.png") and images.pair_scales == (2, 2)
    assert np.array_equal(images.low_resolution(1, Scale(2, 2)), pixels(10, 10, 2))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_that_is_opaque_everywhere_is_dropped(tmp_path, mode):
    image = Image.fromarray(pixels(9, 9)).convert("L" if mode == "LA" else "RGB")
    put(tmp_path / "a.png", image)
    put(tmp_path / "b.png", image.convert(mode))
    images = open_images(FolderSource(tmp_path))
    assert np.array_equal(images.image(0), images.image(1))
    seen = image.convert(mode)
    seen.putpixel((3, 3), (*seen.getpixel((3, 3))[:-1], 254))
    put(tmp_path / "b.png", seen)
    assert "b.png: transparent" in problems_of(FolderSource(tmp_path))[0]


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_links_to_folders_are_followed_once(tmp_path):
    put(tmp_path / "set" / "a.png", pixels(5, 5, 1))
    put(tmp_path / "set" / "deep" / "b.png", pixels(5, 5, 2))
    put(tmp_path / "more" / "c.png", pixels(5, 5, 3))
    (tmp_path / "more" / "loop").symlink_to(tmp_path / "more")
    (tmp_path / "set" / "more").symlink_to(tmp_path / "more")
    (tmp_path / "set" / "again").symlink_to("deep")  # deep itself is there already
    assert open_images(FolderSource(tmp_path / "set")).names == ("a.png", "deep/b.png", "more/c.png")
    (tmp_path / "linked").symlink_to(tmp_path / "set")
    assert len(open_images(FolderSource(tmp_path / "linked"))) == 3
    (tmp_path / "set" / "up").symlink_to("..")
    with pytest.warns(finding.LeftOut, match="set/up: left out: a link to a folder that it is in"):
        assert len(open_images(FolderSource(tmp_path / "set"))) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_utf8(tmp_path):
    put(tmp_path / "a.png", pixels(5, 5))
    os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/caf\xe9.png")
    images = open_images(FolderSource(tmp_path), memory_gb=0)
    assert images.names == ("caf\\xe9.png",) and np.array_equal(images.image(0), pixels(5, 5))
    put(tmp_path / "hr" / "b.png", pixels(20, 20))
    put(tmp_path / "lr" / "b.png", pixels(10, 10))
    for folder in ("hr", "lr"):
        os.rename(tmp_path / folder / "b.png", os.fsencode(tmp_path / folder) + b"/\xff.png")
    pair = open_images(PairedFoldersSource(tmp_path / "hr", tmp_path / "lr"))
    assert pair.names == ("\\xff.png",) and len(pair.fingerprint) == 64


def test_an_image_that_changes_meanwhile_is_named(tmp_path):
    path = put(tmp_path / "a.png", pixels(6, 6))
    images = open_images(FolderSource(tmp_path), memory_gb=0)
    put(path, pixels(6, 6), compress_level=0)  # the same pixels, written again
    assert np.array_equal(images.image(0), pixels(6, 6))
    for other in (pixels(6, 6, 1), pixels(3, 3)):
        put(path, other)
        os.utime(path, ns=(1, 1))
        with pytest.raises(UserError, match="a.png: was changed or replaced while it was in use"):
            images.image(0)


def test_no_folder_is_missing_data_but_an_empty_one_or_a_file_is_a_mistake(tmp_path):
    with pytest.raises(MissingData, match="gone: no such folder"):
        open_images(FolderSource(tmp_path / "gone"))
    assert "no image in it" in problems_of(FolderSource(tmp_path))[0]
    (tmp_path / "file").write_text("")
    (line,) = problems_of(FolderSource(tmp_path / "file"))
    assert "file: cannot be read" in line


# Memory, identity


@pytest.mark.parametrize("memory", [0.0, 3 * 10 * 12 * 2.5 / 1e9, 1.0])
def test_arrays_do_not_depend_on_what_is_held_and_only_uint8_is(tmp_path, memory):
    for i in range(4):
        put(tmp_path / f"{i}.png", pixels(10, 12, i))
    images = pickle.loads(pickle.dumps(open_images(FolderSource(tmp_path), memory_gb=memory)))
    assert [path.name for path in images._held] == [f"{i}.png" for i in range({0.0: 0, 1.0: 4}.get(memory, 2))]
    for _ in range(2):
        assert all(np.array_equal(images.image(i), pixels(10, 12, i)) for i in range(4))
    assert all(array.dtype == np.uint8 for array in images._held.values())
    assert sum(array.nbytes for array in images._held.values()) <= memory * 1e9


def test_the_budget_counts_low_resolution_images_too(tmp_path):
    for i in range(3):
        put(tmp_path / "hr" / f"{i}.png", pixels(20, 20, i))
        put(tmp_path / "lr" / f"{i}.png", pixels(10, 10, i))
    images = open_images(PairedFoldersSource(tmp_path / "hr", tmp_path / "lr"), memory_gb=3 * 1000 / 1e9)
    assert sum(array.nbytes for array in images._held.values()) <= 3000
    assert all(np.array_equal(images.low_resolution(i, Scale(2, 2)), pixels(10, 10, i)) for i in range(3))


def test_a_file_that_goes_away_is_named(tmp_path):
    path = put(tmp_path / "a.png", pixels(4, 4))
    images = open_images(FolderSource(tmp_path), memory_gb=0)
    path.unlink()
    with pytest.raises(UserError, match="a.png: there is no such file"):
        images.image(0)


def test_the_fingerprint_is_of_names_and_pixels(tmp_path):
    put(tmp_path / "a" / "1.png", pixels(4, 4))
    put(tmp_path / "b" / "1.png", pixels(4, 4), compress_level=0)
    put(tmp_path / "c" / "2.png", pixels(4, 4))
    put(tmp_path / "d" / "1.png", pixels(4, 4, 1))
    a, b, c, d = (open_images(FolderSource(tmp_path / name)).fingerprint for name in "abcd")
    assert a == b and len({a, c, d}) == 3
    assert a != open_images(FolderSource(tmp_path / "a"), channels=1).fingerprint
    assert a == open_images(FolderSource(tmp_path / "a"), memory_gb=0).fingerprint
    line = f"1.png\0{(4, 4)}\0{hashlib.sha256(pixels(4, 4).tobytes()).hexdigest()}\n"
    assert a == hashlib.sha256(line.encode()).hexdigest()


# Pairs


def test_pairs_by_name_then_by_order(tmp_path):
    hr, lr = tmp_path / "hr", tmp_path / "lr"
    for i, name in enumerate(("img1", "img10", "img2")):
        put(hr / f"{name}.png", pixels(20, 30, i))
        put(lr / f"{name}x2.png", pixels(10, 15, i))  # sorted as text, img10x2 comes before img1x2
    images = open_images(PairedFoldersSource(hr, lr))
    assert images.names == ("img1.png", "img10.png", "img2.png") and images.pair_scales == (2, 2, 2)
    for i in range(3):
        assert np.array_equal(images.low_resolution(i, Scale(2, 2)), pixels(10, 15, i))
    for i, path in enumerate(sorted(lr.iterdir())):
        path.rename(lr / f"other-{i}.png")
    images = open_images(PairedFoldersSource(hr, lr, limit=2))
    assert len(images) == 2
    assert np.array_equal(images.low_resolution(0, Scale(2, 2)), pixels(10, 15, 1))


@pytest.mark.parametrize(
    "hr, lr, given, not_given, whole",
    [
        ((20, 30), (10, 15), [2], [1.9, 2.1, 3, (2, 3)], 2),
        ((21, 31), (10, 15), [2], [2.5, (2, 1)], 2),  # cropped to a multiple
        ((25, 50), (10, 20), [2.5], [2, 3], None),
        ((20, 45), (10, 15), [(2, 3)], [2, 3, (3, 2)], None),
        ((20, 30), (20, 30), [1], [2], 1),
    ],
)
def test_a_low_resolution_image_is_given_for_the_scale_its_size_says(tmp_path, hr, lr, given, not_given, whole):
    put(tmp_path / "hr" / "a.png", pixels(*hr))
    put(tmp_path / "lr" / "a.png", pixels(*lr))
    images = open_images(PairedFoldersSource(tmp_path / "hr", tmp_path / "lr"))
    assert images.pair_scales == (whole,)
    for scale in given:
        assert np.array_equal(images.low_resolution(0, Scale.of(scale)), pixels(*lr))
    for scale in not_given:
        assert images.low_resolution(0, Scale.of(scale)) is None


def test_what_is_wrong_with_pairs(tmp_path):
    hr, lr = tmp_path / "hr", tmp_path / "lr"
    with pytest.raises(MissingData) as caught:
        open_images(PairedFoldersSource(hr, lr))
    assert [line.rpartition(": ")[0] for line in caught.value.problems[:2]] == [str(hr), str(lr)]
    for i in range(3):
        put(hr / f"{i}.png", pixels(20, 20))
        put(lr / f"{i}.png", pixels(10, 10))
    (lr / "1.png").write_text("no image")
    put(lr / "2.png", pixels(10, 30))
    put(lr / "3.png", Image.new("RGBA", (9, 9)))
    problems = problems_of(PairedFoldersSource(hr, lr), smallest=11)
    assert [line.split(",")[0].split(";")[0] for line in problems] == [
        f"{lr}: 4 LR images for 3 HR images",
        f"{lr / '0.png'}: 10x10 pixels are too few for crops of up to 11 (data.patch",
        f"{lr / '1.png'}: not an image",
        f"{lr / '2.png'}: 30x10 pixels",
        f"{lr / '2.png'}: 30x10 pixels are too few for crops of up to 11 (data.patch",
        f"{lr / '3.png'}: transparent (mode RGBA)",
    ]
    shutil.rmtree(lr)
    lr.mkdir()
    (line,) = problems_of(PairedFoldersSource(hr, lr))
    assert line.startswith(f"{lr}: no image in it")


# Samples


def test_samples_are_what_scikit_image_ships():
    data = pytest.importorskip("skimage.data")
    images = open_images(SkimageSource(("chelsea", "camera", "coffee")))
    assert images.names == ("chelsea.png", "camera.png", "coffee.png")
    assert np.array_equal(images.image(0), data.chelsea())
    assert np.array_equal(images.image(1), np.repeat(data.camera()[:, :, None], 3, axis=2))
    assert np.array_equal(open_images(SkimageSource(("camera",)), channels=1).image(0)[:, :, 0], data.camera())


def test_samples_that_are_not_there(monkeypatch):
    pytest.importorskip("skimage")
    problems = problems_of(SkimageSource(("chelsae", "camera", "camera", "zzzzzz", "logo")))
    assert "'chelsae' (did you mean 'chelsea'?)" in problems[0]
    assert "'camera' is listed twice" in problems[1]
    assert "'zzzzzz'; it has: astronaut, brick" in problems[2]
    assert len(problems) == 3  # logo.png is RGBA, and opaque
    monkeypatch.setattr(finding, "find_spec", lambda name: None)
    with pytest.raises(MissingData) as caught:
        open_images(SkimageSource(("chelsea",)))
    (line,) = caught.value.problems
    assert 'pip install "liif-core[skimage]"' in line


# DIV2K


@pytest.fixture
def div2k(tmp_path: Path) -> Path:
    for i in range(801, 804):
        put(tmp_path / "DIV2K_valid_HR" / f"{i:04}.png", pixels(24, 36, i))
        for scale in (2, 4):
            low = pixels(24 // scale, 36 // scale, i)
            put(tmp_path / "DIV2K_valid_LR_bicubic" / f"X{scale}" / f"{i:04}x{scale}.png", low)
    return tmp_path


def test_div2k_as_it_is_distributed(div2k):
    images = open_images(Div2kSource(div2k, "valid", limit=3))
    assert images.names == ("0801.png", "0802.png", "0803.png") and images.pair_scales == ()
    assert np.array_equal(images.image(1), pixels(24, 36, 802))
    assert np.array_equal(images.low_resolution(1, Scale(2, 2)), pixels(12, 18, 802))
    assert np.array_equal(images.low_resolution(2, Scale(4, 4)), pixels(6, 9, 803))
    assert images.low_resolution(0, Scale(3, 3)) is None


def test_div2k_in_part(div2k):
    (line, *_) = problems = problems_of(Div2kSource(div2k, "valid"))
    assert "DIV2K_valid_HR: 97 of 100 images are missing (0804.png, 0805.png, 0806.png, ...)" in line
    assert len(problems) == 3
    put(div2k / "DIV2K_valid_LR_bicubic" / "X2" / "0802x2.png", pixels(12, 17))
    (line,) = problems_of(Div2kSource(div2k, "valid", limit=3))
    assert "0802x2.png: 17x12 pixels, expected 18x12" in line
    (div2k / "DIV2K_valid_HR" / "0802.png").unlink()
    (line,) = problems_of(Div2kSource(div2k, "valid", limit=3))
    assert "1 of 3 images are missing (0802.png)" in line


def test_no_div2k_says_how_to_get_it(div2k):
    (div2k / "DIV2K_train_HR").mkdir()
    with pytest.raises(MissingData) as caught:
        open_images(Div2kSource(div2k, "train"))
    missing, fetch, by_hand = caught.value.problems
    assert missing.startswith(str(div2k / "DIV2K_train_HR"))
    assert "3.5 GB" in fetch and "--set data.images.download=true" in fetch
    assert "https://data.vision.ee.ethz.ch/cvl/DIV2K/DIV2K_train_HR.zip" in by_hand


def test_div2k_is_fetched_only_when_asked_and_only_what_is_missing(div2k, monkeypatch):
    fetched = []

    def fetch(archive, path):
        fetched.append(archive.folder)
        for i in range(801, 804):
            put(path / archive.folder / f"{i:04}x3.png", pixels(8, 12, i))

    monkeypatch.setattr(finding, "fetch_archive", fetch)
    open_images(Div2kSource(div2k, "valid", limit=3))
    assert fetched == []
    images = open_images(Div2kSource(div2k, "valid", download=True, limit=3))
    assert fetched == ["DIV2K_valid_LR_bicubic/X3"]
    assert np.array_equal(images.low_resolution(0, Scale(3, 3)), pixels(8, 12, 801))


def test_a_failed_download_is_missing_data(tmp_path, monkeypatch):
    def fetch(archive, path):
        raise UserError("no network")

    monkeypatch.setattr(finding, "fetch_archive", fetch)
    with pytest.raises(MissingData, match="no network") as caught:
        open_images(Div2kSource(tmp_path, "train", download=True))
    assert "unpack https://" in caught.value.problems[-1]


# Benchmarks


def test_a_benchmark_with_a_folder_per_scale(tmp_path):
    for name in ("baby", "bird"):
        put(tmp_path / "HR" / f"{name}.png", pixels(25, 37, len(name)))
        put(tmp_path / "LR_bicubic" / "X2" / f"{name}x2.png", pixels(12, 18, len(name)))
        put(tmp_path / "LR_bicubic" / "X3" / f"{name}.png", pixels(8, 12, len(name)))
    images = open_images(BenchmarkSource(tmp_path))
    assert images.names == ("baby.png", "bird.png")
    for scale, size in ((2, (12, 18)), (3, (8, 12))):
        for i in range(2):
            assert np.array_equal(images.low_resolution(i, Scale.of(scale)), pixels(*size, 4))
    assert images.low_resolution(0, Scale(4, 4)) is None
    put(tmp_path / "LR_bicubic" / "X2" / "birdx2.png", pixels(13, 19))
    (line,) = problems_of(BenchmarkSource(tmp_path))
    assert "birdx2.png: 19x13 pixels, expected 18x12" in line


def test_a_benchmark_with_siblings_or_images_alone(tmp_path):
    for i in range(2):
        put(tmp_path / "HR" / f"img_00{i}_HR.png", pixels(24, 36, i))
        put(tmp_path / "LR" / f"img_00{i}_LR.png", pixels(6, 9, i))
    images = open_images(BenchmarkSource(tmp_path))
    assert np.array_equal(images.low_resolution(1, Scale(4, 4)), pixels(6, 9, 1))
    assert images.low_resolution(1, Scale(2, 2)) is None
    images = open_images(BenchmarkSource(tmp_path / "HR", limit=1))
    assert images.names == ("img_000_HR.png",)


def test_a_benchmark_that_is_not_there_says_how_to_lay_it_out(tmp_path):
    for path in (tmp_path / "Set5", tmp_path):
        with pytest.raises(MissingData) as caught:
            open_images(BenchmarkSource(path))
        text = str(caught.value)
        assert "no official address" in text and f"{path / 'LR_bicubic'}/X2/NAMEx2.png" in text
    (tmp_path / "HR").mkdir()
    assert "HR: no image in it" in problems_of(BenchmarkSource(tmp_path))[0]


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_set5(shared, scale):
    folder = shared / "data" / "set5" / f"x{scale}"
    for source in (BenchmarkSource(folder), PairedFoldersSource(folder / "HR", folder / "LR")):
        images = open_images(source)
        assert images.names == tuple(f"img_00{i}.png" for i in range(1, 6))
        for i, name in enumerate(images.names):
            with Image.open(folder / "LR" / name) as given:
                assert np.array_equal(images.low_resolution(i, Scale.of(scale)), np.asarray(given.convert("RGB")))
            assert images.low_resolution(i, Scale.of(5)) is None
