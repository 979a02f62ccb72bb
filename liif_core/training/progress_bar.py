"""What a training shows while it runs: a bar on a terminal, and at most about a hundred lines in a log file."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, Protocol

from tqdm import tqdm

from liif_core.experiment.description import format_duration

if TYPE_CHECKING:
    from liif_core.training.trainer import Trainer

_SECONDS, _SHARE = 30, 0.01  # between two lines, at least


class Shown(Protocol):
    """A bar or lines, counted in steps."""

    def update(self) -> Any: ...

    def set_description(self, desc: str, refresh: bool) -> Any: ...

    def set_postfix(self, *, refresh: bool, **values: str) -> Any: ...


@contextmanager
def shown(trainer: "Trainer") -> Iterator[Shown]:
    """The progress of a run on stderr; nothing if it is quiet."""
    total, done = trainer.spec.epochs * trainer.per_epoch, trainer.progress.step
    if not trainer.quiet and not sys.stderr.isatty():
        yield _Lines(total, done)
        return
    bar: Any = tqdm(
        total=total,
        initial=done,
        unit="step",
        dynamic_ncols=True,
        disable=trainer.quiet,
        mininterval=0.2,
        file=_Lasting(sys.stderr),
    )
    try:
        yield bar
    finally:
        bar.close()


def say(line: str) -> None:
    """Print a line above the bar, or in a log file. What cannot be printed does not end a training."""
    with suppress(OSError, ValueError):
        tqdm.write(line, file=_Lasting(sys.stdout))


class _Lines:
    """A line now and then, for output that is kept."""

    def __init__(self, total: int, done: int):
        self.total, self.done = total, done
        self.first, self.began = done, time.monotonic()
        self.last = done, self.began
        self.text = self.values = ""

    def update(self) -> None:
        self.done += 1
        now = time.monotonic()
        if now - self.last[1] < _SECONDS or self.done - self.last[0] < self.total * _SHARE:
            return
        self.last = self.done, now
        left = (now - self.began) / (self.done - self.first) * (self.total - self.done)
        line = f"{self.text}: step {self.done:,} of {self.total:,}{self.values}, {format_duration(left)} left"
        print(line, file=_Lasting(sys.stderr), flush=True)

    def set_description(self, desc: str, refresh: bool) -> None:
        self.text = desc

    def set_postfix(self, *, refresh: bool, **values: str) -> None:
        self.values = "".join(f", {name} {value}" for name, value in values.items())


class _Lasting:
    """A stream that may go away, such as that of a terminal that is closed, without an error."""

    def __init__(self, stream: IO[str]):
        self.stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            return self.stream.write(text)
        return 0

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
