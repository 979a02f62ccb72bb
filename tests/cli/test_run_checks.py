"""What is known before the first step is said before it, by --check too."""

import json

import pytest
import tiny
from click.testing import CliRunner
from PIL import Image

from liif_core.cli import liif_run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    tiny.experiment_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*arguments):
    result = CliRunner().invoke(liif_run, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.mark.parametrize(
    "key, value",
    [("train.seed", 2**63), ("train.seed", -1), ("train.optimizer.betas", "[0.9, 1.0]"), ("train.epochs", 10**12),
     ("train.optimizer.betas", "[-0.1, 0.9]"), ("train.optimizer.lr", 0), ("train.optimizer.lr", "nan"),
     ("train.workers", 10**6), ("train.batch_size", 10**12), ("data.repeat", 10**15),
     ("train.schedule", '{use="multi-step", milestones=[-1]}')],
)  # fmt: skip
def test_numbers_out_of_range(folder, key, value):
    result = invoke("tiny.toml", "--check", "--set", f"{key}={value}")
    assert result.exit_code == 2 and key in result.output, result.output


def test_the_largest_seed_trains(folder):
    few = ["--set", "train.epochs=1", "--set", "evaluate=[]"]
    result = invoke("tiny.toml", "--quiet", "--set", f"train.seed={2**63 - 1}", *few)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("check", [[], ["--check"]])
def test_images_are_checked(folder, check):
    Image.new("RGB", (4, 4)).save(folder / "tiny.png")
    (folder / "val").mkdir()
    Image.new("RGB", (4, 4)).save(folder / "val" / "small.png")
    result = invoke("tiny.toml", "--quiet", "--set", "validate.images.path=val", "--set", "validate.scale=8", *check)
    assert result.exit_code == 2 and "validate: small.png at x8" in result.output, result.output
    (folder / "images" / "picture-1.png").write_bytes(b"")
    Image.new("RGB", (4, 4)).save(folder / "images" / "picture-2.png")
    refused = invoke("tiny.toml", "--quiet", *check)
    assert refused.exit_code == 2 and "data.skip_bad = true" in refused.output
    assert "picture-1.png" in refused.output and "picture-2.png" in refused.output
    assert not (folder / "runs").exists()


def test_bad_images_are_left_out_and_listed(folder):
    (folder / "images" / "picture-3.png").write_bytes(b"")
    few = ["--set", "train.epochs=1", "--set", "evaluate=[]", "--set", "validate.images.limit=1"]
    skipping = ["--set", "data.skip_bad=true", *few]
    result = invoke("tiny.toml", "--quiet", "--out", "out", *skipping)
    assert result.exit_code == 0 and "1 of 4 images are left out" in result.output, result.output
    assert "3 images (1 left out)" in result.output
    assert "picture-3.png" in (folder / "out" / "report.md").read_text()
    (line,) = json.loads((folder / "out" / "report.json").read_text())["left_out"]
    assert "picture-3.png" in line
    assert invoke("tiny.toml", "--quiet", "--out", "out", "--resume", *skipping).exit_code == 0


@pytest.mark.parametrize("size", ["2", "4"])
def test_variables_of_torchrun_without_torchrun(folder, monkeypatch, size):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", size)
    for check in ([], ["--check"]):
        result = invoke("tiny.toml", "--quiet", *check)
        assert result.exit_code == 2 and len(result.output.splitlines()) == 1
        assert f"RANK=0, WORLD_SIZE={size}: set as torchrun sets them, but LOCAL_RANK" in result.output
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert invoke("tiny.toml", "--check").exit_code == 0
    monkeypatch.delenv("WORLD_SIZE")
    assert invoke("tiny.toml", "--check").exit_code == 0


FALLBACK = """fallback = "small"
[profiles.small.data]
images = { source = "paired-folders", hr = "images", lr = "images" }
[profiles.small.validate]
images = { source = "folder", path = "images", limit = 1 }
"""


def test_a_fallback_that_does_not_take_an_override(folder):
    head, tables = FALLBACK.split("\n", 1)
    (folder / "tiny.toml").write_text(head + tiny.TOML + tables)
    named = invoke("tiny.toml", "--quiet", "--set", "data.images.path=nowhere")
    assert named.exit_code == 2 and "nowhere" in named.output and "unknown key" not in named.output
    absent = tiny.TOML.replace('path = "images" }\npatch', 'path = "elsewhere" }\npatch')
    (folder / "tiny.toml").write_text(head + absent + tables)
    refused = invoke("tiny.toml", "--quiet", "--set", "data.pre_shrink=2")
    assert refused.exit_code == 2 and "elsewhere" in refused.output
    assert "the fallback profile 'small'" in refused.output and "does not take --set" in refused.output
