"""Colors that depend on all queries through means: in chunks as in one call, against the formula written out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parts import Decoder, StatisticsDecoder
from reference import small_model

from liif_core import GlobalDecoder, Query
from liif_core.model import composed_image, continuous
from liif_core.model.continuous import RunningMean
from liif_core.model.geometry import region_axes

SIZES = {"in_channels": 36, "out_channels": 3, "neighbours": 4, "conditions": {"coordinate": 2, "cell": 2}}
WITHIN = (7, 6)


def with_decoder(registry, kind):
    torch.manual_seed(0)
    model = small_model(registry)
    model.decoder = kind(None, **SIZES)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model(registry):
    return with_decoder(registry, StatisticsDecoder)


@pytest.fixture(scope="module")
def formula(registry):
    """Colors in [-1, 1] (B, N, 3) before statistics -> colors in [0, 1] of the whole set."""
    plain = with_decoder(registry, Decoder)  # has the same weights

    def compute(image, query):
        colors = (plain.encode(image).query(query) * 2 - 1).flatten(1, -2)
        mean = colors.mean(1, keepdim=True)
        spread = ((colors - mean) ** 2).mean(1, keepdim=True)
        return ((colors - mean) / (spread + 0.1)) * 0.5 + 0.5

    return compute


def image_of(batch):
    return torch.rand(batch, 3, *WITHIN, generator=torch.Generator().manual_seed(1))


def grid(size):
    return Query.grid(*region_axes(size, WITHIN, None))


def expect(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_decoder_keeps_the_contract(model):
    assert isinstance(model.decoder, GlobalDecoder) and model.num_statistics == 2


@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    batch=st.integers(1, 2),
    chunk=st.integers(1, 500),
    cache=st.sampled_from([1, 1 << 21]),
)
@settings(max_examples=60)
def test_a_grid_in_chunks(model, formula, size, batch, chunk, cache):
    """Chunks of a grid, and chunks of 128 inside of these."""
    image = image_of(batch)
    expected = formula(image, grid(size))
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(continuous, "QUERY_CHUNK", chunk)
        patch.setattr(composed_image, "CACHE", cache)
        expect(model.encode(image).render(size).flatten(2).mT, expected)


@pytest.mark.parametrize("cache", [1, 1 << 21])
def test_points_in_chunks(model, formula, monkeypatch, cache):
    monkeypatch.setattr(composed_image, "CACHE", cache)
    generator = torch.Generator().manual_seed(2)
    coord = torch.rand(2, 700, 2, generator=generator) * 2.4 - 1.2
    cell = torch.rand(2, 700, 2, generator=generator)
    image = image_of(2)
    with torch.inference_mode():
        expect(model.encode(image).query(coord, cell), formula(image, Query.points(coord, cell)))


def test_statistics_of_parts_make_those_of_the_whole(model):
    """Means of unequal parts, weighted by their sizes, given to ``query`` for one part."""
    picture = model.encode(image_of(2))
    coord = torch.rand(2, 60, 2) * 2 - 1
    cell = torch.tensor([0.1, 0.2])
    whole = Query.points(coord, cell)
    parts = [Query.points(coord[:, a:b], cell) for a, b in ((0, 7), (7, 8), (8, 60))]
    statistics = ()
    for _ in range(2):
        pieces = [picture.partial_statistic(part, statistics) for part in parts]
        mean = sum(piece * len(part.coord[0]) for piece, part in zip(pieces, parts)) / 60
        expect(mean, picture.partial_statistic(whole, statistics))
        statistics += (mean,)
    together = picture.query(whole)
    expect(torch.cat([picture.query(part, statistics=statistics) for part in parts], dim=1), together)
    alone = torch.cat([picture.query(part) for part in parts], dim=1)
    assert (alone - together).abs().max() > 1e-2  # statistics do matter


def test_each_statistic_depends_on_those_before_it(model):
    """The order in which a decoder is asked: number 0 with nothing known, then number 1 with the first known."""
    asked = []

    class Recorded(StatisticsDecoder):
        def partial_statistic(self, maps, sites, conditions, known):
            asked.append(len(known))
            return super().partial_statistic(maps, sites, conditions, known)

    recorded = with_decoder_of(model, Recorded)
    statistics = recorded.encode(image_of(1)).grid_statistics(*region_axes((8, 8), WITHIN, None), chunk_size=16)
    assert asked == [0] * 4 + [1] * 4 and len(statistics) == 2


def with_decoder_of(model, kind):
    """A copy of a small model with a decoder of a derived class, and the same weights."""
    decoder = kind(None, **SIZES)
    decoder.load_state_dict(model.decoder.state_dict())
    other = type(model)(
        model.encoder,
        model.features,
        model.sampling,
        dict(zip(model.condition_names, model.conditioning)),
        decoder,
    )
    return other.eval().requires_grad_(False)


def test_training_makes_one_call(model, formula):
    """While gradients are recorded, all queries are in one call, and the statistics are part of the graph."""
    decoder = with_decoder_of(model, StatisticsDecoder).requires_grad_(True)
    coord, cell = torch.rand(2, 300, 2) * 2 - 1, torch.tensor([0.1, 0.1])
    image = image_of(2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(composed_image, "CACHE", 1)
        colors = decoder(image, coord, cell)
    expect(colors.detach(), formula(image, Query.points(coord, cell)))
    bias = decoder.decoder.last.bias
    (gradient,) = torch.autograd.grad(colors.sum(), bias)
    assert gradient.abs().max() < 1e-3  # colors less their mean do not depend on the last bias


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6))
def test_running_mean(counts):
    values = torch.rand(sum(counts), 3)
    mean = RunningMean()
    for part in values.split(counts):
        mean.add(part.mean(0), len(part))
    expect(mean.value(), values.mean(0))
    assert mean.value().dtype == torch.float32


def test_a_model_that_declares_statistics_must_compute_them():
    class Image(continuous.ContinuousImage):
        size, channels, device, num_statistics = (2, 2), 3, torch.device("cpu"), 1

        def query(self, where, cell=None, statistics=()):
            return torch.zeros(1, *where.shape, 3)

    with pytest.raises(NotImplementedError, match="Image declares num_statistics and has no partial_statistic"):
        Image().render((2, 2), (0, 0, 1, 1))
