"""Images that Pillow would not decode as they are: PNG of 16 bits by imagecodecs; TIFF of 16 bits, of floats, and of
rare layouts of 8 bits by tifffile."""

import importlib.util
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
from attrs import evolve
from PIL import Image

from liif_core.errors import UserError
from liif_core.images import ifd, metadata, nodata
from liif_core.images.arrays import top
from liif_core.images.picture import Depth, Header, Picture, depth_of
from liif_core.images.source import NOT_FINITE, Pixels

_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _SAMPLES, _PLANAR, _EXTRA, _FORMAT = 256, 257, 258, 262, 277, 284, 338, 339
_SEGMENTS = ((273, 279), (324, 325))  # offsets and byte counts, of strips and of tiles
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_PHOTOMETRIC_NAMES = {3: "palette", 5: "CMYK", 6: "YCbCr", 8: "LAB", 9: "LAB", 32803: "raw camera"}
_FORMAT_NAMES = {1: "unsigned integer", 2: "signed integer", 3: "float", 5: "complex", 6: "complex"}
_PREMULTIPLIED, _STRAIGHT = 1, 2
_INTEGERS = (1, 2, 4, 8, 16)  # bits of integers that are read
_COMPRESSION, _NOT_COMPRESSED = 259, 1
_LACKING = (34925, 50000, 50001)  # LZMA, Zstandard, WebP: compressions that builds of Pillow lack
_TIFF_MODES = {
    (1, False): {"uint8": "L", "uint16": "I;16", "float32": "F"},
    (1, True): {"uint8": "LA", "uint16": "LA;16", "float32": "LA;F"},
    (3, False): {"uint8": "RGB", "uint16": "RGB;16", "float32": "RGB;F"},
    (3, True): {"uint8": "RGBA", "uint16": "RGBA;16", "float32": "RGBA;F"},
}
_PNG_MODES = {0: "I;16", 2: "RGB;16", 4: "LA;16", 6: "RGBA;16"}


def need(path: Path) -> None:
    """Raises UserError where the packages that read these images are not installed."""
    for name in ("tifffile", "imagecodecs"):
        _package(path, name)


def png_mode(color_type: int) -> str:
    """The mode of a 16-bit PNG, from the color type in its header."""
    return _PNG_MODES[color_type]


def read_png(path: Path, color_type: int) -> Picture:
    """The picture in a PNG of 16 bits per sample."""
    with Image.open(path, formats=("PNG",)) as image:
        image.load()  # metadata may follow the pixels
        found, turn = metadata.from_pillow(image, path=path)
    pixels = _package(path, "imagecodecs").png_decode(path.read_bytes())
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    channels = 3 if pixels.shape[2] > 2 else 1
    return Picture(
        color=metadata.upright(pixels[..., :channels], turn),
        alpha=metadata.upright(pixels[..., channels], turn) if pixels.shape[2] > channels else None,
        mode=_PNG_MODES[color_type],
        span=(0.0, 65535.0),
        metadata=found,
    )


def is_high_depth(page: ifd.Directory) -> bool:
    """Whether a TIFF page has more than 8 bits per sample, or samples that are not unsigned integers."""
    return max(ifd.numbers(page, _BITS, [1])) > 8 or any(f not in (1, 4) for f in ifd.numbers(page, _FORMAT, [1]))


def is_misread(page: ifd.Directory) -> bool:
    """Whether Pillow decodes a TIFF page of at most 8 bits to other pixels than it holds, or takes it for broken."""
    # In separate planes it reads RGB, with straight alpha or without, but, for example, no gray with alpha.
    photometric, samples = ifd.numbers(page, _PHOTOMETRIC, [1])[0], ifd.numbers(page, _SAMPLES, [1])[0]
    plain = photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB) and set(ifd.numbers(page, _BITS, [1])) == {8}
    if plain and ifd.numbers(page, _COMPRESSION, [_NOT_COMPRESSED])[0] in _LACKING:
        return importlib.util.find_spec("imagecodecs") is not None
    if ifd.numbers(page, _PLANAR, [1])[0] != 2 or samples == 1:
        return False
    if photometric == _RGB:
        return samples > 4 or _PREMULTIPLIED in ifd.numbers(page, _EXTRA)
    return photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO)


def tiff_header(path: Path, page: ifd.Directory) -> Header:
    """The header of a high-depth TIFF page. Raises UserError for a kind that is not read, ValueError if broken."""
    layout = {tag: ifd.numbers(page, tag, default) for tag, default in ((_BITS, [1]), (_FORMAT, [1]), (_EXTRA, []))}
    (width,), (height,) = ifd.numbers(page, _WIDTH), ifd.numbers(page, _HEIGHT)
    samples = ifd.numbers(page, _SAMPLES, [1])[0]
    photometric = ifd.numbers(page, _PHOTOMETRIC, [_BLACK_IS_ZERO])[0]
    bits, kind = layout[_BITS][0], layout[_FORMAT][0]
    same = len(set(layout[_BITS])) == len(set(layout[_FORMAT])) == 1
    readable = same and ((kind in (1, 4) and bits in _INTEGERS) or (kind == 3 and bits in (16, 32, 64)))
    channels = 3 if photometric == _RGB else 1
    if photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB) or not readable or samples > channels + 5:
        colors = {_RGB: "RGB", _WHITE_IS_ZERO: "gray", _BLACK_IS_ZERO: "gray"} | _PHOTOMETRIC_NAMES
        what = f"{bits}-bit {_FORMAT_NAMES.get(kind, 'unknown')} samples" if same else "samples of different kinds"
        raise UserError(
            f"{path}: a TIFF of {samples} {colors.get(photometric, f'(photometric {photometric})')} {what} is not "
            "read; above 8 bits, gray and RGB of 16-bit unsigned integers or floats are. Convert it first"
        )
    _check_compression(path, page)
    if not (width and height) or samples < channels:
        raise ValueError("its TIFF tags contradict one another")
    turned = metadata.from_directory(page)[1] > 4
    alpha = _alpha_sample(page, channels) is not None
    depth: Depth = "float32" if kind == 3 else "uint16" if bits == 16 else "uint8"
    return Header(
        path=path,
        format="TIFF",
        size=(width, height) if turned else (height, width),
        mode=_TIFF_MODES[channels, alpha][depth],
        channels=channels,
        alpha=alpha,
        depth=depth,
    )


def _check_compression(path: Path, page: ifd.Directory) -> None:
    """Raises UserError for a compression that tifffile does not decode, if it is installed."""
    with suppress(ImportError):
        tifffile = importlib.import_module("tifffile")
        compression = ifd.numbers(page, _COMPRESSION, [_NOT_COMPRESSED])[0]
        if compression not in tifffile.TIFF.DECOMPRESSORS:
            with suppress(ValueError):
                compression = tifffile.COMPRESSION(compression).name
            raise UserError(f"{path}: a TIFF with compression {compression} is not read; convert it first")


def read_tiff(path: Path, number: int, page: ifd.Directory) -> Picture:
    """The picture in a high-depth TIFF: that of directory ``number``, which ``page`` holds."""
    check_whole(path, page)
    head = tiff_header(path, page)
    (color, alpha), notes = decode_tiff(path, path, number, page)
    span, beyond = span_of(color)
    found, turn = metadata.from_directory(page)
    if alpha is not None and not head.alpha:
        found = evolve(found, nodata=nodata.value_of(page))
    return Picture(
        color=metadata.upright(color, turn),
        alpha=None if alpha is None else metadata.upright(alpha, turn),
        mode=head.mode,
        span=span,
        metadata=found,
        notes=(*notes, *beyond),
    )


def decode_tiff(path: Path, file: "Path | BinaryIO", number: int, page: ifd.Directory) -> tuple[Pixels, list[str]]:
    """The pixels as stored, not turned, of directory ``number`` of ``file``, and notes; messages name ``path``.

    ``page`` holds the directory. Raises UserError where pixels are not finite.
    """
    head = tiff_header(path, page)
    with _package(path, "tifffile").TiffFile(file) as opened:
        pixels = _samples_last(opened.pages[number])
    bits = ifd.numbers(page, _BITS, [1])[0]
    if bits < 8:
        pixels = pixels.astype(np.uint8) * np.uint8(255 // (2**bits - 1))
    notes: list[str] = []
    if pixels.dtype == np.float64:
        notes.append("64-bit floats were read as 32-bit ones")
    pixels = pixels.astype(head.depth, copy=False)
    color = pixels[..., : head.channels]
    value = nodata.value_of(page)
    place = _alpha_sample(page, head.channels)
    alpha = None if place is None else pixels[..., place]
    extra = pixels.shape[2] - head.channels - (alpha is not None)
    if value is not None and alpha is None and head.depth == "float32":
        color, alpha = nodata.marked(color, value)
    if ifd.numbers(page, _PHOTOMETRIC, [_BLACK_IS_ZERO])[0] == _WHITE_IS_ZERO:
        color = color.dtype.type(top(head.depth)) - color
    if value is not None and alpha is None:
        color, alpha = nodata.marked(color, value)
    if extra:
        notes.append(f"{extra} extra channel{'s were' if extra > 1 else ' was'} left out")
    if not all(np.isfinite(part).all() for part in (color, alpha) if part is not None):
        raise UserError(f"{path}: {NOT_FINITE}")
    if place is not None and alpha is not None and ifd.numbers(page, _EXTRA)[place - head.channels] == _PREMULTIPLIED:
        color = _unmultiplied(color, alpha)
    return (color, alpha), notes


def span_of(color: np.ndarray) -> tuple[tuple[float, float], list[str]]:
    """The values that stand for black and white, and notes: the range of the type, or wider where floats go beyond."""
    if color.dtype != np.float32:
        return (0.0, top(depth_of(color))), []
    return span_between(float(color.min()), float(color.max()))


def span_between(low: float, high: float) -> tuple[tuple[float, float], list[str]]:
    """``span_of`` floats from ``low`` to ``high``."""
    if low >= 0 and high <= 1:
        return (0.0, 1.0), []
    low, high = min(0.0, low), max(1.0, high)
    return (low, high), [f"its values go beyond 0 to 1: {low:g} to {high:g} are taken as black to white"]


def _package(path: Path, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(
            f"{path}: images of 16 bits or floats, and rare kinds of TIFF, need the package {name}; install it with: "
            "pip install 'liif-core[images]'"
        ) from None


def _alpha_sample(page: ifd.Directory, channels: int) -> int | None:
    """The index of the sample that is alpha: the first extra sample that the file declares as alpha."""
    for place, use in enumerate(ifd.numbers(page, _EXTRA), start=channels):
        if use in (_PREMULTIPLIED, _STRAIGHT):
            return place
    return None


def check_whole(path: Path, page: ifd.Directory) -> None:
    """Raises ValueError where a file ends before its pixels do, which tifffile would fill with zeros."""
    length = path.stat().st_size
    for offsets, counts in _SEGMENTS:
        ends = [sum(pair) for pair in zip(ifd.numbers(page, offsets), ifd.numbers(page, counts))]
        if ends and max(ends) > length:
            raise ValueError("it ends before its pixels do")


def _samples_last(page: Any) -> np.ndarray:
    """The pixels (h, w, samples) of a tifffile page."""
    pixels: np.ndarray = page.asarray(maxworkers=1)
    if page.axes == "SYX":
        pixels = np.moveaxis(pixels, 0, -1)
    elif page.axes == "YX":
        pixels = pixels[..., None]
    elif page.axes != "YXS":
        raise ValueError(f"its axes are {page.axes}")
    return pixels


def _unmultiplied(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Straight color from premultiplied color; black where alpha is 0."""
    whole = top(depth_of(color))
    share = np.where(alpha > 0, alpha, whole)[..., None].astype(np.float32)
    straight = color.astype(np.float32) * (np.float32(whole) / share)
    if color.dtype == np.float32:
        return straight
    return np.floor(np.minimum(straight, whole) + 0.5).astype(color.dtype)
