"""Queries: the positions at which colors are wanted. Symbols in shapes are those of ``protocols``."""

import torch
from attrs import frozen
from torch import Tensor

from liif_core.model.device import moved
from liif_core.shapes import Float, Shaped


@frozen(eq=False)
class Query:
    """The positions at which colors are wanted, in float32. Make one with ``points`` or ``grid``, of any type."""

    cell: Float[Tensor, "b *q 2"]  # height and width of each queried pixel; axes of q may be 1 where those of Q are not
    _coord: Tensor | None
    axes: tuple[Tensor, Tensor] | None  # rows (H,) and columns (W,) of a pixel grid
    known_cell: Float[Tensor, "1 2"] | None = None  # the cell of all queries, on the CPU, if it is known there

    @classmethod
    def points(cls, coord: Shaped[Tensor, "b *Q 2"], cell: Shaped[Tensor, "..."]) -> "Query":
        """Scattered points: ``coord`` (B, N, 2), or a grid (B, H, W, 2); ``cell`` broadcastable to it from the right.

        The query is on the device of ``coord``. A cell for all points is best given on the CPU: decoders that prepare
        an image for one cell need its values there, and reading them from a GPU means to wait for it.

        Raises ValueError for shapes that do not fit.
        """
        if coord.ndim < 3 or coord.shape[-1] != 2:
            raise ValueError(f"coord: expected (B, N, 2), got {tuple(coord.shape)}")
        fits = 0 < cell.ndim <= coord.ndim
        if not fits or any(have not in (1, want) for have, want in zip(cell.shape[::-1], coord.shape[::-1])):
            raise ValueError(f"cell: expected a shape that broadcasts to {tuple(coord.shape)}, got {tuple(cell.shape)}")
        known = _known(cell)
        cell = moved(cell, coord.device).float().reshape(*[1] * (coord.ndim - cell.ndim), *cell.shape)
        return cls(cell=cell.expand(*cell.shape[:-1], 2), coord=coord.float(), axes=None, known_cell=known)

    @classmethod
    def grid(cls, rows: Shaped[Tensor, " H"], columns: Shaped[Tensor, " W"], cell: Shaped[Tensor, " 2"]) -> "Query":
        """A pixel grid, or a part of one, for every image: ``rows`` (H,), ``columns`` (W,), and one ``cell`` (2,).

        The query is on the device of ``rows``; ``cell`` is best given on the CPU, as of ``points``.
        """
        known, cell = _known(cell), moved(cell, rows.device).float().reshape(1, 1, 1, 2)
        return cls(cell=cell, coord=None, axes=(rows.float(), columns.float()), known_cell=known)

    @property
    def coord(self) -> Float[Tensor, "b *Q 2"]:
        """Coordinates (y, x)."""
        if self._coord is not None:
            return self._coord
        assert self.axes is not None
        return torch.stack(torch.meshgrid(*self.axes, indexing="ij"), dim=-1).unsqueeze(0)

    @property
    def places(self) -> tuple[Tensor, Tensor]:
        """y and x, broadcastable to (B or 1, *Q): for a grid (1, H, 1) and (1, 1, W), else both (B, *Q).

        For a grid, values computed per row and per column cost H + W instead of H * W.
        """
        if self._coord is not None:
            y, x = self._coord.unbind(-1)
            return y, x
        assert self.axes is not None
        return self.axes[0].view(1, -1, 1), self.axes[1].view(1, 1, -1)

    @property
    def shape(self) -> tuple[int, ...]:
        """Q: (N,) or (H, W)."""
        if self._coord is not None:
            return tuple(self._coord.shape[1:-1])
        assert self.axes is not None
        return len(self.axes[0]), len(self.axes[1])


def _known(cell: Tensor) -> Float[Tensor, "1 2"] | None:
    """The one cell of all queries, if there is one, and it can be read without waiting for a device."""
    one = cell.device.type == "cpu" and cell.shape[-1] == cell.numel()
    return cell.float().reshape(1, -1).expand(1, 2) if one else None
