"""The metrics of followed objects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from d2tune.evaluation.map_metrics import MapMetrics, counted_images, plain_rows, with_spans
from d2tune.metrics.coco.summary import REPLICATES
from d2tune.metrics.mask_tracking import MaskTrackScorer


@dataclass(frozen=True)
class TrackingMetrics(MapMetrics):
    """The metrics of followed objects; see `MapMetrics` and `MaskTrackScorer`."""

    task: ClassVar[str] = "tracking"
    main_name: ClassVar[str] = "J"
    class_metric: ClassVar[str] = "J"

    def short_line(self) -> str:
        """J, and the success of boxes and masks."""
        values = self.metrics
        return f"J {values['J']}  box IoU over 0.5 {values['box50']} %  mask IoU over 0.75 {values['J75']} %"

    def plain_summary(self, images: str) -> str:
        """The share of objects that are followed; see `MapMetrics`."""
        return f"On {images} the box of {self.metrics['box50']} % of the objects is right (IoU of 0.5 or more)"

    def write_plots(self, folder: Path) -> None:
        """Plot J of each class."""
        from d2tune.report.plots import bar_plots

        subtitle = counted_images(self.images)
        bar_plots.write_class_metric(folder / "class_j.png", self.bars(), mean=self.main.value, subtitle=subtitle)

    def _class_rows(self) -> tuple[list[str], list[list[str]]]:
        header = ["class", "objects", *self.metrics]
        return header, [[row["name"], str(row["objects"]), *map(str, row["metrics"].values())] for row in self.classes]


def tracking_metrics(scorer: MaskTrackScorer, *, intervals: bool) -> TrackingMetrics:
    """The metrics of all objects that were added to a scorer.

    Args:
        scorer: A scorer with all objects added.
        intervals: Whether each metric gets its 95 % bootstrap interval over the images.
    """
    metrics = scorer.metrics()
    return TrackingMetrics(
        scorer.images,
        with_spans(metrics, scorer.resample, scorer.images) if intervals else metrics,
        plain_rows(scorer.classes()),
        REPLICATES if intervals else 0,
    )
