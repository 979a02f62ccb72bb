"""Writing JPEG and WebP: rows are collected, and Pillow encodes the whole image at the end."""

import io
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, PngImagePlugin

from liif_core.images import exif, iptc
from liif_core.images.account import jpeg_comment
from liif_core.images.picture import Metadata
from liif_core.images.png import color_chunks, text_chunks
from liif_core.images.target import Target
from liif_core.images.timing import Timing
from liif_core.sizes import Size

_EXIF_PREFIX = b"Exif\0\0"


class Canvas:
    """Takes rows (h, width, samples) of uint8, and makes an image of them."""

    def __init__(self, target: Target):
        self.next = 0
        height, width = target.size
        # WebP has no gray.
        self.repeat = 3 if target.format.name == "WebP" and target.channels < 3 else 1
        color = "RGB" if target.channels > 2 or self.repeat > 1 else "L"
        self.image = Image.new(color + ("A" if target.channels in (2, 4) else ""), (width, height))

    def rows(self, rows: np.ndarray) -> None:
        """Append rows, in order from the top."""
        if self.repeat > 1:
            rows = np.concatenate([rows[..., :1]] * self.repeat + [rows[..., 1:]], axis=-1)
        elif rows.shape[-1] == 1:
            rows = rows[..., 0]
        self.image.paste(Image.fromarray(rows), (0, self.next))
        self.next += len(rows)

    def finish(self) -> None:
        """The image is complete."""


class WholeSink(Canvas):
    """Takes rows (h, width, samples) of uint8, and writes a file at the end."""

    def __init__(self, file: BinaryIO, target: Target):
        super().__init__(target)
        self.file, self.target = file, target

    def finish(self) -> None:
        """Encode, and write the file."""
        _save(self.file, self.target, self.image)


class WebpFrames:
    """An animated WebP, which is written at the end."""

    def __init__(self, file: BinaryIO, target: Target, timing: Timing):
        self.file, self.target, self.timing = file, target, timing
        self.images: list[Image.Image] = []

    def frame(self) -> Canvas:
        """The next frame, to be filled."""
        canvas = Canvas(self.target)
        self.images.append(canvas.image)
        return canvas

    def finish(self) -> None:
        """Encode, and write the file."""
        first, *others = self.images
        durations = self.timing.whole_milliseconds()
        _save(
            self.file, self.target, first,
            save_all=True, append_images=others, duration=durations, loop=self.timing.plays,
        )  # fmt: skip


def _save(file: BinaryIO, target: Target, image: Image.Image, **options: Any) -> None:
    kind = target.format.name.upper()
    options["quality"] = target.encoding.quality
    options |= {"subsampling": 0} if kind == "JPEG" else {"lossless": target.encoding.lossless}
    options |= save_options(target.metadata, target.size, kind)
    # Not straight into the file: Pillow does not notice a write that a full disk cut short.
    encoded = io.BytesIO()
    image.save(encoded, kind, **options)
    file.write(encoded.getbuffer())


def save_options(metadata: Metadata, size: Size, kind: str) -> dict[str, Any]:
    """The parameters with which Pillow's ``save`` writes metadata, as far as a format can hold it.

    ``kind`` is Pillow's name of the format. Formats other than PNG, JPEG, WebP and TIFF get none.
    """
    block = exif.block(metadata, size)
    options: dict[str, Any] = {"icc_profile": metadata.icc, "exif": _EXIF_PREFIX + block if block else None}
    if kind == "JPEG":
        options |= {"xmp": metadata.xmp, "dpi": metadata.dpi, "comment": jpeg_comment(metadata.text) or None}
        options["extra"] = iptc.jpeg_segment(metadata.iptc) if metadata.iptc else None
    elif kind == "WEBP":
        options["xmp"] = metadata.xmp
    elif kind == "PNG":
        chunks = PngImagePlugin.PngInfo()
        for name, data in [*color_chunks(metadata), *text_chunks(metadata)]:
            chunks.add(name, data)
        options |= {"dpi": metadata.dpi, "pnginfo": chunks}
    elif kind == "TIFF":
        options |= {"dpi": metadata.dpi, "exif": _tiff_exif(options["exif"], metadata)}
    else:
        return {}
    return {name: value for name, value in options.items() if value is not None}


def _tiff_exif(block: bytes | None, metadata: Metadata) -> Image.Exif:
    tags = Image.Exif()
    if block:
        tags.load(block)
    if metadata.xmp:
        tags[exif.XMP] = metadata.xmp  # a TIFF keeps both in one directory
    if metadata.iptc:
        tags[iptc.TIFF_TAG] = metadata.iptc
    return tags
