"""What the machine can do: cores, memory, and the precisions that it computes natively."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path
from typing import Literal

_BFLOAT16_FEATURES = {"amx_bf16", "avx512_bf16", "bf16"}
"""Names in ``/proc/cpuinfo`` of instructions that multiply bfloat16: AMX, AVX-512, and those of ARM."""

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


def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The instruction sets of the processor, by the names of Linux; none where the file is missing."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, values = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(values.split())
    return frozenset()


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The model of the processor."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "CPU part"))]
    return names[0] if names else platform.machine()


NO_BFLOAT16 = "the processor has no instructions for bfloat16"
"""Why a processor takes float32 where `has_bfloat16` says no."""


def has_bfloat16() -> bool:
    """Whether the processor has instructions for bfloat16."""
    return bool(_BFLOAT16_FEATURES & cpu_features())


def cuda_precision(capability: tuple[int, int], *, is_amd: bool = False) -> Literal["float32", "bfloat16", "float16"]:
    """The precision of a GPU: bfloat16 where it is native, float16 where there are tensor cores for it, else float32.

    ``torch.cuda.is_bf16_supported()`` counts emulation, which is slower than float32.

    Args:
        capability: Compute capability of the card, such as (7, 5) of a T4.
        is_amd: Whether torch is built for ROCm, whose cards all have bfloat16.
    """
    if is_amd or capability >= (8, 0):
        return "bfloat16"
    return "float16" if capability >= (7, 0) else "float32"


def card_precision() -> tuple[Literal["float32", "bfloat16", "float16"], str]:
    """The precision that the GPU of torch computes natively, and why."""
    import torch

    major, minor = torch.cuda.get_device_capability()
    native = cuda_precision((major, minor), is_amd=torch.version.hip is not None)
    return native, f"native with compute capability {major}.{minor}"


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
