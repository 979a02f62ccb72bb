"""The degradation ``photo``: what is drawn, how often, and what each part does."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, stats

from liif_core import bicubic
from liif_core.testing import DegradationContract
from liif_zoo import photo
from liif_zoo.photo import Photo, PhotoOptions

NEVER = {"clean": 0, "blur": 0, "noise": 0, "jpeg": 0, "twice": 0}


class TestContract(DegradationContract):
    component = "liif-core:photo"


class TestContractCleanOnly(DegradationContract):
    component = "liif-core:photo"
    options = {"clean": 1.0}


class TestContractOneOfEach(DegradationContract):
    component = "liif-core:photo"
    options = {"clean": 0.0, "blur": 1.0, "noise": 1.0, "jpeg": 1.0, "twice": 1.0, "before": 0.5}


@pytest.fixture(scope="module")
def picture():
    """A smooth color image (48, 64, 3) with some texture."""
    coarse = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    smooth = bicubic(coarse, (48, 64)).astype(float)
    return (smooth * 0.8 + 25 + np.random.default_rng(1).normal(0, 4, smooth.shape)).round().astype(np.uint8)


def degraded(picture, size=(24, 32), seed=0, **options):
    return Photo(PhotoOptions(**NEVER | options))(picture, size, np.random.default_rng(seed))


def steps(count=4000, scale=2.0, **options):
    """What is done to ``count`` patches: the steps before and after shrinking."""
    drawn = Photo(PhotoOptions(**{"clean": 0} | options))
    return [drawn._steps(np.random.default_rng(seed), scale) for seed in range(count)]


def of(kind, drawn, early=None):
    return [s for each in drawn for when in (True, False) for s in each[when]
            if type(s) is kind and early in (None, when)]  # fmt: skip


# How often


def test_a_share_is_only_shrunk(picture):
    expected = bicubic(picture, (24, 32))
    found = [np.array_equal(degraded(picture, seed=s, clean=0.25, noise=1), expected) for s in range(600)]
    assert stats.binomtest(sum(found), 600, 0.25).pvalue > 1e-4
    assert np.array_equal(degraded(picture), expected) and np.array_equal(degraded(picture, clean=1, jpeg=1), expected)


def test_the_probabilities_are_those_of_the_options():
    options = PhotoOptions()
    drawn = steps()
    compressed = [len(of(photo._Jpeg, [each])) for each in drawn]
    found = {
        "blur": (len(of(photo._Blur, drawn)), len(drawn), options.blur),
        "noise": (len(of(photo._Noise, drawn)), len(drawn), options.noise),
        "shot": (sum(n.shot for n in of(photo._Noise, drawn)), len(of(photo._Noise, drawn)), options.shot),
        "jpeg": (sum(map(bool, compressed)), len(drawn), options.jpeg),
        "twice": (compressed.count(2), sum(map(bool, compressed)), options.twice),
        "4:2:0": (sum(j.subsampling == "4:2:0" for j in of(photo._Jpeg, drawn)), sum(compressed), options.subsampled),
    }
    for kind in (photo._Blur, photo._Noise, photo._Jpeg):
        found[f"{kind.__name__} before"] = len(of(kind, drawn, early=True)), len(of(kind, drawn)), options.before
    assert set(compressed) == {0, 1, 2}
    for name, (count, of_all, expected) in found.items():
        assert stats.binomtest(count, of_all, expected).pvalue > 1e-4, (name, count / of_all)


def test_qualities_and_strengths_are_uniform():
    drawn = steps(jpeg=1, noise=1, blur=1, quality=(30, 95), noise_sigma=(2, 6), blur_sigma=(0.5, 1), before=0.5)
    qualities = [j.quality for j in of(photo._Jpeg, drawn)]
    counts = np.bincount(qualities, minlength=101)
    assert counts[30:96].sum() == len(qualities) and stats.chisquare(counts[30:96]).pvalue > 1e-4
    for values, low, high in (
        ([n.sigma for n in of(photo._Noise, drawn)], 2, 6),
        ([b.sigma for b in of(photo._Blur, drawn, early=False)], 0.5, 1),
        ([b.sigma for b in of(photo._Blur, drawn, early=True)], 1, 2),  # in pixels of the crop, at scale 2
    ):
        assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 1e-4
    corners = np.array([j.corner for j in of(photo._Jpeg, drawn)])
    assert corners.min() == 0 and corners.max() == 15


def test_half_of_the_second_compressions_have_the_blocks_of_the_first():
    pairs = [of(photo._Jpeg, [each]) for each in steps(1500, jpeg=1, twice=1, before=0)]
    same = sum(first.corner == second.corner for first, second in pairs)
    assert stats.binomtest(same, 1500, 0.5 + 0.5 / 256).pvalue > 1e-4
    assert len({(first.quality, second.quality) for first, second in pairs}) > 500


def test_the_generator_decides(picture):
    options = {"clean": 0.1, "blur": 0.5, "noise": 0.5, "jpeg": 0.9, "twice": 0.5}
    found = [degraded(picture, seed=seed, **options) for seed in range(20)]
    again = [degraded(picture, seed=seed, **options) for seed in reversed(range(20))][::-1]
    assert all(np.array_equal(*pair) for pair in zip(found, again))
    assert len({patch.tobytes() for patch in found}) > 15


# What each does


@pytest.mark.parametrize("quality", [30, 60, 95])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("corner", [(0, 0), (5, 11)])
def test_jpeg_is_what_pillow_writes(picture, quality, subsampling, corner):
    """Read back and written again with the tables of the quality, the patch hardly changes: those were its tables."""
    found = photo._Jpeg(quality, subsampling, corner)(picture, None)
    assert found.shape == picture.shape and found.dtype == np.uint8

    def again(by, offset):
        file = io.BytesIO()
        part = found[offset[0] :, offset[1] :]
        sampling = {"4:4:4": 0, "4:2:0": 2}[subsampling]
        Image.fromarray(part).save(file, "JPEG", quality=by, subsampling=sampling)
        changed = np.asarray(Image.open(file)).astype(float) - part
        return np.abs(changed[:16, :32, 1]).mean()  # whole blocks

    start = [-side % 16 for side in corner]
    errors = {by: again(by, start) for by in (20, 30, 45, 60, 75, 95)}
    assert errors[quality] < min(error for by, error in errors.items() if by < quality) or quality == 20
    shifted = again(quality, [side + 3 for side in start])
    assert errors[quality] < 0.75 * shifted


def test_chroma_is_subsampled_or_not(picture):
    stripes = picture.copy()
    stripes[:, ::2], stripes[:, 1::2] = (200, 80, 80), (80, 140, 200)
    saturation = {
        sampling: np.ptp(photo._Jpeg(95, sampling, (0, 0))(stripes, None).astype(int)[..., 0], axis=1).mean()
        for sampling in ("4:4:4", "4:2:0")
    }
    assert saturation["4:4:4"] > 100 > 75 > saturation["4:2:0"]


def test_blur_is_gaussian(picture):
    for sigma in (0.3, 0.8, 1.9):
        found = photo._Blur(sigma)(picture, None)
        expected = ndimage.gaussian_filter(picture.astype(float), (sigma, sigma, 0), mode="reflect", truncate=6)
        assert np.abs(found - expected).max() < 1.6  # rounding, and the tails
        assert np.abs(found - expected).mean() < 0.4
    assert np.array_equal(photo._Blur(0.0)(picture, None), picture)


@pytest.mark.parametrize("shot", [False, True])
def test_the_strength_of_noise(shot):
    for value in (64, 128, 191):
        flat = np.full((200, 200, 3), value, np.uint8)
        found = photo._Noise(8.0, shot)(flat, np.random.default_rng(0)).astype(float)
        expected = 8 * np.sqrt(value / 255) if shot else 8
        assert abs(found.mean() - value) < 0.15 and found.std() == pytest.approx(expected, rel=0.02)
        assert abs(np.corrcoef(found[..., 0].ravel(), found[..., 1].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("part", ["blur", "noise", "jpeg"])
def test_before_or_after_shrinking(picture, part):
    """As if each were done by hand, on the crop or on the patch."""
    options = {part: 1, "subsampled": 1}
    for before in (0, 1):
        drawn = Photo(PhotoOptions(**NEVER | options | {"before": before}))
        rng = np.random.default_rng(3)
        rng.random()  # whether the patch is only shrunk
        (step,) = drawn._steps(rng, 2.0)[bool(before)]
        done = step(picture if before else bicubic(picture, (24, 32)), rng)
        expected = bicubic(done, (24, 32)) if before else done
        assert np.array_equal(drawn(picture, (24, 32), np.random.default_rng(3)), expected)


@pytest.mark.parametrize("size", [(48, 64), (47, 62), (33, 44), (24, 32), (12, 16), (4, 5), (1, 1)])
def test_any_scale_gray_and_color(picture, size):
    for image in (picture, picture[..., :1]):
        found = degraded(image, size, blur=1, noise=1, jpeg=1, twice=1, before=0.5)
        assert found.shape == (*size, image.shape[2]) and found.dtype == np.uint8


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"quality": (0, 10)}, "quality: expected 1 <= lowest"),
        ({"quality": (50, 40)}, "quality: expected"),
        ({"noise_sigma": (3.0, 1.0)}, "noise_sigma: expected 0 <= lowest"),
        ({"blur_sigma": (-1.0, 1.0)}, "blur_sigma: expected"),
        ({"jpeg": 1.5}, "jpeg"),
        ({"clean": -0.1}, "clean"),
    ],
)
def test_options_that_are_wrong(wrong, message):
    with pytest.raises(ValueError, match=message):
        PhotoOptions(**wrong)
