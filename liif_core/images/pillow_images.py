"""Pillow's images to pictures and back, in memory: the same pixels and metadata as by way of a file."""

import os
import warnings
from typing import IO, Any

import numpy as np
from attrs import evolve
from PIL import Image

from liif_core.images import account, eight_bit, high_depth, iptc, metadata, png_profiles
from liif_core.images.arrays import to_eight_bit
from liif_core.images.picture import Depth, Picture
from liif_core.images.pillow_writer import save_options
from liif_core.images.source import NOT_FINITE

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
_HIGH_DEPTH = (*_SIXTEEN_BIT, "I", "F")


def picture_from_pillow(image: Image.Image) -> Picture:
    """The picture in an image of Pillow: what ``read_image`` returns for a file of that mode.

    Accepted modes: 1, L, LA, La, P, PA, RGB, RGBX, RGBA, RGBa, CMYK, YCbCr, HSV and LAB, which become 8-bit gray or
    RGB, with alpha where the image has transparency; I;16 and its variants, and I with values in 0..65535, which
    become 16-bit gray; F, which becomes float gray. The orientation in the image's EXIF (or, without EXIF, in its
    XMP) is applied. ICC profile, EXIF, XMP, text and resolution are taken from the image. Of an image of several
    frames this is the current one. Pixels are those that Pillow gives: unlike ``read_image``, it opens 16-bit color
    with 8 bits, and does not invert 16-bit TIFFs whose white is 0.

    Raises TypeError for anything but an image of Pillow; ValueError for other modes, an image without pixels, values
    of I outside 0..65535, and values of F that are not finite.
    """
    if not isinstance(image, Image.Image):
        raise TypeError(f"image: expected a PIL.Image.Image, got {type(image).__name__}")
    if image.mode not in eight_bit.MODES and image.mode not in _HIGH_DEPTH:
        known = ", ".join([*sorted(eight_bit.MODES), *_HIGH_DEPTH])
        raise ValueError(f"image: mode {image.mode} is not supported, expected one of {known}; convert it first")
    if 0 in image.size:
        raise ValueError(f"image: expected at least one pixel, got an image of {image.width}x{image.height}")
    bits, colors = _png_bits(image), png_profiles.color_chunks_of(image)
    image.load()  # this applies a TIFF's orientation, and reads what metadata follows a PNG's pixels
    found, orientation = metadata.from_pillow(image, _current_exif(image))
    found = evolve(found, colors=colors or found.colors)
    if image.mode in eight_bit.MODES:
        picture = eight_bit.to_picture(image, found, orientation, bits)
    else:
        color, alpha = _high_depth(image)
        span, notes = high_depth.span_of(color)
        picture = Picture(
            color=metadata.upright(color, orientation),
            alpha=None if alpha is None else metadata.upright(alpha, orientation),
            mode=image.mode,
            span=span,
            metadata=found,
            notes=tuple(notes),
        )
    kept = metadata.without_foreign_icc(picture)
    foreign = [str(metadata.FOREIGN_ICC)] if kept.metadata.icc != picture.metadata.icc else []
    return evolve(kept, notes=(*kept.notes, *foreign))


def picture_to_pillow(picture: Picture) -> Image.Image:
    """An image of Pillow with the pixels and metadata of a picture.

    8-bit pictures become L, LA, RGB or RGBA. Of 16 bits and floats, gray without alpha becomes I;16 or F, unchanged.
    Pillow has no mode for the others: they become 8-bit, black to white of the picture's span as 0 to 255, clipped
    and rounded to nearest.

    ``info`` holds ICC profile, EXIF, XMP and resolution, under the keys that Pillow uses, and ``save`` writes them
    into PNG, JPEG, TIFF and WebP files, unless it is given others. Copies and results of Pillow's own operations are
    ordinary images, of which Pillow saves less: pass it, for example, ``exif=image.info["exif"]``.
    """
    channels = picture.color.shape[2]
    if picture.depth != "uint8" and (channels > 1 or picture.alpha is not None):
        picture = to_eight_bit(picture)
    parts = [picture.color] if picture.alpha is None else [picture.color, picture.alpha[..., None]]
    pixels = np.concatenate(parts, axis=2)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.__class__ = PictureImage
    assert isinstance(image, PictureImage)
    found = account.fit(picture.metadata, "PNG", channels, picture.depth, picture.size)  # which holds all kinds
    image.info.update(save_options(found, picture.size, "WEBP"))  # under Pillow's usual names
    if found.iptc:
        image.info["photoshop"] = {iptc.RECORDS: found.iptc}
    if found.dpi:
        image.info["dpi"] = found.dpi
    image.text, image.colors = dict(found.text), dict(found.colors)
    return image


class PictureImage(Image.Image):
    """An image whose ``save`` also writes the EXIF, XMP, resolution and text that it holds, as Pillow's does not."""

    text: dict[str, str] = {}
    colors: dict[str, bytes] = {}  # chunks of a PNG

    def save(
        self,
        fp: "str | bytes | os.PathLike[str] | os.PathLike[bytes] | IO[bytes]",
        format: str | None = None,
        **params: Any,
    ) -> None:
        """Save as Pillow's own ``save`` does; parameters that are given take precedence over what the image holds.

        What the format cannot hold is left out, with a warning.
        """
        kind, size = (format or _format_of(fp)).upper(), (self.height, self.width)
        found = evolve(metadata.from_pillow(self)[0], whole=size, changed=(), dropped=())
        found = account.fit(found, kind, *_channels_and_depth(self), size)
        for change in found.dropped if kind in account.FORMATS else ():
            warnings.warn(f"image: its {change}; it was left out", stacklevel=2)
        kept = save_options(found, size, kind)
        super().save(fp, format, **{**kept, **params})


def _png_bits(image: Image.Image) -> int:
    """Bits per sample of a gray PNG that is not loaded yet; else 8."""
    tile = getattr(image, "tile", None)
    if image.format == "PNG" and tile and str(tile[0][3]).startswith("L;"):
        return int(str(tile[0][3])[2:])
    return 8


def _high_depth(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Color (h, w, 1) and alpha (h, w) or None of an image of one of the modes of more than 8 bits."""
    pixels = np.array(image)
    if image.mode == "F":
        if not np.isfinite(pixels).all():
            raise ValueError(f"image: {NOT_FINITE}")
        return pixels.astype(np.float32, copy=False)[..., None], None
    low, high = pixels.min(), pixels.max()
    if low < 0 or high > 65535:
        raise ValueError(f"image: expected values of mode {image.mode} in 0..65535, got {low} to {high}")
    color = pixels.astype(np.uint16)
    key = image.info.get("transparency")  # of a PNG: the gray value that is transparent
    alpha = np.where(color == key, np.uint16(0), np.uint16(65535)) if isinstance(key, int) else None
    return color[..., None], alpha


def _current_exif(image: Image.Image) -> bytes | None:
    """The EXIF of an image: the block that it was opened with, unless ``image.getexif()`` was changed since."""
    stored = metadata.stored_exif(image.info)
    try:
        current = image.getexif()
        if stored is not None:
            before = Image.Exif()
            before.load(stored)
            if dict(before) == dict(current):
                return stored
        return current.tobytes() if current else b""
    except Exception:  # of a broken block Pillow raises anything from struct.error to SyntaxError
        return stored


def _channels_and_depth(image: Image.Image) -> tuple[int, Depth]:
    depth: Depth = "float32" if image.mode == "F" else "uint16" if image.mode == "I;16" else "uint8"
    return 1 if image.mode in ("L", "LA", "I;16", "F") else 3, depth


def _format_of(file: object) -> str:
    """Pillow's name of the format in which ``save`` writes a file, going by its suffix; empty if unknown."""
    name = file if isinstance(file, str | bytes | os.PathLike) else getattr(file, "name", "")
    if not isinstance(name, str | bytes | os.PathLike):
        return ""
    return Image.registered_extensions().get(os.path.splitext(os.fsdecode(name))[1].lower(), "")
