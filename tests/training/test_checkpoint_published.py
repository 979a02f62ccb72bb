"""Published checkpoints: read through the plugins' importers, and never executed."""

import os
import pickle
import random
import zipfile

import pytest
import torch
from torch import nn

from liif_core import (
    Component,
    Importer,
    UserError,
    load,
    load_checkpoint,
    save_checkpoint,
)
from liif_core.training.checkpoint import model_of


def refused(path, registry=None, read=load_checkpoint):
    """The message, which must begin with the file."""
    with pytest.raises(UserError) as error:
        read(path) if registry is None else read(path, registry)
    assert all(line.startswith(f"{path}: ") and "\n" not in line for line in error.value.problems)
    return str(error.value)


def published(path, model, **others):
    torch.save({"model": model, **others}, path)
    return path


def test_published_becomes_ours(shared, registry, tmp_path):
    """Converted and saved: the same model, from one file that says what it is."""
    source = shared / "golden" / "liif.pth"
    found = load_checkpoint(source, registry)
    assert found.experiment["name"] == "liif" and found.step is None and found.scale is None
    save_checkpoint(tmp_path / "liif.safetensors", found)
    image = torch.rand(1, 3, 6, 6)
    ours, theirs = load(tmp_path / "liif.safetensors"), load(source)
    assert torch.equal(ours.encode(image).render((11, 7)), theirs.encode(image).render((11, 7)))


@pytest.mark.parametrize(
    "name, part, kind", [("lte", "'lte'", "model"), ("ciaosr", "'ciaosr'", "model"), ("liif-rdn", "'rdn'", "encoder")]
)
def test_published_names_no_plugin_knows(shared, tmp_path, name, part, kind, plugin_of):
    """Only the paper's plugins: the message says which kind of plugin is missing."""
    from liif_core.registry.components import Origin, Registry
    from liif_core.registry.discovery import add_plugin
    from liif_paper import conditioning, edsr, mlp, sampling, unfold

    registry = Registry()
    for plugin in (conditioning, edsr, mlp, sampling, unfold):
        registry = add_plugin(registry, plugin, Origin(plugin.__name__, "liif-core", "0"))
    message = refused(shared / "golden" / f"{name}.pth", registry)
    assert f"no installed plugin imports the {kind} {part}" in message and "known: " in message
    assert "install a plugin whose liif_importers hook offers it" in message


class Bomb:
    def __reduce__(self):
        return os.mkdir, (Bomb.target,)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "hidden"])
def test_code_in_a_file_is_not_executed(tmp_path, registry, form):
    Bomb.target = str(tmp_path / "executed")
    path = tmp_path / "bomb.pth"
    content = {"model": {"name": "liif", "args": {}, "sd": {"x": Bomb()}}}
    if form in ("zip", "legacy"):
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    elif form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:  # its ninth byte would pass for one of ours
        path.write_bytes(b"12345678{" + pickle.dumps(content))
    message = refused(path, registry)
    assert "loads safely" in message or "damaged, or not a safetensors" in message
    assert not os.path.exists(Bomb.target)


GOOD = {
    "name": "liif",
    "args": {
        "encoder_spec": {"name": "edsr-baseline", "args": {}},
        "imnet_spec": {"name": "mlp", "args": {"hidden_list": [8]}},
    },
    "sd": {},
}


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        3,
        None,
        "model",
        torch.ones(3),
        {"model": None},
        {"model": 3},
        {"model": []},
        {"model": torch.ones(2)},
        {"model": {"name": "liif"}},
        {"model": GOOD | {"args": None}},
        {"model": GOOD | {"sd": None}},
        {"model": GOOD | {"sd": [1]}},
        {"model": GOOD | {"sd": {3: torch.ones(1)}}},
        {"model": GOOD | {"name": 3}},
        {"model": GOOD | {"name": ["liif"]}},
        {"model": GOOD | {"name": None}},
        {"model": GOOD | {"args": {}}},
        {"model": GOOD | {"args": GOOD["args"] | {"imnet_spec": {"name": "siren", "args": {}}}}},
        {"model": GOOD | {"args": GOOD["args"] | {"imnet_spec": {"name": "mlp", "args": {"hidden_list": 3}}}}},
        {"model": GOOD | {"args": GOOD["args"] | {"imnet_spec": {"name": "mlp", "args": {"hidden_list": ["x"]}}}}},
        {"model": GOOD | {"args": GOOD["args"] | {"encoder_spec": {"name": "edsr", "args": {"n_resblocks": "2"}}}}},
        {"model": GOOD | {"args": GOOD["args"] | {"encoder_spec": None}}},
        {"model": GOOD | {"sd": {"encoder.head.0.weight": 3}}},
        {"model": GOOD | {"sd": {"imnet.layers.x.weight": torch.ones(1)}}},
        {"model": GOOD | {"sd": {"imnet.layers.0": torch.ones(1)}}},
        {"model": GOOD},
    ],
    ids=range(28),
)
@pytest.mark.filterwarnings("ignore")
def test_published_files_of_another_form(tmp_path, content):
    path = tmp_path / "x.pth"
    torch.save(content, path)
    refused(path, read=load)


def test_every_weight_that_is_no_tensor_is_refused(tmp_path, shared):
    content = torch.load(shared / "golden" / "liif.pth", weights_only=True)
    for value in (3, None, "x", [1.0]):
        content["model"]["sd"]["encoder.head.0.bias"] = value
        torch.save(content, tmp_path / "x.pth")
        refused(tmp_path / "x.pth", read=load)


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.filterwarnings("ignore")
def test_a_published_file_damaged_anywhere(tmp_path, registry, form):
    path, rng = tmp_path / "x.pth", random.Random(1)
    torch.save({"model": GOOD | {"sd": {"x": torch.ones(2)}}}, path, _use_new_zipfile_serialization=form == "zip")
    data = path.read_bytes()
    for _ in range(200):
        damaged = bytearray(data)
        for _ in range(rng.choice([1, 2, 8])):
            damaged[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(damaged[: rng.choice([len(data)] * 3 + [rng.randrange(len(data))])])
        refused(path, registry)


@pytest.mark.filterwarnings("ignore")
def test_a_zip_and_a_script_are_no_checkpoints(tmp_path, registry):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("x/data.txt", "x")
    refused(tmp_path / "x.zip", registry)
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "x.pt"))
    refused(tmp_path / "x.pt", registry)


@pytest.mark.parametrize(
    "error",
    [
        KeyError("gate"),
        ValueError("odd"),
        TypeError("no"),
        RuntimeError("shapes"),
        AssertionError(),
        ZeroDivisionError("z"),
    ],
)
def test_an_importer_that_fails_is_named(tmp_path, extended, error):
    def convert(arguments, state, encoder):
        raise error

    registry = extended(liif_importers=Importer("model", "strange", convert))
    path = published(tmp_path / "x.pth", {"name": "strange", "args": {}, "sd": {}})
    assert "cannot be imported as 'strange'" in refused(path, registry) and type(error).__name__ in refused(
        path, registry
    )


def test_third_party_components_are_imported_too(tmp_path, extended):
    """The encoder of one plugin in the model of another, from a published file."""

    class Tiny(nn.Conv2d):
        multiple_of, receptive_radius = 1, 1

        def __init__(self, options, in_channels):
            super().__init__(in_channels, 4, 3, padding=1)
            self.out_channels = 4

    def convert(arguments, state):
        return {"use": "tiny"}, {name.removeprefix("net."): value for name, value in state.items()}

    registry = extended(
        liif_encoders=Component("tiny", Tiny), liif_importers=Importer("encoder", "tiny-published", convert)
    )
    arguments = GOOD["args"] | {"encoder_spec": {"name": "tiny-published"}}
    state = {"encoder.net.weight": torch.rand(4, 3, 3, 3), "encoder.net.bias": torch.rand(4)}
    state |= {"imnet.layers.0.weight": torch.rand(8, 40), "imnet.layers.0.bias": torch.rand(8)}
    state |= {"imnet.layers.2.weight": torch.rand(3, 8), "imnet.layers.2.bias": torch.rand(3)}
    path = published(tmp_path / "x.pth", {"name": "liif", "args": arguments, "sd": state})
    model = model_of(load_checkpoint(path, registry), registry, str(path))
    assert isinstance(model.encoder, Tiny) and torch.equal(model.encoder.weight, state["encoder.net.weight"])
