"""One of several trainings: begun, resumed where it was ended, or read where it is finished."""

from __future__ import annotations

import gc
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2tune.engine import launch
from d2tune.project import LoadedProject, Project
from d2tune.project.traits import MetricPlace
from d2tune.run_folder import RunFolder

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trained:
    """What a finished training has measured on its validation split.

    Attributes:
        run: The run folder.
        values: The main metrics by their titles, such as ``mask AP``; None where one is not defined.
        images: Images of the validation split.
        best_iteration: Iterations after which the best weights were reached.
    """

    run: Path
    values: dict[str, float | None]
    images: int
    best_iteration: int


def train_in(loaded: LoadedProject, path: Path, *, num_gpus: int | None, sample: bool) -> Trained:
    """Train in a folder, or go on with the training in it.

    Args:
        loaded: The project.
        path: The run folder. What a training left that was killed before its first checkpoint is removed.
        num_gpus: As for `launch.train`.
        sample: As for `launch.train`.

    Raises:
        D2TuneError: See `launch.train`.
        SystemExit: Training was stopped by a signal.
    """
    folder = RunFolder(path)
    if not is_finished(folder):
        resume = folder.last.is_file() or folder.before_last.is_file()
        if not resume and folder.record.is_file():
            logger.warning("%s has no checkpoint yet and is begun again", path)
            shutil.rmtree(path)
        launch.train(loaded, output_dir=path, resume=resume, num_gpus=num_gpus, sample=sample)
        gc.collect()  # the model and its optimizer, which refer to each other
    return read_trained(folder, loaded.project)


def is_finished(folder: RunFolder) -> bool:
    """Whether a training was evaluated to its end."""
    return bool(folder.record_entries().get("finished"))


def read_trained(folder: RunFolder, project: Project) -> Trained:
    """What a finished training has measured.

    Raises:
        RunError: Its record or evaluation is damaged.
    """
    record, metrics = folder.read_record(), folder.read_evaluation()["metrics"]
    places = [place for place in project.traits.main_metrics if place.name in metrics.get(place.kind, {})]
    values = {place.title: _value(metrics, place) for place in places}
    return Trained(folder.path, values, int(record["data"]["val_images"]), int(record["best"]["iteration"]))


def _value(metrics: Mapping[str, Any], place: MetricPlace) -> float | None:
    entry = metrics[place.kind][place.name]
    value = entry.get("value") if isinstance(entry, Mapping) else entry
    return None if value is None else float(value)
