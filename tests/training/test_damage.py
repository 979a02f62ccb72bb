"""Damage and odd weights: refused with a message that names the file and the tensor, before memory is taken."""

import random
import zipfile

import pytest
import torch
from reference import small_model

from liif_core import UserError, load_checkpoint, save_checkpoint
from liif_core.training.checkpoint import Checkpoint, model_of
from liif_core.training.sealed import read_sealed, write_sealed

MODEL = {
    "encoder": {"use": "edsr", "blocks": 1, "channels": 4},
    "features": {"use": "unfold"},
    "sampling": {"use": "local-ensemble"},
    "conditioning": [{"use": "coordinate"}, {"use": "cell"}],
    "decoder": {"use": "mlp", "hidden": [16, 8]},
}


@pytest.fixture
def checkpoint(registry):
    return Checkpoint(small_model(registry).state_dict(), {"name": "x", "model": MODEL}, (1.0, 4.0), 1, 2.0, {})


def flipped(data, count, seed=0, within=None):
    rng = random.Random(seed)
    for _ in range(count):
        changed = bytearray(data)
        changed[rng.randrange(within or len(data))] ^= rng.randrange(1, 256)
        yield bytes(changed)


def test_equal_checkpoints_are_equal_files_and_every_byte_is_hashed(tmp_path, registry, checkpoint):
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    save_checkpoint(one, checkpoint)
    save_checkpoint(other, checkpoint)
    data = one.read_bytes()
    assert data == other.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    assert header % 8 == 0
    for changed in [*flipped(data, 100), *flipped(data, 200, 1, header)]:
        one.write_bytes(changed)
        with pytest.raises(UserError):
            load_checkpoint(one, registry)


def test_every_byte_of_a_state_is_hashed(tmp_path):
    path = tmp_path / "last.training.pt"
    write_sealed(path, {"a": torch.ones(5), "b": None})
    assert torch.equal(torch.load(path, weights_only=True)["a"], torch.ones(5))
    data = path.read_bytes()
    for changed in [*flipped(data, 200), data[:-1], data[:100], b""]:
        path.write_bytes(changed)
        with pytest.raises(ValueError):
            read_sealed(path)
    torch.save({"a": 1}, path)  # as before there was a hash
    assert read_sealed(path) == {"a": 1}


def test_the_checksums_of_a_published_file(tmp_path, registry):
    path = tmp_path / "x.pth"
    torch.save({"model": {"name": "liif", "args": {}, "sd": {"x": torch.full((3,), 0.125)}}}, path)
    data = bytearray(path.read_bytes())
    place = data.index(torch.full((3,), 0.125).numpy().tobytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="does not have its checksum"):
        load_checkpoint(path, registry)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(10_000_000))
    with pytest.raises(UserError, match="compressed"):
        load_checkpoint(path, registry)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(tmp_path, registry, checkpoint, value):
    state = {name: tensor.clone() for name, tensor in checkpoint.state.items()}
    state["encoder.tail.bias"][1] = value
    save_checkpoint(tmp_path / "x.safetensors", Checkpoint(state, checkpoint.experiment))
    with pytest.raises(UserError, match="encoder.tail.bias: 1 of 4 weights are NaN or infinite"):
        load_checkpoint(tmp_path / "x.safetensors", registry)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8, torch.complex64])
def test_weights_of_another_kind(registry, checkpoint, dtype):
    state = {**checkpoint.state, "encoder.tail.bias": torch.zeros(4, dtype=dtype)}
    with pytest.raises(UserError, match="encoder.tail.bias is of type"):
        model_of(Checkpoint(state, checkpoint.experiment), registry, "here")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["sparse", "quantized", "meta", "repeated"])
def test_tensors_that_are_not_ordinary(tmp_path, registry, kind):
    value = {
        "sparse": lambda: torch.ones(3).to_sparse(),
        "quantized": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "meta": lambda: torch.ones(3, device="meta"),
        "repeated": lambda: torch.ones(1).expand(10**9),
    }[kind]()
    torch.save({"model": {"name": "liif", "args": {}, "sd": {"x": value}}}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="expected an ordinary"):
        load_checkpoint(tmp_path / "x.pth", registry)


@pytest.mark.parametrize("blocks, channels", [(10**7, 4), (10**9, 4), (1, 10**6)])
def test_sizes_are_compared_before_memory_is_taken(registry, checkpoint, blocks, channels):
    encoder = {"use": "edsr", "blocks": blocks, "channels": channels}
    with pytest.raises(UserError, match="here: "):
        model_of(Checkpoint(checkpoint.state, {"model": {**MODEL, "encoder": encoder}}), registry, "here")


def test_long_names_are_cut(registry, checkpoint):
    state = {**checkpoint.state, "x." * 50_000: torch.zeros(1)}
    with pytest.raises(UserError, match="100,000 characters") as error:
        model_of(Checkpoint(state, checkpoint.experiment), registry, "here")
    assert len(str(error.value)) < 1000
