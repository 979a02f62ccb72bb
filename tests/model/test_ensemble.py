"""Self-ensemble: the mean over turned images, asked for at turned sizes."""

import pytest
import torch
from parts import StatisticsDecoder
from reference import small_model

import liif_core
from liif_core.model.ensemble import ORIENTATIONS, ROTATIONS, SelfEnsemble


@pytest.fixture(scope="module")
def model(registry):
    return small_model(registry, residual="bilinear").eval().requires_grad_(False)


def random(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def plain(model, image, size, count):
    """Turned by rot90 and flip, rendered at the turned size, and turned back."""
    total = 0
    for turns in range(4):
        for mirror in (False, True)[: count // 4]:
            turned = image.flip(3) if mirror else image
            turned = turned.rot90(turns, (2, 3))
            target = size if turns % 2 == 0 else size[::-1]
            colors = model.encode(turned).render(target).rot90(-turns, (2, 3))
            total = total + (colors.flip(3) if mirror else colors)
    return total / count


@pytest.mark.parametrize("count", [4, 8])
@pytest.mark.parametrize("size", [(14, 18), (23, 20), (5, 31)])
def test_it_is_the_mean_of_turned_images(model, count, size):
    image = random(2, 3, 7, 9)
    found = SelfEnsemble(model, count).encode(image).render(size)
    torch.testing.assert_close(found, plain(model, image, size, count), rtol=0, atol=2e-5)
    assert (found - model.encode(image).render(size)).abs().max() > 1e-3


def test_orientations_are_those_of_a_square():
    square = torch.arange(4.0).view(1, 1, 2, 2)
    seen = {tuple(orientation.image(square).flatten().tolist()) for orientation in ORIENTATIONS}
    assert len(seen) == 8 and len(ROTATIONS) == 4
    turned = {tuple(square.rot90(turns, (2, 3)).flatten().tolist()) for turns in range(4)}
    assert turned == {tuple(orientation.image(square).flatten().tolist()) for orientation in ROTATIONS}
    for orientation in ORIENTATIONS:
        assert torch.equal(orientation.back(orientation.image(square)), square)


def test_points_and_grids_agree(model):
    image, ensemble = random(2, 3, 6, 8), SelfEnsemble(model, 8)
    picture, coord = ensemble.encode(image), liif_core.make_coord((9, 11))[None].expand(2, -1, -1)
    cell = torch.tensor([2 / 9, 2 / 11])
    points = picture.query(coord, cell).permute(0, 2, 1).unflatten(2, (9, 11))
    torch.testing.assert_close(points, picture.render((9, 11)), rtol=0, atol=2e-5)


@pytest.mark.parametrize("count", [4, 8])
def test_tiles_equal_the_whole(model, count):
    ensemble, image = SelfEnsemble(model, count), random(1, 3, 70, 61)
    whole = ensemble.encode(image).render((140, 122), clamp=True)
    found = ensemble.upscale(image, 2, memory="2MB")
    torch.testing.assert_close(found, whole, rtol=0, atol=2e-5)


def test_colors_that_depend_on_all_queries(registry):
    parts = {"encoder": {"use": "edsr", "blocks": 1, "channels": 4}, "features": "identity", "sampling": "nearest"}
    conditions = {"coordinate": 2, "cell": 2}
    decoder = StatisticsDecoder(None, 4, 3, neighbours=1, conditions=conditions)
    parts |= {"conditioning": list(conditions), "decoder": decoder}
    model = liif_core.compose(**parts).eval().requires_grad_(False)
    image, ensemble = random(1, 3, 9, 7), SelfEnsemble(model, 4)
    assert ensemble.num_statistics
    picture = ensemble.encode(image)
    expected = plain(model, image, (18, 14), 4)
    torch.testing.assert_close(picture.render((18, 14)), expected, rtol=0, atol=2e-5)
    rows, columns, cell = torch.linspace(-0.9, 0.9, 8), torch.linspace(-0.8, 0.9, 5), torch.tensor([0.2, 0.3])
    whole = picture.render_grid(rows, columns, cell)
    torch.testing.assert_close(picture.render_grid(rows, columns, cell, chunk_size=7), whole, rtol=0, atol=1e-5)


def test_another_number_is_refused(model):
    with pytest.raises(ValueError, match="expected 4"):
        SelfEnsemble(model, 3)
