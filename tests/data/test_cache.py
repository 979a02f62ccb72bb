"""The file of decoded images has the pixels that decoding gives, is used again, and is made again when it must be."""

import errno
import multiprocessing
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

from liif_core import UserError
from liif_core.data import cache
from liif_core.data.sources import open_images
from liif_core.experiment.schema import FolderSource, PairedFoldersSource
from liif_core.sizes import Scale


@pytest.fixture
def source(tmp_path):
    tiny.photographs(tmp_path / "images", count=5)
    Image.new("L", (40, 50), 7).save(tmp_path / "images" / "gray.png")
    return FolderSource(tmp_path / "images")


def opened(source, tmp_path, **more):
    return open_images(source, cache=tmp_path / "cache", **more)


def the_file(tmp_path):
    (file,) = (tmp_path / "cache").glob("*.images")
    return file


@pytest.fixture
def decoded(monkeypatch):
    """The names of files that are decoded."""
    names = []
    original = cache.decode_all

    def decode_all(paths, *more):
        names.extend(path.name for path in paths)
        return original(paths, *more)

    monkeypatch.setattr(cache, "decode_all", decode_all)
    return names


def same(a, b):
    assert (a.names, a.sizes, a.fingerprint, a.left_out) == (b.names, b.sizes, b.fingerprint, b.left_out)
    return all(np.array_equal(a.image(i), b.image(i)) for i in range(len(a)))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_pixels_are_those_that_decoding_gives(source, tmp_path, decoded, channels):
    expected = open_images(source, channels)
    assert same(opened(source, tmp_path, channels=channels), expected)
    again = opened(source, tmp_path, channels=channels)
    assert same(again, expected) and len(decoded) == 6  # once
    assert not again.image(0).flags.writeable
    assert the_file(tmp_path).stat().st_size < sum(h * w for h, w in expected.sizes) * channels + 4000


def test_pairs(tmp_path, decoded):
    tiny.photographs(tmp_path / "hr", size=(48, 56))
    tiny.photographs(tmp_path / "lr", size=(24, 28))
    source = PairedFoldersSource(tmp_path / "hr", tmp_path / "lr")
    expected, found = open_images(source), opened(source, tmp_path)
    assert same(found, expected) and len(decoded) == 8
    for i in range(4):
        assert np.array_equal(found.low_resolution(i, Scale.of(2)), expected.low_resolution(i, Scale.of(2)))


def test_it_is_pickled_as_a_name(source, tmp_path):
    images = opened(source, tmp_path)
    data = pickle.dumps(images)
    assert len(data) < 5000 and same(pickle.loads(data), images)


def test_a_changed_image_is_decoded_again(source, tmp_path, decoded):
    opened(source, tmp_path)
    Image.new("RGB", (41, 51), (1, 2, 3)).save(tmp_path / "images" / "gray.png")
    assert same(opened(source, tmp_path), open_images(source)) and len(decoded) == 12
    tiny.photographs(tmp_path / "images", count=6)
    assert same(opened(source, tmp_path), open_images(source))


@pytest.mark.parametrize("place", ["first byte", "middle", "description", "end", "cut", "empty", "another file"])
def test_a_damaged_file_is_made_again(source, tmp_path, decoded, place):
    expected = opened(source, tmp_path)
    file = the_file(tmp_path)
    data = bytearray(file.read_bytes())
    at = {"first byte": 0, "middle": 20_000, "description": len(data) - 300, "end": len(data) - 1}.get(place)
    if at is not None:
        data[at] ^= 1
    file.write_bytes({"cut": data[:-1], "empty": b"", "another file": b"x" * 1000}.get(place, bytes(data)))
    assert same(opened(source, tmp_path), open_images(source)) and len(decoded) == 12
    assert expected.fingerprint == opened(source, tmp_path).fingerprint and len(decoded) == 12


def test_without_a_check_pixels_are_not_read(source, tmp_path, monkeypatch):
    opened(source, tmp_path)
    monkeypatch.setattr(cache, "sha256", lambda pixels: pytest.fail("read"))
    assert same(opened(source, tmp_path, check_cache=False), open_images(source))


def test_bad_images_are_named_as_without_it(source, tmp_path, decoded):
    (tmp_path / "images" / "broken.png").write_bytes(b"no")
    with pytest.raises(UserError) as plain:
        open_images(source)
    for _ in range(2):
        with pytest.raises(UserError) as found:
            opened(source, tmp_path)
        assert found.value.problems == plain.value.problems
    assert len(decoded) == 7
    assert same(opened(source, tmp_path, skip_bad=True), open_images(source, skip_bad=True))


def test_a_name_that_is_not_utf_8(source, tmp_path):
    os.rename(tmp_path / "images" / "gray.png", os.fsencode(tmp_path / "images") + b"/gray-\xff.png")
    assert same(opened(source, tmp_path), open_images(source)) and same(opened(source, tmp_path), open_images(source))


def test_a_folder_that_cannot_be_used_is_named(source, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UserError, match=r"data.cache: .*cache: cannot be used: .*leave it out"):
        opened(source, tmp_path)


def test_a_full_disk_leaves_nothing(source, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache, "decode_all", full)
    with pytest.raises(UserError, match="data.cache: .*No space left"):
        opened(source, tmp_path)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_a_process_that_is_killed_while_it_writes_is_in_nobodys_way(source, tmp_path):
    def killed():
        original = cache.decode_all

        def half(paths, channels, keep):
            original(paths[:3], channels, keep)
            os._exit(9)

        cache.decode_all = half
        opened(source, tmp_path)

    child = multiprocessing.get_context("fork").Process(target=killed)
    child.start()
    child.join(60)
    assert child.exitcode == 9
    (left,) = (tmp_path / "cache").glob(".*.images")  # a temporary file
    assert same(opened(source, tmp_path), open_images(source))
    assert len(list((tmp_path / "cache").iterdir())) == 2 and not left.exists()


def test_of_several_processes_one_decodes(source, tmp_path):
    def works():
        original = cache.decode_all

        def counted(*arguments):
            with open(tmp_path / "count", "a") as file:
                file.write("x")
            return original(*arguments)

        cache.decode_all = counted
        assert same(opened(source, tmp_path), open_images(source))

    children = [multiprocessing.get_context("fork").Process(target=works) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * 4 and (tmp_path / "count").read_text() == "x"


def test_images_that_are_removed_later(source, tmp_path):
    """What is in the file does not need them, and another run does."""
    images, kept = opened(source, tmp_path), open_images(source)
    shutil.rmtree(tmp_path / "images")
    assert np.array_equal(images.image(2), kept.image(2))
    with pytest.raises(UserError):
        opened(source, tmp_path)


def test_no_files_no_cache(tmp_path):
    with pytest.raises(UserError):
        opened(FolderSource(Path(tmp_path / "nowhere")), tmp_path)
    assert not (tmp_path / "cache").exists()
