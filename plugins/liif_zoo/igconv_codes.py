"""What the decoder of IGConv does with codes: reading squares of features, products with kernels, and moved pixels."""

from collections.abc import Callable, Iterator, Mapping
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from liif_core import LatentField, as_rows
from liif_core.shapes import Float
from liif_paper.unfold import UnfoldedField

VALUES, DEVICE_VALUES = 1 << 22, 1 << 26  # numbers that one step holds, on a CPU and on other devices
_LONGEST = 4096  # codes that one product has

SomeKernels = Callable[[slice], Tensor]  # some of a number of kernels, (n, inputs, outputs)


def room(device: torch.device) -> int:
    return VALUES if device.type == "cpu" else DEVICE_VALUES


def squares(field: LatentField) -> dict[str, Tensor]:
    """Maps that codes are read from, without writing out unfolded ones: few queries or none read them.

    "tap0", "tap1", ...: views of one tensor, each with the features of one of the pixels in a code's square, (B, h * w,
    C). A view is the features moved by some pixels in memory, so what is beyond the border is in it another
    pixel: "inside" (B, h * w, taps) says where it is not.
    """
    if not isinstance(field, UnfoldedField) or field.size == 1:
        return {"tap0": as_rows(field.dense())}
    (height, width), reach = field.grid, field.size // 2
    rows = as_rows(field.features)
    batch, codes, channels = rows.shape
    guard = reach * (width + 1)
    guarded = F.pad(rows.reshape(-1, channels), [0, 0, guard, guard])
    maps = {}
    steps = list(product(range(-reach, reach + 1), repeat=2))
    for tap, (down, across) in enumerate(steps):
        first = guard + down * width + across
        maps[f"tap{tap}"] = guarded[first : first + batch * codes].view(batch, codes, channels)
    step = torch.arange(-reach, reach + 1, device=rows.device)
    row, column = (torch.arange(n, device=rows.device).unsqueeze(1) + step for n in (height, width))
    row, column = (row >= 0) & (row < height), (column >= 0) & (column < width)
    inside = (row[:, None, :, None] & column[None, :, None, :]).view(1, codes, len(steps))
    return maps | {"inside": inside.expand(batch, -1, -1)}


def taps(maps: Mapping[str, Tensor]) -> int:
    return sum(name.startswith("tap") for name in maps)


def codes(maps: Mapping[str, Tensor], read: Callable[[Tensor], Tensor] = lambda values: values) -> Tensor:
    """Codes in the order of pixels and then channels, (..., inputs), of what ``read`` makes of the maps."""
    parts = torch.stack([read(maps[f"tap{tap}"]) for tap in range(taps(maps))], dim=-2)
    if "inside" in maps and not (inside := read(maps["inside"])).all():
        parts = parts.where(inside.unsqueeze(-1), 0)
    return parts.flatten(-2).float()


def pixels_first(kernels: Tensor, taps: int) -> Tensor:
    """Kernels (n, inputs, outputs) whose inputs are in the order of channels and then pixels, in that of ``codes``."""
    return kernels.unflatten(1, (-1, taps)).transpose(1, 2).flatten(1, 2)


def products(
    maps: Mapping[str, Tensor], index: Tensor, which: Tensor, count: int, kernels: SomeKernels, outputs: int
) -> Tensor:
    """(..., outputs): the product of the code ``index`` and of kernel number ``which``, both (B, ...).

    ``kernels`` gives a range of ``count`` kernels, in the order of ``pixels_first``. Each is asked for once.
    """
    batch, grid = maps["tap0"].shape[:2]
    first = torch.arange(0, batch * grid, grid, device=index.device)
    place = (index + first.view(-1, *[1] * (index.ndim - 1))).flatten()
    which = which.flatten()
    order = which.argsort()
    counts = which.bincount(minlength=count)
    starts = counts.cumsum(0) - counts
    inputs = taps(maps) * maps["tap0"].shape[-1]
    step = max(1, room(index.device) // (inputs * outputs))
    values, queries = [], []
    for begin in range(0, count, step):
        own = slice(begin, min(begin + step, count))
        table = kernels(own)
        for its, start, length, longest in _batches(starts[own], counts[own], room(index.device) // inputs):
            at = start.unsqueeze(1) + torch.arange(longest, device=order.device)
            there = at < (start + length).unsqueeze(1)
            query = order[at.clamp(max=len(order) - 1)]
            chosen = place[query].flatten()
            read = codes(maps, lambda rows, chosen=chosen: rows.flatten(0, 1).index_select(0, chosen))
            values.append((read.view(*query.shape, -1) @ table[its])[there])
            queries.append(query[there])
    back = torch.cat(queries).argsort()
    return torch.cat(values)[back].unflatten(0, index.shape)


def _batches(starts: Tensor, counts: Tensor, most: int) -> Iterator[tuple[Tensor, Tensor, Tensor, int]]:
    """Ranges of queries with one kernel each, in batches of about the same length and of at most ``most`` queries.

    (kernels, starts, lengths, the greatest length).
    """
    parts = (counts + _LONGEST - 1) // _LONGEST
    kernel = torch.arange(len(counts), device=counts.device).repeat_interleave(parts)
    part = torch.arange(len(kernel), device=counts.device) - (parts.cumsum(0) - parts)[kernel]
    start = starts[kernel] + part * _LONGEST
    length = (counts[kernel] - part * _LONGEST).clamp(max=_LONGEST)
    unit = 2 ** (length.double().log2().floor() - 2).clamp(min=0)
    padded = ((length / unit).ceil() * unit).long()
    for longest in padded.unique().tolist():
        for chosen in (padded == longest).nonzero()[:, 0].split(max(1, most // longest)):
            yield kernel[chosen], start[chosen], length[chosen], longest


def products_of_blocks(
    maps: Mapping[str, Tensor], rows: Tensor, columns: Tensor, table: Tensor
) -> Float[Tensor, "B h w R C outputs"] | None:
    """Products of codes, whose maps are (B, h, w, width), and kernels, at the places of each code.

    ``table`` (ny, nx, inputs, outputs) has the kernels, and ``rows`` (h, R) and ``columns`` (w, C) say which. None
    where few codes have the same ones, so that this is slow.
    """
    down, its_row = rows.unique(dim=0, return_inverse=True)
    across, its_column = columns.unique(dim=0, return_inverse=True)
    if 16 * len(down) * len(across) > len(rows) * len(columns) and len(down) * len(across) > 1:
        return None
    shape = rows.shape[1], columns.shape[1], table.shape[-1]
    result = table.new_empty(len(maps["tap0"]), len(rows), len(columns), *shape)
    for i, j in product(range(len(down)), range(len(across))):
        kernels = table[down[i]][:, across[j]].permute(2, 0, 1, 3).flatten(1)
        if len(down) * len(across) == 1:
            return (codes(maps) @ kernels).unflatten(-1, shape)
        own = slice(None), (its_row == i).nonzero(), (its_column == j).nonzero()[:, 0]
        some = codes(maps, lambda values, own=own: values[own])
        result[own] = (some @ kernels).unflatten(-1, shape)
    return result


def bilinear(image: Tensor, index: Tensor, place: Tensor) -> Tensor:
    """An image (B, channels, h, w), each channel at a place of its own: (K, B, *Q, channels), float32.

    ``place`` (K, B, *Q, 2, channels) is that of each channel, x and then y, relative to the center of pixel ``index``,
    row * w + column, in half pixels. Beyond the border, colors are those of the border.
    """
    batch, channels, height, width = image.shape
    center = 2 * torch.stack([index % width, index.div(width, rounding_mode="floor")], dim=-1) + 1
    size = place.new_tensor([width, height])
    where = torch.addcdiv((center / size - 1).unsqueeze(-1), place, size.unsqueeze(-1))
    where = where.movedim(1, 0).movedim(-1, 1)  # (B, channels, K, *Q, 2)
    shape = where.shape[2:-1]
    found = F.grid_sample(
        image.reshape(batch * channels, 1, height, width),
        where.reshape(batch * channels, 1, -1, 2),
        padding_mode="border",
        align_corners=False,
    )
    return found.view(batch, channels, *shape).movedim(1, -1).movedim(0, 1)


def chosen(colors: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """(B, h, w, R, C, channels): of colors (B, h, w, ny, nx, channels), those at the places of each code."""
    size = colors.shape[3:5]
    if all(
        places.shape[1] == count and bool((places == torch.arange(count, device=places.device)).all())
        for places, count in zip((row, column), size)
    ):
        return colors
    code = (torch.arange(len(row), device=row.device), torch.arange(len(column), device=row.device))
    return colors[
        :, code[0].view(-1, 1, 1, 1), code[1].view(1, -1, 1, 1), row[:, None, :, None], column[None, :, None, :]
    ]
