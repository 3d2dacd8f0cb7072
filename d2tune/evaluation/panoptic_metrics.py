"""The metrics of panoptic predictions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from d2tune.evaluation.map_metrics import MapMetrics, counted_images, plain_rows, with_spans
from d2tune.metrics.coco.summary import REPLICATES
from d2tune.metrics.panoptic import PanopticScorer


@dataclass(frozen=True)
class PanopticMetrics(MapMetrics):
    """The metrics of panoptic predictions; see `MapMetrics`."""

    task: ClassVar[str] = "panoptic"
    main_name: ClassVar[str] = "PQ"
    class_metric: ClassVar[str] = "PQ"

    def short_line(self) -> str:
        """PQ of all classes, of things and of stuff, SQ and RQ."""
        values = self.metrics
        line = f"PQ {values['PQ']} (things {values['PQ_th']}, stuff {values['PQ_st']})  SQ {values['SQ']}"
        return f"{line}  RQ {values['RQ']}"

    def plain_summary(self, images: str) -> str:
        """The number of detected objects and regions, and of false alarms; see `MapMetrics`."""
        detected, false, missed = (sum(row[count] for row in self.classes) for count in ("tp", "fp", "fn"))
        alarms = f"{false} false alarm{'' if false == 1 else 's'}"
        return f"On {images} the model detects {detected} of {detected + missed} objects and regions with {alarms}"

    def write_plots(self, folder: Path) -> None:
        """Plot the PQ of each class."""
        from d2tune.report.plots import bar_plots

        bars = [bar for bar in self.bars() if bar.value is not None]
        if bars:
            bar_plots.write_class_metric(
                folder / "class_pq.png",
                bars,
                mean=self.main.value,
                subtitle=counted_images(self.images),
                metric_name="PQ",
            )

    def _class_rows(self) -> tuple[list[str], list[list[str]]]:
        header = ["class", "kind", "detected", "false", "missed", "PQ", "SQ", "RQ"]
        rows = [
            [row["name"], "thing" if row["isthing"] else "stuff", str(row["tp"]), str(row["fp"]), str(row["fn"])]
            + [str(row["metrics"][name]) for name in ("PQ", "SQ", "RQ")]
            for row in self.classes
            if row["tp"] + row["fp"] + row["fn"]
        ]
        return header, rows


def panoptic_metrics(scorer: PanopticScorer, *, intervals: bool) -> PanopticMetrics:
    """The metrics of all images that were added to a scorer.

    Args:
        scorer: A scorer with all images added.
        intervals: Whether each metric gets its 95 % bootstrap interval over the images.
    """
    result = scorer.result()
    return PanopticMetrics(
        result.images,
        with_spans(result.metrics, scorer.resample, scorer.images) if intervals else result.metrics,
        plain_rows(result.classes),
        REPLICATES if intervals else 0,
    )
