"""Evaluating the model in training, and keeping the predictions of its best weights."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

import numpy as np
from detectron2.utils.events import get_event_storage
from PIL import Image as PilImage
from torch import nn

from d2tune import files
from d2tune.engine.hooks.base import Hook
from d2tune.engine.hooks.weight_average import WeightAverage
from d2tune.engine.plan import TrainingPlan
from d2tune.evaluation.evaluator import Scoring
from d2tune.modeling import checkpoint
from d2tune.run_folder import RunFolder
from d2tune.tasks import task_of
from d2tune.timing import StageTimes


class Validation(Hook):
    """Scores the validation split; keeps the best weights and their predictions, and shows them at the end.

    Args:
        plan: The run's decisions.
        folder: Where it writes.
        model: The model in training, not wrapped.
        average: Whose averaged weights are evaluated, or None for the model's own.
    """

    def __init__(
        self, plan: TrainingPlan, folder: RunFolder, model: nn.Module, *, average: WeightAverage | None
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._model = model
        self._average = average
        self._task = task_of(plan.project)
        val = plan.splits.val
        self._evaluator = self._task.evaluator(val, plan.cfg, plan.project)
        self._predictor = self._task.predictor(model, plan.cfg, plan.project, val.categories)
        self._predictions: Any = None
        self._times = StageTimes()
        self._times_of_best: StageTimes | None = None

    def _weights(self) -> Any:
        return nullcontext() if self._average is None else self._average.averaged()

    def run(self, iteration: int) -> float | None:
        """Score the validation split and return the main metric, None where it has no value."""
        began = time.perf_counter()
        self._times = StageTimes()
        with self._weights():
            self._predictions = self._evaluator.predict(self._predictor, times=self._times)
        quick = self._evaluator.quick(self._predictions)
        storage = get_event_storage()
        for name, value in quick.scalars.items():
            storage.put_scalar(f"val/{name}", value, smoothing_hint=False)
        print(f"  {iteration} iterations: {quick.line}  ({time.perf_counter() - began:.0f} s)", flush=True)
        return quick.value

    def keep(self, iteration: int, value: float | None) -> None:
        """Keep the weights that were just evaluated, and their predictions."""
        self._times_of_best = self._times
        with self._weights():
            state = checkpoint.plain_state(self._model)
        checkpoint.save(self._folder.best, {"model": state, "iteration": iteration})
        digest = self._evaluator.save(self._predictions, self._folder.path)
        best = {"iteration": iteration, self._task.main_metric: value, "sha256": files.sha256_file(self._folder.best)}
        self._folder.update_record({"best": best | {"predictions_sha256": digest}})

    def after_train(self) -> None:
        if self.trainer.completed < self.trainer.max_iter or not self.trainer.resumable:
            return
        with self._weights():
            state = checkpoint.plain_state(self._model)
        checkpoint.save(self._folder.final, {"model": state, "iteration": self.trainer.completed})
        self._evaluate_best()
        with PilImage.open(self._folder.contact_sheet) as image:
            pixels = np.asarray(image.convert("RGB"))
        get_event_storage().put_image("contact_sheet", pixels.transpose(2, 0, 1))

    def _evaluate_best(self) -> None:
        """Score the predictions of the best weights with everything that takes its time, and draw them."""
        folder = self._folder
        predictions = self._evaluator.load(folder.path)
        best = folder.read_record()["best"]
        times = self._times_of_best or StageTimes()
        outcome = self._evaluator.evaluate(predictions, Scoring(split="val", times=times))
        bound = {
            "run": str(folder.path.resolve()),
            "data": None,
            "data_sha256": self._plan.val_sha256,
            "weights": str(folder.best.resolve()),
            "weights_sha256": best["sha256"],
            "config_sha256": files.sha256_file(folder.config),
            "predictions_sha256": best["predictions_sha256"],
        }
        outcome.write(folder.path, bound=bound, times=self._times_of_best)
        self._evaluator.draw(
            folder.contact_sheet,
            predictions,
            title=self._plan.project.name,
            subtitle=f"validation images, weights of iteration {best['iteration']}, {outcome.headline}",
        )
