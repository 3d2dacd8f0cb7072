import os
import subprocess
import sys

import torch

from d2tune import hardware


def test_the_speed_of_bfloat16_is_measured_once_and_leaves_the_random_numbers_alone():
    before = torch.get_rng_state()
    first = hardware.bfloat16_speedup()
    assert torch.equal(torch.get_rng_state(), before)
    assert hardware.bfloat16_speedup() == first
    assert 0.001 < first < 1000


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
