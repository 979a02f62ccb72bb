"""The queue of what a model has to compute: one thread, which serves the clients in turn.

Work is a generator. Between two of its steps, the thread may go on with the work of another client, and work that is
no longer wanted ends. The value that the generator returns is the result.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any

from attrs import define

Steps = Generator[None, None, Any]
Background = Callable[[], Steps | None]


@define(eq=False)
class Work:
    """Work in the queue; ``future`` receives its result, or the exception that it raised."""

    client: str
    steps: Steps
    future: "Future[Any]"
    cancelled: bool = False


class WorkQueue:
    """Does work in a thread of its own. ``background`` makes work for the time in which no client has any."""

    def __init__(self, background: Background = lambda: None):
        self._background = background
        self._clients: deque[str] = deque()  # those with work, in the order of their turns
        self._work: dict[str, deque[Work]] = {}
        self._idle: Steps | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="liif-view-model", daemon=True)
        self._thread.start()

    def submit(self, client: str, steps: Steps) -> Work:
        """Append to the work of a client."""
        work = Work(client, steps, Future())
        with self._changed:
            if self._closed:
                raise RuntimeError("the queue is closed")
            self._of(client).append(work)
            self._changed.notify()
        return work

    def cancel(self, work: Work) -> None:
        """Nobody waits for this work any more: it ends at its next step."""
        with self._changed:
            work.cancelled = True
            waiting = self._work.get(work.client, deque())
            between_steps = work in waiting
            if between_steps:
                waiting.remove(work)
                self._forget_if_done(work.client)
        if between_steps:
            work.steps.close()
        work.future.cancel()

    def wake(self) -> None:
        """There may be work for the background."""
        with self._changed:
            self._changed.notify()

    def close(self) -> None:
        """Finish the step that is being done, and drop all other work."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        for work in [work for works in self._work.values() for work in works]:
            work.steps.close()
            work.future.cancel()
        if self._idle is not None:
            self._idle.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not self._clients:
                    if self._idle is None:
                        self._idle = self._background()
                    if self._idle is not None:
                        break
                    self._changed.wait()
                if self._closed:
                    return
                work = self._next()
            if work is not None:
                self._step(work)
            elif self._idle is not None and _advance(self._idle):
                self._idle = None

    def _next(self) -> Work | None:
        """The first work of the client whose turn it is; the client goes to the end of the line."""
        if not self._clients:
            return None
        self._clients.rotate(-1)
        return self._work[self._clients[-1]].popleft()

    def _step(self, work: Work) -> None:
        result, error, done = None, None, False
        try:
            if not work.cancelled:
                next(work.steps)
        except StopIteration as end:
            result, done = end.value, True
        except BaseException as problem:  # whatever it is, it is for the one who waits
            error, done = problem, True
        with self._changed:
            if not done and not work.cancelled:
                self._of(work.client).appendleft(work)
                return
            self._forget_if_done(work.client)
        if work.cancelled:
            work.steps.close()
        elif not work.future.set_running_or_notify_cancel():
            return
        elif error is not None:
            work.future.set_exception(error)
        else:
            work.future.set_result(result)

    def _of(self, client: str) -> deque[Work]:
        """The work of a client, who takes the last place in the line if there is none yet."""
        if client not in self._work:
            self._work[client] = deque()
            self._clients.append(client)
        return self._work[client]

    def _forget_if_done(self, client: str) -> None:
        if client in self._work and not self._work[client]:
            del self._work[client]
            self._clients.remove(client)


def _advance(steps: Steps) -> bool:
    """One step; whether it was the last. What goes wrong in the background is found again when it is asked for."""
    try:
        next(steps)
    except StopIteration:
        return True
    except Exception:
        return True
    return False
