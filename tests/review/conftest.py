from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from d2tune.project.traits import TaskName
from tests.review.world import BETTER, make_data, make_run


@pytest.fixture(scope="session")
def crossing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six training and six validation images, each with a bus and a car."""
    return make_data(tmp_path_factory.mktemp("crossing") / "data")


@pytest.fixture(scope="session")
def run_of(crossing: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[TaskName], Path]:
    """The run of a task, to be read only."""
    made: dict[TaskName, Path] = {}

    def run(task: TaskName) -> Path:
        if task not in made:
            made[task] = make_run(tmp_path_factory.mktemp("runs") / task, crossing, task)
        return made[task]

    return run


@pytest.fixture(scope="session")
def better(crossing: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An instance run without a mistake, to be read only."""
    return make_run(tmp_path_factory.mktemp("better") / "better", crossing, "instance", BETTER)
