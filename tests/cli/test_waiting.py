"""The commands shorten the wait of OpenMP's threads, unless the user has chosen one."""

import pytest
from click.testing import CliRunner

from liif_core.cli import liif, waiting


def test_the_wait_is_set():
    environment = {}
    waiting.wait_briefly(environment)
    assert environment == {"GOMP_SPINCOUNT": "10000"}


@pytest.mark.parametrize("chosen", [{"GOMP_SPINCOUNT": "5"}, {"OMP_WAIT_POLICY": "ACTIVE"}])
def test_a_chosen_wait_is_kept(chosen):
    environment = dict(chosen)
    waiting.wait_briefly(environment)
    assert environment == chosen


def test_commands_set_it_before_they_run(monkeypatch):
    called = []
    monkeypatch.setattr(waiting, "wait_briefly", lambda: called.append(True))
    CliRunner().invoke(liif, ["upscale", "missing.png", "-o", "out.png", "--checkpoint", "missing", "--scale", "2"])
    assert called == [True]
