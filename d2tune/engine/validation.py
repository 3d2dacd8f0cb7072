"""Evaluating the model in training, and keeping the predictions of its best weights."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from detectron2.utils.events import get_event_storage
from PIL import Image as PilImage
from torch import nn

from d2tune import files
from d2tune.engine.divergence import check_weights
from d2tune.engine.hooks.base import Hook
from d2tune.engine.logbook import Logbook
from d2tune.engine.logged_results import LoggedResults
from d2tune.engine.plan import TrainingPlan
from d2tune.engine.shared_evaluation import SharedEvaluation
from d2tune.evaluation.evaluator import Scoring
from d2tune.metrics.metric import Metric
from d2tune.modeling import checkpoint
from d2tune.packages.run_card import write_run_card
from d2tune.packages.write import divisibility
from d2tune.run_folder import RunFolder
from d2tune.run_lock import doing, note
from d2tune.tasks import task_of
from d2tune.timing import StageTimes

logger = logging.getLogger(__name__)


class Validation(Hook):
    """Scores the validation split; keeps the best weights and their predictions, and shows them at the end.

    Args:
        plan: The run's decisions.
        folder: Where it writes.
        model: The model in training, not wrapped.
        shared: Predicts and computes the validation loss.
        logbook: Gets charts, galleries and files for the loggers.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        folder: RunFolder,
        model: nn.Module,
        *,
        shared: SharedEvaluation,
        logbook: Logbook,
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._model = model
        self._shared = shared
        self._task = task_of(plan.project)
        self._evaluator = shared.evaluator
        self._logged = LoggedResults(plan, folder, self._evaluator, logbook)
        self._predictions: Any = None
        self._scored: tuple[Callable[[], Metric], int] | None = None
        self._stopping_value: float | None = None
        self._times = StageTimes()
        self._times_of_best: StageTimes | None = None

    def before_train(self) -> None:
        note(self._folder.path, "training")

    def last_metric(self) -> tuple[Metric, int] | None:
        """The main metric of the last evaluation with its interval, and its iteration; None before the first.

        The interval is computed where this is called for the first time.
        """
        if self._scored is None:
            return None
        spanned, iteration = self._scored
        metric = spanned()
        self._scored = (lambda: metric), iteration
        return metric, iteration

    def stopping_value(self) -> float | None:
        """What early stopping looks at in the last evaluation, higher is better; None where it has no value."""
        return self._stopping_value

    def run(self, iteration: int) -> float | None:
        """Score the validation split and return the main metric, None where it has no value.

        Raises:
            DivergenceError: The weights are not finite.
        """
        with self._shared.leading(), doing(self._folder.path, f"evaluating after {iteration} iterations"):
            return self._run(iteration)

    def _run(self, iteration: int) -> float | None:
        check_weights(self._model, iteration=iteration)
        began = time.perf_counter()
        self._times = StageTimes()
        self._predictions, losses = self._shared.evaluate(self._times)
        quick = self._evaluator.quick(self._predictions)
        storage = get_event_storage()
        for name, value in (quick.scalars | losses).items():
            storage.put_scalar(f"val/{name}", value, smoothing_hint=False)
        self._scored = quick.spanned, iteration
        early = self._plan.project.train.early_stopping
        self._stopping_value = -losses["total_loss"] if early.patience and early.metric == "loss" else quick.value
        print(f"  {iteration} iterations: {quick.line}  ({time.perf_counter() - began:.0f} s)", flush=True)
        self._logged.put_predictions(self._predictions, completed=iteration)
        return quick.value

    def keep(self, iteration: int, value: float | None) -> None:
        """Keep the weights that were just evaluated, and their predictions."""
        self._times_of_best = self._times
        with self._shared.weights():
            state = checkpoint.plain_state(self._model)
        checkpoint.save(self._folder.best, {"model": state, "iteration": iteration})
        self._note_best({"iteration": iteration, "sha256": files.sha256_file(self._folder.best)}, value)

    def _note_best(self, best: dict[str, Any], value: float | None) -> None:
        """Write the latest predictions, and the entry of the record that says which weights and images they are of."""
        digest = self._evaluator.save(self._predictions, self._folder.path)
        of_images = {"val_sha256": self._plan.val_sha256, "images_sha256": self._images_sha256()}
        score = {self._task.main_metric: value, "predictions_sha256": digest}
        self._folder.update_record({"best": best | score | of_images})

    def _images_sha256(self) -> str:
        """A hash that changes when an image of the validation split is renamed, replaced, added or removed."""
        digest = hashlib.sha256()
        for image in self._plan.splits.val.images:
            stated = image.path.stat() if image.path is not None else None
            row = [image.file_name, stated and stated.st_size, stated and stated.st_mtime_ns]
            digest.update(json.dumps(row).encode())
        return digest.hexdigest()

    def recheck(self, value: float | None) -> float | None:
        """Score the best weights of an earlier start again where their predictions are not of the present images.

        Args:
            value: Their score in the checkpoint.
        """
        with self._shared.leading():
            return self._recheck(value)

    def _recheck(self, value: float | None) -> float | None:
        best = self._folder.read_record().get("best")
        if best is None or not self._folder.best.is_file():
            return None
        if files.sha256_file(self._folder.best) != best["sha256"]:
            return None  # better ones, which were being kept when the run was killed and will be evaluated again
        if self._are_present(best):
            return value
        if best.get("val_sha256", self._plan.val_sha256) != self._plan.val_sha256:
            logger.warning("the validation split has changed since this run began: the best weights are scored again")
        return self._rescore(best)

    def _are_present(self, best: dict[str, Any]) -> bool:
        """Whether the predictions in the run folder are those of the best weights on the present images."""
        try:
            digest = self._evaluator.digest(self._folder.path)
        except OSError:
            return False
        present = (self._plan.val_sha256, self._images_sha256(), digest)
        return present == (best.get("val_sha256"), best.get("images_sha256"), best["predictions_sha256"])

    def _rescore(self, best: dict[str, Any]) -> float | None:
        """Predict on the present images with the best weights, and keep these predictions."""
        own = checkpoint.plain_state(self._model)
        checkpoint.load_weights(self._model, self._folder.best)
        try:
            times = StageTimes()
            self._predictions = self._shared.rescore(times)
        finally:
            checkpoint.put_weights(self._model, own, file=self._folder.last)
        value = self._evaluator.quick(self._predictions).value
        self._times_of_best = times
        self._note_best({"iteration": best["iteration"], "sha256": files.sha256_file(self._folder.best)}, value)
        return value

    def after_last_step(self) -> None:
        """Write the last weights, evaluate and draw the best ones, and note that the run is finished."""
        with (
            self.trainer.stoppable_at_once(),
            self._shared.leading(),
            doing(self._folder.path, "evaluating the best weights"),
        ):
            self._finish()

    def _finish(self) -> None:
        done = self.trainer.completed
        with self._shared.weights():
            state = checkpoint.plain_state(self._model)
        checkpoint.save(self._folder.final, {"model": state, "iteration": done})
        if not self._folder.best.is_file():
            self.keep(done, self._run(done))
        self._evaluate_best()
        plan = self._plan
        write_run_card(self._folder, plan.project, plan.cfg, divisible_by_px=divisibility(self._model))
        with PilImage.open(self._folder.contact_sheet) as image:
            pixels = np.asarray(image.convert("RGB"))
        get_event_storage().put_image("contact_sheet", pixels.transpose(2, 0, 1))
        finished: dict[str, Any] = {"iterations": done, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        if done < plan.cfg.SOLVER.MAX_ITER:
            finished["stopped_early"] = True
        self._folder.update_record({"finished": finished})
        self._folder.before_last.unlink(missing_ok=True)

    def _evaluate_best(self) -> None:
        """Score the predictions of the best weights with everything that takes its time, and draw them."""
        folder = self._folder
        if not self._are_present(folder.read_record()["best"]):
            self._rescore(folder.read_record()["best"])
        best = folder.read_record()["best"]
        predictions = self._evaluator.load(folder.path)
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
        self._logged.put_complete(predictions, best)
        self._evaluator.draw(
            folder.contact_sheet,
            predictions,
            title=self._plan.project.name,
            subtitle=f"validation images, weights of iteration {best['iteration']}, {outcome.headline}",
        )
