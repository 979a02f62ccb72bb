"""JPEG and WebP, whose encoders want the whole image at once: collected as it comes, encoded at the end."""

import io
from typing import BinaryIO

import numpy as np
from PIL import Image

from liif_core.images.metadata import exif_block
from liif_core.images.target import Target


class WholeSink:
    """Takes rows (h, width, samples) of uint8."""

    def __init__(self, file: BinaryIO, target: Target):
        self.file, self.target, self.next = file, target, 0
        height, width = target.size
        # WebP has no gray.
        self.repeat = 3 if target.format.name == "WebP" and target.channels < 3 else 1
        color = "RGB" if target.channels > 2 or self.repeat > 1 else "L"
        self.canvas = Image.new(color + ("A" if target.channels in (2, 4) else ""), (width, height))

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
        encoding = self.target.encoding
        if self.target.format.name == "JPEG":
            options = {"quality": encoding.quality, "subsampling": 0}
        else:
            options = {"quality": encoding.quality, "lossless": encoding.lossless}
        # Not straight into the file: Pillow takes no notice of a write that a full disk cut short.
        encoded = io.BytesIO()
        self.canvas.save(encoded, self.target.format.name.upper(), **options, **self._carried())
        self.file.write(encoded.getbuffer())

    def _carried(self) -> dict:
        metadata = self.target.metadata
        exif = exif_block(metadata, self.target.size)
        comment = metadata.text.get("Comment")
        carried = {"icc_profile": metadata.icc, "xmp": metadata.xmp, "exif": b"Exif\0\0" + exif if exif else None}
        if self.target.format.name == "JPEG":
            carried |= {"dpi": metadata.dpi, "comment": comment.encode() if comment else None}
        return {name: value for name, value in carried.items() if value is not None}
