"""Composed models: rendering, querying, padding, residuals and the parts' contracts."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from parts import StatisticsDecoder
from reference import small_model
from torch import nn

import liif_core
from liif_core import Component, UserError, build_model, make_coord
from liif_core.experiment.build import try_model
from liif_core.experiment.toml_file import model_from_table
from liif_core.model import composed_image, continuous


@pytest.fixture
def image():
    return torch.rand(2, 3, 7, 6, generator=torch.Generator().manual_seed(5))


def table(**changes):
    return {
        "encoder": {"use": "edsr", "blocks": 1, "channels": 4},
        "features": {"use": "unfold"},
        "sampling": {"use": "local-ensemble"},
        "conditioning": [{"use": "coordinate"}, {"use": "cell"}],
        "decoder": {"use": "mlp", "hidden": [8]},
    } | changes


def build(registry, **changes):
    return build_model(model_from_table(table(**changes), registry, "test")).eval().requires_grad_(False)


def assert_equal(found, expected, atol=1e-6):
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


# One image, however it is asked for


@pytest.mark.parametrize("residual", ["none", "bilinear", "nearest"])
@pytest.mark.parametrize("ensemble", [True, False])
@pytest.mark.parametrize("limit", [1, 3, 13, 17, 100])
def test_query_chunks_do_not_change_the_result(registry, image, monkeypatch, limit, ensemble, residual):
    picture = small_model(registry, ensemble=ensemble, residual=residual).encode(image)
    whole = picture.render((11, 13))
    monkeypatch.setattr(continuous, "QUERY_CHUNK", limit)
    assert_equal(picture.render((11, 13)), whole)


@pytest.mark.parametrize("region", [(0, 0, 7, 6), (1, 2, 4, 5), (0, 0, 1, 1), (3, 0, 7, 2), (5, 4, 7, 6)])
@pytest.mark.parametrize("scale", [(1, 1), (2, 2), (3, 3), (4, 3), (5, 2)])
@pytest.mark.parametrize("ensemble", [True, False])
def test_a_region_is_a_cut_of_the_whole(registry, image, ensemble, scale, region):
    picture = small_model(registry, ensemble=ensemble, residual="bilinear").encode(image)
    whole = picture.render((7 * scale[0], 6 * scale[1]))
    top, left, bottom, right = region[0] * scale[0], region[1] * scale[1], region[2] * scale[0], region[3] * scale[1]
    assert_equal(picture.render((bottom - top, right - left), region), whole[:, :, top:bottom, left:right], 1e-5)


def test_a_region_may_be_fractional(registry, image):
    """At x4, a quarter of a pixel is one pixel of the output."""
    picture = small_model(registry).encode(image)
    whole = picture.render((28, 24))
    assert_equal(picture.render((7, 10), (1.25, 0.5, 3, 3)), whole[:, :, 5:12, 2:12], 1e-5)


def test_a_grid_is_its_points(registry, image):
    picture = small_model(registry, residual="bilinear").encode(image)
    size = (9, 17)
    cell = torch.tensor([2 / 9, 2 / 17])
    rendered = picture.render(size)
    points = picture.query(make_coord(size)[None].expand(2, -1, 2), cell)
    assert_equal(points.transpose(1, 2).reshape(2, 3, *size), rendered)
    as_grid = picture.query(make_coord(size, flatten=False)[None].expand(2, -1, -1, 2), cell)
    assert_equal(as_grid.permute(0, 3, 1, 2), rendered)


def test_a_batch_is_its_images(registry, image):
    model = small_model(registry, residual="nearest")
    batch = torch.cat([image, image.flip(-1)])
    coord, cell = torch.rand(4, 30, 2) * 2.4 - 1.2, torch.rand(4, 30, 2)
    together = model.encode(batch)
    rendered, queried = together.render((10, 15)), together.query(coord, cell)
    for i in range(4):
        alone = model.encode(batch[i : i + 1])
        assert_equal(rendered[i : i + 1], alone.render((10, 15)), 1e-5)
        assert_equal(queried[i : i + 1], alone.query(coord[i : i + 1], cell[i : i + 1]), 1e-5)


def test_one_set_of_points_serves_a_batch(registry, image):
    picture = small_model(registry, residual="bilinear").encode(image)
    coord, cell = torch.rand(1, 20, 2) * 2 - 1, torch.rand(1, 20, 2)
    assert_equal(picture.query(coord, cell), picture.query(coord.expand(2, -1, -1), cell.expand(2, -1, -1)))


@pytest.mark.parametrize("shape", [(2,), (1, 2), (20, 2), (1, 1, 2), (2, 1, 2), (1, 20, 2), (2, 20, 2)])
def test_cells_broadcast(registry, image, shape):
    """One for all, one a point, one an image, or one each."""
    picture = small_model(registry).encode(image)
    coord, cell = torch.rand(2, 20, 2) * 2 - 1, torch.rand(shape)
    assert_equal(picture.query(coord, cell), picture.query(coord, cell.broadcast_to(2, 20, 2)))


@pytest.mark.parametrize("shape", [(3,), (2, 2), (2, 7, 2), (3, 20, 2), (1, 1, 1, 2), ()])
def test_a_cell_that_does_not_fit_is_refused(registry, image, shape):
    picture = small_model(registry).encode(image)
    with pytest.raises(ValueError, match="cell"):
        picture.query(torch.zeros(2, 20, 2), torch.ones(shape))


def test_points_outside_use_the_border_codes(registry):
    """The codes they read are the border's, and the offset goes on growing: as published."""
    model = small_model(registry, hidden=(), conditioning=("coordinate",), ensemble=False)
    picture = model.encode(torch.rand(1, 3, 4, 4))
    cell = torch.ones(2)
    near, far, farther = (picture.query(torch.tensor([[[0.1, x]]]), cell) for x in (0.9, 1.9, 2.9))
    assert_equal(far - near, farther - far, 1e-5)  # without hidden layers, linear in the offset


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("size", [(1, 1), (1, 4), (5, 1)])
def test_any_channels_from_one_pixel(registry, channels, size):
    model = small_model(registry, channels=channels, residual="bilinear")
    picture = model.encode(torch.rand(1, channels, *size))
    assert (picture.channels, picture.size, picture.device) == (channels, size, torch.device("cpu"))
    for target in [(1, 1), (7, 3), size]:
        rendered = picture.render(target)
        assert rendered.shape == (1, channels, *target) and rendered.isfinite().all()


def test_clamp(registry, image):
    picture = small_model(registry, residual="bilinear").encode(image.round())
    free, clamped = picture.render((9, 9)), picture.render((9, 9), clamp=True)
    assert free.min() < 0 or free.max() > 1
    assert torch.equal(clamped, free.clamp(0, 1))


def test_float32_under_autocast(registry, image):
    """Half precision touches the weights' products, not where a query lies: colors agree to its rounding."""
    model = small_model(registry)
    coord, cell = torch.rand(2, 40, 2) * 2 - 1, torch.rand(2, 40, 2) * 0.1
    expected = model(image, coord, cell)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(image, coord, cell)
    assert found.dtype == torch.float32
    assert_equal(found, expected, 0.02)


@pytest.mark.gpu
def test_cuda_agrees(registry, image, gpu):
    model = small_model(registry, residual="bilinear")
    coord, cell = torch.rand(2, 40, 2) * 2 - 1, torch.rand(2, 40, 2)
    rendered, queried = model.encode(image).render((15, 22)), model(image, coord, cell)
    model.to(gpu)
    assert_equal(model.encode(image.to(gpu)).render((15, 22)).cpu(), rendered, 1e-4)
    assert_equal(model.encode(image.to(gpu)).query(coord, cell).cpu(), queried, 1e-4)


# The residual


@pytest.mark.parametrize("residual, mode", [("bilinear", "bilinear"), ("nearest", "nearest-exact")])
@pytest.mark.parametrize("size", [(14, 12), (20, 16), (7, 6), (4, 4)])  # none has a query between two pixels
def test_residual_of_a_grid(registry, image, residual, mode, size):
    """Against torch's interpolation."""
    with_it = small_model(registry, residual=residual).encode(image).render(size)
    without = small_model(registry, residual="none").encode(image).render(size)
    options = {"align_corners": False} if mode == "bilinear" else {}
    # the network's [-1, 1] output and the normalized image are added: in [0, 1] space, minus a half
    assert_equal(with_it - without, F.interpolate(image, size, mode=mode, **options) - 0.5, 1e-5)


def bilinear_by_hand(image, y, x):
    """One value of an image (h, w), its border repeated beyond it."""
    height, width = image.shape
    row, column = (y + 1) * height / 2 - 0.5, (x + 1) * width / 2 - 0.5
    top, left = math.floor(row), math.floor(column)
    total = 0.0
    for r, row_weight in ((top, 1 - (row - top)), (top + 1, row - top)):
        for c, column_weight in ((left, 1 - (column - left)), (left + 1, column - left)):
            value = image[min(max(r, 0), height - 1), min(max(c, 0), width - 1)]
            total += row_weight * column_weight * float(value)
    return total


def test_bilinear_residual_of_points(registry, image):
    """By hand, inside and beyond the border; with a last layer of zeros the residual is all there is."""
    model = build(registry, residual="bilinear", decoder={"use": "mlp", "hidden": [8], "zero_last": True})
    coord = torch.rand(2, 50, 2) * 3 - 1.5
    found = model.encode(image).query(coord, torch.ones(2))
    for i in range(2):
        for n in range(50):
            expected = [bilinear_by_hand(channel, *coord[i, n].tolist()) for channel in image[i]]
            np.testing.assert_allclose(found[i, n].numpy(), expected, rtol=0, atol=1e-5)


def test_nearest_residual_of_points(registry, image):
    model = build(registry, residual="nearest", decoder={"use": "mlp", "hidden": [8], "zero_last": True})
    coord = torch.rand(2, 50, 2) * 3 - 1.5
    found = model.encode(image).query(coord, torch.ones(2))
    row = ((coord[..., 0] + 1) / 2 * 7).floor().long().clamp(0, 6)
    column = ((coord[..., 1] + 1) / 2 * 6).floor().long().clamp(0, 5)
    for i in range(2):
        assert_equal(found[i], image[i][:, row[i], column[i]].T)


# What is computed once, and what in one go


class Flat(nn.Module):
    """A decoder whose color is the code's mean; it records its calls."""

    needs = frozenset()
    num_statistics = 0
    scale_dependent = False
    radius = 0

    def __init__(self, **flags):
        super().__init__()
        self.prepared, self.decoded = [], []
        vars(self).update(flags)

    def prepare(self, field, image_conditions):
        self.prepared.append(dict(image_conditions))
        return {"mean": liif_core.as_rows(field.dense().mean(1, keepdim=True))}

    def decode(self, maps, sites, conditions):
        self.decoded.append((tuple(sites.index.shape[2:]), dict(conditions)))
        values = liif_core.gather(maps["mean"], sites.index)
        return liif_core.blend(values, sites.weight).expand(*[-1] * (values.ndim - 2), 3)


def flat(extended, **flags):
    decoder = Flat(**flags)
    registry = extended(liif_decoders=Component("flat", lambda options, **sizes: decoder))
    return decoder, build(registry, decoder={"use": "flat"})


def test_prepare_is_called_once_an_image(extended, image, monkeypatch):
    monkeypatch.setattr(continuous, "QUERY_CHUNK", 10)
    decoder, model = flat(extended)
    picture = model.encode(image)
    for size in [(8, 9), (20, 4)]:
        picture.render(size)
    picture.query(torch.zeros(2, 4, 2), torch.ones(2))
    assert len(decoder.prepared) == 1 and len(decoder.decoded) > 15
    model.encode(image).render((3, 3))
    assert len(decoder.prepared) == 2


def test_prepare_is_called_once_a_cell_if_it_looks_at_it(extended, image, monkeypatch):
    monkeypatch.setattr(continuous, "QUERY_CHUNK", 10)
    decoder, model = flat(extended, scale_dependent=True)
    picture = model.encode(image)
    for size in [(8, 9), (8, 9), (20, 4)]:
        picture.render(size)
    # the image is 7 x 6, and cells are in feature-cell units; 'coordinate' is of scope "query" and left out
    assert [list(conditions) for conditions in decoder.prepared] == [["cell"], ["cell"]]
    found = torch.cat([conditions["cell"] for conditions in decoder.prepared])
    torch.testing.assert_close(found, torch.tensor([[14 / 8, 12 / 9], [14 / 20, 12 / 4]]))


def test_a_decoder_that_needs_all_queries_is_called_once(extended, image, monkeypatch):
    monkeypatch.setattr(continuous, "QUERY_CHUNK", 10)
    decoder, model = flat(extended, num_statistics=None)
    model.encode(image).render((8, 9))
    assert [shape for shape, _ in decoder.decoded] == [(8, 9)]


@pytest.mark.parametrize("several", [True, False])
def test_one_cell_at_a_time_if_prepare_looks_at_it(extended, image, several):
    """Whoever repeats one cell for every query, as published code does, asks for one; several are refused."""
    decoder, model = flat(extended, scale_dependent=True)
    cells = torch.tensor([[0.1, 0.2], [0.3, 0.4]]).unsqueeze(1).repeat(1, 5, 1)  # one for each of two images
    if several:
        cells[1, 3, 0] = 0.35
        with pytest.raises(ValueError, match="cell: this decoder prepares an image for one cell"):
            model.encode(image).query(torch.zeros(2, 5, 2), cells)
    else:
        model.encode(image).query(torch.zeros(2, 5, 2), cells)
        torch.testing.assert_close(decoder.prepared[0]["cell"], cells[:, 0] * torch.tensor([7, 6]))


def test_prepare_is_given_conditions_of_scope_image_only(extended, image):
    class Both(Flat):
        scale_dependent = True

        def prepare(self, field, image_conditions):
            image_conditions["coordinate"]

    registry = extended(liif_decoders=Component("both", lambda options, **sizes: Both()))
    model = build(registry, decoder={"use": "both"})
    with pytest.raises(
        ValueError, match="'prepare' needs the condition 'coordinate' with scope 'image'; of that scope here: 'cell'"
    ):
        model.encode(image).render((3, 3))
    with pytest.raises(
        UserError, match="its parts do not work together .*: ValueError: 'prepare' needs the condition 'coordinate'"
    ):
        try_model(model)


def test_try_out_notices_colors_of_another_shape(extended):
    class Gray(Flat):
        def decode(self, maps, sites, conditions):
            return super().decode(maps, sites, conditions)[..., :1]

    registry = extended(liif_decoders=Component("gray", lambda options, **sizes: Gray()))
    with pytest.raises(UserError, match=r"expected colors \(1, 3, 8, 10\), got \(1, 1, 8, 10\)"):
        try_model(build(registry, decoder={"use": "gray"}))


def test_try_out_leaves_a_model_as_it_is(registry):
    model = build(registry).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    try_model(model)
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_statistics_without_their_methods_are_refused(extended):
    decoder = Flat(num_statistics=1)
    registry = extended(liif_decoders=Component("odd", lambda options, **sizes: decoder))
    with pytest.raises(
        UserError,
        match="model.decoder: .odd. of test-plugin 1.2.3 breaks its contract: num_statistics is 1; .*with_statistic",
    ):
        build(registry, decoder={"use": "odd"})


def test_many_points_are_decoded_in_chunks(registry, image, monkeypatch):
    """More scattered points than are decoded at once: the same colors, in any order."""
    model = small_model(registry)
    model.decoder = StatisticsDecoder(None, 36, 3, 4, {"coordinate": 2, "cell": 2}).requires_grad_(False)
    coord, cell = torch.rand(2, 500, 2) * 2 - 1, torch.tensor([0.1, 0.1])
    at_once = model.encode(image).query(coord, cell)
    monkeypatch.setattr(composed_image, "CACHE", 1)  # decoded 128 at a time
    seen = []
    monkeypatch.setattr(
        model.decoder,
        "decode",
        lambda maps, sites, *rest, f=model.decoder.decode: (seen.append(sites.index.shape[2]), f(maps, sites, *rest))[
            1
        ],
    )
    order = torch.randperm(500)
    with torch.no_grad():
        in_chunks = model.encode(image).query(coord, cell)
        assert seen == [128, 128, 128, 116] and (in_chunks - at_once).abs().max() < 1e-5
        assert (model.encode(image).query(coord[:, order], cell) - at_once[:, order]).abs().max() < 1e-5


def test_conditions_come_by_name(extended, image):
    decoder, model = flat(extended)
    model.encode(image).query(torch.rand(2, 5, 2), torch.ones(2))
    ((_, conditions),) = decoder.decoded
    assert list(conditions) == ["coordinate", "cell"]
    for value in conditions.values():
        assert value.dtype == torch.float32 and torch.broadcast_shapes(value.shape, (4, 2, 5, 2)) == (4, 2, 5, 2)


# Encoders that need sides of a multiple


class Identity(nn.Module):
    """Features are the image itself; records its input."""

    receptive_radius = 0

    def __init__(self, multiple_of):
        super().__init__()
        self.multiple_of = multiple_of
        self.out_channels = 3
        self.seen = None

    def forward(self, image):
        self.seen = image
        return image.clone()


@pytest.mark.parametrize("multiple", [1, 4, 8])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (7, 6), (8, 9), (2, 3)])
def test_sides_are_mirrored_to_a_multiple_and_cropped(extended, multiple, size):
    encoder = Identity(multiple)
    registry = extended(liif_encoders=Component("identity", lambda options, in_channels: encoder))
    model = build(registry, encoder={"use": "identity"}, features={"use": "identity"})
    image = torch.rand(1, 3, *size)
    picture = model.encode(image)
    more = [-n % multiple for n in size]
    expected = np.pad(image.numpy() * 2 - 1, [(0, 0), (0, 0), (0, more[0]), (0, more[1])], mode="reflect")
    np.testing.assert_allclose(encoder.seen.numpy(), expected, rtol=0, atol=1e-6)
    assert_equal(picture.field.features, image * 2 - 1)
    assert picture.size == size


# Mistakes


@pytest.mark.parametrize("shape", [(3, 7, 6), (1, 1, 7, 6), (1, 4, 7, 6), (1, 3, 0, 6), (0, 3, 7, 6), (1, 3, 7, 6, 1)])
def test_images_of_another_shape_are_refused(registry, shape):
    with pytest.raises(ValueError, match=r"image: expected \(B, 3, h, w\)"):
        small_model(registry).encode(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(20, 2), (2, 20, 3), (3, 20, 2), (2,)])
def test_coordinates_of_another_shape_are_refused(registry, image, shape):
    with pytest.raises(ValueError, match="coord: expected"):
        small_model(registry).encode(image).query(torch.zeros(shape), torch.ones(2))


def test_coordinates_need_cells(registry, image):
    with pytest.raises(ValueError, match="cell: needed"):
        small_model(registry).encode(image).query(torch.zeros(2, 3, 2))


@pytest.mark.parametrize(
    "size, region", [((0, 4), None), ((4, -1), None), ((4, 4), (2, 0, 2, 3)), ((4, 4), (0, 3, 2, 1))]
)
def test_nothing_to_render_is_refused(registry, image, size, region):
    with pytest.raises(ValueError, match="size|region"):
        small_model(registry).encode(image).render(size, region)


def test_what_a_decoder_needs_must_be_given(extended):
    decoder = Flat(needs=frozenset({"cell", "frequency"}))
    registry = extended(liif_decoders=Component("flat", lambda options, **sizes: decoder))
    with pytest.raises(UserError) as refused:
        build(registry, decoder={"use": "flat"})
    (problem,) = refused.value.problems
    assert "model.conditioning: decoder 'flat' needs 'frequency'" in problem and "coordinate, cell" in problem


class NotAnEncoder(nn.Module):
    out_channels = 4


@pytest.mark.parametrize(
    "make, reason",
    [
        (lambda options, in_channels: 1 / 0, "could not be built: ZeroDivisionError"),
        (lambda options: None, "could not be built: TypeError"),
        (
            lambda options, in_channels: NotAnEncoder(),
            "breaks its contract: it has no attribute multiple_of, receptive_radius",
        ),
        (lambda options, in_channels: "edsr", "breaks its contract: it is a str, not a torch.nn.Module"),
        (lambda options, in_channels: None, "it is a NoneType, not a torch.nn.Module"),
    ],
)
def test_a_component_that_breaks_its_contract_is_named(extended, make, reason):
    registry = extended(liif_encoders=Component("odd", make))
    with pytest.raises(UserError) as refused:
        build(registry, encoder={"use": "odd"})
    (problem,) = refused.value.problems
    assert problem.startswith("model.encoder: 'odd' of test-plugin 1.2.3") and reason in problem


@pytest.mark.parametrize("name", ["keys", "a.b", "pop", "training"])
def test_conditionings_may_have_any_name(extended, name, image):
    """A name that torch's containers cannot hold is either made to work, or refused as the plugin's fault."""

    class Zero(nn.Module):
        channels, scope = 1, "query"

        def forward(self, query, sites, grid):
            return torch.zeros(*sites.index.shape, 1)

    try:
        registry = extended(liif_conditionings=Component(name, lambda options: Zero()))
        model = build(registry, conditioning=[{"use": name}])
    except (UserError, ValueError):
        return
    assert model.encode(image).render((3, 3)).isfinite().all()


@pytest.mark.parametrize("batch", [1, 2])
def test_an_encoder_gets_channels_last_with_the_usual_strides(registry, batch):
    """Torch keeps odd strides of a batch of one, as of an array (h, w, 3), and convolutions then are twice as slow."""
    model, seen = small_model(registry, channels=3), []
    model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].stride()))
    pixels = torch.rand(batch, 6, 5, 3)
    for image in (torch.stack([one.permute(2, 0, 1) for one in pixels]), pixels[:1].squeeze(0).permute(2, 0, 1)[None]):
        model.encode(image)
    assert set(seen) == {(6 * 5 * 3, 1, 5 * 3, 3)}
