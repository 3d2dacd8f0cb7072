import os
import subprocess
import sys

import pytest

from d2tune import hardware


def test_only_the_cores_that_may_be_used_are_counted():
    code = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
        "from d2tune.hardware import usable_cores; print(usable_cores())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    assert 1 <= hardware.usable_cores() <= os.cpu_count()


def test_available_memory_is_part_of_the_total():
    total, available = hardware.memory_bytes()
    assert 2**28 < available <= total


_USE = """
import resource, sys
from pathlib import Path
from d2tune.hardware import keep_freed_memory, return_freed_memory

def pages():
    return int(Path("/proc/self/statm").read_text().split()[1])

kept = keep_freed_memory() if "keep" in sys.argv else False
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    b"x" * (40 << 20)
given, held = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, pages()
return_freed_memory()
print(kept, given, held - pages())
"""
"""Asks for 40 MB, writes and frees them, ten times; prints how many pages were given and how many could be returned."""


def use_memory(*words, **variables):
    environment = {name: value for name, value in os.environ.items() if "MALLOC" not in name} | variables
    done = subprocess.run(
        [sys.executable, "-c", _USE, *words], capture_output=True, text=True, check=True, env=environment
    )
    kept, given, returned = done.stdout.split()
    return kept, int(given), int(returned)


def test_freed_memory_is_used_again_where_it_is_kept_and_can_be_returned():
    """Its pages are given once instead of ten times."""
    _, given_often, returned = use_memory()
    assert returned < 1000
    kept, given_once, returned = use_memory("keep")
    assert kept == "True" and 5 * given_once < given_often and returned > 9000


@pytest.mark.parametrize("variable", [{"MALLOC_TOP_PAD_": "0"}, {"GLIBC_TUNABLES": "glibc.malloc.top_pad=0"}])
def test_settings_of_a_person_stay(variable):
    kept, _, returned = use_memory("keep", **variable)
    assert kept == "False" and returned < 1000
