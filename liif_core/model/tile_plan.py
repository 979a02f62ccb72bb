"""How an image is divided into tiles and bands, so that rendering it takes a given amount of memory."""

import os

import torch
from attrs import frozen
from torch import Tensor

from liif_core.errors import UserError
from liif_core.model.continuous import ContinuousModel
from liif_core.model.device import device_of, eval_mode
from liif_core.model.geometry import cell_of, grid_over_image, make_coord
from liif_core.sizes import Region, Size

_OVERLAP = 24  # pixels by which tiles overlap on each side, where no halo makes them exact
_LIVE_OUTPUTS = 6  # outputs as large as the largest of any layer that an encoder is assumed to hold at once
_SAMPLE_SIDE = 16  # pixels; the side of the image that memory is measured on


class TooLittleMemory(UserError):
    """Even the smallest tile takes more memory than is allowed; ``needed`` bytes suffice."""

    def __init__(self, problem: str, needed: int):
        super().__init__(problem)
        self.needed = needed


@frozen
class TilePlan:
    """How an image is divided into tiles, and its output into bands of rows. Made by ``plan_tiles``.

    Attributes:
        tile: (height, width) of the largest tile, in pixels of the image, without its halo.
        rows: height of the largest band, in output rows.
        halo: pixels that are encoded around a tile, so that the result equals that of the whole image.
        overlap: pixels by which tiles overlap on each side. Above 0, tiles are blended, and the result is approximate.
        whole: the plan for the whole image, where a region is rendered whose colors depend on all of the image.
    """

    tile: Size
    rows: int
    halo: int
    overlap: int
    whole: "TilePlan | None" = None


def default_memory(device: torch.device) -> int:
    """Bytes: a quarter of what is free on a CPU, and at least 256 MiB; half of what is free on a CUDA GPU."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 2
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not every system has these
        free = 4 << 30
    return max(1 << 28, free // 4)


def plan_tiles(
    model: ContinuousModel,
    image_size: Size,
    size: Size,
    region: Region | None = None,
    memory: int | None = None,
    batch: int = 1,
    row_bytes: int = 0,
) -> TilePlan:
    """Divide an image into tiles and bands, so that rendering it with ``render_bands`` takes about ``memory`` bytes.

    Args:
        model: the model that renders the image.
        image_size: (height, width) of the image in pixels.
        size: (height, width) of the output; with ``region``, of the region's output.
        region: (top, left, bottom, right), in pixels of the image, fractions allowed: the part that is rendered.
            Default: all of it.
        memory: bytes, besides the image and the output. Default: a quarter of what is free on a CPU, half on a GPU.
        batch: how many images are rendered at once.
        row_bytes: bytes that the reader of the image holds for each row of a tile, at any width of the tile.

    Returns:
        A plan with the largest tiles that fit. Its ``overlap`` is above 0 where the result will be approximate: the
        model sees the whole image (``model.halo`` is None), and the image does not fit in one tile.

    Raises TooLittleMemory if even the smallest tile takes more memory.

    Example: an image of 60 x 80 pixels, enlarged 4 times in about 50 MB.
        >>> image = torch.rand(1, 3, 60, 80)
        >>> plan = plan_tiles(model, (60, 80), (240, 320), memory=50_000_000)
        >>> bands = render_bands(model, lambda rows, columns: image[:, :, rows, columns], (60, 80), (240, 320), plan)
        >>> large = torch.cat(list(bands), dim=2)  # or write each band to a file
        >>> large.shape
        torch.Size([1, 3, 240, 320])
    """
    memory = default_memory(device_of(model)) if memory is None else memory
    top, left, bottom, right = region or (0, 0, *image_size)
    needed = (
        min(image_size[0], int(bottom) + 1) - max(0, int(top)),
        min(image_size[1], int(right) + 1) - max(0, int(left)),
    )
    row = size[1] * batch * model.channels * 4  # bytes of one row of output
    rows = max(1, min(size[0], int(0.125 * memory) // row))  # a band, and as much again for its file's own numbers
    bytes_per_pixel = _bytes_per_pixel(model) * batch
    halo, overlap = (max(image_size), 0) if model.halo is None else (model.halo, 0)
    most_rows = memory // 8 // row_bytes if row_bytes else image_size[0]  # that the reader may hold
    area = int(0.5 * memory) // bytes_per_pixel
    whole = None
    if model.num_statistics and region is not None:
        over_image = grid_over_image(size, image_size, region)
        whole = plan_tiles(model, image_size, over_image, None, memory, batch, row_bytes)
    seen = [min(side, part + 2 * (halo + model.multiple_of)) for side, part in zip(image_size, needed)]
    fits = seen[0] * seen[1] <= area and seen[0] <= most_rows
    if fits and (model.num_statistics is not None or rows == size[0]):
        return TilePlan(needed, rows, halo, 0, whole)
    if model.num_statistics is None:
        enough = max(2 * bytes_per_pixel * seen[0] * seen[1], 8 * row_bytes * seen[0], 8 * row * size[0])
        raise TooLittleMemory(
            f"memory: {memory / 1e6:.0f} MB are too few: this decoder's colors depend on all queries at once, so the "
            "image cannot be cut into tiles; raise the limit, or render a smaller size or region",
            enough,
        )
    if model.halo is None:
        halo, overlap = 0, _OVERLAP
    around = 2 * (halo + 2 * overlap + model.multiple_of)
    least = max(1, 4 * overlap)  # so that no pixel lies where three tiles overlap
    high = min(needed[0], int(area**0.5) - around, int(rows * (bottom - top) / size[0]))
    high = max(least, high if most_rows >= image_size[0] else min(high, most_rows - around))
    wide = min(needed[1], area // (high + around) - around)
    if wide < least or min(high + around, image_size[0]) > most_rows:
        enough = max(2 * bytes_per_pixel * (least + around) ** 2, 8 * row_bytes * (least + around))
        raise TooLittleMemory(
            f"memory: {memory / 1e6:.0f} MB are too few for this model; at least {enough / 1e6:.0f} MB", enough
        )
    return TilePlan((high, wide), rows, halo, overlap, whole)


def total_pixels(model: ContinuousModel, image_size: Size, size: Size, region: Region | None = None) -> int:
    """The number of output pixels that ``render_bands`` processes, those of its statistics included.

    This is the sum of the numbers that ``on_progress`` receives. Arguments are as of ``plan_tiles``.
    """
    height, width = size if region is None else grid_over_image(size, image_size, region)
    return size[0] * size[1] + (model.num_statistics or 0) * height * width


def _bytes_per_pixel(model: ContinuousModel) -> int:
    """About how many bytes each pixel of the image takes while it is encoded, measured on a small image.

    The larger of ``_LIVE_OUTPUTS`` times the largest output of a layer, and of what is kept afterwards, prepared maps
    included.
    """
    largest = [0]

    def record(module: torch.nn.Module, arguments: object, output: object) -> None:
        if isinstance(output, Tensor):
            largest[0] = max(largest[0], output.nbytes)

    hooks = [module.register_forward_hook(record) for module in model.modules()]
    try:
        with torch.inference_mode(), eval_mode(model):
            sample = torch.zeros(1, model.channels, _SAMPLE_SIDE, _SAMPLE_SIDE, device=device_of(model))
            picture = model.encode(sample)
            twice = 2 * _SAMPLE_SIDE, 2 * _SAMPLE_SIDE
            picture.query(make_coord(twice)[None, :1], cell_of(twice))
    finally:
        for hook in hooks:
            hook.remove()
    return max(_LIVE_OUTPUTS * largest[0], picture.held_bytes() + largest[0]) // _SAMPLE_SIDE**2 + 1
