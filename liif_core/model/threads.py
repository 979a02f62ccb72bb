"""Whole pieces of work on threads, in place of threads inside each small operation.

Threads inside an operation wait for each other at its end. Where other processes use the cores, that wait is long, and
it comes at every operation. Threads that take whole pieces of work wait once.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

import torch
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

Item = TypeVar("Item")
Result = TypeVar("Result")

_pools: dict[int, ThreadPoolExecutor] = {}
_lock = threading.Lock()


def on_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """``function`` of each item, in order, on as many threads as torch uses on a CPU.

    A result is available as soon as it and those before it are complete. Inside ``function``, operations use one thread
    each; gradient mode, inference mode and autocast are the caller's. A call from inside ``function``, and a call under
    a torch dispatch or function mode, which another thread would not see, processes the items one after the other.
    """
    items = list(items)
    threads = torch.get_num_threads()
    if threads < 2 or len(items) < 2 or _get_current_dispatch_mode_stack() or _get_current_function_mode_stack():
        return map(function, items)
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
    autocast, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def call(item: Item) -> Result:
        with ExitStack() as modes:
            modes.enter_context(torch.inference_mode(inference))
            modes.enter_context(torch.set_grad_enabled(gradients))
            modes.enter_context(torch.autocast("cpu", dtype, enabled=autocast))
            return function(item)

    return _pool(threads).map(call, items)


def _pool(threads: int) -> ThreadPoolExecutor:
    """The threads of this process, which wait for work until it ends."""
    with _lock:
        if threads not in _pools:
            started = threading.Barrier(threads)
            pool = ThreadPoolExecutor(threads, "liif-core", initializer=_use_one_thread)
            list(pool.map(lambda _: started.wait(), range(threads)))  # starts all threads
            torch.set_num_threads(threads)  # threads that start later take the number that was set last
            _pools[threads] = pool
        return _pools[threads]


def _use_one_thread() -> None:
    torch.get_num_threads()  # torch initializes its number for this thread at the first use, which must not come later
    torch.set_num_threads(1)


def _forget_pools() -> None:
    """In a forked process, which does not have the threads of its parent."""
    global _lock
    _pools.clear()
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pools)
