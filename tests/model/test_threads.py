"""Work on threads: results in order, the caller's modes, one thread inside, and no use in forked processes."""

import multiprocessing
import multiprocessing.pool
import threading

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from liif_core.model.threads import on_threads


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_are_in_order():
    assert list(on_threads(lambda i: i * i, range(50))) == [i * i for i in range(50)]


def test_all_threads_work_at_the_same_time():
    together = threading.Barrier(2, timeout=30)  # both must be in ``function`` to pass
    assert len({*on_threads(lambda _: (together.wait(), threading.get_ident())[1], range(2))}) == 2


def test_one_thread_inside_and_the_old_number_outside():
    assert set(on_threads(lambda _: torch.get_num_threads(), range(8))) == {1}
    assert torch.get_num_threads() == 2
    with multiprocessing.pool.ThreadPool(1) as pool:  # a thread that starts later
        assert pool.apply(torch.get_num_threads) == 2


def test_a_call_from_inside_is_serial():
    def nested(_):
        here = threading.get_ident()
        return all(ident == here for ident in on_threads(lambda _: threading.get_ident(), range(4)))

    assert all(on_threads(nested, range(4)))


def test_modes_are_those_of_the_caller():
    def modes(_):
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")

    assert set(on_threads(modes, range(4))) == {(True, False, False)}
    with torch.no_grad():
        assert set(on_threads(modes, range(4))) == {(False, False, False)}
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert set(on_threads(modes, range(4))) == {(False, True, True)}


def test_dispatch_modes_see_all_operations():
    counter = FlopCounterMode(display=False)
    with counter:
        list(on_threads(lambda _: torch.ones(4, 4) @ torch.ones(4, 4), range(6)))
    assert counter.get_total_flops() == 6 * 2 * 4**3


def test_an_error_reaches_the_caller():
    def fails(i):
        if i == 3:
            raise ValueError("item 3")
        return i

    with pytest.raises(ValueError, match="item 3"):
        list(on_threads(fails, range(6)))
    assert list(on_threads(lambda i: i, range(6))) == list(range(6))


def _sum_in_child(queue):
    queue.put(sum(on_threads(lambda i: i, range(10))))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_has_its_own_threads():
    list(on_threads(lambda i: i, range(10)))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_sum_in_child, args=(queue,))
    process.start()
    try:
        assert queue.get(timeout=60) == 45
    finally:
        process.join(10)
        process.kill()
