"""What the machine can do: cores, memory, and whether bfloat16 is worth using."""

from __future__ import annotations

import ctypes
import functools
import os
import time
from pathlib import Path

WORTHWHILE_SPEEDUP = 1.25
"""bfloat16 is used on a processor from this speedup on; the margin is that of a measurement on a busy machine."""

_CGROUPS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)
"""Of both versions of control groups: the files of the limit and of what is used, and the entry of ``memory.stat`` that
counts files in memory which the system drops when it needs room."""


def usable_cores() -> int:
    """How many cores this process may run on, which in a container can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def yield_idle_cores() -> None:
    """Let threads that wait for one another sleep instead of spin; to be called before torch is imported.

    With spinning threads, a second busy process on two cores was measured to slow the network down two to ten times;
    with sleeping ones by what it takes of the cores. Alone on the machine both are equally fast
    (docs/decisions/005-sleeping-threads.md). A value that a person has set stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


_MALLOC = {"MALLOC_MMAP_MAX_": (-4, 0), "MALLOC_TRIM_THRESHOLD_": (-1, 2**31 - 1), "MALLOC_TOP_PAD_": (-2, 64 << 20)}
"""Variables of the GNU C library, with the number of each for ``mallopt`` and its value."""


def keep_freed_memory() -> bool:
    """Let this process and those that it starts use memory again that they freed, instead of returning it.

    A network asks for the same large blocks of memory in each forward and backward pass. The GNU C library returns
    each of them to the system, which gives them back filled with zeros, page by page. Elsewhere nothing is changed,
    nor where a person has set one of the variables.

    Returns:
        Whether it is so now.
    """
    if any(name in os.environ for name in _MALLOC) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # another C library, or Windows
        return False
    is_set = [bool(mallopt(number, value)) for number, value in _MALLOC.values()]
    os.environ.update({name: str(value) for name, (_, value) in _MALLOC.items()})
    return all(is_set)


def return_freed_memory() -> None:
    """Return memory to the system that was freed, where `keep_freed_memory` holds it."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, TypeError, AttributeError):
        return


def memory_bytes(cgroup: Path = Path("/sys/fs/cgroup")) -> tuple[int, int]:
    """Total and available memory, in bytes; a container's limit counts as the total.

    Args:
        cgroup: Where the limits of a container are.

    Raises:
        ImportError: psutil is not installed.
    """
    import psutil

    memory = psutil.virtual_memory()
    total, available = int(memory.total), int(memory.available)
    for limit_file, used_file, droppable in _CGROUPS:
        try:
            limit = int((cgroup / limit_file).read_text(encoding="ascii"))
            used = int((cgroup / used_file).read_text(encoding="ascii"))
            stated = (cgroup / limit_file).with_name("memory.stat").read_text(encoding="ascii").split()
        except (OSError, ValueError):
            continue
        counts = dict(zip(stated[::2], stated[1::2], strict=False))
        left = limit - used + int(counts.get(droppable, 0))
        return min(total, limit), max(0, min(available, left))
    return total, available


def memory_left_bytes(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Memory that this process can still take, in bytes: that of the machine or container, and within its own limits.

    Its own limits are those of ``ulimit -v`` and ``ulimit -d``.

    Args:
        cgroup: Where the limits of a container are.

    Raises:
        ImportError: psutil is not installed.
    """
    import psutil

    left = memory_bytes(cgroup)[1]
    try:
        import resource
    except ImportError:  # Windows
        return left
    used = psutil.Process().memory_info()
    for number, taken in ((resource.RLIMIT_AS, used.vms), (resource.RLIMIT_DATA, getattr(used, "data", None))):
        limit = resource.getrlimit(number)[0]
        if limit != resource.RLIM_INFINITY and taken is not None:
            left = min(left, max(0, limit - taken))
    return left


@functools.cache
def bfloat16_speedup(device: str = "cpu") -> float:
    """How many times faster a small convolutional network trains in bfloat16 autocast than in float32.

    Both run on ``channels_last`` tensors, forward and backward, in turns; the fastest of each counts. Below 1
    bfloat16 is slower, as on processors that must emulate it. It is measured once per process, in one to two seconds.

    Args:
        device: A torch device, such as ``cpu`` or ``cuda``.
    """
    import torch
    from torch import nn

    kind = torch.device(device).type

    def step_s(bfloat16: bool) -> float:
        start = time.perf_counter()
        with torch.autocast(kind, torch.bfloat16, enabled=bfloat16):
            loss = network(images).float().mean()
        loss.backward()
        loss.item()
        if kind == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    # The numbers drawn here must not shift those that a seeded training run draws.
    with torch.random.fork_rng(devices=[torch.device(device)] if kind == "cuda" else []):
        layers = (nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 256, 1), nn.ReLU(), nn.Conv2d(256, 64, 1))
        network = nn.Sequential(*layers).to(device)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = torch.rand(1, 64, 48, 48, device=device).to(memory_format=torch.channels_last)
        times_s = [(step_s(False), step_s(True)) for _ in range(5)][1:]
    return min(plain for plain, _ in times_s) / min(half for _, half in times_s)
