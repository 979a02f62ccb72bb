"""Reading in parts: the pixels of every rectangle, and all facts, are those of reading the whole file."""

import itertools
import struct
import tracemalloc
import types
import zlib

import numpy as np
import pytest
import tifffile
from image_files import CASES, noise, saved, tiff
from PIL import Image

from liif_core.errors import UserError
from liif_core.images import fill_transparent, opening, read_image, source, survey


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


@pytest.fixture(autouse=True)
def in_small_parts(monkeypatch):
    """All images count as large, and are divided into bands of few rows."""
    monkeypatch.setattr(opening, "_SMALL", 0)
    monkeypatch.setattr(source, "_BAND_BYTES", 200)
    monkeypatch.setattr("liif_core.images.tiff_parts._LONG_STRIP", 100)
    monkeypatch.setattr(opening, "_PNG_BYTES", 0)


def opened(path, in_parts=None):
    found = survey(path, 1 << 30)
    if in_parts is not None:
        found = parts_of(path)
        assert (found is not None) == in_parts
        found = found or survey(path, 1 << 30)
    return found.open()


def parts_of(path):
    """How the file would be read in parts, though it may be smaller than what that takes."""
    from liif_core.images import reading

    return opening._in_parts(*reading.look(path, 1 << 30), 1 << 30)


def check(path, in_parts=None):
    whole, found = read_image(path), opened(path, in_parts)
    filled = fill_transparent(whole)
    assert (found.size, found.channels, found.depth) == (whole.size, whole.color.shape[2], whole.depth)
    assert (found.mode, found.span, found.notes) == (whole.mode, whole.span, whole.notes)
    assert found.metadata == whole.metadata
    assert found.alpha_range == (None if whole.alpha is None else (whole.alpha.min(), whole.alpha.max()))
    height, width = whole.size
    random = np.random.default_rng(0)
    some = [(0, height, 0, width), (height - 1, height, width - 1, width), (0, 1, 0, 1)]
    for _ in range(12):
        (top, bottom), (left, right) = (sorted(random.choice(side + 1, 2, replace=False)) for side in (height, width))
        some.append((top, bottom, left, right))
    for top, bottom, left, right in some:
        part = found.read(slice(top, bottom), slice(left, right))
        assert part.color.dtype == whole.color.dtype
        np.testing.assert_array_equal(part.color, filled.color[top:bottom, left:right])
        assert (part.alpha is None) == (whole.alpha is None)
        if whole.alpha is not None:
            np.testing.assert_array_equal(part.alpha, whole.alpha[top:bottom, left:right])
    return found


@pytest.mark.parametrize("case", CASES)
def test_every_mode(case, path):
    path.write_bytes(CASES[case][0])
    check(path)
    if path.read_bytes()[:4] in (b"\x89PNG", b"II*\0", b"MM\0*", b"II+\0"):
        check(path, in_parts=True)


def picture(*shape, dtype="uint8"):
    """Smooth, so that every filter of PNG is chosen for some rows, and lossy codecs do well."""
    wave = np.sin(np.indices(shape).sum(0) / 5) + np.cos(np.indices(shape)[0] / 3) + noise(*shape) / 300
    return ((wave - wave.min()) / np.ptp(wave) * np.iinfo(dtype).max).astype(dtype)


@pytest.mark.parametrize("samples, dtype", [*itertools.product([1, 2, 3, 4], ["uint8", "uint16"])])
@pytest.mark.parametrize("kind", range(5))
def test_every_filter_of_png(samples, dtype, kind, path):
    pixels = np.maximum(picture(37, 53, samples, dtype=dtype), 1)  # no alpha of 0
    path.write_bytes(filtered_png(pixels, kind))
    check(path, in_parts=True)
    np.testing.assert_array_equal(opened(path).read(slice(0, 37), slice(0, 53)).color[..., 0], pixels[..., 0])


def filtered_png(pixels, kind):
    """A PNG whose rows all have filter ``kind``, by the formulas of the specification, byte by byte."""
    height, width, samples = pixels.shape
    rows = pixels.astype(pixels.dtype.newbyteorder(">")).reshape(height, -1).view(np.uint8).astype(int)
    step, data = samples * pixels.itemsize, b""
    for y, x_row in enumerate(rows):
        up = rows[y - 1] if y else 0 * x_row
        left = np.concatenate([np.zeros(step, int), x_row[:-step]])
        corner = np.concatenate([np.zeros(step, int), up[:-step]])
        guess = left + up - corner
        far = np.stack([abs(guess - left), abs(guess - up), abs(guess - corner)])
        paeth = np.choose(far.argmin(0), [left, up, corner])
        expected = [0, left, up, (left + up) // 2, paeth][kind]
        data += bytes([kind]) + ((x_row - expected) % 256).astype(np.uint8).tobytes()

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, {1: 0, 2: 4, 3: 2, 4: 6}[samples], 0, 0, 0)
    packed = zlib.compress(data)
    parts = [chunk(b"IDAT", packed[start : start + 100]) for start in range(0, len(packed), 100)]
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(parts) + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("format, options", [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("BMP", {})])
def test_files_of_pillow(mode, format, options, path):
    image = Image.fromarray(picture(41, 60, 4)).convert(mode)
    path.write_bytes(saved(image, format, **options))
    check(path, in_parts=format in ("PNG", "TIFF"))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_jpegs_are_decoded_as_a_whole(mode, options, path):
    path.write_bytes(saved(Image.fromarray(picture(41, 60, 4)).convert(mode), "JPEG", **options))
    check(path, in_parts=False)


def interlaced_png(rows):
    """A gray PNG of one pixel a row: of the seven passes only the first and some others have pixels."""
    data = b"".join(bytes([0, rows[y]]) for start, step in ((0, 8), (4, 8), (2, 4), (1, 2))
                    for y in range(start, len(rows), step))  # fmt: skip
    plain = filtered_png(np.array(rows, "u1")[:, None, None], 0)
    head = struct.pack(">IIBBBBB", 1, len(rows), 8, 0, 0, 0, 1)

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    return plain[:8] + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def test_an_interlaced_png_is_decoded_as_a_whole(path):
    path.write_bytes(interlaced_png(list(range(20))))
    found = check(path, in_parts=False)
    assert found.read(slice(0, 20), slice(0, 1)).color.reshape(-1).tolist() == list(range(20))


TIFFS = {
    "tiles": {"tile": (16, 32)},
    "tiles lzw": {"tile": (16, 16), "compression": "lzw", "predictor": True},
    "strips deflate": {"rowsperstrip": 5, "compression": "zlib", "predictor": True},
    "strips packbits": {"rowsperstrip": 5, "compression": "packbits"},
    "strips": {"rowsperstrip": 7},
    "long strips": {"rowsperstrip": 24},
    "one strip": {"rowsperstrip": 1000},
    "one strip deflate": {"rowsperstrip": 1000, "compression": "zlib", "predictor": True},
    "one strip lzw": {"rowsperstrip": 1000, "compression": "lzw"},
    "planes": {"rowsperstrip": 7, "planarconfig": "separate"},
    "planes of one strip": {"rowsperstrip": 1000, "planarconfig": "separate"},
    "planes of tiles": {"tile": (16, 16), "planarconfig": "separate", "compression": "zlib"},
    "big-endian": {"rowsperstrip": 7, "byteorder": ">", "compression": "zlib", "predictor": True},
    "big-endian one strip": {"rowsperstrip": 1000, "byteorder": ">"},
    "bigtiff tiles": {"tile": (16, 16), "bigtiff": True},
}


@pytest.mark.parametrize("samples", [1, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("kind", TIFFS)
def test_every_layout_of_tiff(kind, samples, dtype, path):
    options = dict(TIFFS[kind])
    pixels = picture(61, 45, samples)
    pixels = pixels.astype(dtype) * {"uint8": 1, "uint16": 257, "float32": np.float32(1 / 200)}[dtype]
    if dtype == "float32" and "predictor" in options:
        options["predictor"] = 3
    if samples == 1 or "planes" not in kind:
        options.pop("planarconfig", None)
    elif "planarconfig" in options:
        pixels = np.moveaxis(pixels, -1, 0)
    extra = {"extrasamples": ["unassalpha"]} if samples == 4 else {}
    photometric = "minisblack" if samples == 1 else "rgb"
    path.write_bytes(tiff(pixels[..., 0] if samples == 1 else pixels, photometric=photometric, **options, **extra))
    check(path, in_parts=True)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "PNG;16", "JPEG", "TIFF", "TIFF strips", "TIFF tiles"])
def test_orientations(format, orientation, path):
    pixels = picture(31, 45, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    if format == "PNG;16":
        Image.fromarray(pixels[..., 0].astype("u2") * 257).save(path, "PNG", exif=exif)
    elif format.startswith("TIFF "):
        layout = {"tile": (16, 16)} if "tiles" in format else {"rowsperstrip": 4, "compression": "zlib"}
        tags = [(0x0112, 3, 1, orientation, True)]
        path.write_bytes(tiff(pixels, photometric="rgb", metadata=None, extratags=tags, **layout))
    else:
        Image.fromarray(pixels).save(path, format, exif=exif)
    check(path)


@pytest.mark.parametrize("colors, channels", [([(7, 7, 7), (50, 50, 50)], 1), ([(7, 7, 7), (50, 51, 50)], 3)])
def test_a_palette_is_gray_where_all_its_colors_in_use_are(colors, channels, path):
    image = Image.new("P", (20, 30))
    image.putpalette([*itertools.chain(*colors), 1, 2, 3])
    image.paste(1, (0, 20, 20, 30))
    image.save(path, "PNG")
    assert check(path, in_parts=True).channels == channels


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_transparent_pixels_are_filled_as_in_memory(seed, format, path):
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (40, 57, 4), dtype=np.uint8)
    share = [0.02, 0.2, 0.5, 0.9, 0.98, 0.999][seed]
    pixels[..., 3] = np.where(random.random((40, 57)) < share, 0, pixels[..., 3])
    pixels[5:20, 8:30, 3] = 0
    pixels[30, 40, 3] = 9
    path.write_bytes(saved(Image.fromarray(pixels), format))
    check(path, in_parts=True)


def test_wholly_transparent_pictures_stay_as_they_are(path):
    pixels = noise(20, 30, 4)
    pixels[..., 3] = 0
    Image.fromarray(pixels).save(path, "PNG")
    check(path, in_parts=True)


def test_too_little_disk_for_transparent_pixels_is_said(path, monkeypatch):
    pixels = noise(20, 30, 4)
    pixels[0, 0, 3] = 0
    Image.fromarray(pixels).save(path, "PNG")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: types.SimpleNamespace(free=10))
    with pytest.raises(UserError, match="temporary file of 0.0 GB, and .* has 0.0 GB free; make room there"):
        parts_of(path).open()


def test_floats_that_are_not_finite_are_refused(path):
    pixels = np.zeros((40, 40), "f4")
    pixels[33, 3] = np.nan
    path.write_bytes(tiff(pixels, rowsperstrip=4))
    with pytest.raises(UserError, match=f"{path}: {source.NOT_FINITE}"):
        parts_of(path).open()


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_a_file_that_is_cut_off_is_refused_by_name(format, path):
    data = saved(Image.fromarray(noise(60, 60, 3)), format, **({"compression": "tiff_lzw"} if format == "TIFF" else {}))
    place = data.index(b"IDAT") if format == "PNG" else 3000
    path.write_bytes(data[:place] + data[place:].replace(data[place + 2000 : place + 2400], bytes(400)))
    with pytest.raises(UserError, match=f"{path}: broken or cut off"):
        found = parts_of(path).open()
        found.read(slice(0, 60), slice(0, 60))


@pytest.mark.parametrize("format", ["PNG", "TIFF tiles", "TIFF strips"])
def test_a_rectangle_of_a_large_picture_takes_little_memory(format, path, monkeypatch):
    monkeypatch.undo()
    pixels = np.zeros((4000, 5000, 3), np.uint8)
    if format == "PNG":
        Image.fromarray(pixels).save(path, "PNG", compress_level=1)
    else:
        layout = {"tile": (256, 256)} if "tiles" in format else {"rowsperstrip": 16}
        tifffile.imwrite(path, pixels, photometric="rgb", compression="zlib", **layout)
    del pixels
    found = survey(path, 1 << 30)
    assert found.in_parts
    tracemalloc.start()
    found.open().read(slice(3000, 3040), slice(2000, 2040))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < found.peak < 40e6  # the image has 60e6 bytes, and 80e6 in Pillow


def test_nothing_is_decoded_to_find_what_a_file_takes(path, monkeypatch):
    monkeypatch.undo()
    Image.fromarray(noise(60, 60, 3)).resize((4000, 4000)).save(path, "JPEG", progressive=True)

    def decoded(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr(Image.Image, "crop", decoded)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decoded)
    found = survey(path, 100_000_000)
    assert not found.in_parts
    # RGB in four bytes, and coefficients of two: 4:2:0 has half as many of each color.
    assert (found.held, found.peak) == (64_000_000, 64_000_000 + 2 * 24_000_000)
