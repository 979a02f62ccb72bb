"""Work on all cores, with results in the order of submission; used for compression."""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

WORKERS = min(8, os.cpu_count() or 1)  # with more, the disk or memory is the limit


class InOrder:
    """Runs functions on the threads of ``pool``; passes results, in order, to ``take`` on the caller's thread.

    At most 2 * WORKERS calls are pending. An exception is raised when its result would be passed on.
    """

    def __init__(self, pool: Executor, take: Callable[[Any], None]):
        self.pool, self.take = pool, take
        self.due: deque[Future[Any]] = deque()

    def submit(self, work: Callable[..., Any], *arguments: Any) -> None:
        """Start ``work(*arguments)``; waits for earlier calls where too many are pending."""
        self.due.append(self.pool.submit(work, *arguments))
        self._hand_over(2 * WORKERS - 1)

    def finish(self) -> None:
        """Wait until all results have been passed on."""
        self._hand_over(0)

    def _hand_over(self, left: int) -> None:
        while len(self.due) > left:
            self.take(self.due.popleft().result())
