"""Two thousand spoiled annotation folders, each read and written in a watched process; see `fuzz`."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.annotations.hostile import fuzz
from tests.annotations.hostile.mutants import mutant, seeds


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "count"),
    [
        (2_000_000, 300),
        pytest.param(0, 1000, marks=pytest.mark.extended),
        pytest.param(1_000_000, 1000, marks=pytest.mark.extended),
    ],
)
def test_mutants_end_in_results_or_findings(first: int, count: int) -> None:
    report = fuzz.run(count, first=first)
    assert not report.failures, report.text()
    assert report.results > count / 5 and report.refused > count / 5, report.text()
    assert len(report.codes) > 20


def test_a_seed_number_gives_the_same_mutant_each_time() -> None:
    assert mutant(4711) == mutant(4711) != mutant(4712)
    names = {seed.name for seed in seeds()}
    assert {mutant(number).seed for number in range(2000)} == names


def explode(case: Any, home: Path) -> tuple[bool, list[str]]:
    """A conversion with every fault that the run looks for, by seed number."""
    match case.number:
        case 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        case 2:
            started_s = time.process_time()
            while time.process_time() - started_s < 10:
                pass
        case 3:
            return True, [str(len(bytearray(700 * 2**20)))]
        case 4:
            raise KeyError("x")
    return True, []


def test_the_run_sees_crashes_hangs_and_memory(tmp_path: Path) -> None:
    report = fuzz.run(6, attack=explode, save=tmp_path)
    assert sorted(report.failures) == [1, 2, 3, 4]
    for number, words in {1: "died with status -11", 2: "more than 2.0 s", 3: "MemoryError", 4: "KeyError"}.items():
        assert words in report.failures[number]
        assert any((tmp_path / str(number)).rglob("*.*"))
