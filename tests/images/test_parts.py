"""Reading in parts: the pixels of every rectangle, and all facts, are those of reading the whole file."""

import io
import itertools
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import tifffile
from image_files import CASES, noise, png, saved, tiff
from PIL import Image

from liif_core.errors import UserError
from liif_core.images import eight_bit, fill_transparent, high_depth, opening, read_image, source, survey
from liif_core.images.picture import Picture


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


@pytest.fixture(autouse=True)
def in_small_parts(monkeypatch):
    """All images count as large, and are divided into bands of few rows."""
    monkeypatch.setattr(opening, "_SMALL", 0)
    monkeypatch.setattr(source, "_BAND_BYTES", 200)
    monkeypatch.setattr("liif_core.images.tiff_parts._LONG_STRIP", 100)
    monkeypatch.setattr(opening, "_PNG_BYTES", 0)


def opened(path, in_parts=None):
    found = survey(path, 1 << 30)
    if in_parts is not None:
        found = parts_of(path)
        assert (found is not None) == in_parts
        found = found or survey(path, 1 << 30)
    return found.open()


def parts_of(path):
    """How the file would be read in parts, though it may be smaller than what that takes."""
    from liif_core.images import reading

    return opening._in_parts(*reading.look(path, 1 << 30), 1 << 30)


def check(path, in_parts=None):
    whole, found = read_image(path), opened(path, in_parts)
    filled = fill_transparent(whole)
    assert (found.size, found.channels, found.depth) == (whole.size, whole.color.shape[2], whole.depth)
    assert (found.mode, found.span, found.notes) == (whole.mode, whole.span, whole.notes)
    assert found.metadata == whole.metadata
    assert found.alpha_range == (None if whole.alpha is None else (whole.alpha.min(), whole.alpha.max()))
    height, width = whole.size
    random = np.random.default_rng(0)
    some = [(0, height, 0, width), (height - 1, height, width - 1, width), (0, 1, 0, 1)]
    for _ in range(12):
        (top, bottom), (left, right) = (sorted(random.choice(side + 1, 2, replace=False)) for side in (height, width))
        some.append((top, bottom, left, right))
    for top, bottom, left, right in some:
        part = found.read(slice(top, bottom), slice(left, right))
        assert part.color.dtype == whole.color.dtype
        np.testing.assert_array_equal(part.color, filled.color[top:bottom, left:right])
        assert (part.alpha is None) == (whole.alpha is None)
        if whole.alpha is not None:
            np.testing.assert_array_equal(part.alpha, whole.alpha[top:bottom, left:right])
    return found


@pytest.mark.parametrize("case", CASES)
def test_every_mode(case, path):
    path.write_bytes(CASES[case][0])
    check(path)
    if path.read_bytes()[:4] in (b"\x89PNG", b"II*\0", b"MM\0*", b"II+\0"):
        check(path, in_parts=True)
