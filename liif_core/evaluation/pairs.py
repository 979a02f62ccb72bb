"""LR images and the HR images that they are compared with."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from liif_core.data.crops import Images
from liif_core.data.matlab_resize import matlab_bicubic
from liif_core.data.resize import bicubic
from liif_core.presets import PROTOCOLS
from liif_core.sizes import Scale, Size, low_resolution_size, scaled_size

_RESIZED = {"pillow": bicubic, "matlab": matlab_bicubic}


@frozen
class Pair:
    """An LR image, and the part of its HR image that it shows: (h, w, c) and (H, W, c), uint8."""

    low: np.ndarray
    target: np.ndarray
    given: bool  # the LR image came with the data; else it was made

    @property
    def size(self) -> Size:
        """(H, W)."""
        return self.target.shape[0], self.target.shape[1]


def pairs(images: Images, i: int, scale: Scale, protocols: Sequence[str]) -> Iterator[tuple[Pair, list[str]]]:
    """The different pairs of image i at a scale, and for each the protocols that use it.

    An LR image that came with the data is used by all protocols that do not ignore it; the others are made of the
    cropped HR image.
    """
    image = images.image(i)
    given = images.low_resolution(i, scale)
    size = low_resolution_size((image.shape[0], image.shape[1]), scale) if given is None else given.shape[:2]
    height, width = scaled_size((size[0], size[1]), scale)
    target = image[:height, :width]
    made = list(protocols)
    if given is not None:
        made = [protocol for protocol in protocols if PROTOCOLS[protocol].given_low == "ignored"]
        if users := [protocol for protocol in protocols if protocol not in made]:
            yield Pair(given, target, True), users
    for kind in dict.fromkeys(PROTOCOLS[protocol].low for protocol in made):
        users = [protocol for protocol in made if PROTOCOLS[protocol].low == kind]
        yield Pair(_RESIZED[kind](target, (size[0], size[1])), target, False), users


def as_tensor(image: np.ndarray) -> Tensor:
    """(h, w, c) uint8 -> (1, c, h, w) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).unsqueeze(0).float() / 255
