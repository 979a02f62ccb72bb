"""The IIIF Image API 3.0 (https://iiif.io/api/image/3.0/): what a request asks for, and the description of an image."""

import math
import re
from typing import Any

from attrs import frozen

from liif_core.errors import cut
from liif_core.sizes import Size

CONTEXT = "http://iiif.io/api/image/3/context.json"
PROTOCOL = "http://iiif.io/api/image"
COMPLIANCE = "http://iiif.io/api/image/3/level2.json"
TILE = 256  # pixels: the side of a tile
MAX_AREA = 1 << 22  # pixels of one answer
FORMATS = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}  # and their media types
QUALITIES = ("default", "color", "gray", "bitonal")
_ROTATIONS = (0, 90, 180, 270)
_NUMBER = re.compile(r"\d{1,18}(?:\.\d{0,18})?|\.\d{1,18}", re.ASCII)
_FEATURES = [
    "baseUriRedirect", "canonicalLinkHeader", "cors", "jsonldMediaType", "mirroring", "profileLinkHeader",
    "regionByPct", "regionByPx", "regionSquare", "rotationBy90s", "sizeByConfinedWh", "sizeByH", "sizeByPct",
    "sizeByW", "sizeByWh", "sizeUpscaling",
]  # fmt: skip


class BadRequest(ValueError):
    """A request that cannot be answered, with its HTTP status code."""

    def __init__(self, message: str, status: int = 400):
        super().__init__(message)
        self.status = status


@frozen
class ImageRequest:
    """What a request asks for, in whole numbers.

    ``region`` is (left, top, width, height) in pixels of the full size, and lies within it. ``size`` is (height, width)
    of the region's image, which is then mirrored, if ``mirrored``, and turned clockwise by ``rotation`` degrees.
    """

    region: tuple[int, int, int, int]
    size: Size
    mirrored: bool
    rotation: int
    quality: str
    format: str
    upscaled: bool  # whether the region is enlarged
    whole: bool  # whether the region is the full image

    @property
    def canonical(self) -> str:
        """The canonical form of the request, section 4.7."""
        left, top, width, height = self.region
        region = "full" if self.whole else f"{left},{top},{width},{height}"
        size = "max" if self.size == (height, width) else f"{'^' * self.upscaled}{self.size[1]},{self.size[0]}"
        quality = "default" if self.quality == "color" else self.quality
        return f"{region}/{size}/{'!' * self.mirrored}{self.rotation}/{quality}.{self.format}"


def parse(region: str, size: str, rotation: str, last: str, full: Size, max_area: int = MAX_AREA) -> ImageRequest:
    """The four segments of a request for an image of ``full`` = (height, width) pixels.

    ``last`` is quality and format. Raises BadRequest for what the standard calls an error.
    """
    quality, dot, format = last.rpartition(".")
    if not dot or quality not in QUALITIES:
        raise BadRequest(f"quality {_quoted(quality or last)}: expected one of {', '.join(QUALITIES)}")
    if format not in FORMATS:
        raise BadRequest(f"format {_quoted(format)}: expected one of {', '.join(FORMATS)}")
    part = _region(region, full)
    chosen = _size(size, (part[3], part[2]), max_area)
    mirrored, degrees = _rotation(rotation)
    upscaled = chosen[0] > part[3] or chosen[1] > part[2]
    return ImageRequest(part, chosen, mirrored, degrees, quality, format, upscaled, part == (0, 0, full[1], full[0]))


def description(identifier: str, full: Size, format: str, max_area: int = MAX_AREA) -> dict[str, Any]:
    """``info.json`` of the image with the URI ``identifier``; ``format`` is the preferred one."""
    height, width = full
    factors = [1]
    while max(full) > TILE * factors[-1]:
        factors.append(2 * factors[-1])
    sizes = [(-(-height // factor), -(-width // factor)) for factor in reversed(factors)]
    return {
        "@context": CONTEXT,
        "id": identifier,
        "type": "ImageService3",
        "protocol": PROTOCOL,
        "profile": "level2",
        "width": width,
        "height": height,
        "maxArea": max_area,
        "sizes": [{"width": w, "height": h} for h, w in sizes if h * w <= max_area],
        "tiles": [{"width": TILE, "height": TILE, "scaleFactors": factors}],
        "preferredFormats": [format],
        "extraFormats": ["webp"],
        "extraQualities": [quality for quality in QUALITIES if quality != "default"],
        "extraFeatures": _FEATURES,
    }


def _quoted(text: str) -> str:
    return repr(cut(text, 60))


def _numbers(text: str, count: int, whole: bool) -> list[float] | None:
    """``count`` numbers that are separated by commas; None if ``text`` is something else."""
    parts = text.split(",")
    if len(parts) != count or not all(_NUMBER.fullmatch(part) and ("." not in part or not whole) for part in parts):
        return None
    return [float(part) for part in parts]


def _region(text: str, full: Size) -> tuple[int, int, int, int]:
    height, width = full
    if text == "full":
        return 0, 0, width, height
    if text == "square":
        side = min(full)
        return (width - side) // 2, (height - side) // 2, side, side
    percent = text.startswith("pct:")
    numbers = _numbers(text.removeprefix("pct:"), 4, whole=not percent)
    if numbers is None:
        raise BadRequest(f"region {_quoted(text)}: expected full, square, x,y,w,h in whole pixels, or pct:x,y,w,h")
    if percent:
        numbers = [number / 100 * side for number, side in zip(numbers, (width, height) * 2)]
        edges = numbers[0], numbers[1], numbers[0] + numbers[2], numbers[1] + numbers[3]
    else:
        edges = numbers[0], numbers[1], numbers[0] + numbers[2], numbers[1] + numbers[3]
    left, top, right, bottom = (
        min(math.floor(edge + 0.5), side) for edge, side in zip(edges, (width, height, width, height))
    )
    if right <= left or bottom <= top:
        raise BadRequest(f"region {_quoted(text)}: it is empty, or outside the image of {width} x {height} pixels")
    return left, top, right - left, bottom - top


def _size(text: str, part: Size, max_area: int) -> Size:
    height, width = part
    upscaling = text.startswith("^")
    wanted = text.removeprefix("^")
    limit = math.sqrt(max_area / (height * width))  # the greatest magnification
    if wanted == "max":
        return _within(part, limit if upscaling else min(1.0, limit), max_area)
    if wanted.startswith("!"):
        box = _numbers(wanted[1:], 2, whole=True)
        if box is None or min(box) < 1:
            raise _bad_size(text)
        fit = min(box[0] / width, box[1] / height)
        if fit > 1 and not upscaling:  # the standard's text allows the region's own size; its validators want an error
            raise _too_large(text, part)
        found = _within(part, min(fit, limit if upscaling else min(1.0, limit)), max_area)
        return min(found[0], int(box[1])), min(found[1], int(box[0]))
    if wanted.startswith("pct:"):
        percent = _numbers(wanted[4:], 1, whole=False)
        if percent is None or percent[0] <= 0:
            raise _bad_size(text)
        found = _scaled(part, percent[0] / 100)
    else:
        found = _sides(wanted, part, text)
    if not upscaling and (found[0] > height or found[1] > width):
        raise _too_large(text, part)
    if found[0] * found[1] > max_area:
        raise BadRequest(
            f"size {_quoted(text)}: an answer has at most {max_area:,} pixels (maxArea), and this has "
            f"{found[1]} x {found[0]}"
        )
    return found


def _sides(wanted: str, part: Size, text: str) -> Size:
    """``w,`` or ``,h`` or ``w,h``."""
    across, comma, down = wanted.partition(",")
    if not comma or not (across or down):
        raise _bad_size(text)
    sides = [None if side == "" else _numbers(side, 1, whole=True) for side in (down, across)]
    if any(side is None or side[0] < 1 for side, given in zip(sides, (down, across)) if given):
        raise _bad_size(text)
    height, width = (None if side is None else int(side[0]) for side in sides)
    if height is None:
        assert width is not None
        return max(1, math.floor(part[0] * width / part[1] + 0.5)), width
    return height, max(1, math.floor(part[1] * height / part[0] + 0.5)) if width is None else width


def _too_large(text: str, part: Size) -> BadRequest:
    return BadRequest(
        f"size {_quoted(text)}: larger than the region of {part[1]} x {part[0]} pixels; ask for {_quoted('^' + text)}"
    )


def _bad_size(text: str) -> BadRequest:
    return BadRequest(
        f"size {_quoted(text)}: expected max, w, or ,h or w,h or !w,h in whole pixels, or pct:n; ^ before it enlarges"
    )


def _scaled(part: Size, scale: float) -> Size:
    height, width = (max(1, math.floor(side * scale + 0.5)) for side in part)
    return height, width


def _within(part: Size, scale: float, max_area: int) -> Size:
    """``_scaled``, one pixel less where rounding makes it more than ``max_area``."""
    height, width = _scaled(part, scale)
    if height * width > max_area:
        height, width = (max(1, math.floor(side * scale)) for side in part)
    if height * width > max_area:  # a side of one pixel
        height, width = (min(height, max_area), 1) if width == 1 else (1, min(width, max_area))
    return height, width


def _rotation(text: str) -> tuple[bool, int]:
    mirrored = text.startswith("!")
    number = text.removeprefix("!")
    degrees = float(number) if _NUMBER.fullmatch(number) else -1.0
    if not 0 <= degrees <= 360:
        raise BadRequest(f"rotation {_quoted(text)}: expected 0 to 360, or ! and such a number")
    if degrees % 360 not in _ROTATIONS:
        raise BadRequest(f"rotation {_quoted(text)}: only 0, 90, 180 and 270 are offered", 501)
    return mirrored, int(degrees) % 360
