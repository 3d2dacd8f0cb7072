"""One command in a folder at a time, such as a training: a lock that ends with the process that holds it."""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from d2tune.errors import RunError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
"""The file in a run folder with the process that trains there."""

_HELD: dict[Path, int] = {}
"""Open lock files of this process, for which the system would give the same lock once more."""

_LENGTH = 512
"""Bytes of a lock file, which is filled with blanks: a write of all of them is never seen by halves."""


@contextmanager
def locked(folder: Path, *, what: str = "run folder") -> Iterator[None]:
    """Hold the lock of a run folder, or of another output folder.

    The system frees it when the process ends, however it ends. Where the file system knows no locks, the process that
    the file names is looked for.

    Args:
        folder: The folder, which exists.
        what: What it is, for errors.

    Raises:
        RunError: Another process holds the lock.
    """
    path = folder.resolve() / LOCK
    if path in _HELD:
        raise _in_use(folder, Holder.here(), what)
    handle = _acquire(path, folder, what)
    _HELD[path] = handle
    try:
        _write(handle, replace(Holder.here(), doing="starting"))
        yield
    finally:
        del _HELD[path]
        path.unlink(missing_ok=True)  # before it is freed, so that the lock of another process stays
        os.close(handle)


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds a lock.

    Attributes:
        pid: Its number.
        host: Its machine.
        since: When it took the lock, in local time.
        doing: What it does now, such as ``evaluating``; empty where it has not noted anything.
    """

    pid: int
    host: str
    since: str
    doing: str = ""

    @classmethod
    def here(cls) -> Holder:
        """This process."""
        return cls(os.getpid(), socket.gethostname(), time.strftime("%Y-%m-%d %H:%M:%S"))

    @classmethod
    def of(cls, content: bytes) -> Holder | None:
        """The process that a lock file names; None where it is damaged."""
        try:
            value: Any = json.loads(content)
            return cls(int(value["pid"]), str(value["host"]), str(value["since"]), str(value.get("doing", "")))
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def may_live(self) -> bool:
        """Whether the process runs on this machine, or on another machine, where it cannot be looked for."""
        if self.host != socket.gethostname():
            return True
        import psutil

        return bool(psutil.pid_exists(self.pid))


def holder_of(folder: Path) -> Holder | None:
    """The process that trains in a run folder now; None where there is none. The lock stays as it is.

    Args:
        folder: The run folder.
    """
    path = folder.resolve() / LOCK
    if path in _HELD:  # opening and closing the file would free the lock
        return Holder.of(_content(_HELD[path]))
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        holder = Holder.of(_content(handle))
        is_held = _is_locked(handle)
    finally:
        os.close(handle)
    if is_held is None:
        is_held = holder is not None and holder.may_live()
    return (holder or Holder(0, "another machine", "")) if is_held else None


def left_behind(folder: Path) -> Holder | None:
    """The process that had the lock of a run folder and was killed; None where it ended by itself, or still runs."""
    try:
        content = (folder / LOCK).read_bytes()
    except OSError:
        return None
    return Holder.of(content) if holder_of(folder) is None else None


@contextmanager
def doing(folder: Path, what: str) -> Iterator[None]:
    """Note in the lock of a run folder what its process does, until the context ends; then what it did before.

    Args:
        folder: The run folder; without a lock nothing is noted.
        what: In a few words, such as ``evaluating``.
    """
    earlier = note(folder, what)
    try:
        yield
    finally:
        note(folder, earlier)


def note(folder: Path, what: str) -> str:
    """Note in the lock of a run folder what its process, or a process that it started, does from now on.

    Returns:
        What it did before; empty without a lock.
    """
    path = folder.resolve() / LOCK
    held = _HELD.get(path)
    try:
        handle = os.open(path, os.O_RDWR) if held is None else held
    except OSError:
        return ""
    try:
        holder = Holder.of(_content(handle))
        if holder is None:
            return ""
        _write(handle, replace(holder, doing=what[:100]))
        return holder.doing
    except OSError:  # such as a full disk: no reason to end what the process does
        return ""
    finally:
        if held is None:
            os.close(handle)


def _write(handle: int, holder: Holder) -> None:
    content = json.dumps(asdict(holder)).encode().ljust(_LENGTH)
    if hasattr(os, "pwrite"):  # several threads use the handle
        os.pwrite(handle, content, 0)
    else:
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, content)
    os.ftruncate(handle, len(content))


def _content(handle: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(handle, _LENGTH, 0)
    os.lseek(handle, 0, os.SEEK_SET)
    return os.read(handle, _LENGTH)


def _is_locked(handle: int) -> bool | None:
    """Whether another process has locked an open file, without locking it; None where the system does not say so.

    The layouts are those of ``struct flock`` of 64-bit Linux and of macOS.
    """
    layout = {"linux": "hhqqi4x", "darwin": "qqihh"}.get(sys.platform)
    if fcntl is None or layout is None:
        return None
    is_linux = sys.platform == "linux"
    asked = (fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0) if is_linux else (0, 0, 0, fcntl.F_WRLCK, os.SEEK_SET)
    try:
        answer = struct.unpack(layout, fcntl.fcntl(handle, fcntl.F_GETLK, struct.pack(layout, *asked)))
    except OSError:
        return None  # the file system knows no locks
    return bool(answer[0 if is_linux else 3] != fcntl.F_UNLCK)


def _acquire(path: Path, folder: Path, what: str) -> int:
    """The open lock file."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(handle, folder, what)
            if _is_same(handle, path):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its holder has just removed the file


def _lock(handle: int, folder: Path, what: str) -> None:
    holder = Holder.of(_content(handle))
    if fcntl is not None:
        try:
            # not flock, which the processes that load images would share and hold after a kill
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except (BlockingIOError, PermissionError):
            raise _in_use(folder, holder, what) from None
        except OSError:
            pass  # the file system knows no locks
    if holder is not None and holder.may_live():
        raise _in_use(folder, holder, what)


def _is_same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _in_use(folder: Path, holder: Holder | None, what: str) -> RunError:
    who = "" if holder is None else f" by process {holder.pid} on {holder.host} since {holder.since}"
    return RunError(
        f"the {what} is in use{who}",
        file=folder,
        hint=f"Wait until it ends, or stop it; if there is no such process, remove {LOCK} in the folder.",
    )
