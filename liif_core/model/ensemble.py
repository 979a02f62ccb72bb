"""Self-ensemble: the mean of what a model makes of an image in several orientations, each turned back.

Timofte, Rothe and Van Gool, Seven ways to improve example-based single image super resolution, CVPR 2016. Here each
orientation is asked for at the turned positions, so that nothing is resized, at any scale.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from attrs import evolve, frozen
from torch import Tensor

from liif_core.model.continuous import ContinuousImage, ContinuousModel, Statistics, TilePlacement
from liif_core.model.query import Query
from liif_core.shapes import Float
from liif_core.sizes import Size


@frozen
class Orientation:
    """An image is transposed, if ``transposed``, and then flipped."""

    transposed: bool
    upside_down: bool
    mirrored: bool

    def image(self, image: Tensor) -> Tensor:
        """An image (B, c, h, w), turned."""
        turned = image.transpose(2, 3) if self.transposed else image
        return turned.flip([dim for dim, flip in ((2, self.upside_down), (3, self.mirrored)) if flip])

    def back(self, image: Tensor) -> Tensor:
        """A turned image (B, c, h, w), as it was."""
        image = image.flip([dim for dim, flip in ((2, self.upside_down), (3, self.mirrored)) if flip])
        return image.transpose(2, 3) if self.transposed else image

    def size(self, size: Size) -> Size:
        """The size of a turned image."""
        return (size[1], size[0]) if self.transposed else size

    def pairs(self, pairs: Tensor) -> Tensor:
        """Cells (..., 2), turned."""
        return pairs.flip(-1) if self.transposed else pairs

    def query(self, query: Query) -> Query:
        """The same positions of the turned image, in the same order if they are points."""
        known = None if query.known_cell is None else self.pairs(query.known_cell)
        if query.axes is not None:
            rows, columns = self.axes(*query.axes)
            cell = self.pairs(query.cell)
            return evolve(query, axes=(rows, columns), cell=cell, known_cell=known)
        coord = self.pairs(query.coord)
        signs = [-1.0 if flip else 1.0 for flip in (self.upside_down, self.mirrored)]
        coord = torch.stack([part * sign for part, sign in zip(coord.unbind(-1), signs)], dim=-1)
        return evolve(query, coord=coord, cell=self.pairs(query.cell), known_cell=known)

    def axes(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """The rows and columns of a pixel grid in the turned image, in ascending order if these are."""
        first, second = (columns, rows) if self.transposed else (rows, columns)
        return (-first.flip(0) if self.upside_down else first), (-second.flip(0) if self.mirrored else second)

    def render(
        self,
        turned: ContinuousImage,
        rows: Tensor,
        columns: Tensor,
        cell: Tensor,
        chunk_size: int | None = None,
        statistics: Statistics = (),
    ) -> Tensor:
        """A pixel grid of an image, rendered from the turned image; arguments as of ``ContinuousImage.render_grid``."""
        return self.back(turned.render_grid(*self.axes(rows, columns), self.pairs(cell), chunk_size, statistics))


ROTATIONS = (
    Orientation(transposed=False, upside_down=False, mirrored=False),
    Orientation(transposed=True, upside_down=True, mirrored=False),
    Orientation(transposed=False, upside_down=True, mirrored=True),
    Orientation(transposed=True, upside_down=False, mirrored=True),
)
ORIENTATIONS = (*ROTATIONS, *(evolve(turn, mirrored=not turn.mirrored) for turn in ROTATIONS))
ENSEMBLES = {4: ROTATIONS, 8: ORIENTATIONS}  # by their number: quarter turns, and these with mirror images


class SelfEnsemble(ContinuousModel):
    """The mean over orientations of another model. It takes as many times the work and the memory.

    ``count`` is 4, for quarter turns, or 8, for these and their mirror images. Raises ValueError for another number.
    """

    def __init__(self, model: ContinuousModel, count: int):
        super().__init__()
        if count not in ENSEMBLES:
            raise ValueError(f"ensemble: expected 4 (quarter turns) or 8 (with mirror images), got {count}")
        self.model = model
        self.orientations = ENSEMBLES[count]
        self.channels = model.channels
        self.trained_scale = model.trained_scale
        self.loaded_from = model.loaded_from
        self.component_names = {f"model.{path}" if path else "model": n for path, n in model.component_names.items()}

    @property
    def multiple_of(self) -> int:  # type: ignore[override]
        """As of the other model."""
        return self.model.multiple_of

    @property
    def num_statistics(self) -> int | None:  # type: ignore[override]
        """As of the other model; each orientation has its own."""
        return self.model.num_statistics

    @property
    def halo(self) -> int | None:  # type: ignore[override]
        """That of the other model, and what a turned tile may lose at a cut to begin at a multiple."""
        return None if self.model.halo is None else self.model.halo + self.model.multiple_of - 1

    def check_scale(self, size: Size, target: Size) -> None:
        self.model.check_scale(size, target)

    def encode(self, image: Float[Tensor, "B channels h w"], placement: TilePlacement | None = None) -> "EnsembleImage":
        parts = []
        for orientation in self.orientations:
            turned = orientation.image(image)
            if placement is None:
                parts.append(self.model.encode(turned))
            else:
                parts.append(self.model.encode(*self._tile(turned, orientation, placement)))
        return EnsembleImage(parts, self.orientations, len(image))

    def _tile(self, turned: Tensor, orientation: Orientation, placement: TilePlacement) -> tuple[Tensor, TilePlacement]:
        """A turned tile, without the rows and columns before the first multiple of ``multiple_of``; and its place."""
        size = orientation.size(placement.size)
        corner = (placement.left, placement.top) if orientation.transposed else (placement.top, placement.left)
        flips = orientation.upside_down, orientation.mirrored
        starts = [
            side - (start + length) if flip else start
            for side, start, length, flip in zip(size, corner, turned.shape[-2:], flips)
        ]
        top, left = (-start % self.multiple_of for start in starts)
        place = TilePlacement(size, starts[0] + top, starts[1] + left)
        return turned[:, :, top:, left:], place


class EnsembleImage(ContinuousImage):
    """The mean of continuous images that show a batch of images in several orientations."""

    def __init__(self, parts: Sequence[ContinuousImage], orientations: Sequence[Orientation], batch: int):
        self.parts, self.orientations, self.batch = parts, orientations, batch
        first = parts[0]  # the images as they are
        self.size, self.channels, self.device = first.size, first.channels, first.device
        self.num_statistics = first.num_statistics

    def query(self, where: Query | Tensor, cell: Tensor | None = None, statistics: Statistics = ()) -> Tensor:
        query = self.as_query(where, cell, self.batch)

        def colors(part: ContinuousImage, orientation: Orientation, own: Statistics) -> Tensor:
            turned = orientation.query(query)
            found = part.query(turned, statistics=own) if own else part.query(turned)
            if query.axes is None:
                return found
            return orientation.back(found.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

        return mean(colors(*each) for each in self._each(statistics))

    def render_grid(
        self, rows: Tensor, columns: Tensor, cell: Tensor, chunk_size: int | None = None, statistics: Statistics = ()
    ) -> Tensor:
        return mean(
            orientation.render(part, rows, columns, cell, chunk_size, own)
            for part, orientation, own in self._each(statistics)
        )

    def partial_statistic(self, query: Query, statistics: Statistics) -> Tensor:
        """(B, orientations, ...): that of each orientation."""
        found = [part.partial_statistic(turn.query(query), own) for part, turn, own in self._each(statistics)]
        return torch.stack(found, dim=1)

    def held_bytes(self) -> int:
        return sum(part.held_bytes() for part in self.parts)

    def _each(self, statistics: Statistics) -> Iterator[tuple[ContinuousImage, Orientation, Statistics]]:
        """The images, with their orientation and their own statistics."""
        for number, (part, orientation) in enumerate(zip(self.parts, self.orientations)):
            yield part, orientation, tuple(statistic[:, number] for statistic in statistics)


def mean(colors: Iterable[Tensor]) -> Tensor:
    """The mean, one after the other: no more than two are kept."""
    total, count = None, 0
    for its in colors:
        total, count = its if total is None else total + its, count + 1
    assert total is not None
    return total / count
