"""What decoders print, log or warn of is said with the file's name, and nowhere else."""

import logging
import os
import warnings

import numpy as np
import pytest
import tifffile
from image_files import noise, saved
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from liif_core.images import complaints, opening, read_image, survey


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.tif"


PIXELS = np.kron(noise(40, 40), np.ones((5, 5), "u1"))
DAMAGED = {  # files that libtiff decodes all the same
    "group4": (Image.fromarray(PIXELS > 128), "Fax4Decode: "),
    "jpeg": (Image.fromarray(PIXELS), "JPEG data of a strip or tile end early"),
}


@pytest.mark.parametrize("in_parts", [False, True])
@pytest.mark.parametrize("compression", DAMAGED)
def test_what_libtiff_says_of_damage_is_a_note(compression, in_parts, path, capfd, monkeypatch):
    if in_parts:
        monkeypatch.setattr(opening, "_SMALL", 0)
    image, expected = DAMAGED[compression]
    data = bytearray(saved(image, "TIFF", compression=compression))
    path.write_bytes(data)
    assert survey(path, 1 << 30).open().notes == ()
    place = len(data) * 6 // 10
    data[place : place + 4] = b"\xff\xd9\xff\xff"
    path.write_bytes(data)
    source = survey(path, 1 << 30).open()
    source.read(slice(0, 200), slice(0, 200))
    assert any(f"its decoder says: {expected}" in note for note in source.notes)
    assert capfd.readouterr().err == ""


def test_what_tifffile_logs_is_a_note(path, caplog):
    tifffile.imwrite(path, noise(9, 9, dtype="uint16"))

    def asarray(page, **options):
        logging.getLogger("tifffile").warning("<TiffPage 0> odd\nthing")
        return noise(9, 9, dtype="uint16")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tifffile.TiffPage, "asarray", asarray)
        assert read_image(path).notes == ("its decoder says: <TiffPage 0> odd thing; check the result",)
    assert not caplog.records
    logging.getLogger("tifffile").warning("outside")
    assert [record.getMessage() for record in caplog.records] == ["outside"]


def test_warnings_of_pillow_are_notes_every_time(tmp_path, monkeypatch, recwarn):
    path = tmp_path / "a.png"
    path.write_bytes(saved(Image.fromarray(noise(9, 9)), "PNG"))
    load = PngImageFile.load

    def warned(image):
        warnings.warn("Corrupt data", stacklevel=1)
        return load(image)

    monkeypatch.setattr(PngImageFile, "load", warned)
    for _ in range(2):
        assert read_image(path).notes == ("its decoder says: Corrupt data; check the result",)
    assert not recwarn.list


def test_other_lines_are_passed_on_and_long_lists_are_cut(capfd):
    lines: list[str] = []
    with complaints.collected(lines), complaints.printed():
        os.write(2, b"JPEGLib: Corrupt JPEG data.\nepoch 3 of 4\n")
    assert lines == ["JPEGLib: Corrupt JPEG data."]
    assert capfd.readouterr().err == "epoch 3 of 4\n"
    notes = complaints.as_notes([*map(str, range(9)), "8", "x" * 900])
    assert len(notes) == 4 and notes[3] == "its decoder says 7 more things"


def test_outside_of_reading_nothing_is_kept(capfd):
    with complaints.printed():
        os.write(2, b"TIFFOpen: no.\n")
    with pytest.warns(UserWarning, match="mine"):
        warnings.warn("mine", stacklevel=1)
    assert capfd.readouterr().err == "TIFFOpen: no.\n"
