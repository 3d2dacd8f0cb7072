"""The metrics of label maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from d2tune.evaluation.map_metrics import MapMetrics, counted_images, plain_rows, with_spans
from d2tune.metrics.coco.summary import REPLICATES
from d2tune.metrics.semantic import SemanticScorer


@dataclass(frozen=True)
class SemanticMetrics(MapMetrics):
    """The metrics of label maps; see `MapMetrics`.

    Attributes:
        confusion: Pixels ``(K, K + 1)``; see `SemanticResult`.
    """

    task: ClassVar[str] = "semantic"
    main_name: ClassVar[str] = "mIoU"
    class_metric: ClassVar[str] = "IoU"

    confusion: tuple[tuple[int, ...], ...] = ()

    def short_line(self) -> str:
        """Mean IoU, pixel accuracy and mean Dice."""
        values = self.metrics
        return f"mIoU {values['mIoU']}  pixel accuracy {values['pACC']}  mean Dice {values['mDice']}"

    def plain_summary(self, images: str) -> str:
        """The share of correctly labeled pixels; see `MapMetrics`."""
        return f"On {images} the model labels {self.metrics['pACC']} % of the pixels correctly"

    def write_plots(self, folder: Path) -> None:
        """Plot the IoU of each class, and the confusion of pixels."""
        from d2tune.report.plots import bar_plots, confusion_plot

        subtitle = counted_images(self.images)
        bar_plots.write_class_metric(folder / "class_iou.png", self.bars(), mean=self.main.value, subtitle=subtitle)
        counts = np.array(self.confusion, dtype=np.int64)
        square = np.vstack([counts, np.zeros((1, counts.shape[1]), np.int64)])
        names = [row["name"] for row in self.classes]
        confusion_plot.write_confusion(folder / "confusion.png", square, names, subtitle=subtitle, of_pixels=True)

    def _class_rows(self) -> tuple[list[str], list[list[str]]]:
        header = ["class", "pixels", *self.classes[0]["metrics"]]
        return header, [[row["name"], str(row["pixels"]), *map(str, row["metrics"].values())] for row in self.classes]

    def _more_json(self) -> dict[str, Any]:
        return {"confusion": [list(row) for row in self.confusion]}

    @classmethod
    def _more_fields(cls, plain: Mapping[str, Any]) -> dict[str, Any]:
        return {"confusion": tuple(tuple(row) for row in plain.get("confusion", ()))}


def semantic_metrics(scorer: SemanticScorer, *, intervals: bool) -> SemanticMetrics:
    """The metrics of all images that were added to a scorer.

    Args:
        scorer: A scorer with all images added.
        intervals: Whether each metric gets its 95 % bootstrap interval over the images.
    """
    result = scorer.result()
    return SemanticMetrics(
        result.images,
        with_spans(result.metrics, scorer.resample, scorer.images) if intervals else result.metrics,
        plain_rows(result.classes),
        REPLICATES if intervals else 0,
        tuple(tuple(row) for row in result.confusion.tolist()),
    )
