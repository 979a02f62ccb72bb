"""What an experiment file is made of: the file it extends, profiles and overrides, and where each value came from."""

import attrs
import pytest
from small_experiment import SMALL

from liif_core import Scale, UserError, load_experiment
from liif_core.experiment.schema import Constant, Cosine, MultiStep, SkimageSource
from liif_core.experiment.toml_file import (
    read_experiment_file,
    resolve,
    resolved_toml,
    to_builtin,
)

# extends


def test_extends(registry, tmp_path, small):
    child = tmp_path / "below" / "child.toml"
    child.parent.mkdir()
    child.write_text(
        'extends = "../small.toml"\nname = "child"\n[data]\nscale = [2, 2]\npatch = 13\n'
        '[[evaluate]]\nname = "mine"\nimages = { source = "folder", path = "mine" }\nscales = [3]\n'
    )
    found, base = load_experiment(child, registry), load_experiment(small, registry)
    assert (found.name, found.data.scale, found.data.patch) == ("child", (2.0, 2.0), 13)
    assert found.data.images == base.data.images  # paths start from the file they are in
    assert [e.images.path for e in found.evaluate] == [tmp_path / "below" / "mine"]
    assert (found.model, found.train, found.validate) == (base.model, base.train, base.validate)


def test_extends_brings_profiles_and_fallback(registry, tmp_path, small):
    child = tmp_path / "child.toml"
    child.write_text('extends = "small.toml"\n[profiles.quick.train]\nepochs = 2\n[profiles.mine]\nnote = "n"\n')
    file = read_experiment_file(child)
    assert file.fallback == "quick" and set(file.profiles) == {"quick", "slower", "mine"}
    found = load_experiment(child, registry, "quick")
    assert found.train.epochs == 2 and found.model.decoder.options.hidden == (4,)
    child.write_text('extends = "small.toml"\nfallback = "slower"\n')
    assert read_experiment_file(child).fallback == "slower"


def test_extends_one_level(registry, tmp_path, small):
    (tmp_path / "b.toml").write_text('extends = "small.toml"')
    (tmp_path / "c.toml").write_text('extends = "b.toml"')
    (tmp_path / "loop.toml").write_text('extends = "loop.toml"')
    load_experiment(tmp_path / "b.toml", registry)
    for name, other in (("c", "b"), ("loop", "loop")):
        with pytest.raises(
            UserError, match=f"{name}.toml: extends: {other}.toml extends another file itself; one level"
        ):
            load_experiment(tmp_path / f"{name}.toml", registry)


@pytest.mark.parametrize(
    "value, part",
    [
        ('"gone.toml"', "gone.toml: cannot be read: No such file"),
        ('""', "cannot be read"),
        ('"."', "cannot be read"),
        ('"bad.toml"', "bad.toml: not valid TOML"),
        ("3", "extends: expected the path of a TOML file, got 3 (a whole number)"),
        ('["small.toml"]', "extends: expected the path of a TOML file, got an array"),
        ('"a\\u0000"', "cannot be read"),
    ],
)
def test_extends_of_what_is_not_there(registry, tmp_path, small, value, part):
    (tmp_path / "bad.toml").write_text("x =")
    (tmp_path / "child.toml").write_text(f"extends = {value}")
    with pytest.raises(UserError) as refused:
        load_experiment(tmp_path / "child.toml", registry)
    assert part in str(refused.value)


# Profiles


def test_a_profile(registry, small, tmp_path):
    found = load_experiment(small, registry, "quick")
    assert (found.profile, found.note, found.name) == ("quick", "Only a try.", "small")
    assert found.model.decoder.options.hidden == (4,)  # arrays replace
    assert found.model.encoder.options.blocks == 2  # tables merge
    assert found.train.epochs == 1 and found.train.optimizer.lr == 1e-4
    assert found.train.schedule == Cosine()  # another 'use': the milestones belonged to the old one
    assert found.data.images == SkimageSource(("astronaut",))  # another 'source': so did path and split
    assert found.data.patch == 12
    assert [e.name for e in found.evaluate] == ["quick"]
    assert found.validate == load_experiment(small, registry).validate


def test_the_same_tag_merges(registry, small):
    text = SMALL + '\n[profiles.more]\ntrain = { schedule = { use = "multi-step", gamma = 0.1 } }\n'
    small.write_text(text)
    assert load_experiment(small, registry, "more").train.schedule == MultiStep((5, 8), 0.1)


def test_only_the_profile_asked_for_is_applied(registry, small):
    found = load_experiment(small, registry, "slower")
    assert (found.train.epochs, found.train.optimizer.lr) == (20, 1e-5)
    assert found.model == load_experiment(small, registry).model and found.note == ""


def test_an_unknown_profile(registry, small):
    with pytest.raises(
        UserError, match=r"no profile is named 'quik' \(did you mean 'quick'\?\); declared: quick, slower"
    ):
        load_experiment(small, registry, "quik")
    small.write_text(SMALL[: SMALL.index("[profiles.quick]")].replace('fallback = "quick"', ""))
    with pytest.raises(UserError, match="no profile is named 'quick'; declared: none"):
        load_experiment(small, registry, "quick")


@pytest.mark.parametrize("value", ['"quik"', "3", "[]", "{}", '["quick"]', "true"])
def test_a_fallback_that_is_no_profile(problems, value):
    (line,) = problems(SMALL.replace('fallback = "quick"', f"fallback = {value}"))
    assert line.startswith("fallback: no profile is named") or line.startswith("fallback: expected a string")
    assert "quick, slower" in line or "expected a string" in line


@pytest.mark.parametrize(
    "text", ["profiles = 3", "profiles = []", 'profiles = "x"', "[profiles]\nx = 3", "[[profiles.x]]"]
)
def test_profiles_that_are_no_tables(problems, text):
    (line,) = problems(text)
    assert line.startswith("profiles") and "expected a table of overrides" in line


def test_a_wrong_value_in_a_profile(registry, small):
    small.write_text(SMALL.replace("epochs = 1\n", "epoch = 1\n"))
    load_experiment(small, registry)
    with pytest.raises(UserError, match=r"train.epoch: unknown key \(did you mean 'epochs'\?\)"):
        load_experiment(small, registry, "quick")


# Overrides


@pytest.mark.parametrize(
    "override, get, expected",
    [
        ("model.decoder.hidden=[64,64]", lambda e: e.model.decoder.options.hidden, (64, 64)),
        ("model.decoder.hidden = [ 1 ]", lambda e: e.model.decoder.options.hidden, (1,)),
        ("model.decoder.hidden=[]", lambda e: e.model.decoder.options.hidden, ()),
        ("run.device=cuda:1", lambda e: e.run.device, "cuda:1"),
        ('run.device="cpu"', lambda e: e.run.device, "cpu"),
        ("run.deterministic=false", lambda e: e.run.deterministic, False),
        ("name=a=b", lambda e: e.name, "a=b"),
        ("name=", lambda e: e.name, ""),
        ("train.clip=0.5", lambda e: e.train.clip, 0.5),
        ("train.schedule.use=constant", lambda e: e.train.schedule, Constant()),
        ("train.schedule={use='cosine', final=0.5}", lambda e: e.train.schedule, Cosine(0.5)),
        ("train.schedule.gamma=0.25", lambda e: e.train.schedule, MultiStep((5, 8), 0.25)),
        ("evaluate.1.scales=[2,[2,3]]", lambda e: e.evaluate[1].scales, (Scale(2.0, 2.0), Scale(2.0, 3.0))),
        ("evaluate.0.images.limit=3", lambda e: e.evaluate[0].images.limit, 3),
        ("evaluate.0={name='new'}", lambda e: (e.evaluate[0].name, len(e.evaluate[0].scales)), ("new", 2)),
        ("evaluate.0.images={source='skimage', names=['a']}", lambda e: e.evaluate[0].images, SkimageSource(("a",))),
        ("evaluate=[]", lambda e: e.evaluate, ()),
        ("validate.images.names.0=rocket", lambda e: e.validate.images.names, ("rocket",)),
    ],
)
def test_overrides(registry, small, override, get, expected):
    assert get(load_experiment(small, registry, overrides=[override])) == expected


def test_an_override_leaves_the_rest_alone(registry, small):
    before, after = load_experiment(small, registry), load_experiment(small, registry, overrides=["evaluate.0.name=x"])
    assert attrs.evolve(after, evaluate=before.evaluate) == before
    assert after.evaluate[1] == before.evaluate[1]
    assert attrs.evolve(after.evaluate[0], name="one") == before.evaluate[0]


def test_overrides_come_after_the_profile_and_in_order(registry, small):
    found = load_experiment(small, registry, "quick", ["train.epochs=7", "evaluate.0.name=x", "train.epochs=9"])
    assert found.train.epochs == 9 and found.evaluate[0].name == "x" and found.evaluate[0].images.names == ("chelsea",)


def test_a_path_in_an_override_starts_from_here(registry, small, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    found = load_experiment(
        small, registry, overrides=["evaluate.0.images.path=mine", f"data.images.path={tmp_path / 'abs'}"]
    )
    assert found.evaluate[0].images.path == here / "mine" and found.data.images.path == tmp_path / "abs"


@pytest.mark.parametrize("override", ["", "=", "=3", "train", "train.=3", ".train=3", "train..epochs=3", " =3"])
def test_overrides_without_key_or_value(overridden, override):
    (line,) = overridden(override)
    assert line.startswith(f"--set {override}: expected KEY=VALUE")


@pytest.mark.parametrize("step", ["2", "-1", "x", "²", "९", "0x0", "1_0", " 0"])
def test_overrides_of_no_element(overridden, step):
    """Digits of other scripts are digits to Python, and no array index to anyone."""
    (line,) = overridden(f"evaluate.{step}.name=x")
    assert "expected a number from 0 to 1: this is an array" in line


@pytest.mark.parametrize(
    "value",
    [
        "1" * 5000,
        "[" * 5000,
        "{a=" * 3000,
        "3\nfoo = 4",
        '"""\n',
        "\0",
        "\x1b",
        "nan",
        "1979-05-27",
        "[1, [2, {a = 3}]]",
        "\ud800",
    ],
    ids=lambda v: repr(v[:8]),
)
def test_overrides_of_odd_values(overridden, value):
    (line,) = overridden(f"train.epochs={value}")
    assert "train.epochs" in line


@pytest.mark.parametrize("key", ["a" + ".a" * 3000, "model" + ".a" * 900, "evaluate" + ".0" * 3000], ids=len)
def test_overrides_of_deep_keys(overridden, key):
    assert overridden(f"{key}=1")


def test_an_array_cannot_be_extended_or_emptied_by_number(overridden):
    assert "this is an array" in overridden("model.conditioning.5.use=cell")[0]
    assert "this is an array" in overridden("evaluate=[]", "evaluate.0.name=x")[0]


# Where values came from


def test_origins(registry, tmp_path, small):
    child = tmp_path / "child.toml"
    child.write_text('extends = "small.toml"\n[data]\nscale = [2, 2]\n[profiles.quick.train]\nepochs = 3\n')
    origins = resolve(
        read_experiment_file(child), registry, "quick", ["train.batch_size=4", "evaluate.0.name=x"]
    ).origins
    expected = {
        "name": "small.toml",
        "data.patch": "small.toml",
        "data.scale": "child.toml",
        "model.encoder.use": "small.toml",
        "model.decoder.use": "small.toml",
        "model.decoder.hidden": "profile quick",
        "data.images.source": "profile quick",
        "data.images.names": "profile quick",
        "train.epochs": "profile quick",
        "train.batch_size": "--set train.batch_size",
        "train.optimizer.lr": "small.toml",
        "train.schedule.use": "profile quick",
        "note": "profile quick",
        "evaluate": "--set evaluate.0.name",
    }
    assert {key: origins.get(key) for key in expected} == expected
    for gone in (
        "data.images.split",
        "data.images.path",
        "train.schedule.milestones",
        "extends",
        "fallback",
        "description",
    ):
        assert gone not in origins
    assert not [key for key in origins if key.startswith("profiles")]


def test_every_origin_is_of_a_value_that_is_there(registry, small):
    resolved = resolve(read_experiment_file(small), registry, "quick", ["run.device=cpu"])
    data = to_builtin(resolved.experiment)
    for key in resolved.origins:
        value = data
        for step in key.split("."):
            value = value[step]


def test_the_resolved_copy_says_where_each_came_from(registry, tmp_path, small):
    child = tmp_path / "child.toml"
    child.write_text('extends = "small.toml"\n[data]\nscale = [2, 2]\n')
    text = resolved_toml(resolve(read_experiment_file(child), registry, "quick", ["train.batch_size=4"]))
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert "# from child.toml: data.scale" in comments and "# from --set train.batch_size: train.batch_size" in comments
    assert any(line.startswith("# from profile quick: ") and "train.epochs" in line for line in comments)
    assert any(line.startswith("# from small.toml: ") and "data.patch" in line for line in comments)
