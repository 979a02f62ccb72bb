"""Whole pieces of work on threads, in place of threads inside each small operation.

Inside an operation, threads wait for each other at its end. Where other processes use the cores, that wait is long, and
it comes at every operation. Threads that take whole pieces of work wait once.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def on_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """``function`` of each item, in order, on as many threads as torch uses on a CPU.

    Each thread runs its operations on one thread. Inference mode, gradient mode and autocast are those of the caller.
    """
    items = list(items)
    threads = min(torch.get_num_threads(), len(items))
    if threads < 2:
        return [function(item) for item in items]
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
    autocast, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def call(item: Item) -> Result:
        with ExitStack() as modes:
            modes.enter_context(torch.inference_mode(inference))
            modes.enter_context(torch.set_grad_enabled(gradients))
            modes.enter_context(torch.autocast("cpu", dtype, enabled=autocast))
            return function(item)

    count = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(call, items))
    finally:
        torch.set_num_threads(count)  # new threads of the process take the number that was set last
