"""What the processes of a job tell one another, and how one that fails ends all."""

import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch
from jobs import job

from liif_core import UserError
from liif_core.distributed import ALONE, Processes, joined, meet, processes_of_job
from liif_core.errors import Interrupted

TORCHRUN = {
    "RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1",
}  # fmt: skip


class TestWhoIsWho:
    def test_torchrun_says(self):
        assert processes_of_job(TORCHRUN) == Processes(rank=1, size=4, local_rank=1, local_size=2)

    @pytest.mark.parametrize("told", [{}, {"RANK": "0"}, {"WORLD_SIZE": "8"}, {"RANK": "0", "WORLD_SIZE": "1"}])
    def test_alone(self, told):
        assert processes_of_job(told) == ALONE
        with joined() as processes:
            assert processes == ALONE

    @pytest.mark.parametrize("name", ["LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"])
    def test_half_set(self, name):
        with pytest.raises(UserError, match=f"RANK=1, WORLD_SIZE=4.*but {name} not.*torchrun.*unset"):
            processes_of_job({key: value for key, value in TORCHRUN.items() if key != name})

    @pytest.mark.parametrize(
        "wrong", [{"RANK": "4"}, {"RANK": "-1"}, {"LOCAL_RANK": "2"}, {"LOCAL_WORLD_SIZE": "5"}, {"WORLD_SIZE": "two"}]
    )
    def test_wrong(self, wrong):
        with pytest.raises(UserError, match="expected"):
            processes_of_job({**TORCHRUN, **wrong})

    @pytest.mark.parametrize("count, size", [(0, 3), (2, 3), (7, 3), (8, 1), (100, 7)])
    def test_shares_are_all_in_order(self, count, size):
        shares = [Processes(rank, size).share(count) for rank in range(size)]
        assert [i for share in shares for i in share] == list(range(count))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_everything_is_direct():
    assert ALONE.together(lambda: 3) == [3] and ALONE.each(lambda: 4) == 4 and ALONE.on_first(lambda: 5) == 5
    assert ALONE.largest(6) == 6 and ALONE.total(torch.tensor(2.0)) == 2
    ALONE.agree({"a": 1})
    with pytest.raises(UserError, match="^wrong$"):
        ALONE.each(_wrong)


def _wrong():
    raise UserError("wrong")


def test_exchange():
    def work(processes):
        return (
            processes.together(lambda: processes.rank * 10),
            processes.each(lambda: processes.rank),
            processes.on_first(lambda: f"from {processes.rank}"),
            processes.largest(5 - processes.rank),
            processes.total(torch.tensor([1.0, processes.rank])).tolist(),
        )

    found = job(3, work)
    assert found == [([0, 10, 20], rank, "from 0", 5, [3.0, 3.0]) for rank in range(3)]


def test_the_first_says_what_is_wrong_on_another():
    def work(processes):
        processes.each(_wrong if processes.rank == 2 else lambda: None)

    first, second, third = job(3, work)
    assert isinstance(first, UserError) and re.fullmatch(r"rank 2 on \S+: wrong", str(first))
    assert [second.problems, third.problems] == [(), ()] and isinstance(third, UserError)


def test_what_is_wrong_on_all_is_said_once():
    first, second = job(2, lambda processes: processes.each(_wrong))
    assert first.problems == ("wrong",) and second.problems == ()


def test_differences_are_named():
    def work(processes):
        processes.agree({"torch": "2", "steps": 4})
        processes.agree({"torch": f"2.{processes.rank == 2}", "steps": 4})

    first, *others = job(3, work)
    assert re.fullmatch(
        r"torch: rank 0 on \S+ has 2.False, and rank 2 on \S+ has 2.True; all processes need the same", str(first)
    )
    assert all(isinstance(other, UserError) and not other.problems for other in others)


@pytest.mark.parametrize("how", ["killed", "raises"])
def test_a_lost_process_is_noticed(how):
    def work(processes):
        if processes.rank == 1:
            if how == "raises":
                raise UserError("mine")
            os._exit(9)
        processes.wait()

    first, second, third = job(3, work)
    for rank, found in ((0, first), (2, third)):
        assert isinstance(found, UserError) and re.search(f"^rank {rank} on .*: another process", str(found))
    if how == "raises":
        assert re.fullmatch(r"rank 1 on \S+: mine", str(second))


def test_only_the_first_says_that_it_was_interrupted():
    def work(processes):
        processes.wait()
        raise Interrupted("stopped")

    first, second = job(2, work)
    assert str(first) == "stopped" and isinstance(second, SystemExit) and second.code == 130


def test_a_port_in_use_is_named(monkeypatch):
    import socket

    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        place.listen()
        port = str(place.getsockname()[1])
        for name, value in {**TORCHRUN, "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(UserError, match=rf"rank 0 .*cannot join the 4 processes at 127.0.0.1:{port}.*port in use"):
            joined().__enter__()


@pytest.mark.parametrize("size", [2, 5])
def test_processes_of_an_earlier_start_are_not_met(size):
    """The store still has what those have written, and the new processes come one after the other."""
    store = torch.distributed.HashStore()
    names = []
    for _ in range(3):
        with ThreadPoolExecutor(size) as pool:
            started = []
            for rank in reversed(range(size)):
                started.append(pool.submit(meet, store, rank, size, timedelta(seconds=20)))
                time.sleep(0.05)
            found = {one.result() for one in started}
        assert len(found) == 1
        names += found
    assert len(set(names)) == 3


def test_processes_that_never_start():
    store = torch.distributed.HashStore()
    for key in ("here/1", "confirmed/1", "agreed"):
        store.set(f"liif/{key}", "stale")
    with pytest.raises(UserError, match="rank 0: not all of 2 processes have started"):
        meet(store, 0, 2, timedelta(seconds=0.2))


def test_torchrun_shows_the_message(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    job(2, lambda processes: processes.each(_wrong))
    assert '"message": "wrong"' in (tmp_path / "error.json").read_text()
