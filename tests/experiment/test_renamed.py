"""An experiment file with a key, value or profile of older versions is refused with the new one, wherever it stands."""

import pytest
from small_experiment import SMALL

from liif_core import UserError, load_experiment

RENAMED = [
    ("data", "samples = 50", "data.samples: this key is now called 'queries'"),
    ("train", "batch = 4", "train.batch: this key is now called 'batch_size'"),
    ("train.optimizer", "rate = 1e-3", "train.optimizer.rate: this key is now called 'lr'"),
    ("train.schedule", "factor = 0.5", "train.schedule.factor: this key is now called 'gamma'"),
    ("data.images", "source = 'samples'\nnames = ['coffee']", "data.images.source: 'samples' is now called 'skimage'"),
    ("model.features", "use = 'plain'", "model.features.use: 'plain' is now called 'identity'"),
    ("validate.images", "source = 'samples'", "validate.images.source: 'samples' is now called 'skimage'"),
]


def refused(path, registry, **options):
    with pytest.raises(UserError) as error:
        load_experiment(path, registry, **options)
    return [line.removeprefix(f"{path}: ") for line in error.value.problems]


@pytest.mark.parametrize("table, text, message", RENAMED, ids=[table for table, _, _ in RENAMED])
def test_old_keys(registry, small, table, text, message):
    child = small.with_name("child.toml")
    child.write_text(f'extends = "small.toml"\n[{table}]\n{text}\n')
    assert refused(child, registry) == [message]

    grandchild = small.with_name("base.toml")  # the old key is in the file that is extended
    grandchild.write_text(SMALL + f"\n[profiles.old.{table}]\n{text}\n")
    child.write_text('extends = "base.toml"\n')
    load_experiment(child, registry)
    assert refused(child, registry, profile="old") == [message]
    assert refused(grandchild, registry, profile="old") == [message]

    settings = [f"{table}.{line}" for line in text.splitlines()]
    assert refused(small, registry, overrides=settings) == [message]


def test_an_old_key_of_the_extended_file(registry, small):
    small.write_text(SMALL.replace("queries = 100", "samples = 100"))
    child = small.with_name("child.toml")
    child.write_text('extends = "small.toml"\n[train]\nbatch = 4\n')
    assert refused(child, registry) == [RENAMED[0][2], RENAMED[1][2]]


def test_sources_of_evaluation_sets(registry, small):
    small.write_text(SMALL.replace('source = "folder", path = "one"', 'source = "samples", names = ["coffee"]'))
    assert refused(small, registry) == ["evaluate[0].images.source: 'samples' is now called 'skimage'"]
    message = ["evaluate[1].images.source: 'samples' is now called 'skimage'"]
    first, second = "evaluate.0.images={source='folder', path='x'}", "evaluate.1.images={source='samples', names=['a']}"
    assert refused(small, registry, overrides=[first, second]) == message


def test_a_new_name_that_would_not_help_is_not_given(registry, small):
    found = refused(small, registry, overrides=["train.schedule={use='cosine', factor=0.5}", "model.decoder.batch=3"])
    assert len(found) == 2 and all("unknown key" in line and "now called" not in line for line in found)


def test_the_profile_samples(registry, small):
    expected = "no profile is named 'samples' (it is now called 'quick'); declared: quick, slower"
    assert refused(small, registry, profile="samples") == [expected]
    small.write_text(SMALL + '\n[profiles.samples]\nnote = "Mine."\n')
    assert load_experiment(small, registry, "samples").note == "Mine."  # a user's own name
    small.write_text(SMALL.replace("profiles.quick", "profiles.other").replace('fallback = "quick"', ""))
    assert "now called" not in refused(small, registry, profile="samples")[0]


def test_an_old_fallback(registry, small):
    small.write_text(SMALL.replace('fallback = "quick"', 'fallback = "samples"'))
    (line,) = refused(small, registry)
    assert line.startswith("fallback: no profile is named 'samples'") and "declared: quick, slower" in line
