"""Several presets at once: the same numbers as one by one, and each image encoded and rendered once."""

import csv
import io

import numpy as np
import pytest
import torch
from evaluating import QUIET, Fake, noise
from reference import small_model

import liif_core
from liif_core.errors import UserError
from liif_core.evaluation.evaluate import evaluate_set
from liif_core.evaluation.predicting import Predictions
from liif_core.evaluation.scores import results, results_csv
from liif_core.presets import PROTOCOLS
from liif_core.sizes import Scale

ALL = [name for name in PROTOCOLS if name not in ("ciaosr", "celeba-hq")]  # the second needs pairs


@pytest.fixture
def model(registry):
    return small_model(registry, residual="bilinear").eval().requires_grad_(False)


@pytest.fixture
def calls(model, monkeypatch):
    """What was encoded, and the sizes that were rendered, with their cells."""
    encoded, rendered = [], []
    kind = type(model)
    encode = kind.encode

    def counting_encode(self, image, *rest):
        picture = encode(self, image, *rest)
        number = len(encoded)
        encoded.append(image.clone())
        render = picture.render_grid

        def counting_render(rows, columns, cell, *more, **named):
            rendered.append((number, len(rows), len(columns), tuple(cell.tolist())))
            return render(rows, columns, cell, *more, **named)

        picture.render_grid = counting_render
        return picture

    monkeypatch.setattr(kind, "encode", counting_encode)
    return encoded, rendered


def test_the_numbers_are_those_of_one_preset_after_the_other(model):
    images = Fake((noise(52, 60, 3), noise(48, 48, 3, seed=1)))
    scales = [Scale.of(2), Scale.of(2.5)]
    together = evaluate_set(model, images, "noise", scales, ALL, ssim=True, **QUIET)
    alone = [score for name in ALL for score in evaluate_set(model, images, "noise", scales, name, ssim=True, **QUIET)]
    assert [(s.protocol, s.scale) for s in together] == [(name, scale) for name in ALL for scale in scales]
    for both, one in zip(together, alone):
        assert dict(both.images) == dict(one.images) and dict(both.bicubic_images) == dict(one.bicubic_images)
        assert dict(both.ssim_images) == dict(one.ssim_images) and both.ssim == one.ssim


def test_each_lr_image_is_encoded_once(model, calls):
    encoded, rendered = calls
    images = Fake((noise(40, 48, 3),))
    evaluate_set(model, images, "noise", [Scale.of(2)], ["benchmark", "lte", "rgb", "gsasr", "fair", "fair-y"], **QUIET)
    assert len(encoded) == len(rendered) == 2  # Pillow's LR image and MATLAB's
    assert not torch.equal(encoded[0], encoded[1])


def test_rotations_share_the_image_that_is_not_turned(model, calls):
    encoded, rendered = calls
    presets = ["thera", "fair", "thera-div2k", "gsasr"]
    evaluate_set(model, Fake((noise(40, 48, 3),)), "noise", [Scale.of(2)], presets, **QUIET)
    assert len(encoded) == len(rendered) == 4
    for turned, expected in zip(sorted(map(tuple, (e.shape[2:] for e in encoded))), [(20, 24)] * 2 + [(24, 20)] * 2):
        assert turned == expected


def test_other_cells_are_rendered_again_from_the_same_codes(model, calls):
    encoded, rendered = calls
    evaluate_set(model, Fake((noise(48, 48, 3),)), "noise", [Scale.of(6)], ["benchmark", "lte", "linf"], **QUIET)
    assert len(encoded) == 1 and [which for which, *_ in rendered] == [0, 0]
    assert rendered[1][3] == pytest.approx(tuple(1.5 * side for side in rendered[0][3]))


def test_given_lr_images_are_shared_by_all_presets(model, calls):
    encoded, _ = calls
    low = noise(24, 24, 3, seed=4)
    images = Fake((noise(48, 48, 3),), {(0, Scale.of(2)): low})
    scores = evaluate_set(model, images, "noise", [Scale.of(2)], ["benchmark", "fair"], **QUIET)
    assert len(encoded) == 1 and [score.given_low for score in scores] == [1, 1]
    np.testing.assert_array_equal((encoded[0][0] * 255).round().byte().permute(1, 2, 0), low)


def test_times_are_those_of_each_preset_alone(model):
    """An image that was encoded for another preset counts with the time that it took."""
    predictions = Predictions(model, torch.rand(1, 3, 20, 24), "float32")
    plain, again, mean = (predictions.predict((40, 48), PROTOCOLS[n], "x") for n in ("gsasr", "fair", "thera"))
    assert plain.encode > 0 and plain.decode > 0
    assert (again.encode, again.decode) == (plain.encode, plain.decode)
    assert mean.encode > plain.encode and mean.decode > plain.decode


def test_what_is_wrong_is_said_once_before_anything_is_computed(model, calls):
    encoded, _ = calls
    images = Fake((noise(9, 9, 3), noise(40, 40, 3)))
    with pytest.raises(UserError) as refused:
        evaluate_set(model, images, "set", [Scale.of(4)], ["benchmark", "fair-y", "rgb", "div2k"], **QUIET)
    problems = refused.value.problems
    assert [problem.split(":")[1] for problem in problems] == [" image-0 at x4"]
    assert len(problems) == 1 and "benchmark" in problems[0] and not encoded
    with pytest.raises(UserError) as refused:
        evaluate_set(model, Fake((noise(9, 9, 2),)), "set", [Scale.of(2)], ["fairy", "bench"], **QUIET)
    assert ["no protocol is named" in problem for problem in refused.value.problems] == [True, True]


def test_presets_from_python(model):
    image = torch.from_numpy(noise(40, 40, 3)).permute(2, 0, 1)
    scores = liif_core.evaluate(model, [image], 2, ["fair", "rgb"])
    assert [score.protocol for score in scores] == ["fair", "rgb"]
    assert scores[1].psnr == liif_core.evaluate(model, [image], 2, "rgb")[0].psnr
    with pytest.raises(ValueError, match="protocol: expected a name or a list of names"):
        liif_core.evaluate(model, [image], 2, [])


def test_numbers_of_each_image_as_csv_and_json(model):
    images = Fake((noise(40, 40, 3), noise(44, 40, 3, seed=2)))
    scores = evaluate_set(model, images, "my, set", [Scale(2, 2.5)], ["fair", "rgb"], ssim=True, **QUIET)
    rows = list(csv.DictReader(io.StringIO(results_csv(scores))))
    assert [(row["protocol"], row["image"]) for row in rows] == [
        (protocol, image) for protocol in ("fair", "rgb") for image in ("image-0", "image-1")
    ]
    for row in rows:
        (score,) = [s for s in scores if s.protocol == row["protocol"]]
        assert (row["dataset"], row["scale"]) == ("my, set", "2,2.5")
        assert float(row["psnr"]) == score.images[row["image"]]
        assert float(row["bicubic_psnr"]) == score.bicubic_images[row["image"]]
        assert float(row["ssim"]) == score.ssim_images[row["image"]]
    assert np.mean([float(row["ssim"]) for row in rows[:2]]) == pytest.approx(scores[0].ssim)
    (fair, _) = results(scores)
    assert fair["ssim_images"] == dict(scores[0].ssim_images)
    assert fair["bicubic"]["ssim_images"] == dict(scores[0].bicubic_ssim_images)
    without = evaluate_set(model, images, "set", [Scale.of(2)], "rgb", **QUIET)
    assert "ssim" not in results_csv(without) and "ssim_images" not in results(without)[0]
