"""Experiments as TOML: the resolved copy reads back the same, and whatever is in a file is read or refused."""

import json
import math
import os
import random
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from small_experiment import HUGE, SMALL, inline, quoted, written

from liif_core import UserError, load_experiment
from liif_core.experiment.toml_file import (
    read_experiment_file,
    resolve,
    resolved_toml,
    to_builtin,
    to_toml,
)

# Writing


@pytest.mark.parametrize("profile", [None, "quick", "slower"])
def test_the_resolved_copy_reads_back_equal(registry, small, tmp_path, profile, monkeypatch):
    overrides = [
        "evaluate.0.scales=[2,[2,3.5],[0.5,1e-3]]",
        "train.clip=1e22",
        "run.device='cuda:1'",
        "train.ema=0.999",
    ]
    resolved = resolve(read_experiment_file(small), registry, profile, overrides)
    copy = tmp_path / "elsewhere" / "copy.toml"
    copy.parent.mkdir()
    copy.write_text(resolved_toml(resolved), encoding="utf-8")
    monkeypatch.chdir("/")
    assert load_experiment(copy, registry) == resolved.experiment
    again = resolve(read_experiment_file(copy), registry)
    assert to_toml(to_builtin(again.experiment)) == to_toml(to_builtin(resolved.experiment))


ODD_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=ODD_TEXT, folder=ODD_TEXT)
@example(name="C:\\x41", folder="\\x41")
@example(name="\x01", folder="\x7f")
@example(name="\x1b[31m", folder="a\nb")
@example(name='"', folder="'")
@example(name="[[x]] # no = 1", folder="[a]")
@example(name="\\u0041\\", folder="\t\r\n")
def test_any_text_survives_the_resolved_copy(registry, tmp_path, name, folder):
    data = tomllib.loads(SMALL)
    data["name"], data["evaluate"][0]["images"]["path"] = name, f"/{folder}"
    path, copy = tmp_path / "any.toml", tmp_path / "copy.toml"
    path.write_bytes(written(data).encode())
    try:
        resolved = resolve(read_experiment_file(path), registry)
    except UserError as error:  # control characters in a path are often a mistake
        assert "it contains" in str(error) and not folder.isprintable()
        return
    assert resolved.experiment.name == name
    try:
        copy.write_bytes(resolved_toml(resolved).encode())
    except UserError:
        return  # it may be refused, as the user's mistake
    assert load_experiment(copy, registry) == resolved.experiment


@pytest.mark.parametrize("name", ["a\x01b", "tab\there", "line\nbreak", "del\x7f", "\u2028", "bell\a", 'q"uote'])
def test_the_heading_survives_any_profile_name(registry, small, tmp_path, name):
    small.write_bytes((SMALL + f"\n[profiles.{quoted(name)}]\ntrain = {{ epochs = 3 }}\n").encode())
    resolved = resolve(read_experiment_file(small), registry, name)
    copy = tmp_path / "copy.toml"
    try:
        copy.write_bytes(resolved_toml(resolved).encode())
    except UserError:
        return
    assert load_experiment(copy, registry) == resolved.experiment


@pytest.mark.parametrize("data", [{"a": None}, {"a": Path("x")}, {"a": [{"b": 1}, 2]}, {"a": math.nan}])
def test_what_the_writer_cannot_say_is_refused(data):
    with pytest.raises((ValueError, UserError)):
        to_toml(data)


def test_plain_leaves_out_what_is_unset(registry, small):
    data = to_builtin(load_experiment(small, registry))
    assert "clip" not in data["train"] and "limit" not in data["data"]["images"]
    assert data["train"]["schedule"] == {"use": "multi-step", "milestones": [5, 8], "gamma": 0.5, "warmup_steps": 0}
    assert data["evaluate"][0]["scales"] == [2, [2, 3.5]] and data["model"]["encoder"]["use"] == "edsr"
    json.dumps(data, allow_nan=False)


# Fuzzing: whatever is in a file, it is read or it is a UserError


def test_the_writer_of_these_tests():
    data = tomllib.loads(SMALL)
    assert tomllib.loads(written(data)) == data


scalars = st.one_of(
    st.booleans(),
    st.integers(),
    st.sampled_from([0, 1, -1, 2**53 + 1, 2**64, 10**40]),
    st.floats(),
    st.sampled_from([math.nan, math.inf, -math.inf, 1e308, 5e-324]),
    st.datetimes(),
    st.dates(),
    st.times(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.sampled_from(
        ["", "edsr", "cell", "folder", "cosine", "quick", "a:b", ":", "liif-core:edsr", "small.toml", "\0", "../.."]
    ),
)
keys = st.one_of(
    st.sampled_from(
        ["use", "source", "extends", "profiles", "fallback", "name", "images", "scale", "path", "limit", "hidden"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
)
values = st.recursive(scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(keys, v, max_size=3), max_leaves=6)


def places(value, path=()):
    """Every (container, key) in a tree."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        yield value, key
        yield from places(item, (*path, key))


@st.composite
def changed_values(draw):
    data = tomllib.loads(SMALL)
    for _ in range(draw(st.integers(1, 3))):
        where = list(places(data))
        if not where:
            break
        container, key = where[draw(st.integers(0, len(where) - 1))]
        action = draw(st.sampled_from(["replace", "delete", "rename", "wrap", "swap"]))
        if action == "replace":
            container[key] = draw(values)
        elif action == "delete":
            del container[key]
        elif action == "rename" and isinstance(container, dict):
            container[draw(keys)] = container.pop(key)
        elif action == "wrap":
            container[key] = draw(
                st.sampled_from([[container[key]], {"use": container[key]}, [[container[key]] * 2], {}])
            )
        elif action == "swap":
            other, place = where[draw(st.integers(0, len(where) - 1))]
            container[key] = json.loads(json.dumps(other[place], default=str))
    return written(data).encode()


@st.composite
def changed_text(draw):
    lines = SMALL.encode().splitlines()
    rng = random.Random(draw(st.integers(0, 2**32)))
    for _ in range(draw(st.integers(1, 4))):
        here = rng.randrange(len(lines))
        action = draw(st.sampled_from(["delete", "double", "swap", "bytes", "cut", "letter", "key", "join"]))
        if action == "delete":
            del lines[here]
        elif action == "double":
            lines.insert(rng.randrange(len(lines)), lines[here])
        elif action == "swap":
            there = rng.randrange(len(lines))
            lines[here], lines[there] = lines[there], lines[here]
        elif action == "bytes":
            at = rng.randrange(len(lines[here]) + 1)
            lines[here] = lines[here][:at] + draw(st.binary(max_size=6)) + lines[here][at:]
        elif action == "cut":
            lines[here] = lines[here][: rng.randrange(len(lines[here]) + 1)]
        elif action == "letter" and lines[here]:
            at = rng.randrange(len(lines[here]))
            lines[here] = lines[here][:at] + bytes([rng.randrange(32, 127)]) + lines[here][at + 1 :]
        elif action == "key":
            lines[here] = draw(keys).encode() + b" = " + inline(draw(values)).encode()
        elif action == "join" and here:
            lines[here - 1 : here + 1] = [lines[here - 1] + lines[here]]
        lines = lines or [b""]
    return b"\n".join(lines)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(content=changed_values(), profile=st.sampled_from([None, "quick", "slower"]))
def test_fuzzed_values(registry, tmp_path, content, profile):
    read_or_refused(registry, tmp_path, content, profile)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(content=changed_text(), profile=st.sampled_from([None, "quick"]))
def test_fuzzed_text(registry, tmp_path, content, profile):
    read_or_refused(registry, tmp_path, content, profile)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    key=st.lists(
        st.sampled_from(["model", "train", "evaluate", "0", "1", "images", "use", "scales", "-", ""]) | keys, max_size=4
    ),
    value=values,
)
def test_fuzzed_overrides(registry, tmp_path, key, value):
    read_or_refused(registry, tmp_path, SMALL.encode(), None, [f"{'.'.join(key)}={inline(value)}"])


@pytest.mark.parametrize("value", [HUGE, "9" * 4000, "1e400", "1e-400"], ids=lambda v: v[:8])
@pytest.mark.parametrize("key", ["train.epochs", "train.optimizer.lr", "evaluate.0.scales.0", "model.decoder.hidden.0"])
def test_huge_numbers(registry, tmp_path, key, value):
    read_or_refused(registry, tmp_path, SMALL.encode(), None, [f"{key}={value}"])


def read_or_refused(registry, tmp_path, content, profile, overrides=()):
    """As a run begins: the file is read and its resolved copy written, or the mistake is told."""
    path = tmp_path / "fuzzed.toml"
    path.write_bytes(content)
    (tmp_path / "small.toml").write_text(SMALL)
    try:
        assert resolved_toml(resolve(read_experiment_file(path), registry, profile, overrides))
    except UserError as error:
        assert error.problems and all(isinstance(line, str) and line for line in error.problems)


def test_folders_of_bytes(registry, tmp_path):
    """A file name that is no text is still a file."""
    try:
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.toml"))
        path.write_text(SMALL.replace('name = "small"', "", 1))
    except (OSError, UnicodeError):
        pytest.skip("this file system has no such names")
    try:
        resolved = resolve(read_experiment_file(path), registry)
        copy = tmp_path / "copy.toml"
        copy.write_bytes(resolved_toml(resolved).encode())
    except UserError:
        return
    assert load_experiment(copy, registry) == resolved.experiment
