"""What commands set before torch is imported: a short wait of OpenMP's threads, and fewer remarks of torch."""

import pytest
from click.testing import CliRunner

from liif_core.cli import environment, liif


def test_the_wait_is_set():
    found = {}
    environment.prepare(found)
    assert found == {"GOMP_SPINCOUNT": "10000"}


@pytest.mark.parametrize("chosen", [{"GOMP_SPINCOUNT": "5"}, {"OMP_WAIT_POLICY": "ACTIVE"}])
def test_a_chosen_wait_is_kept(chosen):
    found = dict(chosen)
    environment.prepare(found)
    assert found == chosen


@pytest.mark.parametrize("chosen, level", [({}, "ERROR"), ({"TORCH_CPP_LOG_LEVEL": "INFO"}, "INFO")])
def test_torch_is_quiet_in_a_job_of_several_processes(chosen, level):
    found = {"WORLD_SIZE": "2", **chosen}
    environment.prepare(found)
    assert found["TORCH_CPP_LOG_LEVEL"] == level


def test_commands_set_it_before_they_run(monkeypatch):
    called = []
    monkeypatch.setattr(environment, "prepare", lambda: called.append(True))
    CliRunner().invoke(liif, ["upscale", "missing.png", "-o", "out.png", "--checkpoint", "missing", "--scale", "2"])
    assert called == [True]
