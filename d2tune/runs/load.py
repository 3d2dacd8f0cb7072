"""The predictor of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from d2tune.annotations.model.dataset import Category
from d2tune.errors import ProjectError, check_range
from d2tune.inference.predictors.base import Predictor
from d2tune.modeling.from_run import LoadedRun, load_run
from d2tune.tasks import task_of
from d2tune.text import a_or_an


def load_predictor(run: str | Path, *, weights: str = "best", min_score: float | None = None) -> Predictor[Any, Any]:
    """The predictor of a finished run.

    ``predictor(image)`` returns `Detections`, a `LabelMap` or a `PanopticMap`, depending on the task of the run;
    ``predictor.batch(images)`` returns a list of them. Images are files, or arrays ``(H, W, 3)`` uint8 in RGB.

    Args:
        run: The run folder.
        weights: ``best``, ``final`` or a checkpoint file.
        min_score: Lowest score of instances, from 0 to 1; None keeps all that the model gives.

    Raises:
        ProjectError: The lowest score is not between 0 and 1, or predictions of the run have no scores.
        RunError: The folder is not a run folder, or the weights do not exist.
    """
    if min_score is not None:
        check_range(min_score, place="min_score", least=0, most=1)
    return predictor_of(load_run(run, weights=weights), min_score=min_score)


def predictor_of(loaded: LoadedRun, *, min_score: float | None = None) -> Predictor[Any, Any]:
    """The predictor of a loaded run, which must be the only user of its model.

    Args:
        loaded: The run.
        min_score: Lowest score of instances, from 0 to 1; None keeps all that the model gives.

    Raises:
        ProjectError: A lowest score is given, and predictions of the run have no scores.
    """
    task = task_of(loaded.project)
    if min_score is not None and not task.has_scores:
        message = f"predictions of {a_or_an(task.name)} run have no scores"
        raise ProjectError(message, place="min_score", hint="Remove it.")
    names = loaded.record["classes"]
    things = set(loaded.record.get("thing_ids", range(1, len(names) + 1)))
    categories = [Category(number, name, number in things) for number, name in enumerate(names, start=1)]
    return task.predictor(
        loaded.model,
        loaded.cfg,
        loaded.project,
        categories,
        is_model_own=True,
        min_scores=None if min_score is None else [min_score] * len(names),
    )
