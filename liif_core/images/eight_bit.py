"""Images of 8 bits per sample, read by Pillow: every mode becomes gray or RGB, with or without alpha."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
from attrs import evolve
from PIL import Image, ImageCms, ImageFile, TiffImagePlugin

from liif_core.errors import UserError
from liif_core.images import complaints, exif, ifd, jpeg_end, kinds, metadata, nodata
from liif_core.images.picture import Change, Header, Metadata, Picture

_GRAY = {"1", "L", "LA", "La"}
_COLOR = {"RGB", "RGBX", "RGBA", "RGBa", "P", "PA"}
_PALETTES = ("P", "PA")
_CONVERTED = {"CMYK", "YCbCr", "HSV", "LAB"}
_OWN_PROFILE = {"CMYK", "LAB"}  # whose ICC profiles do not describe the RGB they become
_SAME = {"MPO": "JPEG", "DIB": "BMP"}  # formats by other names
_ONE_AND_MORE = ("MPO", "HEIF")  # formats whose first picture is the main one
MODES = _GRAY | _COLOR | _CONVERTED


def look(path: Path, number: int = 0, frame: int | None = None) -> Header:
    """The header of a file that Pillow reads: of directory ``number`` in a TIFF, and of a 16-bit PNG as 8-bit.

    ``frame`` is that of an animation, from 1; a frame after the first is decoded. Raises UserError for animations of
    which no frame is chosen, frames that a file does not have, and modes that are not read.
    """
    with Image.open(path, formats=kinds.pillow_formats(path)) as image:
        if image.format != "TIFF":
            check_frame(
                path, f"an animated {image.format}", "frame", _frames(image), frame, image.format in _ONE_AND_MORE
            )
            if frame is not None and frame > 1:
                image.seek(frame - 1)
                image.load()  # frames are put on those before, which may change the mode
        elif number:
            image.seek(number)
        _check_mode(path, image)
        # Pillow gives a TIFF's size as seen, if a tag states the orientation.
        applied = isinstance(image, TiffImagePlugin.TiffImageFile) and exif.ORIENTATION in image.tag_v2
        turned = not applied and metadata.orientation(image) > 4
        return Header(
            path=path,
            format=_SAME.get(str(image.format), str(image.format)),
            size=(image.width, image.height) if turned else (image.height, image.width),
            mode=image.mode,
            channels=1 if image.mode in _GRAY else 3,
            alpha=image.has_transparency_data,
            depth="uint8",
        )


def check_frame(path: Path, what: str, part: str, count: int, frame: int | None, first: bool = False) -> None:
    """Raises UserError for a file of several frames or pages of which none is chosen, and for one that is not there.

    ``first`` says that of several the first is taken where none is chosen.
    """
    if frame is None and count > 1 and not first:
        raise UserError(
            f"{path}: {what} ({count} {part}s): only one {part} at a time is read; choose it with --frame N "
            f"of liif upscale, from 1 to {count} (frame=N in Python), or save it as a file of its own"
        )
    if frame is not None and not 1 <= frame <= count:
        has = f"it has {count} {part}s" if count > 1 else "it holds a single picture"
        raise UserError(f"{path}: there is no frame {frame}: {has}")


def _frames(image: Image.Image) -> int:
    return int(getattr(image, "n_frames", 1))


def animated(image: Image.Image) -> int:
    """The number of frames of an animation; 1 for a file of one picture, or of one main picture."""
    return 1 if image.format in _ONE_AND_MORE or image.format == "ICO" else _frames(image)


def in_color(picture: Picture, alpha: bool) -> Picture:
    """The picture in RGB, and with alpha if that is asked for, opaque if it had none."""
    known = picture.alpha if picture.alpha is not None else np.full(picture.size, 255, np.uint8)
    return evolve(picture, color=np.broadcast_to(picture.color, (*picture.size, 3)), alpha=known if alpha else None)


def read(
    path: Path, bits: int = 8, number: int = 0, page: ifd.Directory | None = None, frame: int | None = None
) -> Picture:
    """The picture in a file that Pillow reads; in a TIFF, that of directory ``number``, which ``page`` holds.

    ``bits`` is the number of bits per sample of a PNG, see ``to_picture``; ``frame`` that of an animation, see
    ``look``.
    """
    with opened(path, number, page, frame) as (image, found, orientation, notes):
        picture = to_picture(image, found, orientation, bits)
    return evolve(picture, notes=(*notes, *picture.notes))


@contextmanager
def opened(
    path: Path, number: int = 0, page: ifd.Directory | None = None, frame: int | None = None
) -> Iterator[tuple[Image.Image, Metadata, int, tuple[str, ...]]]:
    """A file that Pillow has decoded, its metadata, the orientation that is left to apply, and notes; see ``read``."""
    place = number if page is not None else (frame or 1) - 1
    with Image.open(path, formats=kinds.pillow_formats(path)) as image:
        if place:
            image.seek(place)
        if page is not None:  # Pillow turns a TIFF as it is loaded, and does not find all that XMP can say
            image.getexif()[exif.ORIENTATION] = metadata.from_directory(page)[1]
        try:
            with complaints.printed() if complaints.prints(page) else nullcontext():
                image.load()
        except OSError:
            whole = jpeg_end.completed(path) if image.format == "JPEG" else None
            if whole is None:
                raise
            with Image.open(whole, formats=("JPEG",)) as again:
                again.load()
                yield again, *metadata.from_pillow(again, path=path), (jpeg_end.NOTE,)
                return
        notes = (*_one_of_several(image, frame), *kinds.bits_note(path, image.format))
        if page is None:
            yield image, *metadata.from_pillow(image, path=path), notes
        else:
            found = evolve(metadata.from_directory(page)[0], nodata=nodata.value_of(page))
            yield image, found, 1, notes  # Pillow has applied the orientation


def _one_of_several(image: ImageFile.ImageFile, frame: int | None) -> tuple[str, ...]:
    """A note if the file has several pictures, of which one is read."""
    if image.format == "ICO":
        sizes = len(image.info.get("sizes", ()))
        return (f"of the {sizes} sizes of this icon only the largest is read",) if sizes > 1 else ()
    count = _frames(image)
    if image.format == "TIFF" or count == 1:
        return ()
    if frame is None:
        return (f"of the {count} pictures in this file only the first is read",)
    return (f"of the {count} frames in this file only frame {frame} is read",)


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
            used = Change("ICC profile", f"used to convert {mode} to sRGB{'' if 'through' in how else ' in vain'}")
            found = evolve(found, icc=None, changed=(*found.changed, used) if found.icc else found.changed)
    color, alpha = _separate(image, bits)
    if mode in _PALETTES and metadata.has_color_profile(found):
        color = np.broadcast_to(color, (*color.shape[:2], 3))
    if found.nodata is not None:
        if alpha is None and mode in nodata.MODES:
            color, alpha = nodata.marked(color, found.nodata)
        else:
            found = evolve(found, nodata=None)
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
    palette = image.mode in _PALETTES
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
