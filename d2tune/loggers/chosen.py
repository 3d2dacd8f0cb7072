"""The loggers that a project chooses with ``tracking``."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import PurePosixPath
from typing import NamedTuple

from d2tune.errors import ProjectError
from d2tune.loggers.base import Logger
from d2tune.loggers.json_lines import JsonLines
from d2tune.loggers.queued import Queued
from d2tune.loggers.tensorboard import TensorBoard
from d2tune.project import Project


class _Service(NamedTuple):
    title: str
    module: str
    logger: str
    install: str


_SERVICES = {
    "wandb": _Service("W&B", "wandb", "Wandb", "pip install wandb"),
    "mlflow": _Service("MLflow", "mlflow", "Mlflow", "pip install 'd2tune[mlflow]'"),
    "trackio": _Service("trackio", "trackio", "Trackio", "pip install 'd2tune[trackio]'"),
}


def check(project: Project) -> None:
    """Make sure that the library of the project's logger is installed.

    Raises:
        ProjectError: It is not.
    """
    service = _SERVICES.get(project.tracking)
    if service is not None and find_spec(service.module) is None:
        raise ProjectError(
            f"{service.title} is not installed",
            place="tracking",
            found=project.tracking,
            hint=f"Install it with `{service.install}`, or set tracking: none.",
        )


def loggers_of(project: Project) -> list[Logger]:
    """JSON lines and TensorBoard, and the logger that the project chooses, in a thread of its own."""
    chosen: list[Logger] = [JsonLines(), TensorBoard()]
    service = _SERVICES.get(project.tracking)
    if service is None:
        return chosen
    logger: type[Logger] = getattr(import_module(f"d2tune.loggers.{service.module}"), service.logger)
    return [*chosen, Queued(logger(), name=service.title)]


def group_of(project: Project) -> str | None:
    """The group of a run: the project's, or that of all folds where it is trained on a fold."""
    if project.tracking_group is not None:
        return project.tracking_group
    is_fold = project.data.fold is not None or re.fullmatch(
        r"fold\d+", PurePosixPath(project.data.train.replace("\\", "/")).parent.name
    )
    return f"{project.name}-folds" if is_fold else None
