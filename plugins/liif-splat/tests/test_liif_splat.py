"""The formula written out, tiles equal to the whole image, gradients, and what the framework does with the model."""

import math

import pytest
import torch
from liif_splat import EXTENT, Splat, SplatOptions, liif_models

import liif_core
from liif_core.testing import ModelContract


class TestContract(ModelContract):
    component = liif_models()
    options = {"width": 6, "layers": 3}


def model(seed=0, **options):
    torch.manual_seed(seed)
    made = Splat(SplatOptions(**{"width": 6, "layers": 3, **options}), channels=3).eval()
    for parameter in made.last.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return made


@torch.no_grad()
def test_one_color_by_the_formula():
    """In double precision, one Gaussian after another, over the whole window."""
    image = torch.rand(1, 3, 6, 7)
    picture = model().encode(image)
    gaussians = picture.rows[0].double()
    y, x, height, width = -0.31, 0.44, 0.2, 0.3
    row, column = ((y + 1) * 6 - 1) / 2, ((x + 1) * 7 - 1) / 2
    total, weights = torch.zeros(3, dtype=torch.float64), 0.0
    for i in range(6):
        for j in range(7):
            if max(abs(i - round(row)), abs(j - round(column))) > 2:
                continue
            dy, dx, sy, sx, *color = gaussians[i * 7 + j].tolist()
            distance = (row - i - dy) ** 2 / (sy**2 + (height * 3) ** 2 / 12)
            distance += (column - j - dx) ** 2 / (sx**2 + (width * 3.5) ** 2 / 12)
            weight = math.exp(-distance / 2)
            total, weights = total + weight * torch.tensor(color, dtype=torch.float64), weights + weight
    found = picture.query(torch.tensor([[[y, x]]]), torch.tensor([height, width]))
    torch.testing.assert_close(found[0, 0].double(), total / weights, rtol=0, atol=1e-5)


@torch.no_grad()
def test_before_training_one_color_stays_that_color():
    untrained = Splat(SplatOptions(), channels=1)
    picture = untrained.encode(torch.full((1, 1, 5, 6), 0.7))
    assert picture.rows[..., 2:4].eq(EXTENT).all()
    torch.testing.assert_close(picture.render((9, 13)), torch.full((1, 1, 9, 13), 0.7))


@torch.no_grad()
def test_a_tile_is_the_whole_image_away_from_its_cuts():
    made, image = model(), torch.rand(1, 3, 40, 44)
    whole = made.encode(image)
    top, left, halo = 7, 9, made.halo
    tile = made.encode(image[:, :, top:33, left:37], liif_core.TilePlacement((40, 44), top, left))
    inside = [top + halo, left + halo, 33 - halo, 37 - halo]
    coord = torch.stack(
        torch.meshgrid(
            torch.linspace(2 * inside[0] / 40 - 1, 2 * inside[2] / 40 - 1, 30),
            torch.linspace(2 * inside[1] / 44 - 1, 2 * inside[3] / 44 - 1, 30),
            indexing="ij",
        ),
        dim=-1,
    )[None]
    cell = torch.tensor([0.02, 0.02])
    torch.testing.assert_close(tile.query(coord, cell), whole.query(coord, cell), rtol=0, atol=1e-5)


def test_every_parameter_learns():
    made = model().train()
    made(torch.rand(2, 3, 8, 8), torch.rand(2, 50, 2) * 2 - 1, torch.full((2, 1, 2), 0.1)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in made.parameters())


def test_what_is_refused():
    made = model()
    with pytest.raises(ValueError, match="expected"):
        made.encode(torch.rand(1, 4, 8, 8))
    with pytest.raises(ValueError, match="cell"):
        made.encode(torch.rand(1, 3, 8, 8)).query(torch.zeros(1, 1, 2))
