"""One training in a run folder at a time: a lock that ends with the process that holds it."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from d2tune.errors import RunError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
"""The file in a run folder with the process that trains there."""

_HELD: set[Path] = set()
"""Locks of this process, for which the system would give the same lock once more."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder.

    The system frees it when the process ends, however it ends. Where the file system knows no locks, the process that
    the file names is looked for.

    Args:
        folder: The run folder, which exists.

    Raises:
        RunError: Another process holds the lock.
    """
    path = folder.resolve() / LOCK
    if path in _HELD:
        raise _in_use(folder, _Holder.here())
    handle = _acquire(path, folder)
    _HELD.add(path)
    try:
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps(vars(_Holder.here())).encode())
        yield
    finally:
        _HELD.discard(path)
        path.unlink(missing_ok=True)  # before it is freed, so that the lock of another process stays
        os.close(handle)


class _Holder:
    """The process that holds a lock."""

    def __init__(self, pid: int, host: str, since: str) -> None:
        self.pid, self.host, self.since = pid, host, since

    @classmethod
    def here(cls) -> _Holder:
        return cls(os.getpid(), socket.gethostname(), time.strftime("%Y-%m-%d %H:%M:%S"))

    @classmethod
    def of(cls, content: bytes) -> _Holder | None:
        try:
            value: Any = json.loads(content)
            return cls(int(value["pid"]), str(value["host"]), str(value["since"]))
        except (ValueError, KeyError, TypeError):
            return None

    def may_live(self) -> bool:
        """Whether the process runs on this machine, or on another machine, where it cannot be looked for."""
        if self.host != socket.gethostname():
            return True
        import psutil

        return bool(psutil.pid_exists(self.pid))


def _acquire(path: Path, folder: Path) -> int:
    """The open lock file."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(handle, folder)
            if _is_same(handle, path):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its holder has just removed the file


def _lock(handle: int, folder: Path) -> None:
    holder = _Holder.of(os.pread(handle, 4096, 0) if hasattr(os, "pread") else os.read(handle, 4096))
    if fcntl is not None:
        try:
            # not flock, which the processes that load images would share and hold after a kill
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except (BlockingIOError, PermissionError):
            raise _in_use(folder, holder) from None
        except OSError:
            pass  # the file system knows no locks
    if holder is not None and holder.may_live():
        raise _in_use(folder, holder)


def _is_same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _in_use(folder: Path, holder: _Holder | None) -> RunError:
    who = "" if holder is None else f" by process {holder.pid} on {holder.host} since {holder.since}"
    return RunError(
        f"the run folder is in use{who}",
        file=folder,
        hint=f"Wait until it ends, or stop it; if there is no such process, remove {LOCK} in the folder.",
    )
