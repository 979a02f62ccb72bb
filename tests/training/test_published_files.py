"""Published checkpoints of other forms than LIIF's: importers of files, pickles of arrays, folders."""

import pickle

import numpy as np
import pytest
import torch

import liif_core
from liif_core import Importer, UserError, load_checkpoint
from liif_core.training.pickles import read_pickle

TABLE = {
    "encoder": {"use": "edsr", "blocks": 1, "channels": 4},
    "features": {"use": "identity"},
    "sampling": {"use": "nearest"},
    "conditioning": [{"use": "coordinate"}],
    "decoder": {"use": "mlp", "hidden": [8]},
}


@pytest.fixture
def state():
    parts = {**TABLE, "conditioning": ["coordinate"]}
    return liif_core.compose(**parts).state_dict()


def convert(content, encoder):
    if not (isinstance(content, dict) and "odd" in content):
        return None
    if "gone" in content:
        raise ValueError("its part 'gone' is no part")
    return TABLE, {name: torch.as_tensor(value) for name, value in content["odd"].items()}


@pytest.fixture
def known(extended):
    return extended(liif_importers=Importer("file", "odd-form", convert))


def refused(path, registry):
    with pytest.raises(UserError) as error:
        load_checkpoint(path, registry)
    return str(error.value)


def test_a_file_of_another_form(known, state, tmp_path):
    torch.save({"odd": state}, tmp_path / "odd.pth")
    found = load_checkpoint(tmp_path / "odd.pth", known)
    assert found.experiment == {"name": "odd", "model": TABLE}
    assert all(torch.equal(found.state[name], value) for name, value in state.items())


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_a_pickle_of_arrays(known, state, tmp_path, protocol):
    arrays = {name: value.numpy() for name, value in state.items()}
    arrays["encoder.head.weight"] = np.asfortranarray(arrays["encoder.head.weight"])
    arrays["encoder.head.bias"] = arrays["encoder.head.bias"].astype(">f4")
    path = tmp_path / "odd.pkl"
    path.write_bytes(pickle.dumps({"odd": arrays, "more": [1, 2.5, None, "x", True]}, protocol))
    found = load_checkpoint(path, known)
    assert all(torch.equal(found.state[name], value) for name, value in state.items())
    assert read_pickle(path)["more"] == [1, 2.5, None, "x", True]


def test_a_folder(known, extended, state, tmp_path):
    folder = tmp_path / "both"
    folder.mkdir()
    for name in ("first", "second"):
        torch.save({name: torch.ones(1)}, folder / f"{name}.pth")
    (folder / "notes.txt").write_text("not read")
    seen = []
    registry = extended(liif_importers=Importer("file", "two", lambda content, encoder: seen.append(content)))
    assert "not a published checkpoint" in refused(folder, registry) and "two" in refused(folder, registry)
    assert {name: list(part) for name, part in seen[0].items()} == {"first.pth": ["first"], "second.pth": ["second"]}


def test_folders_that_are_no_checkpoint(known, tmp_path):
    assert "cannot be read: Is a directory" in refused(tmp_path, known)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.safetensors").write_bytes(b"")
    assert f"did you mean {tmp_path / 'checkpoints' / 'best.safetensors'}?" in refused(tmp_path, known)
    many = tmp_path / "many"
    many.mkdir()
    for i in range(40):
        (many / f"{i}.pth").write_bytes(b"")
    assert "not the folder of a published checkpoint" in refused(many, known)


def test_what_no_importer_knows(known, tmp_path):
    torch.save({"even": 1}, tmp_path / "even.pth")
    assert "not a published checkpoint" in refused(tmp_path / "even.pth", known)
    assert "odd-form" in refused(tmp_path / "even.pth", known)


def test_the_message_of_an_importer(known, tmp_path):
    torch.save({"odd": {}, "gone": 1}, tmp_path / "odd.pth")
    message = refused(tmp_path / "odd.pth", known)
    assert (
        message == f"{tmp_path / 'odd.pth'}: cannot be imported as 'odd-form': ValueError: its part 'gone' is no part"
    )


class Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def nested(depth):
    value = 1
    for _ in range(depth):
        value = {"x": value}
    return value


@pytest.mark.parametrize(
    "content, reason",
    [
        ({"odd": Call(print, "executed")}, "it refers to builtins.print, which may run code"),
        ({"odd": Call(np.lib.format.open_memmap, "file")}, "which may run code"),
        ({"odd": np.array([print], dtype=object)}, "which may run code"),
        ({"odd": np.array(["text"])}, "an array of type"),
        ({"odd": {1, 2}}, "it has a set"),
        ({"odd": nested(60)}, "nested too deeply"),
        ({"odd": b"bytes"}, "it has a bytes"),
        ({"odd": torch.ones(2)}, "which may run code"),
    ],
)
def test_a_pickle_of_anything_else(known, tmp_path, capsys, content, reason):
    path = tmp_path / "odd.pkl"
    path.write_bytes(pickle.dumps(content))
    message = refused(path, known)
    assert message.startswith(f"{path}: not a pickle of weights that loads safely") and reason in message
    assert "executed" not in capsys.readouterr().out and "\n" not in message


def test_a_pickle_that_contains_itself(known, tmp_path):
    loop = {}
    loop["odd"] = loop
    (tmp_path / "loop.pkl").write_bytes(pickle.dumps(loop))
    assert "nested too deeply" in refused(tmp_path / "loop.pkl", known)
    wide = [1]
    for _ in range(30):
        wide = [wide] * 10
    (tmp_path / "wide.pkl").write_bytes(pickle.dumps(wide))
    assert "too many values" in refused(tmp_path / "wide.pkl", known)


def test_damaged_pickles(known, state, tmp_path):
    data = pickle.dumps({"odd": {name: value.numpy() for name, value in state.items()}})
    path = tmp_path / "cut.pkl"
    for length in range(2, len(data), 53):
        path.write_bytes(data[:length])
        assert "loads safely" in refused(path, known)
