"""Several processes of one job, forked from the tests' own: quicker than torchrun, which ``test_torchrun`` starts."""

import faulthandler
import multiprocessing
import os
import pickle
import socket
import traceback
from collections.abc import Callable
from typing import Any

import torch

from liif_core.distributed import Processes, joined


def free_port() -> int:
    """A port of this machine that nothing uses now."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def job(size: int, work: Callable[[Processes], Any], seconds: float = 120) -> list[Any]:
    """What ``work`` returns, or the exception that it raises, in each of ``size`` processes, by rank."""
    context, port = multiprocessing.get_context("fork"), free_port()
    pipes = [context.Pipe(duplex=False) for _ in range(size)]
    started = [
        context.Process(target=_run, args=(rank, size, port, work, pipe[1]), daemon=True)
        for rank, pipe in enumerate(pipes)
    ]
    for process in started:
        process.start()
    for _, end in pipes:
        end.close()  # the child has its own, and what it does not send is noticed
    results = []
    try:
        for process, (end, _) in zip(started, pipes):
            assert end.poll(seconds), "a process neither ended nor answered"
            try:
                results.append(pickle.loads(end.recv_bytes()))
            except EOFError:
                process.join(10)
                results.append(ChildProcessError(process.exitcode))
    finally:
        for process in started:
            process.kill()
            process.join()
    return results


def _run(rank: int, size: int, port: int, work: Callable[[Processes], Any], end: Any) -> None:
    faulthandler.dump_traceback_later(60)  # where it waits, if it does not end
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    os.environ |= dict(zip(names, map(str, (rank, size, rank, size, "127.0.0.1", port))))
    try:
        with joined() as processes:
            result = work(processes)
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        traceback.print_exc()
        result = error
    end.send_bytes(pickle.dumps(result))  # torch would send a tensor as a file, which ends with this process
    end.close()
    os._exit(0)  # nothing that belongs to the parent is torn down
