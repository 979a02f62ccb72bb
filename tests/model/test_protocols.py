"""Queries, and the small operations that decoders are made of."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import liif_core
from liif_core import LatentField, Query, as_rows, blend, gather

axis = st.integers(1, 5)


def test_a_grid_has_axes_and_points():
    rows, columns = torch.tensor([-0.5, 0.5]), torch.tensor([-0.6, 0.0, 0.6])
    query = Query.grid(rows, columns, torch.tensor([0.2, 0.3]))
    assert query.shape == (2, 3) and query.coord.shape == (1, 2, 3, 2)
    for i, y in enumerate(rows):
        for j, x in enumerate(columns):
            assert query.coord[0, i, j].tolist() == [y.item(), x.item()]
    assert torch.broadcast_shapes(query.cell.shape, (4, 2, 3, 2)) == (4, 2, 3, 2)
    assert query.cell.flatten().tolist() == pytest.approx([0.2, 0.3])


@pytest.mark.parametrize("points", [(7,), (3, 4)])
def test_points_keep_their_shape(points):
    coord = torch.rand(2, *points, 2)
    for cell in (torch.ones(2), torch.ones(2, *[1] * len(points), 2), torch.ones(2, *points, 2)):
        query = Query.points(coord, cell)
        assert query.shape == points and query.axes is None and torch.equal(query.coord, coord)
        assert query.cell.ndim == coord.ndim
        assert torch.broadcast_shapes(query.cell.shape, coord.shape) == coord.shape


@pytest.mark.parametrize("shape", [(3, 2), (2, 6, 2), (3, 7, 2), (1, 1, 1, 2), (), (3,)])
def test_cells_that_do_not_broadcast_are_refused(shape):
    with pytest.raises(ValueError, match="cell: "):
        Query.points(torch.rand(2, 7, 2), torch.ones(shape))


@pytest.mark.parametrize("shape", [(2,), (7, 2), (2, 7, 3)])
def test_coordinates_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="coord: "):
        Query.points(torch.rand(shape), torch.ones(2))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64])
def test_queries_are_float32(dtype):
    values = torch.zeros(1, 3, 2, dtype=dtype)
    for query in (Query.points(values, values), Query.grid(values[0, :, 0], values[0, :, 1], values[0, 0])):
        assert query.coord.dtype == query.cell.dtype == torch.float32


@given(data=st.data(), batch=axis, codes=st.tuples(axis, axis), width=axis, neighbours=axis, shared=st.booleans())
@settings(deadline=None)
def test_gather_by_hand(data, batch, codes, width, neighbours, shared):
    height, across = codes
    maps = torch.rand(batch, width, height, across)
    rows = as_rows(maps)
    assert rows.shape == (batch, height * across, width)
    shape = data.draw(st.sampled_from([(6,), (2, 3), (1,)]))
    index = torch.randint(0, height * across, (neighbours, 1 if shared else batch, *shape))
    found = gather(rows, index)
    assert found.shape == (neighbours, batch, *shape, width)
    full = index.expand(neighbours, batch, *shape).reshape(neighbours, batch, -1)
    flat = found.reshape(neighbours, batch, -1, width)
    for k in range(neighbours):
        for b in range(batch):
            for q in range(full.shape[2]):
                row, column = divmod(full[k, b, q].item(), across)
                assert torch.equal(flat[k, b, q], maps[b, :, row, column])


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("neighbours", [1, 4])
def test_blend_is_the_weighted_sum(batch, neighbours):
    values, weight = torch.rand(neighbours, 3, 5, 2), torch.rand(neighbours, batch, 5)
    weight = weight / weight.sum(0)
    expected = sum(values[k] * weight[k][..., None] for k in range(neighbours))
    torch.testing.assert_close(blend(values, weight), expected, rtol=0, atol=1e-6)


def test_as_rows_is_free_where_the_map_is_channels_last():
    maps = torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    assert as_rows(maps).data_ptr() == maps.data_ptr()


@pytest.mark.parametrize("bias", [True, False])
def test_linear_of_any_field_is_a_linear_layer_on_its_codes(bias):
    class Doubled(LatentField):
        def __init__(self, features):
            self.features, self.channels = features, 2 * features.shape[1]

        def dense(self):
            return torch.cat([self.features, -self.features], 1)

    field = Doubled(torch.rand(2, 3, 4, 5))
    layer = nn.Linear(6, 7, bias=bias)
    expected = layer(field.dense().permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(field.linear(layer.weight, layer.bias), expected, rtol=0, atol=1e-6)


def test_a_field_must_say_its_codes():
    with pytest.raises(TypeError, match="dense"):
        type("Empty", (LatentField,), {})()


def test_the_default_components_keep_the_contracts(registry):
    sizes = {
        "encoder": {"in_channels": 3},
        "features": {"in_channels": 4},
        "sampling": {},
        "conditioning": {},
        "decoder": {"in_channels": 147, "out_channels": 3, "neighbours": 4},  # 147: what "opesr" needs
    }
    for kind, keywords in sizes.items():
        contract = getattr(liif_core, kind.capitalize())
        for component, origin in registry.components[kind]:
            if origin.distribution == "liif-core":
                if kind == "decoder":
                    widths = {"coordinate": 2, "cell": 2, "hierarchy": 12}
                    keywords["conditions"] = {
                        name: widths[name] for name in getattr(component.build, "needs", ("coordinate", "cell"))
                    }
                    keywords["neighbours"] = {"clit": 49, "thera": 1, "igconv": 1, "subpixel": 1}.get(component.name, 4)
                module = component.build(component.options(), **keywords)
                assert isinstance(module, nn.Module) and isinstance(module, contract)


def test_every_public_name_is_there():
    for name in liif_core.__all__:
        assert getattr(liif_core, name).__doc__ or name in ("Maps", "hookimpl", "hookspec")
    assert dir(liif_core) == sorted(dir(liif_core)) and set(liif_core.__all__) <= set(dir(liif_core))
    with pytest.raises(AttributeError, match="nothing"):
        getattr(liif_core, "nothing")  # noqa: B009
