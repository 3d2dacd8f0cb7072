"""The model of a finished run, and its predictor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from d2tune.annotations.model.dataset import Category
from d2tune.inference.predictors.base import Predictor
from d2tune.modeling.from_run import LoadedRun, load_run
from d2tune.tasks import task_of


def load_model(run: str | Path, *, weights: str = "best") -> LoadedRun:
    """Build a run's model with its own weights; see `modeling.from_run.load_run`."""
    return load_run(run, weights=weights)


def load_predictor(run: str | Path, *, weights: str = "best") -> Predictor[Any, Any]:
    """The predictor of a finished run.

    ``predictor(image)`` gives `Detections`, a `LabelMap` or a `PanopticMap`, as the task of the run is;
    ``predictor.batch(images)`` a list of them. Images are files, or arrays ``(H, W, 3)`` uint8 in RGB.

    Args:
        run: The run folder.
        weights: ``best``, ``final`` or a checkpoint file.

    Raises:
        RunError: The folder is not a run folder, or has no such weights.
    """
    return predictor_of(load_model(run, weights=weights))


def predictor_of(loaded: LoadedRun) -> Predictor[Any, Any]:
    """The predictor of a loaded run; the model is its own from then on."""
    categories = categories_of(loaded.record)
    return task_of(loaded.project).predictor(loaded.model, loaded.cfg, loaded.project, categories, is_model_own=True)


def categories_of(record: dict[str, Any]) -> Sequence[Category]:
    """The classes of a run in the order of their ids."""
    things = set(record.get("thing_ids", range(1, len(record["classes"]) + 1)))
    return tuple(Category(number, name, number in things) for number, name in enumerate(record["classes"], start=1))
