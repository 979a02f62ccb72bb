"""Result files: written, read, checked line by line, and added to by several processes."""

import hashlib
import json
import math
import multiprocessing
import subprocess

import attrs
import pytest
import torch
from reference import small_model

from liif_core.errors import UserError
from liif_core.evaluation import circumstances
from liif_core.evaluation.bootstrap import mean_interval
from liif_core.evaluation.circumstances import (
    Circumstances,
    files_sha256,
    machine_facts,
    multiply_adds,
    source_commit,
)
from liif_core.evaluation.result_files import append_results, check_appendable, read_results
from liif_core.evaluation.results import Subject, preset_facts, result_line, result_of
from liif_core.evaluation.scores import Score
from liif_core.presets import PROTOCOLS
from liif_core.sizes import Scale

MACHINE = {"cpu": "Some CPU", "cores": 2, "threads": 2, "system": "Linux", "torch": "2.13.0", "device": "cpu"}
WHERE = Circumstances("ab" * 32, MACHINE, "float32", "c0ffee")


def score(protocol="fair", scale=4.0, psnrs=(30.0, 28.0, 33.5), **changes):
    names = [f"{i}.png" for i in range(len(psnrs))]
    return Score(
        "Set5", protocol, Scale.of(scale), sum(psnrs) / len(psnrs), dict(zip(names, psnrs)), 25.0,
        dict.fromkeys(names, 25.0), seconds={name: (0.25, 0.5 + i) for i, name in enumerate(names)}, **changes,
    )  # fmt: skip


def result(name="edsr", weights="12" * 32, **changes):
    made = result_of(score(), Subject(name, "EDSR 4x32", weights, 1000), WHERE, 1234.5)
    return attrs.evolve(made, **changes)


def changed(**changes):
    """A line with other entries; a name with dots is a path, and None removes it."""
    line = json.loads(result_line(result()))
    for path, value in changes.items():
        *outer, last = path.split("__")
        table = line
        for part in outer:
            table = table[part]
        if value is None:
            del table[last]
        else:
            table[last] = value
    return json.dumps(line)


def refused(tmp_path, *lines):
    path = tmp_path / "r.jsonl"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError) as error:
        read_results(path)
    return [problem.removeprefix(f"{path}, ") for problem in error.value.problems]


def test_what_is_written_is_read(tmp_path):
    ssims = {"ssim": 0.5, "bicubic_ssim": 0.25, "ssim_images": dict.fromkeys(("0.png", "1.png", "2.png"), 0.5)}
    ssims["bicubic_ssim_images"] = dict.fromkeys(ssims["ssim_images"], 0.25)
    equal = score(psnrs=(math.inf, 28.0), scale=(2, 3.7))
    made = [
        result(),
        result_of(score("thera", given_low=3, **ssims), Subject("bicubic", "by Pillow"), WHERE, None, 10**8),
        result_of(equal, Subject("x", "y", "12" * 32, 5, 8), attrs.evolve(WHERE, commit="")),
    ]
    append_results(tmp_path / "deep" / "r.jsonl", made[:2])
    append_results(tmp_path / "deep" / "r.jsonl", made[2:])
    found = read_results(tmp_path / "deep" / "r.jsonl")
    assert found == made
    assert found[2].psnr == math.inf and found[2].interval is None and found[2].commit == ""
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["r.jsonl"]


def test_a_line_has_what_others_need():
    line = json.loads(result_line(result()))
    assert (line["format"], line["version"], line["scale"]) == ("liif-core result", 1, 4)
    assert line["model"] == {"name": "edsr", "description": "EDSR 4x32", "sha256": "12" * 32}
    assert line["data"] == {"name": "Set5", "images": 3, "sha256": "ab" * 32, "given_lr": 0}
    assert line["images"]["1.png"] == {"psnr": 28.0, "bicubic_psnr": 25.0, "encode_s": 0.25, "decode_s": 1.5}
    assert line["mean"] == {"psnr": 30.5, "bicubic_psnr": 25.0}
    assert line["interval"] == {"psnr": list(mean_interval([30.0, 28.0, 33.5])), "level": 0.95, "resamples": 10000}
    assert (line["commit"], line["parameters"], line["multiply_adds_per_pixel"]) == ("c0ffee", 1000, 1234.5)
    assert line["machine"] == MACHINE and line["date"].endswith("+00:00")
    assert line["preset"]["name"] == "fair" and line["preset"]["rounded"] == "to 8 bits"
    assert result().seconds == (0.25, 1.5)


def test_the_facts_of_presets():
    assert {name for name, preset in PROTOCOLS.items() if preset.interval} == {"fair", "fair-y"}
    for name, preset in PROTOCOLS.items():
        facts = preset_facts(name)
        assert facts["version"] == preset.version >= 1 and facts["ensemble"] == preset.ensemble
    assert preset_facts("gsasr")["border"] == "scale rounded up, at most 8"
    assert preset_facts("div2k")["border"] == "scale rounded up + 6" and preset_facts("rgb")["border"] == "none"
    assert preset_facts("ciaosr")["tiles"] == [192, 32] and preset_facts("lte")["cell"] == "at least that of x4"
    assert "MATLAB" in preset_facts("thera")["lr"] and preset_facts("benchmark")["channels"] == "Y"


def test_everything_that_is_wrong_is_named_with_its_line(tmp_path):
    found = refused(
        tmp_path,
        changed(),
        "",
        "{not json",
        changed(version=2),
        changed(format="other"),
        changed(model__sha256="xyz", machine__cpu=None, preset__name=4),
        changed(scale=-1, date="yesterday", data__images=4),
        changed(mean__psnr=31.0),
        changed(images={}),
        changed(images={"a.png": {"psnr": "high", "bicubic_psnr": 25.0}}),
        changed(interval__psnr=[3, 1]),
        changed(mean__psnr=30.5).replace("30.5", "NaN"),
    )
    starts = [
        "line 3: not valid JSON", "line 4: format version 2; this liif-core reads 1: install a newer one",
        "line 5: not a result of liif-core", "line 6: model.sha256: expected 64 lower-case hexadecimal digits",
        "line 6: preset.name: expected text, got 4", "line 6: machine.cpu: is missing",
        "line 7: date: expected a date with a time zone", "line 7: scale: expected a positive number",
        "line 8: mean.psnr: expected 30.5, the mean over images, got 31.0", "line 9: images: expected an object",
        "line 10: images.a.png.psnr: expected a number, or null for equal images",
        "line 11: interval.psnr: expected two numbers in order", "line 12: not valid JSON (NaN is no number of JSON)",
    ]  # fmt: skip
    assert len(found) == len(starts), found
    for line, start in zip(found, starts):
        assert line.startswith(start), (line, start)
    assert refused(tmp_path, changed(data__images=4)) == [
        "line 1: data.images: expected 3, as many as under images, got 4"
    ]
    many = refused(tmp_path, *["{}"] * 30)
    assert len(many) == 21 and "10 more problems" in many[-1]


def test_entries_of_later_versions_are_ignored(tmp_path):
    line = json.loads(changed())
    line["new"] = line["machine"]["new"] = line["images"]["0.png"]["new"] = "x"
    (tmp_path / "r.jsonl").write_text(json.dumps(line))  # without a line end
    append_results(tmp_path / "r.jsonl", [result("second")])
    assert [found.model for found in read_results(tmp_path / "r.jsonl")] == ["edsr", "second"]


def test_where_no_results_can_be_written(tmp_path):
    (tmp_path / "other.jsonl").write_text('{"epoch": 1}\n')
    (tmp_path / "file").write_text("")
    for path, message in [
        (tmp_path, "is a folder; give a file's name"),
        (tmp_path / "other.jsonl", "line 1: not a result of liif-core"),
        (tmp_path / "file" / "r.jsonl", "no file can be made in"),
    ]:
        with pytest.raises(UserError, match=message):
            check_appendable(path)
    with pytest.raises(UserError, match="results cannot be added"):
        append_results(tmp_path / "file" / "r.jsonl", [result()])
    check_appendable(tmp_path / "new" / "r.jsonl")
    assert not (tmp_path / "new").exists()


def _add(path, number):
    for i in range(5):
        append_results(path, [result(f"{number}-{i}")])


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="processes cannot fork here")
def test_several_processes_add_to_one_file(tmp_path):
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=_add, args=(tmp_path / "r.jsonl", number)) for number in range(4)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(120)
    assert [job.exitcode for job in jobs] == [0] * 4
    names = [found.model for found in read_results(tmp_path / "r.jsonl")]
    assert sorted(names) == sorted(f"{number}-{i}" for number in range(4) for i in range(5))
    for number in range(4):
        own = [name for name in names if name.startswith(f"{number}-")]
        assert own == sorted(own)


def test_the_hash_of_data(tmp_path):
    for name, text in (("b.png", b"1"), ("a.png", b"2")):
        (tmp_path / name).write_bytes(text)
    digests = sorted(hashlib.sha256(text).hexdigest() for text in (b"1", b"2"))
    expected = hashlib.sha256(f"{digests[0]}\n{digests[1]}\n".encode()).hexdigest()
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    assert files_sha256(paths) == files_sha256(paths[::-1]) == expected
    with pytest.raises(UserError, match="gone.png: cannot be read"):
        Circumstances.here([tmp_path / "gone.png"], torch.device("cpu"), "float32")


def test_the_machine():
    facts = machine_facts(torch.device("cpu"))
    assert facts["device"] == "cpu" and facts["torch"] == torch.__version__ and facts["cores"] >= 1
    assert facts["cpu"].strip()


def test_the_commit_of_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(circumstances, "_SOURCE", tmp_path)
    assert source_commit() == ""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.example"]
    if subprocess.run([*git, "init", "-q"]).returncode:
        pytest.skip("git is not here")
    (tmp_path / "pyproject.toml").write_text("a")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "x", "--no-verify"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert source_commit() == head
    (tmp_path / "pyproject.toml").write_text("b")
    assert source_commit() == f"{head}-dirty"


def test_multiply_adds_by_hand(registry):
    """EDSR and an MLP: 9 multiply-adds for each pair of channels and pixel of a 3 x 3 convolution, and matrices."""
    model = small_model(registry).eval().requires_grad_(False)
    found = {scale: multiply_adds(model, Scale.of(scale)) for scale in (2, 4)}
    convolutions = [m for m in model.encoder.modules() if isinstance(m, torch.nn.Conv2d)]
    encoder = sum(m.weight.numel() for m in convolutions)  # for each LR pixel
    for scale, total in found.items():
        assert total > encoder / scale**2
    # what does not depend on the scale is the decoder's work for a pixel; the rest is shared by scale * scale pixels
    per_pixel = (16 * found[4] - 4 * found[2]) / 12
    shared = (found[2] - per_pixel) * 4
    last = model.decoder.layers[-1].weight.numel()
    hidden = [layer.weight.numel() for layer in model.decoder.layers[1:-1] if hasattr(layer, "weight")]
    first = model.decoder.layers[0].weight
    assert shared >= encoder
    assert last + 4 * sum(hidden) <= per_pixel <= 4 * (last + sum(hidden) + first.numel())
