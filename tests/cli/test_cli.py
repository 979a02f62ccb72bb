import json
import re
import signal
import subprocess
import sys
import tomllib

import pytest
import tiny
import torch
from click.testing import CliRunner

import liif_core
from liif_core.cli import liif, liif_run
from liif_core.training.trainer import Trainer

SIX_MISTAKES = {
    "blocks = 1\n": 'blocks = "one"\n',  # wrong type
    "channels = 8\n": "channels = 8\nchanels = 9\n",  # unknown key inside a plugin's options
    'use = "local-ensemble"': 'use = "local_ensemble"',  # unknown component
    "batch_size = 4\n": "batch_size = 0\n",  # out of range
    "epochs = 2\n": "epochs = 2\nworker = 2\n",  # unknown key with a near name
    '[model.decoder]\nuse = "mlp"\nhidden = [16]\n': "",  # missing table
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    tiny.experiment_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*arguments, command=liif_run):
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_a_run_leaves_what_tools_rely_on(folder):
    result = invoke("tiny.toml", "--out", "out", "--quiet")
    assert result.exit_code == 0, result.output
    report = json.loads((folder / "out" / "report.json").read_text())
    assert [(r["dataset"], r["protocol"], r["scale"]) for r in report["results"]] == [
        ("folder", "rgb", 2),
        ("folder", "rgb", 2.5),
    ]
    for entry in report["results"]:
        assert entry["psnr"] == pytest.approx(sum(entry["images"].values()) / 2)
        assert set(entry["bicubic"]["images"]) == set(entry["images"]) == {"picture-0.png", "picture-1.png"}
    resolved = tomllib.loads((folder / "out" / "experiment.toml").read_text())
    assert resolved["model"]["decoder"] == {"use": "mlp", "hidden": [16], "zero_last": False}
    assert resolved["data"]["images"]["path"] == str(folder / "images")
    assert {"last.safetensors", "best.safetensors"} <= {p.name for p in (folder / "out" / "checkpoints").iterdir()}
    markdown = (folder / "out" / "report.md").read_text()
    assert "bicubic" in markdown.lower() and "x2.5" in markdown
    assert (folder / "out" / "pictures" / "folder.png").stat().st_size > 1000

    again = invoke(folder / "out" / "experiment.toml", "--check")  # the resolved copy is an experiment file itself
    assert again.exit_code == 0, again.output


def test_the_same_folder_again(folder):
    assert invoke("tiny.toml", "--out", "out", "--quiet").exit_code == 0
    before = (folder / "out" / "report.json").read_bytes()
    other = invoke("tiny.toml", "--out", "out", "--set", "train.batch_size=2")
    assert (other.exit_code, "another experiment" in other.output, "train.batch_size" in other.output) == (
        2,
        True,
        True,
    )
    same = invoke("tiny.toml", "--out", "out")
    assert (same.exit_code, "--resume" in same.output) == (2, True)
    assert (folder / "out" / "report.json").read_bytes() == before
    resumed = invoke("tiny.toml", "--out", "out", "--resume", "--quiet")
    assert resumed.exit_code == 0
    results = [json.loads(text)["results"] for text in (before, (folder / "out" / "report.json").read_bytes())]
    assert results[0] == results[1]


def test_without_out_every_run_has_its_own_folder(folder):
    for expected in ("tiny", "tiny-2"):
        assert invoke("tiny.toml", "--quiet").exit_code == 0
        assert (folder / "runs" / expected / "report.json").exists()


def test_interrupted(folder, monkeypatch):
    original = Trainer._step
    monkeypatch.setattr(
        Trainer, "_step", lambda self, batch: (original(self, batch), signal.raise_signal(signal.SIGTERM))[0]
    )
    result = invoke("tiny.toml", "--out", "out", "--quiet")
    assert result.exit_code == 130
    assert "SIGTERM" in result.output and "--resume" in result.output
    assert (folder / "out" / "checkpoints" / "last.safetensors").exists()


def test_six_mistakes_in_one_message(folder):
    text = tiny.TOML
    for right, wrong in SIX_MISTAKES.items():
        assert right in text
        text = text.replace(right, wrong, 1)
    (folder / "tiny.toml").write_text(text)
    result = invoke("tiny.toml", "--out", "out")
    assert result.exit_code == 2
    lines = sorted(result.output.strip().splitlines())
    assert [line.partition("tiny.toml: ")[2].partition(":")[0] for line in lines] == [
        "model.decoder", "model.encoder.blocks", "model.encoder.chanels", "model.sampling.use", "train.batch_size",
        "train.worker",
    ]  # fmt: skip
    assert "did you mean 'channels'" in lines[2] and "did you mean 'local-ensemble'" in lines[3]
    assert "did you mean 'workers'" in lines[5] and "whole number" in lines[1]
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["absent.toml"], "absent.toml: cannot be read: No such file"),
        (["tiny.toml", "--profile", "papr"], "no profile is named 'papr'"),
        (["tiny.toml", "--set", "train"], "--set train: expected KEY=VALUE"),
        (["tiny.toml", "--set", "train.epochs=x"], "train.epochs: expected a whole number"),
        (["tiny.toml", "--device", "cuda:99"], "device: 'cuda:99' is not on this machine"),
        (["tiny.toml", "--device", "gpu"], "device: expected auto, cpu, cuda"),
        (["tiny.toml", "--set", "run.precision=fp16", "--device", "cpu"], "precision: 'fp16' needs a GPU"),
        (["tiny.toml", "--set", "data.images.path=nowhere"], "nowhere"),
        (["tiny.toml", "--set", "data.patch=40"], "picture-0.png"),  # smaller than a crop of 160
        (["tiny.toml", "--set", "model.conditioning=[]", "--out", "tiny.toml"], "expected a folder, and it is a file"),
        (["tiny.toml", "--bad-option"], "No such option"),
    ],
)
def test_mistakes_are_named(folder, arguments, expected):
    before = sorted(folder.rglob("*"))
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert expected in result.output
    assert sorted(folder.rglob("*")) == before


def test_absent_data_falls_back_and_says_so(folder):
    text = tiny.TOML.replace('name = "tiny"', 'name = "tiny"\nfallback = "small"').replace(
        'path = "images" }\npatch', 'path = "elsewhere" }\npatch'
    )
    text += '\n[profiles.small]\nnote = "Not comparable."\n'
    text += '[profiles.small.data]\nimages = { source = "folder", path = "images" }\n'
    (folder / "tiny.toml").write_text(text)
    fallen = invoke("tiny.toml", "--out", "out", "--quiet")
    assert fallen.exit_code == 0, fallen.output
    assert "elsewhere" in fallen.output and "profile 'small'" in fallen.output
    assert "Not comparable." in (folder / "out" / "report.md").read_text()
    assert json.loads((folder / "out" / "report.json").read_text())["profile"] == "small"

    (folder / "tiny.toml").write_text(text + "[profiles.paper]\n")
    refused = invoke("tiny.toml", "--profile", "paper", "--out", "other")
    assert refused.exit_code == 2 and "elsewhere" in refused.output


def test_a_report_names_the_model_that_it_is_about(folder):
    """The name of the file belongs to the model of the file; a profile of other sizes is called what it is made of."""
    text = tiny.TOML + "\n[profiles.small]\nmodel = { encoder = { blocks = 2, channels = 4 } }\n"
    (folder / "tiny.toml").write_text(text)
    few = ["--quiet", "--set", "train.epochs=1", "--set", "evaluate.0.scales=[2]"]
    own = invoke("tiny.toml", "--out", "own", *few)
    assert "tiny: 4 images" in own.output and "| tiny |" in own.output
    assert re.search(r"^# tiny, trained \d+ (s|min) on 4 images$", own.output, re.MULTILINE)
    other = invoke("tiny.toml", "--profile", "small", "--out", "other", *few)
    assert (
        other.exit_code == 0 and "EDSR 2x4, MLP 16: 4 images" in other.output and "| EDSR 2x4, MLP 16 |" in other.output
    )
    report = json.loads((folder / "other" / "report.json").read_text())
    assert (report["name"], report["experiment"], report["profile"]) == ("EDSR 2x4, MLP 16", "tiny", "small")
    assert (
        report["composition"].startswith("encoder EDSR 2x4; features unfold 3x3") and "4 images" in report["training"]
    )
    assert "# EDSR 2x4, MLP 16, trained" in (folder / "other" / "report.md").read_text()
    best = folder / "other" / "checkpoints" / "best.safetensors"
    measured = invoke("evaluate", best, "--hr", "images", "--scale", "2", command=liif)
    assert "| EDSR 2x4, MLP 16 |" in measured.output


def test_an_absent_evaluation_set_is_skipped_and_named(folder):
    extra = (
        '\n[[evaluate]]\nname = "Urban100"\nimages = { source = "benchmark", path = "data/Urban100" }\nscales = [2]\n'
    )
    (folder / "tiny.toml").write_text(tiny.TOML + extra)
    result = invoke("tiny.toml", "--out", "out", "--quiet", "--set", "train.epochs=1")
    assert result.exit_code == 0, result.output
    assert "Urban100" in (folder / "out" / "report.md").read_text()
    assert [entry["dataset"] for entry in json.loads((folder / "out" / "report.json").read_text())["skipped"]] == [
        "Urban100"
    ]


def test_check_builds_everything_and_leaves_nothing(folder):
    before = sorted(folder.rglob("*"))
    result = invoke("tiny.toml", "--check", "--set", "data.images.path=nowhere")
    assert result.exit_code == 0, result.output
    assert tomllib.loads(result.output.partition("parameters:")[0])["model"]["encoder"]["channels"] == 8
    # 4 corners of the layers after the first, and of the first layer's four columns of conditions; then the last layer
    assert f"{4 * 4 * 16 + 16 * 3:,} per output pixel" in result.output
    encoder = 9 * (3 * 8 + 2 * 8 * 8 + 8 * 8)
    assert f"multiply-adds: {encoder + 72 * 16:,} per LR pixel" in result.output
    assert sorted(folder.rglob("*")) == before


@pytest.fixture
def checkpoint(folder):
    assert (
        invoke("tiny.toml", "--out", "out", "--quiet", "--set", "train.epochs=1", "--set", "evaluate=[]").exit_code == 0
    )
    return folder / "out" / "checkpoints" / "best.safetensors"


def test_evaluate(folder, checkpoint):
    result = invoke(
        "evaluate",
        checkpoint,
        "--hr",
        "images",
        "--scale",
        "2",
        "--scale",
        "2.5",
        "--scale",
        "2,3",
        "--json",
        "e.json",
        command=liif,
    )
    assert result.exit_code == 0, result.output
    results = json.loads((folder / "e.json").read_text())["results"]
    assert [entry["scale"] for entry in results] == [2, 2.5, [2, 3]]
    assert all(len(entry["images"]) == len(entry["bicubic"]["images"]) == 4 for entry in results)

    (folder / "low").mkdir()
    from PIL import Image

    for path in sorted((folder / "images").iterdir()):
        picture = Image.open(path)
        picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BICUBIC).save(
            folder / "low" / path.name
        )
    given = invoke(
        "evaluate", checkpoint, "--hr", "images", "--lr", "low", "--scale", "2", "--json", "g.json", command=liif
    )
    assert given.exit_code == 0, given.output
    made = json.loads((folder / "g.json").read_text())["results"][0]
    assert made["psnr"] == pytest.approx(results[0]["psnr"])


def test_an_interrupted_evaluate_writes_the_scales_that_are_done(folder, checkpoint, monkeypatch):
    from liif_core.cli import evaluate

    measure, calls = evaluate.evaluate_set, []

    def stopped_later(*arguments, **options):
        calls.append(arguments[3])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(*arguments, **options)

    monkeypatch.setattr(evaluate, "evaluate_set", stopped_later)
    result = invoke(
        "evaluate", checkpoint, "--hr", "images", "--scale", "2", "--scale", "3", "--json", "e.json", command=liif
    )
    assert result.exit_code == 130
    found = json.loads((folder / "e.json").read_text())
    assert [entry["scale"] for entry in found["results"]] == [2] and found["interrupted"] is True


def test_mistakes_of_evaluate_are_reported_together(folder, checkpoint):
    result = invoke(
        "evaluate", checkpoint, "--hr", "images", "--lr", "images", "--scale", "2", "--scale", "two",
        "--protocol", "bench", "--precision", "half", command=liif,
    )  # fmt: skip
    assert result.exit_code == 2
    assert [line.split(":")[1].split()[0] for line in result.output.strip().splitlines()] == [
        "--scale",
        "--lr",
        "--protocol",
        "--precision",
    ]
    wrong = invoke("evaluate", "images/picture-0.png", "--hr", "images", "--scale", "2", command=liif)
    assert wrong.exit_code == 2 and "picture-0.png" in wrong.output


def test_import(folder, shared):
    published = shared / "golden" / "liif.pth"
    result = invoke("import", published, "ours.safetensors", command=liif)
    assert result.exit_code == 0, result.output
    image = torch.rand(1, 3, 6, 7)
    ours, theirs = (liif_core.load(path).encode(image).render((13, 20)) for path in ("ours.safetensors", published))
    assert torch.equal(ours, theirs)
    before = (folder / "ours.safetensors").read_bytes()
    refused = invoke("import", published, "ours.safetensors", command=liif)
    assert refused.exit_code == 2 and "--overwrite" in refused.output
    unknown = torch.load(published, weights_only=True)
    unknown["model"]["name"] = "siren"
    torch.save(unknown, "unknown.pth")
    missing = invoke("import", "unknown.pth", "other.safetensors", command=liif)
    assert missing.exit_code == 2 and "no installed plugin imports the model 'siren'" in missing.output
    assert (folder / "ours.safetensors").read_bytes() == before and not (folder / "other.safetensors").exists()


def test_plugins_and_doctor():
    listed = json.loads(invoke("plugins", "--json", command=liif).output)
    mine = {(c["kind"], c["name"]) for c in listed["components"] if c["distribution"] == "liif-core"}
    assert mine == {
        ("encoder", "edsr"), ("encoder", "rcan"), ("encoder", "rep"), ("encoder", "swinir"), ("features", "unfold"),
        ("features", "identity"), ("sampling", "nearest"), ("sampling", "local-ensemble"), ("sampling", "corner"),
        ("conditioning", "coordinate"), ("conditioning", "cell"), ("decoder", "mlp"), ("decoder", "metasr"),
        ("decoder", "lte"), ("decoder", "srno"), ("decoder", "lm-liif"), ("decoder", "lm-lte"),
        ("decoder", "opesr"), ("features", "projection"), ("decoder", "linf"), ("model", "linf-patch"),
        ("decoder", "hiif"), ("conditioning", "hierarchy"), ("decoder", "thera"), ("features", "convnext"),
        ("features", "swin"), ("sampling", "ciaosr"), ("decoder", "ciaosr"), ("sampling", "window"),
        ("decoder", "clit"), ("model", "clit-cascade"), ("model", "gsasr"), ("decoder", "igconv"),
        ("decoder", "subpixel"), ("decoder", "basis"), ("degradation", "bicubic"), ("degradation", "photo"),
    }  # fmt: skip
    options = next(c["options"] for c in listed["components"] if c["name"] == "edsr")
    assert [(o["name"], o["default"]) for o in options] == [("blocks", 16), ("channels", 64), ("residual_scale", 1.0)]
    assert all(option["help"].endswith(".") for option in options)
    assert listed["broken"] == []
    assert "local-ensemble" in invoke("plugins", command=liif).output
    doctor = invoke("doctor", command=liif).output
    assert torch.__version__ in doctor and "data/DIV2K" in doctor and "edsr" in doctor


def test_help_does_not_import_torch():
    code = "import sys\nfrom liif_core.cli import liif\ntry:\n liif(['--help'])\nexcept SystemExit:\n pass\n"
    code += "assert 'torch' not in sys.modules"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(name in shown.stdout for name in ("run", "evaluate", "import", "plugins", "doctor"))
