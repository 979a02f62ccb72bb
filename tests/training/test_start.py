"""``[train.start_from]``: what fits is taken, what does not is said; and a finished run that gets more epochs."""

import attrs
import pytest
import safetensors.torch
import tiny
import torch
from click.testing import CliRunner

from liif_core import Trainer, UserError, load_experiment
from liif_core.cli import liif_run
from liif_core.training.setup import fresh_model

NEW_DECODER = "model.decoder.hidden=[12]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, registry):
    """An experiment, and a checkpoint of it after a few steps."""
    folder = tmp_path_factory.mktemp("start")
    trainer = Trainer.from_experiment(load_experiment(tiny.experiment_file(folder), registry), folder / "before")
    for batch in trainer.batches():
        trainer.step(batch)
    trainer.save()
    return folder


def begun(folder, registry, *overrides, options="", say=str):
    checkpoint = folder / "before" / "checkpoints" / "last.safetensors"
    settings = [f'train.start_from={{checkpoint="{checkpoint}"{options}}}', "train.seed=3", *overrides]
    return fresh_model(load_experiment(folder / "tiny.toml", registry, overrides=settings), say)


def weights(folder):
    return safetensors.torch.load_file(folder / "before" / "checkpoints" / "last.safetensors")


def test_all_weights_are_taken(folder, registry):
    lines = []
    model = begun(folder, registry, say=lines.append)
    expected = weights(folder)
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    (line,) = lines
    count = len(expected)
    assert f"{count} of {count} tensors fitted" in line and "of encoder, decoder" in line


def test_another_decoder_on_the_same_encoder_must_be_asked_for(folder, registry):
    with pytest.raises(UserError) as caught:
        begun(folder, registry, NEW_DECODER)
    text = str(caught.value)
    assert "no weights for decoder." in text and "no place for decoder." in text and "allow_new = true" in text

    lines = []
    model = begun(folder, registry, NEW_DECODER, options=", allow_new=true", say=lines.append)
    fresh = fresh_model(load_experiment(folder / "tiny.toml", registry, overrides=["train.seed=3", NEW_DECODER]))
    expected, untouched = weights(folder), fresh.state_dict()
    for name, value in model.state_dict().items():
        fits = name in expected and expected[name].shape == value.shape
        assert torch.equal(value, expected[name] if fits else untouched[name]), name
    text = "\n".join(lines)
    assert "of encoder" in lines[0] and "new: decoder." in text and "left out: decoder." in text


def test_mistakes(folder, registry, tmp_path):
    def refused(*overrides):
        with pytest.raises(UserError) as caught:
            fresh_model(load_experiment(folder / "tiny.toml", registry, overrides=overrides))
        return str(caught.value)

    assert "train.start_from: " in refused('train.start_from={checkpoint="nowhere.safetensors"}')
    assert "did you mean 'edsr-baseline-liif'" in refused('train.start_from={model="edsr-baseline-lif"}')
    assert "expected either checkpoint, a file, or model, a name" in refused("train.start_from={}")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    both = refused(f'train.start_from={{checkpoint="{broken}"}}', 'train.teacher={checkpoint="none.pth"}')
    assert "train.teacher: " in both and "none.pth: cannot be read" in both and f"train.start_from: {broken}" in both


def test_nothing_fits(folder, registry):
    checkpoint = folder / "before" / "checkpoints" / "last.safetensors"
    settings = [f'train.start_from={{checkpoint="{checkpoint}", allow_new=true}}']
    settings += ["model.encoder.channels=5", NEW_DECODER, "model.channels=1", 'model.residual="none"']
    with pytest.raises(UserError, match="no weight has the name and the shape of a parameter of this model"):
        fresh_model(load_experiment(folder / "tiny.toml", registry, overrides=settings))


def run(folder, out, *overrides, resume=False):
    arguments = [folder / "tiny.toml", "--out", out, *(["--resume"] if resume else [])]
    arguments += [part for text in overrides for part in ("--set", text)]
    return CliRunner().invoke(liif_run, [str(argument) for argument in arguments])


def test_a_finished_run_is_given_more_epochs(folder, tmp_path):
    """With a schedule that does not depend on the end, the weights are those of one longer run."""
    overrides = ['train.schedule={use="constant"}']
    first = run(folder, tmp_path / "two", *overrides, "train.epochs=1")
    assert first.exit_code == 0, first.output
    more = run(folder, tmp_path / "two", *overrides, "train.epochs=2", resume=True)
    assert more.exit_code == 0 and "train.epochs: 2, before 1" in more.output
    assert run(folder, tmp_path / "one", *overrides, "train.epochs=2").exit_code == 0
    for name in ("last", "best"):
        paths = [tmp_path / run / "checkpoints" / f"{name}.safetensors" for run in ("one", "two")]
        a, b = map(safetensors.torch.load_file, paths)
        assert all(torch.equal(a[key], b[key]) for key in a)

    fewer = run(folder, tmp_path / "two", *overrides, "train.epochs=1", resume=True)
    assert fewer.exit_code == 2 and "2 epochs are done; expected train.epochs to be at least 2" in fewer.output


def test_without_validation_the_last_weights_are_the_best(folder, registry, tmp_path):
    for epochs in (1, 2):
        settings = [f"train.epochs={epochs}"]
        experiment = load_experiment(folder / "tiny.toml", registry, overrides=settings)
        trainer = Trainer.from_experiment(attrs.evolve(experiment, validate=None), tmp_path)
        trainer.run(resume=True)
    best, last = (safetensors.torch.load_file(tmp_path / "checkpoints" / f"{n}.safetensors") for n in ("best", "last"))
    assert all(torch.equal(best[key], last[key]) for key in last)
