"""Evaluating an instance model: COCO's average precision of boxes and masks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from d2tune import files
from d2tune.annotations.formats.coco import to_coco
from d2tune.annotations.model.dataset import Dataset
from d2tune.evaluation.contact_sheet import write_images
from d2tune.evaluation.evaluator import Quick, Scoring
from d2tune.evaluation.outcome import Outcome, evaluate_results, write_outcome
from d2tune.evaluation.summaries import short_line
from d2tune.inference.loop import CocoResult, StageTimes, predict_dataset
from d2tune.metrics.coco.results import KIND_NAMES
from d2tune.metrics.coco.scorer import score_coco
from d2tune.metrics.coco.summary import InstanceMetrics, metrics_of

PREDICTIONS = "predictions.json"
"""COCO results in a run's folder."""


@dataclass(frozen=True, slots=True)
class InstanceOutcome:
    """An evaluation of instances in full."""

    outcome: Outcome

    @property
    def metrics(self) -> InstanceMetrics:
        """The figures."""
        return self.outcome.metrics

    @property
    def headline(self) -> str:
        """The figure that counts, by name: ``mask AP 56.1``."""
        main = self.metrics.main
        return f"{KIND_NAMES[main]} AP {self.metrics.metrics[main]['AP']}"

    def write(self, folder: Path, *, bound: Mapping[str, Any], times: StageTimes | None) -> None:
        """Write ``evaluation.json`` and ``plots``."""
        write_outcome(folder, self.outcome, bound=bound, times=times)


class InstanceEvaluator:
    """Evaluates instance models on one part of the data; see `tasks.Evaluator`.

    Args:
        dataset: The part.
        cfg: The run's config.
    """

    def __init__(self, dataset: Dataset, cfg: CfgNode) -> None:
        self._dataset = dataset
        self._cfg = cfg

    def predict(
        self,
        model: Any,
        *,
        times: StageTimes | None = None,
        batch_size: int | None = None,
        show_progress: bool | None = None,
    ) -> list[CocoResult]:
        """What the model finds, in COCO's results format."""
        return predict_dataset(
            model, self._dataset, self._cfg, times=times, batch_size=batch_size, show_progress=show_progress
        )

    def quick(self, found: Sequence[CocoResult]) -> Quick:
        """Box and mask AP."""
        metrics = metrics_of(score_coco(to_coco(self._dataset), found, kinds=("bbox", "segm")))
        scalars = {
            f"{kind}/{name}": one.value
            for kind, figures in (("bbox", metrics.bbox), ("segm", metrics.segm))
            for name, one in figures.items()
            if one.value is not None
        }
        of_classes = {row.name: row.metrics["segm"]["AP"].value for row in metrics.classes}
        scalars |= {f"segm/AP-{name}": value for name, value in of_classes.items() if value is not None}
        return Quick(metrics.segm["AP"].value, short_line(metrics), scalars)

    def evaluate(self, found: Sequence[CocoResult], scoring: Scoring) -> InstanceOutcome:
        """All figures with their intervals, and what is behind them."""
        outcome = evaluate_results(
            to_coco(self._dataset),
            found,
            kinds=scoring.kinds,
            split=scoring.split,
            times=scoring.times,
        )
        return InstanceOutcome(outcome)

    def save(self, found: Sequence[CocoResult], folder: Path) -> str:
        """Write ``predictions.json``."""
        files.write_json(folder / PREDICTIONS, found, indent=None)
        return self.digest(folder)

    def digest(self, folder: Path) -> str:
        """The SHA-256 of ``predictions.json``."""
        return files.sha256_file(folder / PREDICTIONS)

    def load(self, folder: Path) -> list[CocoResult]:
        """Read ``predictions.json``."""
        found: list[CocoResult] = json.loads((folder / PREDICTIONS).read_bytes())
        return found

    def draw(self, path: Path, found: Sequence[CocoResult], *, title: str, subtitle: str) -> None:
        """Instances on photos, ground truth beside prediction."""
        write_images(path, self._dataset, found, title=title, subtitle=subtitle)
