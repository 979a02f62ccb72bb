"""Experiment files as other systems and editors write them."""

import codecs
import os
import re
from pathlib import Path

import pytest

from liif_core.errors import UserError, did_you_mean
from liif_core.experiment.layers import override, read_toml
from liif_core.experiment.toml_file import read_experiment_file
from liif_core.experiment.values import exact

TEXT = 'name = "größer"\n[data]\npatch = 3\n'


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_a_mark_and_line_ends_of_windows_make_no_difference(tmp_path, mark, end):
    (tmp_path / "a.toml").write_bytes(mark + TEXT.replace("\n", end).encode())
    assert read_toml(tmp_path / "a.toml") == {"name": "größer", "data": {"patch": 3}}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("text", [TEXT, "name = 'a'"])
def test_utf16_is_named(tmp_path, encoding, text):
    (tmp_path / "a.toml").write_text(text, encoding=encoding)
    with pytest.raises(UserError, match="not a TOML file: .*UTF"):
        read_toml(tmp_path / "a.toml")
    if encoding == "utf-16":
        with pytest.raises(UserError, match="it is UTF-16 text; save it as UTF-8"):
            read_toml(tmp_path / "a.toml")


@pytest.mark.parametrize("path", ["C:\\images\\train", "C:\\Users\\me", "data\\xyz", "D:\\data\\"])
def test_a_backslash_that_is_no_escape(tmp_path, path):
    (tmp_path / "a.toml").write_text(f'[data]\nimages = {{ path = "{path}" }}\n')
    with pytest.raises(UserError, match="not valid TOML: .*a backslash begins an escape: write '...' or / in paths"):
        read_toml(tmp_path / "a.toml")
    with pytest.raises(UserError, match="--set .*a backslash begins an escape"):
        override(f'data.images.path="{path}"', {})
    assert override(f"data.images.path={path}", {}) == {"data": {"images": {"path": path}}}


@pytest.mark.parametrize("path", ["data\train", "new\nset", "\rest", "my\files", "a\bc"])
def test_a_backslash_that_became_another_character(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"contains a.*a backslash begins an escape"):
        exact(Path)(path, None)
    if os.name != "nt":
        Path(path).mkdir()
        assert exact(Path)(path, None) == tmp_path / path  # an odd name that is there


def test_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert exact(Path)("~/images", None) == tmp_path / "images" and exact(Path)("~", None) == tmp_path
    assert exact(Path)("a~b/~", None) == Path("a~b/~").absolute()
    (tmp_path / "base.toml").write_text('name = "base"')
    (tmp_path / "b.toml").write_text('extends = "~/base.toml"')
    assert read_experiment_file(tmp_path / "b.toml").base["name"] == "base"


@pytest.mark.parametrize(
    "given", ["local_ensemble", "Local-Ensemble", "LOCAL_ENSEMBLE", "local-ensemle", "localensemble"]
)
def test_dashes_underscores_and_case_make_no_difference_to_near_names(given):
    assert did_you_mean(given, ["bilinear", "local-ensemble", "nearest"]) == " (did you mean 'local-ensemble'?)"
    assert not re.search("did", did_you_mean("x", ["bilinear"]))
