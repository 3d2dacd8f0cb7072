"""A save that fails, or whose process ends, at any of its system calls leaves checkpoints that can be used."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from d2tune.errors import RunError
from d2tune.modeling import checkpoint
from tests.modeling.killed_saves import KILLS, acting, content, fresh, number_of


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """What the processes have left, by what ended them."""
    words = [sys.executable, "-m", "tests.modeling.killed_saves", str(tmp_path_factory.mktemp("saves"))]
    process = subprocess.run(words, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    content: dict[str, dict[str, object]] = json.loads(process.stdout)
    return content


@pytest.mark.extended
def test_a_process_that_is_killed_fifty_times_loses_no_save(results: dict[str, dict[str, object]]) -> None:
    result = results["killed"]
    assert result["kills"] == KILLS and int(str(result["in a save"])) > 5


@pytest.mark.extended
def test_a_process_that_ends_at_any_system_call_leaves_the_old_or_the_new_checkpoint(
    results: dict[str, dict[str, object]],
) -> None:
    result = results["ended"]
    calls, left = result["calls"], result["left"]
    assert isinstance(calls, list) and isinstance(left, list)
    assert {"open", "write", "fsync", "chmod", "link", "unlink", "replace"} <= set(calls)
    last_replace = len(calls) - 1 - calls[::-1].index("replace")
    for place, (_, last, before) in enumerate(left):
        assert last == (1 if place <= last_replace else 2)
        assert before in (0, 1) and before >= last - 1


def test_an_error_of_any_system_call_is_a_line_and_leaves_checkpoints_that_can_be_used(tmp_path: Path) -> None:
    last, before = fresh(tmp_path)
    with acting(lambda place, name: None) as calls:
        checkpoint.save(last, content(2), keep=before)
    failed = []
    for at, name in enumerate(calls):
        last, before = fresh(tmp_path)

        def fail(place: int, _: str, at: int = at) -> None:
            if place == at:
                raise OSError(errno.ENOSPC, "No space left on device")

        try:
            with acting(fail):
                checkpoint.save(last, content(2), keep=before)
        except RunError as error:
            failed.append(name)
            line = error.one_line()
            assert line == f"{last}: the checkpoint cannot be written: No space left on device. " + (
                "Make room, or allow larger files."
            )
            assert number_of(last) == 1
        else:
            assert number_of(last) == 2
        assert number_of(before) in (0, 1)
        assert {path.name for path in tmp_path.iterdir()} == {"last.pth", "before_last.pth"}, name
        checkpoint.save(last, content(3), keep=before)
        assert number_of(last) == 3
    # a link that cannot be made is a copy, and the file without a name is not needed any more
    assert set(calls) - set(failed) <= {"link", "unlink"}
    assert failed.count("replace") == 2 and failed.count("fsync") == 1 and failed.count("write") == calls.count("write")
