"""The non-local maps of CiaoSR: each position gathers, by attention, what similar places look like at a larger scale.

The attention is from every position to every position of the shrunk features, so that its matrix has (h w / s)^2
numbers for a scale of s: 3.3 GB for 320 x 180 positions at scale 2. The softmax of a position needs no other position.
The matrix is therefore computed in blocks of positions, one after the other, with the same result in bounded memory;
while gradients are recorded, a block is computed again for its gradients. The published code computes large maps in
windows of 48 x 48 positions, which changes the result.

Values are patches of 3 s x 3 s, s apart, so that each number of the result has a part in nine of them. The weights of
these nine, which lie along a diagonal of the matrix, are added up before they multiply values of s x s.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from liif_core.nn import mirror_padded

SCALES = (2, 3, 4)
SHARPNESS = 10.0  # factor of the products before the softmax
OVERLAP = 6.0  # what maps are divided by, where patches overlap

_AT_ONCE = 1 << 22  # numbers of the attention matrix that are in memory at once on a CPU
_DEVICE_AT_ONCE = 1 << 28  # the same on a GPU
_FEWEST = 256  # positions of a block at least, where ``_AT_ONCE`` allows fewer: those at its border are computed twice
_KEPT = 1 << 25  # numbers of the whole matrix up to which gradients are computed without computing blocks again


def _projection(channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out_channels, 1), nn.PReLU())


class CrossScaleAttention(nn.Module):
    """Features (B, C, h, w) and a scale of ``scales`` -> the non-local map (B, C, h, w)."""

    smallest_norm: Tensor

    def __init__(self, channels: int, scales: tuple[int, ...]):
        super().__init__()
        self.query = _projection(channels, max(1, channels // 2))
        self.key = _projection(channels, max(1, channels // 2))
        self.value = _projection(channels, channels)
        self.register_buffer("smallest_norm", torch.tensor([1e-4]))  # stored in published checkpoints
        self.down: Any = nn.ModuleDict(
            {str(scale): nn.Conv2d(channels, channels, 3, stride=scale, padding=1) for scale in scales}
        )

    def forward(self, features: Tensor, scale: int) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):  # weights are of the exponential of the products
            height, width = features.shape[-2:]
            padded = mirror_padded(features.float(), scale)
            shrunk = [side // scale for side in padded.shape[-2:]]
            smaller = F.interpolate(padded, size=shrunk, mode="bilinear", align_corners=False)
            query, key, value = self.query(padded), self.key(smaller), self.value(padded)
            # all numbers of a position at the larger scale are channels of a position, until the last moment
            larger = F.pixel_shuffle(self._attended(query, key, F.pixel_unshuffle(value, scale)), scale)
            result: Tensor = self.down[str(scale)](larger)[:, :, :height, :width] / OVERLAP
        return result

    def _attended(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(B, V, h, w) of queries (B, D, h, w), keys (B, D, y, x) and values (B, V, y, x)."""
        patches = F.unfold(key, 3, padding=1)
        keys = patches * (SHARPNESS / torch.maximum(patches.norm(dim=1, keepdim=True), self.smallest_norm))
        del patches
        size, count = (query.shape[2], query.shape[3]), keys.shape[2]
        query = F.pad(query, (2, 2, 2, 2))
        again = torch.is_grad_enabled() and len(query) * size[0] * size[1] * count > _KEPT

        def attended(images: slice, rows: slice, columns: slice) -> Tensor:
            around = query[images, :, rows.start : rows.stop + 4, columns.start : columns.stop + 4]
            given = around, keys[images], value[images], _inside(rows, columns, size, query)
            if not again:
                return _block(*given)
            part: Tensor = checkpoint(_block, *given, use_reentrant=False, preserve_rng_state=False)
            return part

        images, rows, columns = _blocks(len(query), size, count, query.device)
        bands = [[torch.cat([attended(i, r, c) for c in columns], dim=3) for r in rows] for i in images]
        return torch.cat([torch.cat(band, dim=2) for band in bands])


def _blocks(batch: int, size: tuple[int, int], count: int, device: torch.device) -> list[list[slice]]:
    """Images, rows and columns of the blocks that are computed together, each with one position more on each side.

    ``count`` numbers of the attention matrix belong to each position.
    """
    most = max(_FEWEST, (_AT_ONCE if device.type == "cpu" else _DEVICE_AT_ONCE) // count)
    whole = (size[0] + 2) * (size[1] + 2)
    high, wide = size
    if whole > most:
        wide = min(size[1], int(most**0.5) - 2)
        high = min(size[0], most // (wide + 2) - 2)
        wide = min(size[1], most // (high + 2) - 2)  # more, where there are few rows
    return [_divided(*part) for part in ((batch, max(1, most // whole)), (size[0], high), (size[1], wide))]


def _divided(end: int, most: int) -> list[slice]:
    """0 .. end in parts of about the same length."""
    count = -(-end // most)
    return [slice(end * i // count, end * (i + 1) // count) for i in range(count)]


def _inside(rows: slice, columns: slice, size: tuple[int, int], like: Tensor) -> Tensor | None:
    """(p + 2, q + 2): 1 for the positions of a block, and one more on each side, that lie inside the image, else 0.

    None where all do.
    """
    masks = []
    for part, side in zip((rows, columns), size):
        place = torch.arange(part.start - 1, part.stop + 1, device=like.device)
        masks.append(((place >= 0) & (place < side)).to(like.dtype))
    all_do = min(rows.start, columns.start) > 0 and rows.stop < size[0] and columns.stop < size[1]
    return None if all_do else masks[0].unsqueeze(1) * masks[1]


def _block(query: Tensor, keys: Tensor, value: Tensor, inside: Tensor | None) -> Tensor:
    """The attended values (b, V, p, q) of a block of positions.

    ``query`` (b, D, p + 4, q + 4) and ``inside`` (p + 2, q + 2) are of the block and positions around it; ``keys``
    (b, 9 D, y * x) and ``value`` (b, V, y, x) are of all codes.
    """
    weights = torch.softmax(F.unfold(query, 3).mT @ keys, dim=2)
    weights = weights if inside is None else weights * inside.view(-1, 1)
    around = query.shape[2] - 2, query.shape[3] - 2
    weights = _diagonal_sums(weights.unflatten(2, value.shape[-2:]).unflatten(1, around))
    attended = weights.flatten(3).flatten(1, 2) @ value.flatten(2).mT
    result: Tensor = attended.mT.unflatten(2, weights.shape[1:3])
    return result


def _diagonal_sums(x: Tensor) -> Tensor:
    """Sums along p and y together, and along q and x: (b, p, q, y, x) -> (b, p - 2, q - 2, y, x).

    Each is of x[p + d, y + d] over d = -1, 0, 1, with zeros beyond y.
    """
    for position, place in ((1, 3), (2, 4)):
        kept, shared = x.shape[position] - 2, x.shape[place] - 1
        total = x.narrow(position, 1, kept).clone()
        total.narrow(place, 0, shared).add_(x.narrow(position, 2, kept).narrow(place, 1, shared))
        total.narrow(place, 1, shared).add_(x.narrow(position, 0, kept).narrow(place, 0, shared))
        x = total
    return x
