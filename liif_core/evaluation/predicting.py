"""What a model predicts under a protocol: its cells, its orientations, its tiles and its rounding."""

import torch
from torch import Tensor

from liif_core.errors import UserError
from liif_core.model.continuous import ContinuousModel
from liif_core.model.device import autocast
from liif_core.model.ensemble import SelfEnsemble
from liif_core.model.geometry import region_axes
from liif_core.presets import EvalProtocol
from liif_core.sizes import Size

_LARGEST_TILED = 4  # the scale up to which a protocol's tiles are used


def predict(
    model: ContinuousModel, low: Tensor, size: Size, precision: str, protocol: EvalProtocol, where: str
) -> Tensor:
    """An LR image (1, c, h, w) in [0, 1], rendered at ``size``: (1, c, H, W) float32 in [0, 1], on the CPU.

    Raises UserError, which begins with ``where``, for a model whose output is not finite.
    """
    if protocol.ensemble > 1:
        model = SelfEnsemble(model, protocol.ensemble)
    with torch.inference_mode(), autocast(low.device, precision):
        prediction = _in_tiles(model, low, size, protocol).cpu()
    if not prediction.isfinite().all():
        raise UserError(
            f"{where}: the model's output is not finite in {precision}: "
            "its training diverged, or fp16 is too narrow for it (use float32 or bf16)"
        )
    return (prediction * 255).round() / 255 if protocol.rounded else prediction


def _in_tiles(model: ContinuousModel, low: Tensor, size: Size, protocol: EvalProtocol) -> Tensor:
    """The mean of tiles that are rendered as images of their own, where the protocol has such."""
    scale = size[0] // low.shape[2]
    if protocol.tiles is None or scale > _LARGEST_TILED or size != (low.shape[2] * scale, low.shape[3] * scale):
        return _whole(model, low, size, protocol).clamp_(0, 1)
    side, overlap = protocol.tiles
    total = low.new_zeros(1, low.shape[1], *size)
    count = low.new_zeros(size)
    starts = [_starts(length, side, side - overlap) for length in low.shape[2:]]
    for top in starts[0]:
        for left in starts[1]:
            tile = low[:, :, top : top + side, left : left + side]
            rows, columns = (
                slice(start * scale, (start + length) * scale)
                for start, length in zip((top, left), tile.shape[2:])
            )  # fmt: skip
            total[:, :, rows, columns] += _whole(model, tile, (tile.shape[2] * scale, tile.shape[3] * scale), protocol)
            count[rows, columns] += 1
    return (total / count).clamp_(0, 1)


def _starts(length: int, side: int, step: int) -> list[int]:
    """Where tiles begin; the last one ends with the image."""
    return [*range(0, length - side, step), max(0, length - side)]


def _whole(model: ContinuousModel, low: Tensor, size: Size, protocol: EvalProtocol) -> Tensor:
    picture = model.encode(low)
    if protocol.max_scale is None:
        return picture.render(size, clamp=protocol.tiles is None)
    rows, columns, cell = region_axes(size, picture.size, None)
    smallest = 2 / (protocol.max_scale * torch.tensor(picture.size))
    return picture.render_grid(rows, columns, torch.maximum(cell, smallest)).clamp_(0, 1)
