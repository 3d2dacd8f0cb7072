"""What the loggers are given of evaluations: galleries in training; at the end metrics, charts and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.utils.events import get_event_storage

from d2tune.data.image_reader import image_reader
from d2tune.engine.galleries import FEW_IMAGES, MOST_IMAGES, Galleries
from d2tune.engine.logbook import Logbook
from d2tune.engine.plan import TrainingPlan
from d2tune.evaluation.evaluator import Evaluator
from d2tune.loggers import evaluation as logged
from d2tune.loggers.base import LoggedFile
from d2tune.run_folder import RunFolder

_MOST_IN_TRAINING = 500
"""Larger validation splits get no galleries before the end: their images are all looked at for one."""


class LoggedResults:
    """Puts results of the validation split into a logbook.

    Args:
        plan: The run's decisions.
        folder: The run folder.
        evaluator: The evaluator of the validation split.
        logbook: Gets them.
    """

    def __init__(self, plan: TrainingPlan, folder: RunFolder, evaluator: Evaluator[Any], logbook: Logbook) -> None:
        val = plan.splits.val
        self._plan = plan
        self._folder = folder
        self._evaluator = evaluator
        self._logbook = logbook
        self._images = len(val.images)
        self._galleries = Galleries(val, evaluator, image_reader(plan.project, plan.cfg), key=plan.val_sha256)

    def put_predictions(self, predictions: Sequence[Any], *, completed: int) -> None:
        """A small gallery of an evaluation in training, but for the last one, which a complete one follows."""
        if completed < self._plan.cfg.SOLVER.MAX_ITER and self._images <= _MOST_IN_TRAINING:
            self._put_gallery(predictions, most=FEW_IMAGES)

    def put_complete(self, predictions: Sequence[Any], best: Mapping[str, Any]) -> None:
        """Everything of the finished training.

        Args:
            predictions: Those of the best weights.
            best: The entry of the record about them.
        """
        storage = get_event_storage()
        evaluation = self._folder.read_evaluation()
        self._logbook.put_scalars(logged.scalars(evaluation), iteration=storage.iter)
        curves = [(one.name, one.recall, one.precision) for one in self._evaluator.images(predictions).curves()]
        shown = logged.images(evaluation, curves=curves, plots=self._folder.path / "plots")
        self._logbook.put_images(shown, iteration=storage.iter)
        self._put_gallery(predictions, most=MOST_IMAGES)
        for file in self._files(best):
            self._logbook.put_file(file, iteration=storage.iter)

    def _put_gallery(self, predictions: Sequence[Any], *, most: int) -> None:
        if self._logbook.takes_galleries:
            gallery = self._galleries.of(predictions, most=most)
            self._logbook.put_images({"predictions": gallery}, iteration=get_event_storage().iter)

    def _files(self, best: Mapping[str, Any]) -> list[LoggedFile]:
        folder, plan = self._folder, self._plan
        data = {"train_sha256": plan.train_sha256, "val_sha256": plan.val_sha256}
        facts = {"task": plan.project.task, "classes": list(plan.splits.val.class_names), **data}
        final = facts | {"iterations": plan.cfg.SOLVER.MAX_ITER}
        kept = facts | {key: value for key, value in best.items() if isinstance(value, int | float | str)}
        return [
            LoggedFile(folder.evaluation, "evaluation", "evaluation", metadata=data),
            LoggedFile(folder.project, "project", "config", metadata=data),
            LoggedFile(folder.final, "model_final", "model", ("final",), final),
            LoggedFile(folder.best, "model_best", "model", ("best",), kept),
        ]
