"""Experiment files: strict, and every problem at once."""

import itertools
import json
import tomllib
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from small_experiment import HUGE, SMALL, written

from liif_core import Scale, UserError, build_model, load_experiment
from liif_core.experiment.schema import (
    BenchmarkSource,
    Div2kSource,
    FolderSource,
    MultiStep,
    SkimageSource,
)
from liif_core.experiment.toml_file import (
    model_from_table,
    read_experiment_file,
    resolve,
    resolved_toml,
    to_builtin,
)

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


# Reading


def test_a_file_becomes_objects(registry, small, tmp_path):
    found = load_experiment(small, registry)
    assert (found.name, found.profile, found.note) == ("small", "", "")
    assert [c.use for c in found.model.conditioning] == ["coordinate", "cell"]
    assert found.model.encoder.options.blocks == 2 and found.model.decoder.options.hidden == (16,)
    assert found.data.images == Div2kSource(tmp_path / "div2k", "train")
    assert (found.data.patch, found.data.scale, found.data.augment) == (12, (1.0, 4.0), True)
    assert found.train.schedule == MultiStep((5, 8)) and found.train.optimizer.lr == 1e-4
    assert found.validate.images == SkimageSource(("coffee",))
    assert found.evaluate[0].images == FolderSource(tmp_path / "one")
    assert found.evaluate[0].scales == (Scale(2.0, 2.0), Scale(2.0, 3.5))
    assert found.evaluate[1].images == BenchmarkSource(tmp_path.parent / "two")
    assert found.run.device == "auto"


def test_a_file_without_a_name_is_named_after_itself(registry, tmp_path):
    path = tmp_path / "my model.toml"
    path.write_text(SMALL.replace('name = "small"', "", 1))
    assert load_experiment(path, registry).name == "my model"


def test_line_ends_do_not_matter(registry, tmp_path, small):
    other = tmp_path / "small2.toml"
    other.write_bytes(SMALL.replace("\n", "\r\n").encode())
    assert load_experiment(other, registry) == load_experiment(small, registry)


def test_whole_numbers_may_stand_for_floats(registry, small):
    found = load_experiment(
        small, registry, overrides=["train.optimizer.lr=1", "data.memory_gb=2", "data.scale=[1, 3]"]
    )
    assert found.train.optimizer.lr == 1.0 and isinstance(found.train.optimizer.lr, float)
    assert found.data.scale == (1.0, 3.0) and isinstance(found.data.scale[0], float)


# Six mistakes, one message


def test_six_mistakes_are_six_lines(problems):
    text = SMALL.replace('name = "small"', 'nmae = "small"', 1)  # an unknown key with a near name
    text = text.replace("epochs = 10", 'epochs = "10"', 1)  # a wrong type
    text = text.replace("local-ensemble", "local_ensemble", 1)  # an unknown component
    text = text.replace("lr = 1e-4", "lr = -1e-4", 1)  # out of range
    text = text.replace("channels = 8", "chanels = 8", 1)  # an unknown option of a plugin
    start, end = text.index("[data]"), text.index("[train]")
    text = text[:start] + text[end:]  # a missing table
    found = {line.split(": ")[0]: line for line in problems(text)}
    assert len(problems(text)) == 6
    assert found["nmae"] == "nmae: unknown key (did you mean 'name'?)"
    assert found["train.epochs"] == "train.epochs: expected a whole number, got '10' (a string)"
    assert found["model.sampling.use"].startswith(
        "model.sampling.use: no sampling is named 'local_ensemble' (did you mean 'local-ensemble'?); installed: "
    )
    assert found["train.optimizer.lr"] == "train.optimizer.lr: must be > 0: -0.0001"
    assert found["model.encoder.chanels"] == "model.encoder.chanels: unknown key (did you mean 'channels'?)"
    assert found["data"] == "data: required, but missing"


def test_problems_name_the_file(registry, small):
    with pytest.raises(UserError) as refused:
        load_experiment(small, registry, overrides=["nmae=1"])
    assert refused.value.problems == (f"{small}: nmae: unknown key (did you mean 'name'?)",)


WRONG = [
    ("train.epochs=4.7", "train.epochs: expected a whole number, got 4.7 (a number)"),
    ("train.epochs=4.0", "train.epochs: expected a whole number, got 4.0 (a number)"),
    ("train.epochs=true", "train.epochs: expected a whole number, got true (a boolean)"),
    ("train.epochs=-1", "train.epochs: must be >= 1"),
    ("data.augment='false'", "data.augment: expected true or false, got 'false' (a string)"),
    ("data.augment=0", "data.augment: expected true or false, got 0 (a whole number)"),
    ("train.optimizer.lr='1'", "train.optimizer.lr: expected a number, got '1' (a string)"),
    ("train.optimizer.lr=nan", "train.optimizer.lr: expected a finite number, got nan"),
    ("train.optimizer.lr=inf", "train.optimizer.lr: expected a finite number, got inf"),
    ("train.optimizer.lr=9007199254740993", "train.optimizer.lr: expected a number"),
    ("data.scale=[1, -inf]", "data.scale[1]: expected a finite number, got -inf"),
    ("data.scale=[1, 2, 3]", "data.scale: expected 2 values, got 3"),
    ("data.scale=[4, 1]", "data.scale: expected 1 <= low <= high, got [4.0, 1.0]"),
    ("data.scale=4", "data.scale: expected an array, got 4 (a whole number)"),
    ("data.queries=145", "data.queries: 145 are more than the pixels of the smallest crop, 12 x 12"),
    ("data={repeat_queries=true, queries=10000000}", "more than the pixels of the largest crop"),
    ("train.accumulate=3", "train.accumulate: batch_size (16) must be a multiple of it, got 3"),
    ("train.betas=[0.9]", "unknown key"),
    ("train.optimizer.use='sgd'", "train.optimizer.use: expected one of 'adam', 'adamw', 'muon', got 'sgd'"),
    ("train.optimizer.use='adam2'", "(did you mean 'adam'?)"),
    (
        "train.schedule.use='cosin'",
        "train.schedule.use: expected one of multi-step, cosine, constant, got 'cosin' (did you mean 'cosine'?)",
    ),
    ("train.schedule.use=3", "train.schedule.use: expected a string, got 3 (a whole number)"),
    ("train.schedule=3", "train.schedule: expected a table with 'use', got 3 (a whole number)"),
    ("train=3", "train: expected a table, got 3 (a whole number)"),
    (
        "run.precision='bf17'",
        "run.precision: expected one of 'float32', 'bf16', 'fp16', got 'bf17' (a string) (did you mean 'bf16'?)",
    ),
    ("run.precision=['bf16']", "run.precision: expected one of 'float32', 'bf16', 'fp16', got an array"),
    ("run.device=1979-05-27T07:32:00Z", "run.device: expected a string, got 1979-05-27 07:32:00+00:00 (datetime)"),
    ("run.device=1979-05-27", "run.device: expected a string, got 1979-05-27 (date)"),
    ("train.seed=07:32:00", "train.seed: expected a whole number, got 07:32:00 (time)"),
    ("validate.scale=0", "validate.scale: expected a positive number or a pair of them"),
    ("validate.scale=[2, 3, 4]", "validate.scale: expected a positive number or a pair of them"),
    ("validate.scale='4'", "validate.scale: expected a number or a pair of them, got '4' (a string)"),
    ("validate.scale=nan", "validate.scale: expected a positive number"),
    ("validate.scale=true", "validate.scale: expected a positive number"),
    ("validate.protocol='psnr'", "validate.protocol: must be in"),
    ("evaluate.0.scales=[]", "evaluate[0].scales: "),
    (
        "evaluate.1.scales=[2, 'x', -1]",
        "evaluate[1].scales[1]: expected a number or a pair of them, got 'x' (a string)",
    ),
    ("evaluate.0.images.source='foldr'", "evaluate[0].images.source: expected one of folder, paired-folders"),
    ("evaluate.0.images.path=3", "evaluate[0].images.path: expected a path (a string), got 3 (a whole number)"),
    ("evaluate.0.images.limit=0", "evaluate[0].images.limit: must be >= 1"),
    ('evaluate.0.images.path="a\\u0000b"', "evaluate[0].images.path: must not contain a NUL character"),
    ("evaluate.0.images.glob='*'", "evaluate[0].images.glob: unknown key; expected one of: path, limit"),
    ("evaluate=3", "evaluate: expected an array, got 3 (a whole number)"),
    ("evaluate=[3]", "evaluate[0]: expected a table, got 3 (a whole number)"),
    (
        "model.residual='linear'",
        "model.residual: expected one of 'none', 'bilinear', 'nearest', got 'linear' (a string)",
    ),
    ("model.channels=0", "model.channels: must be >= 1"),
    ("model.encoder=[]", "model.encoder: expected a table with 'use', got an array"),
    ("model.decoder.hidden=[8, 0]", "model.decoder.hidden: must be >= 1"),
    ("model.decoder.hidden=[8, 'x']", "model.decoder.hidden[1]: expected a whole number, got 'x' (a string)"),
    ("model.features.size=4", "model.features.size: must be in"),
    ("model.conditioning.0.use='cell'", "model.conditioning: 'cell' is listed twice"),
    (
        "model.conditioning.1.use='celll'",
        "model.conditioning[1].use: no conditioning is named 'celll' (did you mean 'cell'?)",
    ),
    ("model.conditioning=[3]", "model.conditioning[0]: expected a table with 'use', got 3 (a whole number)"),
    (
        "model.conditioning='cell'",
        "model.conditioning: expected an array of tables, [[model.conditioning]], got 'cell' (a string)",
    ),
    ("extends='x.toml'", "extends: unknown key"),
    ("description='x'", "description: unknown key"),
]


@pytest.mark.parametrize("override, expected", WRONG, ids=[override for override, _ in WRONG])
def test_wrong_values(overridden, override, expected):
    assert any(expected in line for line in overridden(override))


def test_all_wrong_values_are_told_at_once(overridden):
    chosen = ["train.epochs=4.7", "data.augment=0", "run.precision='bf17'", "validate.scale=0", "model.features.size=4"]
    lines = overridden(*chosen)
    assert len(lines) == len(chosen)
    for override, line in itertools.product(chosen, lines):
        if line.split(":")[0] == override.split("=")[0]:
            assert dict(WRONG)[override] in line


@pytest.mark.parametrize(
    "key", ["model", "data", "train", "model.encoder", "model.decoder", "data.images", "train.epochs"]
)
def test_what_is_missing_is_named(problems, key):
    data = tomllib.loads(SMALL)
    *parents, last = key.split(".")
    table = data
    for parent in parents:
        table = table[parent]
    del table[last]
    assert problems(written(data)) == [f"{key}: required, but missing"]


@pytest.mark.parametrize("key", ["use", "source"])
def test_a_missing_tag_is_named(problems, key):
    text = SMALL.replace('use = "edsr", ', "", 1) if key == "use" else SMALL.replace('source = "folder", ', "", 1)
    where = "model.encoder.use" if key == "use" else "evaluate[0].images.source"
    assert problems(text) == [f"{where}: required, but missing"]


def test_one_problem_is_one_line(problems):
    """Keys may hold anything, line ends too; the message must not come apart."""
    lines = problems(SMALL + '\n["a\\nb"]\n"c\\u001b[31m" = 1\n')
    assert len(lines) == 1 and "\n" not in lines[0] and "\x1b" not in lines[0]


# What is no experiment at all


@pytest.mark.parametrize(
    "content, part",
    [
        (b"name = ", "not valid TOML"),
        (b"a = 1\na = 2", "not valid TOML"),
        (b"\xff\xfe\x00", "it is UTF-16 text; save it as UTF-8"),
        (b"\xff\xfa\x00", "not UTF-8 text"),
        (b"\0", "it has NUL characters"),
        (b"name = 1979-99-99", "not valid TOML"),
        (b"x = " + b"1" * 5000, "not valid TOML"),
        (b"x = " + b"[" * 3000 + b"]" * 3000, "not valid TOML"),
        (b"x = " + b"{a = " * 3000 + b"1" + b"}" * 3000, "not valid TOML"),
        (b"a" + b".a" * 5000 + b" = 1", "not valid TOML"),
        (b"[a" + b".a" * 5000 + b"]", "not valid TOML"),
        (b"", "model: required, but missing"),
        (b"# only a comment", "model: required, but missing"),
    ],
)
def test_not_a_file_to_read(problems, content, part):
    assert part in "\n".join(problems(content))


@pytest.mark.parametrize(
    "key", ["name", "fallback", "extends", "profiles", "profiles.x", "train.epochs", "train", "validate.scale"]
)
@pytest.mark.parametrize(
    "value", [HUGE, f"[{HUGE}]", "[]", "{}", "1979-05-27", "nan", '"\\u0000"', "true", "-1"], ids=lambda v: v[:8]
)
def test_odd_values_at_odd_places(problems, key, value):
    """A hexadecimal number of 5,000 digits is legal TOML, and Python refuses to print it."""
    data = "\n".join(line for line in SMALL.splitlines() if not line.startswith(("name", "fallback")))
    if key == "train.epochs":
        data = data.replace("epochs = 10", "", 1)
    if key == "train":
        data = data[: data.index("[train]")] + data[data.index("[validate]") :]
    if key.startswith("profiles"):
        data = data[: data.index("[profiles.quick]")]
    text = f"{key} = {value}\n{data}" if key not in ("train.epochs", "validate.scale") else with_value(data, key, value)
    with suppress(pytest.fail.Exception):  # an empty array or table may be no mistake; nothing else may be raised
        problems(text)


def with_value(text, key, value):
    table, name = key.split(".")
    return text.replace(f"[{table}]\n", f"[{table}]\n{name} = {value}\n", 1)


@pytest.mark.parametrize("depth", range(300, 1001, 100))
def test_deep_nesting(problems, depth):
    """Whatever depth the reader still manages, the rest must too."""
    for text in ("model" + ".a" * depth, "profiles.p" + ".a" * depth, "evaluate"):
        deep = text + " = " + ("[" * depth + "]" * depth if text == "evaluate" else "1")
        problems(deep)


def test_files_that_cannot_be_read(registry, tmp_path):
    for path in (tmp_path / "none.toml", tmp_path, tmp_path / "none" / "x.toml", Path("a\0b"), tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match="cannot be read"):
            load_experiment(path, registry)


# A model's table


def test_model_from_table(registry, small):
    spec = load_experiment(small, registry).model
    table = to_builtin(spec)
    assert model_from_table(table, registry, "x") == spec
    before = json.dumps(table)
    with pytest.raises(UserError) as refused:
        model_from_table(table | {"encoder": {"use": "edsr", "block": 1}, "residual": 3}, registry, "here.safetensors")
    assert [line.split(": ")[:2] for line in refused.value.problems] == [
        ["here.safetensors", "model.encoder.block"],
        ["here.safetensors", "model.residual"],
    ]
    assert json.dumps(table) == before


@pytest.mark.parametrize("use", ["liif-core:edsr", "edsr"])
def test_a_component_may_be_named_with_its_distribution(registry, small, use):
    choice = load_experiment(small, registry, overrides=[f"model.encoder.use='{use}'"]).model.encoder
    assert choice.component.name == "edsr" and to_builtin(choice)["use"] == use


# The files that come with it


def cases():
    for path in sorted(EXPERIMENTS.glob("**/*.toml")):
        file = read_experiment_file(path)
        yield from (pytest.param(path, profile, id=f"{path.stem}-{profile}") for profile in (None, *file.profiles))


@pytest.mark.parametrize("path, profile", list(cases()))
def test_experiments(registry, tmp_path, path, profile):
    """Each loads with each of its profiles, its resolved copy reads back, and its model builds."""
    file = read_experiment_file(path)
    try:
        resolved = resolve(file, registry, profile)
    except UserError as error:
        if all("is named" in line and "installed:" in line for line in error.problems):
            pytest.skip(f"needs a plugin that is not installed: {error.problems[0]}")
        raise
    copy = tmp_path / "copy.toml"
    copy.write_text(resolved_toml(resolved))
    assert load_experiment(copy, registry) == resolved.experiment
    with torch.device("meta"):
        model = build_model(resolved.experiment.model)
    assert sum(p.numel() for p in model.parameters()) > 1000


def test_the_paper_s_experiment(registry):
    """Section 4 and the supplementary of the LIIF paper, and the published model's 1.57 million parameters."""
    found = load_experiment(EXPERIMENTS / "edsr_liif.toml", registry)
    data, train = found.data, found.train
    assert (data.scale, data.patch, data.queries, data.repeat) == ((1.0, 4.0), 48, 2304, 20)
    assert (train.epochs, train.batch_size, train.optimizer.use, train.optimizer.lr) == (1000, 16, "adam", 1e-4)
    assert train.schedule == MultiStep((200, 400, 600, 800), 0.5)
    scales = {e.name: [s.to_builtin for s in e.scales] for e in found.evaluate}
    assert scales["DIV2K"] == [2, 3, 4, 6, 12, 18, 24, 30]
    assert all(scales[name] == [2, 3, 4, 6, 8] for name in ("Set5", "Set14", "B100", "Urban100"))
    with torch.device("meta"):
        model = build_model(found.model)
    encoder = (9 * 3 + 1) * 64 + 33 * (9 * 64 + 1) * 64
    decoder = (580 + 1) * 256 + 3 * 257 * 256 + 257 * 3
    assert sum(p.numel() for p in model.parameters()) == encoder + decoder
