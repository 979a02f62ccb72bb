"""MATLAB's bicubic: against torch's inside of the image, and against stored LR images of Set5."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from liif_core.data.matlab_resize import matlab_bicubic


def photograph(height, width):
    generator = np.random.default_rng(0)
    coarse = generator.integers(60, 200, (height // 3 + 1, width // 3 + 1, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("size", [(30, 41), (20, 27), (47, 60), (120, 164), (75, 33)])
def test_inside_it_is_torchs_kernel(size):
    """Away from the edges torch's antialiased bicubic has the same weights; it rounds once, this twice."""
    image = photograph(60, 82)
    found = matlab_bicubic(image, size).astype(int)
    inputs = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].double()
    expected = F.interpolate(inputs, size, mode="bicubic", antialias=True, align_corners=False)
    expected = expected[0].permute(1, 2, 0).clamp(0, 255).numpy()
    margin = 9  # wider than the kernel at any of these sizes
    rows, columns = (slice(margin, side - margin) for side in size)
    assert np.abs(found - expected)[rows, columns].max() <= 1.2  # half for each rounding, the first times at most 1.3


def test_edges_continue_by_reflection():
    image = photograph(40, 56)
    wide = np.pad(image, ((16, 16), (16, 16), (0, 0)), mode="symmetric")
    for scale in (2, 4):
        found, inside = (
            matlab_bicubic(image, (40 // scale, 56 // scale)),
            matlab_bicubic(wide, (72 // scale, 88 // scale)),
        )
        margin = 16 // scale
        assert np.array_equal(found, inside[margin:-margin, margin:-margin])


def test_a_flat_image_stays_flat_and_the_same_size_the_same():
    assert (matlab_bicubic(np.full((17, 23, 1), 77, np.uint8), (5, 40)) == 77).all()
    image = photograph(21, 18)
    assert np.array_equal(matlab_bicubic(image, (21, 18)), image)


@pytest.mark.parametrize("scale, part", [(2, 0.006), (3, 0.009), (4, 0.014)])
def test_stored_images_of_set5(shared, scale, part):
    """They were made by MATLAB: all values are equal, but for about one in a hundred."""
    different = total = largest = 0
    for path in sorted((shared / "data" / "set5" / f"x{scale}" / "HR").iterdir()):
        stored = np.asarray(Image.open(path.parents[1] / "LR" / path.name).convert("RGB")).astype(int)
        made = matlab_bicubic(np.asarray(Image.open(path).convert("RGB")), stored.shape[:2])
        difference = np.abs(made - stored)
        different += (difference > 0).sum()
        total, largest = total + difference.size, max(largest, difference.max())
    assert different / total <= part and largest <= 7
