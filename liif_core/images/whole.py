"""JPEG and WebP, whose encoders want the whole image at once: collected as it comes, encoded at the end."""

from typing import BinaryIO

import numpy as np
from PIL import Image

from liif_core.geometry import Size
from liif_core.images.metadata import exif_block
from liif_core.images.picture import Metadata

MOST_IN_JPEG = 65_000  # bytes that a block of metadata may have: it lives in one segment


class WholeSink:
    """Takes rows (h, width, samples) of uint8; ``options`` go to Pillow's encoder for ``format``."""

    def __init__(self, file: BinaryIO, size: Size, samples: int, format: str, metadata: Metadata, options: dict):
        self.file, self.format, self.next = file, format, 0
        self.options = options | _carried(metadata, size, format)
        # WebP has no grey.
        self.repeat = 3 if format == "WEBP" and samples < 3 else 1
        height, width = size
        colour = "RGB" if samples > 2 or self.repeat > 1 else "L"
        self.canvas = Image.new(colour + ("A" if samples in (2, 4) else ""), (width, height))

    def rows(self, rows: np.ndarray) -> None:
        """Append rows, in order from the top."""
        if self.repeat > 1:
            rows = np.concatenate([rows[..., :1]] * self.repeat + [rows[..., 1:]], axis=-1)
        elif rows.shape[-1] == 1:
            rows = rows[..., 0]
        self.canvas.paste(Image.fromarray(rows), (0, self.next))
        self.next += len(rows)

    def finish(self) -> None:
        """Encode, and write the file."""
        self.canvas.save(self.file, self.format, **self.options)


def _carried(metadata: Metadata, size: Size, format: str) -> dict:
    exif = exif_block(metadata, size)
    comment = metadata.text.get("Comment")
    carried = {"icc_profile": metadata.icc, "xmp": metadata.xmp, "exif": b"Exif\0\0" + exif if exif else None}
    if format == "JPEG":
        carried |= {"dpi": metadata.dpi, "comment": comment.encode() if comment else None}
    return {name: value for name, value in carried.items() if value is not None}
