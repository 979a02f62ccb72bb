"""Which codes a query reads: at borders, corners and ties, against torch's grid_sample."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import centers, moved_to_corner, nearest

from liif_core import Query

NAMES = {"nearest": 1, "local-ensemble": 4}
CORNERS = [(-1, -1), (-1, 1), (1, -1), (1, 1)]


@pytest.fixture(scope="module")
def sampling(registry):
    def build(name):
        component, _ = registry.find("sampling", name)
        return component.build(component.options())

    return build


def points(coord, cell=(0.1, 0.1)):
    return Query.points(coord, torch.tensor(cell))


def expected(coord, grid, corner):
    """Index and offset by torch's own nearest sampling of a map of indices, and of the codes' positions."""
    height, width = grid
    size = torch.tensor([height, width])
    moved = moved_to_corner(coord, corner, grid)
    numbers = torch.arange(height * width, dtype=torch.float32).reshape(1, 1, height, width)
    home = nearest(centers(height, width).permute(2, 0, 1)[None], moved)
    return nearest(numbers, moved)[..., 0].long(), (coord - home) * size


def border_coordinates(grid):
    """Edges, centers and everything halfway between centers, inside the image and beyond it."""
    axes = []
    for n in grid:
        steps = torch.arange(-2, 2 * n + 3, dtype=torch.float64)
        axis = (-1 + steps / n).float()
        axes.append(torch.cat([axis, axis + 1e-6, axis - 1e-6, torch.tensor([-1.0, 1.0, 0.0, -3.0, 2.5])]))
    return torch.cartesian_prod(*axes)[None]


GRIDS = [(1, 1), (1, 4), (2, 2), (3, 5), (8, 7)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("grid", GRIDS)
def test_picks_what_grid_sample_picks(sampling, name, grid):
    module = sampling(name)
    coord = border_coordinates(grid)
    sites = module(points(coord), grid)
    assert len(sites.index) == module.neighbours == NAMES[name]
    for k, corner in enumerate(CORNERS if name == "local-ensemble" else [None]):
        index, offset = expected(coord, grid, corner)
        assert torch.equal(sites.index[k], index)
        torch.testing.assert_close(sites.offset[k], offset, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("grid", GRIDS)
def test_in_range_and_weights_sum_to_one(sampling, name, grid):
    sites = sampling(name)(points(border_coordinates(grid)), grid)
    assert sites.index.dtype == torch.int64
    assert sites.index.min() >= 0 and sites.index.max() < grid[0] * grid[1]
    assert (sites.weight >= 0).all()
    torch.testing.assert_close(sites.weight.sum(0), torch.ones(sites.weight.shape[1:]), rtol=0, atol=1e-6)


def test_weight_is_the_area_diagonally_opposite(sampling):
    """Between four codes, by hand: 1/4 of the way down and 3/8 of the way across a 2 x 2 grid's middle."""
    down, across = 0.25, 0.375
    coord = torch.tensor([[[-0.5 + down, -0.5 + across]]])
    sites = sampling("local-ensemble")(points(coord), (2, 2))
    assert sites.index.flatten().tolist() == [0, 1, 2, 3]
    expected = [(1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across]
    torch.testing.assert_close(sites.weight.flatten(), torch.tensor(expected), rtol=0, atol=1e-6)
    rows, columns = sites.offset.flatten(0, 2).unbind(-1)
    torch.testing.assert_close(rows, 2 * torch.tensor([down, down, down - 1, down - 1]), rtol=0, atol=1e-6)
    torch.testing.assert_close(columns, 2 * torch.tensor([across, across - 1, across, across - 1]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@given(
    grid=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    coord=st.lists(st.tuples(*[st.floats(-1.5, 1.5, width=32)] * 2), min_size=1, max_size=20),
)
@settings(max_examples=60, deadline=None)
def test_anywhere(sampling, name, grid, coord):
    coord = torch.tensor([coord])
    sites = sampling(name)(points(coord), grid)
    for k, corner in enumerate(CORNERS if name == "local-ensemble" else [None]):
        index, offset = expected(coord, grid, corner)
        assert torch.equal(sites.index[k], index)
        torch.testing.assert_close(sites.offset[k], offset, rtol=0, atol=4e-5)
    torch.testing.assert_close(sites.weight.sum(0), torch.ones(1, coord.shape[1]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("grid", GRIDS)
def test_a_grid_is_its_points(sampling, name, grid):
    """Per row and per column, or point by point: the same sites, to the last bit."""
    rows, columns = torch.linspace(-1.2, 1.1, 13), torch.linspace(-1, 1, 9)
    cell = torch.tensor([0.2, 0.3])
    window = Query.grid(rows, columns, cell)
    module = sampling(name)
    by_axis = module(window, grid)
    by_point = module(Query.points(torch.cartesian_prod(rows, columns)[None], cell), grid)
    assert window.shape == (13, 9) and by_axis.index.shape == (module.neighbours, 1, 13, 9)
    assert torch.equal(by_axis.index.flatten(2), by_point.index)
    assert torch.equal(by_axis.offset.flatten(2, 3), by_point.offset)
    assert torch.equal(by_axis.weight.flatten(2), by_point.weight)


@pytest.mark.parametrize("name", NAMES)
def test_float32_under_autocast(sampling, name):
    module = sampling(name)
    coord = torch.rand(2, 50, 2) * 2 - 1
    plain = module(points(coord), (1080, 1920))
    with torch.autocast("cpu", torch.bfloat16):
        under = module(points(coord), (1080, 1920))
    for sites in (plain, under):
        assert (sites.index.dtype, sites.offset.dtype, sites.weight.dtype) == (
            torch.int64,
            torch.float32,
            torch.float32,
        )
    assert torch.equal(plain.index, under.index)
    assert torch.equal(plain.offset, under.offset)
    assert torch.equal(plain.weight, under.weight)


def test_half_precision_coordinates_become_float32():
    query = Query.points(torch.zeros(1, 3, 2, dtype=torch.float64), torch.ones(2, dtype=torch.bfloat16))
    assert query.coord.dtype == query.cell.dtype == torch.float32


@pytest.mark.parametrize("name, source", [("coordinate", "offset"), ("cell", "cell")])
def test_conditionings_are_in_feature_cells(registry, sampling, name, source):
    component, _ = registry.find("conditioning", name)
    module = component.build(component.options())
    grid = (4, 10)
    coord, cell = torch.rand(2, 7, 2) * 2 - 1, torch.rand(2, 7, 2)
    query = Query.points(coord, cell)
    sites = sampling("local-ensemble")(query, grid)
    with torch.autocast("cpu", torch.bfloat16):
        value = module(query, sites, grid)
    expected = {"offset": sites.offset, "cell": (cell * torch.tensor(grid)).expand(4, 2, 7, 2)}[source]
    assert module.channels == 2 and value.dtype == torch.float32
    torch.testing.assert_close(value.expand(4, 2, 7, 2), expected, rtol=0, atol=1e-6)
