"""Folders, names, streams and settings of ``liif upscale``: nothing is lost, harmed or passed over without a word."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from reference import SMALL_TABLE, small_model

from liif_core.cli import liif
from liif_core.cli.upscale_marks import read_mark
from liif_core.training.checkpoint import Checkpoint, save_checkpoint

POSIX = pytest.mark.skipif(os.name != "posix", reason="links, pipes and signals of POSIX")


@pytest.fixture(scope="module")
def checkpoints(registry, tmp_path_factory):
    """Two of the same parts and other weights."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in ("a", "b"):
        model = small_model(registry, hidden=(8,), residual="bilinear", channels=3)
        for tensor in model.state_dict().values():
            tensor.mul_(0 if name == "a" else 0.5)
        experiment = {"name": "small", "model": {**SMALL_TABLE, "channels": 3}}
        save_checkpoint(folder / f"{name}.safetensors", Checkpoint(model.state_dict(), experiment, (1.0, 4.0)))
    return folder


@pytest.fixture
def run(checkpoints):
    def run(*arguments, checkpoint="a", scale="2", input=None):
        command = ["upscale", *map(str, arguments), "--checkpoint", str(checkpoints / f"{checkpoint}.safetensors")]
        command += ["--quiet", *(["--scale", scale] if scale else [])]
        result = CliRunner().invoke(liif, command, input=input)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


def picture(path, size=(8, 6), color=(200, 40, 40), **options):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path, **options)
    return Path(path)


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


# Originals


@POSIX
@pytest.mark.parametrize(
    "source, output",
    [
        ("in", ["--out-dir", "in"]),
        ("in", ["--out-dir", "in/../in"]),
        ("in", ["--out-dir", "link"]),
        ("link", ["--out-dir", "in"]),
        ("in/a.png", ["-o", "in/a.png"]),
        ("in/a.png", ["-o", "link/a.png"]),
        ("in/a.png", ["-o", "hard.png"]),
        ("in/a.png", ["-o", "soft.png"]),
        ("soft.png", ["-o", "in/a.png"]),
        ("in/a.png", ["-o", "out.png", "--json", "in/a.png"]),
        ("in/a.png", ["-o", "out.png", "--json", "soft.png"]),
        ("in/a.png", ["-o", "out.png", "--json", "out.png"]),
        ("in/a.png", ["-o", "out.png", "--json", "CHECKPOINT"]),
        ("in/a.png", ["-o", "CHECKPOINT", "--format", "png"]),
    ],
)
def test_nothing_that_is_read_is_replaced(place, run, checkpoints, source, output):
    picture("in/a.png")
    os.symlink("in", "link")
    os.symlink("in/a.png", "soft.png")
    os.link("in/a.png", "hard.png")
    weights = checkpoints / "a.safetensors"
    before = Path("in/a.png").read_bytes(), weights.read_bytes(), files_below(".")
    result = run(source, *[str(weights) if part == "CHECKPOINT" else part for part in output], "--overwrite")
    assert result.exit_code == 2 and "Traceback" not in result.output, result.output
    assert (Path("in/a.png").read_bytes(), weights.read_bytes(), files_below(".")) == before
    assert result.stderr.count("error: ") == 1, result.output


@POSIX
@pytest.mark.parametrize(
    "output, said",
    [
        (["-o", "folder"], "is a folder"),
        (["-o", ""], "empty"),
        (["--out-dir", ""], "empty"),
        (["-o", "/dev/null"], "not a file"),
        (["-o", "pipe"], "not a file"),
        (["-o", "a.png/b.png"], "Not a directory"),
        (["-o", "x" * 300 + ".png"], "too long"),
        (["--out-dir", "a.png"], "not a folder"),
        (["-o", "m.jpg", "--format", "png"], "--format png does not go with the suffix .jpg"),
        (["-o", "m.PNG", "--format", "tif"], "does not go with"),
        (["-o", "b.png", "--json", "folder"], "it is a folder"),
        (["-o", "b.png", "--json", "a.png/log.json"], "--json a.png/log.json"),
        (["-o", "b.png", "--json", "pipe"], "no process reads this pipe"),
    ],
)
def test_places_where_no_file_can_be_written(place, run, monkeypatch, output, said):
    monkeypatch.setattr("liif_core.cli.json_file._READER_SECONDS", 0.1)
    picture("a.png")
    os.mkdir("folder")
    os.mkfifo("pipe")
    result = run("a.png", *output)
    assert result.exit_code == 2 and said in result.stderr, result.output
    assert sorted(os.listdir()) == ["a.png", "folder", "pipe"] and not os.listdir("folder")


def test_a_format_that_goes_with_the_name(place, run):
    picture("a.png")
    for name, format in (("n.jpeg", "jpg"), ("n.tiff", "tif"), ("n.bin", "png")):
        assert run("a.png", "-o", name, "--format", format).exit_code == 0
        assert Image.open(name).format == {"jpg": "JPEG", "tif": "TIFF", "png": "PNG"}[format]


# Folders


def test_outputs_in_the_input_folder_are_not_input_again(place, run):
    picture("in/a.png"), picture("in/deep/b.png")
    for out_dir in ("in/large", "in/large", "in/other", "in/large"):
        result = run("in", "--out-dir", out_dir)
        assert result.exit_code == 0, result.output
    made = {f"{folder}/{name}" for folder in ("large", "other") for name in ("a.png", "deep/b.png")}
    assert set(files_below("in")) == {"a.png", "deep/b.png"} | made
    assert "outputs of liif upscale" in result.stderr
    assert run("in/**/*.png", "--out-dir", "in/third").exit_code == 2  # a.png of all three folders
    # The outputs of another folder are input like any other.
    assert run("in/large", "--out-dir", "larger").exit_code == 0
    assert files_below("larger") == ["a.png", "deep/b.png"]


def test_outputs_beside_their_inputs_are_not_input_again(place, run):
    picture("in/a.bmp")
    for _ in range(3):
        result = run("in", "--out-dir", "in")
        assert result.exit_code == 0, result.output
    assert files_below("in") == ["a.bmp", "a.png"]
    for _ in range(2):
        assert run("in", "-o", "in/b.png", "--overwrite").exit_code == 0
    assert files_below("in") == ["a.bmp", "a.png", "b.png"]


def test_what_a_folder_holds_is_taken_or_said(place, run):
    for name in ("a.jfif", "b.jpe", "d.mpo", "g.JPG"):
        picture(f"in/{name}", format="JPEG")
    picture("in/c.pnm", format="PPM"), picture("in/e.apng", format="PNG"), picture("in/sub/h.TIF")
    picture("in/.thumbnails/t.png"), picture("in/.hidden.png")
    Path("in/notes.txt").write_text("no image"), Path("in/x.psd").write_bytes(b"8BPS")
    result = run("in", "--out-dir", "out", "--json", "log.json")
    assert result.exit_code == 0, result.output
    assert files_below("out") == ["a.jpg", "b.jpg", "c.png", "d.jpg", "e.png", "g.JPG", "sub/h.TIF"]
    assert "passed over 2 hidden (.thumbnails, .hidden.png)" in result.stderr
    assert "2 not of a format that is read (notes.txt, x.psd)" in result.stderr
    passed = json.loads(Path("log.json").read_text())["passed_over"]["in"]
    assert sorted(name for names in passed.values() for name in names) == [
        ".hidden.png", ".thumbnails", "notes.txt", "x.psd",
    ]  # fmt: skip


def test_a_folder_that_cannot_be_read_is_an_error(place, run, monkeypatch):
    picture("in/a.png"), picture("in/closed/b.png")
    scan = os.scandir

    def closed(path="."):
        if not isinstance(path, int) and Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", closed)
    result = run("in", "--out-dir", "out", "--json", "log.json")
    assert result.exit_code == 3 and files_below("out") == ["a.png"]
    assert "in/closed: cannot be read (Permission denied)" in result.stderr
    assert "in/closed" in json.loads(Path("log.json").read_text())["unreadable"][0]
    assert run("in/closed", "--out-dir", "out").exit_code == 2


@POSIX
def test_links_and_pipes_in_a_folder(place, run):
    picture("in/a.png"), picture("other/b.png")
    os.symlink("../other", "in/linked"), os.symlink("gone.png", "in/broken.png"), os.mkfifo("in/pipe.png")
    os.symlink("../other/b.png", "in/c.png")
    result = run("in", "--out-dir", "out")
    assert result.exit_code == 0 and files_below("out") == ["a.png", "c.png"]
    assert "1 links to folders, which are not followed (linked)" in result.stderr
    assert "2 neither files nor folders (broken.png, pipe.png)" in result.stderr
    assert run("in/pipe.png", "-o", "p.png").exit_code == 2


# Names


@POSIX
@pytest.mark.parametrize(
    "name",
    [
        b"x" * 251 + b".png",
        b"caf\xe9.png",
        b"two\nlines.png",
        b'it\'s "quoted".png',
        b"-o.png",
        b"[a-z]*.png",
        b"\x1b[31m.png",
        "日本.png".encode(),
    ],
)
def test_any_name(place, run, name):
    name = os.fsdecode(name)
    os.mkdir("in")
    try:
        picture(os.path.join("in", name))
    except OSError:
        pytest.skip("this disk does not take the name")
    result = run("in", "--out-dir", "out", "--json", "log.json")
    assert result.exit_code == 0, result.output
    assert os.listdir("out") == [name] and len(result.stdout.splitlines()) == 1
    assert json.loads(Path("log.json").read_text())["results"][0]["input"] == os.path.join("in", name)
    assert run("in", "--out-dir", "out").exit_code == 0
    Path("in", name).write_bytes(b"no image")
    bad = run("in", "--out-dir", "out", "--overwrite")
    assert bad.exit_code == 2 and bad.stderr.startswith("error: in/"), bad.output


# Resume


@pytest.mark.parametrize("more", [["--scale", "3"], ["--region", "0,0,3,4"], ["--size", "33x"], []])
@pytest.mark.parametrize("holder", ["png", "jpg", "tif", "webp"])
def test_outputs_made_otherwise_are_not_done(place, run, holder, more):
    picture(f"in/a.{holder}")
    assert run("in", "--out-dir", "out").exit_code == 0
    again = run("in", "--out-dir", "out")
    assert again.exit_code == 0 and "already exists, skipped" in again.output
    before = Path(f"out/a.{holder}").read_bytes()
    scale = None if {"--scale", "--size"} & {*more} else "2"
    picture("in/new.png")
    other = run("in", "--out-dir", "out", *more, scale=scale, checkpoint="a" if more else "b")
    assert other.exit_code == 2 and f"out/a.{holder}: already exists, made with" in other.stderr, other.output
    assert "--overwrite" in other.stderr and files_below("out") == [f"a.{holder}"]
    assert Path(f"out/a.{holder}").read_bytes() == before
    replaced = run("in", "--out-dir", "out", *more, "--overwrite", scale=scale, checkpoint="a" if more else "b")
    assert replaced.exit_code == 0 and files_below("out") == [f"a.{holder}", "new.png"]
    assert Path(f"out/a.{holder}").read_bytes() != before


def test_outputs_of_other_programs_are_compared_by_size(place, run):
    picture("a.png"), picture("b.png", (12, 16))
    assert run("a.png", "-o", "b.png").exit_code == 2
    picture("b.png", (16, 12))
    assert run("a.png", "-o", "b.png").exit_code == 0
    Path("c.png").write_text("no image")
    assert "skipped" in run("a.png", "-o", "c.png").output and Path("c.png").read_text() == "no image"


def test_the_mark_keeps_exif_and_says_how(place, run):
    exif = Image.Exif()
    exif[0x010E] = "a caption"
    picture("a.jpg", exif=exif)
    for name in ("b.jpg", "b.png", "b.tif", "b.webp"):
        assert run("a.jpg", "-o", name).exit_code == 0
        assert Image.open(name).getexif()[0x010E] == "a caption"
        mark = read_mark(Path(name))
        assert mark["scale"] == 2 and mark["model"].endswith("a.safetensors") and len(mark["weights"]) == 16
    assert read_mark(Path("a.jpg")) is None and read_mark(Path("gone")) is None


# Streams


def test_from_standard_input_to_standard_output(place, run):
    data = picture("a.png").read_bytes()
    result = run("-", "-o", "-", input=data)
    assert result.exit_code == 0, result.stderr
    assert Image.open(io.BytesIO(result.stdout_bytes)).size == (16, 12)
    assert "standard output: 16 x 12" in result.stderr
    assert run("-", "--out-dir", "out", "--format", "jpg", input=data).exit_code == 0
    assert files_below(".") == ["a.png", "out/stdin.jpg"]
    assert "standard input is empty" in run("-", "-o", "-", input=b"").stderr
    bad = run("-", "-o", "-", input=b"no image")
    assert bad.exit_code == 2 and "error: standard input: not an image" in bad.stderr and not bad.stdout_bytes


@POSIX
def test_json_goes_through_links_and_into_pipes(place, run):
    picture("a.png")
    Path("real.json").write_text("old")
    os.symlink("real.json", "link.json"), os.symlink("new.json", "dangling.json"), os.mkfifo("pipe")
    for name, real in (("link.json", "real.json"), ("dangling.json", "new.json")):
        assert run("a.png", "-o", "b.png", "--overwrite", "--json", name).exit_code == 0
        assert Path(name).is_symlink() and json.loads(Path(real).read_text())["results"][0]["status"] == "done"
    read = []
    reader = threading.Thread(target=lambda: read.append(Path("pipe").read_text()))
    reader.start()
    assert run("a.png", "-o", "b.png", "--overwrite", "--json", "pipe").exit_code == 0
    reader.join()
    assert Path("pipe").is_fifo() and json.loads(read[0])["results"][0]["width"] == 16


def test_json_is_written_when_interrupted(place, run, monkeypatch):
    picture("in/a.png"), picture("in/b.png")

    def stop(job, *more):
        os.kill(os.getpid(), signal.SIGTERM) if os.name == "posix" else None
        time.sleep(5 if os.name == "posix" else 0)
        raise KeyboardInterrupt

    monkeypatch.setattr("liif_core.cli.upscale.render_file", stop)
    before = signal.getsignal(signal.SIGTERM)
    result = run("in", "--out-dir", "out", "--json", "log.json")
    assert result.exit_code == 130 and "interrupted" in result.stderr
    assert [entry["status"] for entry in json.loads(Path("log.json").read_text())["results"]] == ["interrupted"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_errors_go_to_standard_error(place, run):
    picture("a.png")
    Path("bad.png").write_text("no picture")
    result = run("a.png", "bad.png", "--out-dir", "out")
    assert result.exit_code == 3
    assert "error: bad.png" in result.stderr and "bad.png" not in result.stdout and "a.png: 16 x 12" in result.stdout


STREAMS = """
import os, sys
from liif_core.cli import streams
streams.prepare()
streams.echo("caf\\u00e9 \\u65e5 \\udce9")
streams.echo("second")
streams.echo("caf\\u00e9", err=True)
sys.exit(3 if streams.lost() else 0)
"""


@POSIX
@pytest.mark.parametrize(
    "redirect, encoding, code", [(">&-", "utf-8", 0), ("2>&- >&-", "utf-8", 0), ("", "ascii", 0), ("", "cp1252", 0)]
    + ([("> /dev/full", "utf-8", 3)] if Path("/dev/full").exists() else []),
)  # fmt: skip
def test_standard_streams(redirect, encoding, code):
    command = f'exec "$0" -c "$1" {redirect}'
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(["bash", "-c", command, sys.executable, STREAMS], capture_output=True, env=environment)
    assert done.returncode == code and b"Traceback" not in done.stderr and b"Exception" not in done.stderr
    if not redirect:
        assert b"\\u65e5" in done.stdout and b"second" in done.stdout


# Requests


@pytest.mark.parametrize(
    "options, said",
    [
        (["--scale", "1e300"], "expected at most 2147483647"),
        (["--scale", "1e9"], "more than 2,147,483,647 pixels a side"),
        (["--scale", "nan"], "expected a positive number"),
        (["--scale", "2,5,3"], "decimals are written with a point"),
        (["--scale", "0,5"], "decimals are written with a point"),
        (["--scale", "9" * 5000], "expected"),
        (["--size", "9" * 5000 + "x"], "expected WxH"),
        (["--size", "2,5x"], "decimals are written with a point"),
        (["--scale", "2", "--region", "0,0,1e-300,1e-300"], "float32"),
        (["--size", "9x9", "--region", "0,0,1e-300,1e-300"], "float32"),
        (["--size", "9x9", "--region", "1,1,1.0000001,2"], "float32"),
        (["--scale", "2", "--region", "0,5,1,5,3,0,4,0"], "decimals are written with a point"),
        (["--scale", "2", "--memory", "1,5GB"], "decimals are written with a point"),
        (["--scale", "2", "--max-pixels", "4e9"], "4e9"),
    ],
)
def test_odd_requests_get_one_message(place, run, options, said):
    picture("a.png")
    result = run("a.png", "-o", "b.png", *options, scale=None)
    assert result.exit_code == 2 and said in result.output, result.output
    assert result.stderr.count("rror: ") == 1 and len(result.stderr) < 1000 and os.listdir() == ["a.png"]


def test_scales_are_decimal(place, run):
    Image.fromarray(np.zeros((10, 25, 3), np.uint8)).save("a.png")
    assert run("a.png", "-o", "b.png", scale="2.3").exit_code == 0 and Image.open("b.png").size == (58, 23)
    assert run("a.png", "-o", "c.png", scale="1e-300").exit_code == 0 and Image.open("c.png").size == (1, 1)
    result = run("a.png", "-o", "d.png", scale="2,5")
    assert "if a decimal comma is meant, write 2.5" in result.stderr and Image.open("d.png").size == (125, 20)
    assert "comma" not in run("a.png", "-o", "e.png", scale="2,3.5").stderr


@POSIX
def test_a_pipe_is_no_checkpoint(place):
    picture("a.png")
    os.mkfifo("pipe")
    result = CliRunner().invoke(liif, ["upscale", "a.png", "-o", "b.png", "--scale", "2", "--checkpoint", "pipe"])
    assert result.exit_code == 2 and "pipe: a pipe or a device" in result.stderr


@pytest.mark.parametrize("format, size", [("webp", "20000x10"), ("jpg", "70000x10")])
def test_a_refused_format_is_not_advised(place, run, format, size):
    picture("a.png")
    result = run("a.png", "-o", f"b.{format}", "--size", size, scale=None)
    assert result.exit_code == 2 and " or tif, or a smaller size" in result.stderr, result.output
    advised = result.stderr.partition("use --format")[2]
    assert format not in advised
