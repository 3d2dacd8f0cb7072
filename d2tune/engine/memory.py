"""The memory of this process and of its GPU: its peak, a bound, and errors that say that it did not suffice."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

from d2tune.hardware import memory_left_bytes, return_freed_memory

_SIGNS = re.compile(
    r"allocate memory|not enough memory|out of memory|insufficient memory|bad_alloc"
    r"|could not create a (primitive|memory)",
    re.IGNORECASE,
)
"""Words of torch, oneDNN, OpenCV and the standard library of C++ where memory is not granted."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one that it was raised for, says that memory did not suffice, of the machine or of a GPU."""
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, MemoryError | torch.OutOfMemoryError):
            return True
        if isinstance(at, Exception) and _SIGNS.search(str(at)):
            return True
        at = at.__cause__ or at.__context__
    return False


def peak_process_bytes() -> int:
    """The most memory that this process has had so far, in bytes."""
    try:
        import resource
    except ImportError:  # Windows
        memory = psutil.Process().memory_info()
        return int(getattr(memory, "peak_wset", memory.rss))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Peak:
    """The most memory since it was made: that which torch has of the GPU on CUDA, else that of the process.

    Where the system does not forget an earlier peak, it is that of all the time so far.

    Args:
        device: ``cuda`` or ``cpu``.
    """

    def __init__(self, device: str) -> None:
        self._is_cuda = device == "cuda"
        self._is_since = False
        if self._is_cuda:
            torch.cuda.reset_peak_memory_stats()
            return
        return_freed_memory()
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            self._is_since = True
        except OSError:
            pass  # not Linux

    @property
    def bytes(self) -> int:
        """The peak, in bytes."""
        if self._is_cuda:
            return torch.cuda.max_memory_allocated()
        return (_high_water_bytes() if self._is_since else None) or peak_process_bytes()


def free_bytes(device: str) -> int:
    """Memory that this process can still take, of the GPU on CUDA, with what torch holds without using it."""
    if device == "cuda":
        unused = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return torch.cuda.mem_get_info()[0] + unused
    return_freed_memory()
    return memory_left_bytes()


def used_bytes(device: str) -> int:
    """Memory that this process has now; of the GPU on CUDA that of its tensors."""
    return torch.cuda.memory_allocated() if device == "cuda" else int(psutil.Process().memory_info().rss)


def _high_water_bytes() -> int | None:
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


@contextmanager
def refusing_more(device: str, *, but_for: int = 0) -> Iterator[None]:
    """Inside, this process is refused memory that the machine does not have, instead of being killed for it.

    It is so on Linux and for processors; a GPU refuses memory by itself. Memory counts when it is asked for, and not
    only when it is used, so that the refusal can come a little too early.

    Args:
        device: ``cuda`` or ``cpu``.
        but_for: Bytes that stay free inside.
    """
    try:
        import resource
    except ImportError:  # Windows
        resource = None  # type: ignore[assignment]
    if device == "cuda" or sys.platform != "linux" or resource is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bound = psutil.Process().memory_info().data + max(0, memory_left_bytes() - but_for)
    limits = [bound, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
