"""Several processes train one model: the losses, weights and scores are those of one process."""

import json
import os
import signal

import pytest
import tiny
import torch
from jobs import job

from liif_core import UserError, build_model, load_experiment
from liif_core.data.crops import CropDataset
from liif_core.data.loading import batches
from liif_core.data.sources import open_images
from liif_core.distributed import ALONE, Processes
from liif_core.errors import Interrupted
from liif_core.evaluation.evaluate import evaluate_set
from liif_core.sizes import Scale
from liif_core.training.trainer import Trainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("together")
    tiny.experiment_file(path)
    return path


def trainer(folder, registry, *overrides, out=None, processes=ALONE):
    experiment = load_experiment(folder / "tiny.toml", registry, overrides=overrides)
    torch.manual_seed(0)
    images = open_images(experiment.data.images)
    validation = open_images(experiment.validate.images)
    return Trainer(build_model(experiment.model), experiment, images, validation, out, "cpu", {}, processes=processes)


def gradients(run):
    return {name: parameter.grad.clone() for name, parameter in run.model.named_parameters()}


def first_step(run):
    """The loss, and the gradients that the optimizer uses."""
    loss = run.step(next(run.batches()))
    return loss, gradients(run), run.model.state_dict()


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize(
    "more",
    [
        ["train.batch_size=5"],
        ["train.batch_size=2", "train.ema=0.5", "train.clip=1e-3"],
        ["train.batch_size=8", "train.accumulate=2", "train.optimizer.use=muon"],
    ],
    ids=["uneven shares", "fewer samples than processes", "accumulated, muon"],
)
def test_a_step_is_that_of_one_process(folder, registry, size, more):
    loss, expected, weights = first_step(trainer(folder, registry, *more))
    found = job(size, lambda processes: first_step(trainer(folder, registry, *more, processes=processes)))
    for other_loss, other, _ in found:
        assert other_loss == pytest.approx(loss, rel=1e-6)
        for name, value in expected.items():
            torch.testing.assert_close(
                other[name], value, rtol=0, atol=1e-5 * value.abs().max().item() + 1e-12, msg=name
            )
    for _, _, others in found[1:]:
        assert all(torch.equal(value, others[name]) for name, value in found[0][2].items())
    assert any(
        not torch.equal(value, weights[name]) for name, value in trainer(folder, registry).model.state_dict().items()
    )


def test_losses_agree_over_50_steps(folder, registry):
    """Of 1, 2 and 4 processes; the batches of 12 samples have 5, 5 and 2."""

    def losses(processes):
        run = trainer(folder, registry, "train.epochs=17", "train.batch_size=5", processes=processes)
        found = []
        while not run.finished:
            found += [run.step(batch) for batch in run.batches()]
        return found

    expected = losses(ALONE)
    assert len(expected) == 51
    for size in (2, 4):
        for found in job(size, losses):
            assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_samples_are_those_of_one_process(folder, registry, workers):
    experiment = load_experiment(folder / "tiny.toml", registry)
    dataset = CropDataset(open_images(experiment.data.images), experiment.data, 0)
    whole = list(batches(dataset, 5, epoch=1))
    for k, batch in enumerate(whole):
        assert "share" not in batch
        parts = [list(batches(dataset, 5, 1, workers=workers, processes=Processes(rank, 4)))[k] for rank in range(4)]
        assert [part["share"] * len(batch["index"]) for part in parts] == [
            len(part["index"]) if part["share"] else 0 for part in parts
        ]
        for name, value in batch.items():
            together = torch.cat([part[name] for part in parts if part["share"]])
            assert torch.equal(together, value), name


@pytest.mark.parametrize("size", [2, 3])
def test_scores_are_those_of_one_process(folder, registry, size, tmp_path):
    """Of four images on 2 processes, and on 3, where one has two."""
    run = trainer(folder, registry)
    images = open_images(load_experiment(folder / "tiny.toml", registry).data.images)
    scales = [Scale.of(2), Scale.of(3)]

    def scores(processes):
        out = tmp_path / f"{processes.size}" / "picture.png"
        found = evaluate_set(
            run.model, images, "four", scales, "rgb", device="cpu", progress=False, picture=out, processes=processes
        )
        return [(score.psnr, dict(score.images), dict(score.bicubic_images)) for score in found]

    expected = scores(ALONE)
    for found in job(size, scores):
        for (mean, images_found, bicubic), (one, one_images, one_bicubic) in zip(found, expected):
            assert mean == pytest.approx(one, abs=1e-9) and list(images_found) == list(one_images)
            assert images_found == pytest.approx(one_images, abs=1e-9)
            assert bicubic == pytest.approx(one_bicubic, abs=1e-9)
    pictures = [(tmp_path / f"{n}" / "picture.png").read_bytes() for n in (1, size)]
    assert pictures[0] == pictures[1]


def test_an_image_that_one_process_cannot_measure_ends_all(folder, registry):
    def scores(processes):
        run = trainer(folder, registry)
        if processes.rank == 1:
            torch.nn.init.constant_(run.model.decoder.layers[-1].bias, float("nan"))
        images = open_images(load_experiment(folder / "tiny.toml", registry).data.images)
        evaluate_set(run.model, images, "four", [Scale.of(2)], "rgb", device="cpu", progress=False, processes=processes)

    first, second = job(2, scores)
    assert "rank 1 on" in str(first) and "not finite" in str(first) and second.problems == ()


def whole_run(folder, registry, out, processes, stop_at=None, rank=None, how=None):
    """The weights and log of a run, or how it ended."""
    run = trainer(folder, registry, "train.ema=0.9", "train.epochs=4", out=out, processes=processes)
    if stop_at is not None and processes.rank == rank:
        step = run._step

        def stopping(batch):
            step(batch)
            if run.progress.step + 1 == stop_at:
                how()

        run._step = stopping
    trained = run.run(resume=True)
    return trained.steps, trained.best, run.notes, run.eval_model.state_dict()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("rank", [0, 1])
def test_all_stop_after_the_same_step_and_go_on_exactly(folder, registry, tmp_path, rank):
    def stopped(processes):
        whole_run(folder, registry, tmp_path / "two", processes, 5, rank, lambda: signal.raise_signal(signal.SIGTERM))

    first, second = job(2, stopped)
    assert isinstance(first, Interrupted) and "stopped by SIGTERM after step 5" in str(first)
    assert isinstance(second, SystemExit) and second.code == 130
    expected = job(2, lambda processes: whole_run(folder, registry, tmp_path / "one", processes))
    found = job(2, lambda processes: whole_run(folder, registry, tmp_path / "two", processes))
    assert found[0][0] == expected[0][0] == 12 and found[0][1] == expected[0][1] == expected[1][1]
    assert same(found[0][3], expected[0][3]) and same(found[1][3], expected[0][3]) and found[0][2] == []
    steps = [json.loads(line)["step"] for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps) and steps[-1] == 12


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_all_and_the_run_goes_on_exactly(folder, registry, tmp_path, rank):
    def killed(processes):
        whole_run(folder, registry, tmp_path / "two", processes, 8, rank, lambda: os.kill(os.getpid(), signal.SIGKILL))

    ended = job(2, killed)
    assert isinstance(ended[rank], ChildProcessError) and "another process of this job ended" in str(ended[1 - rank])
    expected = job(2, lambda processes: whole_run(folder, registry, tmp_path / "one", processes))
    found = job(2, lambda processes: whole_run(folder, registry, tmp_path / "two", processes))
    assert same(found[0][3], expected[0][3]) and same(found[1][3], expected[0][3])


def test_a_run_goes_on_with_another_number_of_processes_and_says_so(folder, registry, tmp_path):
    def stopped(processes):
        whole_run(folder, registry, tmp_path, processes, 5, 0, lambda: signal.raise_signal(signal.SIGTERM))

    job(2, stopped)
    steps, _, notes, weights = whole_run(folder, registry, tmp_path, ALONE)
    assert steps == 12 and notes == ["number of processes: 1, before 2"]
    expected = whole_run(folder, registry, tmp_path / "one", ALONE)[3]
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-5 * value.abs().max().item() + 1e-8, msg=name)


def test_a_loss_that_is_not_finite_is_said_once(folder, registry, tmp_path):
    def diverging(processes):
        run = trainer(folder, registry, out=tmp_path, processes=processes)
        with torch.no_grad():
            next(run.model.parameters()).fill_(float("inf"))
        run.run()

    first, second = job(2, diverging)
    assert "the loss is nan" in str(first) and isinstance(second, UserError) and second.problems == ()
    assert not list(tmp_path.glob("checkpoints/*"))


def test_processes_that_do_not_share_the_folder_are_refused(folder, registry, tmp_path):
    whole_run(folder, registry, tmp_path / "0", ALONE)
    (tmp_path / "1").mkdir()
    first, second = job(2, lambda processes: whole_run(folder, registry, tmp_path / str(processes.rank), processes))
    assert "steps of the run" in str(first) and "has 12, and rank 1" in str(first) and second.problems == ()
