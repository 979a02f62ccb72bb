"""Compression on all cores, its results in the order the work came in."""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

WORKERS = min(8, os.cpu_count() or 1)  # past these the disk, or the memory they take, is what counts


class InOrder:
    """Runs work on the threads of ``pool`` and hands each result to ``take`` on the caller's thread, in order.

    At most 2 * WORKERS pieces of work are under way; a piece that raised raises where its result is due.
    """

    def __init__(self, pool: Executor, take: Callable[[Any], None]):
        self.pool, self.take = pool, take
        self.due: deque[Future[Any]] = deque()

    def submit(self, work: Callable[..., Any], *arguments: Any) -> None:
        """Start ``work(*arguments)``; waits for earlier pieces where too many are under way."""
        self.due.append(self.pool.submit(work, *arguments))
        self._hand_over(2 * WORKERS - 1)

    def finish(self) -> None:
        """Wait until all results are handed over."""
        self._hand_over(0)

    def _hand_over(self, left: int) -> None:
        while len(self.due) > left:
            self.take(self.due.popleft().result())
