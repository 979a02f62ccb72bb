"""Checkpoints: written whole, checked when read, and never executed."""

import json
import os
import random
import tomllib

import pytest
import safetensors.torch
import torch
from reference import small_model

from liif_core import UserError, load, load_checkpoint, save_checkpoint
from liif_core.errors import one_line
from liif_core.training.checkpoint import FORMAT, Checkpoint, model_of, tensors_sha256

MODEL = {
    "channels": 3,
    "residual": "none",
    "encoder": {"use": "edsr", "blocks": 1, "channels": 4, "residual_scale": 1.0},
    "features": {"use": "unfold", "size": 3},
    "sampling": {"use": "local-ensemble"},
    "conditioning": [{"use": "coordinate"}, {"use": "cell"}],
    "decoder": {"use": "mlp", "hidden": [16, 8], "zero_last": False},
}
EXPERIMENT = {"name": 'a "name"\n', "model": MODEL, "train": {"rates": [1e-4, 0.5]}}


@pytest.fixture
def model(registry):
    return small_model(registry)


@pytest.fixture
def saved(model, tmp_path):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, Checkpoint(model.state_dict(), EXPERIMENT, (1.0, 4.0), 12, 28.5, {"liif-core": "0.1.0"}))
    return path


def refused(path, registry=None, read=load_checkpoint):
    """The message, which must begin with the file."""
    with pytest.raises(UserError) as error:
        read(path) if registry is None else read(path, registry)
    assert all(line.startswith(f"{one_line(str(path))}: ") and "\n" not in line for line in error.value.problems)
    return str(error.value)


# Ours


def test_round_trip(saved, model, registry):
    found = load_checkpoint(saved, registry)
    assert (found.scale, found.step, found.best, found.plugins) == ((1.0, 4.0), 12, 28.5, {"liif-core": "0.1.0"})
    assert found.experiment == EXPERIMENT
    assert found.state.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(found.state[name], value)


def test_what_is_not_known_stays_unknown(model, tmp_path, registry):
    path = tmp_path / "bare.safetensors"
    save_checkpoint(path, Checkpoint(model.state_dict(), EXPERIMENT))
    found = load_checkpoint(path, registry)
    assert (found.scale, found.step, found.best, found.plugins) == (None, None, None, {})


def test_load_is_ready_for_inference(saved, model):
    loaded = load(saved)
    image = torch.rand(1, 3, 5, 6)
    assert torch.equal(loaded.encode(image).render((9, 8)), model.encode(image).render((9, 8)))
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    assert load(str(saved), torch.device("cpu")).channels == 3


def test_the_metadata_is_for_anyone_to_read(saved):
    """Issue 2, section 6: the experiment, format version, scale range, step, best score and a digest."""
    with safetensors.safe_open(saved, "pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == FORMAT and metadata["format_version"] == "2"
    assert tomllib.loads(metadata["experiment"]) == EXPERIMENT
    assert json.loads(metadata["known"]) == {
        "scale": [1.0, 4.0],
        "step": 12,
        "best": 28.5,
        "plugins": {"liif-core": "0.1.0"},
    }
    assert len(metadata["sha256"]) == 64


def test_the_digest_sees_names_types_shapes_and_values():
    base = {"a": torch.arange(6, dtype=torch.float32), "b": torch.ones(2)}
    others = [
        {"a": base["a"], "c": base["b"]},
        {"a": base["a"].reshape(2, 3), "b": base["b"]},
        {"a": base["a"].view(torch.int32), "b": base["b"]},
        {"a": base["a"] + torch.tensor([0, 0, 0, 0, 0, 1e-6]), "b": base["b"]},
        {"a": base["a"]},
        {},
    ]
    digests = [tensors_sha256(state) for state in (base, *others)]
    assert len(set(digests)) == len(digests)
    assert tensors_sha256(dict(reversed(base.items()))) == digests[0]
    assert tensors_sha256({"a": base["a"].reshape(2, 3).T.contiguous().T.reshape(-1), "b": base["b"]}) == digests[0]


@pytest.mark.parametrize(
    "value",
    [
        torch.tensor(3.5),
        torch.zeros(0, 3),
        torch.tensor([True, False]),
        torch.arange(3),
        torch.rand(3).bfloat16(),
        torch.rand(4, 3).T,
        torch.rand(6)[2:4],
        torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        torch.rand(2, requires_grad=True),
    ],
    ids=lambda v: f"{v.dtype}{tuple(v.shape)}",
)
def test_any_kind_of_tensor(tmp_path, registry, value):
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, Checkpoint({"x": value}, EXPERIMENT))
    found = load_checkpoint(path, registry).state["x"]
    assert found.dtype == value.dtype and found.shape == value.shape
    torch.testing.assert_close(found, value.detach(), rtol=0, atol=0, equal_nan=True)


def test_tied_weights(tmp_path, registry):
    """A plugin's decoder may use one parameter under two names."""
    weight = torch.rand(3, 3)
    path = tmp_path / "tied.safetensors"
    save_checkpoint(path, Checkpoint({"a": weight, "b": weight, "c": weight[1:]}, EXPERIMENT))
    found = load_checkpoint(path, registry).state
    assert torch.equal(found["a"], weight) and torch.equal(found["b"], weight) and torch.equal(found["c"], weight[1:])


def test_a_failed_save_leaves_the_old_file(saved, model, monkeypatch):
    before = saved.read_bytes()
    changed = Checkpoint({name: value + 1 for name, value in model.state_dict().items()}, EXPERIMENT)
    for attribute in ("fsync", "replace"):
        with monkeypatch.context() as patch, pytest.raises(OSError):
            patch.setattr(os, attribute, lambda *args: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            save_checkpoint(saved, changed)
        assert saved.read_bytes() == before and os.listdir(saved.parent) == [saved.name]
    with pytest.raises((ValueError, TypeError)):
        save_checkpoint(saved, Checkpoint(changed.state, {"name": float("nan"), "model": MODEL}))
    assert saved.read_bytes() == before and os.listdir(saved.parent) == [saved.name]


# Damage


def parts(path):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def put_together(path, header, body):
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def test_one_flipped_bit_is_found(saved, registry):
    data = bytearray(saved.read_bytes())
    data[-100] ^= 1
    saved.write_bytes(data)
    assert "damaged: the file does not have the SHA-256 that it was saved with" in refused(saved, registry)


@pytest.mark.parametrize("part", [0.0005, 0.1, 0.5, 0.99, 0.99999])
def test_a_truncated_file(saved, registry, part):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * part)])
    assert "damaged" in refused(saved, registry) or "neither" in refused(saved, registry)


def test_another_digest(saved, registry):
    header, body = parts(saved)
    header["__metadata__"]["sha256"] = "0" * 64
    put_together(saved, header, body)
    assert "SHA-256" in refused(saved, registry)
    del header["__metadata__"]["sha256"]
    put_together(saved, header, body)
    assert "damaged" in refused(saved, registry)


def test_another_s_safetensors(tmp_path, registry):
    path = tmp_path / "other.safetensors"
    for metadata in (None, {"format": "pt"}, {"made by": "someone"}):
        safetensors.torch.save_file({"x": torch.ones(3)}, path, metadata)
        assert "a safetensors file, but not a liif-core checkpoint" in refused(path, registry)


def test_a_newer_format(saved, registry):
    header, body = parts(saved)
    header["__metadata__"]["format_version"] = "3"
    put_together(saved, header, body)
    message = refused(saved, registry)
    assert "checkpoint format 3; this liif-core reads 1 and 2: install a newer one" in message


@pytest.mark.parametrize(
    "key, value",
    [
        ("experiment", "model = "),
        ("experiment", ""),
        ("experiment", "model = 3"),
        ("experiment", "name = 'x'"),
        ("experiment", "[model]"),
        ("experiment", "model = []"),
        ("experiment", "x = " + "[" * 5000),
        ("known", ""),
        ("known", "{}"),
        ("known", "[]"),
        ("known", "3"),
        ("known", "[" * 100000),
        ("known", '{"scale": 3, "step": 1, "best": 1, "plugins": {}}'),
    ],
    ids=lambda v: v[:30],
)
def test_metadata_that_makes_no_sense(saved, key, value):
    """Only the weights have a digest; whatever else was changed is still no traceback."""
    header, body = parts(saved)
    header["__metadata__"][key] = value
    put_together(saved, header, body)
    refused(saved, read=load)


def test_a_file_damaged_anywhere(saved, registry):
    """Bytes of the header and of the weights, changed at random: refused, or nothing that matters was hit."""
    data, rng = saved.read_bytes(), random.Random(0)
    header = 8 + int.from_bytes(data[:8], "little")
    for attempt in range(250):
        damaged = bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 8])):
            damaged[rng.randrange(header if attempt % 5 else len(data))] = rng.randrange(256)
        saved.write_bytes(damaged)
        try:
            model_of(load_checkpoint(saved, registry), registry, str(saved))
        except UserError as error:
            assert error.problems


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"hello, world\n" * 50,
        b"12345678{not json",
        bytes(100),
        b"\x80\x02.",
        b"PK\x03\x04",
        bytes(range(256)),
        b"\xff" * 8 + b"{}",
    ],
    ids=lambda c: repr(c[:10]),
)
def test_no_checkpoint_at_all(tmp_path, registry, content):
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    message = refused(path, registry)
    assert "damaged" in message or "neither a safetensors checkpoint nor a .pth" in message


def test_a_missing_file_and_a_folder(tmp_path, registry):
    assert "cannot be read: No such file" in refused(tmp_path / "gone.safetensors", registry)
    assert "cannot be read: Is a directory" in refused(tmp_path, registry)
    refused(tmp_path / "a\0b", registry)


# What the weights must fit


def changed(saved, registry, **changes):
    found = load_checkpoint(saved, registry)
    return Checkpoint({**found.state, **changes}, found.experiment)


def test_weights_of_another_shape(saved, registry):
    checkpoint = changed(saved, registry, **{"decoder.layers.0.weight": torch.zeros(16, 39)})
    with pytest.raises(UserError) as error:
        model_of(checkpoint, registry, "here")
    assert error.value.problems == ("here: decoder.layers.0.weight is (16, 39), and the model expects (16, 40)",)


def test_missing_and_left_over_weights(saved, registry):
    checkpoint = changed(saved, registry, extra=torch.zeros(1))
    del checkpoint.state["encoder.tail.bias"]
    with pytest.raises(UserError) as error:
        model_of(checkpoint, registry, "here")
    assert error.value.problems == ("here: no weights for encoder.tail.bias", "here: the model has no place for extra")


@pytest.mark.parametrize("count", [5, 6, 7, 40])
def test_many_such_problems_are_counted(saved, registry, count):
    checkpoint = changed(saved, registry, **{f"extra{i:02}": torch.zeros(1) for i in range(count)})
    with pytest.raises(UserError) as error:
        model_of(checkpoint, registry, "here")
    lines = error.value.problems
    assert len(lines) <= 6
    if count > 6:
        assert lines[-1] == f"here: and {count - 5} more such problems"
    else:
        assert len(lines) == count


def test_a_model_of_a_missing_plugin(saved, registry):
    found = load_checkpoint(saved, registry)
    found.experiment["model"]["encoder"] = {"use": "rdm", "layers": 3}
    with pytest.raises(UserError, match=r"here: model.encoder.use: no encoder is named 'rdm'"):
        model_of(found, registry, "here")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_load_on_an_absent_device(saved):
    with pytest.raises(UserError, match="device: 'cuda' is not on this machine; use auto or cpu"):
        load(saved, "cuda")
    with pytest.raises(UserError, match="device: expected auto, cpu, cuda, cuda:N or mps, got 'gpu'"):
        load(saved, "gpu")
