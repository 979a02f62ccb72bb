"""How an image is cut into tiles and bands, so that rendering it takes a given amount of memory."""

import os

import torch
from attrs import frozen
from torch import Tensor

from liif_core.errors import UserError
from liif_core.model.continuous import ContinuousModel
from liif_core.model.geometry import grid_over_image
from liif_core.sizes import Region, Size

_OVERLAP = 24  # pixels by which tiles overlap to each side, where no halo makes them exact
_LIVE_OUTPUTS = 6  # outputs of its widest layer that an encoder is assumed to hold at once


@frozen
class TilePlan:
    """How an image is cut into tiles. ``tile`` is in pixels of the image; ``rows`` is the output rows of a band."""

    tile: Size
    rows: int
    halo: int
    overlap: int  # pixels; above 0, tiles are blended and the result is approximate
    whole: "TilePlan | None" = None  # for the whole image, where a region is rendered whose colors depend on all of it


def default_memory(device: torch.device) -> int:
    """Bytes: a quarter of what is free on the CPU, half of what is free on a GPU."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 2
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not a system that says
        free = 4 << 30
    return max(1 << 28, free // 4)


def plan_tiles(
    model: ContinuousModel, within: Size, size: Size, region: Region | None, memory: int, batch: int = 1
) -> TilePlan:
    """Cut an image of size ``within``, rendered at ``size``, so that it takes about ``memory`` bytes.

    ``batch`` images are rendered at once. Raises UserError where even the smallest tile takes more.
    """
    top, left, bottom, right = region or (0, 0, *within)
    needed = min(within[0], int(bottom) + 1) - max(0, int(top)), min(within[1], int(right) + 1) - max(0, int(left))
    row = size[1] * batch * model.channels * 4  # bytes of one row of output
    rows = max(1, min(size[0], int(0.125 * memory) // row))  # a band, and as much again for its file's own numbers
    area = int(0.5 * memory) // (_bytes_per_pixel(model) * batch)
    halo, overlap = (max(within), 0) if model.halo is None else (model.halo, 0)
    whole = None
    if model.num_statistics and region is not None:
        whole = plan_tiles(model, within, grid_over_image(size, within, region), None, memory, batch)
    seen = [min(side, part + 2 * (halo + model.multiple_of)) for side, part in zip(within, needed)]
    if seen[0] * seen[1] <= area and (model.num_statistics is not None or rows == size[0]):
        return TilePlan(needed, rows, halo, 0, whole)
    if model.num_statistics is None:
        raise UserError(
            f"memory: {memory / 1e6:.0f} MB are too few: this decoder's colors depend on all queries at once, so the image "
            "cannot be cut into tiles; raise the limit, or render a smaller size or region"
        )
    if model.halo is None:
        halo, overlap = 0, _OVERLAP
    around = 2 * (halo + 2 * overlap + model.multiple_of)
    least = max(1, 4 * overlap)  # so that no pixel lies where three tiles overlap
    high = max(least, min(needed[0], int(area**0.5) - around, int(rows * (bottom - top) / size[0])))
    wide = min(needed[1], area // (high + around) - around)
    if wide < least:
        enough = 2 * _bytes_per_pixel(model) * batch * (least + around) ** 2
        raise UserError(f"memory: {memory / 1e6:.0f} MB are too few for this model; at least {enough / 1e6:.0f} MB")
    return TilePlan((high, wide), rows, halo, overlap, whole)


def total_pixels(model: ContinuousModel, within: Size, size: Size, region: Region | None) -> int:
    """How many output pixels ``render_bands`` processes, those of its statistics included: the sum of ``on_progress``."""
    height, width = size if region is None else grid_over_image(size, within, region)
    return size[0] * size[1] + (model.num_statistics or 0) * height * width


def _bytes_per_pixel(model: ContinuousModel) -> int:
    """About how much encoding takes for each pixel of the image, measured on a small one.

    Six times the widest output of a layer, or what is left when it is done, codes prepared for decoding included.
    """
    widest = [0]

    def look(module: torch.nn.Module, given: object, output: object) -> None:
        if isinstance(output, Tensor):
            widest[0] = max(widest[0], output.nbytes)

    side = 16
    hooks = [module.register_forward_hook(look) for module in model.modules()]
    try:
        with torch.inference_mode():
            device = next(model.parameters(), torch.zeros(0)).device
            picture = model.encode(torch.zeros(1, model.channels, side, side, device=device))
            picture.query(torch.zeros(1, 1, 2), torch.full((1, 1, 2), 0.1))
    finally:
        for hook in hooks:
            hook.remove()
    return max(_LIVE_OUTPUTS * widest[0], picture.held_bytes() + widest[0]) // side**2 + 1
