"""A picture as the batch of images that a model renders."""

import numpy as np
import torch
from torch import Tensor

from liif_core.errors import UserError
from liif_core.images import Source, to_planes
from liif_core.shapes import Float


def images_of(model_channels: int, channels: int, alpha: bool) -> int:
    """How many images a model renders for a picture of 1 or 3 channels, with alpha or without.

    Raises UserError for a model whose channels no picture has.
    """
    if model_channels not in (1, 3):
        raise UserError(f"the model takes images of {model_channels} channels, and pictures have 1 or 3")
    return (1 if channels == model_channels else channels) + alpha


class PictureBatch:
    """A picture as the batch of images that a model takes, and back.

    Alpha is rendered beside the color, as a gray image. A gray image is rendered by a model of three channels as three
    equal ones, whose mean is taken; a color image by a model of one channel, a channel at a time.
    """

    def __init__(self, picture: Source, channels: int):
        self.picture = picture
        self.model_channels = channels
        self.colors = picture.channels
        self.flat_alpha: float | None = None  # of all pixels, where it is one: it need not be rendered
        self.has_alpha = picture.alpha_range is not None and picture.metadata.nodata is None
        if self.has_alpha and picture.alpha_range is not None and picture.alpha_range[0] == picture.alpha_range[1]:
            _, corner = to_planes(picture.read(slice(0, 1), slice(0, 1)))
            assert corner is not None
            self.flat_alpha = float(corner[0, 0, 0])
        self.renders_alpha = self.has_alpha and self.flat_alpha is None
        self.channels = self.colors + self.has_alpha
        self.color_images = images_of(channels, self.colors, False)
        self.images = self.color_images + self.renders_alpha

    def read(self, rows: slice, columns: slice) -> Float[Tensor, "images model_channels h w"]:
        """A part of the picture."""
        color, alpha = to_planes(self.picture.read(rows, columns))
        planes = torch.from_numpy(color)
        images = [planes] if self.colors == self.model_channels else list(planes[:, None])
        if self.renders_alpha:
            assert alpha is not None
            images.append(torch.from_numpy(alpha))
        return torch.stack([image.expand(self.model_channels, -1, -1) for image in images])

    def apart(self, band: Float[Tensor, "images model_channels h w"]) -> tuple[np.ndarray, np.ndarray | None]:
        """Rendered rows as color (c, h, w), and alpha (1, h, w) or None."""
        color = band[0] if self.colors == self.model_channels else band[: self.color_images].mean(1)
        if not self.has_alpha:
            return color.numpy(), None
        if self.renders_alpha:
            return color.numpy(), band[self.color_images].mean(0, keepdim=True).numpy()
        return color.numpy(), np.full((1, *band.shape[2:]), self.flat_alpha, np.float32)
