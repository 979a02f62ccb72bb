"""Training samples: against the formula written out, and the same whatever the number of workers."""

import itertools
import multiprocessing
import pickle
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from liif_core.data.crops import CropDataset, largest_crop
from liif_core.data.loading import batches, batches_per_epoch
from liif_core.data.sources import open_images
from liif_core.errors import UserError
from liif_core.experiment.schema import FolderSource, PairedFoldersSource, TrainingData
from liif_core.model.geometry import make_coord

FOLDER = FolderSource(Path("unused"))
DATA = TrainingData(FOLDER, scale=(1.0, 3.0), patch=8, queries=40, repeat=3)
PAIRS = evolve(DATA, images=PairedFoldersSource(Path("unused"), Path("unused")))


class Arrays:
    """Images that are held as arrays, and may have their LR images beside them."""

    def __init__(self, high: list[np.ndarray], low: list[np.ndarray] | None = None, scale: int | None = None):
        self.high, self.low = high, low
        self.names = tuple(f"{i}" for i in range(len(high)))
        self.sizes = tuple(image.shape[:2] for image in high)
        self.pair_scales = (scale,) * len(high) if low else ()

    def image(self, i):
        return self.high[i]

    def low_resolution(self, i, scale):
        return self.low[i] if scale.y == scale.x == self.pair_scales[i] else None


def distinct(height: int, width: int, channels: int = 3, first: int = 0) -> np.ndarray:
    """An image no two pixels of which are alike, as long as there are at most 65,536."""
    number = np.arange(height * width).reshape(height, width) + first
    planes = [number % 256, number // 256 % 256, (number * 7 + number // 256) % 256]
    return np.stack([planes[c % 3] for c in range(channels)], axis=2).astype(np.uint8)


IMAGES = Arrays([distinct(30, 41), distinct(24, 24, first=77), distinct(50, 26, first=1234)])


def bytes_of(image: torch.Tensor) -> np.ndarray:
    """A tensor in [0, 1] back to uint8, which must be exact."""
    back = (image * 255).round()
    assert torch.equal(back / 255, image)
    return back.numpy().astype(np.uint8)


def positions(sample: dict, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns that the coordinates stand for, by the definition of pixel centers."""
    place = (sample["coord"].double().numpy() + 1) * side / 2 - 0.5
    assert np.abs(place - place.round()).max() < 1e-4
    return tuple(place.round().astype(int).T)


def side_of(sample: dict) -> int:
    return round(2 / sample["cell"][0, 0].item())


def test_what_a_sample_is():
    dataset = CropDataset(IMAGES, DATA, seed=0)
    assert len(dataset) == 9
    for index in range(9):
        sample = dataset[0, index]
        side = side_of(sample)
        assert 8 <= side <= 24
        assert {name: tuple(value.shape) for name, value in sample.items() if name != "index"} == {
            "image": (3, 8, 8),
            "coord": (40, 2),
            "cell": (1, 2),
            "target": (40, 3),
        }
        assert all(sample[name].dtype == torch.float32 for name in ("image", "coord", "cell", "target"))
        assert sample["index"] == index
        assert torch.equal(sample["cell"], torch.full((1, 2), 2 / side))
        grid = {tuple(point) for point in make_coord((side, side)).tolist()}
        points = {tuple(point) for point in sample["coord"].tolist()}
        assert len(points) == 40 and points <= grid


def find_crop(image: np.ndarray, target: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> tuple[int, int]:
    """The only place of an image at which the samples fit."""
    ((top, left),) = (
        (top, left)
        for top in range(image.shape[0] - rows.max())
        for left in range(image.shape[1] - columns.max())
        if np.array_equal(image[top + rows, left + columns], target)
    )
    return top, left


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_patch_is_the_crop_made_smaller_by_pillow(channels):
    images = Arrays([distinct(30, 41, channels), distinct(24, 26, channels, 77)])
    dataset = CropDataset(images, evolve(DATA, augment=False, repeat=10), seed=1)
    for index in range(20):
        sample = dataset[3, index]
        side = side_of(sample)
        rows, columns = positions(sample, side)
        image = images.high[index % 2]
        target = bytes_of(sample["target"])
        if channels == 1:  # gray: too few values to be found, so the place is drawn again as documented
            rng = np.random.default_rng([1, 3, index])
            assert round(8 * rng.uniform(1.0, 3.0)) == side
            top, left = rng.integers(0, [image.shape[0] - side + 1, image.shape[1] - side + 1])
            assert np.array_equal(image[top + rows, left + columns], target)
        else:
            top, left = find_crop(image, target, rows, columns)
        crop = image[top : top + side, left : left + side]
        assert crop.shape == (side, side, channels)
        for plane in range(channels):
            expected = Image.fromarray(np.ascontiguousarray(crop[:, :, plane])).resize((8, 8), Image.BICUBIC)
            assert np.array_equal(bytes_of(sample["image"])[plane], np.asarray(expected))


def test_rgb_is_made_smaller_as_pillow_does_rgb():
    data = evolve(DATA, scale=(2.5, 2.5), augment=False)
    sample = CropDataset(Arrays([distinct(20, 20)]), data, seed=0)[0, 0]
    expected = Image.fromarray(distinct(20, 20)).resize((8, 8), Image.BICUBIC)
    assert np.array_equal(bytes_of(sample["image"]).transpose(1, 2, 0), np.asarray(expected))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**40), epoch=st.integers(0, 2000), index=st.integers(0, 8))
def test_flips_are_the_same_for_the_patch_and_its_samples(seed, epoch, index):
    data = evolve(DATA, queries=64, scale=(1.0, 1.0))  # the crop is the patch, and all of it is asked for
    sample = CropDataset(IMAGES, data, seed)[epoch, index]
    rows, columns = positions(sample, 8)
    assert np.array_equal(bytes_of(sample["image"])[:, rows, columns].T, bytes_of(sample["target"]))


def test_all_eight_orientations_are_drawn_and_each_is_one_of_the_crop():
    data = evolve(DATA, queries=64, scale=(1.0, 1.0), repeat=100)
    dataset, plain = (CropDataset(IMAGES, evolve(data, augment=on), seed=0) for on in (True, False))
    seen = {}
    for index in range(300):
        crop, augmented = (bytes_of(some[0, index]["image"]) for some in (plain, dataset))
        orientations = {
            (flip, turns): np.rot90(crop[:, :, ::-1] if flip else crop, turns, axes=(1, 2))
            for flip, turns in itertools.product((False, True), range(4))
        }
        (which,) = [key for key, image in orientations.items() if np.array_equal(image, augmented)]
        seen[which] = seen.get(which, 0) + 1
    assert len(seen) == 8 and min(seen.values()) > 300 / 8 / 2.5


def test_augmentation_changes_neither_the_crop_nor_the_pixels():
    dataset, plain = (CropDataset(IMAGES, evolve(DATA, augment=on), seed=5) for on in (True, False))
    for index in range(9):
        assert torch.equal(dataset[1, index]["coord"], plain[1, index]["coord"])


def test_channels_are_permuted_before_the_patch_is_made():
    data = evolve(DATA, repeat=100)
    shuffled, plain = (CropDataset(IMAGES, evolve(data, channel_shuffle=on), seed=2) for on in (True, False))
    orders = list(itertools.permutations(range(3)))
    seen = dict.fromkeys(orders, 0)
    for index in range(300):
        one, other = shuffled[0, index], plain[0, index]
        (order,) = [order for order in orders if torch.equal(one["target"], other["target"][:, order])]
        assert torch.equal(one["image"], other["image"][list(order)])
        assert torch.equal(one["coord"], other["coord"])
        seen[order] += 1
    assert min(seen.values()) > 300 / 6 / 2


def test_channels_of_pairs_are_permuted_together():
    low = distinct(20, 20)
    images = Arrays([low.repeat(2, axis=0).repeat(2, axis=1)], [low], scale=2)
    dataset = CropDataset(images, evolve(PAIRS, channel_shuffle=True, queries=60, repeat=20), seed=0)
    for index in range(20):
        sample = dataset[0, index]
        rows, columns = positions(sample, 16)
        expected = bytes_of(sample["image"])[:, rows // 2, columns // 2]
        assert np.array_equal(expected.T, bytes_of(sample["target"]))


def test_half_of_the_crops_are_shrunk_by_any_factor():
    """Of a ramp, the step from pixel to pixel tells the factor."""
    ramp = np.broadcast_to(np.linspace(0, 255, 600).round()[:, None, None], (600, 600, 3)).astype(np.uint8)
    data = evolve(DATA, patch=100, queries=100, scale=(1.0, 1.0), augment=False, repeat=400, pre_shrink=3.0)
    dataset = CropDataset(Arrays([ramp]), data, seed=4)
    steps = []
    for index in range(400):
        rows = dataset[0, index]["image"][0].mean(dim=1) * 255
        steps.append(float(rows[90] - rows[10]) / 80 / (255 / 599))
    factors = np.array(steps)
    shrunk = factors[factors > 1.03]
    assert abs(len(shrunk) - 200) < 40
    assert factors.min() > 0.95 and factors.max() < 3.05
    assert abs(shrunk.mean() - 2) < 0.15  # uniform in 1 .. 3


def test_crops_are_shrunk_as_far_as_the_image_is_large_enough():
    images = Arrays([distinct(24, 24), distinct(26, 40)])
    data = evolve(DATA, queries=64, scale=(3.0, 3.0), repeat=50, pre_shrink=8.0)
    exact, free = (CropDataset(images, evolve(data, pre_shrink=factor), seed=1) for factor in (1.0, 8.0))
    differ = [not torch.equal(exact[0, i]["target"], free[0, i]["target"]) for i in range(100)]
    assert not any(differ[::2]) and any(differ[1::2])


def test_pairs_cannot_be_shrunk():
    with pytest.raises(ValueError, match="pre_shrink: paired folders bring their own"):
        evolve(PAIRS, pre_shrink=2.0)


def test_scales_and_places_cover_their_range():
    images = Arrays([distinct(30, 41)])
    data = evolve(DATA, repeat=2000, queries=1, augment=False)
    dataset = CropDataset(images, data, seed=0)
    sides = np.array([side_of(dataset[0, i]) for i in range(2000)])
    assert set(sides) == set(range(8, 25))
    assert abs(sides.mean() - 16) < 0.5  # uniform in 8 .. 24
    one = CropDataset(images, evolve(data, scale=(3.0, 3.0)), seed=0)
    places = []
    for i in range(2000):
        color = bytes_of(one[0, i]["target"])
        (place,) = np.argwhere((images.high[0] == color).all(axis=2))
        places.append(place)
    assert np.min(places, axis=0).tolist() == [0, 0] and np.max(places, axis=0).tolist() == [29, 40]


def test_draws_depend_on_seed_epoch_and_index_alone():
    dataset = CropDataset(IMAGES, DATA, seed=7)
    again = pickle.loads(pickle.dumps(dataset))
    first = dataset[2, 4]
    dataset[0, 0], np.random.rand(), torch.rand(1)
    for other in (dataset[2, 4], again[2, 4]):
        assert all(torch.equal(torch.as_tensor(first[name]), torch.as_tensor(other[name])) for name in first)
    different = [dataset[3, 4], dataset[2, 7], CropDataset(IMAGES, DATA, seed=8)[2, 4]]
    assert not any(torch.equal(first["coord"], other["coord"]) for other in different)


# Pairs


def test_pairs_are_cropped_together():
    high = [distinct(40, 61), distinct(45, 30, first=99)]
    low = [distinct(13, 20, first=5000), distinct(15, 10, first=6000)]  # nothing like the HR: it must come from there
    data = evolve(PAIRS, queries=(8 * 3) ** 2, augment=False, scale=(3.0, 3.0))
    dataset = CropDataset(Arrays(high, low, scale=3), data, seed=0)
    for index in range(6):
        sample = dataset[0, index]
        assert side_of(sample) == 24
        patch = bytes_of(sample["image"]).transpose(1, 2, 0)
        grid = np.indices((8, 8)).reshape(2, -1)
        top, left = find_crop(low[index % 2], patch.reshape(-1, 3), *grid)
        crop = high[index % 2][3 * top : 3 * top + 24, 3 * left : 3 * left + 24]
        rows, columns = positions(sample, 24)
        assert np.array_equal(crop[rows, columns], bytes_of(sample["target"]))


def test_pairs_of_varied_sizes():
    """Section 4.3: each HR image has a size of its own, spread evenly from that of the LR image to its own."""
    low = [distinct(8, 8, first=i) for i in range(5)]
    high = [distinct(24, 24, first=i) for i in range(5)]
    data = evolve(PAIRS, patch=8, queries=64, scale=(1.0, 3.0), augment=False, vary_sizes=True)
    dataset = CropDataset(Arrays(high, low, scale=3), data, seed=0)
    for epoch in range(2):
        for index, side in enumerate((8, 12, 16, 20, 24)):
            sample = dataset[epoch, index]
            assert side_of(sample) == side
            assert np.array_equal(bytes_of(sample["image"]).transpose(1, 2, 0), low[index])
            shrunk = np.asarray(Image.fromarray(high[index]).resize((side, side), Image.Resampling.BICUBIC))
            rows, columns = positions(sample, side)
            assert np.array_equal(shrunk[rows, columns], bytes_of(sample["target"]))


def test_varied_sizes_need_pairs_that_are_large_enough():
    with pytest.raises(ValueError, match="vary_sizes: expected pairs"):
        evolve(DATA, vary_sizes=True)
    images = Arrays([distinct(24, 24)], [distinct(8, 8)], scale=3)
    data = evolve(PAIRS, patch=8, queries=64, scale=(1.0, 4.0), vary_sizes=True)
    with pytest.raises(UserError, match="data.scale: vary_sizes needs at most x3, that of its HR image, got x4"):
        CropDataset(images, data, seed=0)


def test_paired_folders_that_cannot_be_trained_on_are_all_named(tmp_path):
    sizes = {"a": ((20, 20), (10, 10)), "b": ((25, 25), (10, 10)), "c": ((10, 10), (10, 10)), "d": ((20, 30), (10, 10))}
    for name, (hr, lr) in sizes.items():
        for folder, size in (("hr", hr), ("lr", lr)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.new("RGB", size[::-1]).save(tmp_path / folder / f"{name}.png")
    source = PairedFoldersSource(tmp_path / "hr", tmp_path / "lr")
    data = evolve(PAIRS, images=source, queries=200, scale=(2.0, 2.0))
    assert largest_crop(data) == 8
    images = open_images(source, smallest=largest_crop(data))
    with pytest.raises(UserError) as caught:
        CropDataset(images, data, seed=0)
    assert [line[:1] for line in caught.value.problems] == ["b", "c", "d"]
    assert "expected at most 64, as its HR crop has 8x8 pixels, got 200" in caught.value.problems[1]


def test_from_files_to_batches_whatever_is_held(tmp_path):
    for i in range(3):
        Image.fromarray(distinct(30, 30, first=i)).save(tmp_path / f"{i}.png")
    data = evolve(DATA, images=FolderSource(tmp_path))
    assert largest_crop(data) == 24
    sets = [open_images(data.images, memory_gb=memory, smallest=largest_crop(data)) for memory in (0.0, 1.0)]
    read, held = (list(batches(CropDataset(images, data, 0), 4, epoch=0)) for images in sets)
    assert same(read, held)
    with pytest.raises(UserError, match="30x30 pixels are too few for crops of up to 31"):
        open_images(data.images, smallest=31)


def test_the_largest_crop_is_the_largest_side_drawn():
    assert largest_crop(TrainingData(FOLDER)) == 192
    assert largest_crop(evolve(DATA, scale=(1.0, 2.6), patch=9)) == 23


# Batches


def same(some: list[dict], others: list[dict]) -> bool:
    return len(some) == len(others) and all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) for a, b in zip(some, others)
    )


def indices(found: list[dict]) -> list[int]:
    return [int(i) for batch in found for i in batch["index"]]


def test_an_epoch_is_every_sample_once_in_an_order_of_its_own():
    dataset = CropDataset(IMAGES, evolve(DATA, repeat=5), seed=3)
    epochs = [list(batches(dataset, 4, epoch)) for epoch in range(2)]
    for found in epochs:
        assert [len(batch["image"]) for batch in found] == [4, 4, 4, 3]
        assert len(found) == batches_per_epoch(dataset, 4) == 4
        assert sorted(indices(found)) == list(range(15))
        assert found[0]["coord"].shape == (4, 40, 2) and found[0]["cell"].shape == (4, 1, 2)
    assert indices(epochs[0]) != indices(epochs[1]) != list(range(15))
    assert [batches_per_epoch(dataset, batch) for batch in (1, 5, 14, 15, 16)] == [15, 3, 2, 1, 1]


def test_content_and_order_do_not_depend_on_workers():
    dataset = CropDataset(IMAGES, evolve(DATA, repeat=5), seed=3)
    before = torch.get_rng_state()
    alone, two = (list(batches(dataset, 4, 1, workers=workers)) for workers in (0, 2))
    assert same(alone, two)
    assert torch.equal(before, torch.get_rng_state())  # the run's own draws are not moved either


@pytest.mark.parametrize("workers", [0, 2])
def test_going_on_in_the_middle_of_an_epoch(workers, monkeypatch):
    dataset = CropDataset(IMAGES, evolve(DATA, repeat=5), seed=3)
    whole = list(batches(dataset, 4, 1))
    loaded = []
    if workers == 0:
        monkeypatch.setattr(IMAGES, "image", lambda i: loaded.append(i) or IMAGES.high[i], raising=False)
    for first in (0, 1, 3, 4, 9):
        loaded.clear()
        assert same(list(batches(dataset, 4, 1, first=first, workers=workers)), whole[first:])
        if workers == 0:
            assert loaded == [i % 3 for i in indices(whole[first:])]


def test_closing_early_leaves_no_workers():
    dataset = CropDataset(IMAGES, evolve(DATA, repeat=50), seed=3)
    found = batches(dataset, 4, 0, workers=2)
    next(found)
    assert len(multiprocessing.active_children()) == 2
    found.close()
    assert multiprocessing.active_children() == []
    list(batches(dataset, 75, 0, workers=2))
    assert multiprocessing.active_children() == []


class Report(CropDataset):
    """Says how the process is set up, in place of the pixels."""

    def __getitem__(self, at):
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        ends = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        return {"set-up": torch.tensor([torch.get_num_threads(), ignored, ends])}


def test_a_worker_has_one_thread_and_leaves_signals_to_the_main_process():
    dataset = Report(IMAGES, DATA, seed=0)
    threads, handler = torch.get_num_threads(), signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        torch.set_num_threads(2)
        (batch,) = batches(dataset, 9, 0, workers=1)
        assert batch["set-up"].tolist() == [[1, 1, 1]] * 9
    finally:
        torch.set_num_threads(threads)
        signal.signal(signal.SIGTERM, handler)


def test_a_mistake_in_a_worker_reaches_the_user(tmp_path):
    Image.fromarray(distinct(30, 30)).save(tmp_path / "a.png")
    images = open_images(FolderSource(tmp_path), memory_gb=0)
    (tmp_path / "a.png").unlink()
    for workers in (0, 1):
        with pytest.raises(UserError) as caught:
            list(batches(CropDataset(images, DATA, 0), 3, 0, workers=workers))
        (line,) = caught.value.problems
        assert line.startswith(f"{tmp_path / 'a.png'}: there is no such file") and "Traceback" not in line
    assert multiprocessing.active_children() == []


def test_on_a_device():
    dataset = CropDataset(IMAGES, DATA, seed=3)
    assert same(list(batches(dataset, 4, 0, device=torch.device("cpu"))), list(batches(dataset, 4, 0)))
    for batch in batches(dataset, 4, 0, device=torch.device("meta")):
        assert {value.device.type for value in batch.values()} == {"meta"}


@pytest.mark.gpu
@pytest.mark.parametrize("workers", [0, 2])
def test_on_a_gpu(gpu, workers):
    dataset = CropDataset(IMAGES, DATA, seed=3)
    found = list(batches(dataset, 4, 0, workers=workers, device=gpu))
    assert {value.device.type for batch in found for value in batch.values()} == {"cuda"}
    assert same([{name: value.cpu() for name, value in batch.items()} for batch in found], list(batches(dataset, 4, 0)))


def test_pixels_are_queried_again_where_a_crop_has_fewer():
    data = evolve(DATA, queries=150, scale=(1.0, 3.0), repeat_queries=True, augment=False, repeat=30)
    seen = set()
    for index in range(60):
        sample = CropDataset(IMAGES, data, seed=0)[0, index]
        side = round(2 / float(sample["cell"][0, 0]))
        rows, columns = positions(sample, side)
        counts = np.bincount(rows * side + columns, minlength=side * side)
        assert counts.max() - counts.min() <= 1 and counts.sum() == 150
        seen.add(int(counts.max()))
    assert {1, 2, 3} <= seen  # crops of 64 to 576 pixels


def test_queries_of_crops_with_enough_pixels_are_the_same_with_repeat_queries():
    for index in range(5):
        one, other = (CropDataset(IMAGES, evolve(DATA, repeat_queries=on), seed=0)[0, index] for on in (False, True))
        assert all(torch.equal(one[name], other[name]) for name in ("image", "coord", "target"))
