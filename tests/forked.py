"""Processes that begin with torch, Detectron2 and the training imported, which takes seconds in each new process.

One process a worker of pytest, which has run nothing, imports them; the others are forked from it.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from typing import Any

from torch.multiprocessing.spawn import start_processes

PRELOADED = ("d2tune.engine.launch", "d2tune.engine.process", "detectron2.engine", "d2tune.runs.predict")

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(list(PRELOADED))


def exit_code(work: Callable[..., None], *args: Any) -> int | None:
    """Call ``work`` of a module in a process with the environment of this one; returns how the process ended."""
    process = _context.Process(target=_in_environment, args=(dict(os.environ), work, *args))
    process.start()
    process.join()
    return process.exitcode


def together(work: Callable[..., None], *args: Any, processes: int) -> None:
    """Call ``work(rank, *args)`` in several processes; raises what torch raises where one of them fails."""
    start_processes(  # type: ignore[no-untyped-call]
        _ranked, (dict(os.environ), work, *args), nprocs=processes, start_method="forkserver"
    )


def _ranked(rank: int, environment: dict[str, str], work: Callable[..., None], *args: Any) -> None:
    _in_environment(environment, work, rank, *args)


def _in_environment(environment: dict[str, str], work: Callable[..., None], *args: Any) -> None:
    os.environ.clear()
    os.environ.update(environment)
    work(*args)
