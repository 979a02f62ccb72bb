"""The log of a run, and packages that it can do without."""

import collections
import importlib
import json
import sys

import pytest

from liif_core import UserError
from liif_core.training import curves
from liif_core.training.log import TrainingLog
from liif_core.training.optional import Broken

ENTRIES = [{"step": step, "epoch": 0, "loss": 1 / step} for step in range(1, 6)]


def write(path, lines):
    path.write_bytes(b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines))


@pytest.mark.parametrize("tail", [b'{"step": 6, "ep', b"\0" * 40, b"\xff\xfe", b"[", b""])
def test_a_half_written_last_line_is_dropped(tmp_path, tail):
    write(tmp_path / "metrics.jsonl", [*ENTRIES, tail])
    assert TrainingLog(tmp_path, 4).entries == ENTRIES[:4]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    "line",
    [b"5\n", b"[1]\n", b"null\n", b'{"epoch": 1}\n', b'{"step": "1", "epoch": 0}\n', b"\xff\xfe\n", b"{]\n",
     b'{"step": 1, "loss": {}}\n', b"[" * 100_000 + b"\n", b'{"step": true}\n'],
)  # fmt: skip
def test_anything_else_is_damage_that_says_what_to_do(tmp_path, line):
    write(tmp_path / "metrics.jsonl", [ENTRIES[0], line, ENTRIES[1]])
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"metrics.jsonl: damaged in line 2: .*rename or delete it.*--resume"):
        TrainingLog(tmp_path, 5)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_tensorboard_shows_each_step_once_after_a_kill(tmp_path):
    module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for first, kept in ((1, 0), (4, 3)):  # killed after step 5, and resumed from step 3
        with TrainingLog(tmp_path, kept) as log:
            for step in range(first, 6):
                log.add(step, 0, loss=1.0)
    events = module.EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    assert collections.Counter(event.step for event in events.Scalars("loss")) == dict.fromkeys(range(1, 6), 1)


@pytest.mark.parametrize("package", ["tensorboard", "matplotlib"])
def test_a_broken_package_costs_its_feature_and_a_line(tmp_path, monkeypatch, package):
    (tmp_path / "broken" / package).mkdir(parents=True)
    (tmp_path / "broken" / package / "__init__.py").write_text("raise OSError('libbroken.so: no such file')")
    monkeypatch.syspath_prepend(tmp_path / "broken")
    for name in [n for n in sys.modules if n.split(".")[0] == package or n.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    importlib.invalidate_caches()
    said = rf"{package} does not work, so no .*\(OSError: libbroken.so: no such file\)"
    with pytest.warns(Broken, match=said), TrainingLog(tmp_path / "run", 0) as log:
        log.add(1, 0, loss=1.0)
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 1
    assert (tmp_path / "run" / "curves.png").exists() == (package != "matplotlib")


def test_curves_show_loss_psnr_bicubic_and_the_learning_rate(monkeypatch):
    figure = pytest.importorskip("matplotlib.figure")
    drawn = {}

    def kept(self, *size, **options):
        drawn.update({axes.get_title(): [line.get_ydata().tolist() for line in axes.lines] for axes in self.axes})

    monkeypatch.setattr(figure.Figure, "savefig", kept)
    entries = [{"step": 1, "epoch": 0, "loss": 0.5, "rate": 1e-3}, {"step": 1, "epoch": 0, "psnr": 30.0}]
    entries += [{"step": 2, "epoch": 1, "loss": None, "rate": 5e-4}, {"step": 2, "epoch": 1, "bicubic_psnr": 29.0}]
    curves.curves_png(entries)
    assert drawn == {
        "L1 loss": [[0.5]], "validation PSNR (dB)": [[30.0], [29.0]], "learning rate": [[1e-3, 5e-4]],
    }  # fmt: skip
