import pytest


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current folder, which is empty, of the only process of its kind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    return tmp_path
