"""Numpy arrays to pictures and back."""

import numpy as np

from liif_core.images.arrays import top
from liif_core.images.picture import Picture, depth_of

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_DTYPES = ("uint8", "uint16", "float32")


def picture_from_array(image: np.ndarray) -> Picture:
    """The picture in an array (h, w), or (h, w, c) with c = 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha.

    Its type is uint8 or uint16, where the greatest integer is white and full alpha, or float32 in [0, 1]. The picture
    shares the array's memory.

    Raises TypeError for anything but an array of one of these types, and ValueError for another shape, an array
    without pixels, and floats that are not finite or outside [0, 1]. The messages name the argument ``image``.
    """
    if not isinstance(image, np.ndarray):
        raise TypeError(f"image: expected a numpy array, got {type(image).__name__}")
    if image.dtype.name not in _DTYPES:
        raise TypeError(f"image: expected an array of {', '.join(_DTYPES[:-1])} or {_DTYPES[-1]}, got {image.dtype}")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in _MODES):
        raise ValueError(f"image: expected an array (h, w) or (h, w, 1 to 4), got shape {image.shape}")
    if 0 in image.shape:
        raise ValueError(f"image: expected at least one pixel, got shape {image.shape}")
    if image.dtype == np.float32:
        low, high = image.min(), image.max()
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError("image: expected finite values, got some that are infinite or not a number")
        if low < 0 or high > 1:
            raise ValueError(f"image: expected float32 values in [0, 1], got values from {low:g} to {high:g}")
    pixels = image if image.ndim == 3 else image[..., None]
    pixels = pixels.astype(image.dtype.newbyteorder("="), copy=False)
    channels = pixels.shape[2]
    colors = 1 if channels < 3 else 3
    return Picture(
        color=pixels[..., :colors],
        alpha=pixels[..., colors] if channels > colors else None,
        mode=_MODES[channels],
        span=(0.0, top(depth_of(image))),
    )


def picture_to_array(picture: Picture) -> np.ndarray:
    """The pixels of a picture as an array (h, w, c) of its own type; c as for ``picture_from_array``.

    Floats are clipped to the picture's span, and their alpha to [0, 1]: models overshoot at edges.
    """
    parts = [picture.color] if picture.alpha is None else [picture.color, picture.alpha[..., None]]
    pixels = np.concatenate(parts, axis=2)
    if picture.depth == "float32":
        colors = picture.color.shape[2]
        np.clip(pixels[..., :colors], *picture.span, out=pixels[..., :colors])
        np.clip(pixels[..., colors:], 0, 1, out=pixels[..., colors:])
    return pixels
