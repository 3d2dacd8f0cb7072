"""Processes that do nothing but save, and end in the middle of it; what they leave is read back.

Run as a program with a folder, it prints a JSON object. It is a process of its own, with one thread, so
that it can be forked.
"""

from __future__ import annotations

import io
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from d2tune.modeling import checkpoint

KILLS = 50
CALLS = ("open", "fsync", "chmod", "link", "unlink", "replace")
"""The functions of ``os`` that a save calls, besides writing to its stream."""


def content(number: int) -> dict[str, Any]:
    """A checkpoint of half a megabyte in which all numbers are the same."""
    tensors = {name: torch.full((60_000,), float(number)) for name in ("a", "b")}
    return {"model": tensors, "trainer": {"iteration": number, "optimizer": {}}}


def number_of(path: Path) -> int:
    """The number of a checkpoint that is whole."""
    read = checkpoint.load_training(path)
    number = int(read["trainer"]["iteration"])
    assert all(torch.equal(value, torch.full_like(value, number)) for value in read["model"].values()), path
    return number


@contextmanager
def acting(act: Callable[[int, str], None]) -> Iterator[list[str]]:
    """Inside, ``act`` is called before each system call of a save with its place and name; gives the calls so far."""
    calls: list[str] = []
    earlier = {name: getattr(os, name) for name in (*CALLS, "fdopen")}

    def before(name: str) -> None:
        calls.append(name)
        act(len(calls) - 1, name)

    def wrapped(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            before(name)
            return earlier[name](*arguments, **options)

        return call

    class Raw(io.FileIO):
        def write(self, piece: Any) -> Any:
            before("write")
            return super().write(piece)

    for name in CALLS:
        setattr(os, name, wrapped(name))
    os.fdopen = lambda handle, mode: io.BufferedWriter(Raw(handle, mode), 1 << 18)  # type: ignore[assignment]
    try:
        yield calls
    finally:
        for name, function in earlier.items():
            setattr(os, name, function)


def forked(work: Callable[[], None]) -> int:
    """The process number of a child that does ``work`` and ends."""
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    finally:
        os._exit(0)


def killed(folder: Path) -> dict[str, Any]:
    """Kill a process that saves at a random moment, `KILLS` times; each begins where the one before has ended."""
    last, before = folder / "last.pth", folder / "before_last.pth"
    draw = random.Random(0)
    checkpoint.save(last, content(0), keep=before)
    began_s = time.perf_counter()
    checkpoint.save(last, content(1), keep=before)
    save_s = time.perf_counter() - began_s
    leftovers = 0
    for _ in range(KILLS):
        first = number_of(last) + 1
        reader, writer = os.pipe()

        def save(first: int = first, writer: int = writer) -> None:
            for number in range(first, first + 1000):
                checkpoint.save(last, content(number), keep=before)
                os.write(writer, number.to_bytes(4, "little"))

        pid = forked(save)
        os.close(writer)
        time.sleep(draw.uniform(0, 3 * save_s))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with os.fdopen(reader, "rb") as stream:
            heard = stream.read()
        reported = int.from_bytes(heard[-4:], "little") if heard else first - 1
        # what was reported as saved is there, and at most the next one; the one before it too
        assert number_of(last) in (reported, reported + 1), (number_of(last), reported)
        assert number_of(before) in (number_of(last) - 1, number_of(last))
        rest = [path for path in folder.iterdir() if path.suffix == ".tmp"]
        leftovers += bool(rest)
        for path in rest:
            path.unlink()
    return {"kills": KILLS, "in a save": leftovers, "saves": number_of(last)}


def fresh(folder: Path) -> tuple[Path, Path]:
    """Two checkpoints of an earlier time: 1 and, before it, 0."""
    for path in folder.iterdir():
        path.unlink()
    last, before = folder / "last.pth", folder / "before_last.pth"
    for number in (0, 1):
        checkpoint.save(last, content(number), keep=before)
    return last, before


def ended(folder: Path) -> dict[str, Any]:
    """End a process before each system call of a save."""
    last, before = fresh(folder)
    with acting(lambda place, name: None) as calls:
        checkpoint.save(last, content(2), keep=before)
    left = []
    for at in range(len(calls)):
        last, before = fresh(folder)

        def save(at: int = at, last: Path = last, before: Path = before) -> None:
            with acting(lambda place, name: os._exit(9) if place == at else None):
                checkpoint.save(last, content(2), keep=before)

        _, status = os.waitpid(forked(save), 0)
        assert os.waitstatus_to_exitcode(status) == 9
        left.append((calls[at], number_of(last), number_of(before)))
        checkpoint.save(last, content(3), keep=before)
        assert number_of(last) == 3
    return {"calls": calls, "left": left}


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({"killed": killed(Path(sys.argv[1])), "ended": ended(Path(sys.argv[1]))}))
