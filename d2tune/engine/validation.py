"""Evaluating the model in training, and keeping what its best weights found."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils.events import get_event_storage
from torch import nn

from d2tune import files
from d2tune.engine.hooks import WeightAverage
from d2tune.engine.prepare import Prepared
from d2tune.evaluation.evaluator import Quick, Scoring, evaluator_of
from d2tune.inference.loop import StageTimes
from d2tune.loggers.protocol import ImageLog
from d2tune.modeling import checkpoint
from d2tune.run_folder import RunFolder


class Validation(HookBase):
    """Scores the validation part; keeps the best weights and their predictions, and draws them at the end.

    Args:
        prepared: The run's decisions.
        folder: Where it writes.
        model: The model in training, not wrapped.
        average: Whose averaged weights are evaluated, or None for the model's own.
        image_logs: Dashboards that take the contact sheet.
    """

    def __init__(
        self,
        prepared: Prepared,
        folder: RunFolder,
        model: nn.Module,
        *,
        average: WeightAverage | None,
        image_logs: Sequence[ImageLog],
    ) -> None:
        self._prepared = prepared
        self._folder = folder
        self._model = model
        self._average = average
        self._image_logs = image_logs
        self._evaluator = evaluator_of(prepared.parts.val, prepared.cfg, prepared.project)
        self._found: Any = None
        self._quick: Quick | None = None
        self._times = StageTimes()
        self._times_of_best: StageTimes | None = None
        self.seconds = 0.0

    def _weights(self) -> Any:
        return nullcontext() if self._average is None else self._average.averaged()

    def run(self, iteration: int) -> float | None:
        """Score the validation part and return the figure that counts, None where there is none to compute."""
        began = time.perf_counter()
        self._times = StageTimes()
        with self._weights():
            self._found = self._evaluator.predict(self._model, times=self._times)
        self._quick = self._evaluator.quick(self._found)
        storage = get_event_storage()
        for name, value in self._quick.scalars.items():
            storage.put_scalar(f"val/{name}", value, smoothing_hint=False)
        spent_s = time.perf_counter() - began
        self.seconds += spent_s
        print(f"  {iteration} iterations: {self._quick.line}  ({spent_s:.0f} s)", flush=True)
        return self._quick.value

    def keep(self, iteration: int, value: float | None) -> None:
        """Keep the weights just evaluated, and what they found."""
        self._times_of_best = self._times
        with self._weights():
            state = checkpoint.plain_state(self._model)
        checkpoint.save(self._folder.best, {"model": state, "iteration": iteration})
        digest = self._evaluator.save(self._found, self._folder.path)
        name = {"instance": "mask_ap", "semantic": "miou", "panoptic": "pq"}[self._prepared.project.task]
        best = {"iteration": iteration, name: value, "sha256": files.sha256_file(self._folder.best)}
        self._folder.update_record({"best": best | {"predictions_sha256": digest}})

    def after_train(self) -> None:
        if self.trainer.completed < self.trainer.max_iter or not self.trainer.resumable:
            return
        with self._weights():
            state = checkpoint.plain_state(self._model)
        checkpoint.save(self._folder.final, {"model": state, "iteration": self.trainer.completed})
        self._evaluate_best()
        for log in self._image_logs:
            log.log_image("contact_sheet", self._folder.contact_sheet)

    def _evaluate_best(self) -> None:
        """Score what the best weights found with everything that takes its time, and draw it."""
        folder = self._folder
        found = self._evaluator.load(folder.path)
        best = folder.read_record()["best"]
        times = self._times_of_best or StageTimes()
        outcome = self._evaluator.evaluate(found, Scoring(split="val", times=times))
        bound = {
            "run": str(folder.path.resolve()),
            "data": None,
            "data_sha256": self._prepared.parts.val.content_hash(),
            "weights": str(folder.best.resolve()),
            "weights_sha256": best["sha256"],
            "config_sha256": files.sha256_file(folder.config),
            "predictions_sha256": best["predictions_sha256"],
        }
        outcome.write(folder.path, bound=bound, times=self._times_of_best)
        self._evaluator.draw(
            folder.contact_sheet,
            found,
            title=self._prepared.project.name,
            subtitle=f"validation images, weights of iteration {best['iteration']}, {outcome.headline}",
        )
