"""Tasks: the samples, predictor, evaluator, writers and main metric of each task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from d2tune.evaluation.summaries import Metrics
from d2tune.project import Project
from d2tune.tasks.base import Task
from d2tune.tasks.instance import InstanceTask
from d2tune.tasks.panoptic import PanopticTask
from d2tune.tasks.semantic import SemanticTask
from d2tune.tasks.tracking import TrackingTask

__all__ = ["TASKS", "Task", "metrics_from_json", "task_of"]

TASKS: Mapping[str, Task] = {
    task.name: task for task in (InstanceTask(), SemanticTask(), PanopticTask(), TrackingTask())
}
"""The tasks by their names in project files and records."""


def task_of(project: Project) -> Task:
    """The task of a project."""
    return TASKS[project.task]


def metrics_from_json(evaluation: Mapping[str, Any]) -> Metrics:
    """The metrics in the content of an ``evaluation.json``."""
    return TASKS[evaluation["task"]].metrics_from_json(evaluation)
