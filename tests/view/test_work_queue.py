"""The queue serves clients in turn, ends what nobody waits for, and works in the background when it is idle."""

import threading
import time
from concurrent.futures import CancelledError

import pytest

from liif_core.view.work_queue import WorkQueue


@pytest.fixture
def queue():
    queue = WorkQueue()
    yield queue
    queue.close()


def steps(log, name, count=1, gate=None, result=None):
    for number in range(count):
        if gate is not None:
            gate.wait(10)
        log.append(f"{name}{number}")
        yield
    return result or name


def test_results_and_errors_reach_the_one_who_waits(queue):
    def failing():
        yield
        raise ValueError("no")

    assert queue.submit("a", steps([], "x", result="found")).future.result(10) == "found"
    with pytest.raises(ValueError, match="no"):
        queue.submit("a", failing()).future.result(10)
    assert queue.submit("a", steps([], "y")).future.result(10) == "y"  # it goes on


def test_clients_take_turns(queue):
    """One client with much work does not keep another waiting, and each client's work is done in order."""
    log, gate = [], threading.Event()
    first = queue.submit("gate", steps(log, "gate", gate=gate))
    works = [queue.submit("greedy", steps(log, f"g{i}-", 2)) for i in range(5)]
    works += [queue.submit("modest", steps(log, "m-", 2))]
    gate.set()
    for work in [first, *works]:
        work.future.result(10)
    assert log[1:5] in (["g0-0", "m-0", "g0-1", "m-1"], ["m-0", "g0-0", "m-1", "g0-1"])
    assert [line for line in log if line.startswith("g") and line != "gate0"] == [
        f"g{i}-{step}" for i in range(5) for step in range(2)
    ]


def test_cancelled_work_ends(queue):
    log, gate, closed = [], threading.Event(), threading.Event()

    def endless():
        try:
            while True:
                gate.wait(10)
                log.append("step")
                yield
        finally:
            closed.set()

    running = queue.submit("a", endless())
    waiting = queue.submit("a", steps(log, "never"))
    queue.cancel(waiting)
    gate.set()
    while not log:
        time.sleep(0.001)
    queue.cancel(running)
    assert closed.wait(10)
    assert queue.submit("a", steps(log, "after")).future.result(10) == "after"
    assert "never0" not in log
    with pytest.raises(CancelledError):
        waiting.future.result(10)


def test_the_background_works_while_nobody_waits():
    log, left = [], [3]

    def background():
        if not left[0]:
            return None
        left[0] -= 1
        return steps(log, f"back{left[0]}-", 2)

    queue = WorkQueue(background)
    try:
        deadline = time.monotonic() + 10
        while left[0] or len(log) < 6:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        assert log == ["back2-0", "back2-1", "back1-0", "back1-1", "back0-0", "back0-1"]
        left[0] = 1
        queue.wake()
        while len(log) < 8:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        queue.close()


def test_a_failing_background_does_not_end_the_queue():
    tried = []

    def background():
        if tried:
            return None
        tried.append(True)
        return steps(None, "x")  # fails: there is no log

    queue = WorkQueue(background)
    assert queue.submit("a", steps([], "fine")).future.result(10) == "fine"
    queue.close()
    assert tried


def test_closing_ends_all_work():
    started, ended = [], []

    def work(name):
        started.append(name)
        try:
            while True:
                time.sleep(0.001)
                yield
        finally:
            ended.append(name)

    queue = WorkQueue()
    first, second = queue.submit("a", work("first")), queue.submit("b", work("second"))
    while not started:
        time.sleep(0.001)
    queue.close()
    assert sorted(ended) == sorted(started)
    assert first.future.cancelled() and second.future.cancelled()
    with pytest.raises(RuntimeError, match="closed"):
        queue.submit("a", work("third"))
