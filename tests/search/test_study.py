"""Studies: of several processes at a time, after a kill, and of something else."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from d2tune.errors import MachineError, RunError
from d2tune.search.space import Parameter, Space
from d2tune.search.study import SearchStudy, TrialResult
from tests.search.study_process import ABOUT, OFFSETS, SPACE, main, metric

ROOT = Path(__file__).parents[2]


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes, which are ended where a test fails."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def start(folder: Path, most: int, seconds: float) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "tests.search.study_process", str(folder), str(most), str(seconds)]
    return subprocess.Popen(words, cwd=ROOT)


def lines(folder: Path) -> list[list[str]]:
    path = folder / "log"
    return [line.split(maxsplit=1) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(folder: Path, count: int) -> list[list[str]]:
    end_s = time.monotonic() + 60
    while len(lines(folder)) < count:
        assert time.monotonic() < end_s, lines(folder)
        time.sleep(0.02)
    return lines(folder)


def results(folder: Path, **about: Any) -> list[TrialResult]:
    return SearchStudy(folder, SPACE, ABOUT | about, seed=0).results()


def test_two_processes_a_kill_and_the_same_study_as_without(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    """Each trial is of one process at a time; the trial of a killed process goes on with its own settings."""
    both = tmp_path / "both"
    both.mkdir()
    started += [start(both, 6, 0.3), start(both, 6, 0.3)]
    begun = wait_for(both, 3)
    killed = begun[-1][0]
    os.kill(int(killed), signal.SIGKILL)
    (left,) = (process for process in started if process.pid != int(killed))
    assert left.wait(60) == 0
    trials = results(both)
    assert [trial.number for trial in trials] == list(range(6))
    assert {trial.state for trial in trials} == {"finished"}  # the other process also took the trial of the killed one
    assert [trial.value for trial in trials] == [metric(trial.settings["x"]) for trial in trials]
    texts = [text for _, text in lines(both)]
    (again,) = (text for text in texts if "goes on" in text)
    assert again.replace("goes on", "begins") in texts
    assert all(sum(text == f"{number} ends" for text in texts) == 1 for number in range(6))
    assert len({pid for pid, _ in lines(both)}) == 2

    alone = tmp_path / "alone"
    alone.mkdir()
    main(alone, 2, 0, 0)
    main(alone, 4, 0, 0)  # as a study that goes on
    whole = tmp_path / "whole"
    whole.mkdir()
    main(whole, 4, 0, 0)
    assert results(alone) == results(whole)


def test_trials_that_are_worse_in_three_folds_are_pruned(tmp_path: Path) -> None:
    """One-sided Wilcoxon: three differences of one sign have a probability of 1/8, two of 1/4, the threshold is 0.2."""
    main(tmp_path, 8, 0, len(OFFSETS))
    trials = results(tmp_path)
    best = -1e9
    for trial in trials:
        value = metric(trial.settings["x"])
        is_pruned = value < best
        assert (trial.state, len(trial.folds)) == (("pruned", 3) if is_pruned else ("finished", 5))
        used = OFFSETS[: len(trial.folds)]
        assert trial.folds == tuple(value + offset for offset in used)
        assert trial.value == pytest.approx(value + sum(used) / len(used))
        best = max(best, value)
    assert {trial.state for trial in trials} == {"pruned", "finished"}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"project": "other"}, "the study is of another project; found 'other'; expected 'tiny'"),
        ({"folds": 5}, "the study is of another number of folds; found 5; expected none"),
        ({"data_sha256": "cd"}, "the data changed since the study began"),
        (
            {"settings": {"train.seed": 1}},
            "train.seed changed in the project since the study began; found 1; expected 0",
        ),
    ],
)
def test_a_study_of_something_else_is_one_line(tmp_path: Path, change: dict[str, Any], line: str) -> None:
    results(tmp_path)
    with pytest.raises(RunError) as caught:
        results(tmp_path, **change)
    text = caught.value.one_line()
    assert text.startswith(f"{tmp_path / 'study.db'}: {line}") and text.endswith(".")


def test_another_space_is_one_line(tmp_path: Path) -> None:
    results(tmp_path)
    other = replace(SPACE, parameters=(Parameter(key="x", kind="uniform", low=0, high=9),))
    line = r"x changed in the space since the study began; found {'uniform': \[0, 9\]}; expected {'uniform': \["
    with pytest.raises(RunError, match=line):
        SearchStudy(tmp_path, other, ABOUT, seed=0)


def test_a_file_that_is_not_a_study_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("this is text, and SQLite says so where it reads it\n" * 40)
    with pytest.raises(RunError, match="is not a study that can be read: file is not a database"):
        results(tmp_path)
    assert (tmp_path / "study.db").read_text().startswith("this is text")


def test_a_study_of_another_program_is_one_line(tmp_path: Path) -> None:
    import optuna

    storage = f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.create_study(storage=storage, study_name="d2tune", direction="maximize")
    study.tell(study.ask().number, 1.0)
    with pytest.raises(RunError, match="is not a study of d2tune"):
        results(tmp_path)


def test_lists_and_null_are_choices(tmp_path: Path) -> None:
    choices = ([0.6, 1.2], None, "text", True)
    space = Space(Path("space.yaml"), (Parameter(key="x", kind="choice", choices=choices),))
    study = SearchStudy(tmp_path, space, ABOUT, seed=0)
    seen = []
    for _ in range(12):
        with study.next_trial(12) as trial:
            assert trial is not None
            seen.append(trial.settings["x"])
            trial.fail("a reason")
    assert all(choice in seen for choice in choices)
    assert [result.settings["x"] for result in study.results()] == seen
    assert {(result.state, result.reason) for result in study.results()} == {("failed", "a reason")}
    with study.next_trial(12) as trial:
        assert trial is None


def test_without_optuna_a_line_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MachineError, match=r"Optuna is not installed. Install it with `pip install 'd2tune\[sweep\]'`"):
        results(tmp_path)


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "a ?b#c%20d&e=f"
    folder.mkdir()
    main(folder, 1, 0, 0)
    assert [trial.state for trial in results(folder)] == ["finished"]
    assert (folder / "study.db").is_file() and [path.name for path in tmp_path.iterdir()] == [folder.name]
