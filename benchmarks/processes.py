"""Times of processes from their start."""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path


def timed_process(command: Sequence[str], *, cwd: str | Path | None = None) -> tuple[float, float, float]:
    """Seconds until a process prints its first line, until it has ended, and of the processor until then."""
    before, began_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        printed_s = time.perf_counter() - began_s
        process.stdout.read()
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    end_s, after = time.perf_counter() - began_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    return printed_s, end_s, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
