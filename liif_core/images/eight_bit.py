"""Images of 8 bits per sample, read by Pillow: every mode becomes gray or RGB, with or without alpha."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from attrs import evolve
from PIL import Image, ImageCms, ImageFile

from liif_core.errors import UserError
from liif_core.images import ifd, metadata
from liif_core.images.formats import READ_SUFFIXES
from liif_core.images.picture import Header, Metadata, Picture

FORMATS = tuple(READ_SUFFIXES)
_GRAY = {"1", "L", "LA", "La"}
_COLOR = {"RGB", "RGBX", "RGBA", "RGBa", "P", "PA"}
_CONVERTED = {"CMYK", "YCbCr", "HSV", "LAB"}
_OWN_PROFILE = {"CMYK", "LAB"}  # whose ICC profiles do not describe the RGB they become
MODES = _GRAY | _COLOR | _CONVERTED


def look(path: Path, number: int = 0) -> Header:
    """The header of a file that Pillow reads: of directory ``number`` in a TIFF, and of a 16-bit PNG as 8-bit.

    Raises UserError for animations and modes that are not read.
    """
    with Image.open(path, formats=FORMATS) as image:
        frames = getattr(image, "n_frames", 1)
        if image.format not in ("MPO", "TIFF") and frames > 1:
            raise UserError(
                f"{path}: an animated {image.format} ({frames} frames) is not read; "
                "extract its frames to files of their own first"
            )
        if number:
            image.seek(number)
        _check_mode(path, image)
        turned = image.format != "TIFF" and metadata.orientation(image) > 4  # Pillow gives a TIFF's size as seen
        return Header(
            path=path,
            format="JPEG" if image.format == "MPO" else str(image.format),
            size=(image.width, image.height) if turned else (image.height, image.width),
            mode=image.mode,
            channels=1 if image.mode in _GRAY else 3,
            alpha=image.has_transparency_data,
            depth="uint8",
        )


def read(path: Path, bits: int = 8, number: int = 0, page: ifd.Directory | None = None) -> Picture:
    """The picture in a file that Pillow reads; in a TIFF, that of directory ``number``, which ``page`` holds.

    ``bits`` is the number of bits per sample of a PNG, see ``to_picture``.
    """
    with opened(path, number, page) as (image, found, orientation):
        return with_mpo_note(image, to_picture(image, found, orientation, bits))


@contextmanager
def opened(
    path: Path, number: int = 0, page: ifd.Directory | None = None
) -> Iterator[tuple[ImageFile.ImageFile, Metadata, int]]:
    """A file that Pillow has decoded, its metadata, and the orientation that is left to apply; see ``read``."""
    with Image.open(path, formats=FORMATS) as image:
        if number:
            image.seek(number)
        image.load()
        if page is None:
            yield image, *metadata.from_pillow(image)
        else:
            yield image, metadata.from_directory(page)[0], 1  # Pillow has applied it


def with_mpo_note(image: ImageFile.ImageFile, picture: Picture) -> Picture:
    """The picture of a file, with a note if the file has several and is read all the same."""
    frames = getattr(image, "n_frames", 1)
    if image.format == "MPO" and frames > 1:
        note = f"of the {frames} pictures in this file only the first is read"
        return evolve(picture, notes=(note, *picture.notes))
    return picture


def to_picture(image: Image.Image, found: Metadata, orientation: int, bits: int = 8) -> Picture:
    """The picture in a loaded image of one of ``MODES``; ``found`` is its metadata.

    ``bits`` is how many the file has per sample: Pillow scales the pixels of a PNG of fewer than 8, but not the gray
    value that stands for transparent.
    """
    mode, notes = image.mode, []
    if mode in _CONVERTED:
        image, how = _to_rgb(image, found.icc)
        notes.append(f"{mode} was converted to RGB{how}")
        if mode in _OWN_PROFILE:
            found = evolve(found, icc=None)
    color, alpha = _separate(image, bits)
    return Picture(
        color=metadata.upright(color, orientation),
        alpha=None if alpha is None else metadata.upright(alpha, orientation),
        mode=mode,
        span=(0.0, 255.0),
        metadata=found,
        notes=tuple(notes),
    )


def _check_mode(path: Path, image: ImageFile.ImageFile) -> None:
    # Pillow would scale a PPM of more than 8 bits; the greatest value is the last of its decoder's arguments.
    arguments = image.tile[0][3] if image.format == "PPM" else ()
    over_8_bits = isinstance(arguments, tuple) and arguments and arguments[-1] > 255
    if over_8_bits or (image.format != "PNG" and image.mode not in MODES):
        what = "of more than 8 bits per sample" if over_8_bits else f"of mode {image.mode}"
        raise UserError(f"{path}: a {image.format} {what} is not read; convert it to PNG or TIFF first")


def _separate(image: Image.Image, bits: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Color (h, w, 1 or 3) and alpha (h, w) or None; ``image`` has one of the modes of gray or color."""
    key = image.info.get("transparency")
    palette = image.mode in ("P", "PA")
    if key is not None and not palette:
        return _keyed(image, key, bits)
    gray, alpha = image.mode in _GRAY, image.has_transparency_data
    pixels = _array(image, ("LA" if alpha else "L") if gray else ("RGBA" if alpha else "RGB"))
    color = pixels[..., :1] if gray else pixels[..., :3]
    if palette and (color == color[..., :1]).all():
        color = color[..., :1]
    return color, pixels[..., -1] if alpha else None


def _array(image: Image.Image, mode: str) -> np.ndarray:
    """The pixels (h, w, samples) in a mode; read-only."""
    pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels.reshape(image.height, image.width, -1)


def _keyed(image: Image.Image, key: int | tuple[int, ...], bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Color and alpha of an image in which one color, ``key``, stands for transparent."""
    color = _array(image, "L" if image.mode in _GRAY else "RGB")
    if image.mode == "L" and bits < 8:
        key *= 255 // (2**bits - 1)  # Pillow has scaled the pixels, but not this
    visible = (color != np.array(key)).any(axis=-1)
    return color, np.where(visible, np.uint8(255), np.uint8(0))


def _to_rgb(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, str]:
    """An image converted to sRGB, and words for how."""
    profile = icc if image.mode in _OWN_PROFILE else None
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            return _through(image, source), " through its ICC profile"
        except (OSError, ImageCms.PyCMSError):
            how = " by the simple formula: its ICC profile cannot be used"
    else:
        how = "" if image.mode != "CMYK" else " by the simple formula: it has no ICC profile"
    if image.mode == "LAB":
        return _through(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))), how
    return image.convert("RGB"), how


def _through(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    converted = ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB")
    assert converted is not None  # as it is not in place
    return converted
