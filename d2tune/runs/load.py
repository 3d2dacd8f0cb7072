"""The predictor of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from d2tune.annotations.model.dataset import Category
from d2tune.inference.predictors.base import Predictor
from d2tune.modeling.from_run import LoadedRun, load_run
from d2tune.tasks import task_of


def load_predictor(run: str | Path, *, weights: str = "best") -> Predictor[Any, Any]:
    """The predictor of a finished run.

    ``predictor(image)`` returns `Detections`, a `LabelMap` or a `PanopticMap`, depending on the task of the run;
    ``predictor.batch(images)`` returns a list of them. Images are files, or arrays ``(H, W, 3)`` uint8 in RGB.

    Args:
        run: The run folder.
        weights: ``best``, ``final`` or a checkpoint file.

    Raises:
        RunError: The folder is not a run folder, or the weights do not exist.
    """
    return predictor_of(load_run(run, weights=weights))


def predictor_of(loaded: LoadedRun) -> Predictor[Any, Any]:
    """The predictor of a loaded run, which must be the only user of its model."""
    names = loaded.record["classes"]
    things = set(loaded.record.get("thing_ids", range(1, len(names) + 1)))
    categories = [Category(number, name, number in things) for number, name in enumerate(names, start=1)]
    return task_of(loaded.project).predictor(loaded.model, loaded.cfg, loaded.project, categories, is_model_own=True)
