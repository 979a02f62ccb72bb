"""Pixels of an answer: interpolated parts of a picture, and images turned, in gray, and encoded for the network."""

import io

import numpy as np
from attrs import evolve
from PIL import Image

from liif_core.images import Source, from_planes, to_planes
from liif_core.sizes import Region, Size
from liif_core.view.iiif import ImageRequest

_BAND_PIXELS = 1 << 22  # that are reduced together
_SUPPORT = {Image.Resampling.NEAREST: 1, Image.Resampling.BICUBIC: 2, Image.Resampling.LANCZOS: 3}  # pixels


def shrinks(size: Size, region: Region) -> bool:
    """Whether a region (top, left, bottom, right) has fewer pixels on both axes when it is rendered at ``size``."""
    return size[0] < region[2] - region[0] and size[1] < region[3] - region[1]


def interpolated(picture: Source, size: Size, region: Region, method: Image.Resampling) -> np.ndarray:
    """A region of a picture at ``size``, uint8 (H, W, channels), with alpha last if it has any.

    Where it shrinks, ``method`` does not matter: the filter is Lanczos, widened so that nothing aliases.
    """
    if shrinks(size, region):
        method = Image.Resampling.LANCZOS
    top, left, bottom, right = region
    around = [
        int(_SUPPORT[method] * max(1.0, length / side)) + 2
        for length, side in zip((bottom - top, right - left), size)
    ]  # fmt: skip
    rows = slice(max(0, int(top) - around[0]), min(picture.size[0], int(bottom) + 1 + around[0]))
    columns = slice(max(0, int(left) - around[1]), min(picture.size[1], int(right) + 1 + around[1]))
    factor = max(1, int(min((bottom - top) / size[0], (right - left) / size[1]) / 2))
    pixels = _reduced(picture, rows, columns, factor)
    edges = left - columns.start, top - rows.start, right - columns.start, bottom - rows.start
    limits = pixels.shape[1::-1] * 2
    box = tuple(min(edge / factor, limit) for edge, limit in zip(edges, limits))
    wanted = size[1], size[0]
    channels = pixels.shape[2]
    color = pixels[..., : picture.channels]
    parts = [np.asarray(_image(color).resize(wanted, method, box)).reshape(*size, -1)]
    if channels > picture.channels:  # apart from the color, as models render it
        alpha = _image(pixels[..., picture.channels :]).resize(wanted, method, box)
        parts.append(np.asarray(alpha).reshape(*size, 1))
    return np.concatenate(parts, axis=2) if len(parts) > 1 else parts[0]


def _reduced(picture: Source, rows: slice, columns: slice, factor: int) -> np.ndarray:
    """A part of a picture as of ``eight_bits``, with the means of ``factor`` x ``factor`` pixels in place of these.

    It is read in bands, so that a large picture is never in memory as a whole.
    """
    if factor == 1:
        return eight_bits(picture, rows, columns)
    step = max(1, _BAND_PIXELS // (columns.stop - columns.start) // factor) * factor
    bands = []
    for top in range(rows.start, rows.stop, step):
        band = eight_bits(picture, slice(top, min(top + step, rows.stop)), columns)
        planes = [
            np.asarray(Image.fromarray(np.ascontiguousarray(plane)).reduce(factor)) for plane in np.moveaxis(band, 2, 0)
        ]
        bands.append(np.stack(planes, axis=2))
    return np.concatenate(bands)


def eight_bits(picture: Source, rows: slice, columns: slice) -> np.ndarray:
    """A part of a picture, uint8 (h, w, channels), with alpha last if it has any."""
    part = picture.read(rows, columns)
    if picture.metadata.nodata is not None:  # then alpha marks pixels without data
        part = evolve(part, alpha=None)
    if part.depth == "uint8":
        color, alpha = part.color, part.alpha
        return color if alpha is None else np.concatenate([color, alpha[..., None]], axis=2)
    return from_planes(*to_planes(part), "uint8")


def encoded(pixels: np.ndarray, request: ImageRequest, icc: bytes | None = None) -> bytes:
    """Pixels uint8 (H, W, channels) as the file that a request asks for, with the ICC profile of their colors."""
    if request.mirrored:
        pixels = pixels[:, ::-1]
    pixels = np.rot90(pixels, -request.rotation // 90)
    image = _image(pixels)
    has_alpha = pixels.shape[2] in (2, 4)
    if request.quality in ("gray", "bitonal"):
        alpha = image.getchannel("A") if has_alpha else None
        image = image.convert("L")
        if request.quality == "bitonal":
            image = image.point(lambda value: 255 if value >= 128 else 0)
        if alpha is not None:
            image.putalpha(alpha)
        icc = None  # which is that of colors
    file = io.BytesIO()
    if request.format == "png":
        image.save(file, "PNG", compress_level=1, icc_profile=icc)
    elif request.format == "webp":
        image.save(file, "WebP", quality=95, icc_profile=icc)
    else:
        if has_alpha:  # JPEG has no alpha: on white
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
        image.save(file, "JPEG", quality=95, subsampling=0, icc_profile=icc)
    return file.getvalue()


def _image(pixels: np.ndarray) -> Image.Image:
    if pixels.shape[2] == 1:
        return Image.fromarray(np.ascontiguousarray(pixels[..., 0]))
    if pixels.shape[2] == 2:
        gray, alpha = (Image.fromarray(np.ascontiguousarray(pixels[..., i])) for i in range(2))
        return Image.merge("LA", (gray, alpha))
    return Image.fromarray(np.ascontiguousarray(pixels))
