"""Evaluating the model in training, and keeping what its best weights found."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils.events import get_event_storage
from torch import nn

from d2tune import files
from d2tune.annotations.coco import to_coco
from d2tune.engine.hooks import WeightAverage
from d2tune.engine.prepare import Prepared
from d2tune.evaluation.evaluate import headline
from d2tune.evaluation.figures import KINDS
from d2tune.evaluation.loop import CocoResult, StageTimes, predict_dataset
from d2tune.evaluation.outcome import evaluate_results, write_outcome
from d2tune.evaluation.pictures import write_pictures
from d2tune.evaluation.report import short_line
from d2tune.evaluation.scores import score
from d2tune.modeling import checkpoint
from d2tune.run_folder import RunFolder
from d2tune.tracking.pictures import PictureLog


class Validation(HookBase):
    """Scores the validation part; keeps the best weights and their predictions, and draws them at the end.

    Args:
        prepared: The run's decisions.
        folder: Where it writes.
        model: The model in training, not wrapped.
        average: Whose averaged weights are evaluated, or None for the model's own.
        picture_logs: Dashboards that take the contact sheet.
    """

    def __init__(
        self,
        prepared: Prepared,
        folder: RunFolder,
        model: nn.Module,
        *,
        average: WeightAverage | None,
        picture_logs: Sequence[PictureLog],
    ) -> None:
        self._prepared = prepared
        self._folder = folder
        self._model = model
        self._average = average
        self._picture_logs = picture_logs
        self._results: list[CocoResult] = []
        self._times = StageTimes()
        self._times_of_best: StageTimes | None = None
        self.seconds = 0.0

    def _weights(self) -> Any:
        return nullcontext() if self._average is None else self._average.averaged()

    def run(self, iteration: int) -> float | None:
        """Score the validation part and return the mask AP, None where there is none to compute."""
        began = time.perf_counter()
        val = self._prepared.parts.val
        self._times = StageTimes()
        with self._weights():
            self._results = predict_dataset(self._model, val, self._prepared.cfg, times=self._times)
        metrics = score(val, self._results)
        storage = get_event_storage()
        for kind, figures in (("bbox", metrics.bbox), ("segm", metrics.segm)):
            for name, metric in figures.items():
                if metric.value is not None:
                    storage.put_scalar(f"val/{kind}/{name}", metric.value, smoothing_hint=False)
        for row in metrics.classes:
            if row.metrics["segm"]["AP"].value is not None:
                storage.put_scalar(f"val/segm/AP-{row.name}", row.metrics["segm"]["AP"].value, smoothing_hint=False)
        spent_s = time.perf_counter() - began
        self.seconds += spent_s
        print(f"  {iteration} iterations: {short_line(metrics)}  ({spent_s:.0f} s)", flush=True)
        return metrics.segm["AP"].value

    def keep(self, iteration: int, mask_ap: float | None) -> None:
        """Keep the weights just evaluated, and what they found."""
        self._times_of_best = self._times
        with self._weights():
            state = checkpoint.plain_state(self._model)
        checkpoint.save(self._folder.best, {"model": state, "iteration": iteration})
        files.write_json(self._folder.predictions, self._results, indent=None)
        best = {"iteration": iteration, "mask_ap": mask_ap, "sha256": files.sha256_file(self._folder.best)}
        self._folder.update_record({"best": best})

    def after_train(self) -> None:
        if self.trainer.completed < self.trainer.max_iter or not self.trainer.resumable:
            return
        with self._weights():
            state = checkpoint.plain_state(self._model)
        checkpoint.save(self._folder.final, {"model": state, "iteration": self.trainer.completed})
        self._evaluate_best()
        for log in self._picture_logs:
            log.log_picture("contact_sheet", self._folder.contact_sheet)

    def _evaluate_best(self) -> None:
        """Score what the best weights found with everything that takes its time, and draw it."""
        folder, val = self._folder, self._prepared.parts.val
        results = json.loads(folder.predictions.read_text(encoding="utf-8"))
        best = folder.read_record()["best"]
        outcome = evaluate_results(to_coco(val), results, kinds=KINDS, part="val", times=self._times_of_best)
        bound = {
            "run": str(folder.path.resolve()),
            "data": None,
            "data_sha256": val.content_hash(),
            "weights": str(folder.best.resolve()),
            "weights_sha256": best["sha256"],
            "config_sha256": files.sha256_file(folder.config),
            "predictions_sha256": files.sha256_file(folder.predictions),
        }
        write_outcome(folder.path, outcome, bound=bound, times=self._times_of_best)
        write_pictures(
            folder.contact_sheet,
            val,
            results,
            title=self._prepared.project.name,
            subtitle=f"validation images, weights of iteration {best['iteration']}, {headline(outcome.metrics)}",
        )
