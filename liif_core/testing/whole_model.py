"""The checks of a model that is not composed of parts: image -> continuous image."""

from typing import Any

import torch
from torch import Tensor

from liif_core.model.continuous import ContinuousImage, ContinuousModel, TilePlacement
from liif_core.model.protocols import Query
from liif_core.registry.components import Component
from liif_core.sizes import Size
from liif_core.testing import common
from liif_core.testing.case import Case, Check, Tensors, builds_for, dtype_name, expect_same, expect_shape, fail, random
from liif_core.testing.halo import measured_halo
from liif_core.testing.radius import over_declared


class ModelCase(Case):
    """A model of images of ``channels``. ``has_parameters = False`` declares that it has no parameters."""

    kind = "model"
    attributes = {"channels": (1, False), "multiple_of": (1, False), "halo": (0, True), "num_statistics": (0, True)}
    size = (9, 12)

    def __init__(self, component: Component | str, options: Any = None, channels: int = 3, has_parameters: bool = True):
        super().__init__(component, options)
        self.channels = channels
        self.has_parameters = has_parameters

    @property
    def sizes(self) -> dict[str, Any]:
        return {"channels": self.channels}

    def image(self, size: Size, batch: int = 1, seed: int = 0) -> Tensor:
        """A random image in [0, 1]."""
        return random(batch, self.channels, *size, seed=seed, low=0.0)

    def inputs(self, batch: int = 2, seed: int = 0) -> Tensors:
        return {
            "image": self.image(self.size, batch, seed),
            "coord": random(batch, 23, 2, seed=seed + 10),
            # one for each image; the same scale for rows and columns, since some models know no others
            "cell": random(batch, 1, 1, seed=seed + 20, low=0.05, high=0.5) * torch.tensor([1.0, 0.75]),
        }

    def outputs(self, module: Any, inputs: Tensors) -> Tensors:
        return {"colors": module.encode(inputs["image"]).query(inputs["coord"], inputs["cell"])}

    def extremes(self) -> list[tuple[str, Tensors]]:
        axis = torch.tensor([-1.5, -1, -0.5, 0, 0.9, 1])
        coord = torch.cartesian_prod(axis, axis)[None]
        return [
            (f"a {height} x {width} image of {value:g} and a cell of {size:g}",
             {"image": torch.full((1, self.channels, height, width), value), "coord": coord,
              "cell": torch.tensor([[[size, size * height / width]]])})
            for height, width in ((1, 1), (1, 3), (7, 10))
            for size in (1e-6, 0.1, 2.0)
            for value in (0.0, 0.5, 1.0)
        ]  # fmt: skip


def contract(case: ModelCase) -> None:
    """``build`` returns a ContinuousModel with the attributes of its contract, and with the requested ``channels``."""
    module = case.build()
    if not isinstance(module, ContinuousModel):
        fail(f"build returned {type(module).__name__}; expected a liif_core.ContinuousModel")
    common.contract(case)
    if module.channels != case.channels:
        fail(f"channels is {module.channels}, but build was called with channels = {case.channels}")


def encode(case: ModelCase) -> None:
    """``encode`` accepts images of any size from 1 x 1. Its result has the size and attributes of the contract."""
    module = case.build()
    for size in ((1, 1), (1, 5), (3, 2), (7, 8), (16, 11)):
        with torch.no_grad():
            found = module.encode(case.image(size, batch=2))
        if not isinstance(found, ContinuousImage):
            fail(f"encode returned {type(found).__name__}; expected a liif_core.ContinuousImage")
        expected = {
            "size": size, "channels": case.channels, "num_statistics": module.num_statistics,
            "device": torch.device("cpu"),
        }  # fmt: skip
        for name, value in expected.items():
            have = getattr(found, name, "missing")
            if (tuple(have) if isinstance(have, (list, torch.Size)) else have) != value:
                fail(f"the continuous image of a {size[0]} x {size[1]} image: {name} is {have!r}; expected {value!r}")
        with torch.no_grad():
            colors = found.query(torch.zeros(2, 3, 2), torch.tensor([0.3, 0.3 * size[0] / size[1]]))
        expect_shape(f"colors of a {size[0]} x {size[1]} image", colors, 2, 3, case.channels)
        if not isinstance(found.held_bytes(), int) or found.held_bytes() < 0:
            fail(f"held_bytes returned {found.held_bytes()!r}; expected a number of bytes, or 0 if unknown")


def refusals(case: ModelCase) -> None:
    """Images, coordinates and cells of a wrong shape raise ValueError."""
    module, c = case.build(), case.channels
    shapes: list[tuple[int, ...]] = [(1, c + 1, 4, 4), (c, 4, 4), (1, c, 0, 4)]
    for shape in shapes:
        _expect_refusal(f"encode of an image of shape {shape}", module.encode, torch.zeros(shape))
    with torch.no_grad():
        image = module.encode(case.image(case.size, batch=2))
    cell = torch.full((1, 1, 2), 0.1)
    for shape in [(2, 5, 3), (5, 2)]:
        _expect_refusal(f"query of coordinates of shape {shape}", image.query, torch.zeros(shape), cell)
    _expect_refusal("query of coordinates without a cell", image.query, torch.zeros(2, 5, 2))
    _expect_refusal("query of 5 coordinates with 4 cells", image.query, torch.zeros(2, 5, 2), cell.expand(2, 4, 2))


def _expect_refusal(what: str, function: Any, *arguments: Tensor) -> None:
    try:
        with torch.no_grad():
            function(*arguments)
    except ValueError:
        return
    except Exception as error:
        fail(f"{what}: expected ValueError, got {type(error).__name__}: {error}")
    fail(f"{what}: expected ValueError, got a result")


def _grid() -> Query:
    return Query.grid(torch.linspace(-0.9, 0.95, 4), torch.linspace(-0.8, 1, 6), torch.tensor([0.2, 0.15]))


def shape(case: ModelCase) -> None:
    """Colors are (B, *Q, channels), for coordinates, points and a pixel grid, for 1 and 3 channels.

    A model that does not support one of these numbers raises ValueError in ``build``.
    """
    for channels, module in builds_for(case, "channels", {1, 3}):
        inputs = case.inputs()
        coord, cell = inputs["coord"], inputs["cell"]
        with torch.no_grad():
            image = module.encode(inputs["image"])
            expected = image.query(coord, cell)
            expect_shape("colors of coordinates", expected, 2, 23, channels)
            found = image.query(Query.points(coord, cell))
            expect_same("a Query of the same coordinates", {"colors": found}, {"colors": expected})
            expect_shape("colors of a pixel grid", image.query(_grid()), 2, 4, 6, channels)


def pixel_grid(case: ModelCase) -> None:
    """A pixel grid has the same colors as its pixels queried as points in one call."""
    query = _grid()
    with torch.no_grad():
        image = case.build().encode(case.inputs()["image"])
        expected = image.query(Query.points(query.coord.flatten(1, 2), query.cell.flatten(1, 2)))
        expect_same("a pixel grid", {"colors": image.query(query).flatten(1, 2)}, {"colors": expected})


def independent(case: ModelCase) -> None:
    """If ``num_statistics`` is 0, a color depends on its own query only."""
    module, inputs = case.build(), case.inputs()
    if module.num_statistics != 0:
        return
    with torch.no_grad():
        image = module.encode(inputs["image"])
        whole = image.query(inputs["coord"], inputs["cell"])
        for part in (slice(0, 1), slice(1, 9), slice(9, 23)):
            words = f"{part.stop - part.start} of 23 queries"
            colors = image.query(inputs["coord"][:, part], inputs["cell"])
            expect_same(words, {"colors": colors}, {"colors": whole[:, part]})


def chunks(case: ModelCase) -> None:
    """A pixel grid rendered in chunks of any size, with statistics computed in chunks, equals one query of it."""
    rows, columns, cell = torch.linspace(-0.95, 0.9, 5), torch.linspace(-0.9, 0.97, 7), torch.tensor([0.2, 0.15])
    with torch.no_grad():
        image = case.build().encode(case.inputs()["image"])
        whole = image.query(Query.grid(rows, columns, cell)).permute(0, 3, 1, 2)
        for size in (35, 12, 3):
            colors = image.render_grid(rows, columns, cell, chunk_size=size)
            expect_same(f"in chunks of {size} queries", {"colors": colors}, {"colors": whole})
        if image.num_statistics:
            statistics = image.grid_statistics(rows, columns, cell, chunk_size=4)
            part = image.render_grid(rows[1:3], columns[2:], cell, statistics=statistics)
            expect_same("a part, with the statistics of the whole", {"colors": part}, {"colors": whole[:, :, 1:3, 2:]})


def render(case: ModelCase) -> None:
    """``render`` returns (B, channels, H, W) for any size, and a region equals that part of the whole image.

    The latter only if ``num_statistics`` is not None. Sizes that ``check_scale`` refuses are left out.
    """
    with torch.no_grad():
        module = case.build()
        image = module.encode(case.inputs()["image"])
        height, width = case.size
        for size in ((1, 1), (4, 30), (18, 24)):
            if _refuses(module, case.size, size):
                continue
            expect_shape("a rendered image", image.render(size), 2, case.channels, *size)
        whole = image.render((2 * height, 2 * width))
        region = image.render((8, 12), (1, 2, 5, 8))
    expect_shape("a rendered region", region, 2, case.channels, 8, 12)
    if image.num_statistics is not None:
        expect_same("a region", {"colors": region}, {"colors": whole[:, :, 2:10, 4:16]}, tolerance=1e-4)


def _refuses(model: ContinuousModel, size: Size, target: Size) -> bool:
    """Whether the model declares that it cannot render this size."""
    try:
        model.check_scale(size, target)
    except ValueError:
        return True
    return False


def stateless(case: ModelCase) -> None:
    """Continuous images are independent: encoding or querying one does not change another."""
    module, inputs, others = case.build(), case.inputs(), case.inputs(seed=1)
    with torch.no_grad():
        image = module.encode(inputs["image"])
        expected = image.query(inputs["coord"], inputs["cell"])
        module.encode(others["image"]).query(others["coord"], others["cell"])
        image.query(others["coord"], others["cell"])
        found = image.query(inputs["coord"], inputs["cell"])
    expect_same("after another image", {"colors": found}, {"colors": expected})


def halo(case: ModelCase) -> None:
    """Pixels at least ``halo`` away from a position do not influence its color; None: the whole image may.

    If ``num_statistics`` is not 0, colors depend on the whole image through the other queries.
    """
    module = case.build()
    if module.halo is not None and module.num_statistics == 0:
        measured = measured_halo(module, case.channels)
        if message := over_declared("halo", module.halo, measured):
            case.report(message)


def tiles(case: ModelCase) -> None:
    """A tile has the same colors as the whole image at positions at least ``halo`` pixels from each cut.

    The corner of a tile is a multiple of ``multiple_of``. With ``halo`` None, tiles have to work, not to be exact.
    """
    module = case.build()
    unit = module.multiple_of
    halo = module.halo if module.halo is not None else 4
    start = -(-(halo + 3) // unit) * unit
    size = start + 2 * halo + 4 * unit + 7, start + 2 * halo + 4 * unit + 10
    placement = TilePlacement(size, start, start + unit)
    stop = start + 2 * halo + 4 * unit
    image = case.image(size)
    exact = module.halo is not None and module.num_statistics is not None
    cuts = ((placement, stop, stop + unit), (TilePlacement(size, 0, 0), stop, stop), (TilePlacement(size, 0, 0), *size))
    with torch.no_grad():
        whole = module.encode(image)
        statistics = whole.grid_statistics(*_middle(size, (0, 0), size, 0)) if module.num_statistics else ()
        for place, bottom, right in cuts:
            tile = module.encode(image[:, :, place.top : bottom, place.left : right], place)
            if tuple(tile.size) != size:
                fail(f"size of a tile is {tuple(tile.size)}; expected that of the whole image, {size}")
            rows, columns, cell = _middle(size, (place.top, place.left), (bottom, right), halo)
            query = Query.grid(rows, columns, cell)
            given = {"statistics": statistics} if statistics else {}
            found, expected = tile.query(query, **given), whole.query(query, **given)
            expect_shape("colors of a tile", found, 1, *query.shape, case.channels)
            if exact:
                words = f"a tile from {place.top, place.left} to {bottom, right} of an image of {size}"
                expect_same(words, {"colors": found}, {"colors": expected})
            elif not found.isfinite().all():
                fail("colors of a tile are not finite")


def _middle(size: Size, first: Size, last: Size, halo: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, columns and cell of a grid of half pixels over a tile, without ``halo`` pixels at each cut."""
    axes = []
    for whole, start, stop in zip(size, first, last):
        low, high = (start + halo if start else 0), (stop - halo if stop < whole else whole)
        positions = torch.arange(2 * low, 2 * high + 1, dtype=torch.float64) / 2
        axes.append((2 * positions / whole - 1).float())
    return axes[0], axes[1], torch.tensor([1 / size[0], 1 / size[1]])


def autocast(case: ModelCase) -> None:
    """Under autocast, positions stay float32: half precision would move colors by several pixels in a wide image."""
    module, size = case.build(), (1, 3000)
    image, coord = case.image(size), random(1, 400, 2)
    cell = torch.tensor([2.0, 2 / 3000])
    with torch.no_grad():
        expected = module.encode(image).query(coord, cell)
        with torch.autocast("cpu", torch.bfloat16):
            found = module.encode(image).query(coord, cell)
    if found.dtype != torch.float32:
        fail(f"under autocast: expected float32, got {dtype_name(found)}")
    error, spread = (found - expected).square().mean().sqrt().item(), expected.std(dim=1).mean().item()
    if error > 0.3 * spread + 0.01 * expected.abs().max().item():
        fail(f"under autocast, colors differ by {error:.2g} on average; they vary by {spread:.2g}")


CHECKS: tuple[Check, ...] = (
    *common.OPTIONS, contract, common.parameters, encode, refusals, shape, pixel_grid, independent, chunks, render,
    stateless, halo, tiles, autocast, *common.COMMON,
)  # fmt: skip
