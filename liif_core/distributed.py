"""The processes of one job, as torchrun starts them: which one this is, and what they tell one another.

Without torchrun a job is one process, and nothing here costs anything. What the processes exchange beside gradients
goes over gloo, so that a GPU does not wait for it.
"""

import gc
import hashlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar
from uuid import uuid4

import torch
import torch.distributed as dist
from attrs import frozen

from liif_core.errors import Interrupted, UserError

T = TypeVar("T")

_TOLD = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # by torchrun
_TO_START = timedelta(minutes=10)  # for all processes, once the first has started
_TO_WAIT = timedelta(days=7)  # for one that has more to do; one that ended is noticed at once
_PAUSE = 0.02  # seconds
_INTERRUPTED = 130  # exit code


class ProcessLost(UserError):
    """Another process of the job ended, or cannot be reached."""


@frozen
class Processes:
    """The processes of a job, of which this is number ``rank``, from 0; on its machine, number ``local_rank``."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    @property
    def name(self) -> str:
        """What messages call this process."""
        return f"rank {self.rank} on {socket.gethostname()}"

    def together(self, work: Callable[[], T]) -> list[T]:
        """What ``work`` returns on each process, by rank; all processes must call this. Results must be picklable.

        Where it raises UserError on any process, all raise one: the first with all problems, and with the names of
        those processes unless all have the same; the others with none, since they have been said. Raises ProcessLost
        where another process ended.
        """
        if self.size == 1:
            return [work()]
        result: T | None = None
        problems: tuple[str, ...] = ()
        kind: type[UserError] = UserError
        try:
            result = work()
        except UserError as error:
            problems, kind = error.problems, type(error)
        outcomes = self._gathered((result, problems, kind, self.name))
        failed = [(problems, kind, name) for _, problems, kind, name in outcomes if problems]
        if not failed:
            return [result for result, _, _, _ in outcomes]
        kinds = [kind for _, kind, _ in failed]
        raised = kinds[0] if kinds == [kinds[0]] * self.size else UserError
        raise raised(*(_joined(failed, self.size) if self.first else ()))

    def each(self, work: Callable[[], T]) -> T:
        """What ``work`` returns here, where it returns on all processes; raises as ``together`` does."""
        own: list[T] = []
        self.together(lambda: own.append(work()))
        return own[0]

    def on_first(self, work: Callable[[], T]) -> T:
        """What ``work`` returns on the first process, which alone runs it; all processes must call this."""
        return self.together(lambda: work() if self.first else None)[0]  # type: ignore[return-value]

    def agree(self, values: Mapping[str, object]) -> None:
        """Raise UserError, on all processes, where any of these differs among them; only the first says what does."""
        others = self.together(lambda: (dict(values), self.name))
        problems = []
        for key in dict.fromkeys(key for found, _ in others for key in found):
            told = {name: found.get(key) for found, name in others}
            own = values.get(key)
            differs = next(((name, value) for name, value in told.items() if value != own), None)
            if differs is not None:
                problems.append(f"{key}: {self.name} has {own}, and {differs[0]} has {differs[1]}")
        if problems and self.first:
            raise UserError(*(f"{problem}; all processes need the same" for problem in problems))
        if problems or any(found != dict(values) for found, _ in others):
            raise UserError()

    def wait(self) -> None:
        """Return when all processes have called this."""
        self.together(lambda: None)

    def largest(self, value: int) -> int:
        """The largest of the values of all processes, which must all call this."""
        if self.size == 1:
            return value
        held = torch.tensor(value)
        with noticing_loss():
            dist.all_reduce(held, dist.ReduceOp.MAX)
        return int(held)

    def total(self, value: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over all processes, which must all call this; on a GPU, without waiting for it."""
        if self.size > 1:
            with noticing_loss():
                dist.all_reduce(value)
        return value

    def share(self, count: int) -> range:
        """The part that this process has of ``count`` things in order; shares differ by at most one."""
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def _gathered(self, value: Any) -> list[Any]:
        found: list[Any] = [None] * self.size
        with noticing_loss():
            dist.all_gather_object(found, value)
        return found


ALONE = Processes()


class Store(Protocol):
    """Texts by their names, which all processes of a job read and write, as torchrun offers it."""

    def set(self, key: str, value: str, /) -> object: ...

    def get(self, key: str, /) -> bytes: ...

    def check(self, keys: list[str], /) -> bool: ...


def processes_of_job(environment: dict[str, str] | None = None) -> Processes:
    """This process among those of its job, from what torchrun sets in the environment.

    Raises UserError where some of that is missing, or is not what torchrun sets.
    """
    told = os.environ if environment is None else environment
    values = {name: told.get(name, "").strip() for name in _TOLD}
    size = values["WORLD_SIZE"]
    if not values["RANK"] or not size or size == "1":
        return ALONE
    listed = ", ".join(f"{name}={value}" for name, value in values.items() if value)
    missing = [name for name, value in values.items() if not value]
    advice = "start the command with torchrun, or, if nothing uses these variables, unset them"
    if missing:
        raise UserError(f"{listed}: set as torchrun sets them, but {', '.join(missing)} not; {advice}")
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if not all(values[name].isascii() and values[name].isdigit() for name in (*names, "MASTER_PORT")):
        raise UserError(f"{listed}: expected whole numbers but for MASTER_ADDR; {advice}")
    rank, world, local, here = (int(values[name]) for name in names)
    if rank >= world or local >= here or here > world:
        raise UserError(f"{listed}: expected ranks from 0 to one less than their number; {advice}")
    return Processes(rank, world, local, here)


def started_by_torchrun() -> bool:
    """Whether this is one of several processes, with all that torchrun sets in the environment."""
    return all(os.environ.get(name) for name in _TOLD) and os.environ["WORLD_SIZE"] != "1"


@contextmanager
def joined(several: bool = True) -> Iterator[Processes]:
    """Join the job that this process belongs to, for the body. Alone, and without ``several``, that does nothing.

    An error of this process alone gets its name. Where the job is interrupted, only the first process says so.
    """
    mine = processes_of_job() if several else ALONE
    if mine.size == 1:
        yield mine
        return
    from torch.distributed.rendezvous import rendezvous  # here: builds of torch without it work in one process

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    try:
        store, rank, size = next(rendezvous("env://", mine.rank, mine.size, timeout=_TO_START))
        own = dist.PrefixStore(meet(store, rank, size, _TO_START), store)  # type: ignore[attr-defined]
        dist.init_process_group(backend, timeout=_TO_WAIT, store=own, rank=rank, world_size=size)
    except (RuntimeError, OSError) as error:  # of which torch's errors of a network are kinds
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise UserError(
            f"{mine.name}: cannot join the {mine.size} processes at {place}: {str(error).splitlines()[0][:200]}; "
            "is the port in use, or another process not started?"
        ) from None
    try:
        yield mine
        mine.wait()  # torchrun would end the others where one that leaves early fails
    except UserError as error:
        _tell_torchrun(error)
        if not error.problems or (mine.first and not isinstance(error, ProcessLost)):
            raise
        raise UserError(*(f"{mine.name}: {line}" for line in error.problems)) from error.__cause__
    except (Interrupted, KeyboardInterrupt):
        if mine.first:
            raise
        raise SystemExit(_INTERRUPTED) from None
    gc.collect()  # a DistributedDataParallel that is there still may abort the process when it ends (PyTorch 2.13)
    with suppress(RuntimeError):
        dist.destroy_process_group()


def meet(store: Store, rank: int, size: int, within: timedelta) -> str:
    """A name that these processes, and no earlier ones, agree on, once all are here.

    torchrun gives the processes that it starts again the store of those before, where their addresses still are; a
    process that took such an address for that of another would wait for ever (PyTorch 2.13). Each process writes a
    number of its own. The first offers a list of the numbers that it sees, again whenever one changes, until each
    other process has confirmed a list with its own number.

    Raises UserError where not all are here ``within`` the time.
    """
    own = uuid4().hex
    store.set(f"liif/here/{rank}", own)
    end = time.monotonic() + within.total_seconds()
    while time.monotonic() < end:
        if rank == 0:
            offered = ",".join(_stored(store, f"liif/here/{other}") for other in range(size))
            store.set("liif/offered", offered)
        else:
            offered = _stored(store, "liif/offered")
        numbers, name = offered.split(","), hashlib.sha256(offered.encode()).hexdigest()
        if len(numbers) == size and all(numbers) and numbers[rank] == own:
            store.set(f"liif/confirmed/{rank}", name)
            if rank == 0 and all(_stored(store, f"liif/confirmed/{other}") == name for other in range(size)):
                store.set("liif/agreed", name)
            if _stored(store, "liif/agreed") == name:
                return name
        time.sleep(_PAUSE)
    raise UserError(f"rank {rank}: not all of {size} processes have started within {within}")


def _stored(store: Store, key: str) -> str:
    return store.get(key).decode() if store.check([key]) else ""


@contextmanager
def noticing_loss() -> Iterator[None]:
    """Raise ProcessLost in place of what torch raises where another process ended."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not any(name in str(error) for name in ("gloo", "NCCL")):
            raise
        raise ProcessLost(
            "another process of this job ended, or cannot be reached; its own message, or that of torchrun, says why"
        ) from None


def _joined(failed: list[tuple[tuple[str, ...], Any, str]], size: int) -> list[str]:
    """The problems of processes, each once; with the names of the processes, unless all of them have it."""
    by_line: dict[str, list[str]] = {}
    for problems, _, name in failed:
        for line in problems:
            by_line.setdefault(line, []).append(name)
    return [line if len(names) == size else f"{', '.join(names)}: {line}" for line, names in by_line.items()]


def _tell_torchrun(error: UserError) -> None:
    """Write the message where torchrun looks for it, to show it in its summary."""
    place = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if place and error.problems:
        with suppress(OSError):
            text = json.dumps({"message": str(error), "timestamp": int(time.time())})
            Path(place).write_text(text, encoding="utf-8")
