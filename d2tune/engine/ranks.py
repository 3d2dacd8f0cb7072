"""The processes of a training on several GPUs or machines: how they meet, agree, and end when one of them dies."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from detectron2.utils import comm
from torch import distributed
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # its module names no exports
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from d2tune.errors import D2TuneError, ProjectError, RunError
from d2tune.text import duration, reason_of

Result = TypeVar("Result")

_MEETING = timedelta(minutes=10)
"""Time in which all processes must have started."""

_LONGEST_WAIT = timedelta(hours=2)
"""Time that processes wait for one that scores and draws; one that has died is noticed at once."""

_ANSWER_S = 4.0
"""Time in which processes that live answer where one has died."""

_GRACE_S = 12
"""Time in which a process that is asked to end may say why."""

_LOST = (
    "closed by peer",
    "reset by peer",
    "connection",
    "broken pipe",
    "socket",
    "gloo",
    "nccl",
    "timed out",
    "timeout",
)
"""What errors of the messages between processes say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """The machines of a training without ``torchrun``.

    Attributes:
        count: Number of machines.
        rank: Number of this machine, from 0.
        url: Where the processes meet: ``tcp://HOST:PORT`` of machine 0.
    """

    count: int
    rank: int
    url: str

    def check(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            ProjectError: A number or the address is invalid.
        """
        if self.count < 1:
            raise ProjectError("must be 1 or more", place="--num-machines", found=str(self.count))
        if not 0 <= self.rank < self.count:
            expected = f"0 to {self.count - 1}, another one on each machine"
            raise ProjectError("is not a machine", place="--machine-rank", found=str(self.rank), expected=expected)
        host, _, port = self.url.removeprefix("tcp://").rpartition(":")
        if self.count > 1 and not (self.url.startswith("tcp://") and host and port.isdigit()):
            raise ProjectError(
                "is not an address at which machines can meet",
                place="--dist-url",
                found=self.url or "none",
                expected="tcp://HOST:PORT, where HOST is machine 0",
            )


@dataclass(frozen=True, slots=True)
class Member:
    """A process of a training of several.

    Attributes:
        rank: Its number over all machines, from 0.
        local_rank: Its number on its machine.
        world: Processes of all machines.
        url: Where they meet.
        launch: Names the command that started it, also where it starts again; empty where nothing restarts it.
        restarts: How often it was started again.
    """

    rank: int
    local_rank: int
    world: int
    url: str
    launch: str = ""
    restarts: int = 0

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Member | None:
        """What ``torchrun`` says of this process; None where it was not started by it."""
        if "RANK" not in environment or "MASTER_ADDR" not in environment or "WORLD_SIZE" not in environment:
            return None
        return cls(
            rank=int(environment["RANK"]),
            local_rank=int(environment.get("LOCAL_RANK", "0")),
            world=int(environment["WORLD_SIZE"]),
            url="env://",
            launch=environment.get("TORCHELASTIC_RUN_ID", ""),
            restarts=int(environment.get("TORCHELASTIC_RESTART_COUNT", "0")),
        )

    @classmethod
    def of_machine(cls, machines: Machines, *, processes: int = 1, local_rank: int = 0) -> Member:
        """A process of a machine that, like each of the others, has as many processes."""
        rank, world = machines.rank * processes + local_rank, machines.count * processes
        return cls(rank=rank, local_rank=local_rank, world=world, url=machines.url)


@contextmanager
def joined(member: Member, *, device: str) -> Iterator[None]:
    """Meet the other processes, and leave them at the end.

    An error is printed by one process: by that in which it is raised, or, where a process has died, by the first one
    that is left. Processes other than the first print nothing else to standard output.

    Args:
        member: This process.
        device: ``cpu``, whose processes exchange messages by gloo, or ``cuda``, by NCCL.

    Raises:
        RunError: The others cannot be reached, or one of them has died.
        SystemExit: Another process says why training ends.
    """
    with ExitStack() as stack:
        if device == "cuda":
            torch.cuda.set_device(member.local_rank)
        warnings.filterwarnings("ignore", "TypedStorage is deprecated", UserWarning)  # Detectron2's messages use it
        _meet(member, device)
        stack.callback(_leave)
        stack.enter_context(_time_to_answer())
        comm.synchronize()
        places = comm.all_gather(f"machine {socket.gethostname()}, PID {os.getpid()}")
        if member.rank:
            stack.enter_context(_errors_only())
            stack.enter_context(redirect_stdout(stack.enter_context(Path(os.devnull).open("w"))))
        try:
            yield
        except RuntimeError as error:
            if not is_lost(error):
                _announce(member.rank)
                raise
            raise _death(member, places, error) from error
        except RunError as error:
            if not isinstance(error.__cause__, RuntimeError) or not is_lost(error.__cause__):
                _announce(member.rank)
                raise
            raise _death(member, places, error.__cause__, hint=error.hint) from error
        except BaseException:
            _announce(member.rank)
            raise


@contextmanager
def _time_to_answer() -> Iterator[None]:
    """Inside, SIGTERM ends this process a little later, so that it can say why it ends.

    Where a process dies, ``torchrun`` sends this signal to the others at once. In training `StopOnSignal` handles it.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM"):
        yield
        return

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    def wait(number: int, frame: object) -> None:
        signal.alarm(_GRACE_S)

    earlier = {signal.SIGALRM: signal.signal(signal.SIGALRM, end), signal.SIGTERM: signal.signal(signal.SIGTERM, wait)}
    try:
        yield
    finally:
        signal.alarm(0)
        for number, handler in earlier.items():
            signal.signal(number, handler)


@contextmanager
def _errors_only() -> Iterator[None]:
    logger = logging.getLogger("d2tune")
    earlier = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(earlier)


def is_lost(error: BaseException) -> bool:
    """Whether an error says that a message could not be exchanged with another process."""
    text = str(error).lower()
    return comm.get_world_size() > 1 and isinstance(error, RuntimeError) and any(word in text for word in _LOST)


def agree(work: Callable[[], Result]) -> Result:
    """Do the same work in all processes, and go on only if it succeeds in all of them.

    Raises:
        D2TuneError: It failed in this process, which is the first one in which it did.
        SystemExit: It failed in another one.
    """
    result: list[Result] = []
    failure: D2TuneError | None = None
    try:
        result.append(work())
    except D2TuneError as error:
        failure = error
    failed = [rank for rank, has_failed in enumerate(comm.all_gather(failure is not None)) if has_failed]
    if not failed:
        return result[0]
    if failure is not None and failed[0] == comm.get_rank():
        if comm.get_rank():
            where = f"This is process {comm.get_rank()} on machine {socket.gethostname()}."
            failure.hint = where if failure.hint is None else f"{failure.hint} {where}"
        raise failure
    raise SystemExit(1)


def from_first(work: Callable[[], Result]) -> Result:
    """What the first process gets from some work, in all processes.

    Raises:
        D2TuneError: It failed, in the first process.
        SystemExit: It failed, in the others.
    """
    result = agree(lambda: work() if comm.is_main_process() else None)
    return comm.all_gather(result)[0]  # type: ignore[no-any-return]


def local_first(member: Member, work: Callable[[], Result]) -> Result:
    """Do some work in the first process of each machine, and then in the others, so that they find its files.

    Raises:
        D2TuneError: It failed in this process, which is the first one in which it did.
        SystemExit: It failed in another one.
    """
    early = agree(lambda: [work()] if member.local_rank == 0 else [])
    late = agree(lambda: [work()] if member.local_rank else [])
    return [*early, *late][0]


def check_alike(facts: Mapping[str, Any]) -> None:
    """Refuse processes that differ in what they train on.

    Args:
        facts: Names of what must be alike, with values whose text is compared.

    Raises:
        RunError: In the first process: they differ.
        SystemExit: In the others.
    """
    own = {name: str(value) for name, value in facts.items()}
    all_facts: list[tuple[str, dict[str, str]]] = comm.all_gather((socket.gethostname(), own))

    def compare() -> None:
        if comm.get_rank():
            return
        for rank, (host, theirs) in enumerate(all_facts):
            for name, value in own.items():
                if theirs.get(name) != value:
                    raise RunError(
                        f"the processes do not agree on {name}",
                        found=f"{_short(theirs.get(name, 'none'))} in process {rank} on machine {host}",
                        expected=f"{_short(value)}, as in process 0 on machine {all_facts[0][0]}",
                        hint="Copy the same files and the same project to all machines.",
                    )

    agree(compare)


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:12]}..."


def _meet(member: Member, device: str) -> None:
    try:
        if member.url == "env://":
            store, _, _ = next(rendezvous(member.url, timeout=_MEETING))
        else:
            store = _store_of_all(member)
        distributed.init_process_group(
            "nccl" if device == "cuda" else "gloo",
            # torchrun keeps a store over restarts, with the addresses of processes that have died
            store=PrefixStore(f"d2tune/{member.restarts}", store),
            rank=member.rank,
            world_size=member.world,
            timeout=_MEETING,
        )
        distributed.distributed_c10d._set_pg_timeout(_LONGEST_WAIT, distributed.group.WORLD)
    except (RuntimeError, ValueError) as error:
        place = os.environ.get("MASTER_ADDR", "") if member.url == "env://" else member.url
        raise _not_reached(member, reason_of(error), place) from error


def _store_of_all(member: Member) -> TCPStore:
    """The store at the address of the first machine, once all processes are there.

    It waits in short steps, between which a signal can end the process.

    Raises:
        RunError: Some have not come in time.
        RuntimeError: The address cannot be used.
    """
    host, _, port = member.url.removeprefix("tcp://").rpartition(":")
    host = host.strip("[]")  # of an IPv6 address
    end_s = time.monotonic() + _MEETING.total_seconds()
    while member.rank:
        try:
            socket.create_connection((host, int(port)), timeout=2).close()
            break
        except OSError as error:
            if time.monotonic() > end_s:
                reason = f"process 0 did not come within {duration(_MEETING.total_seconds())} ({reason_of(error)})"
                raise _not_reached(member, reason, member.url) from error
            time.sleep(0.2)
    store = TCPStore(host, int(port), is_master=not member.rank, timeout=_MEETING, wait_for_workers=False)
    store.set(f"d2tune/here/{member.rank}", "1")
    while missing := [rank for rank in range(member.world) if not store.check([f"d2tune/here/{rank}"])]:
        if time.monotonic() > end_s:
            names = f"process{'' if len(missing) == 1 else 'es'} {', '.join(map(str, missing))}"
            raise _not_reached(member, f"{names} did not come within {duration(_MEETING.total_seconds())}", member.url)
        time.sleep(0.1)
    return store


def _not_reached(member: Member, reason: str, place: str) -> RunError:
    return RunError(
        f"process {member.rank} of {member.world} does not reach the others: {reason}",
        place=place,
        hint="Start as many processes as are announced, each with another number, and the first machine's address.",
    )


def _leave() -> None:
    with suppress(Exception):
        distributed.destroy_process_group()


def _announce(rank: int) -> None:
    """Let the others know that this process says why training ends."""
    with suppress(Exception):
        distributed.distributed_c10d._get_default_store().set(f"d2tune/reported/{rank}", "1")


def _death(member: Member, places: list[str], error: BaseException, *, hint: str | None = None) -> BaseException:
    """The error that names the processes that have died; SystemExit where another process prints it."""
    alive = {member.rank}
    with suppress(Exception):  # the process that keeps the answers may be the dead one
        store = distributed.distributed_c10d._get_default_store()
        store.set(f"d2tune/alive/{member.rank}", "1")
        end_s = time.monotonic() + _ANSWER_S
        while time.monotonic() < end_s and len(alive) < member.world:
            for rank in range(member.world):
                if store.check([f"d2tune/reported/{rank}"]):
                    return SystemExit(1)
                if rank not in alive and store.check([f"d2tune/alive/{rank}"]):
                    alive.add(rank)
            time.sleep(0.1)
    dead = [rank for rank in range(member.world) if rank not in alive]
    if min(alive) != member.rank:
        return SystemExit(1)
    if not dead:
        return RunError(f"the messages between the processes failed: {reason_of(error)}", hint=hint)
    named = " and ".join(f"process {rank} ({places[rank]})" for rank in dead)
    return RunError(f"{named} of {member.world} has ended, so training ends", hint=hint)
