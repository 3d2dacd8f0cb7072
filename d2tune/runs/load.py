"""The model of a run, a package or an exported model, and its predictor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from d2tune.errors import ProjectError, check_range
from d2tune.inference.predictors.base import Predictor
from d2tune.modeling.from_run import load_run
from d2tune.modeling.loaded import LoadedModel, ModelDescription
from d2tune.project import load_project
from d2tune.run_folder import RunFolder
from d2tune.tasks import task_of
from d2tune.text import a_or_an


def describe(path: str | Path) -> ModelDescription:
    """The project and the record of a model, without loading it.

    Args:
        path: A run folder.

    Raises:
        RunError: The folder is not a run folder.
    """
    folder = RunFolder(Path(path))
    record = folder.read_record()
    return ModelDescription(source=folder.path, project=load_project(folder.project).project, record=record)


def load_model(path: str | Path, *, weights: str = "best") -> LoadedModel:
    """Read a model.

    Args:
        path: A run folder.
        weights: ``best``, ``final`` or a checkpoint file.

    Raises:
        RunError: The folder is not a run folder, or the weights do not exist or are of another model.
    """
    return load_run(path, weights=weights)


def predictor_of(loaded: LoadedModel, *, min_score: float | None = None) -> Predictor[Any, Any]:
    """The predictor of a loaded model, which must be its only user.

    Args:
        loaded: The model.
        min_score: Lowest score of an instance of any class, from 0 to 1; None takes the thresholds of the model.

    Raises:
        ProjectError: The lowest score is not between 0 and 1, or predictions of the model have no scores.
    """
    task = task_of(loaded.project)
    if min_score is not None:
        check_range(min_score, place="min_score", least=0, most=1)
        if not task.has_scores:
            message = f"predictions of {a_or_an(task.name)} model have no scores"
            raise ProjectError(message, place="min_score", hint="Remove it.")
    min_scores = None
    if task.has_scores:
        min_scores = [loaded.thresholds[name] if min_score is None else min_score for name in loaded.class_names]
    return task.predictor(
        loaded.model, loaded.cfg, loaded.project, loaded.categories, is_model_own=True, min_scores=min_scores
    )


def load_predictor(path: str | Path, *, weights: str = "best", min_score: float | None = None) -> Predictor[Any, Any]:
    """The predictor of a finished run.

    ``predictor(image)`` returns `Detections`, a `LabelMap` or a `PanopticMap`, depending on the task of the run;
    ``predictor.batch(images)`` returns a list of them. Images are files, or arrays ``(H, W, 3)`` uint8 in RGB.

    Args:
        path: A run folder.
        weights: ``best``, ``final`` or a checkpoint file.
        min_score: Lowest score of an instance of any class, from 0 to 1; None takes the thresholds of the model.

    Raises:
        ProjectError: The lowest score is not between 0 and 1, or predictions of the model have no scores.
        RunError: The folder is not a run folder, or the weights do not exist.
    """
    return predictor_of(load_model(path, weights=weights), min_score=min_score)
