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
from d2tune.engine.hooks import WeightAverage
from d2tune.engine.prepare import Prepared
from d2tune.evaluation.coco import CocoMetrics, score
from d2tune.evaluation.loop import CocoResult, predict_dataset
from d2tune.evaluation.pictures import write_pictures
from d2tune.evaluation.report import short_line, write_evaluation
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
        self._metrics: CocoMetrics | None = None
        self.seconds = 0.0

    def _weights(self) -> Any:
        return nullcontext() if self._average is None else self._average.averaged()

    def run(self, iteration: int) -> float | None:
        """Score the validation part and return the mask AP, None where there is none to compute."""
        began = time.perf_counter()
        val = self._prepared.parts.val
        with self._weights():
            self._results = predict_dataset(self._model, val, self._prepared.cfg, show_progress=None)
        self._metrics = score(val, self._results)
        storage = get_event_storage()
        for kind, figures in (("bbox", self._metrics.bbox), ("segm", self._metrics.segm)):
            for name, metric in figures.items():
                if metric.value is not None:
                    storage.put_scalar(f"val/{kind}/{name}", metric.value, smoothing_hint=False)
        for row in self._metrics.classes:
            if row.segm["AP"].value is not None:
                storage.put_scalar(f"val/segm/AP-{row.name}", row.segm["AP"].value, smoothing_hint=False)
        spent_s = time.perf_counter() - began
        self.seconds += spent_s
        print(f"  {iteration} iterations: {short_line(self._metrics)}  ({spent_s:.0f} s)", flush=True)
        return self._metrics.segm["AP"].value

    def keep(self, iteration: int, mask_ap: float | None) -> None:
        """Keep the weights just evaluated, and what they found."""
        assert self._metrics is not None
        with self._weights():
            state = checkpoint.plain_state(self._model)
        checkpoint.save(self._folder.best, {"model": state, "iteration": iteration})
        files.write_json(self._folder.predictions, self._results, indent=None)
        data_sha256 = self._prepared.parts.val.content_hash()
        weights_sha256 = files.sha256_file(self._folder.best)
        write_evaluation(
            self._folder.evaluation,
            self._metrics,
            data_sha256=data_sha256,
            weights_sha256=weights_sha256,
            config=self._folder.config,
        )
        self._folder.update_record({"best": {"iteration": iteration, "mask_ap": mask_ap, "sha256": weights_sha256}})

    def after_train(self) -> None:
        if self.trainer.completed < self.trainer.max_iter or not self.trainer.resumable:
            return
        with self._weights():
            state = checkpoint.plain_state(self._model)
        checkpoint.save(self._folder.final, {"model": state, "iteration": self.trainer.completed})
        results = json.loads(self._folder.predictions.read_text(encoding="utf-8"))
        best = self._folder.read_record()["best"]
        figure = "-" if best["mask_ap"] is None else f"{best['mask_ap']:.1f}"
        write_pictures(
            self._folder.contact_sheet,
            self._prepared.parts.val,
            results,
            title=self._prepared.project.name,
            subtitle=f"validation images, weights of iteration {best['iteration']}, mask AP {figure}",
        )
        for log in self._picture_logs:
            log.log_picture("contact_sheet", self._folder.contact_sheet)
